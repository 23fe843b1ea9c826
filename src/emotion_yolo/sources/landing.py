"""Replaces `data/` and `data.dvc` together or not at all, even if the process is killed half-way."""

import json
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emotion_yolo.errors import DependencyError, SourceError
from emotion_yolo.paths import DATA, DATA_PIN, DOWNLOADS
from emotion_yolo.sources.storage import storage_errors

if sys.platform != "win32":
    import fcntl

# Temporary folders are in the project's root: a rename on one file system is atomic.
_ASIDE = DOWNLOADS / "aside"
_STAGING = "staging-"
_TRASH = "trash-"
_OLD_PIN = "pin"  # not *.dvc: DVC takes every file of that name below the root for a stage


@contextmanager
def exclusive(root: Path) -> Iterator[bool]:
    """Lock the project for this pull and restore what a killed one left; yields whether there was anything.

    Raises:
        SourceError: another pull is running.
        DependencyError: the system is Windows.
    """
    if sys.platform == "win32":
        raise DependencyError("data sets are pulled under a file lock that Windows does not have; pull them in WSL")
    with storage_errors(root / DOWNLOADS):
        (root / DOWNLOADS).mkdir(parents=True, exist_ok=True)
        lock = (root / DOWNLOADS / "lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SourceError(f"{root}: another pull is running here; wait until it has ended") from error
        yield recover(root)


def recover(root: Path) -> bool:
    """Bring back the data and the pin that a killed pull had set aside; return whether there were any."""
    interrupted = (root / _ASIDE).is_dir()
    with storage_errors(root / DOWNLOADS):
        if interrupted:
            _restore(root)
        for leftover in sorted((root / DOWNLOADS).glob("*")) if (root / DOWNLOADS).is_dir() else ():
            if leftover.name.startswith((_STAGING, _TRASH)):
                shutil.rmtree(leftover)
    return interrupted


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of `data/`, which is removed at the end."""
    with storage_errors(root / DOWNLOADS):
        folder = root / DOWNLOADS / f"{_STAGING}{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing(
    root: Path, staged: Path | None, *, keep: Sequence[str] = (), keep_old: Path | None = None
) -> Iterator[None]:
    """Set `data/` and `data.dvc` aside, move `staged` in, run the body (it pins), and make it final.

    Whatever is raised before the end brings both back. Without `staged`, the body makes `data/` itself. `keep` names
    folders of the old data that the new ones have as well: they are moved, which costs nothing and leaves DVC's
    notes of their hashes valid. `keep_old` is the folder where the replaced data and pin go instead of being removed.
    """
    try:
        with storage_errors(root / DATA):
            _set_aside(root, keep)
            if staged is not None:
                staged.rename(root / DATA)
            for name in keep:
                (root / _ASIDE / DATA / name).rename(root / DATA / name)
            yield
    except BaseException:
        if (root / _ASIDE).is_dir():
            _restore(root)
        raise
    with storage_errors(root / DATA):
        trash = _trash_name(root)
        (root / _ASIDE).rename(keep_old or trash)  # from here on the new data stay
    shutil.rmtree(trash, ignore_errors=True)


def _set_aside(root: Path, keep: Sequence[str]) -> None:
    """Write down what is there, then move the data away: a kill at any line leaves what `_restore` needs."""
    data, pin, aside = root / DATA, root / DATA_PIN, root / _ASIDE
    making = _trash_name(root)
    making.mkdir(parents=True)
    if pin.exists():
        shutil.copy2(pin, making / _OLD_PIN)
    was = {"data": data.exists(), "pin": pin.exists(), "keep": list(keep)}
    (making / "was.json").write_text(json.dumps(was), "utf-8")
    making.rename(aside)
    pin.unlink(missing_ok=True)
    if data.exists():
        data.rename(aside / DATA.name)


def _restore(root: Path) -> None:
    data, pin, aside = root / DATA, root / DATA_PIN, root / _ASIDE
    was = json.loads((aside / "was.json").read_text("utf-8"))
    old = aside / DATA.name
    if data.exists() and (old.exists() or not was["data"]):
        for name in was.get("keep", ()):
            if (data / name).exists() and not (old / name).exists():
                (data / name).rename(old / name)
        trash = _trash_name(root)
        data.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
    if old.exists():
        old.rename(data)
    if was["pin"]:
        unfinished = aside / "pin.new"
        shutil.copy2(aside / _OLD_PIN, unfinished)
        unfinished.replace(pin)
    else:
        pin.unlink(missing_ok=True)
    trash = _trash_name(root)
    aside.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def _trash_name(root: Path) -> Path:
    return root / DOWNLOADS / f"{_TRASH}{secrets.token_hex(4)}"
