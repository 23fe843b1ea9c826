"""Close-ups for classifiers: composed on the device to train on, and cut as they are served to measure on.

A classifier that is to teach the detector about its close-ups has to have seen faces in the same way.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from emotion_yolo.composition.chances import chances_of
from emotion_yolo.composition.composer import CLOSE_UP, FACE, Composer
from emotion_yolo.composition.draws import Draws, on_device
from emotion_yolo.composition.material import Material
from emotion_yolo.data.prepared import Sample, decoded
from emotion_yolo.expression.crops import Crops, as_tensor
from emotion_yolo.expression.teaching import resized
from emotion_yolo.inference.artefact import CloseUp
from emotion_yolo.inference.close_up import cut_out
from emotion_yolo.params import Compose
from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.emotions import FACE_ID

GIVEN = CloseUp(faces=1, side=CLOSE_UP, face=round(CLOSE_UP * FACE))


class ComposedFaces:
    """Batches for `train_classifier`, composed from `material` as `compose` says: no two alike.

    They depend on the seed and on the number of the epoch alone. A face without an emotion teaches nothing.
    """

    def __init__(self, material: Material, compose: Compose, *, updates: int, batch: int, seed: int) -> None:
        self._material, self._updates, self._batch, self._seed = material, updates, batch, seed
        self._chances = chances_of(material.faces, compose)
        self._targets = np.concatenate([material.labels_of(faces) for faces in material.faces])
        named = np.concatenate([faces.emotions != FACE_ID for faces in material.faces])
        self._targets[~named] = 0
        self.share = torch.from_numpy(self._targets.mean(axis=0))

    def __len__(self) -> int:
        return self._updates

    def epoch(self, number: int, *, imgsz: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pictures [B, 3, imgsz, imgsz] in 0-1 and targets [B, 8] of an epoch, counted from 0."""
        composer = Composer(self._material, self._chances, Draws([self._seed, number], device))
        for _ in range(self._updates):
            batch = composer.close_ups(self._batch)
            yield resized(batch.images, imgsz), on_device(self._targets[batch.faces], device)


def cut_close_ups(samples: Sequence[Sample]) -> Crops:
    """Return the close-ups of pictures of one named face each, 160 px wide and high, cut as the service does."""
    pictures, emotions = [], []
    for sample, image in decoded(samples):
        (face,) = xywhn_to_xyxy(sample.labels.xywhn, image_wh=image.shape[1::-1])
        pictures.append(cut_out(image, face.astype(np.float32), GIVEN)[0][0])
        emotions.append(int(sample.labels.cls[0]))
    return Crops.labelled(as_tensor(pictures), torch.tensor(emotions))
