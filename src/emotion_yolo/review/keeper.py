"""Keeps pictures in a separate thread: of unsure answers, and of answers that a candidate or a person contradicts.

Contradictions come after the answer, so the latest pictures are held in memory for a while.
"""

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2

from emotion_yolo.imaging import Pixels
from emotion_yolo.review.folder import Case, Face, KeptFolder
from emotion_yolo.structures.detections import Detections

_LOGGER = logging.getLogger("emotion_yolo.api")  # in the service's own log
_QUALITY = 95
_CAPACITY = 64
_PICTURES = 4
"""That may wait in the queue, with what else is there: they are large."""
_MOST_BYTES = 16_000_000
_RECENT_BYTES = 64_000_000
_UPKEEP_S = 60.0

OUTCOMES = ("kept", "busy", "too_large", "failed")


@dataclass(frozen=True, eq=False)
class Seen:
    """An answered picture."""

    case: Case
    pixels: Pixels


@dataclass(frozen=True)
class Contradiction:
    """A candidate names faces otherwise (`face` is None), or a person says what a face's emotion is."""

    request_id: str
    item: int
    face: int | None = None
    emotion: str = ""


def case_of(detections: Detections, *, request_id: str, item: int, model: str) -> Case:
    """Return a model's answer to a picture as a case."""
    width, height = detections.image_wh
    tops = detections.probabilities.max(axis=1, initial=0).tolist()
    columns = (detections.xyxy.tolist(), detections.emotions, detections.confidence.tolist(), tops)
    faces = [
        Face(
            (round(x1 / width, 6), round(y1 / height, 6), round(x2 / width, 6), round(y2 / height, 6)),
            emotion.label,
            round(confidence, 4),
            round(top, 6),
        )
        for (x1, y1, x2, y2), emotion, confidence, top in zip(*columns, strict=True)
    ]
    return Case(request_id, item, model, faces)


class Keeper:
    """Keeps the pictures of one service. `see` and `contradict` never wait and never raise."""

    def __init__(self, folder: KeptFolder, *, below: float, on_outcome: Callable[[str], None]) -> None:
        """Start the thread; pictures with a face whose emotion is less probable than `below` are kept as unsure."""
        self._folder, self._below, self._on_outcome = folder, below, on_outcome
        self._queue: queue.Queue[Seen | Contradiction] = queue.Queue(_CAPACITY)
        self._recent: OrderedDict[tuple[str, int], tuple[Case, bytes]] = OrderedDict()
        self._recent_bytes = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def see(self, pixels: Pixels, case: Case) -> None:
        """Note an answered picture, RGB [H, W, 3] uint8 that nobody writes to."""
        if pixels.nbytes > _MOST_BYTES:
            self._on_outcome("too_large")
        elif self._queue.qsize() >= _PICTURES:
            self._on_outcome("busy")
        else:
            self._put(Seen(case, pixels))

    def contradict(self, contradiction: Contradiction) -> None:
        """Keep a picture that was seen a short while ago because its answer is contradicted."""
        self._put(contradiction)

    def close(self, seconds: float = 2.0) -> None:
        """Flush the queue within a few seconds, as far as possible."""
        self._closing.set()
        self._thread.join(seconds)

    def _put(self, entry: Seen | Contradiction) -> None:
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._on_outcome("busy")

    def _run(self) -> None:
        self._attempt(self._folder.prune)
        idle_s = 0.0
        while True:
            try:
                entry = self._queue.get(timeout=0.25)
            except queue.Empty:
                if self._closing.is_set():
                    return
                idle_s += 0.25
                if idle_s >= _UPKEEP_S:
                    idle_s = 0.0
                    self._attempt(self._folder.prune)
                continue
            self._attempt(partial(self._take, entry))

    def _take(self, entry: Seen | Contradiction) -> None:
        if isinstance(entry, Seen):
            self._see(entry)
        else:
            self._contradict(entry)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # the thread survives any error
            self._on_outcome("failed")
            fields = {"error": f"{type(error).__name__}: {error}"[:300]}
            _LOGGER.warning("a picture could not be kept", extra={"fields": fields})

    def _see(self, seen: Seen) -> None:
        done, file = cv2.imencode(
            ".jpg", cv2.cvtColor(seen.pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        assert done
        jpeg, case = file.tobytes(), seen.case
        key = (case.request_id, case.item)
        if before := self._recent.pop(key, None):
            self._recent_bytes -= len(before[1])
        self._recent[key] = (case, jpeg)
        self._recent_bytes += len(jpeg)
        while self._recent_bytes > _RECENT_BYTES:
            _, (_, oldest) = self._recent.popitem(last=False)
            self._recent_bytes -= len(oldest)
        if any(face.probability < self._below for face in case.faces):
            self._keep(case, jpeg, "unsure")

    def _contradict(self, said: Contradiction) -> None:
        recent = self._recent.get((said.request_id, said.item))
        case = recent[0] if recent else self._folder.find(said.request_id, said.item)
        if case is None or (said.face is not None and said.face >= len(case.faces)):
            return
        reason = "shadow" if said.face is None else "feedback"
        if said.face is not None:
            case.feedback[said.face] = said.emotion
        if case.reasons:
            if said.face is None or case.faces[said.face].emotion != said.emotion:
                case.reasons = sorted({*case.reasons, reason})
            self._folder.update(case)
        elif recent and (said.face is None or case.faces[said.face].emotion != said.emotion):
            self._keep(case, recent[1], reason)

    def _keep(self, case: Case, jpeg: bytes, reason: str) -> None:
        case.reasons = [reason]
        self._folder.add(case, jpeg)
        self._on_outcome("kept")
