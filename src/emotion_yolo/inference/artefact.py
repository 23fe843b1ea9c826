"""`model.json`: what lies beside an exported network and says how to feed it and how to read its answer."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

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


class File(_Part):
    """A file of the artefact."""

    path: str
    """Relative to `model.json`."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1)]


class Thresholds(_Part):
    """Chosen on the valid split."""

    conf: Annotated[float, Field(ge=0, le=1)]
    """Least confidence of a face in an answer."""
    iou: Annotated[float, Field(ge=0, le=1)]
    """Overlap above which two boxes are one face."""
    ios: Annotated[float, Field(gt=0, le=1, validation_alias=AliasChoices("ios", "nested"))] = 1.0
    """Share of the smaller of two boxes inside the other above which they are one face; at 1 any two may be two.
    Artefacts made before 2026-11-26 call it `nested`."""


class Calibration(_Part):
    """Fitted on the valid split; see `calibration.py`."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logarithms of the emotion scores before the softmax."""


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


class ModelSpec(_Part):
    """All of `model.json`."""

    spec: Literal[1] = 1
    name: str
    version: str
    """First twelve digits of the ONNX file's SHA-256: two artefacts with one version are the same network."""
    licence: Literal["AGPL-3.0"] = "AGPL-3.0"
    classes: tuple[str, ...]
    input: Input
    files: dict[Literal["onnx", "openvino_xml", "openvino_bin"], File]
    """`onnx` is always there. A release leaves out the OpenVINO files, the same network again: OpenVINO reads ONNX."""
    thresholds: Thresholds
    calibration: Calibration
    lineage: Lineage

    @model_validator(mode="after")
    def _onnx_is_there(self) -> "ModelSpec":
        if "onnx" not in self.files:
            raise ValueError("files names no onnx")
        return self

    @model_validator(mode="after")
    def _classes_are_ours(self) -> "ModelSpec":
        if self.classes != NAMES:
            raise ValueError(f"classes are {list(self.classes)}, expected {list(NAMES)}")
        return self


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path: Path) -> File:
    """Return the entry of `files` for `path`, which lies beside `model.json`."""
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
    """Write `folder/model.json`, keys in the order of the class, a newline at the end."""
    (folder / SPEC_NAME).write_text(spec.model_dump_json(indent=2) + "\n", "utf-8")
