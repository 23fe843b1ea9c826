"""Geometry of a canvas: which point of a picture lies where, how large, turned and mirrored, and where boxes land."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Views:
    """How `n` pictures are seen, each on a square canvas of its own; px of pictures and canvases, y downwards."""

    anchor: Floats
    """[n, 2] point of the picture."""
    at: Floats
    """[n, 2] where it lies on the canvas."""
    scale: Floats
    """[n] px of the canvas a px of the picture."""
    angle: Floats
    """[n] radians, clockwise on the canvas."""
    mirrored: Floats
    """[n] -1 where left and right are exchanged, else 1."""

    def __len__(self) -> int:
        return len(self.scale)

    @property
    def _to_picture(self) -> Floats:
        """Return [n, 2, 2], offsets on the canvas to offsets in the picture."""
        cos, sin = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        rows = [np.stack([cos * self.mirrored, sin * self.mirrored], 1), np.stack([-sin, cos], 1)]
        return np.stack(rows, 1)

    def theta(self, *, side: int, canvas: int) -> Floats:
        """Return the [n, 2, 3] of PyTorch's `affine_grid` for pictures of `side` px: both span -1 to 1 there."""
        matrix = self._to_picture
        middle = np.einsum("nij,nj->ni", matrix, canvas / 2 - self.at) + self.anchor
        return np.concatenate([matrix * canvas / side, (middle * 2 / side - 1)[..., None]], axis=2)

    def boxes(self, xyxy: Floats, which: NDArray[np.int64] | None = None) -> Floats:
        """Return where boxes [m, 4] of the pictures `which` [m] (box i of picture i) lie on their canvases.

        Their edges may be outside. A turned face keeps its box's sides: it is turned by little.
        """
        which = np.arange(len(self)) if which is None else which
        to_canvas = np.linalg.inv(self._to_picture)[which]
        offset = (xyxy[:, :2] + xyxy[:, 2:]) / 2 - self.anchor[which]
        middle = np.einsum("nij,nj->ni", to_canvas, offset) + self.at[which]
        half = (xyxy[:, 2:] - xyxy[:, :2]) * self.scale[which, None] / 2
        return np.concatenate([middle - half, middle + half], axis=1)


def views_of_faces(boxes: Floats, *, longer: Floats, at: Floats, angle: Floats, mirrored: Floats) -> Views:
    """Return views in which the middle of each face [n, 4] is `at` [n, 2], and its longer side has `longer` [n] px."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return Views((boxes[:, :2] + boxes[:, 2:]) / 2, at, longer / sides.max(axis=1), angle, mirrored)
