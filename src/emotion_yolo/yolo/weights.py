"""Checkpoints: checked before a training starts, and written small and reproducible after it."""

import io
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

from emotion_yolo.errors import ModelError
from emotion_yolo.structures.emotions import NAMES

_ADVICE = "take models/release/weights.pt, a YOLO detection checkpoint (yolo11n.pt, yolo26n.pt …), or its .yaml"


def check_weights(weights: str, *, alpha: float = 1.0, own_share: float = 0.0) -> None:
    """Refuse `weights`, a path or a name that Ultralytics downloads, unless this pipeline can use them to the end.

    They have to be trainable here, exportable, and readable by the service: a YOLO detection network with a stride of
    32 px on RGB. A `.yaml` is the description of a network, trained from random weights. To be averaged with what is
    trained from it (`alpha` < 1) or to teach it (`own_share` > 0), a checkpoint has to name the eight emotions.

    Raises:
        ModelError: they are not, or cannot be had.
    """
    said = f"train.weights is {weights!r}"
    if Path(weights).suffix not in {".pt", ".yaml", ".yml"}:
        raise ModelError(f"{said}, expected a .pt checkpoint or a .yaml of a network; {_ADVICE}")
    try:
        model = YOLO(weights)
    except Exception as error:  # Ultralytics raises whatever unpickling, parsing or downloading met
        raise ModelError(f"{said}, which cannot be loaded ({_reason(weights, error)}); {_ADVICE}") from error
    if model.task != "detect":
        raise ModelError(f"{said}, a model for {model.task!r}; expected one for 'detect'; {_ADVICE}")
    network = model.model
    if type(network) is not DetectionModel:  # RT-DETR, YOLO-World and YOLOE are detection models of other heads
        raise ModelError(f"{said}, a {type(network).__name__}; expected a plain YOLO detection network; {_ADVICE}")
    if (found := _unusable(network)) is not None:
        raise ModelError(f"{said}, {found}; {_ADVICE}")
    named = Path(weights).suffix == ".pt" and tuple(model.names.values()) == NAMES
    needs = {"wise_ft_alpha": (alpha, 1), "compose.own_share": (own_share, 0)}
    for name, (value, without) in needs.items():
        if value != without and not named:
            message = f"train.{name} is {value:g}, but train.weights {weights!r} does not name the eight emotions"
            raise ModelError(f"{message}; start from a release, or set train.{name} to {without}")


def _reason(weights: str, error: Exception) -> str:
    if "outside the supported Ultralytics checkpoint format" in str(error):
        try:
            unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(weights))
        except ValueError:
            return "it is no PyTorch checkpoint"
        foreign = [name for name in unsafe if name.partition(".")[0] not in {"torch", "ultralytics", "numpy"}]
        return f"its pickle wants to run {', '.join(foreign[:5] or unsafe[:5])}, which a YOLO checkpoint does not need"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _unusable(network: DetectionModel) -> str | None:
    """Say what keeps a network of this description, with eight classes, from answering as the service reads it."""
    channels, stride = int(network.yaml.get("channels", 3)), int(network.stride.max())
    if channels != 3:
        return f"a network on {channels} channels; expected 3, RGB"
    if stride != 32:
        return f"a network with a stride of {stride} px; expected 32"
    model = DetectionModel(network.yaml, nc=len(NAMES), verbose=False).eval()
    one_to_many(model)
    with torch.inference_mode():
        answer = model(torch.zeros(1, 3, 64, 64))
    shape = tuple((answer[0] if isinstance(answer, tuple) else answer).shape)
    expected = (1, 4 + len(NAMES), sum((64 // s) ** 2 for s in (8, 16, 32)))
    return None if shape == expected else f"a network that answers {shape} at 64 px, expected {expected}"


def one_to_many(model: Any) -> None:
    """Have YOLO26 answer with all eight scores of a box, as the others do, instead of with finished boxes."""
    head = model.model[-1]
    if getattr(head, "end2end", False):
        head.end2end = False


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
