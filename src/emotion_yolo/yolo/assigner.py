"""The detection loss for faces without a named expression, and for faces with soft labels."""

from typing import Any

import torch
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import E2ELoss, v8DetectionLoss
from ultralytics.utils.tal import TaskAlignedAssigner

from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.yolo.mirror import add_consistency
from emotion_yolo.yolo.shares import add_cross_entropy


class FaceAwareAssigner(TaskAlignedAssigner):
    """Ultralytics' assigner with labels beyond the classes: `FACE_ID`, a face without an emotion label,
    and from `FACE_ID + 1` on the rows of `targets` [T, 8], probabilities of the eight emotions.

    Such a face takes anchors by the sum of their scores. Its target there is spread over the classes as its row of
    `targets` says; where nobody named an expression, in the network's own present proportions: the loss moves their
    sum and leaves their ratio, the emotion, alone.
    """

    def __init__(self, *args: Any, targets: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.targets = torch.zeros(0, len(NAMES)) if targets is None else targets

    def forward(self, pd_scores: Any, pd_bboxes: Any, anc_points: Any, gt_labels: Any, *args: Any, **extra: Any) -> Any:
        """Assign as the base class does; scores are [B, A, 8], labels [B, N, 1], target scores [B, A, 8]."""
        total = pd_scores.sum(-1, keepdim=True)  # [B, A, 1]
        nine = torch.cat([pd_scores, total.clamp(max=1)], -1)
        faces = gt_labels.clamp(max=FACE_ID)
        labels, boxes, scores, foreground, index = super().forward(nine, pd_bboxes, anc_points, faces, *args, **extra)
        shares = pd_scores / total.clamp(min=self.eps)
        if len(self.targets) and gt_labels.shape[1]:
            row = gt_labels.squeeze(-1).gather(1, index.long()).long() - (FACE_ID + 1)  # [B, A]
            given = self.targets.to(pd_scores.device, pd_scores.dtype)[row.clamp(min=0)]
            shares = torch.where((row >= 0).unsqueeze(-1), given, shares)
        return labels, boxes, scores[..., :FACE_ID] + scores[..., FACE_ID:] * shares, foreground, index


def criterion(
    model: DetectionModel, targets: Any = None, *, mirror: float = 0.0, shares: float = 0.0, mean: bool = False
) -> Any:
    """Return Ultralytics' own detection loss for `model`, made aware of faces without a class.

    Args:
        model: The network.
        targets: [T, 8], see `FaceAwareAssigner`.
        mirror: Weight of mirror consistency, see `yolo.mirror`.
        shares: Weight of the cross-entropy of the emotions, see `yolo.shares`.
        mean: A batch counts once, however many pictures it has; Ultralytics counts it once a picture.
    """
    loss = model.init_criterion()
    parts: list[v8DetectionLoss] = [loss.one2many, loss.one2one] if isinstance(loss, E2ELoss) else [loss]
    for part in parts:
        old = part.assigner
        part.assigner = FaceAwareAssigner(
            topk=old.topk, num_classes=old.num_classes + 1, alpha=old.alpha, beta=old.beta, stride=old.stride,
            topk2=old.topk2, targets=targets,
        )  # fmt: skip
        if mirror:
            add_consistency(part, mirror)
        if shares:
            add_cross_entropy(part, shares)
        if mean:
            part.loss = _per_picture(part.loss)
    return loss


def _per_picture(loss: Any) -> Any:
    def mean(preds: dict[str, Any], batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        total, items = loss(preds, batch)
        return total / len(preds["scores"]), items

    return mean
