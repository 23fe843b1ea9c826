"""Tracks of faces in a video: stable numbers, smoothed emotions, boxes for frames without detection.

Boxes are joined to tracks by ByteTrack of the package trackers (extra `track`), with the frames' own times.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import DependencyError
from emotion_yolo.structures.boxes import clip_xyxy
from emotion_yolo.structures.detections import Detections, FloatArray

LEAST_CONFIDENCE = 0.1
"""Faces from this confidence on continue a track, as in ByteTrack; beginning one takes the confidence of an answer."""

_RATE = 30.0  # frames a second to which ByteTrack's noise is tuned; the steps are scaled by the real times
_LOST_FRAMES = 30  # of _RATE: a face that is gone for more than a second comes back with another number
_LEAST_STEP_S = 1e-4  # damaged files repeat times or go back, which a tracker cannot


@dataclass(frozen=True)
class Tracking:
    """Options of tracking.

    Probabilities are averaged with weights that halve every `half_life_s` seconds, 0 for none; faces are looked for in
    every `every`th frame, and their boxes carried on in between.
    """

    half_life_s: float = 0.5
    every: int = 1


@dataclass(frozen=True, eq=False)
class TrackedFaces:
    """The faces of a frame, with the track [N] of each, or None for one that has been found only once so far.

    `raw` [N, C] are the probabilities of the last frame that was looked at, before they are averaged.
    """

    faces: Detections
    tracks: tuple[int | None, ...]
    raw: FloatArray

    def select(self, mask: NDArray[np.bool_]) -> "TrackedFaces":
        """Return the faces where the [N] `mask` is true."""
        tracks = tuple(track for track, is_kept in zip(self.tracks, mask, strict=True) if is_kept)
        return TrackedFaces(self.faces.select(mask), tracks, self.raw[mask])

    def records(self) -> list[dict[str, object]]:
        """Return each face as `Detections.records` does, with its `track`."""
        return [{"track": track} | face for track, face in zip(self.tracks, self.faces.records(), strict=True)]


class FaceTracker:
    """Follows the faces of one video; frames are given in order of their times."""

    def __init__(self, *, half_life_s: float, confidence: float) -> None:
        """Begin without a face.

        `half_life_s` is that of the probabilities' average in seconds, `confidence` what it takes to begin a track.

        Raises:
            DependencyError: the package trackers is not installed.
        """
        try:
            from trackers import ByteTrackTracker
        except ImportError as error:
            advice = "install it with pip install 'emotion-yolo[track]', or leave out --track"
            raise DependencyError(f"tracking needs the package {error.name or 'trackers'}; {advice}") from error
        self._confidence = confidence
        self._tracker = ByteTrackTracker(
            lost_track_buffer=_LOST_FRAMES,
            frame_rate=_RATE,
            track_activation_threshold=confidence,
            high_conf_det_threshold=confidence,
        )
        self._half_life_s = half_life_s
        self._averages: dict[int, tuple[NDArray[np.float64], float]] = {}
        self._time_s = -np.inf
        self._last: TrackedFaces | None = None

    def update(self, faces: Detections, *, time_s: float) -> TrackedFaces:
        """Join the faces found in the frame at `time_s` to tracks.

        Of faces below the confidence that a track begins with, those that continue one are kept.
        """
        import supervision

        self._time_s = max(time_s, self._time_s + _LEAST_STEP_S)
        rows = np.arange(len(faces))
        found = supervision.Detections(
            faces.xyxy.astype(np.float64), confidence=faces.confidence.copy(), data={"row": rows}
        )
        joined = self._tracker.update(found, timestamp=self._time_s)
        numbers = np.full(len(faces), -1)
        numbers[np.asarray(joined.data.get("row", rows[:0]), np.int64)] = joined.tracker_id
        probabilities = faces.probabilities.astype(np.float64)
        for row, number in enumerate(numbers.tolist()):
            if number >= 0:
                probabilities[row] = self._average(number, probabilities[row])
        alive = {track.tracker_id for track in self._tracker.tracks}
        self._averages = {number: average for number, average in self._averages.items() if number in alive}
        tracks = tuple(number if number >= 0 else None for number in numbers.tolist())
        tracked = TrackedFaces(
            faces.renamed(probabilities.astype(np.float32), faces.names), tracks, faces.probabilities
        )
        self._last = tracked.select((numbers >= 0) | (faces.confidence >= self._confidence))
        return self._last

    def _average(self, number: int, new: NDArray[np.float64]) -> NDArray[np.float64]:
        average = new
        if number in self._averages and self._half_life_s:
            old, then_s = self._averages[number]
            weight = 0.5 ** ((self._time_s - then_s) / self._half_life_s)
            average = weight * old + (1 - weight) * new
        self._averages[number] = average, self._time_s
        return average

    def carry_on(self, *, time_s: float) -> TrackedFaces:
        """Return the faces of the last `update`, moved to where their tracks lead at `time_s`, as they looked then.

        A face without a track stays where it was; one that has left the picture is left out.
        """
        assert self._last is not None, "the first frame is looked at"
        last = self._last
        moved = {track.tracker_id: self._box_at(track, time_s) for track in self._tracker.tracks}
        boxes = np.asarray(
            [box if track is None else moved[track] for box, track in zip(last.faces.xyxy, last.tracks, strict=True)],
            np.float32,
        ).reshape(-1, 4)
        boxes = clip_xyxy(boxes, image_wh=last.faces.image_wh)
        is_seen: NDArray[np.bool_] = np.asarray((boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1))
        kept = last.select(is_seen)
        faces = Detections(
            boxes[is_seen], kept.faces.confidence, kept.faces.probabilities, last.faces.image_wh, last.faces.names
        )
        return TrackedFaces(faces, kept.tracks, kept.raw)

    def _box_at(self, track: Any, time_s: float) -> NDArray[np.float64]:
        from trackers.utils.predict_timing import PredictTiming

        ahead_s = max(time_s - self._time_s, 0.0)
        timing = PredictTiming(frame_step=ahead_s * _RATE, elapsed_seconds=ahead_s, frame_rate=_RATE)
        box: NDArray[np.float64] = deepcopy(track).predict(timing)  # of a copy: the next update makes the step itself
        return box
