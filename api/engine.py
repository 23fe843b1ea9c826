"""The model at work: what is done with one picture, phase by phase.

bytes ── decode ──▶ preprocess ──▶ inference ──▶ postprocess ──▶ Analysis
"""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emotion_yolo.errors import EmotionYoloError, ModelError
from emotion_yolo.imaging import LOCAL, Picture, Pixels, decode
from emotion_yolo.inference.artefact import ModelSpec, read_spec
from emotion_yolo.inference.loading import load_model
from emotion_yolo.inference.model import FaceModel, Phase
from emotion_yolo.prediction_log.quality import input_quality
from emotion_yolo.prediction_log.rows import PictureRecord, ShadowRecord
from emotion_yolo.prediction_log.writer import PredictionLog
from emotion_yolo.review.folder import KeptFolder
from emotion_yolo.review.keeper import OUTCOMES as KEPT
from emotion_yolo.review.keeper import Contradiction, Keeper, case_of
from emotion_yolo.shadow.agreement import Agreement
from emotion_yolo.structures.detections import Detections
from emotion_yolo.tracks import LEAST_CONFIDENCE, TrackedFaces

from .images import PictureDecoder
from .logs import LOGGER
from .memory import Answer, return_freed_memory
from .metrics import Metrics
from .problems import Code, Problem
from .scheduler import Ticket
from .settings import Settings
from .shadow import Answered, Shadow

METRICS_NAME = "metrics.json"

Draw = Callable[[Pixels, Detections], memoryview]
"""Draws on a picture, in place, and returns it encoded."""

Follow = Callable[[ModelSpec, float, Detections, Ticket], TrackedFaces]
"""Joins the faces of a frame to tracks; the number is the confidence from which on a face begins one, 0-1."""


class State(StrEnum):
    """The engine's life; only `READY` answers."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True)
class Options:
    """What a request may choose: least confidence 0-1, most faces, least shorter side of a face in px."""

    conf: float | None = None
    max_faces: int = 300
    min_face: int = 0


@dataclass(frozen=True, eq=False)
class Analysis:
    """What became of a picture; `timing_ms` has the phases and `total`, from hand-in to end, waiting included."""

    image_wh: tuple[int, int]
    format: str
    detections: Detections
    timing_ms: dict[str, float]
    spec: ModelSpec
    """Of the model that answered: the next picture may have another."""
    tracked: TrackedFaces | None = None
    """Of a frame of a stream: `detections` with their tracks."""


class Engine:
    """Loads the model and finds faces with it. Threads may share it."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.state = State.LOADING
        self.failure: EmotionYoloError | None = None
        self.measured: dict[str, Any] | None = None
        """`metrics.json` of the loaded model, if it has one."""
        self._settings = settings
        self._metrics = metrics
        self.pictures = PictureDecoder(settings)
        self.log: PredictionLog | None = None
        self.shadow: Shadow | None = None
        self.keeper: Keeper | None = None
        self._detector: FaceModel | None = None
        self._reloading = threading.Lock()

    @property
    def detector(self) -> FaceModel:
        """Return the loaded model.

        Raises:
            Problem: not loaded yet.
        """
        if self._detector is None:
            raise Problem(Code.NOT_READY, "the model is loading; try again", retry_after_s=1)
        return self._detector

    def load(self) -> None:
        """Load and warm the model; a failure, whatever its kind, is kept in `failure`."""
        try:
            self._load()
        except EmotionYoloError as error:
            self._fail(error)
        except Exception as error:
            folder = self._settings.model
            failure = ModelError(f"{str(folder)[:200]}: the model cannot be loaded ({type(error).__name__}: {error})")
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, failure: EmotionYoloError) -> None:
        self.failure, self.state = failure, State.FAILED

    def reload(self) -> bool:
        """Load and warm what lies in the model's folder beside the present model, and put it in its place.

        Returns False where it is the same model. Requests that run keep the model that they began with; until the last
        of them ends both are in memory.

        Raises:
            Problem: the new model is refused and the present one goes on, or another reload is under way.
        """
        before = self.detector.spec
        if self.shadow is not None:
            self.shadow.reload()
        if not self._reloading.acquire(blocking=False):
            raise Problem(Code.OVERLOADED, "another reload is under way; try again", retry_after_s=2)
        try:
            if read_spec(self._settings.model) == before:
                self._metrics.reloads.labels("unchanged").inc()
                return False
            self._load()
        except Exception as error:
            self._metrics.reloads.labels("refused").inc()
            why = str(error) if isinstance(error, EmotionYoloError) else f"{type(error).__name__}: {error}"
            fields = {"error": why[:500], "model": f"{before.name} {before.version}"}
            LOGGER.error("the new model is refused; the present one goes on", extra={"fields": fields})
            message = f"the new model cannot be loaded, version {before.version} goes on; the log says why"
            raise Problem(Code.MODEL_REFUSED, message) from error
        finally:
            self._reloading.release()
        self._metrics.reloads.labels("loaded").inc()
        return True

    def _load(self) -> None:
        started = time.perf_counter()
        settings = self._settings
        detector = load_model(
            settings.model,
            backend=settings.backend,
            imgsz=settings.imgsz,
            threads=settings.threads,
            precision=settings.precision,
        )
        measured = read_metrics(settings.model)
        greys = [np.full((height, width, 3), 114, np.uint8) for width, height in detector.canvases]
        extensions = (".jpg", ".png", ".webp")
        pairs = [(extensions[i % 3], greys[i % len(greys)]) for i in range(max(len(extensions), len(greys)))]
        files = [cv2.imencode(extension, grey)[1].tobytes() for extension, grey in pairs]

        def warm_up(_: int) -> None:
            for file in files:
                detector.predict(decode(file, LOCAL).pixels)

        with ThreadPoolExecutor(settings.workers) as pool:  # at once, so that they warm the buffers of every stream
            list(pool.map(warm_up, range(settings.workers)))
        return_freed_memory()
        self._detector, self.measured = detector, measured
        self._metrics.model.clear()
        self._metrics.model.labels(detector.spec.name, detector.spec.version).set(1)
        if self.state is State.LOADING:
            self.state = State.READY
            self._metrics.ready.set(1)
        fields = {
            "model": f"{detector.spec.name} {detector.spec.version}",
            "backend": detector.backend,
            "imgsz": detector.imgsz,
            "s": round(time.perf_counter() - started, 2),
        }
        LOGGER.info("ready", extra={"fields": fields})

    def open_watchers(self, *, waiting: Callable[[], bool]) -> None:
        """Start what the settings ask for: the keeper of pictures, and the candidate.

        `waiting` says whether pictures wait for a worker.
        """
        settings, kept = self._settings, self._metrics.kept_pictures
        if settings.keep_pictures is not None:
            for outcome in KEPT:
                kept.labels(outcome)
            folder = KeptFolder(settings.keep_pictures, days=settings.keep_days, max_bytes=settings.keep_bytes)
            self.keeper = Keeper(
                folder, below=settings.keep_below, on_outcome=lambda outcome: kept.labels(outcome).inc()
            )
        if settings.shadow_model is not None:
            self.shadow = Shadow(settings, self._metrics, on_scored=self._scored, waiting=waiting)

    def _scored(self, record: ShadowRecord, agreement: Agreement) -> None:
        if self.keeper is not None and not agreement.complete:
            self.keeper.contradict(Contradiction(record.request_id, record.item))
        if self.log is not None:
            self.log.put(record)

    def drain(self) -> None:
        """Turn unready; requests that come all the same are still answered."""
        self.state = State.DRAINING
        self._metrics.ready.set(0)

    def close(self) -> None:
        """End the decoder processes, so that no thread waits for them, and what watches."""
        self.pictures.close()
        if self.shadow is not None:
            self.shadow.close()
        if self.keeper is not None:
            self.keeper.close()

    def analyse(self, data: bytes, options: Options, ticket: Ticket, *, item: int = 0) -> Analysis:
        """Find the faces in a picture, the `item`-th of a batch; call it from a job.

        Raises:
            Problem: no picture that can be used, or nobody waits for the answer any more.
        """
        begin = time.perf_counter()
        with self.pictures.decoded(data, seconds_left=ticket.seconds_left, fit=self.detector.imgsz) as picture:
            analysis = self._analyse(data, picture, options, ticket, begin, item)
            if self.keeper is not None:
                case = case_of(
                    analysis.detections, request_id=ticket.request_id or "", item=item, model=analysis.spec.digest
                )
                self.keeper.see(picture.pixels, case)
            if self.shadow is not None and self._is_plain(options):
                answered = Answered(picture, analysis.detections, ticket.request_id or "", item, analysis.spec.digest)
                self.shadow.offer(answered)
            return analysis

    def _is_plain(self, options: Options) -> bool:
        """Say whether a request left thresholds and limits to the model, so that its answer compares with others."""
        return options == Options(max_faces=self._settings.max_faces)

    def follow(self, data: bytes, options: Options, ticket: Ticket, *, follow: Follow) -> Analysis:
        """Find the faces in a frame and join them to tracks; call it from a job.

        Frames are not in the prediction log: a second of a stream would outweigh all pictures of a minute.

        Raises:
            Problem: no picture that can be used, or nobody waits for the answer any more.
        """
        begin = time.perf_counter()
        detector = self.detector
        confidence = detector.spec.thresholds.conf if options.conf is None else options.conf
        least = replace(options, conf=min(confidence, LEAST_CONFIDENCE))
        with self.pictures.decoded(data, seconds_left=ticket.seconds_left, fit=detector.imgsz) as picture:
            found, seconds = self._find(detector, picture, least, ticket, begin)
            tracked = follow(detector.spec, confidence, found, ticket)
            self._count(data, picture, tracked.faces, seconds)
        return Analysis(
            picture.image_wh, picture.format, tracked.faces, _milliseconds(seconds, ticket), detector.spec, tracked
        )

    def annotate(
        self, data: bytes, options: Options, ticket: Ticket, *, draw: Draw, answer_bytes: float
    ) -> tuple[Answer, Analysis]:
        """Find the faces in a picture and draw them on all of its pixels; call it from a job.

        What is found is what `analyse` finds. `answer_bytes` is the most memory that encoding takes for each pixel.

        Raises:
            Problem: no picture that can be used, or nobody waits for the answer any more.
        """
        begin = time.perf_counter()
        whole = self.pictures.inspect(data)
        reduced = self.pictures.inspect(data, fit=self.detector.imgsz)
        width, height = whole.size
        memory = max(whole.memory, int((3 + answer_bytes) * width * height))
        if memory > self.pictures.limits.max_memory:
            message = f"drawing on this {whole.format} takes {memory / 1e6:.0f} MB"
            limit = f"expected at most {self.pictures.limits.max_memory / 1e6:.0f} MB"
            raise Problem(Code.TOO_MANY_PIXELS, f"{message}, {limit}; scale it down, or ask for a JPEG")
        analysis = self.analyse(data, options, ticket) if reduced.factor > 1 else None
        with self.pictures.hold(memory, seconds_left=ticket.seconds_left) as held:
            picture = self.pictures.decode(whole, seconds_left=ticket.seconds_left)
            analysis = analysis or self._analyse(data, picture, options, ticket, begin)
            ticket.check()
            return held.answer(draw(picture.pixels, analysis.detections)), analysis

    def _analyse(
        self, data: bytes, picture: Picture, options: Options, ticket: Ticket, begin: float, item: int = 0
    ) -> Analysis:
        detector = self.detector
        detections, seconds = self._find(detector, picture, options, ticket, begin)
        self._count(data, picture, detections, seconds)
        timing_ms = _milliseconds(seconds, ticket)
        if self.log is not None:
            self.log.put(
                PictureRecord(
                    request_id=ticket.request_id or "",
                    item=item,
                    model=detector.spec.digest,
                    format=picture.format,
                    bytes=len(data),
                    quality=input_quality(picture.pixels),
                    detections=detections,
                    latency_ms=timing_ms["total"],
                    plain=self._is_plain(options),
                )
            )
        return Analysis(picture.image_wh, picture.format, detections, timing_ms, detector.spec)

    def _find(
        self, detector: FaceModel, picture: Picture, options: Options, ticket: Ticket, begin: float
    ) -> tuple[Detections, dict[str, float]]:
        """Return the faces of a decoded picture, and the seconds that each phase took since `begin`."""
        last = time.perf_counter()
        seconds: dict[str, float] = {"decode": last - begin, "preprocess": 0, "inference": 0, "postprocess": 0}

        def on_phase(phase: Phase) -> None:
            nonlocal last
            now = time.perf_counter()
            seconds[phase] += now - last
            last = now
            if phase != "postprocess":  # what is nearly ready is answered
                ticket.check()

        ticket.check()
        detections = detector.predict_picture(
            picture,
            conf=options.conf,
            max_faces=self._settings.max_faces,
            keep=lambda found: _chosen(found, options),
            on_phase=on_phase,
        )
        return detections, seconds

    def _count(self, data: bytes, picture: Picture, detections: Detections, seconds: dict[str, float]) -> None:
        metrics = self._metrics
        for phase, value in seconds.items():
            metrics.phase_seconds.labels(phase).observe(value)
        width, height = picture.image_wh
        metrics.formats.labels(picture.format).inc()
        metrics.megapixels.observe(width * height / 1e6)
        metrics.bytes.observe(len(data))
        step = max(min(picture.pixels.shape[:2]) // 64, 1)
        metrics.brightness.observe(float(picture.pixels[::step, ::step].mean()))
        metrics.faces.observe(len(detections))
        tops = detections.probabilities.max(axis=1, initial=0)
        columns = (detections.emotions, detections.confidence, tops, detections.shorter_sides)
        for emotion, confidence, top, side in zip(*columns, strict=True):
            metrics.emotions.labels(emotion.label).inc()
            metrics.confidence.observe(float(confidence))
            metrics.probability.observe(float(top))
            metrics.face_px.observe(float(side))


def _milliseconds(seconds: dict[str, float], ticket: Ticket) -> dict[str, float]:
    """Return the phases and `total`, from hand-in to now."""
    total = time.perf_counter() - ticket.handed_in
    return {name: round(value * 1000, 3) for name, value in {**seconds, "total": total}.items()}


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Return what `metrics.json` beside an artefact says, or None where there is none that can be read."""
    path = folder / METRICS_NAME
    try:
        measured = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        if not isinstance(measured, dict) or not isinstance(measured.get("split", "test"), str):
            raise ValueError("expected an object, and text as its `split`")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        LOGGER.warning(
            "metrics.json cannot be read; /v1/model will have no metrics", extra={"fields": {"error": str(error)}}
        )
        return None
    return measured


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _chosen(detections: Detections, options: Options) -> Detections:
    """Keep the most confident faces that are large enough."""
    if options.min_face:
        detections = detections.select(detections.shorter_sides >= options.min_face)
    if len(detections) > options.max_faces:
        detections = detections.select(np.arange(len(detections)) < options.max_faces)
    return detections
