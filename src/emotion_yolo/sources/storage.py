"""Free disk space, and the meaning of failed writes."""

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_yolo.errors import StorageError

FreeSpace = Callable[[Path], int]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def free_bytes(path: Path) -> int:
    """Return the bytes a user may still write on the file system that holds the existing `path`."""
    return shutil.disk_usage(path).free


def require_free(needs: Iterable[tuple[Path, int]], *, free: FreeSpace = free_bytes) -> None:
    """Check that every file system can take what is about to be written to it; paths need not exist yet.

    Raises:
        StorageError: one of them cannot; needs on the same file system are added up.
    """
    by_device: dict[int, tuple[Path, int]] = {}
    for path, size in needs:
        existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        device = existing.stat().st_dev
        first, sum_so_far = by_device.get(device, (existing, 0))
        by_device[device] = (first, sum_so_far + size)
    for folder, size in by_device.values():
        available = free(folder)
        if size > available:
            raise StorageError(
                f"{folder}: {format_bytes(available)} free, expected at least {format_bytes(size)} for the download, "
                "the unpacked files and DVC's cache; free some space and pull again (nothing was changed)"
            )


@contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turn an operating system's refusal to read or write into a StorageError.

    Raises:
        StorageError: the disk is full, may not be written, or has something else in the place of a file or folder.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, where) from error


def storage_error(error: OSError, where: Path) -> StorageError:
    """Return the message for a failed read or write."""
    place = error.filename2 or error.filename or where  # of a copy, the second one is where it goes
    if error.errno in _FULL:
        return StorageError(f"{place}: the disk is full; free some space and pull again (the old data are untouched)")
    if error.errno in _REFUSED:
        return StorageError(f"{place}: may not be read or written ({error.strerror}); correct its owner or permissions")
    return StorageError(f"{place}: cannot be read or written ({error.strerror or error}); move what is in the way")


def format_bytes(count: int) -> str:
    """Return a size for people, in decimal units."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
