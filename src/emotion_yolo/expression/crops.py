"""The pictures of single faces that a classifier is trained and measured on, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from emotion_yolo.data.prepared import Sample, decoded
from emotion_yolo.errors import DataError
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import CROP_SIDE


@dataclass(frozen=True, eq=False)
class Crops:
    """RGB pictures [N, 3, H, W] uint8, and the probabilities [N, C] of the classes to train on.

    `emotions` [N] are the labels, as places among the classes. They need not be the targets' most probable ones.
    """

    pictures: Tensor
    targets: Tensor
    emotions: Tensor

    def __len__(self) -> int:
        return len(self.emotions)

    @classmethod
    def labelled(cls, pictures: Tensor, emotions: Tensor, *, classes: int = len(NAMES)) -> "Crops":
        """Return crops with hard labels."""
        return cls(pictures, F.one_hot(emotions.long(), classes).float(), emotions)

    @classmethod
    def read(cls, samples: Sequence[Sample]) -> "Crops":
        """Read the crops of a prepared split as they are, 96 px wide and high.

        Raises:
            DataError: no pictures of one named face among them.
        """
        samples = [sample for sample in samples if FACE_ID not in sample.labels.cls]
        if not samples:
            raise DataError("no single crops in the train split; prepare it with prepare.sheets.singles: 1.0")
        pictures = [
            cv2.resize(picture, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA) for _, picture in decoded(samples)
        ]
        emotions = [int(sample.labels.cls[0]) for sample in samples]
        return cls.labelled(as_tensor(pictures), torch.tensor(emotions))


def as_tensor(pictures: Sequence[NDArray[Any]]) -> Tensor:
    """Stack RGB pictures [H, W, 3] of one size to [N, 3, H, W]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
