"""What `pull` is made of, without DVC: storage and landing. Layouts have tests of their own."""

import errno
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from emotion_yolo.errors import SourceError, StorageError
from emotion_yolo.sources import landing
from emotion_yolo.sources.storage import format_bytes, free_bytes, require_free, storage_errors
from tests.pull_builders import files_of


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


def replace_killed(root: Path, new: str, *, after: int, keep: Sequence[str] = ()) -> subprocess.CompletedProcess[bytes]:
    """Replace the data of `root` by a file `new` in a process that is killed after so many renames."""
    script = """
import os, signal, sys
from collections.abc import Sequence
from pathlib import Path
from emotion_yolo.sources import landing
root, new, after, keep = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
real, count = Path.rename, 0
def killing(self, target):
    global count
    real(self, target)
    count += 1
    if count == after:
        os.kill(os.getpid(), signal.SIGKILL)
with landing.exclusive(root), landing.staging(root) as folder:
    path = folder / "data" / new
    path.parent.mkdir(parents=True)
    path.write_text("new")
    Path.rename = killing
    with landing.replacing(root, folder / "data", keep=keep):
        (root / "data.dvc").write_text("new pin")
"""
    return subprocess.run([sys.executable, "-c", script, str(root), new, str(after), *keep], check=False)


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
        done = replace_killed(tmp_path, "new.txt", after=kill_after)
        assert done.returncode == (-9 if kill_after <= renames else 0)
        with landing.exclusive(tmp_path) as recovered:
            assert recovered == (kill_after < renames)
        before = OLD if had_data else ({}, None, [])
        assert state(tmp_path) == (before if kill_after < renames else NEW)

    @pytest.mark.parametrize("kill_after", range(1, 7))
    def test_a_kept_set_is_there_whenever_it_is_killed(self, project: Path, kill_after: int) -> None:
        for name in ("kept", "gone"):
            (project / "data" / name).mkdir()
            (project / "data" / name / "a.txt").write_text(name)
        before = state(project)
        done = replace_killed(project, "new/a.txt", after=kill_after, keep=["kept"])
        assert done.returncode == (-9 if kill_after <= 5 else 0)
        with landing.exclusive(project) as recovered:
            assert recovered == (kill_after < 5)
        after = ({"kept/a.txt": b"kept", "new/a.txt": b"new"}, "new pin", [])
        assert state(project) == (before if kill_after < 5 else after)

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
