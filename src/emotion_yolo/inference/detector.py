"""The exported network at inference: picture in, `Detections` out. No torch.

picture ── letterbox ──▶ [1, h, w, 3] ── network ──▶ [1, 12, A] ── decode, NMS ──▶ Detections
each face ── close-up, mirror image ──▶ 2 × [1, s, s, 3] ── network ──▶ [1, 12, A] ── mean ──▶ its probabilities
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import numpy as np

from emotion_yolo.errors import ModelError
from emotion_yolo.imaging import Picture, read_picture
from emotion_yolo.inference.artefact import ModelSpec, read_spec
from emotion_yolo.inference.backends import Backend, Infer, Precision, onnxruntime_backend, openvino_backend
from emotion_yolo.inference.calibration import probabilities
from emotion_yolo.inference.close_up import cut_out, mirrored, scores_of
from emotion_yolo.inference.decoding import MAX_FACES, Tensor, decode
from emotion_yolo.inference.letterbox import Canvas, Letterbox, canvases, letterbox
from emotion_yolo.inference.model import Keep, OnPhase, as_they_are, unobserved
from emotion_yolo.inference.packaged import packaged_release
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.images import Image


class Detector:
    """An exported model, loaded: `predict` is `name(postprocess(infer(preprocess(image))), image)`.

    Threads may share it.
    """

    def __init__(self, spec: ModelSpec, infer: Infer, *, canvases: Sequence[Canvas], backend: str) -> None:
        self.spec = spec
        self.canvases = tuple(canvases)
        self.imgsz = max(map(max, canvases))
        self.backend = backend
        self._infer = infer

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        *,
        spec: ModelSpec | None = None,
        backend: Backend = "auto",
        imgsz: int | None = None,
        threads: int = 0,
        precision: Precision = "f32",
        square: bool = False,
        close_ups: bool = True,
    ) -> Self:
        """Load the artefact in `folder`, or the release that comes with the package.

        `spec` stands for its model.json, which an export writes last.
        `imgsz` (px) replaces its default input side. `threads` are the cores of one inference; 0 takes all, and fewer
        than all let several inferences run at once. `square` takes no other canvas than the square. Without `close_ups`
        faces are named by the first look alone, for those who only want the boxes.

        Raises:
            ModelError: a file missing or damaged, an input side that is no multiple of the stride, or a two-stage model
                whose own spec is not given: the network alone would answer otherwise than the model.
        """
        folder = packaged_release() if folder is None else Path(folder)
        if spec is None and (spec := read_spec(folder)).classifier:
            raise ModelError(f"{folder}: a two-stage model, expected a detector; name the one it was assembled from")
        if not close_ups or spec.classifier:  # whose names would be replaced
            spec = spec.model_copy(update={"close_up": None})
        size, stride = imgsz or spec.input.imgsz, spec.input.stride
        if size < stride or size % stride:
            raise ModelError(f"imgsz is {size}, expected a multiple of {stride} px")
        if backend == "auto":
            backend = "openvino" if find_spec("openvino") else "onnx"
        chosen: tuple[Canvas, ...] = ((size, size),) if square else canvases(size, stride=stride)
        inputs = [(1, *canvas) for canvas in chosen]
        if spec.close_up:  # with its mirror image
            inputs.append((2, spec.close_up.side, spec.close_up.side))
        try:
            infer = (
                openvino_backend(folder, spec, inputs, threads=threads, precision=precision)
                if backend == "openvino"
                else onnxruntime_backend(folder, spec, threads=threads)
            )
        except ImportError as error:
            raise ModelError(f"backend is {backend!r}, but {error.name} is not installed; install it") from error
        # The shape of the first answer shows whether this project exported the network: ONNX files with free dimensions
        # do not say how many numbers a box they answer with.
        answer = infer(np.zeros((1, size, size, 3), np.uint8))
        expected = 4 + len(NAMES)
        if answer.ndim != 3 or answer.shape[1] != expected:
            message = f"answers with shape {answer.shape}, expected [1, {expected}, boxes] (4 of the box, 8 scores)"
            raise ModelError(f"{folder}: the network {message}; export it with this project's export stage")
        return cls(spec, infer, canvases=chosen, backend=backend)

    def preprocess(self, image: Image) -> tuple[Image, Letterbox]:
        """Letterbox an RGB picture [H, W, 3] uint8; returns [1, h, w, 3] uint8, one of `canvases`."""
        given = self.spec.input
        return letterbox(
            image, self.canvases, pad=given.pad, max_upscale=given.max_upscale, upscale_to=given.upscale_to
        )

    def infer(self, tensor: Image) -> Tensor:
        """Run the network on [1, h, w, 3] uint8 RGB, one of `canvases`; returns [1, 12, A]."""
        return self._infer(tensor)

    def postprocess(
        self,
        raw: Tensor,
        box: Letterbox,
        *,
        conf: float | None = None,
        iou: float | None = None,
        ios: float | None = None,
        max_faces: int = MAX_FACES,
    ) -> Detections:
        """Decode an answer; thresholds default to those chosen on the valid split."""
        thresholds = self.spec.thresholds
        return decode(
            raw,
            box,
            conf=thresholds.conf if conf is None else conf,
            iou=thresholds.iou if iou is None else iou,
            ios=thresholds.ios if ios is None else ios,
            temperature=self.spec.calibration.temperature,
            bias=self.spec.calibration.bias,
            max_faces=max_faces,
        )

    def name(self, found: Detections, image: Image, *, factor: int = 1, on_phase: OnPhase = unobserved) -> Detections:
        """Return the faces of a picture with the probabilities that their close-ups give, if the artefact has these.

        `image` is the RGB picture [H, W, 3], decoded `factor` times smaller than the one that `found` is of. A face
        that the network does not see in its close-up keeps its probabilities.
        """
        given, fitted = self.spec.close_up, self.spec.calibration
        if not given or not len(found):
            return found
        renamed = found.probabilities.copy()
        for row, xyxy in enumerate(found.xyxy[: given.faces]):
            seen, box = cut_out(image, xyxy / factor, given, pad=self.spec.input.pad)
            on_phase("preprocess")
            answers = self._infer(np.concatenate([seen, mirrored(seen)]))
            on_phase("inference")
            scores = [scores for answer in answers if (scores := scores_of(answer, box)) is not None]
            if scores:
                mean = np.mean(scores, axis=0, keepdims=True)
                renamed[row] = probabilities(mean, temperature=fitted.temperature, bias=fitted.bias)[0]
        on_phase("postprocess")
        return found.renamed(renamed, found.names)

    def predict_picture(
        self,
        picture: Picture,
        *,
        conf: float | None = None,
        max_faces: int = MAX_FACES,
        keep: Keep = as_they_are,
        on_phase: OnPhase = unobserved,
    ) -> Detections:
        """See `FaceModel`."""
        tensor, box = self.preprocess(picture.pixels)
        on_phase("preprocess")
        raw = self.infer(tensor)
        on_phase("inference")
        box = box.in_full(picture.image_wh, picture.factor)
        found = keep(self.postprocess(raw, box, conf=conf, max_faces=max_faces))
        on_phase("postprocess")
        return self.name(found, picture.pixels, factor=picture.factor, on_phase=on_phase)

    def predict(
        self,
        image: Image | str | Path,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_faces: int = MAX_FACES,
    ) -> Detections:
        """Find the faces in an RGB picture [H, W, 3] uint8, or in a file, and name their expressions.

        Boxes are px of the full, upright picture. A large file is looked at reduced, as the service does.

        Raises:
            ImageError: the file cannot be read or decoded.
        """
        if isinstance(image, np.ndarray):
            pixels, factor = image, 1
            tensor, box = self.preprocess(pixels)
        else:
            picture = read_picture(Path(image), fit=self.imgsz)
            pixels, factor = picture.pixels, picture.factor
            tensor, box = self.preprocess(pixels)
            box = box.in_full(picture.image_wh, factor)
        found = self.postprocess(self.infer(tensor), box, conf=conf, iou=iou, max_faces=max_faces)
        return self.name(found, pixels, factor=factor)

    def __repr__(self) -> str:
        return f"<Detector {self.spec.name} {self.spec.version}: {self.imgsz} px, {self.backend}>"
