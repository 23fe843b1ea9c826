"""The rows of the prediction log and the tables they are kept in."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from emotion_yolo.prediction_log.quality import InputQuality
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import NAMES

VERSION = 2
"""Of the tables; kept in SQLite's `user_version`. Version 1 had no table `shadow`."""

PICTURE_COLUMNS = (
    "id", "time_us", "request_id", "item", "model", "width", "height", "format", "bytes", "brightness", "sharpness",
    "faces", "latency_ms", "plain",
)  # fmt: skip
FACE_COLUMNS = ("picture", "face", "x1", "y1", "x2", "y2", "confidence", "emotion", *(f"p_{name}" for name in NAMES))
FEEDBACK_COLUMNS = ("id", "time_us", "request_id", "item", "face", "emotion")
SHADOW_COLUMNS = (
    "id", "time_us", "request_id", "item", "model", "candidate", "faces", "candidate_faces", "matched", "same",
    "latency_ms",
)  # fmt: skip

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, request_id TEXT NOT NULL, item INTEGER NOT NULL,
    model TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, format TEXT NOT NULL, bytes INTEGER NOT NULL,
    brightness REAL NOT NULL, sharpness REAL NOT NULL, faces INTEGER NOT NULL, latency_ms REAL NOT NULL,
    plain INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS faces (
    picture INTEGER NOT NULL, face INTEGER NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL,
    y2 REAL NOT NULL, confidence REAL NOT NULL, emotion TEXT NOT NULL,
    {", ".join(f"p_{name} REAL NOT NULL" for name in NAMES)}, PRIMARY KEY (picture, face)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, request_id TEXT NOT NULL, item INTEGER NOT NULL,
    face INTEGER NOT NULL, emotion TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS shadow (
    id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, request_id TEXT NOT NULL, item INTEGER NOT NULL,
    model TEXT NOT NULL, candidate TEXT NOT NULL, faces INTEGER NOT NULL, candidate_faces INTEGER NOT NULL,
    matched INTEGER NOT NULL, same INTEGER NOT NULL, latency_ms REAL NOT NULL
);
PRAGMA user_version = {VERSION};
"""


def _now_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True, eq=False)
class PictureRecord:
    """An answered picture: a row of `pictures`, and one of `faces` for each of its faces."""

    request_id: str
    item: int
    """Place in a batch; 0 for a single picture."""
    model: str
    """Digest of the model that answered."""
    format: str
    bytes: int
    quality: InputQuality
    detections: Detections
    latency_ms: float
    plain: bool
    """Answered with the model's own thresholds and limits, so that it can be compared with others."""
    time_us: int = field(default_factory=_now_us)
    """When it was answered, microseconds since 1970 UTC."""

    def picture_row(self, key: int) -> tuple[object, ...]:
        """Return the row of `pictures`."""
        width, height = self.detections.image_wh
        return (
            key, self.time_us, self.request_id, self.item, self.model, width, height, self.format, self.bytes,
            self.quality.brightness, self.quality.sharpness, len(self.detections), round(self.latency_ms, 3),
            int(self.plain),
        )  # fmt: skip

    def face_rows(self, key: int) -> Iterator[tuple[object, ...]]:
        """Yield the rows of `faces`."""
        found = self.detections
        columns = (
            found.xyxy.tolist(),
            found.confidence.tolist(),
            found.emotion_ids.tolist(),
            found.probabilities.tolist(),
        )
        for face, (box, confidence, emotion, probabilities) in enumerate(zip(*columns, strict=True)):
            corners, given = (round(v, 2) for v in box), dict(zip(found.names, probabilities, strict=True))
            shares = (round(given.get(name, 0.0), 6) for name in NAMES)  # 0 of an emotion that the model does not name
            yield (key, face, *corners, round(confidence, 4), NAMES[emotion], *shares)


@dataclass(frozen=True)
class Feedback:
    """The expression of an answered face as corrected by a person: a row of `feedback`."""

    request_id: str
    item: int
    face: int
    """Place among the faces of the answer."""
    emotion: str
    time_us: int = field(default_factory=_now_us)

    def row(self, key: int) -> tuple[object, ...]:
        """Return the row of `feedback`."""
        return (key, self.time_us, self.request_id, self.item, self.face, self.emotion)


@dataclass(frozen=True)
class ShadowRecord:
    """How far a candidate agrees with the answer of the present model: a row of `shadow`."""

    request_id: str
    item: int
    model: str
    """Digest of the present model."""
    candidate: str
    """Digest of the candidate."""
    faces: int
    candidate_faces: int
    matched: int
    """Faces that both found."""
    same: int
    """Of those, named alike."""
    latency_ms: float
    """Of the candidate."""
    time_us: int = field(default_factory=_now_us)

    def row(self, key: int) -> tuple[object, ...]:
        """Return the row of `shadow`."""
        return (
            key, self.time_us, self.request_id, self.item, self.model, self.candidate, self.faces, self.candidate_faces,
            self.matched, self.same, round(self.latency_ms, 3),
        )  # fmt: skip


Record = PictureRecord | Feedback | ShadowRecord
