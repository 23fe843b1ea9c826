"""`/v1/stream`: the frames of a camera in, tracked faces out.

message ──▶ newest frame ──▶ queue ──▶ worker: decode, inference, tracks ──▶ answer
              └ an older one that still waits is dropped, and counted
"""

import asyncio
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from emotion_yolo.errors import DependencyError
from emotion_yolo.inference.artefact import ModelSpec
from emotion_yolo.structures.detections import Detections
from emotion_yolo.tracks import FaceTracker, TrackedFaces

from .access import KEY_HEADER
from .engine import Analysis, Options, State
from .limits import IncomingBody
from .logs import LOGGER
from .problems import Code, Problem
from .routes.deps import Parts
from .scheduler import Ticket
from .schemas import StreamAnswer, StreamReady, StreamRefusal, model_name, problem_document
from .websocket import POLICY_VIOLATION, SERVICE_RESTART

MAX_BAD_FRAMES = 10
"""Frames in a row that are no usable picture: then the connection is closed."""

_NORMAL, _INTERNAL_ERROR, _TRY_AGAIN_LATER = 1000, 1011, 1013
_CLOSE_CODES = {
    Code.OVERLOADED: _TRY_AGAIN_LATER,
    Code.NOT_READY: _TRY_AGAIN_LATER,
    Code.NOT_INSTALLED: _INTERNAL_ERROR,
    Code.INTERNAL_ERROR: _INTERNAL_ERROR,
}
_MAX_REASON = 120  # bytes; the protocol allows 123
# Of each stream: a message that comes in, the newest frame, the one that is looked at.
_FRAMES_HELD = 3


class StreamOptions(BaseModel):
    """What a stream's query may choose; the first three as for `/v1/detect`."""

    conf: Annotated[float, Field(ge=0.001, le=1)] | None = None
    max_faces: Annotated[int, Field(ge=1)] | None = None
    min_face: Annotated[int, Field(ge=0, le=100_000)] = 0
    half_life: Annotated[float, Field(ge=0, le=60)] = 0.5
    """Seconds in which the weight of the past halves in the average of a track's probabilities; 0: no average."""


@dataclass(frozen=True, eq=False)
class _Frame:
    number: int
    time_s: float
    data: bytes | Problem


class _End(Exception):  # noqa: N818  no error: how a stream ends
    def __init__(self, code: int, reason: str, *, label: str) -> None:
        self.code, self.reason, self.label = code, reason, label


class _Follower:
    """The tracks of one stream; they start over with another model."""

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s = half_life_s
        self._tracker: FaceTracker | None = None
        self._model = ""
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Import the tracker, which takes seconds the first time.

        Raises:
            Problem: it is not installed.
        """
        try:
            FaceTracker(half_life_s=self._half_life_s, confidence=0.5)
        except DependencyError as error:
            message = "streams need the extra track: pip install 'emotion-yolo[api,track]'"
            raise Problem(Code.NOT_INSTALLED, message) from error

    def follow(
        self, spec: ModelSpec, confidence: float, faces: Detections, ticket: Ticket, *, time_s: float
    ) -> TrackedFaces:
        # A worker may still be at a frame whose time is over when the next one is looked at.
        with self._lock:
            ticket.check()
            if self._tracker is None or spec.digest != self._model:
                self._tracker = FaceTracker(half_life_s=self._half_life_s, confidence=confidence)
                self._model = spec.digest
            return self._tracker.update(faces, time_s=time_s)


class Stream:
    """An accepted connection; `run` serves it until it ends."""

    def __init__(self, socket: WebSocket, app: Parts) -> None:
        self._socket, self._app = socket, app
        self._request_id: str = socket.state.request_id
        self._client = "unknown"
        self._upload = IncomingBody()
        self._newest: _Frame | None = None
        self._changed, self._ending = asyncio.Event(), asyncio.Event()
        self._evicted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._first_at: float | None = None
        self._came = self._answered = self._dropped = self._bad = 0

    def give_way(self) -> None:
        """End: another client needs the seat."""
        if not self._evicted.done():
            self._evicted.set_result(None)

    async def run(self) -> None:
        """Serve until either side ends it."""
        started = time.perf_counter()
        try:
            await self._admit_and_serve()
            end = _End(_NORMAL, "", label="client")
        except _End as raised:
            end = raised
        except Problem as problem:
            end = _End(_CLOSE_CODES.get(problem.code, POLICY_VIOLATION), "", label=str(problem.code))
            end.reason = f"{problem.code}: {problem.detail}".encode()[:_MAX_REASON].decode("utf-8", "ignore")
            with suppress(WebSocketDisconnect):
                await self._refuse(problem, None)
        except WebSocketDisconnect:
            end = _End(_NORMAL, "", label="client")
        except Exception:
            LOGGER.exception("unexpected error with a stream", extra={"fields": {"request_id": self._request_id}})
            end = _End(_INTERNAL_ERROR, str(Code.INTERNAL_ERROR), label=str(Code.INTERNAL_ERROR))
        finally:
            self._app.seats.leave(self)
            self._app.budget.give_back(self._upload)
            self._evicted.cancel()
            self._app.metrics.streams.set(len(self._app.seats))
        with suppress(WebSocketDisconnect, RuntimeError):  # the client has left, or closed first
            await self._socket.close(end.code, end.reason)
        self._app.metrics.stream_ends.labels(end.label).inc()
        fields = {
            "request_id": self._request_id,
            "end": end.label,
            "s": round(time.perf_counter() - started, 1),
            "frames": self._came,
            "answered": self._answered,
            "dropped": self._dropped,
            **({"client": self._client} if self._client.startswith("key-") else {}),
        }
        LOGGER.info("stream", extra={"fields": fields})

    async def _admit_and_serve(self) -> None:
        app, settings = self._app, self._app.settings
        try:
            chosen = StreamOptions.model_validate(dict(self._socket.query_params))
        except ValidationError as error:
            findings = "; ".join(f"query.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise Problem(Code.INVALID_PARAMETER, findings) from error
        if (chosen.max_faces or 0) > settings.max_faces:
            raise Problem(Code.INVALID_PARAMETER, f"query.max_faces: expected at most {settings.max_faces}")
        options = Options(chosen.conf, chosen.max_faces or settings.max_faces, chosen.min_face)
        key = self._socket.headers.get(KEY_HEADER)
        if app.access.has_keys and key is None:
            key = await self._first_key()
        self._client = app.access.identify(self._socket, key)
        spec = app.engine.detector.spec
        if app.engine.state is State.DRAINING:
            raise _End(SERVICE_RESTART, "the server is going down; connect again", label="drain")
        follower = _Follower(chosen.half_life)
        await asyncio.to_thread(follower.prepare)
        app.seats.take(self, self._client)
        app.metrics.streams.set(len(app.seats))
        self._upload.client = self._client
        app.budget.take(self._upload, _FRAMES_HELD * settings.stream_bytes)
        app.budget.complete(self._upload)
        self._socket.state.connection.admit(settings.stream_bytes)
        await self._send(StreamReady(model=model_name(spec), max_bytes=settings.stream_bytes))
        await self._serve(options, follower)

    async def _first_key(self) -> str | None:
        """Return the key of the first message, which browsers send since they cannot set headers."""
        try:
            async with asyncio.timeout(self._app.settings.head_s):
                message = await self._socket.receive()
        except TimeoutError:
            raise Problem(Code.UPLOAD_TIMEOUT, "no key came in time; send it in the first message") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        return _key_in(message.get("text"))

    async def _serve(self, options: Options, follower: _Follower) -> None:
        reading = asyncio.create_task(self._read())
        answering = asyncio.create_task(self._answer_all(options, follower))
        try:
            ends: set[asyncio.Future[Any]] = {reading, answering, self._evicted}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._evicted.done():
                message = "another client, which has fewer streams, needs the room; try again"
                raise Problem(Code.OVERLOADED, message, retry_after_s=5)
            if reading.done() and reading.result() == SERVICE_RESTART:
                self._ending.set()
                self._changed.set()
                await answering  # what is in flight
                raise _End(SERVICE_RESTART, "the server is going down; connect again", label="drain")
            if answering.done():
                await answering
        finally:
            reading.cancel()
            answering.cancel()
            await asyncio.gather(reading, answering, return_exceptions=True)

    async def _read(self) -> int:
        """Take in frames until the connection ends; returns its close code."""
        while True:
            try:
                async with asyncio.timeout(self._app.settings.stream_idle_s):
                    message = await self._socket.receive()
            except TimeoutError:
                pause = f"no frame for {self._app.settings.stream_idle_s:g} s"
                raise Problem(Code.UPLOAD_TIMEOUT, f"{pause}; connect again") from None
            if message["type"] == "websocket.disconnect":
                return int(message["code"])
            data = message.get("bytes")
            if data is None:
                if _key_in(message.get("text")) is not None:
                    continue  # from a client that does not know whether this server requires keys
                data = Problem(Code.MALFORMED_BODY, "a text message; send each frame as a binary message")
            now = time.monotonic()
            self._first_at = now if self._first_at is None else self._first_at
            if self._newest is not None:
                self._dropped += 1
                self._app.metrics.stream_frames.labels("dropped").inc()
            self._newest = _Frame(self._came, now - self._first_at, data)
            self._came += 1
            self._changed.set()

    async def _answer_all(self, options: Options, follower: _Follower) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._ending.is_set():
                return
            if (frame := self._newest) is None:
                continue
            self._newest = None
            try:
                analysis = await self._look(frame, options, follower)
            except Problem as problem:
                await self._note_refusal(problem, frame)
                continue
            self._bad = 0
            self._answered += 1
            self._app.metrics.stream_frames.labels("answered").inc()
            await self._send(StreamAnswer.of(analysis, frame=frame.number, time_s=frame.time_s, dropped=self._dropped))

    async def _look(self, frame: _Frame, options: Options, follower: _Follower) -> Analysis:
        if isinstance(frame.data, Problem):
            raise frame.data
        self._app.access.charge(self._client)
        job = partial(
            self._app.engine.follow, frame.data, options, follow=partial(follower.follow, time_s=frame.time_s)
        )
        result = (await self._app.scheduler.run([job], client=self._client, request_id=self._request_id))[0]
        if isinstance(result, Problem):
            raise result
        return result

    async def _note_refusal(self, problem: Problem, frame: _Frame) -> None:
        await self._refuse(problem, frame.number)
        self._app.metrics.stream_frames.labels("refused").inc()
        if problem.retry_after_s is not None:
            # The server has no room now: meanwhile frames are dropped, not refused one by one.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), problem.retry_after_s)
        elif problem.status < 500:
            self._bad += 1
            if self._bad >= MAX_BAD_FRAMES:
                reason = f"{MAX_BAD_FRAMES} frames in a row were refused, the last one as {problem.code}"
                raise _End(POLICY_VIOLATION, reason, label="bad_frames")

    async def _refuse(self, problem: Problem, frame: int | None) -> None:
        self._app.metrics.rejections.labels(str(problem.code)).inc()
        document = problem_document(problem, self._request_id)
        await self._send(
            StreamRefusal(frame=frame, dropped=self._dropped, retry_after_s=problem.retry_after_s, error=document)
        )

    async def _send(self, message: BaseModel) -> None:
        await self._socket.send_text(message.model_dump_json())


def _key_in(text: Any) -> str | None:
    """Return the key of a message `{"api_key": "…"}`."""
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    key = message.get("api_key") if isinstance(message, dict) else None
    return key if isinstance(key, str) else None
