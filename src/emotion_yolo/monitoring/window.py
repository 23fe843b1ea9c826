"""A part of the prediction log as `Observations`, read while the service writes it."""

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isnan
from pathlib import Path
from typing import Any
from urllib.parse import quote

from emotion_yolo.errors import MonitoringError
from emotion_yolo.prediction_log.observations import Collector, Observations
from emotion_yolo.prediction_log.quality import InputQuality
from emotion_yolo.structures.emotions import NAMES

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PROBABILITIES = tuple(f"p_{name}" for name in NAMES)
_PICTURES = ("id", "time_us", "request_id", "item", "model", "width", "height", "bytes", "brightness", "sharpness")
_FACES = ("picture", "face", "x1", "y1", "x2", "y2", "confidence", "emotion", *_PROBABILITIES)

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Window:
    """Pictures of one model within a time, the oldest first."""

    observations: Observations
    model: str
    begin: datetime
    end: datetime
    other_models: int
    """Pictures of the same time that another model answered; they are left out."""
    feedback: int
    """Faces whose right emotion came back."""


def parse_time(text: str, *, now: datetime) -> datetime:
    """Return the time that `24h`, `7d` (before now) or an ISO 8601 time stands for; UTC where it names no zone.

    Raises:
        MonitoringError: it is neither.
    """
    if found := re.fullmatch(r"(\d+)([mhdw])", text):
        return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise MonitoringError(f"{text!r} is no time; expected 90m, 24h, 7d, 2w or 2026-11-26T04:00") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def read_window(
    log: Path, *, begin: datetime, end: datetime, last: int | None = None, model: str | None = None
) -> Window:
    """Read the log from `begin` until `end`, including its Parquet files.

    `last` keeps the latest pictures only. `model` is a digest; if None, that of the latest picture. Pictures that a
    request had its own thresholds for are left out.

    Raises:
        MonitoringError: no log there, or nothing of that time in it.
    """
    if not log.is_file():
        raise MonitoringError(f"{log}: no prediction log there; the service writes one with EMOTION_LOG_DB={log}")
    bounds = (_microseconds(begin), _microseconds(end))
    pictures, faces, truth = _read(log, bounds)
    if not pictures:
        raise MonitoringError(f"{log}: holds no picture from {begin:%Y-%m-%d %H:%M} until {end:%Y-%m-%d %H:%M} UTC")
    chosen = model or pictures[-1]["model"]
    ours = [row for row in pictures if row["model"] == chosen]
    ours = ours[-last:] if last else ours
    if not ours:
        raise MonitoringError(f"{log}: no picture of that time was answered by model {chosen[:12]}")
    of_picture: dict[int, list[Row]] = {row["id"]: [] for row in ours}
    for face in faces:
        if face["picture"] in of_picture:
            of_picture[face["picture"]].append(face)
    collector, known = Collector(), 0
    for row in ours:
        found = of_picture[row["id"]]
        right = [truth.get((row["request_id"], row["item"], face["face"]), float("nan")) for face in found]
        known += sum(not isnan(value) for value in right)
        collector.add(
            image_wh=(row["width"], row["height"]),
            bytes_=row["bytes"],
            quality=InputQuality(row["brightness"], row["sharpness"]),
            faces=[_values(face) for face in found],
            truth=right,
        )
    times = [datetime.fromtimestamp(ours[i]["time_us"] / 1e6, UTC) for i in (0, -1)]
    others = sum(row["model"] != chosen for row in pictures)
    return Window(collector.observations(), chosen, times[0], times[1], others, known)


def _microseconds(time: datetime) -> int:
    return int(time.timestamp() * 1e6)


def _values(face: Row) -> tuple[float, float, float, float]:
    side = min(face["x2"] - face["x1"], face["y2"] - face["y1"])
    emotion = NAMES.index(face["emotion"])
    return (side, face["confidence"], max(face[name] for name in _PROBABILITIES), float(emotion))


def _read(log: Path, bounds: tuple[int, int]) -> tuple[list[Row], list[Row], dict[tuple[str, int, int], float]]:
    """Return the rows of pictures and faces by age, and the right emotions by (request, item, face)."""
    where = "time_us BETWEEN ? AND ? AND plain = 1"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(log))}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")  # one state of all tables
            query = f"SELECT {', '.join(_PICTURES)} FROM pictures WHERE {where} ORDER BY id"  # noqa: S608  constants
            pictures = [dict(row) for row in connection.execute(query, bounds)]
            query = (
                f"SELECT {', '.join(_FACES)} FROM faces WHERE picture IN "  # noqa: S608  constants
                f"(SELECT id FROM pictures WHERE {where}) ORDER BY picture, face"
            )
            faces = [dict(row) for row in connection.execute(query, bounds)]
            query = "SELECT request_id, item, face, emotion FROM feedback ORDER BY id"  # the last one counts
            truth = {(r, i, f): float(NAMES.index(e)) for r, i, f, e in connection.execute(query)}
    except sqlite3.Error as error:
        raise MonitoringError(f"{log}: cannot be read as a prediction log ({error})") from error
    older_pictures, older_faces = _read_archive(log.with_name(f"{log.name}.archive"), bounds)
    # Between the two readings the service may have moved rows, which are then in both.
    here = {row["id"] for row in pictures}
    older_pictures = [row for row in older_pictures if row["id"] not in here]
    older_faces = [row for row in older_faces if row["picture"] not in here]
    return older_pictures + pictures, older_faces + faces, truth


def _read_archive(folder: Path, bounds: tuple[int, int]) -> tuple[list[Row], list[Row]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    pictures: list[Row] = []
    faces: list[Row] = []
    for path in sorted(folder.glob("pictures-*.parquet"), key=lambda path: int(path.stem.split("-")[1])):
        within = (pc.field("time_us") >= bounds[0]) & (pc.field("time_us") <= bounds[1]) & (pc.field("plain") == 1)
        try:
            found = pq.read_table(path, columns=list(_PICTURES), filters=within).to_pylist()
            if found:
                ids = pc.field("picture").isin([row["id"] for row in found])
                beside = path.with_name(path.name.replace("pictures", "faces", 1))
                faces += pq.read_table(beside, columns=list(_FACES), filters=ids).to_pylist()
                pictures += found
        except FileNotFoundError:  # deleted meanwhile: too old
            continue
    return pictures, faces
