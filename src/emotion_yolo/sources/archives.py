"""Zip and tar archives: inspected before a byte is written, then unpacked with their checksums verified."""

import errno
import gzip
import hashlib
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from emotion_yolo.errors import ArchiveError, StorageError
from emotion_yolo.progress import Progress, show_progress
from emotion_yolo.sources.storage import storage_errors

MAX_ENTRIES = 2_000_000
MAX_RATIO = 100
# Label files are short and alike, and a packed one can shrink to a hundredth; only larger entries can be bombs.
_HARMLESS_BYTES = 1_000_000
_CHUNK_BYTES = 1 << 20
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_PLAIN_ONLY = "expected plain files and folders only"


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its safe path, its size in bytes unpacked, and what the archive's library calls it."""

    path: PurePosixPath
    size: int
    member: zipfile.ZipInfo | str


@dataclass(frozen=True)
class Contents:
    """An archive's directory: the entries to unpack and their unpacked size."""

    entries: tuple[Entry, ...]
    unpacked_bytes: int


def is_archive(name: str) -> bool:
    """Return whether a file is an archive that can be unpacked, by its name."""
    return name.lower().endswith((".zip", *_TAR_SUFFIXES))


def inspect(archive: Path) -> Contents:
    """Read an archive's directory and refuse what must not be unpacked.

    Raises:
        ArchiveError: no archive, empty, encrypted, or with an entry that leaves the folder, is no plain file, comes
            twice, or unpacks to a multiple of its size that no set of pictures has.
    """
    entries: list[Entry] = []
    seen: set[PurePosixPath] = set()
    unpacked, size = 0, archive.stat().st_size if archive.exists() else 0
    for entry in _tar_entries(archive) if _is_tar(archive) else _zip_entries(archive):
        if entry.path in seen:
            raise ArchiveError(f"{archive}: entry {str(entry.path)!r} comes twice; make the archive again")
        seen.add(entry.path)
        if _is_litter(entry.path):
            continue
        entries.append(entry)
        unpacked += entry.size
        if len(entries) > MAX_ENTRIES:
            raise ArchiveError(f"{archive}: {len(entries)} entries, expected at most {MAX_ENTRIES}; not unpacked")
        # While a tar is read, not afterwards: reading on is what unpacks a bomb.
        if unpacked > max(_HARMLESS_BYTES, MAX_RATIO * size):
            raise ArchiveError(
                f"{archive}: {size} bytes would unpack to {unpacked} or more, over {MAX_RATIO} times as much, as a "
                "decompression bomb does; not unpacked"
            )
    if not entries:
        raise ArchiveError(f"{archive}: the archive is empty; expected a data set; download it again")
    return Contents(tuple(entries), unpacked)


def unpack(archive: Path, contents: Contents, folder: Path, *, progress: Progress = show_progress) -> None:
    """Unpack the inspected entries into `folder`, which is made.

    Raises:
        ArchiveError: an entry is damaged (its checksum is verified) or packed in a way that cannot be read.
        StorageError: the disk is full or may not be written.
    """
    with progress(f"Unpacking {archive.name}", total=contents.unpacked_bytes, unit="B") as bar:

        def write(entry: Entry, packed: IO[bytes]) -> None:
            target = folder / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(packed, out, _CHUNK_BYTES)
            bar.update(entry.size)

        if _is_tar(archive):
            entries = {str(entry.member): entry for entry in contents.entries}
            with _opened_tar(archive, writing=folder) as tar:
                for member in tar:
                    packed = tar.extractfile(member) if member.name in entries and member.isreg() else None
                    if packed is not None:
                        write(entries[member.name], packed)
            return
        with _opened_zip(archive, writing=folder) as zipped:
            for entry in contents.entries:
                with zipped.open(entry.member) as packed:
                    write(entry, packed)


def _zip_entries(archive: Path) -> Iterator[Entry]:
    with _opened_zip(archive) as zipped:
        for info in zipped.infolist():
            path = _check_entry(archive, info)
            if not info.is_dir() and not info.orig_filename.endswith("\\"):
                yield Entry(path, info.file_size, info)


def _tar_entries(archive: Path) -> Iterator[Entry]:
    with _opened_tar(archive) as tar:
        for member in tar:
            if member.isdir() and member.name in (".", "./"):
                continue
            path = safe_relative(member.name.replace("\\", "/"))
            if path is None:
                raise ArchiveError(f"{archive}: entry {member.name!r} leaves the folder; do not trust this archive")
            if member.issym() or member.islnk():
                raise ArchiveError(f"{archive}: entry {member.name!r} is a link; {_PLAIN_ONLY}")
            if not (member.isreg() or member.isdir()):
                raise ArchiveError(f"{archive}: entry {member.name!r} is a special file; {_PLAIN_ONLY}")
            if member.isreg():
                yield Entry(path, member.size, member.name)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with storage_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_relative(name: str) -> PurePosixPath | None:
    """Return `name` as a path that stays below whatever folder it is joined to, or None if it does not."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name:
        return None
    if re.match(r"[A-Za-z]:", path.parts[0]):  # a drive; a time of day is harmless
        return None
    return path


def _check_entry(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    # orig_filename: zipfile cuts a name at its first NUL, and what follows it is what another tool would unpack.
    # Some Windows tools write backslashes where the format requires slashes.
    path = safe_relative(info.orig_filename.replace("\\", "/"))
    if path is None or "\0" in info.orig_filename:
        raise ArchiveError(f"{archive}: entry {info.orig_filename!r} leaves the folder; do not trust this archive")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a symbolic link" if kind == stat.S_IFLNK else "a special file"
        raise ArchiveError(f"{archive}: entry {info.filename!r} is {what}; {_PLAIN_ONLY}")
    if info.flag_bits & 0x1:
        raise ArchiveError(f"{archive}: entry {info.filename!r} is encrypted; unpack it yourself and pull the folder")
    if info.file_size > max(_HARMLESS_BYTES, MAX_RATIO * info.compress_size):
        raise ArchiveError(
            f"{archive}: entry {info.filename!r} would unpack from {info.compress_size} to {info.file_size} bytes, "
            f"over {MAX_RATIO} times as much, as a decompression bomb does; not unpacked"
        )
    return path


def _is_litter(path: PurePosixPath) -> bool:
    return path.parts[0] == "__MACOSX" or path.name == ".DS_Store"


def _is_tar(archive: Path) -> bool:
    return archive.name.lower().endswith(_TAR_SUFFIXES)


@contextmanager
def _opened_tar(archive: Path, *, writing: Path | None = None) -> Iterator[tarfile.TarFile]:
    try:
        with storage_errors(writing or archive), archive.open("rb") as file, tarfile.open(fileobj=file) as tar:
            yield tar
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, StorageError, ValueError) as error:
        if isinstance(error, StorageError) and not isinstance(error.__cause__, gzip.BadGzipFile):
            raise
        raise ArchiveError(f"{archive}: damaged or no tar archive ({error}); download it again") from error


@contextmanager
def _opened_zip(archive: Path, *, writing: Path | None = None) -> Iterator[zipfile.ZipFile]:
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
