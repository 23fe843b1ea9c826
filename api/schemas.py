"""The answers of version 1, each field with its unit."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emotion_yolo.inference.artefact import ModelSpec

from .engine import Analysis
from .problems import STATUS, Code, Problem

EmotionName = Literal["anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
Share = Annotated[float, Field(ge=0, le=1)]
Milliseconds = Annotated[float, Field(ge=0)]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ImageSize(_Schema):
    """The picture as a person sees it, its EXIF orientation applied."""

    width: Annotated[int, Field(ge=1)]
    """Pixels."""
    height: Annotated[int, Field(ge=1)]
    """Pixels."""


class ModelName(_Schema):
    """The model that answered."""

    name: str
    """The model's name."""
    version: str
    """First twelve digits of `digest`."""
    digest: str
    """SHA-256 of the network's ONNX file, or of the digests of a two-stage model's files; hexadecimal."""


class Box(_Schema):
    """A face's box in pixels of the upright picture, origin at its top left corner."""

    x1: float
    """Left edge, px."""
    y1: float
    """Upper edge, px."""
    x2: float
    """Right edge, px."""
    y2: float
    """Lower edge, px."""


class Detection(_Schema):
    """One face."""

    box: Box
    """Where the face is, px."""
    emotion: EmotionName
    """The most probable expression: what a face looks like, not what a person feels."""
    confidence: Share
    """Confidence that there is a face, 0-1."""
    probabilities: dict[EmotionName, Share]
    """Probability of each expression that the model names (`classes` of `/v1/model`), given a face; 0-1, sum 1."""


class Timing(_Schema):
    """Where the time went, in milliseconds."""

    decode: Milliseconds
    """Bytes to pixels, ms."""
    preprocess: Milliseconds
    """Pixels to the network's input, ms."""
    inference: Milliseconds
    """The network, ms."""
    postprocess: Milliseconds
    """The network's output to faces, ms."""
    total: Milliseconds
    """From the complete upload to the answer, including the wait in the queue, ms."""


class DetectAnswer(_Schema):
    """The faces in one picture."""

    image: ImageSize
    """Size of the picture, px."""
    model: ModelName
    """The model that answered."""
    detections: list[Detection]
    """Faces by falling confidence; empty if there is none."""
    timing_ms: Timing
    """Where the time went, ms."""

    @classmethod
    def of(cls, analysis: Analysis) -> "DetectAnswer":
        """Build the answer for an analysed picture."""
        width, height = analysis.image_wh
        return cls.model_validate(
            {
                "image": {"width": width, "height": height},
                "model": model_name(analysis.spec),
                "detections": analysis.detections.records(),
                "timing_ms": analysis.timing_ms,
            }
        )


def model_name(spec: ModelSpec) -> ModelName:
    """Name the model of an artefact."""
    return ModelName(name=spec.name, version=spec.version, digest=spec.digest)


class ProblemDocument(_Schema):
    """A refusal (RFC 9457)."""

    type: str
    """URN of the code."""
    title: str
    """The code in words."""
    status: Annotated[int, Field(ge=400, le=599)]
    """The HTTP status."""
    code: Code
    """Stable; programs should rely on this."""
    detail: str
    """Got, expected, and what to do, for people; may change."""
    request_id: str | None = None
    """Identifies the request in the server's log."""


class BatchResult(_Schema):
    """A picture of a batch that was analysed."""

    status: Literal["ok"] = "ok"
    """Always `ok`."""
    result: DetectAnswer
    """As of `/v1/detect`."""


class BatchError(_Schema):
    """A picture of a batch that was refused; the others are not affected."""

    status: Literal["error"] = "error"
    """Always `error`."""
    error: ProblemDocument
    """Why."""


class BatchAnswer(_Schema):
    """One entry for each file, in the order of the files."""

    results: list[Annotated[BatchResult | BatchError, Field(discriminator="status")]]
    """A result or an error each."""


class RawEmotion(_Schema):
    """The expression in this frame alone."""

    emotion: EmotionName
    """The most probable expression."""
    probabilities: dict[EmotionName, Share]
    """By expression, given that there is a face; sum 1."""


class TrackedDetection(Detection):
    """One face of a frame; `emotion` and `probabilities` are averaged over the track."""

    track: Annotated[int, Field(ge=0)] | None
    """Stays with a person; null until the face has been found a second time."""
    raw: RawEmotion
    """This frame alone, before averaging."""


class StreamReady(_Schema):
    """The first message of a stream: the client may send frames."""

    type: Literal["ready"] = "ready"
    """Always `ready`."""
    model: ModelName
    """The model that answers."""
    max_bytes: int
    """Bytes of a frame."""


class StreamAnswer(_Schema):
    """The faces in one frame of a stream."""

    type: Literal["faces"] = "faces"
    """Always `faces`."""
    frame: Annotated[int, Field(ge=0)]
    """Number of the frame among those sent, from 0."""
    time_s: Annotated[float, Field(ge=0)]
    """When the frame came, seconds from the first one."""
    dropped: Annotated[int, Field(ge=0)]
    """Frames so far that were not looked at, since a newer one had come."""
    image: ImageSize
    """Size of the frame, px."""
    model: ModelName
    """The model that answered."""
    detections: list[TrackedDetection]
    """Faces by falling confidence; empty if there is none."""
    timing_ms: Timing
    """Where the time went, ms."""

    @classmethod
    def of(cls, analysis: Analysis, *, frame: int, time_s: float, dropped: int) -> "StreamAnswer":
        """Build the answer for a frame."""
        tracked = analysis.tracked
        assert tracked is not None
        raw = tracked.faces.renamed(tracked.raw, tracked.faces.names).records()
        faces = [
            face | {"raw": {name: alone[name] for name in ("emotion", "probabilities")}}
            for face, alone in zip(tracked.records(), raw, strict=True)
        ]
        width, height = analysis.image_wh
        return cls.model_validate(
            {
                "frame": frame,
                "time_s": round(time_s, 3),
                "dropped": dropped,
                "image": {"width": width, "height": height},
                "model": model_name(analysis.spec),
                "detections": faces,
                "timing_ms": analysis.timing_ms,
            }
        )


class StreamRefusal(_Schema):
    """A frame that was refused, or the reason for which the stream ends."""

    type: Literal["error"] = "error"
    """Always `error`."""
    frame: int | None
    """Number of the frame; null where the stream itself is refused."""
    dropped: int
    """Frames so far that were not looked at, since a newer one had come."""
    retry_after_s: int | None
    """Seconds for which frames are dropped; null where the next one is looked at."""
    error: ProblemDocument
    """Why."""


class ModelCard(_Schema):
    """The model served: intended use, metrics, origin."""

    name: str
    """The model's name."""
    version: str
    """First twelve digits of `digest`."""
    digest: str
    """SHA-256 of the network's ONNX file, or of the digests of a two-stage model's files; hexadecimal."""
    classes: list[EmotionName]
    """The expressions it names: all eight, or fewer if it was trained on fewer."""
    licence: str
    """SPDX name."""
    intended_use: str
    """What the model is made for, and what it must not be used for."""
    input_px: Annotated[int, Field(ge=32)]
    """Long side of the network's input, px."""
    backend: Literal["openvino", "onnx"]
    """Runtime that executes the network."""
    conf: Share
    """Default of `conf`: minimum confidence of a face, 0-1."""
    iou: Share
    """Overlap above which two boxes are one face, 0-1."""
    ios: Share
    """Share of the smaller of two boxes inside the other above which they are one face, 0-1."""
    data: str
    """Digest of the data the model was trained on."""
    revision: str
    """Git commit of the code that made it."""
    metrics_split: str | None
    """The split that `metrics` were measured on; null if the artefact carries none."""
    metrics: dict[str, Any] | None
    """As measured by the evaluate stage; null if the artefact carries none."""


class ReloadAnswer(_Schema):
    """Result of a reload."""

    status: Literal["loaded", "unchanged"]
    """`loaded`: another model answers from now on. `unchanged`: it is the model that answered before."""
    model: ModelName
    """The model that answers."""


class FeedbackRequest(_Schema):
    """The right expression of one face of an answer."""

    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """The header `X-Request-ID` of the answer."""
    item: Annotated[int, Field(ge=0, le=1_000)] = 0
    """Place of the picture among the files of a batch, from 0."""
    face: Annotated[int, Field(ge=0, le=1_000)]
    """Place of the face in the picture's `detections`, from 0."""
    emotion: EmotionName
    """The right expression."""


class FeedbackAnswer(_Schema):
    """Result of feedback."""

    status: Literal["accepted"] = "accepted"
    """`accepted`: it will be written to the prediction log."""


class Health(_Schema):
    """The state of the process."""

    status: Literal["alive", "ready"]
    """`alive`: the process answers. `ready`: the model does too."""


def problem_document(problem: Problem, request_id: str) -> ProblemDocument:
    """Return the document of a refusal within a batch."""
    return ProblemDocument.model_validate(problem.body(request_id))


def problem_responses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a route for the OpenAPI document."""
    described: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        entry = described.setdefault(
            STATUS[code],
            {
                "description": "Refused:",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
            },
        )
        entry["description"] += f" `{code}`"
    return described
