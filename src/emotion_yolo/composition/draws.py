"""The random numbers of a batch: one seed gives the same batches."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Device = torch.device | str


def on_device(values: NDArray[np.generic], device: Device) -> torch.Tensor:
    """Return an array as a tensor on `device`; floats are narrowed to 32 bits."""
    wide = values.dtype == np.float64
    return torch.from_numpy(np.ascontiguousarray(values, np.float32 if wide else None)).to(device)


class Draws:
    """What is drawn by number comes from one NumPy generator; noise, a number a pixel, from the device's own."""

    def __init__(self, seed: Sequence[int], device: Device) -> None:
        self.device = device
        self.numbers = np.random.default_rng(seed)
        self._noise = torch.Generator(device)
        self._noise.manual_seed(int(self.numbers.integers(2**62)))

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Return even draws between `low` and `high` on the device."""
        return on_device(self.numbers.uniform(low, high, shape), self.device)

    def noise(self, like: torch.Tensor) -> torch.Tensor:
        """Return normal draws of the shape of `like`."""
        return torch.randn(like.shape, generator=self._noise, device=like.device)

    def signs(self, count: int) -> NDArray[np.float64]:
        """Return [count] times -1 or 1, as likely."""
        return np.where(self.numbers.random(count) < 0.5, -1.0, 1.0)

    def angles(self, count: int, *, chance: float, most: float) -> NDArray[np.float64]:
        """Return [count] angles in radians: with `chance` up to ± `most`, else 0."""
        turned = self.numbers.random(count) < chance
        return np.where(turned, self.numbers.uniform(-most, most, count), 0.0)

    def some(self, count: int, chance: float) -> NDArray[np.bool_]:
        """Return which of `count` are drawn, each with `chance`."""
        return np.asarray(self.numbers.random(count) < chance)
