"""A summary of each track: how long it was seen, the share of each emotion, how often its emotion changed."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from emotion_yolo.predict.reports import TrackReport


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


class Summary(TrackReport):
    """Sums up the tracks of videos; memory grows with their number alone."""

    def __init__(self) -> None:
        super().__init__()
        self._videos: list[tuple[str, dict[int, _Track]]] = []

    def _begin_video(self, source: str) -> None:
        self._videos.append((source, {}))

    def _show(self, time_s: float, period_s: float, emotions: Mapping[int, str]) -> None:
        _, tracks = self._videos[-1]
        for number, emotion in emotions.items():
            track = tracks.setdefault(number, _Track(number, time_s, time_s, emotion))
            track.changes += emotion != track.emotion
            track.emotion, track.to_s = emotion, time_s
            track.seconds[emotion] += period_s

    def _end_video(self) -> None:
        """Do nothing: a track that is not shown does not grow."""

    def record(self) -> dict[str, object]:
        """Return the summary of the videos so far: for each its `source` and `tracks`, times in seconds from its start.

        `shares` of the time seen add up to 1; `changes_per_minute` is of the time seen.
        """
        return {
            "videos": [
                {"source": source, "tracks": [track.record() for track in tracks.values()]}
                for source, tracks in self._videos
            ]
        }

    def encoded(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(self.record(), indent=2).encode() + b"\n"
