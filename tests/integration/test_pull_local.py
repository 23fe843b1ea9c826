"""`pull` from the sample, folders and zips, in a real git and DVC repository."""

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from emotion_yolo.errors import ArchiveError, LayoutError, SourceError, StorageError
from emotion_yolo.sources import pull
from tests.pull_builders import (
    RecordedProgress,
    commit,
    files_of,
    git,
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
        assert report.crops.licence == report.scenes.licence == "CC0-1.0"
        assert report.crops.counts["train"] == dict.fromkeys(pin["meta"]["crops"]["pictures"]["train"], 1)
        assert (report.crops.pictures, report.scenes.pictures) == (24, 2)
        assert report.bytes == sum(map(len, files_of(project / "data").values()))
        with Repo(str(project)) as repo:
            assert repo.status() == {}

    def test_pulled_again_changes_nothing(self, pulled: Path) -> None:
        before = state(pulled)
        assert pull("sample", root=pulled, progress=RecordedProgress()).notes == ()
        assert state(pulled) == before
        assert git(pulled, "status", "--porcelain") == ""

    def test_comes_to_a_fresh_clone_by_repro_without_a_remote(self, pulled: Path, tmp_path: Path) -> None:
        stage = {"cmd": "ls data/crops > listing", "deps": ["data"], "outs": ["listing"]}
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

    def test_with_other_scenes_is_added_instead(self, project: Path, tmp_path: Path) -> None:
        write_scenes(tmp_path / "photos", count=3)
        report = pull("sample", root=project, scenes=str(tmp_path / "photos"), progress=RecordedProgress())
        assert report.scenes is not None
        assert report.scenes.pictures == 3
        assert "deps" not in pin_of(project)


class TestFolderAndZip:
    def test_a_folder_is_copied_and_added(self, pulled: Path, crops: Path) -> None:
        source = files_of(crops)
        report = pull(str(crops), root=pulled, progress=RecordedProgress())
        assert files_of(crops) == source
        landed = {f"crops/{name.removeprefix('YOLO_format/')}": content for name, content in source.items()}
        assert files_of(pulled / "data") == landed
        assert pin_of(pulled)["meta"]["crops"]["source"] == {"kind": "folder", "name": "mine"}
        assert report.crops.counts["test"] == {"anger": 1, "contempt": 1, "disgust": 1}
        assert report.scenes is None
        assert any("scenes that were in place are gone" in note for note in report.notes)
        assert report.crops.licence.startswith("unknown")

    def test_a_zip_is_unpacked_and_pinned_by_its_digest(self, project: Path, crops: Path, tmp_path: Path) -> None:
        archive = zip_folder(crops, tmp_path / "affectnet-mine.zip")
        progress = RecordedProgress()
        report = pull(str(archive), root=project, progress=progress)
        assert files_of(project / "data/crops") == files_of(crops / "YOLO_format")
        source = pin_of(project)["meta"]["crops"]["source"]
        assert (source["kind"], source["name"], len(source["sha256"])) == ("zip", "affectnet-mine.zip", 64)
        assert str(tmp_path) not in (project / "data.dvc").read_text()
        assert progress.titles == ["Unpacking affectnet-mine.zip", "Landing crops"]
        assert [path.name for path in (project / ".downloads").iterdir()] == ["lock"]
        # by its name it is AffectNet, but not all of it
        assert report.crops.card == "affectnet"
        assert "train/anger: 1 pictures, the card says 2339" in report.differences
        assert any("non-commercial research only" in line for line in report.lines())

    def test_a_card_is_recognised_by_its_counts(self, project: Path, crops: Path) -> None:
        card = yaml.safe_load((project / "configs/datasets/affectnet.yaml").read_text())
        counts = {"Anger": 1, "Contempt": 1, "Disgust": 1}
        card |= {"name": "tiny", "counts": dict.fromkeys(("train", "valid", "test"), counts)}
        (project / "configs/datasets/tiny.yaml").write_text(yaml.safe_dump(card))
        report = pull(str(crops), root=project, progress=RecordedProgress())
        assert (report.crops.card, report.differences) == ("tiny", ())

    def test_a_card_can_be_named(self, project: Path, crops: Path) -> None:
        report = pull(str(crops), root=project, card="affectnet", progress=RecordedProgress())
        assert report.crops.card == "affectnet"
        with pytest.raises(LayoutError, match="no dataset card 'affektnet'; expected one of affectnet, "):
            pull(str(crops), root=project, card="affektnet")

    def test_scenes_without_a_class_table_get_one(self, project: Path, crops: Path, tmp_path: Path) -> None:
        write_scenes(tmp_path / "x/wider_face")
        archive = zip_folder(tmp_path / "x", tmp_path / "wider-face-subset.zip")
        report = pull(str(crops), root=project, scenes=str(archive), progress=RecordedProgress())
        assert yaml.safe_load((project / "data/scenes/data.yaml").read_text())["names"] == ["face"]
        assert sorted(files_of(project / "data/scenes"))[1:3] == ["images/scene0.png", "images/scene1.png"]
        assert report.scenes is not None
        assert (report.scenes.card, report.scenes.pictures) == ("wider-face", 2)
        assert pin_of(project)["meta"]["scenes"]["pictures"] == 2
        assert "scenes: 2 pictures from wider-face-subset.zip" in report.lines()

    def test_pulled_again_changes_nothing(self, project: Path, crops: Path) -> None:
        pull(str(crops), root=project, progress=RecordedProgress())
        before = state(project)
        pull(str(crops), root=project, progress=RecordedProgress())
        assert state(project) == before

    def test_relative_paths_are_the_callers(self, project: Path, crops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(crops)
        pull("YOLO_format", root=project, progress=RecordedProgress())
        assert pin_of(project)["meta"]["crops"]["source"] == {"kind": "folder", "name": "YOLO_format"}

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
    @pytest.mark.parametrize("part", ["crops", "scenes"])
    def test_a_bad_source_leaves_the_old_data(
        self, pulled: Path, crops: Path, tmp_path: Path, make: Callable[[Path], Path], error: type[Exception], part: str
    ) -> None:
        before, bad = state(pulled), str(make(tmp_path / "bad"))
        source, scenes = (bad, None) if part == "crops" else (str(crops), bad)
        with pytest.raises(error):
            pull(source, root=pulled, scenes=scenes, progress=RecordedProgress())
        assert state(pulled) == before
        assert [path.name for path in (pulled / ".downloads").iterdir()] == ["lock"]

    def test_a_source_of_no_known_kind_lists_the_known_ones(self, project: Path) -> None:
        with pytest.raises(SourceError, match=r"afectnet: no such source; expected sample, affectnet, a folder, a zip"):
            pull("afectnet", root=project)

    def test_data_changed_by_hand_are_not_replaced(self, pulled: Path, crops: Path) -> None:
        (pulled / "data/crops/train/labels/0.txt").write_text("1 0.5 0.5 1 1\n")
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
        (pulled / "other.dvc").write_text("outs:\n- path: data/crops\n")
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
from emotion_yolo.sources import pull
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
