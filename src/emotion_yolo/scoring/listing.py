"""The pictures that a source names, as a stream in an order that is the same each time."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from emotion_yolo.errors import SourceError
from emotion_yolo.predict.sources import PATTERN, Inputs, is_picture_name
from emotion_yolo.scoring.stores import WEB, absolute, file_system, is_remote, source_errors

COLUMNS = ("path", "url", "uri", "source", "file", "image")
"""Columns of a manifest that are taken for its pictures, the first that is there, unless one is named."""

_BATCH = 10_000  # rows of a manifest read at a time


@dataclass(frozen=True)
class Selection:
    """The pictures of `source` to score.

    `source` is a folder, a pattern, a picture or a Parquet file with a column of paths or addresses, here or at
    `scheme://`. `sample` is the share of them, 0-1, chosen by a hash of the name; `limit` is how many at most.
    """

    source: str
    column: str | None = None
    sample: float = 1.0
    limit: int | None = None


@dataclass
class Listing:
    """Iterates over the names of the selected pictures; `skipped` counts skipped files by reason."""

    selection: Selection
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[str]:
        """Yield absolute paths and addresses.

        Raises:
            SourceError: a source that is not there or cannot be listed.
            DependencyError: the package for its scheme is not installed.
        """
        given = self.selection
        names = self._remote(given.source) if is_remote(given.source) else self._local(absolute(given.source))
        return islice((name for name in names if _is_drawn(name, given.sample)), given.limit)

    def _local(self, source: str) -> Iterator[str]:
        if source.endswith(".parquet") and Path(source).is_file():
            with source_errors(source), open(source, "rb") as file:
                yield from self._manifest(file, source)
            return
        if not PATTERN.search(source) or Path(source).exists():
            inputs = Inputs([source], self.skipped)
            for found in inputs:
                if found.kind != "picture":
                    raise SourceError(f"{source}: a video, expected pictures; `emotion-yolo predict` reads videos")
                yield found.name
            return
        folder, matches, recursive = _split(Path(source).as_posix())
        if not Path(folder).is_dir():
            raise SourceError(f"{folder}: no such folder; {source} matches nothing")
        for found in Inputs([folder], self.skipped, recursive=recursive):
            if matches(found.path.as_posix()):
                yield found.name

    def _remote(self, source: str) -> Iterator[str]:
        system = file_system(source)
        with source_errors(source):
            if source.endswith(".parquet"):
                with system.open(source, "rb") as file:
                    yield from self._manifest(file, source)
            elif source.startswith(WEB):
                raise SourceError(
                    f"{source}: a web address, expected a Parquet file of addresses: web servers do not list"
                )
            elif PATTERN.search(source):
                folder, matches, _ = _split(source)
                yield from (name for name in self._below(system, folder) if matches(name))
            elif is_picture_name(source) and system.isfile(source):
                yield source
            else:
                yield from self._below(system, source)

    def _below(self, system: Any, folder: str) -> Iterator[str]:
        scheme = folder.partition("://")[0]
        paths = _s3_keys(system, folder) if scheme in {"s3", "s3a"} else _walk(system, folder)
        for path in paths:
            base = path.rpartition("/")[2]
            if base.startswith("."):
                self.skipped["hidden file"] += 1
            elif not is_picture_name(base):
                self.skipped["not a picture by its file name"] += 1
            else:
                yield f"{scheme}://{path.lstrip('/')}"

    def _manifest(self, file: Any, source: str) -> Iterator[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(file)
            column = self._column(table.schema_arrow, source)
            folder = source.rpartition("/")[0] if is_remote(source) else str(Path(source).parent)
            row = 0
            for batch in table.iter_batches(_BATCH, columns=[column]):
                for name in batch.column(0).to_pylist():
                    if not isinstance(name, str) or not name:
                        raise SourceError(
                            f"{source}: row {row}, column {column}: got {name!r}, expected a path or address"
                        )
                    row += 1
                    yield name if is_remote(name) or Path(name).is_absolute() else f"{folder}/{name}"
        except pa.ArrowException as error:
            raise SourceError(f"{source}: not a readable Parquet file ({error}); write it again") from error

    def _column(self, schema: Any, source: str) -> str:
        wanted = self.selection.column
        for name in (wanted,) if wanted else COLUMNS:
            if name in schema.names:
                return str(name)
        expected = wanted or " or ".join(COLUMNS)
        raise SourceError(
            f"{source}: its columns are {', '.join(schema.names)}, expected {expected}; name one: --column"
        )


def _is_drawn(name: str, share: float) -> bool:
    if share >= 1:
        return True
    digest = blake2b(os.fsencode(name), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def _split(pattern: str) -> tuple[str, Any, bool]:
    """Return the folder that a pattern begins with, a test of names, and whether it reaches below that folder."""
    from fsspec.utils import glob_translate

    found = PATTERN.search(pattern)
    assert found
    folder = pattern[: found.start()].rpartition("/")[0]
    rest = pattern[len(folder) + 1 :]
    try:
        expression = re.compile(glob_translate(pattern))
    except ValueError as error:  # `**` beside letters
        raise SourceError(f"{pattern}: {error}") from error
    return folder or "/", expression.match, "/" in rest or "**" in rest


def _s3_keys(system: Any, folder: str) -> Iterator[str]:
    """Yield bucket/key page by page, in S3's order: a flat bucket of any size is never held in memory."""
    bucket, _, prefix = folder.partition("://")[2].partition("/")
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    further: dict[str, str] = {}
    while True:
        page = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **further)
        yield from (f"{bucket}/{entry['Key']}" for entry in page.get("Contents", ()) if not entry["Key"].endswith("/"))
        if not page.get("IsTruncated"):
            return
        further = {"ContinuationToken": page["NextContinuationToken"]}


def _walk(system: Any, folder: str) -> Iterator[str]:
    """Yield the paths of the files below a folder, one listed folder at a time."""
    entries = sorted(system.ls(folder, detail=True), key=lambda entry: str(entry["name"]))
    yield from (str(entry["name"]) for entry in entries if entry["type"] == "file")
    for entry in entries:
        if entry["type"] == "directory" and entry["name"] != folder:
            yield from _walk(system, entry["name"])
