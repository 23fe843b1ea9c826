"""Mirror consistency: a face and its mirror image are given the same expression.

After Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial Expression Recognition,
arXiv:2207.10299, who compare attention maps; here the class shares of paired anchors are compared.
"""

from collections.abc import Sequence
from typing import Any

import torch
from ultralytics.utils.loss import v8DetectionLoss

MIRRORED = "mirrored"
"""Key of a batch whose second half is the mirror image of its first."""


def mirrored(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the first half of a batch, followed by its mirror image.

    Of the batch, `img` [B, 3, H, W] and the labels `batch_idx` [N], `cls` [N, 1], `bboxes` [N, 4] (xywhn) are replaced.
    """
    half = len(batch["img"]) // 2
    kept = batch["batch_idx"] < half
    index, boxes, images = batch["batch_idx"][kept], batch["bboxes"][kept], batch["img"][:half]
    return {
        **batch,
        "img": torch.cat([images, images.flip(-1)]),
        "batch_idx": torch.cat([index, index + half]),
        "cls": batch["cls"][kept].repeat(2, 1),
        "bboxes": torch.cat([boxes, torch.cat([1 - boxes[:, :1], boxes[:, 1:]], dim=1)]),
        MIRRORED: True,
    }


def add_consistency(loss: v8DetectionLoss, weight: float) -> None:
    """Have `loss` add the divergence of a mirrored batch, times `weight`, to its class loss."""
    plain = loss.get_assigned_targets_and_loss

    def with_consistency(preds: dict[str, Any], batch: dict[str, Any], **extra: Any) -> tuple[Any, Any, dict[str, Any]]:
        assigned, losses, items = plain(preds, batch, **extra)
        if batch.get(MIRRORED):
            scores = preds["scores"].permute(0, 2, 1)
            term = weight * divergence(scores, assigned[0].bool(), [level.shape[2:] for level in preds["feats"]])
            losses[1] = losses[1] + term
            items = {**items, loss.loss_names[1]: losses[1].detach()}
        return assigned, losses, items

    loss.get_assigned_targets_and_loss = with_consistency


def divergence(scores: torch.Tensor, foreground: torch.Tensor, levels: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return the mean symmetric KL divergence between the class shares of anchors and of their mirror images.

    Args:
        scores: Logits [2B, A, 8], the second half those of the mirror images.
        foreground: [2B, A], anchors that stand for a face. Only pairs that both do are compared.
        levels: Rows and columns of each level of the feature pyramid, in the anchors' order.
    """
    order, start = [], 0
    for rows, columns in levels:
        order.append(torch.arange(start, start + rows * columns).view(rows, columns).flip(1).flatten())
        start += rows * columns
    opposite = torch.cat(order).to(scores.device)
    half = len(scores) // 2
    both = foreground[:half] & foreground[half:][:, opposite]
    if not both.any():
        return scores.sum() * 0
    # Class shares are the sigmoid scores over their sum, as `FaceAwareAssigner` has them.
    one, other = (
        torch.nn.functional.logsigmoid(side[both]).log_softmax(-1)
        for side in (scores[:half], scores[half:][:, opposite])
    )
    return ((one.exp() - other.exp()) * (one - other)).sum(-1).mean()
