"""A cross-entropy of the emotions as they are served: the shares of a face's eight scores in their sum.

The class loss asks for each score by itself, for a face and its emotion at once. This term asks for the emotion alone,
and leaves the sum, the confidence, to the class loss.
"""

from typing import Any

import torch
from ultralytics.utils.loss import v8DetectionLoss

from emotion_yolo.structures.emotions import FACE_ID


def add_cross_entropy(loss: v8DetectionLoss, weight: float) -> None:
    """Have `loss` add the cross-entropy of the shares, times `weight`, to its class loss."""
    plain = loss.get_assigned_targets_and_loss

    def with_term(preds: dict[str, Any], batch: dict[str, Any], **extra: Any) -> tuple[Any, Any, dict[str, Any]]:
        seen: list[tuple[Any, Any]] = []
        # Ultralytics 8.4.190 returns no target scores: they are taken from the assigner as it answers.
        hook = loss.assigner.register_forward_hook(lambda _, given, answer: seen.append((given[3], answer)))
        try:
            assigned, losses, items = plain(preds, batch, **extra)
        finally:
            hook.remove()
        ((labels, (_, _, targets, foreground, index)),) = seen
        scores = preds["scores"].permute(0, 2, 1)
        losses[1] = losses[1] + weight * cross_entropy(scores, targets, named(labels, foreground, index))
        return assigned, losses, {**items, loss.loss_names[1]: losses[1].detach()}

    loss.get_assigned_targets_and_loss = with_term


def named(labels: torch.Tensor, foreground: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return which anchors [B, A] stand for a face with an emotion.

    Args:
        labels: Class ids [B, N, 1].
        foreground: [B, A], anchors that stand for a face.
        index: [B, A], the face of each.
    """
    if not labels.shape[1]:
        return torch.zeros_like(foreground, dtype=torch.bool)
    return foreground.bool() & (labels.squeeze(-1).gather(1, index.long()) != FACE_ID)


def cross_entropy(scores: torch.Tensor, targets: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the shares of anchors, each weighted by the sum of its target scores.

    Args:
        scores: Logits [B, A, 8].
        targets: Target scores [B, A, 8], the emotions' probabilities times how well the anchor's box fits.
        named: [B, A], anchors that count.
    """
    wanted = targets[named].float()
    # Class shares are the sigmoid scores over their sum, as `FaceAwareAssigner` has them.
    given = torch.nn.functional.logsigmoid(scores[named].float()).log_softmax(-1)
    return -(wanted * given).sum() / wanted.sum().clamp(min=1)
