"""The loader of composed batches, with the interface that Ultralytics' trainer asks of its data loaders."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.composition.chances import chances_of, teachers_shares
from emotion_yolo.composition.composer import SIDES, Batch, Composer, close_ups_of
from emotion_yolo.composition.draws import Device, Draws, on_device
from emotion_yolo.composition.material import Material
from emotion_yolo.params import Compose
from emotion_yolo.structures.boxes import xyxy_to_xywhn

COMPLETE = "complete"
"""Key of a batch: whether its gradients complete those of an update of the weights."""

LABELS, SHARES = "labels", "teachers_shares"
"""Keys of a batch of close-ups that teachers are asked about: probabilities [N, 8] as labelled, and the teachers' share
in each face's target, [N, 1]."""

_SIDE = 320  # px of the pictures that `compose.pictures` counts


def most_close_ups(compose: Compose) -> int:
    """Return how many close-ups a batch has at most."""
    return max(close_ups_of(compose.close_ups, side) for side in SIDES)


@dataclass(frozen=True)
class Listing:
    """What Ultralytics asks about the data set behind a loader."""

    labels: tuple[dict[str, NDArray[np.float32]], ...]

    def __len__(self) -> int:
        return len(self.labels)


class ComposedLoader:
    """Yields a batch of close-ups, then one of pictures, for each update of an epoch; nothing of it is read from disk.

    An epoch's batches depend on the seed and on its number alone: a resumed training gets those that it would have got.
    """

    num_workers = 0
    drop_last = False

    def __init__(
        self,
        material: Material,
        compose: Compose,
        *,
        sides: Sequence[int],
        seed: int,
        epoch: Callable[[], int],
        device: Device,
        part: float = 1.0,
    ) -> None:
        """Prepare to draw; `part` is that of the params' pictures which a batch holds, where memory allows no more.

        Raises:
            ParamsError: see `chances_of` and `teachers_shares`.
        """
        self._material, self._chances = material, chances_of(material.faces, compose)
        self._labels = np.concatenate([material.labels_of(faces) for faces in material.faces])
        self._shares = teachers_shares(material.faces, compose)
        self._sides, self._seed, self._epoch, self._device = tuple(sides), seed, epoch, device
        self._updates = compose.updates
        self._close_ups, self._pictures = (max(round(n * part), 1) for n in (compose.close_ups, compose.pictures))
        self.dataset = Listing(material.labels)
        self.batch_size = self._close_ups
        self.sampler = range(len(self) * self.batch_size)  # Ultralytics asks for its length, to judge the last batch

    def __len__(self) -> int:
        """Return the number of batches, two an update."""
        return 2 * self._updates

    def __iter__(self) -> Iterator[dict[str, Any]]:
        draws = Draws([self._seed, self._epoch()], self._device)
        composer = Composer(self._material, self._chances, draws)
        for _ in range(self._updates):
            close_ups = composer.close_ups(self._close_ups)
            yield {**self._as_asked(close_ups, complete=False), **self._to_teach(close_ups)}
            side = int(draws.numbers.choice(self._sides))
            count = max(round(self._pictures * (_SIDE / side) ** 2), 1)
            yield self._as_asked(composer.pictures(count, side), complete=True)

    def reset(self) -> None:
        """Do nothing: Ultralytics restarts its own loader's processes where augmentation changes."""

    def _to_teach(self, batch: Batch) -> dict[str, Any]:
        if not self._shares.any():
            return {}
        labels, shares = self._labels[batch.faces], self._shares[batch.faces, None]
        return {LABELS: on_device(labels, self._device), SHARES: on_device(shares, self._device)}

    def _as_asked(self, batch: Batch, *, complete: bool) -> dict[str, Any]:
        side = batch.images.shape[-1]
        return {
            "img": batch.images,
            "cls": on_device(batch.ids.astype(np.float32)[:, None], self._device),
            "bboxes": on_device(xyxy_to_xywhn(batch.boxes, image_wh=(side, side)), self._device),
            "batch_idx": on_device(batch.index.astype(np.float32), self._device),
            COMPLETE: complete,
        }
