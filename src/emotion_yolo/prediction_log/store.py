"""The log's SQLite file and the Parquet files that older rows move to: bounded in rows, bytes and age.

log.db, log.db-wal, log.db-shm              the latest rows; in WAL mode, so that readers never wait
log.db.archive/pictures-<id>-<id>.parquet   older rows, if pyarrow is installed (else they are deleted)
log.db.archive/faces-<id>-<id>.parquet      their faces; written first, so that the other file completes the pair
log.db.corrupt                              a file that could not be read, moved aside; the last one is kept
"""

import errno
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from emotion_yolo.prediction_log.rows import (
    FACE_COLUMNS,
    FEEDBACK_COLUMNS,
    PICTURE_COLUMNS,
    SCHEMA,
    SHADOW_COLUMNS,
    VERSION,
    Feedback,
    PictureRecord,
    Record,
)

Row = tuple[object, ...]

_BUSY_S = 1.0
_PAGE = 4096
_WAL_BYTES = 4_000_000  # that the write-ahead log is cut to after a checkpoint
_DAY_US = 86_400_000_000
_FILLED = 0.5  # share of the file's largest size above which rows move; the rest is for the next batches
_KEPT = 0.8  # share of the rows that stays when they are too many: moving few at a time would make many small files


@dataclass(frozen=True)
class LogLimits:
    """The bounds of the log."""

    rows: int = 100_000
    """Pictures in the SQLite file, and rows of feedback and of the shadow; a twentieth more until the next upkeep."""
    bytes: int = 500_000_000
    """Of all files together."""
    days: float = 30.0
    """Age of the oldest row."""


class Store:
    """The files of one log; for one thread. Another process may read and write them at the same time."""

    def __init__(self, path: Path, limits: LogLimits) -> None:
        self.path = path
        self.archive = path.with_name(f"{path.name}.archive")
        self.keeps_archive = find_spec("pyarrow") is not None
        self._limits = limits
        self._connection: sqlite3.Connection | None = None
        self._archived_until = 0

    def append(self, records: Sequence[Record]) -> None:
        """Write records, all or none.

        Raises:
            sqlite3.Error: the file is full, locked, corrupt or of another version.
            OSError: it cannot be opened, or a reader holds its write-ahead log for too long.
        """
        connection = self._open()
        self._check_wal()
        with _Transaction(connection):
            # Larger than any before, also in the archive, even if the clock goes back or another process writes.
            key = max(self._last_key(connection), self._archived_until, time.time_ns() // 1000 - 1)
            pictures: list[Row] = []
            faces: list[Row] = []
            feedback: list[Row] = []
            shadow: list[Row] = []
            for record in records:
                key += 1
                if isinstance(record, PictureRecord):
                    pictures.append(record.picture_row(key))
                    faces += record.face_rows(key)
                elif isinstance(record, Feedback):
                    feedback.append(record.row(key))
                else:
                    shadow.append(record.row(key))
            _insert(connection, "pictures", PICTURE_COLUMNS, pictures)
            _insert(connection, "faces", FACE_COLUMNS, faces)
            _insert(connection, "feedback", FEEDBACK_COLUMNS, feedback)
            _insert(connection, "shadow", SHADOW_COLUMNS, shadow)

    def keep_limits(self) -> None:
        """Move or delete what is beyond the limits.

        Raises:
            sqlite3.Error: the file is full, locked or corrupt.
            OSError: a file cannot be written or removed.
        """
        connection = self._open()
        oldest = time.time_ns() // 1000 - int(self._limits.days * _DAY_US)
        with _Transaction(connection):
            # Left there if a process ended between moving rows and deleting them.
            self._delete(connection, self._last_archived())
            self._delete_older(connection, oldest)
            (count,) = connection.execute("SELECT count(*) FROM pictures").fetchone()
            keep = count
            if count > self._limits.rows or self._pages(connection) > self._max_pages * _FILLED:
                keep = int(min(self._limits.rows, count) * _KEPT)
            if count > keep:
                query = "SELECT max(id) FROM (SELECT id FROM pictures ORDER BY id LIMIT ?)"
                (last,) = connection.execute(query, [count - keep]).fetchone()
                if self.keeps_archive:
                    self._move(connection, last)
                self._delete(connection, last)
        connection.execute("PRAGMA incremental_vacuum").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._shrink_archive(oldest)

    def size(self) -> int:
        """Return the bytes of all files."""
        files = [self.path.with_name(f"{self.path.name}{end}") for end in ("", "-wal", "-shm", ".corrupt")]
        if self.archive.is_dir():
            files += self.archive.iterdir()
        total = 0
        for file in files:
            with suppress(OSError):
                total += file.stat().st_size
        return total

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def set_aside(self) -> None:
        """Start a new file: the present one is no database, or damaged.

        Raises:
            OSError: it cannot be moved.
        """
        self.close()
        with suppress(FileNotFoundError):
            self.path.replace(self.path.with_name(f"{self.path.name}.corrupt"))
        for end in ("-wal", "-shm"):  # of the damaged file: SQLite would apply them to the new one
            self.path.with_name(f"{self.path.name}{end}").unlink(missing_ok=True)

    @property
    def _max_pages(self) -> int:
        # Half of the bytes: the other half is for the archive and the write-ahead log.
        return max(self._limits.bytes // 2 // _PAGE, 16)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self.path.exists():
                return self._connection
            self.close()  # somebody has deleted it
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size = {_PAGE}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            connection.execute(f"PRAGMA max_page_count = {self._max_pages}").fetchall()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if not 0 <= version <= VERSION:
                message = f"{self.path}: tables of version {version}, expected {VERSION}; name another file"
                raise sqlite3.DatabaseError(message)
            if version < VERSION:  # tables that are there stay as they are
                connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}COMMIT;")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._archived_until = self._last_archived()
        return connection

    def _check_wal(self) -> None:
        # While a reader's transaction is open, SQLite can only append to the write-ahead log.
        wal = self.path.with_name(f"{self.path.name}-wal")
        with suppress(FileNotFoundError):
            if wal.stat().st_size > max(self._limits.bytes // 4, 2 * _WAL_BYTES):
                raise OSError(errno.ENOSPC, "the write-ahead log is too large: a reader holds it", str(wal))

    def _delete_older(self, connection: sqlite3.Connection, time_us: int) -> None:
        query = "DELETE FROM faces WHERE picture IN (SELECT id FROM pictures WHERE time_us < ?)"
        connection.execute(query, [time_us])
        connection.execute("DELETE FROM pictures WHERE time_us < ?", [time_us])
        for table in ("feedback", "shadow"):
            connection.execute(f"DELETE FROM {table} WHERE time_us < ?", [time_us])  # noqa: S608  constants
            latest = f"SELECT id FROM {table} ORDER BY id DESC LIMIT ?"  # noqa: S608
            connection.execute(f"DELETE FROM {table} WHERE id NOT IN ({latest})", [self._limits.rows])  # noqa: S608

    def _last_key(self, connection: sqlite3.Connection) -> int:
        ids = " UNION ALL ".join(f"SELECT max(id) AS id FROM {table}" for table in ("pictures", "feedback", "shadow"))  # noqa: S608
        query = f"SELECT max(id) FROM ({ids})"  # noqa: S608
        return int(connection.execute(query).fetchone()[0] or 0)

    def _pages(self, connection: sqlite3.Connection) -> int:
        pages, free = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        return int(pages - free)

    def _delete(self, connection: sqlite3.Connection, last: int) -> None:
        connection.execute("DELETE FROM faces WHERE picture <= ?", [last])
        connection.execute("DELETE FROM pictures WHERE id <= ?", [last])

    def _move(self, connection: sqlite3.Connection, last: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.archive.mkdir(mode=0o700, exist_ok=True)
        (first,) = connection.execute("SELECT min(id) FROM pictures").fetchone()
        tables = (
            ("faces", FACE_COLUMNS, "SELECT {} FROM faces WHERE picture <= ? ORDER BY picture, face"),
            ("pictures", PICTURE_COLUMNS, "SELECT {} FROM pictures WHERE id <= ? ORDER BY id"),
        )
        for name, columns, query in tables:
            rows = connection.execute(query.format(", ".join(columns)), [last]).fetchall()
            cells = zip(*rows, strict=True) if rows else [[] for _ in columns]
            table = pa.table({c: pa.array(list(v), _arrow_type(c)) for c, v in zip(columns, cells, strict=True)})
            partial = self.archive / f"{name}.partial"
            with partial.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.archive / f"{name}-{first}-{last}.parquet")
        self._archived_until = last

    def _last_archived(self) -> int:
        return max((ids[1] for _, ids in self._archived("pictures")), default=0)

    def _archived(self, name: str) -> list[tuple[Path, tuple[int, int]]]:
        """Return the archive's files of a table by age, each with its first and last id."""
        found = []
        for path in self.archive.glob(f"{name}-*-*.parquet"):
            _, first, last = path.stem.rsplit("-", 2)
            found.append((path, (int(first), int(last))))
        return sorted(found, key=lambda entry: entry[1])

    def _shrink_archive(self, oldest: int) -> None:
        excess = self.size() - self._limits.bytes
        for path, (_, last) in self._archived("pictures"):
            if excess <= 0 and last >= oldest:
                break
            for file in (path, path.with_name(path.name.replace("pictures", "faces", 1))):
                with suppress(FileNotFoundError):
                    excess -= file.stat().st_size
                    file.unlink()


class _Transaction:
    """A write transaction that holds the file from its beginning, so that no other process writes in between."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        else:
            with suppress(sqlite3.Error):  # a full disk has rolled back already
                self._connection.execute("ROLLBACK")


def _insert(
    connection: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]
) -> None:
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608  constants


def _arrow_type(column: str) -> object:
    import pyarrow as pa

    if column in {"request_id", "model", "format", "emotion"}:
        return pa.string()
    integers = {"id", "time_us", "item", "width", "height", "bytes", "faces", "plain", "picture", "face"}
    return pa.int64() if column in integers else pa.float64()
