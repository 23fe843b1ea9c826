"""The output of a training on stderr: a line at its start, a line per epoch, and a bar if stderr is a terminal."""

from collections.abc import Mapping
from typing import Any

from emotion_yolo.progress import duration

_LOSSES = ("box_loss", "cls_loss", "dfl_loss")
_VALID = {"mAP50": "metrics/mAP50(B)", "mAP50-95": "metrics/mAP50-95(B)", "precision": "metrics/precision(B)",
          "recall": "metrics/recall(B)"}  # fmt: skip


def start_line(*, pictures: int, valid: int, epochs: int, finished: int, environment: Mapping[str, Any]) -> str:
    """Describe what begins: where, in which precision, on how much, and after which epoch."""
    device = environment["device"]
    where = f"CPU ({environment['cpu']})" if device == "cpu" else device
    loading = f"{environment['workers']} data-loading processes"
    how = f"{where}, {environment['precision']}, {environment['threads']} threads, {loading}"
    begin = f"resuming after epoch {finished} of {epochs}" if finished else f"{epochs} epochs"
    return f"{begin} of {pictures:,} pictures, {valid:,} for validation; {how}"


def epoch_line(
    *, epoch: int, epochs: int, metrics: Mapping[str, float], seconds: float, left: float, best: bool
) -> str:
    """Describe a finished epoch; `seconds` are its own, `left` an estimate for the others."""
    losses = " ".join(f"{name.removesuffix('_loss')} {metrics[f'train/{name}']:.3f}" for name in _LOSSES)
    valid = " ".join(f"{name} {metrics[key]:.3f}" for name, key in _VALID.items() if key in metrics)
    end = f"{duration(left)} left" if epoch < epochs else "done"
    mark = ", best so far" if best else ""
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}: loss {losses}; valid {valid}; {duration(seconds)}, {end}{mark}"
