"""The folder of kept pictures: bounded in bytes and age.

<time in µs>-<request id>-<item>.jpg    the picture as the model saw it: upright, reduced, without metadata
<time in µs>-<request id>-<item>.json   its `Case`; written last, so that a picture without one is half written
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from emotion_yolo.errors import StorageError

_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Face:
    """A face that the model found."""

    box: tuple[float, float, float, float]
    """Corners, as parts of the picture's width and height, 0-1."""
    emotion: str
    confidence: float
    probability: float
    """Of the emotion."""


@dataclass
class Case:
    """The model's answer to a kept picture, why it was kept, and people's feedback."""

    request_id: str
    item: int
    model: str
    """Digest of the model that answered."""
    faces: list[Face]
    reasons: list[str] = field(default_factory=list)
    """`unsure`, `shadow`, `feedback`."""
    feedback: dict[int, str] = field(default_factory=dict)
    """Right emotions by the place of a face."""
    time_us: int = field(default_factory=lambda: time.time_ns() // 1000)

    @property
    def name(self) -> str:
        """Return the beginning of the file names."""
        return f"{self.time_us}-{self.request_id}-{self.item}"


class KeptFolder:
    """The kept pictures of one service; for one thread."""

    def __init__(self, path: Path, *, days: float, max_bytes: int) -> None:
        self.path = path
        self._days, self._max_bytes = days, max_bytes
        self._bytes = 0

    def add(self, case: Case, jpeg: bytes) -> None:
        """Keep a picture.

        Raises:
            OSError: it cannot be written.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._bytes + len(jpeg) > self._max_bytes:
            self.prune(room=len(jpeg))
        _write(self.path / f"{case.name}.jpg", jpeg)
        self._bytes += len(jpeg)
        self.update(case)

    def update(self, case: Case) -> None:
        """Rewrite the JSON file of a kept picture."""
        text = json.dumps(asdict(case)).encode()
        _write(self.path / f"{case.name}.json", text)
        self._bytes += len(text)

    def find(self, request_id: str, item: int) -> Case | None:
        """Return the case of a request that is kept, the latest if there are several."""
        found = sorted(self.path.glob(f"*-{request_id}-{item}.json"))
        cases = (read_case(path) for path in reversed(found))
        return next((case for case in cases if (case.request_id, case.item) == (request_id, item)), None)

    def prune(self, *, room: int = 0) -> None:
        """Delete what is too old, and the oldest until `room` more bytes fit in."""
        oldest = time.time_ns() // 1000 - int(self._days * _DAY_US)
        sizes: dict[str, int] = {}
        for path in self.path.iterdir() if self.path.is_dir() else ():
            with suppress(OSError):
                sizes[path.name] = path.stat().st_size
        self._bytes = sum(sizes.values())
        most = (
            self._max_bytes - max(room, self._max_bytes // 20) if self._bytes + room > self._max_bytes else self._bytes
        )
        for name in sorted(sizes):
            stamp = name.partition("-")[0]
            if not stamp.isdigit():  # not ours
                continue
            if int(stamp) >= oldest and self._bytes <= most:
                break
            (self.path / name).unlink(missing_ok=True)
            self._bytes -= sizes[name]


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    partial.replace(path)


def read_case(path: Path) -> Case:
    """Read the JSON file of a case.

    Raises:
        StorageError: it is none.
    """
    try:
        known = json.loads(path.read_bytes())
        faces = [Face(**{**face, "box": tuple(face["box"])}) for face in known.pop("faces")]
        feedback = {int(face): str(emotion) for face, emotion in known.pop("feedback").items()}
        return Case(**known, faces=faces, feedback=feedback)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: no case of a kept picture ({error}); delete it with its picture") from error


def read_cases(folder: Path) -> Iterator[tuple[Case, Path]]:
    """Yield the cases of a folder with their pictures, the oldest first.

    Raises:
        StorageError: no such folder, or a file that is no case.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder; the service keeps pictures there with EMOTION_KEEP_PICTURES")
    for path in sorted(folder.glob("*.json")):
        if (picture := path.with_suffix(".jpg")).is_file():
            yield read_case(path), picture
