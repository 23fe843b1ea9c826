"""Answers in a file: JSON Lines (one line per answer), CSV or Parquet (one row per face), written as they come.

A killed run can be resumed. Each answer reaches the file before the next picture is processed; the last one may be cut,
so `resume` takes it away and tells which it was. NAME.run.json beside the file records the settings of the run, since
another model or threshold would mix two kinds of answers. Parquet cannot be appended to: rows are kept as CSV beside it
and turned into Parquet when all are there.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

from emotion_yolo.errors import DependencyError, StorageError
from emotion_yolo.structures.emotions import NAMES

Record = Mapping[str, Any]
Format = Literal["json", "csv", "parquet"]

_TEXT, _WHOLE, _NUMBER = "String", "Int64", "Float64"  # types of polars
COLUMNS: dict[str, str] = {
    "source": _TEXT,
    "frame": _WHOLE,
    "time_s": _NUMBER,
    "track": _WHOLE,
    "width": _WHOLE,
    "height": _WHOLE,
    **dict.fromkeys(("x1", "y1", "x2", "y2"), _NUMBER),
    "emotion": _TEXT,
    "confidence": _NUMBER,
    **dict.fromkeys(NAMES, _NUMBER),
    "error": _TEXT,
}
"""Columns of a table. A picture without a face, or one that cannot be read, is a row without a box."""


@dataclass(frozen=True)
class Position:
    """Which picture or frame an answer is about."""

    source: str
    frame: int | None

    def is_in(self, source: str) -> bool:
        """Return whether it is about `source`, whose name a table may hold with escapes."""
        return self.source in {source, source.encode("utf-8", errors="backslashreplace").decode()}


class AnswerFile:
    """A file of answers; a context manager. Added answers are in the file, however the run ends."""

    def __init__(
        self,
        path: Path,
        kind: Format,
        *,
        settings: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> None:
        """Open `path`; with `resume`, behind the answers that an earlier run with the same `settings` has finished.

        Raises:
            StorageError: it exists and may not be replaced, was started with other settings, or cannot be written.
            DependencyError: polars, which writes Parquet, is not installed.
        """
        if kind == "parquet":
            _load_polars()
        self._path, self._kind = path, kind
        self._lines = path.with_name(f"{path.name}.partial.csv") if kind == "parquet" else path
        self._record = path.with_name(f"{path.name}.run.json")
        if path.exists() and not overwrite and not (resume and kind != "parquet"):
            raise StorageError(f"{path}: exists already; add --overwrite to replace it, or name another file")
        self.last: Position | None = None
        """The answer to resume from: all before it are in the file."""
        try:
            if resume and self._lines.is_file():
                self._check(settings)
                self.last = self._take_away_last()
            begun = self.last is not None
            self._file: BinaryIO = self._lines.open("ab" if begun else "wb")
            if settings is not None and not begun:  # after the old answers are gone
                self._record.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise self._refusal(error) from error
        except ValueError as error:
            raise StorageError(f"{self._lines}: was not written by predict ({error}); name another file") from error
        if kind != "json" and not begun:
            self._write(_csv_lines([list(COLUMNS)]))

    def add(self, record: Record) -> None:
        """Write the answer to one picture or frame.

        Raises:
            StorageError: it cannot be written.
        """
        self._write(
            json.dumps(record).encode() + b"\n"
            if self._kind == "json"
            else _csv_lines([[row.get(name, "") for name in COLUMNS] for row in rows_of(record)])
        )

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise self._refusal(error) from error

    def _check(self, settings: Mapping[str, Any] | None) -> None:
        """Refuse to resume a run with other settings; an empty file has none."""
        if settings is None or self._lines.stat().st_size == 0:
            return
        try:
            found = dict(json.loads(self._record.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            advice = f"{self._record.name}, which records its settings, cannot be read; use --overwrite"
            raise StorageError(f"{self._path}: cannot be resumed: {advice}") from error
        wrong = [name for name, value in settings.items() if found.get(name) != value]
        if wrong:
            what = "; ".join(f"{name}: {found.get(name)} there, {settings[name]} now" for name in wrong)
            raise StorageError(f"{self._path}: started with other settings ({what}); use those, or name another file")

    def _take_away_last(self) -> Position | None:
        """Cut the file before the rows of the last answer, which may be incomplete; returns which that was."""
        last: Position | None = None
        begin = 0
        with self._lines.open("r+b") as file:
            for position, offset in _positions(file, is_table=self._kind != "json"):
                if position != last:
                    last, begin = position, offset
            if last is not None:
                file.truncate(begin)
        return last

    def close(self, *, finished: bool = True) -> None:
        """Close the file; a Parquet file is made of it only once it is `finished`.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            self._file.close()
            if self._kind == "parquet" and finished:
                polars = _load_polars()
                schema = {name: getattr(polars, kind) for name, kind in COLUMNS.items()}
                partial = self._path.with_name(f"{self._path.name}.partial")
                polars.scan_csv(self._lines, schema=schema).sink_parquet(partial)  # in a stream: any number of rows
                partial.replace(self._path)
                self._lines.unlink()
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> StorageError:
        why = error.strerror or str(error)
        return StorageError(f"{self._path}: cannot be written ({why}); name another file, free space or grant access")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close(finished=kind is None)


def rows_of(record: Record) -> list[dict[str, Any]]:
    """Return the rows of an answer, by the names of `COLUMNS`: one a face, or one without a box."""
    head = {name: record[name] for name in ("source", "frame", "time_s", "error") if name in record}
    head |= record.get("image", {})
    faces = record.get("detections") or [{}]
    return [
        head
        | {name: face[name] for name in ("track", "emotion", "confidence") if name in face}
        | face.get("box", {})
        | face.get("probabilities", {})
        for face in faces
    ]


def _csv_lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", errors="backslashreplace")  # names of files need not be UTF-8


def _positions(file: BinaryIO, *, is_table: bool) -> Iterator[tuple[Position, int]]:
    """Yield what each whole line or row of a file is about, and the byte at which it begins.

    Raises:
        ValueError: a line that no run has written.
    """
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for line in file:
            if not line.endswith(b"\n"):
                return  # torn: the answer before it is found once more
            read += len(line)
            yield line.decode("utf-8", errors="replace")

    if is_table:
        reader = csv.reader(lines())
        if next(reader, [*COLUMNS]) != [*COLUMNS]:
            raise ValueError("its columns are others")
        begin = read
        for row in reader:
            source, frame = (*row, "", "")[:2]
            yield Position(source, int(frame) if frame.isdecimal() else None), begin
            begin = read
        return
    begin = 0
    for line in lines():
        record = json.loads(line)
        if not isinstance(record, dict) or not isinstance(record.get("source"), str):
            raise ValueError("a line is no answer")
        yield Position(record["source"], record.get("frame")), begin
        begin = read


def _load_polars() -> Any:
    try:
        import polars
    except ImportError as error:
        advice = "install it with pip install 'emotion-yolo[table]', or write --csv"
        raise DependencyError(f"Parquet files are written by polars, which is not installed; {advice}") from error
    return polars
