"""The strict mirror of `params.yaml`. It has no defaults of its own, so that a value has one home.

No param may be called `size` or `nfiles`: DVC's run-cache (3.67.1) leaves keys of these names out of what it compares,
at any depth, and would give one value's outs for another's.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from emotion_yolo.errors import ParamsError
from emotion_yolo.paths import NO_MODEL, PARAMS

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Pixels = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]
Count = Annotated[int, Field(ge=0)]
Device = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A GPU's number may be written as one: YAML reads `device: 0` so."""
EmotionName = Literal["anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
Optimizer = Literal["AdamW", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD", "MuSGD"]
"""Ultralytics' but for `auto`, which would leave lr0, momentum and warmup_bias_lr unread."""


Model = Annotated[str, Field(min_length=1)]
"""Path of a model that a stage reads. It is a dependency in dvc.yaml, where DVC needs a path that exists: `NO_MODEL`
stands for none."""


def model_path(value: str) -> Path | None:
    """Return the path that a param of type `Model` names, or None where it names `NO_MODEL`."""
    return None if Path(value) == NO_MODEL else Path(value)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Localise(_Section):
    """How full-frame boxes become tight ones."""

    detector: Model
    imgsz: Pixels
    conf: Share
    pad: Annotated[float, Field(ge=0, le=1)]
    train_boxes: Literal["tight", "given"]


class Teacher(_Section):
    """Whose soft labels of expressions are trained on beside the labels."""

    detector: Model
    imgsz: Pixels
    classifier: Model
    classifier_share: Share
    crops: Share
    sets: list[str]
    min_face: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _a_classifier_speaks_beside_a_detector(self) -> Self:
        if model_path(self.classifier) and not model_path(self.detector):
            raise ValueError(
                f"classifier is {self.classifier!r} without a detector, which finds the faces to ask about"
            )
        return self


class Scenes(_Section):
    """Which photographs with face boxes are added, and how they are split."""

    use: bool
    valid: Share
    test: Share
    seed: Count
    side: Annotated[int, Field(ge=64, le=4096)]
    min_face: Annotated[int, Field(ge=0)]
    rounds: Annotated[int, Field(ge=1, le=32)]
    cut: Share
    zoomed: Share

    @model_validator(mode="after")
    def _parts_are_shares_of_all(self) -> Self:
        if self.cut + self.zoomed > 1:
            raise ValueError(f"cut + zoomed is {self.cut + self.zoomed:g}, expected at most 1: the rest stays whole")
        return self

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(f"valid + test is {self.valid + self.test:g}, expected below 1: the rest is trained on")
        return self


class Sheets(_Section):
    """How crops are composed to pictures of several faces."""

    side: Annotated[int, Field(ge=0, le=1280, multiple_of=32)]
    grids: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=1)]
    rounds: Annotated[int, Field(ge=1, le=16)]
    singles: Share
    degraded: Share
    negatives: Share
    negatives_cut: Share


class Sampling(_Section):
    """Which faces are laid on sheets, and how often."""

    faces: Count
    most_views: Annotated[int, Field(ge=1, le=100)]
    class_power: Share
    source_power: Share
    class_weights: dict[str, NonNegative]
    source_weights: dict[str, NonNegative]
    smoothing: dict[str, Share]


class Framing(_Section):
    """How large faces are on the tiles of sheets."""

    share: Share
    natural: Share
    low: Annotated[float, Field(ge=0.05, le=1.5)]
    high: Annotated[float, Field(ge=0.05, le=1.5)]
    empty: Share

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, expected at most high, {self.high:g}")
        return self


class Appearance(_Section):
    """Chances by which colour and quality of train pictures change, whatever their source."""

    grey: Share
    tint: Share
    cast: Share
    tone: Share
    low_res: Share
    blur: Share
    sharpen: Share
    noise: Share
    jpeg: Share


class Prepare(_Section):
    """Raw folder to prepared set."""

    seed: Count
    workers: Count
    near_duplicate_distance: Annotated[int, Field(ge=0, le=16)]
    localise: Localise
    teacher: Teacher
    scenes: Scenes
    sheets: Sheets
    sampling: Sampling
    framing: Framing
    appearance: Appearance


class Compose(_Section):
    """Batches composed on the training device from single crops and photographs."""

    updates: Count
    close_ups: Annotated[int, Field(ge=1)]
    pictures: Annotated[int, Field(ge=1)]
    sets: dict[str, NonNegative]
    class_power: Share
    source_power: Share
    class_weights: dict[EmotionName, NonNegative]
    teachers: Model
    teacher_share: dict[str, Share]
    own_share: Share


class Train(_Section):
    """Fine-tuning; what is not in `yolo.OURS` is Ultralytics' own argument."""

    weights: Model
    wise_ft_alpha: Annotated[float, Field(gt=0, le=1)]
    epochs: Annotated[int, Field(ge=1)]
    imgsz: Pixels
    batch: Annotated[int, Field(ge=1)]
    nbs: Annotated[int, Field(ge=1)]
    scene_repeat: Annotated[int, Field(ge=1, le=20)]
    valid_pictures: Annotated[int, Field(ge=1)]
    optimizer: Optimizer
    lr0: Positive
    lrf: Share
    cos_lr: bool
    warmup_epochs: NonNegative
    warmup_bias_lr: NonNegative
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: NonNegative
    box: NonNegative
    cls: NonNegative
    dfl: NonNegative
    cls_pw: Share
    hsv_h: Share
    hsv_s: Share
    hsv_v: Share
    degrees: Annotated[float, Field(ge=0, le=180)]
    translate: Share
    scale: Share
    fliplr: Share
    mosaic: Share
    close_mosaic: Count
    multi_scale: Annotated[float, Field(ge=0, lt=1)]
    sizes: list[Pixels]
    mirror: NonNegative
    mirror_epochs: Count
    shares: NonNegative
    freeze_bn: bool
    amp: Literal["auto", "fp16", "bf16", "fp32"]
    device: Device
    workers: Count
    seed: Count
    compose: Compose


class CloseUps(_Section):
    """A second look at faces, to name them."""

    faces: Annotated[int, Field(ge=0, le=300)]
    side: Annotated[int, Field(ge=64, multiple_of=32)]
    face: Annotated[int, Field(ge=16)]

    @model_validator(mode="after")
    def _fits(self) -> "CloseUps":
        if self.face > self.side:
            raise ValueError(f"face is {self.face} px, expected at most side, {self.side} px")
        return self


class Export(_Section):
    """The artefact that is evaluated and served."""

    imgsz: Pixels
    max_upscale: Annotated[float, Field(ge=1, le=8)]
    upscale_to: Annotated[int, Field(ge=1, le=4096)]
    parity: Positive
    fallback_conf: Annotated[float, Field(gt=0, le=1)]
    iou: Share
    ios: Annotated[float, Field(gt=0, le=1)]
    bias_prior: Annotated[float, Field(ge=0)]
    close_up: CloseUps


class Evaluate(_Section):
    """Measuring the artefact on the test split."""

    conf: Share
    iou: Share
    scene_imgsz: Pixels
    scene_sizes: list[Pixels]
    robustness: Count
    negatives: Count
    bootstrap: Annotated[int, Field(ge=0)]
    gallery: Annotated[int, Field(ge=0, le=200)]
    seed: Count


class Tracking(_Section):
    """Experiment tracking."""

    wandb: Literal["auto", "online", "offline", "off"]
    project: str
    pictures: bool
    system: bool


class Fitting(_Section):
    """How a classifier of single faces is trained, whatever its architecture."""

    epochs: Annotated[int, Field(ge=1)]
    patience: Count
    batch: Annotated[int, Field(ge=1)]
    lr: Positive
    head_lr: Positive
    lrf: Share
    warmup_steps: Annotated[int, Field(ge=1)]
    weight_decay: NonNegative
    grad_clip: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    balance: Literal["none", "weights", "sampling"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    mixup: Share
    mixup_alpha: Positive
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    ema_warmup: Count
    degrees: Annotated[float, Field(ge=0, le=180)]
    translate: Share
    scale: Annotated[float, Field(ge=0, lt=1)]
    aspect: Annotated[float, Field(ge=0, lt=1)]
    fliplr: Share
    brightness: Share
    colour_cast: Share
    contrast: Share
    saturation: Share
    greyscale: Share
    coarse: Share
    coarse_sides: list[Annotated[int, Field(ge=8, le=96)]]
    erase: Share
    erase_sides: Annotated[list[Share], Field(min_length=2, max_length=2)]
    amp: Literal["auto", "bf16", "fp32"]
    device: Device
    seed: Count


class Classifier(Fitting):
    """Training of the expression classifier, which can teach the detector."""

    weights: Model
    norm_crops: Annotated[int, Field(ge=1)]
    updates: Count


class BaselineModel(_Section):
    """One classifier of faces, and where its training starts."""

    architecture: Annotated[str, Field(min_length=1)]
    imgsz: Annotated[int, Field(ge=32, le=384)]
    weights: Model
    hub: bool
    options: dict[str, int | float | str | bool]
    training: dict[str, Any]
    faces: dict[str, Any]

    @model_validator(mode="after")
    def _starts_from_one_place(self) -> Self:
        if self.hub and model_path(self.weights):
            raise ValueError(f"hub is true and weights are {self.weights!r}; start from one of them")
        return self


_OF_FACES = {"sets", "classes", "train_faces", "soft_labels"}


class Baselines(_Section):
    """Classifiers of faces that a detector finds: what the detector, which does both at once, is compared with."""

    models: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], BaselineModel]
    detector: Model
    landmarks: Model
    margin: Annotated[float, Field(ge=1, le=3)]
    sets: list[str]
    classes: list[EmotionName]
    soft_labels: bool
    train_faces: Count
    training: dict[str, Any]

    def of(self, name: str) -> Self:
        """Return the settings of one of `models`: these, but for the values that its `faces` changes."""
        return type(self).model_validate({**self.model_dump(), **self.models[name].faces})


class Params(_Section):
    """All of `params.yaml`."""

    prepare: Prepare
    train: Train
    export: Export
    evaluate: Evaluate
    tracking: Tracking
    classifier: Classifier
    baselines: Baselines

    @model_validator(mode="after")
    def _baselines_change_what_there_is(self) -> Self:
        for name, model in self.baselines.models.items():
            of_model = f"baselines.models.{name}"
            if unknown := sorted(set(model.faces) - _OF_FACES):
                expected = ", ".join(sorted(_OF_FACES))
                raise ValueError(f"{of_model}.faces: got {', '.join(unknown)}, expected some of {expected}")
            places = {
                f"baselines.training or {of_model}.training": self.fitting,
                f"{of_model}.faces": self.baselines.of,
            }
            for place, changed in places.items():
                try:
                    changed(name)
                except ValidationError as error:
                    (first, *_) = error.errors(include_url=False)
                    got = f"{'.'.join(map(str, first['loc']))}: got {first['input']!r}: {first['msg']}"
                    raise ValueError(f"{place}: {got}") from error
        return self

    def fitting(self, name: str) -> Fitting:
        """Return how the baseline `name` is trained: as `classifier`, but for the values that `baselines` changes."""
        shared = self.classifier.model_dump(include=set(Fitting.model_fields))
        return Fitting.model_validate({**shared, **self.baselines.training, **self.baselines.models[name].training})


MODEL_PARAMS: dict[str, Literal["weights", "detector", "classifier", "classifiers"]] = {
    "prepare.localise.detector": "detector",
    "prepare.teacher.detector": "detector",
    "prepare.teacher.classifier": "classifier",
    "train.weights": "weights",
    "train.compose.teachers": "classifiers",
}
"""Params that name a model which a stage of the graph reads, and the kind of each; deps in dvc.yaml."""


def named_models(params: Params) -> dict[str, Path]:
    """Return the path of each model that params name, by param."""
    named = {}
    for param in MODEL_PARAMS:
        value: Any = params
        for key in param.split("."):
            value = getattr(value, key)
        if path := model_path(value):
            named[param] = path
    return named


_RENAMED = {
    "prepare.twin_distance": "prepare.near_duplicate_distance",
    "prepare.teacher.crop_model": "prepare.teacher.classifier",
    "prepare.sheets.faceless": "prepare.sheets.negatives",
    "train.keep": "train.wise_ft_alpha, which is 1 - keep",
    "export.nested": "export.ios",
    "evaluate.faceless": "evaluate.negatives",
}
"""Former names of params, and what they are called now."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the floats and booleans of YAML 1.2, which DVC writes.

    `dvc exp run -S` writes 0.00001 as `1e-05`, a string to PyYAML 6, and the word `off` bare, there a boolean.
    """


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
for _initial in "yYnNoO":  # of yes, no, on and off; true and false stay booleans
    _Loader.yaml_implicit_resolvers[_initial] = [
        resolver for resolver in _Loader.yaml_implicit_resolvers[_initial] if resolver[0] != "tag:yaml.org,2002:bool"
    ]


def load_yaml(path: Path) -> Any:
    """Read a YAML file by the rules of params.yaml.

    Raises:
        ParamsError: no such file, or no YAML.
    """
    try:
        return yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}); run from the project's root") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from error


def load_params(path: Path = PARAMS) -> Params:
    """Read and check `params.yaml`.

    Raises:
        ParamsError: no such file, no YAML, an unknown or missing key, a value of another type or out of range; one
            line a finding, each with the key's full name.
    """
    raw = load_yaml(path)
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError("\n".join(validation_lines(error, path))) from error


def validation_lines(error: ValidationError, path: Path, *, prefix: str = "") -> list[str]:
    """Return a line for each finding in `path`: the key's full name, what was got, what to do."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(map(str, item["loc"])) or "(top level)"
        match item["type"]:
            case "extra_forbidden" if key in _RENAMED:
                text = f"this is now {_RENAMED[key]}; rename it"
            case "extra_forbidden":
                text = "unknown key; check its spelling"
            case "missing":
                text = "missing; add it"
            case "value_error" if not item["loc"]:  # its input is the whole file
                text = f"{item['msg']}; correct the value"
            case _:
                text = f"got {item['input']!r}: {item['msg']}; correct the value"
        lines.append(f"{path}: {prefix}{key}: {text}")
    return lines
