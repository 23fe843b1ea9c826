"""The network that a training starts from as one of its own teachers, as it was before the training.

What it knows and the classifiers do not is kept that way (born-again networks; Furlanello et al., arXiv:1805.04770).
"""

import torch
from torch import Tensor
from ultralytics.nn.tasks import load_checkpoint

from emotion_yolo.devices import has_bf16
from emotion_yolo.yolo.weights import one_to_many

_TEMPERATURE = 0.69  # of its shares, which the class loss leaves flatter than they should be; the ninth release's
_LEAST = 1e-6


class OwnTeacher:
    """Names the faces of close-ups as the checkpoint `weights`, of the eight emotions, does."""

    def __init__(self, weights: str, device: torch.device) -> None:
        model = load_checkpoint(weights)[0].float()
        one_to_many(model)
        self._model = model.to(device).eval().requires_grad_(requires_grad=False)
        self._bf16 = has_bf16(device)

    @torch.no_grad()
    def __call__(self, close_ups: Tensor) -> Tensor:
        """Return the probabilities [B, 8] of the surest box on close-ups [B, 3, S, S] in 0-1."""
        with torch.autocast(close_ups.device.type, torch.bfloat16, enabled=self._bf16):
            answer = self._model(close_ups)
        scores = (answer[0] if isinstance(answer, tuple) else answer)[:, 4:].float()  # [B, 8, A]
        surest = scores.sum(1).argmax(1)
        of_face = scores[torch.arange(len(scores), device=scores.device), :, surest].clamp(min=_LEAST)
        probabilities: Tensor = (of_face.log() / _TEMPERATURE).softmax(1)
        return probabilities
