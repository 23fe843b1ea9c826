"""The shadow: a candidate scores a share of the pictures that the present model has answered.

answered ── drawn? ── candidate idle, nobody waits? ──▶ its process ──▶ agreement ──▶ metrics, prediction log
                        └ no: dropped and counted

Answers never wait for it, and it takes no seat in the queue. At most one picture is held for it.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue

from emotion_yolo.errors import EmotionYoloError
from emotion_yolo.imaging import Picture
from emotion_yolo.prediction_log.rows import ShadowRecord
from emotion_yolo.shadow.agreement import Agreement, compare
from emotion_yolo.shadow.process import CandidateProcess, Loading
from emotion_yolo.structures.detections import Detections

from .logs import LOGGER
from .metrics import Metrics
from .settings import Settings

OUTCOMES = ("scored", "busy", "too_large", "failed", "unavailable")
FACES = ("same", "other_name", "present_only", "candidate_only")

_MOST_BYTES = 16_000_000
"""Bytes of decoded pixels held. Pictures come reduced to about the network's input, so that few are larger."""
_CRASHES = 3
"""In a row, after which the candidate is given up until the next reload."""


@dataclass(frozen=True, eq=False)
class Answered:
    """A picture that the present model has answered."""

    picture: Picture
    detections: Detections
    request_id: str
    item: int
    model: str
    """Digest of the model that answered."""


OnScored = Callable[[ShadowRecord, Agreement], None]


class Shadow:
    """The candidate of one service. `offer` never waits and never raises."""

    def __init__(
        self, settings: Settings, metrics: Metrics, *, on_scored: OnScored, waiting: Callable[[], bool]
    ) -> None:
        """Start loading the candidate. `waiting` says whether pictures wait for a worker."""
        assert settings.shadow_model is not None
        self._loading = Loading(settings.shadow_model, settings.backend, settings.precision, settings.imgsz)
        self._share, self._max_faces = settings.shadow_share, settings.max_faces
        self._metrics, self._on_scored, self._waiting = metrics, on_scored, waiting
        for outcome in OUTCOMES:
            metrics.shadow_pictures.labels(outcome)
        for kind in FACES:
            metrics.shadow_faces.labels(kind)
        self._random = random.Random()  # noqa: S311  which pictures are scored is no secret
        self._jobs: SimpleQueue[Answered | None] = SimpleQueue()  # None: look again what is to be done
        self._idle = threading.Lock()  # held from the offer of a picture until it has been scored
        self._idle.acquire()
        self._process: CandidateProcess | None = None
        self._reload = self._closing = self._given_up = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, answered: Answered) -> None:
        """Score a share of the pictures, if the candidate is idle and no picture waits."""
        if self._closing or self._random.random() >= self._share:
            return
        if self._given_up:
            self._count("unavailable")
        elif answered.picture.pixels.nbytes > _MOST_BYTES:
            self._count("too_large")
        elif self._waiting() or not self._idle.acquire(blocking=False):
            self._count("busy")
        else:
            self._jobs.put(answered)

    def reload(self) -> None:
        """Reload the candidate from its folder, once the picture in progress has been scored."""
        self._reload = True
        self._jobs.put(None)

    def close(self) -> None:
        """End the candidate; what it is scoring is lost."""
        self._closing = True
        if (process := self._process) is not None:
            process.end()
        self._jobs.put(None)
        self._thread.join(2)

    def _run(self) -> None:
        self._load()
        self._idle.release()
        crashes = 0
        while not self._closing:
            answered = self._jobs.get()
            if self._reload:
                self._reload, crashes = False, 0
                self._load()
            if answered is None or self._closing:
                continue
            scored = self._score(answered)
            crashes = 0 if scored else crashes + 1
            if not scored and not self._closing:
                self._count("failed")
                if crashes >= _CRASHES:
                    self._give_up(f"it failed {crashes} times in a row")
                else:
                    self._load()
            self._idle.release()
        if self._process is not None:
            self._process.end()

    def _load(self) -> None:
        before, self._process = self._process, None
        if before is not None:
            before.end()
        try:
            self._process = CandidateProcess(self._loading)
        except (EmotionYoloError, OSError) as error:
            if not self._closing:
                self._give_up(str(error))
            return
        self._given_up = False
        candidate = self._process.candidate
        self._metrics.shadow_model.clear()
        self._metrics.shadow_model.labels(candidate.name, candidate.version).set(1)
        LOGGER.info("the shadow is ready", extra={"fields": {"model": f"{candidate.name} {candidate.version}"}})

    def _give_up(self, why: str) -> None:
        self._given_up = True
        self._metrics.shadow_model.clear()
        fields = {"error": why[:500], "model": str(self._loading.folder)}
        LOGGER.error("the shadow cannot score; the service answers without it until a reload", extra={"fields": fields})

    def _score(self, answered: Answered) -> bool:
        begin = time.perf_counter()
        if (process := self._process) is None:
            return False
        try:
            found = process.score(answered.picture, max_faces=self._max_faces)
        except EmotionYoloError as error:
            if not self._closing:
                LOGGER.warning("the shadow failed at a picture", extra={"fields": {"error": str(error)[:300]}})
            return False
        agreement = compare(answered.detections, found)
        self._count("scored")
        self._metrics.shadow_faces.labels("same").inc(agreement.same)
        self._metrics.shadow_faces.labels("other_name").inc(agreement.matched - agreement.same)
        self._metrics.shadow_faces.labels("present_only").inc(agreement.faces - agreement.matched)
        self._metrics.shadow_faces.labels("candidate_only").inc(agreement.candidate_faces - agreement.matched)
        record = ShadowRecord(
            request_id=answered.request_id,
            item=answered.item,
            model=answered.model,
            candidate=process.candidate.digest,
            faces=agreement.faces,
            candidate_faces=agreement.candidate_faces,
            matched=agreement.matched,
            same=agreement.same,
            latency_ms=(time.perf_counter() - begin) * 1000,
        )
        with suppress(Exception):  # a fault there must not end this thread
            self._on_scored(record, agreement)
        return True

    def _count(self, outcome: str) -> None:
        self._metrics.shadow_pictures.labels(outcome).inc()
