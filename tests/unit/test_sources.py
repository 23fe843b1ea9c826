"""What `pull` is made of, without DVC: layouts, storage, landing."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from emotion_yolo.data.cards import DatasetCard, load_card
from emotion_yolo.errors import LayoutError, SourceError, StorageError
from emotion_yolo.sources import landing, layouts
from emotion_yolo.sources.storage import format_bytes, free_bytes, require_free, storage_errors
from emotion_yolo.structures.emotions import NAMES
from tests.pull_builders import AFFECTNET_NAMES, REPOSITORY, files_of, write_crops, write_scenes


def crops_in(folder: Path) -> Path:
    return layouts.the_crops(layouts.find_sets(folder), where="source", folder=folder)


def scenes_in(folder: Path) -> Path:
    return layouts.the_scenes(layouts.find_sets(folder), where="source", folder=folder)


class TestLayouts:
    def test_finds_the_sets_however_deep(self, tmp_path: Path) -> None:
        crops = write_crops(tmp_path / "a/b/YOLO_format")
        scenes = write_scenes(tmp_path / "c/wider_face")
        assert layouts.find_sets(tmp_path) == layouts.FoundSets((crops,), (scenes,))
        assert layouts.find_sets(crops).crops == (crops,)

    def test_ignores_hidden_folders(self, tmp_path: Path) -> None:
        write_crops(tmp_path / ".old")
        write_crops(tmp_path / "__MACOSX")
        assert layouts.find_sets(tmp_path) == layouts.FoundSets((), ())

    def test_names_what_it_got_instead_of_a_set(self, tmp_path: Path) -> None:
        (tmp_path / "pictures").mkdir()
        (tmp_path / "read.me").write_text("")
        with pytest.raises(LayoutError, match=r"got pictures/, read\.me; expected data\.yaml and"):
            crops_in(tmp_path)

    def test_says_that_a_folder_is_empty(self, tmp_path: Path) -> None:
        with pytest.raises(LayoutError, match="got an empty folder"):
            crops_in(tmp_path)

    def test_refuses_the_layout_with_splits_below_images(self, tmp_path: Path) -> None:
        write_crops(tmp_path / "x")
        for part in ("images", "labels"):
            (tmp_path / "y" / part).mkdir(parents=True)
            (tmp_path / "x/train" / part).rename(tmp_path / "y" / part / "train")
        with pytest.raises(LayoutError, match="got images/, labels/"):
            crops_in(tmp_path / "y")

    def test_refuses_to_choose_between_two_sets(self, tmp_path: Path) -> None:
        write_crops(tmp_path / "one")
        write_crops(tmp_path / "two")
        with pytest.raises(LayoutError, match="got 2 sets: source/one, source/two"):
            crops_in(tmp_path)

    def test_lists_all_that_is_missing_from_a_set(self, tmp_path: Path) -> None:
        root = write_crops(tmp_path / "set")
        (root / "data.yaml").unlink()
        (root / "valid").rename(root / "val")
        for picture in (root / "test/images").iterdir():
            picture.unlink()
        missing = r"missing: data\.yaml, valid/images/, valid/labels/, valid/images/\*\.jpg, test/images/\*\.jpg;"
        with pytest.raises(LayoutError, match=missing):
            crops_in(tmp_path)

    @pytest.mark.parametrize("names", [AFFECTNET_NAMES, [name.upper() for name in AFFECTNET_NAMES], NAMES])
    def test_takes_the_eight_emotions_in_any_case(self, tmp_path: Path, names: list[str]) -> None:
        assert crops_in(write_crops(tmp_path / "set", names=names)) == tmp_path / "set"

    @pytest.mark.parametrize("names", [AFFECTNET_NAMES[::-1], AFFECTNET_NAMES[:7], (*AFFECTNET_NAMES[:7], "Bored")])
    def test_refuses_another_class_table(self, tmp_path: Path, names: list[str]) -> None:
        write_crops(tmp_path / "set", names=names)
        expected = rf"source/set/data\.yaml: another class table; got {names[0]}, .*; expected anger, contempt, disgust"
        with pytest.raises(LayoutError, match=expected):
            crops_in(tmp_path)

    def test_refuses_scenes_of_another_class(self, tmp_path: Path) -> None:
        write_scenes(tmp_path / "set", names=["person"])
        with pytest.raises(LayoutError, match="got person; expected the one class face"):
            scenes_in(tmp_path)

    def test_takes_scenes_with_and_without_a_class_table(self, tmp_path: Path) -> None:
        assert scenes_in(write_scenes(tmp_path / "a", names=["Face"])) == tmp_path / "a"
        assert scenes_in(write_scenes(tmp_path / "b")) == tmp_path / "b"

    def test_reads_class_names_of_a_table_by_id(self, tmp_path: Path) -> None:
        (tmp_path / "data.yaml").write_text("names: {1: b, 0: a}")
        assert layouts.read_class_names(tmp_path / "data.yaml") == ("a", "b")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("nc: 8", "no class 'names' in it"),
            ("names: {0: a, 2: b}", "no class 1 in it"),
            ("names: a", "names is 'a'"),
            ("- 1", "must be integers"),
            ("names: [", "expected the node content"),
            ("", "not subscriptable"),
        ],
    )
    def test_says_why_class_names_cannot_be_read(self, tmp_path: Path, text: str, reason: str) -> None:
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises(LayoutError, match=reason):
            layouts.read_class_names(tmp_path / "data.yaml")

    def test_lands_only_what_belongs_to_a_set(self, tmp_path: Path) -> None:
        root = write_crops(tmp_path / "set", per_split=1)
        for name in ("train/labels.cache", "train/labels/old.cache", "train/images/.DS_Store", "notes.txt"):
            (root / name).write_text("x")
        parts = [f"{s}/{p}" for s in ("train", "valid", "test") for p in ("images/0.png", "labels/0.txt")]
        assert [path.as_posix() for path in layouts.set_files(root)] == ["data.yaml", *parts]

    def test_counts_pictures_by_class(self, tmp_path: Path) -> None:
        root = write_crops(tmp_path / "set", per_split=5) / "train"
        (root / "labels/0.txt").write_text("0 0.5 0.5 1 1\n4 0.5 0.5 1 1\n0 0.2 0.2 0.1 0.1\n")
        (root / "labels/1.txt").unlink()
        (root / "labels/2.txt").write_text("")
        (root / "labels/3.txt").write_bytes(b"\xff\xfe")
        (root / "images/notes.txt").write_text("no picture")
        counts = layouts.count_pictures(root, class_names=NAMES)
        assert counts == {"anger": 1, "happy": 2, "unlabelled": 3}
        assert layouts.picture_total(tmp_path / "set") == 15

    def test_says_where_counts_differ_from_the_card(self) -> None:
        card = load_card(REPOSITORY / "configs/datasets/affectnet.yaml")
        assert card.counts is not None
        same = {s: {name.lower(): n for name, n in counts.items()} for s, counts in card.counts.items()}
        assert layouts.differences(same, card) == ()
        other = same | {"test": same["test"] | {"sad": 2, "unlabelled": 1}}
        expected = card.counts["test"]["Sad"]
        assert layouts.differences(other, card) == (
            f"test/sad: 2 pictures, the card says {expected}",
            "test/unlabelled: 1 pictures, the card says 0",
        )

    def test_compares_nothing_with_a_card_without_counts(self) -> None:
        card = DatasetCard(name="a", title="", kind="crops", origin="", licence="", citation="", classes=("face",))
        assert layouts.differences({"train": {"sad": 1}}, card) == ()


class TestStorage:
    def test_adds_up_what_goes_to_the_same_disk(self, tmp_path: Path) -> None:
        needs = [(tmp_path / "not/yet/there", 600), (tmp_path, 400)]
        require_free(needs, free=lambda _: 1000)
        with pytest.raises(StorageError, match=r"999 B free, expected at least 1\.0 kB"):
            require_free(needs, free=lambda _: 999)

    def test_asks_the_disk_itself(self, tmp_path: Path) -> None:
        assert free_bytes(tmp_path) > 0
        with pytest.raises(StorageError, match=r"free, expected at least 1000000\.0 TB"):
            require_free([(tmp_path, 10**18)])

    @pytest.mark.parametrize(
        ("code", "word"),
        [
            (errno.ENOSPC, "the disk is full"),
            (errno.EDQUOT, "the disk is full"),
            (errno.EACCES, "may not be read or written"),
            (errno.EROFS, "may not be read or written"),
            (errno.ENOTDIR, "move what is in the way"),
        ],
    )
    def test_says_what_a_failed_write_means(self, tmp_path: Path, code: int, word: str) -> None:
        with pytest.raises(StorageError, match=word), storage_errors(tmp_path):
            raise OSError(code, "reason")

    @pytest.mark.parametrize(
        ("size", "text"), [(0, "0 B"), (999, "999 B"), (129_856_211, "129.9 MB"), (3 * 10**12, "3.0 TB")]
    )
    def test_writes_sizes_for_people(self, size: int, text: str) -> None:
        assert format_bytes(size) == text


class Boom(BaseException):
    """Stands for Ctrl-C."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A root with old data and an old pin; plain files, no DVC."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/old.txt").write_text("old")
    (tmp_path / "data.dvc").write_text("old pin")
    return tmp_path


def replace(root: Path, *, keep_old: Path | None = None, error: BaseException | None = None) -> None:
    """Replace the data and the pin; raise `error` while the pin is half written."""
    with landing.staging(root) as folder:
        (folder / "data").mkdir()
        (folder / "data/new.txt").write_text("new")
        with landing.replacing(root, folder / "data", keep_old=keep_old):
            assert not (root / "data.dvc").exists()
            (root / "data.dvc").write_text("half a pin" if error else "new pin")
            if error is not None:
                raise error


def state(root: Path) -> tuple[dict[str, bytes], str | None, list[str]]:
    """Return the data, the pin, and what temporary things are left."""
    pin = root / "data.dvc"
    left = [path.name for path in (root / ".downloads").glob("*") if path.name != "lock"]
    return files_of(root / "data"), pin.read_text() if pin.exists() else None, left


OLD = ({"old.txt": b"old"}, "old pin", [])
NEW = ({"new.txt": b"new"}, "new pin", [])


class TestLanding:
    def test_replaces_data_and_pin(self, project: Path) -> None:
        replace(project)
        assert state(project) == NEW

    def test_keeps_the_replaced_data_when_asked(self, project: Path) -> None:
        kept = project / ".downloads/replaced"
        replace(project, keep_old=kept)
        assert (kept / "data/old.txt").read_text() == "old"
        assert landing.recover(project) is False
        assert (kept / "data/old.txt").exists()

    @pytest.mark.parametrize("error", [Boom(), OSError(errno.ENOSPC, "full"), SourceError("no")])
    def test_brings_both_back_when_pinning_fails(self, project: Path, error: BaseException) -> None:
        with pytest.raises((Boom, SourceError)):
            replace(project, error=error)
        assert state(project) == OLD

    def test_leaves_nothing_when_the_first_pull_fails(self, tmp_path: Path) -> None:
        with pytest.raises(Boom):
            replace(tmp_path, error=Boom())
        assert state(tmp_path) == ({}, None, [])

    @pytest.mark.parametrize("stop_at", range(1, 4))
    def test_brings_both_back_when_stopped_at_any_rename(
        self, project: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
    ) -> None:
        real, count = Path.rename, 0

        def stopping(self: Path, target: Path) -> Path:
            nonlocal count
            done = real(self, target)
            count += 1
            if count == stop_at:
                raise Boom
            return done

        monkeypatch.setattr(Path, "rename", stopping)
        with pytest.raises(Boom):
            replace(project)
        assert state(project) == OLD

    @pytest.mark.parametrize("had_data", [True, False])
    @pytest.mark.parametrize("kill_after", range(1, 5))
    def test_a_later_pull_puts_right_what_a_killed_one_left(
        self, tmp_path: Path, kill_after: int, had_data: bool
    ) -> None:
        if had_data:
            (tmp_path / "data").mkdir()
            (tmp_path / "data/old.txt").write_text("old")
            (tmp_path / "data.dvc").write_text("old pin")
        renames = 4 if had_data else 3
        script = f"""
import os, signal, sys
from pathlib import Path
from emotion_yolo.sources import landing
real, count = Path.rename, 0
def killing(self, target):
    global count
    real(self, target)
    count += 1
    if count == {kill_after}:
        os.kill(os.getpid(), signal.SIGKILL)
root = Path(sys.argv[1])
with landing.exclusive(root), landing.staging(root) as folder:
    (folder / "data").mkdir()
    (folder / "data/new.txt").write_text("new")
    Path.rename = killing
    with landing.replacing(root, folder / "data"):
        (root / "data.dvc").write_text("new pin")
"""
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
        assert done.returncode == (-9 if kill_after <= renames else 0)
        with landing.exclusive(tmp_path) as recovered:
            assert recovered == (kill_after < renames)
        before = OLD if had_data else ({}, None, [])
        assert state(tmp_path) == (before if kill_after < renames else NEW)

    def test_recovers_also_from_a_recovery_that_was_killed(self, project: Path) -> None:
        aside = project / ".downloads/aside"
        aside.mkdir(parents=True)
        (aside / "was.json").write_text(json.dumps({"data": True, "pin": True}))
        (aside / "pin").write_text("old pin")
        (project / "data.dvc").write_text("new pin")  # the data are back already, the pin is not
        assert landing.recover(project) is True
        assert state(project) == OLD

    def test_refuses_a_second_pull_at_the_same_time(self, project: Path) -> None:
        second = landing.exclusive(project)
        with landing.exclusive(project), pytest.raises(SourceError, match="another pull is running"):
            second.__enter__()

    def test_says_when_its_folder_cannot_be_made(self, project: Path) -> None:
        (project / ".downloads").write_text("in the way")
        with pytest.raises(StorageError, match="move what is in the way"), landing.exclusive(project):
            raise AssertionError("runs")
