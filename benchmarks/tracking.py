"""How well and how fast `predict --track` follows drawn people: switched numbers, flicker, frames a second.

    python -m benchmarks.tracking --model models/release --seconds 8
    python -m benchmarks.tracking --draw people.mp4          # the video alone

People walk past each other at several depths, turn their heads, leave and enter; each changes the expression every few
seconds. MOTA, IDF1 and switches are motmetrics', at an IoU of at least 0.5. A face that a nearer one hides by more than
half, or that is in the picture by less than half, is not asked for. Prints a table in Markdown.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import motmetrics
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.inference.loading import load_model
from emotion_yolo.inference.model import FaceModel
from emotion_yolo.portraits.anatomy import ActionUnits, Identity, Pose
from emotion_yolo.portraits.composing import random_identity, random_units
from emotion_yolo.portraits.drawing import Light, draw_face
from emotion_yolo.predict.run import predict
from emotion_yolo.predict.sources import Inputs
from emotion_yolo.structures.boxes import area, clip_xyxy, iou_matrix
from emotion_yolo.structures.emotions import Emotion
from emotion_yolo.structures.images import Image
from emotion_yolo.tracks import Tracking
from emotion_yolo.video.writing import VideoWriter

WIDTH, HEIGHT, RATE = 640, 360, 25
LEAST_IOU = 0.5
CHANGE_S = 2.5  # how long an expression lasts
NOISE = 0.03  # of the sensor, 0-1

MODES: dict[str, Tracking | None] = {
    "plain loop": None,
    "`--track --half-life 0`": Tracking(half_life_s=0),
    "`--track`": Tracking(),
    "`--track --every 2`": Tracking(every=2),
    "`--track --every 3`": Tracking(every=3),
    "`--track --every 5`": Tracking(every=5),
}


@dataclass(frozen=True)
class Person:
    """Walks from one place to another and back; `units` are the expressions shown in turn."""

    identity: Identity
    shown: tuple[tuple[Emotion, ActionUnits], ...]
    from_x: float  # px
    to_x: float
    y: float
    period_s: float  # of a walk there and back
    pixels_per_unit: float

    def at(self, time_s: float) -> tuple[tuple[float, float], Pose, Emotion, ActionUnits]:
        """Return where the person is, how the head is turned, and what it shows."""
        phase = 2 * np.pi * time_s / self.period_s
        x = self.from_x + (self.to_x - self.from_x) * (1 - np.cos(phase)) / 2
        emotion, units = self.shown[int(time_s / CHANGE_S) % len(self.shown)]
        return (
            (float(x), self.y),
            Pose(yaw=float(20 * np.sin(phase)), roll=float(4 * np.sin(3 * phase))),
            emotion,
            units,
        )


@dataclass(frozen=True)
class Truth:
    """The faces of a frame that a detector has to find."""

    people: NDArray[np.int64]  # [N]
    emotions: tuple[Emotion, ...]  # N
    xyxy: NDArray[np.float64]  # [N, 4], px


def cast(rng: np.random.Generator) -> list[Person]:
    """Return four people, the farthest first: two cross, one leaves and comes back, one stays."""
    paths = ((80, 560, 120, 9.0, 24), (480, 760, 110, 8.0, 26), (580, 100, 150, 7.0, 32), (320, 360, 290, 6.0, 34))
    people = []
    for from_x, to_x, y, period_s, scale in paths:
        emotions = [Emotion(int(number)) for number in rng.permutation(len(Emotion))[:4]]
        shown = tuple((emotion, random_units(emotion, rng)) for emotion in emotions)
        people.append(Person(random_identity(rng), shown, from_x, to_x, y, period_s, scale))
    return people


def frames(people: Sequence[Person], seconds: float, rng: np.random.Generator) -> Iterator[tuple[float, Image, Truth]]:
    """Draw the video: time in seconds, RGB frame [H, W, 3], and what is to be found in it."""
    wall = np.linspace(0.35, 0.6, WIDTH, dtype=np.float32)[None, :, None] * np.ones((HEIGHT, 1, 3), np.float32)
    for number in range(round(seconds * RATE)):
        time_s = number / RATE
        canvas = wall.copy()
        boxes, emotions = [], []
        for person in people:
            centre, pose, emotion, units = person.at(time_s)
            emotions.append(emotion)
            boxes.append(
                draw_face(
                    canvas,
                    person.identity,
                    units,
                    pose,
                    Light(),
                    centre_xy=centre,
                    pixels_per_unit=person.pixels_per_unit,
                )
            )
        noisy = canvas + rng.normal(0, NOISE, canvas.shape)
        yield time_s, np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8), to_find(np.asarray(boxes), emotions)


def to_find(boxes: NDArray[np.float64], emotions: Sequence[Emotion]) -> Truth:
    """Return those of `boxes` [N, 4], the farthest first, of which at least half can be seen."""
    inside = clip_xyxy(boxes, image_wh=(WIDTH, HEIGHT))
    is_seen = area(inside) >= 0.5 * area(boxes)
    for number, box in enumerate(inside):
        nearer = inside[number + 1 :]
        low, high = np.maximum(box[:2], nearer[:, :2]), np.minimum(box[2:], nearer[:, 2:])
        hidden = np.clip(high - low, 0, None).prod(axis=1)
        is_seen[number] &= bool((hidden <= 0.5 * area(box[None])[0]).all())
    people = np.flatnonzero(is_seen)
    return Truth(people, tuple(emotions[person] for person in people), inside[is_seen])


class Score:
    """Compares answers with the truth, frame by frame."""

    def __init__(self) -> None:
        self._tracks = motmetrics.MOTAccumulator(auto_id=True)
        self._names: dict[int, str] = {}
        self._changes = self._right = self._found = 0
        self._frames = 0

    def add(self, truth: Truth, faces: Sequence[dict[str, Any]]) -> None:
        """Take in the answer to a frame; faces without a track count as found, but for no track."""
        boxes = np.asarray([list(face["box"].values()) for face in faces], np.float64).reshape(-1, 4)
        overlap = iou_matrix(truth.xyxy, boxes)
        has_track = np.asarray([face.get("track") is not None for face in faces], bool)
        distances = np.where(overlap >= LEAST_IOU, 1 - overlap, np.nan)[:, has_track]
        numbers = [face["track"] for face in faces if face.get("track") is not None]
        self._tracks.update(truth.people.tolist(), numbers, distances)
        self._frames += len(truth.people)
        for row, (person, emotion) in enumerate(zip(truth.people.tolist(), truth.emotions, strict=True)):
            if not len(faces) or overlap[row].max() < LEAST_IOU:
                continue
            name = faces[int(overlap[row].argmax())]["emotion"]
            self._changes += name != self._names.get(person, name)
            self._names[person] = name
            self._found += 1
            self._right += name == emotion.label

    def figures(self) -> dict[str, float]:
        """Return switches, mota and idf1 of the tracks, changes of name a minute and person, share of right names."""
        host = motmetrics.metrics.create()
        tracks = host.compute(self._tracks, metrics=["num_switches", "mota", "idf1"]).iloc[0].to_dict()
        minutes = self._frames / RATE / 60
        return tracks | {"flicker": self._changes / minutes, "right": self._right / max(self._found, 1)}


def as_answer(truth: Truth) -> list[dict[str, Any]]:
    """Return the faces that a perfect run would answer with."""
    faces = zip(truth.people.tolist(), truth.emotions, truth.xyxy.tolist(), strict=True)
    return [
        {"track": person, "emotion": emotion.label, "box": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
        for person, emotion, box in faces
    ]


def measure(detector: FaceModel, clip: Path, truths: Sequence[Truth], tracking: Tracking | None) -> dict[str, float]:
    """Run over a video; returns the figures of `Score`, and frames a second, decoding included."""
    (source,) = Inputs([str(clip)])
    score = Score()
    started = time.perf_counter()
    answers: list[Any] = list(predict(detector, source, tracking=tracking))
    seconds = time.perf_counter() - started
    for truth, answer in zip(truths, answers, strict=True):
        score.add(truth, answer["detections"])
    return score.figures() | {"rate": len(answers) / seconds}


def draw(clip: Path, seconds: float, seed: int) -> list[Truth]:
    """Write the video to `clip`; returns what is to be found in each frame."""
    rng = np.random.default_rng(seed)
    truths = []
    with VideoWriter(clip) as video:
        for time_s, image, truth in frames(cast(rng), seconds, rng):
            video.write(image, time_s=time_s)
            truths.append(truth)
    return truths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--seconds", type=float, default=8.0, help="of video")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", type=Path, help="write the video there, and measure nothing")
    options = parser.parse_args()
    if options.draw:
        draw(options.draw, options.seconds, options.seed)
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "people.mp4"
        truths = draw(clip, options.seconds, options.seed)
        detector = load_model(options.model)
        measure(detector, clip, truths, Tracking())  # warms up
        print("| | ID switches | MOTA | IDF1 | changes of name a minute and person | right names | frames/s |")
        print("|---|---|---|---|---|---|---|")
        perfect = Score()
        for truth in truths:
            perfect.add(truth, as_answer(truth))
        print(f"| truth | 0 | 1 | 1 | {perfect.figures()['flicker']:.1f} | 1 | – |")
        for name, tracking in MODES.items():
            got = measure(detector, clip, truths, tracking)
            tracks = f"{got['num_switches']:.0f} | {got['mota']:.3f} | {got['idf1']:.3f}" if tracking else "– | – | –"
            print(f"| {name} | {tracks} | {got['flicker']:.1f} | {got['right']:.2f} | {got['rate']:.1f} |")


if __name__ == "__main__":
    main()
