"""What became of each track: how long it was seen, the share of each emotion, how often its name changed."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emotion_yolo.errors import StorageError


@dataclass
class _Track:
    number: int
    from_s: float
    to_s: float
    emotion: str
    changes: int = 0
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def record(self) -> dict[str, object]:
        total_s = sum(self.seconds.values())
        by_time = sorted(self.seconds.items(), key=lambda entry: -entry[1])
        shares = {emotion: round(seconds / total_s, 4) for emotion, seconds in by_time if seconds}
        return {
            "track": self.number,
            "from_s": round(self.from_s, 3),
            "to_s": round(self.to_s, 3),
            "seen_s": round(total_s, 3),
            "shares": shares,
            "changes": self.changes,
            "changes_per_minute": round(60 * self.changes / total_s, 2) if total_s else None,
        }


class _Video:
    def __init__(self, source: str) -> None:
        self.source = source
        self.tracks: dict[int, _Track] = {}
        self.time_s = 0.0
        self._period_s = 0.0
        self._shown: list[_Track] = []

    def add(self, time_s: float, emotions: Mapping[int, str]) -> None:
        self._period_s = time_s - self.time_s
        self._count()
        self.time_s, self._shown = time_s, []
        for number, emotion in emotions.items():
            track = self.tracks.setdefault(number, _Track(number, time_s, time_s, emotion))
            track.changes += emotion != track.emotion
            track.emotion, track.to_s = emotion, time_s
            self._shown.append(track)

    def _count(self) -> None:
        for track in self._shown:
            track.seconds[track.emotion] += self._period_s

    def close(self) -> None:
        self._count()  # the last frame is shown for as long as the one before it
        self._shown = []


class Summary:
    """Sums up the answers of tracked videos, in their order; memory grows with the number of tracks alone.

    A frame counts for the time until the next one, the last frame of a video for as long as the one before it.
    """

    def __init__(self) -> None:
        self._videos: list[_Video] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in the answer to one frame; answers to pictures and about frames that cannot be read are passed over."""
        if "time_s" not in record or "error" in record:
            return
        source, time_s = record["source"], record["time_s"]
        last = self._videos[-1] if self._videos else None
        if last is None or last.source != source or record["frame"] == 0:
            self.close()
            last = _Video(source)
            last.time_s = time_s
            self._videos.append(last)
        emotions = {face["track"]: face["emotion"] for face in record["detections"] if face["track"] is not None}
        last.add(time_s, emotions)

    def close(self) -> None:
        """Count the last frame of the present video."""
        if self._videos:
            self._videos[-1].close()

    def record(self) -> dict[str, object]:
        """Return the summary of the videos so far: for each its `source` and `tracks`, times in seconds from its start.

        `shares` of the time seen add up to 1; `changes_per_minute` is of the time seen.
        """
        return {
            "videos": [
                {"source": video.source, "tracks": [track.record() for track in video.tracks.values()]}
                for video in self._videos
            ]
        }


class SummaryFile:
    """A `Summary` that ends up in a file, also where the run is interrupted; a context manager."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Say where it is to lie.

        Raises:
            StorageError: the file exists and may not be replaced, or its folder does not exist.
        """
        if path.exists() and not overwrite:
            raise StorageError(f"{path}: exists already; add --overwrite to replace it, or name another file")
        if not path.parent.is_dir():
            raise StorageError(f"{path}: cannot be written (no such folder); make {path.parent}, or name another file")
        self._path = path
        self.summary = Summary()

    def __enter__(self) -> Summary:
        return self.summary

    def __exit__(self, *_: object) -> None:
        self.summary.close()
        partial = self._path.with_name(f"{self._path.name}.partial")
        try:
            partial.write_text(json.dumps(self.summary.record(), indent=2) + "\n", "utf-8")
            partial.replace(self._path)
        except OSError as error:
            why = error.strerror or str(error)
            raise StorageError(
                f"{self._path}: cannot be written ({why}); name another file, free space or grant access"
            ) from error
