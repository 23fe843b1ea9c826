"""`pull` from HTTPS, S3 and Kaggle, against servers on loopback."""

import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from emotion_yolo.data.cards import DatasetCard, load_card
from emotion_yolo.data.sets import read_sets
from emotion_yolo.errors import ArchiveError, SourceError, StorageError
from emotion_yolo.sources import downloads, pull
from emotion_yolo.sources.downloads import CHUNK_BYTES, PartialFile, base_name, fetch_url, public_url
from emotion_yolo.sources.kaggle import fetch_kaggle
from tests.pull_builders import (
    FileServer,
    RecordedProgress,
    commit,
    files_of,
    git,
    pictures_of,
    serving,
    write_crops,
    write_fer2013,
    zip_folder,
)

# pygtrie, which DVC stands on, warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write_crops(tmp_path / "set/YOLO_format", per_split=4)
    return zip_folder(tmp_path / "set", tmp_path / "faces.zip")


@pytest.fixture
def server(archive: Path) -> Iterator[FileServer]:
    with serving() as running:
        running.content = archive.read_bytes()
        yield running


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_PAUSE_SECONDS", 0.0)


def source_in(project: Path) -> dict[str, str]:
    (record,) = read_sets(project / "data.dvc").values()
    return record.source


class TestDownload:
    def test_fetches_the_file(self, server: FileServer, tmp_path: Path) -> None:
        progress = RecordedProgress()
        path = fetch_url(f"{server.address}/faces.zip", tmp_path / "d", progress=progress)
        assert path.read_bytes() == server.content
        assert path.name.endswith("-faces.zip")
        assert (progress.titles, progress.total, progress.done) == (
            ["Downloading faces.zip"],
            len(server.content),
            len(server.content),
        )

    def test_goes_on_where_the_connection_broke_off(self, server: FileServer, tmp_path: Path) -> None:
        server.content, server.break_off_after = os.urandom(5 * CHUNK_BYTES), [2 * CHUNK_BYTES + 1, CHUNK_BYTES]
        progress = RecordedProgress()
        path = fetch_url(f"{server.address}/a.zip", tmp_path, progress=progress)
        assert path.read_bytes() == server.content
        begins = [2 * CHUNK_BYTES, 3 * CHUNK_BYTES]
        assert [wanted for _, _, wanted in server.requests] == [None, *(f"bytes={begin}-" for begin in begins)]
        assert progress.initials == [0, *begins]

    def test_goes_on_in_a_later_run(self, server: FileServer, tmp_path: Path) -> None:
        url = f"{server.address}/a.zip"
        server.content = os.urandom(2 * CHUNK_BYTES)
        interrupt = RecordedProgress("Downloading", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            fetch_url(url, tmp_path, progress=interrupt)
        assert PartialFile.of(tmp_path, url).size == CHUNK_BYTES
        assert fetch_url(url, tmp_path, progress=RecordedProgress()).read_bytes() == server.content
        assert server.requests[-1][2] == f"bytes={CHUNK_BYTES}-"

    def test_does_not_fetch_twice_what_is_complete(self, server: FileServer, tmp_path: Path) -> None:
        url = f"{server.address}/a.zip"
        fetch_url(url, tmp_path, progress=RecordedProgress())
        progress = RecordedProgress()
        assert fetch_url(url, tmp_path, progress=progress).read_bytes() == server.content
        assert progress.titles == []

    def test_begins_anew_when_the_original_changed(self, server: FileServer, tmp_path: Path) -> None:
        url = f"{server.address}/a.zip"
        fetch_url(url, tmp_path, progress=RecordedProgress())
        server.content, server.etag = b"another file", '"two"'
        assert fetch_url(url, tmp_path, progress=RecordedProgress()).read_bytes() == b"another file"

    def test_begins_anew_when_a_careless_server_changed_the_file(self, server: FileServer, tmp_path: Path) -> None:
        """One that ignores If-Range and would send the rest of another file."""
        url = f"{server.address}/a.zip"
        part = PartialFile.of(tmp_path, url)
        part.restart('"zero"')
        part.path.write_bytes(b"old")
        server.etag = '"one"'
        server.careless = True
        assert fetch_url(url, tmp_path, progress=RecordedProgress()).read_bytes() == server.content
        part.path.write_bytes(server.content + b"longer than the original")
        assert fetch_url(url, tmp_path, progress=RecordedProgress()).read_bytes() == server.content

    def test_begins_anew_at_a_server_without_ranges(self, server: FileServer, tmp_path: Path) -> None:
        server.ranges, server.break_off_after = False, [1000]
        assert fetch_url(f"{server.address}/a", tmp_path, progress=RecordedProgress()).read_bytes() == server.content

    @pytest.mark.parametrize("etag", [None, 'W/"weak"'])
    def test_begins_anew_when_nothing_says_which_version_it_was(
        self, server: FileServer, tmp_path: Path, etag: str | None
    ) -> None:
        server.etag, server.break_off_after = etag, [1000]
        assert fetch_url(f"{server.address}/a", tmp_path, progress=RecordedProgress()).read_bytes() == server.content
        assert [wanted for _, _, wanted in server.requests] == [None, None]

    def test_does_not_trust_a_note_it_cannot_read(self, server: FileServer, tmp_path: Path) -> None:
        part = PartialFile.of(tmp_path, f"{server.address}/a")
        part.restart("x")
        part.path.write_bytes(b"junk")
        part.files[1].write_text("no JSON")
        assert fetch_url(f"{server.address}/a", tmp_path, progress=RecordedProgress()).read_bytes() == server.content

    def test_tries_again_when_the_server_is_busy(self, server: FileServer, tmp_path: Path) -> None:
        server.statuses = [503, 429]
        assert fetch_url(f"{server.address}/a", tmp_path, progress=RecordedProgress()).read_bytes() == server.content

    def test_gives_up_on_a_server_that_stays_broken(self, server: FileServer, tmp_path: Path) -> None:
        server.statuses = [500] * 9
        with pytest.raises(
            SourceError, match=r"500 Server Error.* after 0 bytes; .*emotion-yolo pull path/to/file\.zip"
        ):
            fetch_url(f"{server.address}/a", tmp_path)
        assert len(server.requests) == downloads.ATTEMPTS

    @pytest.mark.parametrize(("status", "hint"), [(403, "ask for access"), (404, "check the address"), (451, "check")])
    def test_says_what_a_refusal_means(self, server: FileServer, tmp_path: Path, status: int, hint: str) -> None:
        server.statuses = [status]
        with pytest.raises(SourceError, match=f"answered {status} .*{hint}"):
            fetch_url(f"{server.address}/a?token=secret", tmp_path)

    def test_says_when_nobody_answers(self, tmp_path: Path) -> None:
        with serving() as gone:
            address = gone.address
        with pytest.raises(SourceError, match="no connection, or it was lost"):
            fetch_url(f"{address}/a.zip", tmp_path)

    def test_says_when_the_answer_takes_too_long(
        self, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(downloads, "_TIMEOUT_SECONDS", (1, 0.05))
        server.silent = True
        with pytest.raises(SourceError, match="the server does not answer"):
            fetch_url(f"{server.address}/a.zip", tmp_path)

    @pytest.mark.parametrize("url", ["http://example.org/a.zip", "http://10.0.0.1/a.zip"])
    def test_refuses_plain_http_beyond_this_machine(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(SourceError, match="got a http address, expected https"):
            fetch_url(url, tmp_path)

    def test_checks_room_before_the_first_byte(self, server: FileServer, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="9 B free"):
            fetch_url(f"{server.address}/a", tmp_path, progress=RecordedProgress(), free=lambda _: 9)
        assert PartialFile.of(tmp_path, f"{server.address}/a").size == 0

    def test_keeps_secrets_out_of_what_it_records(self) -> None:
        url = "https://me:pass@example.org:8443/a%20b.zip?X-Amz-Signature=abc#x"
        assert public_url(url) == "https://example.org:8443/a%20b.zip"
        assert base_name(url) == "a_b.zip"
        assert base_name("https://example.org") == "download"

    def test_is_pulled_and_pinned(self, project: Path, server: FileServer) -> None:
        report = pull(f"{server.address}/faces.zip?key=secret", root=project, progress=RecordedProgress())
        assert report.sets[0].landed == 12
        source = source_in(project)
        assert source["url"] == f"{server.address}/faces.zip"
        assert len(source["sha256"]) == 64
        assert [path.name for path in (project / ".downloads").iterdir()] == ["lock"]

    def test_does_not_keep_a_download_that_is_no_archive(self, project: Path, server: FileServer) -> None:
        good, server.content = server.content, b"<html>please sign in</html>"
        with pytest.raises(ArchiveError, match="no zip archive"):
            pull(f"{server.address}/a.zip", root=project, progress=RecordedProgress())
        server.content = good
        pull(f"{server.address}/a.zip", root=project, progress=RecordedProgress())


def upload(client: Any, folder: Path, prefix: str) -> None:
    for name, content in files_of(folder).items():
        client.put_object(Bucket="faces", Key=f"{prefix}{name}", Body=content)


class TestS3:
    def test_pulls_a_zip(self, project: Path, archive: Path, s3: Any) -> None:
        s3.put_object(Bucket="faces", Key="sets/faces.zip", Body=archive.read_bytes())
        report = pull("s3://faces/sets/faces.zip", root=project, progress=RecordedProgress())
        assert report.sets[0].landed == 12
        assert source_in(project)["uri"] == "s3://faces/sets/faces.zip"
        assert [path.name for path in (project / ".downloads").iterdir()] == ["lock"]

    def test_goes_on_with_a_zip_where_it_stopped(self, project: Path, archive: Path, s3: Any) -> None:
        content = archive.read_bytes()
        etag = s3.put_object(Bucket="faces", Key="faces.zip", Body=content)["ETag"]
        (project / ".downloads").mkdir()
        part = PartialFile.of(project / ".downloads", "s3://faces/faces.zip")
        part.restart(etag)
        part.path.write_bytes(content[:700])
        progress = RecordedProgress()
        pull("s3://faces/faces.zip", root=project, progress=progress)
        assert progress.initials[0] == 700

    def test_begins_anew_when_the_zip_changed(self, project: Path, archive: Path, s3: Any) -> None:
        s3.put_object(Bucket="faces", Key="faces.zip", Body=archive.read_bytes())
        (project / ".downloads").mkdir()
        part = PartialFile.of(project / ".downloads", "s3://faces/faces.zip")
        part.restart('"of another time"')
        part.path.write_bytes(b"old bytes")
        pull("s3://faces/faces.zip", root=project, progress=RecordedProgress())

    def test_pulls_a_folder(self, project: Path, tmp_path: Path, s3: Any) -> None:
        upload(s3, write_crops(tmp_path / "crops"), "sets/crops/")
        s3.put_object(Bucket="faces", Key="sets/crops/train/", Body=b"")  # as consoles mark a folder
        pull("s3://faces/sets/crops/", root=project, progress=RecordedProgress())
        assert pictures_of(project / "data/crops") == pictures_of(tmp_path / "crops")
        assert source_in(project)["uri"] == "s3://faces/sets/crops/"

    def test_pulls_a_table(self, project: Path, tmp_path: Path, s3: Any) -> None:
        table = write_fer2013(tmp_path / "fer2013.csv", ["Training"] * 3 + ["PublicTest", "PrivateTest"])
        s3.put_object(Bucket="faces", Key="fer2013.csv", Body=table.read_bytes())
        report = pull("s3://faces/fer2013.csv", root=project, progress=RecordedProgress())
        assert (report.sets[0].record.name, report.sets[0].landed) == ("fer2013", 5)

    def test_goes_on_with_a_folder_where_it_stopped(self, project: Path, tmp_path: Path, s3: Any) -> None:
        upload(s3, write_crops(tmp_path / "crops"), "crops/")
        with pytest.raises(KeyboardInterrupt):
            pull("s3://faces/crops/", root=project, progress=RecordedProgress("Downloading", KeyboardInterrupt()))
        assert not (project / "data").exists()
        progress = RecordedProgress()
        pull("s3://faces/crops/", root=project, progress=progress)
        assert progress.initials[0] > 0
        assert pictures_of(project / "data/crops") == pictures_of(tmp_path / "crops")

    def test_refuses_a_key_that_leaves_the_folder(self, project: Path, s3: Any) -> None:
        s3.put_object(Bucket="faces", Key="crops/../../evil.txt", Body=b"evil")
        with pytest.raises(ArchiveError, match="leaves the folder"):
            pull("s3://faces/crops/", root=project, progress=RecordedProgress())

    @pytest.mark.parametrize(
        ("uri", "words"),
        [
            ("s3://faces/none.zip", "answered 404; check bucket and key"),
            ("s3://nowhere/none.zip", "answered 404"),
            ("s3://nowhere/none/", "answered NoSuchBucket; check the bucket's name"),
            ("s3://faces/none/", "no objects there"),
            ("s3://faces", "expected s3://bucket/archive.zip"),
            ("s3://Not_A_Bucket!/a.zip", "Invalid bucket name"),
        ],
    )
    @pytest.mark.usefixtures("s3")
    def test_says_what_is_wrong(self, project: Path, uri: str, words: str) -> None:
        with pytest.raises(SourceError, match=words):
            pull(uri, root=project)

    @pytest.mark.usefixtures("s3")
    def test_says_that_credentials_are_missing(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        with pytest.raises(SourceError, match="no AWS credentials"):
            pull("s3://faces/a.zip", root=project)

    @pytest.mark.usefixtures("s3")
    def test_says_that_there_is_no_server(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving() as gone:
            monkeypatch.setenv("AWS_ENDPOINT_URL", gone.address)
        with pytest.raises(SourceError, match="check the network and AWS_ENDPOINT_URL"):
            pull("s3://faces/a.zip", root=project)

    def test_checks_room_before_the_first_byte(self, project: Path, archive: Path, s3: Any) -> None:
        s3.put_object(Bucket="faces", Key="faces.zip", Body=archive.read_bytes())
        with pytest.raises(StorageError, match="free some space"):
            pull("s3://faces/faces.zip", root=project, free=lambda _: 9)

    @pytest.mark.parametrize("source", ["sample", "zip"])
    def test_dvc_pushes_the_data_there_and_a_clone_pulls_them(
        self, project: Path, archive: Path, tmp_path: Path, s3: Any, source: str
    ) -> None:
        pull("sample" if source == "sample" else str(archive), root=project, progress=RecordedProgress())
        config = {"remote": {"store": {"url": "s3://faces/dvc", "endpointurl": s3.meta.endpoint_url}}}
        with Repo(str(project)) as repo, repo.config.edit("repo") as edited:
            edited.update(config | {"core": {"remote": "store"}})
        with Repo(str(project)) as repo:
            assert repo.push() > 0
        commit(project, "data")
        git(tmp_path, "clone", "-q", str(project), "clone")
        with Repo(str(tmp_path / "clone")) as repo:
            repo.pull()
            assert repo.status() == {}
        assert files_of(tmp_path / "clone/data") == files_of(project / "data")


@pytest.fixture
def kaggle_server(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FileServer:
    """Kaggle on loopback.

    kagglesdk 0.1 knows no variable for a free endpoint; KAGGLE_API_ENVIRONMENT=LOCALHOST makes it plain HTTP on
    localhost, and a proxy variable brings that here. The API redirects to a store, as Kaggle's does.
    """
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    server.redirect_path = "/DownloadDataset"
    server.redirect_to = "http://store.example/archive.zip"
    return server


KAGGLEHUB_CHUNK = 1 << 20


def large(archive: Path) -> bytes:
    """Return the archive with a file that makes it several of kagglehub's chunks long."""
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("padding.bin", os.urandom(2 * KAGGLEHUB_CHUNK), zipfile.ZIP_STORED)
    return archive.read_bytes()


class TestKaggle:
    def test_pulls_the_pinned_version(self, project: Path, kaggle_server: FileServer) -> None:
        report = pull("affectnet", root=project, progress=RecordedProgress())
        assert report.sets[0].record.card == "affectnet"
        assert source_in(project) == {"kind": "kaggle", "handle": "fatihkgg/affectnet-yolo-format/versions/1"}
        assert "train/anger: 1 pictures, the card says 2,339" in report.sets[0].differences
        method, path, _ = kaggle_server.requests[0]
        assert (method, path.rsplit("/", 1)[1]) == ("POST", "DownloadDataset")
        assert [path.name for path in (project / ".downloads").iterdir()] == ["lock"]

    def test_goes_on_where_the_connection_broke_off(
        self, project: Path, kaggle_server: FileServer, archive: Path
    ) -> None:
        kaggle_server.content = large(archive)
        kaggle_server.break_off_after = [KAGGLEHUB_CHUNK + 1]
        pull("affectnet", root=project, progress=RecordedProgress())
        assert f"bytes={KAGGLEHUB_CHUNK}-" in [wanted for _, _, wanted in kaggle_server.requests]

    def test_goes_on_in_a_later_run(self, project: Path, kaggle_server: FileServer, archive: Path) -> None:
        kaggle_server.content = large(archive)
        kaggle_server.break_off_after = [KAGGLEHUB_CHUNK + 1] + [0] * 9
        with pytest.raises(SourceError, match="the connection was lost"):
            pull("affectnet", root=project, progress=RecordedProgress())
        kaggle_server.break_off_after = []
        before = len(kaggle_server.requests)
        pull("affectnet", root=project, progress=RecordedProgress())
        later = [wanted for _, _, wanted in kaggle_server.requests[before:]]
        assert f"bytes={KAGGLEHUB_CHUNK}-" in later

    @pytest.mark.parametrize("status", [401, 403, 404, 500])
    def test_a_refusal_says_how_to_get_the_file_by_hand(
        self, project: Path, kaggle_server: FileServer, status: int
    ) -> None:
        kaggle_server.statuses = [status] * 9
        words = rf"Kaggle answered {status}\. By hand: open https://www\.kaggle\.com/datasets/fatihkgg.*"
        with pytest.raises(SourceError, match=words + r"emotion-yolo pull path/to/archive\.zip"):
            pull("affectnet", root=project)

    @pytest.mark.usefixtures("kaggle_server")
    def test_no_network_says_how_to_get_the_file_by_hand(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving() as gone:
            monkeypatch.setenv("http_proxy", gone.address)
        with pytest.raises(SourceError, match=r"cannot be reached.*By hand: open"):
            pull("affectnet", root=project)

    def test_what_is_no_archive_is_not_kept(self, project: Path, kaggle_server: FileServer) -> None:
        good, kaggle_server.content = kaggle_server.content, b"no archive"
        with pytest.raises(ArchiveError, match="sent no sound archive"):
            pull("affectnet", root=project)
        kaggle_server.content = good
        pull("affectnet", root=project, progress=RecordedProgress())

    def test_an_error_of_kagglehub_itself_is_passed_on(self, project: Path, kaggle_server: FileServer) -> None:
        kaggle_server.extra_headers = {"x-goog-hash": "md5=AAAAAAAAAAAAAAAAAAAAAA=="}
        with pytest.raises(SourceError, match=r"kagglehub says: .*MD5 checksum"):
            pull("affectnet", root=project)

    @pytest.mark.usefixtures("kaggle_server")
    def test_says_when_its_cache_cannot_be_written(self, project: Path) -> None:
        (project / ".downloads/kaggle").mkdir(parents=True)
        (project / ".downloads/kaggle/datasets").write_text("in the way")
        with pytest.raises(StorageError, match="move what is in the way"):
            pull("affectnet", root=project)

    def test_checks_room_before_it_asks(self, project: Path, kaggle_server: FileServer) -> None:
        with pytest.raises(StorageError, match=r"free, expected at least 259\.7 MB"):
            pull("affectnet", root=project, free=lambda _: 200_000_000)
        assert kaggle_server.requests == []

    @pytest.mark.usefixtures("kaggle_server")
    def test_leaves_the_environment_as_it_was(
        self, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KAGGLEHUB_CACHE", "mine")
        card = load_card(project / "configs/datasets/affectnet.yaml")
        folder = fetch_kaggle(card, tmp_path / "cache")
        assert folder.is_relative_to(tmp_path / "cache")
        assert (folder / "YOLO_format/data.yaml").is_file()
        assert os.environ["KAGGLEHUB_CACHE"] == "mine"

    @pytest.mark.usefixtures("kaggle_server")
    def test_kagglehub_draws_nothing_where_there_is_no_terminal(
        self, project: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        pull("affectnet", root=project)
        printed, told = capfd.readouterr()
        assert printed == ""
        assert [line for line in told.splitlines() if not re.fullmatch(r"Landing affectnet: \d+ of 12", line)] == []

    def test_a_card_without_a_handle_is_refused(self, tmp_path: Path) -> None:
        card = DatasetCard(name="a", title="", origin="", licence="", citation="", classes=("face",))
        with pytest.raises(SourceError, match="names no Kaggle handle"):
            fetch_kaggle(card, tmp_path)
