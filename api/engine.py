"""The model at work: a few threads behind a bounded queue.

jobs ── seats left? ──▶ queue ──▶ worker: decode, preprocess, inference, postprocess ──▶ Analysis
          └ no: 503 at once            └ before each phase: is the client still there, is there time left?
"""

import asyncio
import ctypes
import gc
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import cv2
import numpy as np

from api.images import ImageLimits, Picture, decode
from api.logs import LOGGER
from api.metrics import Metrics
from api.problems import Code, Problem
from api.settings import Settings
from emotion_yolo.errors import EmotionYoloError
from emotion_yolo.inference.detector import Detector
from emotion_yolo.inference.letterbox import Letterbox
from emotion_yolo.structures.detections import Detections

T = TypeVar("T")
Job = Callable[["Ticket"], T]


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

    picture: Picture
    detections: Detections
    timing_ms: dict[str, float]


class Ticket:
    """A request's claim to be computed for: it runs out, or its client leaves."""

    def __init__(self, seconds: float) -> None:
        self.handed_in = time.perf_counter()
        self._deadline = self.handed_in + seconds
        self._abandoned = False

    def abandon(self) -> None:
        """Stop the work at the next phase."""
        self._abandoned = True

    def check(self) -> None:
        """Return if the work is still wanted.

        Raises:
            Problem: it is not.
        """
        if self._abandoned:
            raise Problem(Code.CLIENT_GONE, "the request is over")
        if time.perf_counter() > self._deadline:
            raise _deadline_exceeded()


def _deadline_exceeded() -> Problem:
    return Problem(Code.DEADLINE_EXCEEDED, "no answer in time; the server is busy, try again", retry_after_s=2)


class Engine:
    """Loads the model, and runs jobs on it in a bounded number of threads."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.state = State.LOADING
        self.failure: EmotionYoloError | None = None
        self._settings = settings
        self._metrics = metrics
        self._limits = ImageLimits(
            settings.max_bytes, settings.max_pixels, min_side=settings.min_side, max_side=settings.max_side
        )
        self._detector: Detector | None = None
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="worker")
        self._seats = settings.workers + settings.queue
        self._taken = 0
        self._seat_lock = threading.Lock()
        self._job_s = 0.05  # moving average, for Retry-After

    @property
    def detector(self) -> Detector:
        """Return the loaded model.

        Raises:
            Problem: not loaded yet.
        """
        if self._detector is None:
            raise Problem(Code.NOT_READY, "the model is loading; try again", retry_after_s=1)
        return self._detector

    def load(self) -> None:
        """Load and warm the model; a failure is kept in `failure` and logged."""
        started = time.perf_counter()
        settings = self._settings
        try:
            detector = Detector.load(
                settings.model,
                backend=settings.backend,
                imgsz=settings.imgsz,
                threads=settings.threads,
                precision=settings.precision,
            )
        except EmotionYoloError as error:
            self.failure, self.state = error, State.FAILED
            LOGGER.error("the model cannot be loaded", extra={"fields": {"error": str(error)}})
            return
        greys = [np.full((height, width, 3), 114, np.uint8) for width, height in detector.canvases]
        extensions = (".jpg", ".png", ".webp")
        pairs = [(extensions[i % 3], greys[i % len(greys)]) for i in range(max(len(extensions), len(greys)))]
        files = [cv2.imencode(extension, grey)[1].tobytes() for extension, grey in pairs]
        barrier = threading.Barrier(settings.workers)

        def warm_up() -> None:
            barrier.wait()  # so that all at once, they warm the buffers of every stream
            for file in files:
                detector.predict(decode(file, self._limits).pixels)

        for future in [self._pool.submit(warm_up) for _ in range(settings.workers)]:
            future.result()
        _return_memory()
        self._detector = detector
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

    def drain(self) -> None:
        """Turn unready; requests that come all the same are still answered."""
        self.state = State.DRAINING
        self._metrics.ready.set(0)

    def close(self) -> None:
        """Wait for the work in flight and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def check_room(self, count: int = 1) -> None:
        """Return if `count` pictures could be taken now: asked before a body is read.

        Raises:
            Problem: not loaded, or the queue is full.
        """
        _ = self.detector
        if self._taken + count > self._seats:
            wait_s = min(max(math.ceil(self._taken * self._job_s / self._settings.workers), 1), 60)
            raise Problem(Code.OVERLOADED, "the queue is full; try again", retry_after_s=wait_s)

    async def run(self, jobs: Sequence[Job[T]]) -> list[T | Problem]:
        """Run jobs of one request; one result or refusal each, in order.

        Raises:
            Problem: there is no room for all of them, or the deadline passed.
        """
        with self._seat_lock:
            self.check_room(len(jobs))
            self._taken += len(jobs)
        ticket = Ticket(self._settings.deadline_s)
        futures = [self._submit(job, ticket) for job in jobs]
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        except TimeoutError:
            raise _deadline_exceeded() from None
        finally:
            ticket.abandon()
            for future in futures:
                future.cancel()

    def _submit(self, job: Job[T], ticket: Ticket) -> Future[T | Problem]:
        self._metrics.waiting.inc()
        started = False

        def work() -> T | Problem:
            nonlocal started
            started = True
            begin = time.perf_counter()
            self._metrics.waiting.dec()
            self._metrics.phase_seconds.labels("queue").observe(begin - ticket.handed_in)
            with self._metrics.running.track_inprogress():
                try:
                    ticket.check()
                    return job(ticket)
                except Problem as problem:
                    return problem
                except Exception:
                    LOGGER.exception("unexpected error with a picture")
                    return Problem(Code.INTERNAL_ERROR, "an error of this server; its log has it")
                finally:
                    self._job_s += 0.1 * (time.perf_counter() - begin - self._job_s)

        def free_seat(_: Future[T | Problem]) -> None:
            # Not when the request ends but when the thread is free again: a seat is room in a thread.
            if not started:
                self._metrics.waiting.dec()
            with self._seat_lock:
                self._taken -= 1

        future = self._pool.submit(work)
        future.add_done_callback(free_seat)
        return future

    def analyse(self, data: bytes, options: Options, ticket: Ticket, *, whole: bool = False) -> Analysis:
        """Find the faces in a picture; call it from a job. `whole` keeps the picture's full resolution.

        Raises:
            Problem: no picture that can be used, or nobody waits for the answer any more.
        """
        detector = self.detector
        begin = time.perf_counter()
        picture = decode(data, self._limits, fit=None if whole else detector.imgsz)
        decoded = time.perf_counter()
        ticket.check()
        tensor, box = detector.preprocess(picture.pixels)
        prepared = time.perf_counter()
        raw = detector.infer(tensor)
        inferred = time.perf_counter()
        ticket.check()
        detections = detector.postprocess(raw, in_full(box, picture), conf=options.conf)
        detections = _chosen(detections, options)
        end = time.perf_counter()
        seconds = {
            "decode": decoded - begin,
            "preprocess": prepared - decoded,
            "inference": inferred - prepared,
            "postprocess": end - inferred,
        }
        self._count(data, picture, detections, seconds)
        seconds["total"] = end - ticket.handed_in
        return Analysis(picture, detections, {name: round(value * 1000, 3) for name, value in seconds.items()})

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
        sides = (detections.xyxy[:, 2:] - detections.xyxy[:, :2]).min(axis=1, initial=np.inf)
        tops = detections.probabilities.max(axis=1, initial=0)
        for emotion, confidence, top, side in zip(detections.emotions, detections.confidence, tops, sides, strict=True):
            metrics.emotions.labels(emotion.label).inc()
            metrics.confidence.observe(float(confidence))
            metrics.probability.observe(float(top))
            metrics.face_px.observe(float(side))


def _return_memory() -> None:
    """Give what compiling has freed back to the system, some 30 MB; glibc keeps it otherwise."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def in_full(box: Letterbox, picture: Picture) -> Letterbox:
    """Let boxes come out in px of the picture, even if a reduction of it was looked at."""
    height, width = picture.pixels.shape[:2]
    shrunk = max(width, height) / max(picture.image_wh)
    return replace(box, image_wh=picture.image_wh, scale=box.scale * shrunk)


def _chosen(detections: Detections, options: Options) -> Detections:
    """Keep the most confident faces that are large enough."""
    if options.min_face:
        sides = (detections.xyxy[:, 2:] - detections.xyxy[:, :2]).min(axis=1, initial=np.inf)
        detections = detections.select(sides >= options.min_face)
    if len(detections) > options.max_faces:
        detections = detections.select(np.arange(len(detections)) < options.max_faces)
    return detections
