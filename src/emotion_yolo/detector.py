"""The exported network at inference: picture in, `Detections` out. No torch.

picture ── letterbox ──▶ [1, h, w, 3] ── network ──▶ [1, 12, A] ── decode, NMS ──▶ Detections
"""

import math
import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from os import cpu_count
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.artefact import ModelSpec, checked_file, read_spec
from emotion_yolo.boxes import area, clip_xyxy, nesting_matrix
from emotion_yolo.calibration import probabilities
from emotion_yolo.detections import Detections
from emotion_yolo.emotions import NAMES
from emotion_yolo.errors import ModelError
from emotion_yolo.images import Image

Tensor = NDArray[np.float32]
Canvas = tuple[int, int]
"""Width and height of the network's input in px."""
Infer = Callable[[Image], Tensor]
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


def canvases(imgsz: int, *, stride: int = 32) -> tuple[Canvas, ...]:
    """Return the inputs for pictures scaled to a long side of `imgsz` px: a square, and 4:3 lying and upright.

    Most photographs are 4:3, 3:2 or 16:9, of which a square would be grey to a quarter or more. There are few, because
    each is a compiled network of its own: some 30 MB.
    """
    short = -(-imgsz * 3 // 4 // stride) * stride
    return tuple(dict.fromkeys([(imgsz, imgsz), (imgsz, short), (short, imgsz)]))


def letterbox(
    image: Image, canvases: Sequence[Canvas], *, pad: int = 114, max_upscale: float = float("inf")
) -> tuple[Image, Letterbox]:
    """Scale an RGB picture [H, W, 3] and centre it on the smallest grey canvas that holds it; returns [1, h, w, 3].

    The picture's long side becomes that of the canvases. A smaller picture is enlarged `max_upscale` times at most:
    more pixels of the same detail only take a face out of the sizes that the network was trained on.

    Raises:
        ValueError: not an [H, W, 3] uint8 array with pixels in it.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"got an image of shape {image.shape} and type {image.dtype}, expected [H, W, 3] uint8 RGB")
    height, width = image.shape[:2]
    scale = min(max(map(max, canvases)) / max(height, width), max_upscale)
    new_w, new_h = max(round(width * scale), 1), max(round(height * scale), 1)
    fitting = [canvas for canvas in canvases if canvas[0] >= new_w and canvas[1] >= new_h]
    canvas_w, canvas_h = min(fitting, key=lambda canvas: canvas[0] * canvas[1])
    left, top = (canvas_w - new_w) // 2, (canvas_h - new_h) // 2
    tensor = np.full((1, canvas_h, canvas_w, 3), pad, np.uint8)
    inside = tensor[0, top : top + new_h, left : left + new_w]
    if (new_w, new_h) == (width, height):
        inside[:] = image
    else:
        # Below a half, linear interpolation would skip pixels and alias small faces away; area averaging, which does
        # not, takes six times as long.
        interpolation = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        cv2.resize(image, (new_w, new_h), dst=inside, interpolation=interpolation)
    return tensor, Letterbox((width, height), scale, left, top)


def decode(
    raw: Tensor,
    box: Letterbox,
    *,
    conf: float,
    iou: float,
    temperature: float,
    nested: float = 1.0,
    max_faces: int = _MAX_FACES,
) -> Detections:
    """Turn the network's answer [1, 12, A] (centre boxes in input px, eight scores in 0-1) into detections.

    A face's emotions exclude each other, so the confidence that there is a face is the sum of the eight scores, at
    most 1. Non-maximum suppression sees faces, not classes: one face comes back once. A mouth, or half a face, overlaps
    the whole by less than `iou`; so a box also goes if more than `nested` of it lies in a surer one, or of that in it.
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
    visible = np.flatnonzero(area(xyxy) > 0)  # a box wholly in the grey border is no face
    if nested < 1:
        visible = visible[_apart(xyxy[visible], nested=nested)]
    visible = visible[:max_faces]
    kept = kept[visible]
    return Detections(
        xyxy[visible],
        confidence[kept],
        probabilities(scores[kept], temperature=temperature),
        box.image_wh,
    )


def _apart(xyxy: Tensor, *, nested: float) -> list[int]:
    # The surest come first, so that each box is held against those kept before it.
    kept: list[int] = []
    for index in range(len(xyxy)):
        if not kept or nesting_matrix(xyxy[[index]], xyxy[kept]).max() <= nested:
            kept.append(index)
    return kept


class Detector:
    """An exported model, loaded: `predict` is `postprocess(infer(preprocess(image)))`. Threads may share it."""

    def __init__(self, spec: ModelSpec, infer: Infer, *, canvases: Sequence[Canvas], backend: str) -> None:
        self.spec = spec
        self.canvases = tuple(canvases)
        self.imgsz = max(map(max, canvases))
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
        square: bool = False,
    ) -> Self:
        """Load the artefact in `folder`.

        `imgsz` (px) replaces its default input side. `threads` are the cores of one inference; 0 takes all, and fewer
        than all let several inferences run at once. `square` takes no other canvas than the square.

        Raises:
            ModelError: a file missing or damaged, or an input side that is no multiple of the stride.
        """
        spec = read_spec(folder)
        size, stride = imgsz or spec.input.imgsz, spec.input.stride
        if size < stride or size % stride:
            raise ModelError(f"imgsz is {size}, expected a multiple of {stride} px")
        if backend == "auto":
            backend = "openvino" if find_spec("openvino") else "onnx"
        chosen: tuple[Canvas, ...] = ((size, size),) if square else canvases(size, stride=stride)
        try:
            infer = (
                _openvino(folder, spec, chosen, threads, precision)
                if backend == "openvino"
                else _onnxruntime(folder, spec, threads)
            )
        except ImportError as error:
            raise ModelError(f"backend is {backend!r}, but {error.name} is not installed; install it") from error
        # The first answer tells whether this is a network of ours: ONNX files with free dimensions do not say how many
        # numbers a box they answer with.
        answer = infer(np.zeros((1, size, size, 3), np.uint8))
        expected = 4 + len(NAMES)
        if answer.ndim != 3 or answer.shape[1] != expected:
            message = f"answers with shape {answer.shape}, expected [1, {expected}, boxes] (4 of the box, 8 scores)"
            raise ModelError(f"{folder}: the network {message}; export it with this project's export stage")
        return cls(spec, infer, canvases=chosen, backend=backend)

    def preprocess(self, image: Image) -> tuple[Image, Letterbox]:
        """Letterbox an RGB picture [H, W, 3] uint8; returns [1, h, w, 3] uint8, one of `canvases`."""
        given = self.spec.input
        return letterbox(image, self.canvases, pad=given.pad, max_upscale=given.max_upscale)

    def infer(self, tensor: Image) -> Tensor:
        """Run the network on [1, h, w, 3] uint8 RGB; returns [1, 12, A]."""
        return self._infer(tensor)

    def postprocess(
        self,
        raw: Tensor,
        box: Letterbox,
        *,
        conf: float | None = None,
        iou: float | None = None,
        nested: float | None = None,
        max_faces: int = _MAX_FACES,
    ) -> Detections:
        """Decode an answer; thresholds default to those chosen on the valid split."""
        thresholds = self.spec.thresholds
        return decode(
            raw,
            box,
            conf=thresholds.conf if conf is None else conf,
            iou=thresholds.iou if iou is None else iou,
            nested=thresholds.nested if nested is None else nested,
            temperature=self.spec.calibration.temperature,
            max_faces=max_faces,
        )

    def predict(
        self, image: Image, *, conf: float | None = None, iou: float | None = None, max_faces: int = _MAX_FACES
    ) -> Detections:
        """Find the faces in an RGB picture [H, W, 3] uint8 and name their expressions."""
        tensor, box = self.preprocess(image)
        return self.postprocess(self.infer(tensor), box, conf=conf, iou=iou, max_faces=max_faces)


def available_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return how many cores this process may use: by its affinity, and by the quota of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        return min(cores, max(math.ceil(int(quota) / int(period)), 1))
    except (OSError, ValueError):  # no cgroup v2, or `max`: no quota
        return cores


def _quota() -> int:
    """Return the available cores where they are fewer than the machine's; else 0, and the runtime chooses.

    OpenVINO and ONNX Runtime do not know a container's quota: they would start a thread for each core of its host.
    """
    cores = available_cores()
    return cores if cores < (cpu_count() or 1) else 0


def _openvino(folder: Path, spec: ModelSpec, canvases: Sequence[Canvas], threads: int, precision: Precision) -> Infer:
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    path = checked_file(folder, spec.files.get("openvino_xml", spec.files["onnx"]))
    if "openvino_bin" in spec.files:
        checked_file(folder, spec.files["openvino_bin"])  # OpenVINO finds it beside the .xml by itself
    threads = threads or _quota()
    streams = max(available_cores() // threads, 1) if threads else 1
    # A thread pinned to a core waits whenever other work takes that core, and the others wait for it.
    config: dict[str, object] = {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads * streams,
        "ENABLE_CPU_PINNING": False,
    }
    if precision != "auto":
        config["INFERENCE_PRECISION_HINT"] = precision

    def compiled(canvas: Canvas) -> "queue.SimpleQueue[Any]":
        width, height = canvas
        model = network.clone()
        model.reshape([1, 3, height, width])
        # Layout and type are changed within the network, where it takes a tenth of the time.
        steps = PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        steps.input().model().set_layout(ov.Layout("NCHW"))
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        ready = ov.compile_model(steps.build(), "CPU", config)
        # A request holds buffers, so that each works for one thread at a time; more than streams would only wait.
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            requests.put(ready.create_infer_request())
        return requests

    try:
        network = ov.Core().read_model(path)
        with ThreadPoolExecutor(len(canvases)) as pool:
            requests_of = dict(zip(canvases, pool.map(compiled, canvases), strict=True))
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot read it: {error}") from error

    def infer(tensor: Image) -> Tensor:
        requests = requests_of[tensor.shape[2], tensor.shape[1]]
        request = requests.get()
        try:
            request.infer([tensor], share_inputs=True)
            return np.array(request.get_output_tensor(0).data, np.float32)
        finally:
            requests.put(request)

    return infer


def _onnxruntime(folder: Path, spec: ModelSpec, threads: int) -> Infer:
    import onnxruntime as ort

    path = checked_file(folder, spec.files["onnx"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or _quota()
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base below Exception
        raise ModelError(f"{path}: ONNX Runtime cannot read it: {error}") from error
    name = session.get_inputs()[0].name

    def infer(tensor: Image) -> Tensor:
        return np.asarray(session.run(None, {name: as_planes(tensor)})[0], np.float32)

    return infer


def as_planes(tensor: Image) -> Tensor:
    """Bring [1, h, w, 3] uint8 to what the exported network itself takes: float32 [1, 3, h, w] in 0-1."""
    return np.ascontiguousarray(tensor.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
