"""`pull` from the sample, folders and zips, in a real git and DVC repository."""

import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from emotion_yolo.data.sets import SetRecord, class_ids, read_sets
from emotion_yolo.errors import ArchiveError, LayoutError, SourceError, StorageError
from emotion_yolo.sources import Choices, pull, remove
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from tests.pull_builders import (
    RecordedProgress,
    commit,
    files_of,
    git,
    pictures_of,
    write_crops,
    write_scenes,
    zip_folder,
)

# pygtrie, which DVC stands on, warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    return write_crops(tmp_path / "mine/YOLO_format", seed=5).parent


def state(project: Path) -> tuple[dict[str, bytes], bytes]:
    return files_of(project / "data"), (project / "data.dvc").read_bytes()


def pin_of(project: Path) -> dict[str, object]:
    pin: dict[str, object] = yaml.safe_load((project / "data.dvc").read_text())
    return pin


def sets_of(project: Path) -> dict[str, SetRecord]:
    return read_sets(project / "data.dvc")


def dvc(root: Path, *arguments: str) -> str:
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


class TestSample:
    def test_becomes_an_unfrozen_import(self, project: Path) -> None:
        report = pull("sample", root=project, progress=RecordedProgress())
        pin = pin_of(project)
        assert files_of(project / "data") == files_of(project / "datasets/sample")
        assert pin["deps"][0]["path"] == "datasets/sample"
        assert "frozen" not in pin
        assert report.pin == pin["outs"][0]["md5"]
        crops, scenes = sets_of(project).values()
        assert (crops.name, crops.card, crops.boxes, crops.emotions) == ("sample", "sample", "frame", "named")
        assert (scenes.name, scenes.card, scenes.boxes, scenes.emotions) == (
            "sample-scenes", "sample-scenes", "tight", "unnamed"
        )  # fmt: skip
        assert crops.licence == scenes.licence == "CC0-1.0"
        assert crops.pictures["train"] == dict.fromkeys(NAMES, 1)
        assert scenes.pictures == {"all": {"face": 2}}
        assert [one.landed for one in report.sets] == [24, 2]
        assert report.bytes == sum(map(len, files_of(project / "data").values()))
        with Repo(str(project)) as repo:
            assert repo.status() == {}

    def test_pulled_again_changes_nothing(self, pulled: Path) -> None:
        before = state(pulled)
        assert pull("sample", root=pulled, progress=RecordedProgress()).notes == ()
        assert state(pulled) == before
        assert git(pulled, "status", "--porcelain") == ""

    def test_comes_to_a_fresh_clone_by_repro_without_a_remote(self, pulled: Path, tmp_path: Path) -> None:
        stage = {"cmd": "ls data/sample > listing", "deps": ["data"], "outs": ["listing"]}
        (pulled / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare": stage}}))
        commit(pulled, "graph")
        git(tmp_path, "clone", "-q", str(pulled), "clone")
        dvc(tmp_path / "clone", "repro")
        assert files_of(tmp_path / "clone/data") == files_of(pulled / "data")
        assert (tmp_path / "clone/listing").read_text().split() == ["data.yaml", "test", "train", "valid"]
        assert "data.dvc" in dvc(tmp_path / "clone", "dag")

    def test_is_staged_whole_where_dvc_is_asked_to(self, project: Path) -> None:
        (project / ".dvc/config").write_text("[core]\nautostage = true\n")
        pull("sample", root=project, progress=RecordedProgress())
        assert git(project, "show", ":data.dvc") == (project / "data.dvc").read_text()

    def test_says_how_to_make_a_sample_that_is_missing(self, project: Path) -> None:
        (project / "datasets/sample").rename(project / "elsewhere")
        with pytest.raises(SourceError, match="emotion-yolo sample datasets/sample"):
            pull("sample", root=project)

    def test_with_other_sets_beside_it_is_added_instead(self, project: Path, crops: Path) -> None:
        pull("sample", root=project, progress=RecordedProgress())
        commit(project, "sample")
        pull(str(crops), root=project, add=True, progress=RecordedProgress())
        assert "deps" not in pin_of(project)
        pull("sample", root=project, add=True, progress=RecordedProgress())
        assert list(sets_of(project)) == ["mine", "sample", "sample-scenes"]


class TestFolderAndArchive:
    def test_a_folder_is_copied_and_added(self, pulled: Path, crops: Path) -> None:
        source = files_of(crops)
        report = pull(str(crops), root=pulled, progress=RecordedProgress())
        assert files_of(crops) == source
        assert pictures_of(pulled / "data/mine") == pictures_of(crops / "YOLO_format")
        (record,) = sets_of(pulled).values()
        assert record.source == {"kind": "folder", "name": "mine"}
        assert record.pictures["test"] == {"anger": 1, "contempt": 1, "disgust": 1}
        assert record.licence.startswith("unknown")
        assert (record.boxes, record.emotions, record.dealt, record.tag) == ("frame", "named", None, "mine")
        assert class_ids(record, pulled / "data/mine") == {number: number for number in range(8)}
        assert report.notes == ()

    @pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
    def test_an_archive_is_unpacked_and_pinned_by_its_digest(
        self, project: Path, crops: Path, tmp_path: Path, suffix: str
    ) -> None:
        archive = tmp_path / f"affectnet-mine.{suffix}"
        if suffix == "zip":
            zip_folder(crops, archive)
        else:
            with tarfile.open(archive, f"w:{suffix.replace('tgz', 'gz').rpartition('.')[2].replace('tar', '')}") as tar:
                tar.add(crops, ".")
        progress = RecordedProgress()
        report = pull(str(archive), root=project, progress=progress)
        assert pictures_of(project / "data/affectnet") == pictures_of(crops / "YOLO_format")
        (record,) = sets_of(project).values()
        assert (record.source["kind"], record.source["name"]) == ("archive", archive.name)
        assert len(record.source["sha256"]) == 64
        assert str(tmp_path) not in (project / "data.dvc").read_text()
        assert progress.titles == [f"Unpacking {archive.name}", "Landing affectnet"]
        assert [path.name for path in (project / ".downloads").iterdir()] == ["lock"]
        # by its name it is AffectNet, but not all of it
        assert record.card == "affectnet"
        assert record.source_tag("ffhq_1.jpg") == "ffhq"
        assert record.source_tag("image1.jpg") == "affectnet-other"
        assert "train/anger: 1 pictures, the card says 2,339" in report.sets[0].differences
        assert any("non-commercial research only" in line for line in report.lines())

    def test_a_zip_written_with_backslashes_is_unpacked(self, project: Path, crops: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "windows.zip", "w") as zipped:
            for name, content in files_of(crops).items():
                zipped.writestr(name.replace("/", "\\"), content)
        pull(str(tmp_path / "windows.zip"), root=project, progress=RecordedProgress())
        assert pictures_of(project / "data/windows") == pictures_of(crops / "YOLO_format")

    def test_a_file_of_no_known_kind_says_which_are_known(self, project: Path, tmp_path: Path) -> None:
        (tmp_path / "faces.rar").write_bytes(b"Rar!")
        with pytest.raises(ArchiveError, match=r"got a \.rar, expected a folder, \.zip, \.tar.*unpack it yourself"):
            pull(str(tmp_path / "faces.rar"), root=project)

    def test_a_card_is_recognised_by_its_counts(self, project: Path, crops: Path) -> None:
        card = yaml.safe_load((project / "configs/datasets/affectnet.yaml").read_text())
        counts = {"Anger": 1, "Contempt": 1, "Disgust": 1}
        card |= {"name": "tiny", "counts": dict.fromkeys(("train", "valid", "test"), counts)}
        (project / "configs/datasets/tiny.yaml").write_text(yaml.safe_dump(card))
        report = pull(str(crops), root=project, progress=RecordedProgress())
        assert (report.sets[0].record.card, report.sets[0].differences) == ("tiny", ())

    def test_a_card_can_be_named(self, project: Path, crops: Path) -> None:
        report = pull(str(crops), root=project, choices=Choices(card="affectnet"), progress=RecordedProgress())
        assert report.sets[0].record.card == "affectnet"
        with pytest.raises(LayoutError, match="no dataset card 'affektnet'; expected one of affectnet, "):
            pull(str(crops), root=project, choices=Choices(card="affektnet"))

    def test_photographs_of_a_card_that_says_so_are_left_for_prepare_to_deal(
        self, project: Path, tmp_path: Path
    ) -> None:
        write_scenes(tmp_path / "x/wider_face")
        archive = zip_folder(tmp_path / "x", tmp_path / "wider-face-subset.zip")
        report = pull(str(archive), root=project, progress=RecordedProgress())
        assert yaml.safe_load((project / "data/wider-face/data.yaml").read_text())["names"] == {0: "face"}
        assert pictures_of(project / "data/wider-face/all") == pictures_of(tmp_path / "x/wider_face")
        (record,) = sets_of(project).values()
        assert (record.card, record.boxes, record.emotions, record.dealt) == ("wider-face", "tight", "unnamed", None)
        assert record.pictures == {"all": {"face": 2}}
        assert class_ids(record, project / "data/wider-face") == {0: FACE_ID}
        assert report.lines()[0].startswith(
            "wider-face: from wider-face-subset.zip, boxes around faces, emotions unnamed"
        )

    def test_pulled_again_changes_nothing(self, project: Path, crops: Path) -> None:
        pull(str(crops), root=project, progress=RecordedProgress())
        before = state(project)
        pull(str(crops), root=project, progress=RecordedProgress())
        assert state(project) == before

    def test_relative_paths_are_the_callers(self, project: Path, crops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(crops)
        pull("YOLO_format", root=project, progress=RecordedProgress())
        assert sets_of(project)["yolo-format"].source == {"kind": "folder", "name": "YOLO_format"}

    def test_going_back_in_git_brings_the_old_data_back(self, pulled: Path, crops: Path) -> None:
        old = files_of(pulled / "data")
        pull(str(crops), root=pulled, progress=RecordedProgress())
        commit(pulled, "mine")
        new = files_of(pulled / "data")
        git(pulled, "checkout", "-q", "HEAD~1")
        with Repo(str(pulled)) as repo:
            repo.checkout()
        assert files_of(pulled / "data") == old
        git(pulled, "checkout", "-q", "main")
        with Repo(str(pulled)) as repo:
            repo.checkout()
        assert files_of(pulled / "data") == new

    def test_old_data_that_only_the_workspace_has_are_saved_first(self, pulled: Path, crops: Path) -> None:
        old = files_of(pulled / "data")
        subprocess.run(["rm", "-rf", str(pulled / ".dvc/cache")], check=True)
        pull(str(crops), root=pulled, progress=RecordedProgress())
        git(pulled, "checkout", "-q", "data.dvc")
        with Repo(str(pulled)) as repo:
            repo.checkout()
        assert files_of(pulled / "data") == old


def a_folder_of_another_layout(folder: Path) -> Path:
    (folder / "pictures").mkdir(parents=True)
    return folder


def a_set_of_other_classes(folder: Path) -> Path:
    return write_crops(folder, names=["cat", "dog"])


def an_empty_zip(folder: Path) -> Path:
    zipfile.ZipFile(folder.with_suffix(".zip"), "w").close()
    return folder.with_suffix(".zip")


def a_truncated_zip(folder: Path) -> Path:
    archive = zip_folder(write_crops(folder), folder.with_suffix(".zip"))
    archive.write_bytes(archive.read_bytes()[:2000])
    return archive


def a_zip_that_leaves_its_folder(folder: Path) -> Path:
    archive = zip_folder(write_crops(folder), folder.with_suffix(".zip"))
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr("../../../data/evil.txt", "evil")
    return archive


def no_source_at_all(folder: Path) -> Path:
    return folder


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "error"),
        [
            (a_folder_of_another_layout, LayoutError),
            (a_set_of_other_classes, LayoutError),
            (an_empty_zip, ArchiveError),
            (a_truncated_zip, ArchiveError),
            (a_zip_that_leaves_its_folder, ArchiveError),
            (no_source_at_all, SourceError),
        ],
    )
    @pytest.mark.parametrize("add", [False, True])
    def test_a_bad_source_leaves_the_old_data(
        self, pulled: Path, tmp_path: Path, make: Callable[[Path], Path], error: type[Exception], add: bool
    ) -> None:
        before, bad = state(pulled), str(make(tmp_path / "bad"))
        with pytest.raises(error):
            pull(bad, root=pulled, add=add, progress=RecordedProgress())
        assert state(pulled) == before
        assert [path.name for path in (pulled / ".downloads").iterdir()] == ["lock"]

    def test_a_source_of_no_known_kind_lists_the_known_ones(self, project: Path) -> None:
        with pytest.raises(
            SourceError, match=r"afectnet: no such source; expected sample, affectnet, fer2013, a folder, an archive"
        ):
            pull("afectnet", root=project)

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ("http:set.zip", "no such source"),
            ("https://[example/set.zip", "address cannot be read"),
            ("https://example:99999/set.zip", "address cannot be read"),
        ],
    )
    def test_what_only_looks_like_an_address_is_refused(self, project: Path, source: str, words: str) -> None:
        with pytest.raises(SourceError, match=words):
            pull(source, root=project)

    def test_data_changed_by_hand_are_not_replaced(self, pulled: Path, crops: Path) -> None:
        (pulled / "data/sample/train/labels/0.txt").write_text("1 0.5 0.5 1 1\n")
        before = state(pulled)
        with pytest.raises(SourceError, match=r"changed by hand.* dvc add data.*--force"):
            pull(str(crops), root=pulled)
        assert state(pulled) == before

    def test_data_that_nobody_pinned_are_not_replaced(self, project: Path, crops: Path) -> None:
        (project / "data").mkdir()
        (project / "data/mine.txt").write_text("mine")
        with pytest.raises(SourceError, match=r"not pinned by data\.dvc"):
            pull(str(crops), root=project)
        assert files_of(project / "data") == {"mine.txt": b"mine"}

    def test_force_moves_data_that_nobody_pinned_out_of_the_way(self, project: Path, crops: Path) -> None:
        (project / "data").mkdir()
        (project / "data/mine.txt").write_text("mine")
        report = pull(str(crops), root=project, force=True, progress=RecordedProgress())
        (kept,) = (project / ".downloads").glob("replaced-*")
        assert (kept / "data/mine.txt").read_text() == "mine"
        assert any(kept.name in note for note in report.notes)
        assert "mine.txt" not in files_of(project / "data")

    def test_a_folder_that_is_no_dvc_repository_is_refused(self, tmp_path: Path, crops: Path) -> None:
        with pytest.raises(SourceError, match="DVC refuses: you are not inside of a DVC repository"):
            pull(str(crops), root=tmp_path)

    def test_only_the_root_of_the_repository_will_do(self, project: Path, crops: Path) -> None:
        with pytest.raises(SourceError, match="not the root of the DVC repository"):
            pull(str(crops), root=project / "datasets")

    def test_a_graph_that_dvc_refuses_leaves_the_old_data(self, pulled: Path, crops: Path) -> None:
        before = state(pulled)
        (pulled / "other.dvc").write_text("outs:\n- path: data/sample\n")
        with pytest.raises(SourceError, match="DVC refuses"):
            pull(str(crops), root=pulled, progress=RecordedProgress())
        assert state(pulled) == before


class TestDisk:
    def test_room_is_checked_before_anything_is_unpacked(self, pulled: Path, crops: Path, tmp_path: Path) -> None:
        archive, before, progress = zip_folder(crops, tmp_path / "a.zip"), state(pulled), RecordedProgress()
        needed = 2 * sum(map(len, files_of(crops).values()))  # unpacked, and in DVC's cache
        with pytest.raises(StorageError, match="free some space"):
            pull(str(archive), root=pulled, progress=progress, free=lambda _: needed - 1)
        assert progress.titles == []
        assert state(pulled) == before
        pull(str(archive), root=pulled, progress=progress, free=lambda _: needed)

    @pytest.mark.parametrize("source", ["folder", "sample"])
    def test_room_is_checked_before_anything_is_copied(self, pulled: Path, crops: Path, source: str) -> None:
        before, progress = state(pulled), RecordedProgress()
        with pytest.raises(StorageError, match="999 B free"):
            pull(source if source == "sample" else str(crops), root=pulled, progress=progress, free=lambda _: 999)
        assert progress.titles == []
        assert state(pulled) == before

    def test_a_disk_that_fills_while_unpacking_leaves_the_old_data(
        self, pulled: Path, crops: Path, tmp_path: Path
    ) -> None:
        archive, before = zip_folder(crops, tmp_path / "a.zip"), state(pulled)
        full = RecordedProgress("Unpacking", OSError(28, "No space left on device"))
        with pytest.raises(StorageError, match="the disk is full"):
            pull(str(archive), root=pulled, progress=full)
        assert state(pulled) == before

    def test_a_cache_that_cannot_be_written_leaves_the_old_data(
        self, pulled: Path, crops: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        (pulled / ".dvc/config.local").write_text(f"[cache]\ndir = {tmp_path}/file/cache\n")
        before = state(pulled)
        with pytest.raises(SourceError):
            pull(str(crops), root=pulled, progress=RecordedProgress())
        assert state(pulled) == before


class TestInterruption:
    @pytest.mark.parametrize("moment", ["Unpacking", "Landing"])
    def test_leaves_the_old_data_and_nothing_else(self, pulled: Path, crops: Path, tmp_path: Path, moment: str) -> None:
        archive, before = zip_folder(crops, tmp_path / "a.zip"), state(pulled)
        with pytest.raises(KeyboardInterrupt):
            pull(str(archive), root=pulled, progress=RecordedProgress(moment, KeyboardInterrupt()))
        assert state(pulled) == before
        assert [path.name for path in (pulled / ".downloads").iterdir()] == ["lock"]

    def test_while_dvc_pins_leaves_the_old_data(
        self, pulled: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(self: Repo, *_: object, **__: object) -> None:
            raise KeyboardInterrupt

        before = state(pulled)
        monkeypatch.setattr(Repo, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pull(str(crops), root=pulled, progress=RecordedProgress())
        assert state(pulled) == before

    def test_by_kill_is_put_right_by_the_next_pull(self, pulled: Path, crops: Path) -> None:
        before = state(pulled)
        script = """
import os, signal, sys
from pathlib import Path
from emotion_yolo.data.sets import SetRecord, class_ids, read_sets
from emotion_yolo.sources import Choices, pull, remove
from emotion_yolo.structures.emotions import FACE_ID, NAMES
real = Path.rename
def killing(self, target):
    real(self, target)
    if self.name == "data" and Path(target).parent.name == "aside":
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = killing
pull(sys.argv[1], root=Path(sys.argv[2]))
"""
        done = subprocess.run([sys.executable, "-c", script, str(crops), str(pulled)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not (pulled / "data").exists()
        with pytest.raises(SourceError, match="no such source"):
            pull("nowhere", root=pulled)
        assert state(pulled) == before
        with Repo(str(pulled)) as repo:
            assert repo.status() == {}

    def test_is_told_by_the_next_pull(self, pulled: Path, crops: Path) -> None:
        aside = pulled / ".downloads/aside"
        aside.mkdir()
        (pulled / "data").rename(aside / "data")
        (pulled / "data.dvc").rename(aside / "pin")
        (aside / "was.json").write_text('{"data": true, "pin": true}')
        report = pull(str(crops), root=pulled, progress=RecordedProgress())
        assert any("interrupted" in note for note in report.notes)


class TestSeveralSets:
    def test_a_set_is_added_to_those_that_are_there(self, pulled: Path, crops: Path) -> None:
        old = files_of(pulled / "data")
        report = pull(str(crops), root=pulled, add=True, progress=RecordedProgress())
        assert list(sets_of(pulled)) == ["mine", "sample", "sample-scenes"]
        assert report.kept == ("sample", "sample-scenes")
        assert old.items() <= files_of(pulled / "data").items()
        assert pictures_of(pulled / "data/mine") == pictures_of(crops / "YOLO_format")
        with Repo(str(pulled)) as repo:
            assert repo.status() == {}

    def test_each_set_has_a_digest_of_its_own_files(self, pulled: Path, crops: Path) -> None:
        before = sets_of(pulled)
        pull(str(crops), root=pulled, add=True, progress=RecordedProgress())
        after = sets_of(pulled)
        assert after["sample"].digest == before["sample"].digest
        assert len({record.digest for record in after.values()}) == 3
        (crops / "YOLO_format/train/labels/0.txt").write_text("1 0.5 0.5 1 1\n")
        pull(str(crops), root=pulled, add=True, progress=RecordedProgress())
        assert sets_of(pulled)["mine"].digest != after["mine"].digest

    def test_a_set_pulled_again_replaces_itself(self, pulled: Path, crops: Path) -> None:
        pull(str(crops), root=pulled, add=True, progress=RecordedProgress())
        before = state(pulled)
        pull(str(crops), root=pulled, add=True, progress=RecordedProgress())
        assert state(pulled) == before

    def test_another_set_of_the_same_name_is_refused(self, pulled: Path, tmp_path: Path) -> None:
        before = state(pulled)
        other = write_crops(tmp_path / "sample")
        with pytest.raises(
            SourceError, match=r"a set of this name is there, .*--name.*emotion-yolo data remove sample"
        ):
            pull(str(other), root=pulled, add=True, progress=RecordedProgress())
        assert state(pulled) == before
        pull(str(other), root=pulled, add=True, choices=Choices(name="other"), progress=RecordedProgress())
        assert list(sets_of(pulled)) == ["other", "sample", "sample-scenes"]

    def test_a_set_is_removed_and_the_others_stay(self, pulled: Path, crops: Path) -> None:
        pull(str(crops), root=pulled, add=True, progress=RecordedProgress())
        commit(pulled, "mine")
        report = remove("sample", root=pulled, progress=RecordedProgress())
        assert report.kept == ("mine", "sample-scenes")
        assert list(sets_of(pulled)) == ["mine", "sample-scenes"]
        assert {path.name for path in (pulled / "data").iterdir()} == {"mine", "sample-scenes"}
        git(pulled, "checkout", "-q", "data.dvc")
        with Repo(str(pulled)) as repo:
            repo.checkout()
        assert (pulled / "data/sample").is_dir()

    def test_the_only_set_and_an_unknown_one_are_not_removed(self, project: Path, crops: Path) -> None:
        pull(str(crops), root=project, progress=RecordedProgress())
        before = state(project)
        with pytest.raises(SourceError, match="data/mine: the only set; pull another one"):
            remove("mine", root=project)
        with pytest.raises(SourceError, match="data/yours: no such set; expected one of mine"):
            remove("yours", root=project)
        assert state(project) == before

    def test_several_sets_of_one_source_are_all_landed(self, project: Path, tmp_path: Path) -> None:
        write_crops(tmp_path / "both/crops", seed=3)
        write_scenes(tmp_path / "both/photos", count=20)
        pull(str(tmp_path / "both"), root=project, progress=RecordedProgress())
        assert list(sets_of(project)) == ["crops", "photos"]

    def test_a_pin_that_git_does_not_have_is_kept_and_named(self, pulled: Path, crops: Path, tmp_path: Path) -> None:
        pull(str(crops), root=pulled, progress=RecordedProgress())  # not committed
        uncommitted = files_of(pulled / "data")
        report = pull(str(write_crops(tmp_path / "other", seed=8)), root=pulled, progress=RecordedProgress())
        (note,) = report.notes
        assert note.startswith("data.dvc was not committed")
        subprocess.run(note.split("To go back: ")[1].split(" && ")[0].split(), cwd=pulled, check=True)
        dvc(pulled, "checkout", "data.dvc")
        assert files_of(pulled / "data") == uncommitted

    def test_a_committed_pin_needs_no_copy(self, pulled: Path, crops: Path) -> None:
        assert pull(str(crops), root=pulled, progress=RecordedProgress()).notes == ()
        assert not (pulled / ".downloads/pins").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_a_clone_of_another_user_says_what_to_do(pulled: Path, crops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pulled.parent))  # no safe.directory of this machine's own
    for path in (pulled, *pulled.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    before = state(pulled)
    with pytest.raises(SourceError, match=r"git refuses: .*belongs to another user.*git config --global --add safe"):
        pull(str(crops), root=pulled, progress=RecordedProgress())
    assert state(pulled) == before
