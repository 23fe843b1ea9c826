"""The one value that flows from the detector to metrics, reports and answers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.structures.emotions import NAMES, Emotion

FloatArray = NDArray[np.float32]

_SHOWN = 3  # faces in a repr


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The faces found in one picture, by falling confidence.

    `xyxy` [N, 4] are pixel corners within the picture, `confidence` [N] in 0-1 says that it is a face, `probabilities`
    [N, C] are those of the emotions `names` given a face: each row sums to 1. A detector names all eight, C = 8; some
    classifiers name fewer. `image_wh` is the picture's size in pixels. Arrays are float32 and read-only.

    Raises:
        ValueError: an array of another shape, out of range, not finite, or out of order.
    """

    xyxy: FloatArray
    confidence: FloatArray
    probabilities: FloatArray
    image_wh: tuple[int, int]
    names: tuple[str, ...] = NAMES

    def __post_init__(self) -> None:
        n = len(self.confidence)
        for name, shape in (("xyxy", (n, 4)), ("confidence", (n,)), ("probabilities", (n, len(self.names)))):
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")
            array = array.copy()
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        width, height = self.image_wh
        if width < 1 or height < 1:
            raise ValueError(f"image_wh is {self.image_wh}, expected a width and a height of at least 1 px")
        if n == 0:
            return
        if self.xyxy.min() < 0 or self.xyxy[:, 2].max() > width or self.xyxy[:, 3].max() > height:
            raise ValueError(f"xyxy leaves the picture of {width}×{height} px")
        if (self.xyxy[:, 2:] < self.xyxy[:, :2]).any():
            raise ValueError("xyxy holds a box whose right or lower edge comes before its left or upper one")
        if self.confidence.min() < 0 or self.confidence.max() > 1:
            raise ValueError("confidence is outside 0-1")
        if (np.diff(self.confidence) > 0).any():
            raise ValueError("detections are not sorted by falling confidence")
        if self.probabilities.min() < 0 or not np.allclose(self.probabilities.sum(1), 1, atol=1e-3):
            raise ValueError("a row of probabilities is negative or does not sum to 1")

    def __repr__(self) -> str:
        width, height = self.image_wh
        count = f"{len(self)} face{'s' * (len(self) != 1)}"
        faces = [
            f"{emotion.label} {row.max():.2f}" for emotion, row in zip(self.emotions, self.probabilities, strict=True)
        ]
        shown = ", ".join(faces[:_SHOWN]) + (", …" if len(faces) > _SHOWN else "")
        return f"<Detections: {count} in {width}×{height} px{': ' * bool(faces)}{shown}>"

    def _repr_html_(self) -> str:
        """Return a table of the faces, which a notebook shows."""
        head = "<tr><th>emotion</th><th>probability</th><th>confidence</th><th>box: x1, y1, x2, y2 (px)</th></tr>"
        rows = (
            f"<tr><td>{emotion.label}</td><td>{row.max():.2f}</td><td>{confidence:.2f}</td>"
            f"<td>{', '.join(f'{value:.0f}' for value in box)}</td></tr>"
            for emotion, row, confidence, box in zip(
                self.emotions, self.probabilities, self.confidence, self.xyxy, strict=True
            )
        )
        return f"<table>{head}{''.join(rows)}</table>"

    def __len__(self) -> int:
        return len(self.confidence)

    @cached_property
    def emotion_ids(self) -> NDArray[np.int64]:
        """Return the [N] class ids of the most probable emotions."""
        of_name = np.asarray([NAMES.index(name) for name in self.names], np.int64)
        ids: NDArray[np.int64] = of_name[self.probabilities.argmax(axis=1)]
        return ids

    @property
    def shorter_sides(self) -> FloatArray:
        """Return the [N] shorter sides of the boxes in px."""
        sides: FloatArray = (self.xyxy[:, 2:] - self.xyxy[:, :2]).min(axis=1)
        return sides

    @property
    def emotions(self) -> list[Emotion]:
        """Return the most probable emotion of each face."""
        return [Emotion(int(i)) for i in self.emotion_ids]

    @classmethod
    def empty(cls, image_wh: tuple[int, int], names: tuple[str, ...] = NAMES) -> Self:
        """Return a picture without a face."""
        zeros = np.zeros((0, 4), np.float32)
        return cls(zeros, zeros[:, 0], np.zeros((0, len(names)), np.float32), image_wh, names)

    def select(self, mask: NDArray[np.bool_]) -> Self:
        """Return the detections where the [N] `mask` is true."""
        return type(self)(self.xyxy[mask], self.confidence[mask], self.probabilities[mask], self.image_wh, self.names)

    def renamed(self, probabilities: FloatArray, names: tuple[str, ...]) -> Self:
        """Return the same faces with other probabilities [N, C], those of `names`."""
        return type(self)(self.xyxy, self.confidence, probabilities, self.image_wh, names)

    def records(self) -> list[dict[str, object]]:
        """Return each face as it is answered by the service and the command line and kept in stores.

        `box` has corners in px to two decimals, `confidence` four, `probabilities` six, by emotion.
        """
        return [
            {
                "box": dict(zip(("x1", "y1", "x2", "y2"), (round(v, 2) for v in box), strict=True)),
                "emotion": emotion.label,
                "confidence": round(confidence, 4),
                "probabilities": dict(zip(self.names, (round(p, 6) for p in row), strict=True)),
            }
            for box, emotion, confidence, row in zip(
                self.xyxy.tolist(), self.emotions, self.confidence.tolist(), self.probabilities.tolist(), strict=True
            )
        ]
