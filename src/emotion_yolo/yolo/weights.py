"""Checkpoints: checked before a training starts, and written small and reproducible after it."""

import io
from pathlib import Path

import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint

from emotion_yolo.errors import ModelError
from emotion_yolo.structures.emotions import NAMES


def check_weights(weights: str, *, alpha: float = 1.0) -> None:
    """See to it that `weights`, a path or a name that Ultralytics downloads, is a detection checkpoint.

    To be averaged with what is trained from it (`alpha` < 1), it has to name the eight emotions.

    Raises:
        ModelError: it is not, or cannot be had.
    """
    if alpha == 1 and Path(weights).suffix in {".yaml", ".yml"}:
        return
    try:
        model = YOLO(weights)
    except Exception as error:  # Ultralytics raises whatever unpickling or downloading met
        message = f"train.weights is {weights!r}, which cannot be loaded ({error})"
        raise ModelError(f"{message}; name a checkpoint that is there, or one Ultralytics can download") from error
    if model.task != "detect":
        raise ModelError(f"train.weights is {weights!r}, a model for {model.task!r}; expected one for 'detect'")
    if alpha < 1 and tuple(model.names.values()) != NAMES:
        message = f"train.wise_ft_alpha is {alpha:g}, but train.weights {weights!r} does not name the eight emotions"
        raise ModelError(f"{message}; start from a release, or set train.wise_ft_alpha to 1")


def save_weights(checkpoint: Path, out: Path, *, start: str = "", alpha: float = 1.0) -> None:
    """Write the weights of a finished training in fp16, without dates, paths and optimiser state.

    The same weights give the same bytes, and a plain `YOLO(out)` loads them. `alpha` < 1 averages them with those of
    `start`, `alpha` being the share of the trained ones: interpolated weights are often more accurate and more robust
    than either end (WiSE-FT; Wortsman et al., arXiv:2109.01903).
    """
    model, ckpt = load_checkpoint(checkpoint)
    if alpha < 1:
        before = YOLO(start).model.state_dict()
        # Counters of batches, the only integers, stay as training left them.
        averaged = {
            name: torch.lerp(value.float(), before[name].float(), 1 - alpha) if value.is_floating_point() else value
            for name, value in model.state_dict().items()
        }
        model.load_state_dict(averaged)
    model = model.half().to(memory_format=torch.contiguous_format)
    model.criterion = None
    model.args = {"task": "detect", "imgsz": int(ckpt["train_args"]["imgsz"])}
    for name in ("pt_path", "class_weights"):
        if hasattr(model, name):
            delattr(model, name)
    buffer = io.BytesIO()  # into a file, torch.save would write the file's name into its bytes
    torch.save(
        {
            "epoch": -1,
            "model": model,
            "train_args": {"task": "detect", "imgsz": model.args["imgsz"]},
            "version": ckpt["version"],
            "license": "AGPL-3.0",
        },
        buffer,
    )
    out.write_bytes(buffer.getvalue())
