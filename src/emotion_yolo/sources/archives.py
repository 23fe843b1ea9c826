"""Zip archives: looked through before a byte is written, then unpacked with their checksums verified."""

import errno
import hashlib
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from emotion_yolo.errors import ArchiveError
from emotion_yolo.progress import Progress, show_progress
from emotion_yolo.sources.storage import storage_errors

MAX_ENTRIES = 2_000_000
MAX_RATIO = 100
# Label files are short and alike, and a packed one can shrink to a hundredth; only larger entries can be bombs.
_HARMLESS_BYTES = 1_000_000
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Contents:
    """What an archive's directory says: the entries worth unpacking and their size unpacked."""

    entries: tuple[zipfile.ZipInfo, ...]
    unpacked_bytes: int


def inspect(archive: Path) -> Contents:
    """Read an archive's directory and refuse what must not be unpacked.

    Raises:
        ArchiveError: no zip, empty, encrypted, or with an entry that leaves the folder, is no plain file, comes twice,
            or unpacks to a multiple of its size that no set of pictures has.
    """
    with _opened(archive) as zipped:
        entries = [info for info in zipped.infolist() if not info.is_dir() and not _is_litter(info.filename)]
        if len(entries) > MAX_ENTRIES:
            raise ArchiveError(f"{archive}: {len(entries)} entries, expected at most {MAX_ENTRIES}; not unpacked")
        seen: set[str] = set()
        for info in zipped.infolist():
            _check_entry(archive, info)
            if not info.is_dir() and info.filename in seen:
                raise ArchiveError(f"{archive}: entry {info.filename!r} comes twice; make the archive anew")
            seen.add(info.filename)
    if not entries:
        raise ArchiveError(f"{archive}: the archive is empty; expected a YOLO-format data set; download it again")
    unpacked = sum(info.file_size for info in entries)
    size = archive.stat().st_size
    if unpacked > max(_HARMLESS_BYTES, MAX_RATIO * size):
        raise ArchiveError(
            f"{archive}: {size} bytes would unpack to {unpacked}, over {MAX_RATIO} times as much, as a decompression "
            "bomb does; not unpacked"
        )
    return Contents(tuple(entries), unpacked)


def unpack(archive: Path, contents: Contents, folder: Path, *, progress: Progress = show_progress) -> None:
    """Unpack the inspected entries into `folder`, which is made.

    Raises:
        ArchiveError: an entry is damaged (its checksum is verified) or packed in a way that cannot be read.
        StorageError: the disk is full or may not be written.
    """
    with (
        _opened(archive, writing=folder) as zipped,
        progress(f"Unpacking {archive.name}", total=contents.unpacked_bytes, unit="B") as bar,
    ):
        for info in contents.entries:
            target = folder / info.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(info) as packed, target.open("wb") as out:
                shutil.copyfileobj(packed, out, _CHUNK_BYTES)
            bar.update(info.file_size)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with storage_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_relative(name: str) -> PurePosixPath | None:
    """Return `name` as a path that stays below whatever folder it is joined to, or None if it does not."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        return None
    return path


def _check_entry(archive: Path, info: zipfile.ZipInfo) -> None:
    # orig_filename: zipfile cuts a name at its first NUL, and what follows it is what another tool would unpack.
    if safe_relative(info.orig_filename) is None or "\0" in info.orig_filename:
        raise ArchiveError(f"{archive}: entry {info.orig_filename!r} leaves the folder; do not trust this archive")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a symbolic link" if kind == stat.S_IFLNK else "a special file"
        raise ArchiveError(f"{archive}: entry {info.filename!r} is {what}; expected plain files and folders only")
    if info.flag_bits & 0x1:
        raise ArchiveError(f"{archive}: entry {info.filename!r} is encrypted; unpack it yourself and pull the folder")
    if info.file_size > max(_HARMLESS_BYTES, MAX_RATIO * info.compress_size):
        raise ArchiveError(
            f"{archive}: entry {info.filename!r} would unpack from {info.compress_size} to {info.file_size} bytes, "
            f"over {MAX_RATIO} times as much, as a decompression bomb does; not unpacked"
        )


def _is_litter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store"


@contextmanager
def _opened(archive: Path, *, writing: Path | None = None) -> Iterator[zipfile.ZipFile]:
    try:
        with storage_errors(writing or archive):
            try:
                with archive.open("rb") as file, zipfile.ZipFile(file) as zipped:
                    yield zipped
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # zipfile follows a damaged offset to a place before the file's beginning.
                raise zipfile.BadZipFile("an offset lies outside the file") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, struct.error) as error:
        raise ArchiveError(f"{archive}: damaged or no zip archive ({error}); download it again") from error
    except NotImplementedError as error:
        raise ArchiveError(f"{archive}: packed in an unknown way ({error}); unpack it and pull the folder") from error
