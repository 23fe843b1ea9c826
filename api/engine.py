"""The model at work: a few threads behind a bounded queue.

jobs ── seats left? ──▶ queue ──▶ worker: decode, preprocess, inference, postprocess ──▶ Analysis
          └ no: 503 at once            └ before each phase: is the client still there, is there time left?
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import cv2
import numpy as np

from api.images import PictureDecoder
from api.logs import LOGGER
from api.memory import Answer, return_freed_memory
from api.metrics import Metrics
from api.problems import Code, Problem
from api.settings import Settings
from emotion_yolo.detections import Detections
from emotion_yolo.detector import Detector
from emotion_yolo.errors import EmotionYoloError
from emotion_yolo.imaging import LOCAL, Picture, Pixels, decode

T = TypeVar("T")
Job = Callable[["Ticket"], T]
Draw = Callable[[Pixels, Detections], memoryview]
"""Draws on a picture, in place, and returns it encoded."""


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


class Ticket:
    """A request's claim to be computed for: it runs out, or its client leaves."""

    def __init__(self, seconds: float) -> None:
        self.handed_in = time.perf_counter()
        self._deadline = self.handed_in + seconds
        self._abandoned = False

    @property
    def seconds_left(self) -> float:
        """Return the seconds until the deadline, at least 0."""
        return max(self._deadline - time.perf_counter(), 0.0)

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
        self.pictures = PictureDecoder(settings)
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
                detector.predict(decode(file, LOCAL).pixels)

        for future in [self._pool.submit(warm_up) for _ in range(settings.workers)]:
            future.result()
        return_freed_memory()
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
        """Wait for the work in flight, less what decoder processes have, and end the threads."""
        self.pictures.close()
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

    def analyse(self, data: bytes, options: Options, ticket: Ticket) -> Analysis:
        """Find the faces in a picture; call it from a job.

        Raises:
            Problem: no picture that can be used, or nobody waits for the answer any more.
        """
        begin = time.perf_counter()
        with self.pictures.decoded(data, seconds_left=ticket.seconds_left, fit=self.detector.imgsz) as picture:
            return self._analyse(data, picture, options, ticket, begin)

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

    def _analyse(self, data: bytes, picture: Picture, options: Options, ticket: Ticket, begin: float) -> Analysis:
        detector = self.detector
        decoded = time.perf_counter()
        ticket.check()
        tensor, box = detector.preprocess(picture.pixels)
        prepared = time.perf_counter()
        raw = detector.infer(tensor)
        inferred = time.perf_counter()
        ticket.check()
        box = box.in_full(picture.image_wh, picture.factor)
        detections = _chosen(detector.postprocess(raw, box, conf=options.conf), options)
        end = time.perf_counter()
        seconds = {
            "decode": decoded - begin,
            "preprocess": prepared - decoded,
            "inference": inferred - prepared,
            "postprocess": end - inferred,
        }
        self._count(data, picture, detections, seconds)
        seconds["total"] = end - ticket.handed_in
        timing_ms = {name: round(value * 1000, 3) for name, value in seconds.items()}
        return Analysis(picture.image_wh, picture.format, detections, timing_ms)

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


def _chosen(detections: Detections, options: Options) -> Detections:
    """Keep the most confident faces that are large enough."""
    if options.min_face:
        sides = (detections.xyxy[:, 2:] - detections.xyxy[:, :2]).min(axis=1, initial=np.inf)
        detections = detections.select(sides >= options.min_face)
    if len(detections) > options.max_faces:
        detections = detections.select(np.arange(len(detections)) < options.max_faces)
    return detections
