"""The exported network at inference: picture in, `Detections` out. No torch.

picture ── letterbox ──▶ [1, 3, S, S] ── network ──▶ [1, 12, A] ── decode, NMS ──▶ Detections
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.artefact import ModelSpec, checked_file, read_spec
from emotion_yolo.boxes import area, clip_xyxy
from emotion_yolo.calibration import probabilities
from emotion_yolo.detections import Detections
from emotion_yolo.emotions import NAMES
from emotion_yolo.errors import ModelError

Image = NDArray[np.uint8]
Tensor = NDArray[np.float32]
Backend = Literal["auto", "openvino", "onnx"]
Precision = Literal["auto", "f32", "bf16"]

# A bound on time and memory, met by no served threshold: only average precision looks at confidences of 0.001.
_MAX_CANDIDATES = 3000
_MAX_FACES = 300


@dataclass(frozen=True)
class Letterbox:
    """How a picture of `image_wh` px was put into the input: scaled by `scale`, then shifted by `left`, `top` px."""

    image_wh: tuple[int, int]
    scale: float
    left: int
    top: int


def letterbox(
    image: Image, *, imgsz: int, pad: int = 114, max_upscale: float = float("inf")
) -> tuple[Tensor, Letterbox]:
    """Scale an RGB picture [H, W, 3] to fit a grey square of `imgsz` px; returns float32 [1, 3, imgsz, imgsz] in 0-1.

    A picture smaller than the square is enlarged `max_upscale` times at most: more pixels of the same detail only take
    a face out of the sizes that the network was trained on.

    Raises:
        ValueError: not an [H, W, 3] uint8 array with pixels in it.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"got an image of shape {image.shape} and type {image.dtype}, expected [H, W, 3] uint8 RGB")
    height, width = image.shape[:2]
    scale = min(imgsz / max(height, width), max_upscale)
    new_w, new_h = max(round(width * scale), 1), max(round(height * scale), 1)
    if (new_w, new_h) != (width, height):
        # Area averaging when shrinking: linear interpolation would skip rows and alias small faces away.
        image = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)  # type: ignore[assignment]
    left, top = (imgsz - new_w) // 2, (imgsz - new_h) // 2
    canvas = np.full((imgsz, imgsz, 3), pad, np.uint8)
    canvas[top : top + new_h, left : left + new_w] = image
    tensor = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32)
    tensor /= 255
    return tensor, Letterbox((width, height), scale, left, top)


def decode(
    raw: Tensor, box: Letterbox, *, conf: float, iou: float, temperature: float, max_faces: int = _MAX_FACES
) -> Detections:
    """Turn the network's answer [1, 12, A] (centre boxes in input px, eight scores in 0-1) into detections.

    A face's emotions exclude each other, so the confidence that there is a face is the sum of the eight scores, at
    most 1. Non-maximum suppression sees faces, not classes: one face comes back once.
    """
    cxcywh, scores = raw[0, :4].T, raw[0, 4:].T  # [A, 4], [A, 8]
    confidence = np.minimum(scores.sum(1), 1.0)
    candidates = np.flatnonzero(confidence >= conf)
    # A stable sort: equal confidences keep the network's order on every machine.
    candidates = candidates[np.argsort(-confidence[candidates], kind="stable")][:_MAX_CANDIDATES]
    if not len(candidates):
        return Detections.empty(box.image_wh)
    cxcywh, scores, confidence = cxcywh[candidates], scores[candidates], confidence[candidates]
    xywh = np.concatenate([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, 2:]], axis=1)
    kept = np.asarray(cv2.dnn.NMSBoxes(xywh.tolist(), confidence.tolist(), 0.0, iou), dtype=np.int64).reshape(-1)
    kept = np.sort(kept)
    xyxy = np.concatenate([xywh[kept, :2], xywh[kept, :2] + xywh[kept, 2:]], axis=1)
    xyxy = (xyxy - np.asarray([box.left, box.top] * 2, np.float32)) / box.scale
    xyxy = clip_xyxy(xyxy, image_wh=box.image_wh)
    visible = np.flatnonzero(area(xyxy) > 0)[:max_faces]  # a box wholly in the grey border is no face
    kept = kept[visible]
    return Detections(
        xyxy[visible],
        confidence[kept],
        probabilities(scores[kept], temperature=temperature),
        box.image_wh,
    )


class Detector:
    """An exported model, loaded: `predict` is `postprocess(infer(preprocess(image)))`. Threads may share it."""

    def __init__(self, spec: ModelSpec, infer: Callable[[Tensor], Tensor], *, imgsz: int, backend: str) -> None:
        self.spec = spec
        self.imgsz = imgsz
        self.backend = backend
        self._infer = infer

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        backend: Backend = "auto",
        imgsz: int | None = None,
        threads: int = 0,
        precision: Precision = "f32",
    ) -> Self:
        """Load the artefact in `folder`; `imgsz` (px) replaces its default input side, `threads` 0 leaves all cores.

        Raises:
            ModelError: a file missing or damaged, or an input side that is no multiple of the stride.
        """
        spec = read_spec(folder)
        size = imgsz or spec.input.imgsz
        if size < spec.input.stride or size % spec.input.stride:
            raise ModelError(f"imgsz is {size}, expected a multiple of {spec.input.stride} px")
        if backend == "auto":
            backend = "openvino" if find_spec("openvino") else "onnx"
        try:
            infer = (
                _openvino(folder, spec, size, threads, precision)
                if backend == "openvino"
                else _onnxruntime(folder, spec, threads)
            )
        except ImportError as error:
            raise ModelError(f"backend is {backend!r}, but {error.name} is not installed; install it") from error
        # The first answer warms the runtime up, and tells whether this is a network of ours: ONNX files with free
        # dimensions do not say how many numbers a box they answer with.
        answer = infer(np.zeros((1, 3, size, size), np.float32))
        expected = 4 + len(NAMES)
        if answer.ndim != 3 or answer.shape[1] != expected:
            message = f"answers with shape {answer.shape}, expected [1, {expected}, boxes] (4 of the box, 8 scores)"
            raise ModelError(f"{folder}: the network {message}; export it with this project's export stage")
        return cls(spec, infer, imgsz=size, backend=backend)

    def preprocess(self, image: Image) -> tuple[Tensor, Letterbox]:
        """Letterbox an RGB picture [H, W, 3] uint8."""
        given = self.spec.input
        return letterbox(image, imgsz=self.imgsz, pad=given.pad, max_upscale=given.max_upscale)

    def infer(self, tensor: Tensor) -> Tensor:
        """Run the network on [1, 3, imgsz, imgsz]; returns [1, 12, A]."""
        return self._infer(tensor)

    def postprocess(
        self,
        raw: Tensor,
        box: Letterbox,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_faces: int = _MAX_FACES,
    ) -> Detections:
        """Decode an answer; thresholds default to those chosen on the valid split."""
        thresholds = self.spec.thresholds
        return decode(
            raw,
            box,
            conf=thresholds.conf if conf is None else conf,
            iou=thresholds.iou if iou is None else iou,
            temperature=self.spec.calibration.temperature,
            max_faces=max_faces,
        )

    def predict(
        self, image: Image, *, conf: float | None = None, iou: float | None = None, max_faces: int = _MAX_FACES
    ) -> Detections:
        """Find the faces in an RGB picture [H, W, 3] uint8 and name their expressions."""
        tensor, box = self.preprocess(image)
        return self.postprocess(self.infer(tensor), box, conf=conf, iou=iou, max_faces=max_faces)


def _openvino(
    folder: Path, spec: ModelSpec, imgsz: int, threads: int, precision: Precision
) -> Callable[[Tensor], Tensor]:
    import openvino as ov

    path = checked_file(folder, spec.files.get("openvino_xml", spec.files["onnx"]))
    if "openvino_bin" in spec.files:
        checked_file(folder, spec.files["openvino_bin"])  # OpenVINO finds it beside the .xml by itself
    config: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if precision != "auto":
        config["INFERENCE_PRECISION_HINT"] = precision
    try:
        model = ov.Core().read_model(path)
        model.reshape([1, 3, imgsz, imgsz])
        compiled = ov.compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot read it: {error}") from error
    local = threading.local()  # an infer request holds buffers, so that each thread needs its own

    def infer(tensor: Tensor) -> Tensor:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        local.request.infer([tensor])
        return np.array(local.request.get_output_tensor(0).data, np.float32)

    return infer


def _onnxruntime(folder: Path, spec: ModelSpec, threads: int) -> Callable[[Tensor], Tensor]:
    import onnxruntime as ort

    path = checked_file(folder, spec.files["onnx"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise ModelError(f"{path}: ONNX Runtime cannot read it: {error}") from error
    name = session.get_inputs()[0].name

    def infer(tensor: Tensor) -> Tensor:
        return np.asarray(session.run(None, {name: tensor})[0], np.float32)

    return infer
