"""One factory for the networks that name the expression of a face crop: a small CNN, timm's, and transformers' ViT.

A trained network is a folder: `classifier.json`, and weights in the layout of where the architecture comes from. That
of `hf_vit` is a model folder as the Hugging Face hub has them, which other software loads as well.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from emotion_yolo.data.taxonomy import emotion_of
from emotion_yolo.errors import ModelError
from emotion_yolo.params import BaselineModel, model_path

SPEC_NAME = "classifier.json"
SMALL_CNN = "small_cnn"
HF_VIT = "hf_vit"

_WEIGHTS = "weights.pt"
_GREY = (0.5, 0.5, 0.5)

Start = Literal["scratch", "file", "hub"]


class ClassifierSpec(BaseModel):
    """`classifier.json`: how to build the network whose weights lie beside it, and where its training started."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str
    imgsz: int = Field(ge=32)
    classes: tuple[str, ...]
    options: dict[str, int | float | str | bool] = {}
    start: Start


class FaceClassifier(nn.Module):
    """RGB crops [B, 3, imgsz, imgsz] in 0-1 to logits [B, C]: a network with the normalisation it expects."""

    def __init__(
        self, body: nn.Module, spec: ClassifierSpec, *, mean: Sequence[float], std: Sequence[float], head: nn.Module
    ) -> None:
        """Wrap `body`, of normalised crops to logits; `head` is its last layer."""
        super().__init__()
        self.body, self.spec = body, spec
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self._head = tuple(head.parameters())  # the layer itself would be a module twice

    @property
    def imgsz(self) -> int:
        """Side of the input in px."""
        return self.spec.imgsz

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the last layer."""
        own = {id(parameter) for parameter in self._head}
        return [parameter for parameter in self.parameters() if id(parameter) in own]

    def forward(self, crops: Tensor) -> Tensor:
        """Return the logits [B, C]."""
        answer = self.body((crops - self.mean) / self.std)
        logits: Tensor = answer if isinstance(answer, Tensor) else answer.logits
        return logits


def small_cnn(classes: int, *, dropout: float) -> nn.Sequential:
    """Build four convolutions and a linear layer: what most people train on FER2013 first. 0.4 million weights."""
    layers: list[nn.Module] = []
    for given, answered in ((3, 32), (32, 64), (64, 128), (128, 256)):
        layers += [nn.Conv2d(given, answered, 3, padding=1, bias=False), nn.BatchNorm2d(answered), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(256, classes))


def build(model: BaselineModel, classes: Sequence[str], *, dropout: float, seed: int = 0) -> FaceClassifier:
    """Build the network that params describe, at the start of its training; `seed` is of what is random in it.

    Raises:
        ModelError: an architecture that is not known, weights that do not fit, or a hub that cannot be reached.
    """
    torch.manual_seed(seed)
    weights = model_path(model.weights)
    start: Start = "hub" if model.hub else "file" if weights else "scratch"
    spec = ClassifierSpec(
        architecture=model.architecture,
        imgsz=model.imgsz,
        classes=tuple(classes),
        options=model.options,
        start=start,
    )
    said = f"{model.architecture} from {weights or start}"
    try:
        if model.architecture == HF_VIT:
            return _hf_vit(spec, _hub_name(model) if model.hub else weights, dropout=dropout)
        if model.architecture == SMALL_CNN and model.hub:
            raise ModelError("no hub has weights of small_cnn; set hub to false")
        net = _plain(spec, dropout=dropout, pretrained=weights or model.hub)
        if weights and model.architecture == SMALL_CNN:
            net.body.load_state_dict(_read_weights(weights))
    except ModelError:
        raise
    except Exception as error:  # a hub, a file format and constructors that take any options fail in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        advice = "name a file in `weights`, set `hub` to false, or correct `options` in params.yaml"
        raise ModelError(f"{said} cannot be built ({reason}); {advice}") from error
    return net


def save(net: FaceClassifier, folder: Path) -> None:
    """Write the network into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if net.spec.architecture == HF_VIT:
        from transformers import ViTImageProcessor

        body: Any = net.body
        body.save_pretrained(folder)
        side = {"height": net.imgsz, "width": net.imgsz}
        mean, std = (buffer.flatten().tolist() for buffer in (net.mean, net.std))
        ViTImageProcessor(size=side, image_mean=mean, image_std=std).save_pretrained(folder)
    else:
        torch.save(net.body.state_dict(), folder / _WEIGHTS)
    (folder / SPEC_NAME).write_text(net.spec.model_dump_json(indent=2) + "\n", "utf-8")


def load(folder: Path) -> FaceClassifier:
    """Read a network that `save` wrote, in eval mode.

    Raises:
        ModelError: no such folder, or one that holds something else.
    """
    path = folder / SPEC_NAME
    try:
        spec = ClassifierSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        message = f"{path}: no trained classifier there ({error.strerror})"
        raise ModelError(f"{message}; run `make baselines`") from error
    except ValidationError as error:
        raise ModelError(f"{path}: does not describe a classifier: {error}") from error
    try:
        if spec.architecture == HF_VIT:
            return _hf_vit(spec, folder, dropout=0.0).eval()
        net = _plain(spec, dropout=0.0, pretrained=False)
        net.body.load_state_dict(_read_weights(folder / _WEIGHTS))
    except (RuntimeError, OSError) as error:
        raise ModelError(f"{folder}: its weights are not those of {spec.architecture}: {error}") from error
    return net.eval()


def _plain(spec: ClassifierSpec, *, dropout: float, pretrained: Path | bool) -> FaceClassifier:
    classes = len(spec.classes)
    body: Any
    if spec.architecture == SMALL_CNN:
        body = small_cnn(classes, dropout=dropout)
        return FaceClassifier(body, spec, mean=_GREY, std=_GREY, head=body[-1])
    import timm

    if not timm.is_model(spec.architecture):
        near = timm.list_models(f"{spec.architecture.partition('_')[0]}*")[:5]
        suggested = f"; did you mean {', '.join(near)}?" if near else ""
        raise ModelError(f"{spec.architecture!r} is not {SMALL_CNN}, {HF_VIT} or a model of timm's{suggested}")
    options: dict[str, Any] = {"num_classes": classes, "drop_rate": dropout, **spec.options}
    if "img_size" not in options and _takes_img_size(spec.architecture):
        options["img_size"] = spec.imgsz
    if isinstance(pretrained, Path):
        if not pretrained.is_file():
            raise ModelError(f"{pretrained}: no such file; `weights` of a model of timm's names a file of its weights")
        options["pretrained_cfg_overlay"] = {"file": str(pretrained)}
    body = timm.create_model(spec.architecture, pretrained=bool(pretrained), **options)
    given: Mapping[str, Any] = body.pretrained_cfg
    if spec.architecture.startswith("vgg"):
        # timm stretches feature maps below 7×7 by adaptive pooling, for which ONNX has no operator, and follows it by
        # layers for thousand classes; the mean of the features and one layer do for faces.
        pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(512, classes))
        body = nn.Sequential(body.features, *pooled)
        return FaceClassifier(body, spec, mean=given["mean"], std=given["std"], head=body[-1])
    return FaceClassifier(body, spec, mean=given["mean"], std=given["std"], head=body.get_classifier())


def _takes_img_size(architecture: str) -> bool:
    # A transformer's positions are of its input; convolutions take any.
    return architecture.startswith(("vit_", "deit", "swin", "beit", "eva"))


def _hub_name(model: BaselineModel) -> str:
    name = model.options.get("name")
    if not isinstance(name, str):
        raise ModelError(
            f"{HF_VIT} from the hub has no name; set options to {{name: trpakov/vit-face-expression}}, say"
        )
    return name


def _hf_vit(spec: ClassifierSpec, weights: Path | str | None, *, dropout: float) -> FaceClassifier:
    """Build transformers' ViT, from a folder or a name on the hub where `weights` is one."""
    try:
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
        from transformers.utils import logging
    except ImportError as error:
        raise ModelError("hf_vit needs transformers; install emotion-yolo[vit]") from error
    logging.disable_progress_bar()
    names = dict(enumerate(spec.classes))
    if weights is None:
        options: dict[str, Any] = {"image_size": spec.imgsz, "hidden_dropout_prob": dropout, **spec.options}
        body: Any = ViTForImageClassification(ViTConfig(id2label=names, **options))
        return FaceClassifier(body, spec, mean=_GREY, std=_GREY, head=body.classifier)
    if isinstance(weights, Path) and not (weights / "config.json").is_file():
        raise ModelError(f"{weights}: no config.json there; name a model folder in the layout of the Hugging Face hub")
    body = ViTForImageClassification.from_pretrained(weights)
    if body.config.image_size != spec.imgsz:
        raise ModelError(f"{weights}: a ViT of {body.config.image_size} px; set imgsz, which is {spec.imgsz}, to that")
    body.classifier = _head(body.classifier, body.config.id2label, spec.classes)
    body.config.id2label, body.config.label2id = names, {name: i for i, name in names.items()}
    body.num_labels = len(names)
    processor = ViTImageProcessor.from_pretrained(weights)
    return FaceClassifier(body, spec, mean=processor.image_mean, std=processor.image_std, head=body.classifier)


def _head(given: nn.Linear, labels: Mapping[int, str], classes: Sequence[str]) -> nn.Linear:
    """Return the last layer in the order of `classes`: its own rows where it names them all, else a new one."""
    emotions = [emotion_of(labels[i]) for i in range(len(labels))]
    rows = {emotion.label: i for i, emotion in enumerate(emotions) if emotion is not None}
    head = nn.Linear(given.in_features, len(classes))
    if all(name in rows for name in classes):
        chosen = [rows[name] for name in classes]
        with torch.no_grad():
            head.weight.copy_(given.weight[chosen])
            head.bias.copy_(given.bias[chosen])
    return head


def _read_weights(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return weights
