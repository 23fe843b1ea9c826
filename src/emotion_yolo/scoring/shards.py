"""One shard: its pictures read, answered and committed as one Parquet file, the same for every engine.

A worker computes with one thread: the sums of the network do not depend on how many work beside it, so that a shard has
the same bytes from whichever worker of whichever engine.
"""

import io
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import cv2

from emotion_yolo.errors import SourceError
from emotion_yolo.imaging import LOCAL, Refusal, RefusedImageError, decode
from emotion_yolo.inference.loading import load_model
from emotion_yolo.predict.run import answer
from emotion_yolo.predict.tables import rows_of
from emotion_yolo.scoring.plan import Options, PlanFile
from emotion_yolo.scoring.stores import WEB, Folder, file_system, is_remote
from emotion_yolo.structures.emotions import NAMES

NOT_FOUND, UNREADABLE, UNREACHABLE = "not_found", "unreadable", "unreachable"
"""Error codes beside those of `Refusal`: no such file; a file that the system does not give; a web server's refusal."""

_AHEAD = 8  # pictures fetched from a store while another is looked at
_TRIES, _TRIES_WEB = 4, 2
_PAUSE_S = 0.5  # before the second try, doubled before each further one


@dataclass(frozen=True)
class Job:
    """The settings of a worker; picklable."""

    model: str
    out: str
    options: Options


@dataclass(frozen=True)
class Done:
    """A committed shard."""

    shard: int
    pictures: int
    faces: int
    errors: Counter[str]
    """Pictures that could not be read, by code."""


def shard_name(shard: int) -> str:
    """Return the name of a shard's file."""
    return f"part-{shard:06d}.parquet"


def shard_number(name: str) -> int | None:
    """Return the shard whose file has this name, None if there is none."""
    number = name.removeprefix("part-").removesuffix(".parquet")
    return int(number) if number.isdecimal() and name == shard_name(int(number)) else None


def schema() -> Any:
    """Return the columns of a shard's file: one row per face, one without a box for other pictures."""
    import pyarrow as pa

    words = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("source", pa.string()),
            ("bytes", pa.int64()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("face", pa.int32()),
            *((name, pa.float32()) for name in ("x1", "y1", "x2", "y2")),
            ("emotion", words),
            ("confidence", pa.float32()),
            *((name, pa.float32()) for name in NAMES),
            ("error_code", words),
            ("error", pa.string()),
        ]
    )


class Scorer:
    """A worker: a loaded model, and the plan of the run; a context manager."""

    def __init__(self, job: Job) -> None:
        """Load the model.

        Raises:
            ModelError: it cannot be loaded.
            StorageError: there is no plan.
        """
        cv2.setNumThreads(1)
        self._options = job.options
        self._detector = load_model(job.model, imgsz=job.options.imgsz, threads=1)
        self._folder = Folder(job.out)
        self._plan = PlanFile(self._folder)

    def __call__(self, shard: int) -> Done:
        """Answer all pictures of a shard and commit its file.

        Raises:
            SourceError: a store that does not answer. Nothing is committed: it will answer another time.
            StorageError: the file cannot be written.
        """
        names = self._plan.names(shard)
        rows: list[dict[str, Any]] = []
        faces, errors = 0, Counter[str]()
        for name, data in _contents(names):
            record = self._record(name, data)
            if code := record.get("error_code"):
                errors[code] += 1
            about = {column: record.get(column) for column in ("bytes", "error_code")}
            count = len(record.get("detections", ()))
            faces += count
            rows += [row | about | {"face": number if count else None} for number, row in enumerate(rows_of(record))]
        self._folder.write(shard_name(shard), _parquet(rows))
        return Done(shard, len(names), faces, errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object, /) -> None:
        self.close()

    def close(self) -> None:
        """Close the plan."""
        self._plan.close()

    def _record(self, name: str, data: "bytes | _Problem") -> dict[str, Any]:
        record: dict[str, Any] = {"source": name.encode("utf-8", "backslashreplace").decode()}
        if isinstance(data, _Problem):
            return record | {"error_code": data.code, "error": data.message}
        record["bytes"] = len(data)
        try:
            picture = decode(data, LOCAL, fit=self._detector.imgsz)
        except RefusedImageError as error:
            if error.code is Refusal.OUT_OF_MEMORY:  # true of this machine now, not of the picture
                raise SourceError(f"{name}: {error}; the same command resumes the run") from error
            return record | {"error_code": str(error.code), "error": str(error)}
        faces = self._detector.predict_picture(picture, conf=self._options.conf)
        if self._options.min_face:
            faces = faces.select(faces.shorter_sides >= self._options.min_face)
        return record | answer(picture, faces)


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema()), buffer, compression="zstd")
    return buffer.getvalue()


@dataclass(frozen=True)
class _Problem:
    code: str
    message: str


def _contents(names: Sequence[str]) -> Iterator[tuple[str, bytes | _Problem]]:
    """Yield each picture's file, in order; those in stores are fetched ahead, a few at a time."""
    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting: deque[tuple[str, Future[bytes | _Problem] | None]] = deque()
        further = ((name, pool.submit(_fetch, name) if is_remote(name) else None) for name in names)
        try:
            waiting.extend(islice(further, _AHEAD))
            while waiting:
                name, fetched = waiting.popleft()
                yield name, fetched.result() if fetched else _read(name)
                waiting.extend(islice(further, 1))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(name: str) -> bytes | _Problem:
    try:
        if os.stat(name).st_size > LOCAL.max_bytes:  # noqa: PTH116  names of files need not be UTF-8
            return _Problem(Refusal.TOO_LARGE, f"the file has more than {LOCAL.max_bytes} bytes")
        return Path(name).read_bytes()
    except FileNotFoundError:
        return _Problem(NOT_FOUND, "no such file")
    except OSError as error:
        return _Problem(UNREADABLE, error.strerror or str(error))


def _fetch(name: str) -> bytes | _Problem:
    """Return an object's bytes.

    What is not there, or what one of many web servers does not give, is a problem of this picture. A store that does
    not answer is a problem of the run: its pictures must not become errors for ever.

    Raises:
        SourceError: the store does not answer, or refuses.
    """
    system, is_web = file_system(name), name.startswith(WEB)
    pause_s = _PAUSE_S
    for tries_left in reversed(range(_TRIES_WEB if is_web else _TRIES)):
        try:
            data: bytes = system.cat_file(name)
            return data
        except FileNotFoundError:
            return _Problem(NOT_FOUND, "no such object")
        except Exception as error:
            if not tries_left or isinstance(error, PermissionError):
                what = f"{type(error).__name__}: {error}"
                if is_web:
                    return _Problem(UNREACHABLE, what)
                message = f"{name}: cannot be read ({what}); check credentials and network, then repeat the command"
                raise SourceError(message) from error
            time.sleep(pause_s)
            pause_s *= 2
    raise AssertionError("the last try returns or raises")
