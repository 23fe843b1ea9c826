"""The network that a training starts from as one of its teachers, as it was before the training.

It is meant to keep what that knows and the others do not (born-again networks; Furlanello et al., arXiv:1805.04770).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from ultralytics.nn.tasks import load_checkpoint

from emotion_yolo.devices import has_bf16
from emotion_yolo.yolo.weights import one_to_many

_TEMPERATURE = 0.69  # of its shares, which the class loss leaves flatter than they should be; the ninth release's
_LEAST = 1e-6

Ask = Callable[[Tensor], Tensor]
"""Of close-ups [B, 3, S, S] in 0-1 to the probabilities [B, 8] of their expressions."""


class OwnTeacher:
    """The checkpoint `weights`, of the eight emotions, with `share` in the answer beside other teachers."""

    def __init__(self, weights: str, *, beside: Ask, share: float, device: torch.device) -> None:
        model = load_checkpoint(weights)[0].float()
        one_to_many(model)
        self._model = model.to(device).eval().requires_grad_(requires_grad=False)
        self._beside, self._share, self._bf16 = beside, share, has_bf16(device)

    @torch.no_grad()
    def __call__(self, close_ups: Tensor) -> Tensor:
        """Return the probabilities [B, 8] on close-ups [B, 3, S, S] in 0-1; its own are those of the surest box."""
        with torch.autocast(close_ups.device.type, torch.bfloat16, enabled=self._bf16):
            answer = self._model(close_ups)
        scores = (answer[0] if isinstance(answer, tuple) else answer)[:, 4:].float()  # [B, 8, A]
        surest = scores.sum(1).argmax(1)
        of_face = scores[torch.arange(len(scores), device=scores.device), :, surest].clamp(min=_LEAST)
        own = (of_face.log() / _TEMPERATURE).softmax(1)
        return torch.lerp(self._beside(close_ups), own, self._share)
