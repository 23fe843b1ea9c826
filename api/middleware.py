"""The outermost layer: request id, log line, metrics, security headers, and the last error handler."""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import LOGGER
from .metrics import Metrics
from .problems import MEDIA_TYPE, Code, Problem

# Polled by machines every few seconds: not worth a line each.
_PROBES = {"/healthz", "/readyz", "/metrics"}
# A label of the metrics for each of these; a client can make up any number of others.
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

SECURITY_HEADERS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """Return the response of a refusal and record its code for the log and the metrics."""
    request.state.code = problem.code
    body = problem.body(request.state.request_id)
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


@dataclass(frozen=True)
class Observe:
    """ASGI middleware around everything else."""

    app: ASGIApp
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            scope.setdefault("state", {})["request_id"] = _request_id(scope)
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        head_only = scope["method"] == "HEAD"
        # HEAD is answered like GET, without the body (RFC 9110, 9.3.2); FastAPI has no such routes.
        inner = {**scope, "method": "GET"} if head_only else scope
        status: int | None = None

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["server-timing"] = f"total;dur={(time.perf_counter() - started) * 1000:.1f}"
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                self._note(inner, scope["method"], status, time.perf_counter() - started)
            elif head_only:
                message = {**message, "body": b""}
            await send(message)

        try:
            if (refusal := state.get("refusal")) is not None:  # the protocol could not read the request
                await problem_response(Request(inner), refusal)(inner, receive, observed_send)
            else:
                await self.app(inner, receive, observed_send)
        except Exception:
            LOGGER.exception("unexpected error", extra={"fields": {"request_id": request_id}})
            if status is not None:
                raise  # half an answer is out: the server has to cut the connection
            problem = Problem(Code.INTERNAL_ERROR, "an error of this server; its log has it under this request id")
            await problem_response(Request(inner), problem)(inner, receive, observed_send)

    def _note(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        state = scope["state"]
        route = getattr(scope.get("route"), "path", "(none)")
        label = method if method in _METHODS else "(other)"
        self.metrics.requests.labels(route, label if route != "(none)" else "(any)", str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        if code := state.get("code"):
            self.metrics.rejections.labels(str(code)).inc()
        fields = {
            "request_id": state["request_id"],
            "method": method[:16],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            **({"code": str(code)} if code else {}),
            **({"client": state["client"]} if state.get("client", "").startswith("key-") else {}),
            **({"faces": state["faces"]} if "faces" in state else {}),
        }
        LOGGER.log(logging.DEBUG if route in _PROBES else logging.INFO, "request", extra={"fields": fields})


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
