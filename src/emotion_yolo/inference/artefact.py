"""`model.json`: the file beside an exported network that says how to feed it and how to read its answer."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from emotion_yolo.digests import sha256_of
from emotion_yolo.errors import ModelError
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.images import PAD_GREY

SPEC_NAME = "model.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Part):
    """The network's input: RGB, 0-1, NCHW, the picture scaled to fit and centred on grey."""

    imgsz: Annotated[int, Field(ge=32, multiple_of=32)]
    """Default long side of the input in px; the exports take any multiples of `stride`."""
    stride: Literal[32] = 32
    pad: Annotated[int, Field(ge=0, le=255)] = PAD_GREY
    """Grey value around the picture."""
    max_upscale: Annotated[float, Field(ge=1)] = 8.0
    """How many times a picture smaller than the input is enlarged at most; the rest stays grey."""
    upscale_to: Annotated[int, Field(ge=1)] = 4096
    """Long side in px to which a smaller picture is enlarged; one above it is never enlarged."""


class File(_Part):
    """A file of the artefact."""

    path: str
    """Relative to `model.json`."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1)]


class Thresholds(_Part):
    """Chosen on the valid split."""

    conf: Annotated[float, Field(gt=0, le=1)]
    """Minimum confidence of a face in an answer. Before 2026-11-26 an export that did not finish left 0 here."""
    iou: Annotated[float, Field(ge=0, le=1)]
    """Overlap above which two boxes are one face."""
    ios: Annotated[float, Field(gt=0, le=1, validation_alias=AliasChoices("ios", "nested"))] = 1.0
    """Share of the smaller of two boxes inside the other above which they are one face; at 1 any two may be two.
    Artefacts made before 2026-11-26 call it `nested`."""


class CloseUp(_Part):
    """How faces are looked at a second time to be named; see `close_up.py`."""

    faces: Annotated[int, Field(ge=1, le=300)]
    """Faces of a picture, the most confident ones, that are; others keep the names of the first look."""
    side: Annotated[int, Field(ge=64, multiple_of=32)]
    """Side of the network's square input in px."""
    face: Annotated[int, Field(ge=16)]
    """Longer side of the face's box in it in px."""


class Calibration(_Part):
    """Fitted on the valid split; see `calibration.py`."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logarithms of the emotion scores before the softmax."""
    bias: tuple[FiniteFloat, ...] | None = None
    """One number for each of the eight classes, added to the divided logarithms; missing where none were fitted."""

    @model_validator(mode="after")
    def _a_bias_for_each_class(self) -> "Calibration":
        if self.bias is not None and len(self.bias) != len(NAMES):
            raise ValueError(f"bias has {len(self.bias)} numbers, expected {len(NAMES)}")
        return self


class SecondStage(_Part):
    """The classifier of a two-stage model: the network of `files.onnx` finds faces, this one names expressions."""

    architecture: str
    onnx: File
    """RGB crops [B, 3, imgsz, imgsz] in 0-1 to calibrated probabilities of `classes`."""
    imgsz: Annotated[int, Field(ge=32)]
    margin: Annotated[float, Field(ge=1)]
    """Side of a crop in times the longer side of the face's box."""
    landmarks: File | None = None
    """OpenCV's YuNet, by whose landmarks faces are aligned; without it they are cut out unaligned."""
    temperature: Annotated[float, Field(gt=0)]
    """Fitted on valid; the network already divides by it."""


class Environment(_Part):
    """The environment of the training, on which weights slightly depend beside data, params and code."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    device: str
    """`cpu`, or the GPU's name."""
    precision: str
    threads: int
    workers: int
    """Data-loading processes: each draws its augmentations from its own seed."""
    cpu: str
    cpu_features: tuple[str, ...]
    """Those that choose kernels, as /proc/cpuinfo names them."""
    system: str
    python: str
    libraries: dict[str, str]
    """Versions."""


class Lineage(_Part):
    """What the artefact was made from."""

    data: str
    """DVC's digest of `data/`."""
    params: str
    """SHA-256 of the sections `prepare`, `train` and `export` of params.yaml."""
    revision: str
    """Git commit, `-dirty` behind it if tracked files differed."""
    weights: str
    """SHA-256 of the trained checkpoint."""
    inputs: dict[str, str] = {}
    """SHA-256 of each model that was used to make it, by the param that names it; of an exported detector, that of its
    ONNX file. Artefacts made before 2026-11-26 have none."""
    recipe: str | None = None
    """The recipe file that a release was made by, if any."""
    settings: dict[str, Any] | None = None
    """These sections of params.yaml themselves; missing in artefacts made before 2026-11-26, as is `environment`."""
    environment: Environment | None = None


class ModelSpec(_Part):
    """All of `model.json`."""

    spec: Literal[1] = 1
    name: str
    version: str
    """First twelve digits of `digest`: two artefacts with one version are the same networks."""
    licence: Literal["AGPL-3.0"] = "AGPL-3.0"
    classes: tuple[str, ...]
    input: Input
    files: dict[Literal["onnx", "openvino_xml", "openvino_bin"], File]
    """`onnx` is always there. A release leaves out the OpenVINO files, the same network again: OpenVINO reads ONNX."""
    thresholds: Thresholds
    calibration: Calibration
    close_up: CloseUp | None = None
    """Missing where faces are named by the first look alone."""
    storage: Literal["fp16", "mixed", "fp32"] | None = None
    """Precision in which the large weights are stored, without loss; arithmetic is fp32. Missing before 2026-11-26."""
    lineage: Lineage
    classifier: SecondStage | None = None
    """Of a two-stage model; missing in those whose one network finds faces and names expressions."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the network's ONNX file; of a two-stage model, that of its files' digests."""
        if self.classifier is None:
            return self.files["onnx"].sha256
        return digest_of(self.files["onnx"], self.classifier.onnx, self.classifier.landmarks)

    @model_validator(mode="after")
    def _onnx_is_there(self) -> "ModelSpec":
        if "onnx" not in self.files:
            raise ValueError("files names no onnx")
        return self

    @model_validator(mode="after")
    def _classes_are_ours(self) -> "ModelSpec":
        expected = [name for name in NAMES if self.classifier is None or name in self.classes]
        if list(self.classes) != expected or len(expected) < 2:
            raise ValueError(f"classes are {list(self.classes)}, expected {expected}")
        return self


def digest_of(*files: File | None) -> str:
    """Return the SHA-256 that stands for several files of an artefact."""
    return sha256("".join(file.sha256 for file in files if file).encode()).hexdigest()


def describe(path: Path) -> File:
    """Return the entry of `files` for `path`, a file beside `model.json`."""
    return File(path=path.name, sha256=sha256_of(path), bytes=path.stat().st_size)


def read_spec(folder: Path) -> ModelSpec:
    """Read `folder/model.json`.

    Raises:
        ModelError: no such file, or one that does not fit.
    """
    path = folder / SPEC_NAME
    try:
        return ModelSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        if (folder / "model.onnx").exists():
            message = f"{folder}: holds model.onnx but no {SPEC_NAME}: its export did not finish"
            raise ModelError(f"{message}; run `dvc repro export` again, or name another folder") from error
        message = f"{path}: no exported model there ({error.strerror}); name a folder that holds model.json"
        raise ModelError(f"{message}, such as models/release, or make one with `dvc repro`") from error
    except ValidationError as error:
        raise ModelError(f"{path}: does not describe a model this version can serve: {error}") from error


def checked_file(folder: Path, file: File) -> Path:
    """Return the path of one of the artefact's files after comparing its digest.

    Raises:
        ModelError: the file is missing or has other bytes than `model.json` says.
    """
    path = folder / file.path
    if path.parent != folder or not path.is_file():
        raise ModelError(f"{path}: missing beside {SPEC_NAME}; fetch the whole folder again")
    digest = sha256_of(path)
    if digest != file.sha256:
        raise ModelError(f"{path}: sha256 is {digest[:12]}…, {SPEC_NAME} says {file.sha256[:12]}…; fetch it again")
    return path


def write_spec(folder: Path, spec: ModelSpec) -> None:
    """Write `folder/model.json` whole or not at all: a folder that holds it is a finished artefact."""
    partial = folder / f"{SPEC_NAME}.partial"
    with partial.open("w", encoding="utf-8") as file:
        file.write(spec.model_dump_json(indent=2, exclude_none=True) + "\n")
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave an empty file under the final name
    partial.replace(folder / SPEC_NAME)
