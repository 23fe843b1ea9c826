"""The application: assembles its parts, starts and stops them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from .access import Access
from .engine import Engine
from .limits import BodyLimits, ByteBudget, RateLimiter
from .metrics import Metrics
from .middleware import Observe, problem_response
from .prediction_log import open_log
from .problems import Code, Problem
from .routes import admin, annotate, detect, feedback, health, model, page, stream
from .routes.deps import Parts
from .scheduler import Scheduler
from .schemas import ProblemDocument
from .seats import StreamSeats
from .settings import Settings, load_settings

# A form has a boundary and a head around each file.
_FORM_OVERHEAD = 64_000
_FEEDBACK_BYTES = 4_096

_DESCRIPTION = (
    "Finds every face in a picture and names its expression. Pictures are held in memory until they are answered, "
    "never logged, and stored only where the operator has turned that on for labelling."
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; the model is loaded when it starts.

    Raises:
        SettingsError: an invalid variable.
    """
    settings = load_settings() if settings is None else settings
    if settings.web is not None:
        page.check_web(settings.web)
    metrics = Metrics()
    rates = RateLimiter(per_minute=settings.rate_per_minute, burst=settings.rate_burst)
    scheduler = Scheduler(metrics, workers=settings.workers, queue=settings.queue, deadline_s=settings.deadline_s)
    parts = Parts(
        settings,
        metrics,
        Access(settings.keys(), rates),
        Access(settings.admin_keys(), rates),
        Engine(settings, metrics),
        scheduler,
        ByteBudget(settings.buffer_bytes + _FORM_OVERHEAD),
        StreamSeats(settings.streams),
    )
    app = FastAPI(
        title="emotion-yolo",
        description=_DESCRIPTION,
        version=_version(),
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the address to redirect to would be made from the client's Host header
    )
    app.state.parts = parts
    app.include_router(detect.router)
    app.include_router(annotate.router)
    app.include_router(feedback.router)
    app.include_router(model.router)
    app.include_router(admin.router)
    app.include_router(health.router)
    app.include_router(page.router)
    if settings.streams:
        app.include_router(stream.router)
    app.add_exception_handler(Problem, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(HTTPException, _refuse_route)
    batch_path = app.url_path_for("detect_batch")
    body = settings.max_bytes + _FORM_OVERHEAD
    limits = {
        str(batch_path): settings.batch_bytes + _FORM_OVERHEAD,
        str(app.url_path_for("feedback")): _FEEDBACK_BYTES,
    }
    app.add_middleware(
        BodyLimits,
        limit_of=lambda path: limits.get(path, body),
        budget=parts.budget,
        stall_s=settings.stall_s,
        upload_s=settings.upload_s,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["content-type", "x-api-key", "x-request-id"],
            expose_headers=["retry-after", "x-request-id"],
        )
    app.add_middleware(Observe, metrics=metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model in the background, so that `/healthz` answers meanwhile."""
    engine, scheduler = app.state.parts.engine, app.state.parts.scheduler
    engine.log = open_log(app.state.parts.settings, app.state.parts.metrics)
    engine.open_watchers(waiting=lambda: scheduler.taken > scheduler.workers)
    loading = asyncio.create_task(asyncio.to_thread(engine.load))
    try:
        yield
    finally:
        engine.drain()
        await loading
        engine.close()
        await asyncio.to_thread(scheduler.close)
        if engine.log is not None:
            await asyncio.to_thread(engine.log.close)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return problem_response(request, error)


async def _refuse_parameters(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    findings = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return problem_response(request, Problem(Code.INVALID_PARAMETER, findings))


async def _refuse_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        problem = Problem(Code.METHOD_NOT_ALLOWED, "this path has other methods; /docs lists them")
    else:
        problem = Problem(Code.NOT_FOUND, "there is nothing under this path; /docs lists what there is")
    response = problem_response(request, problem)
    response.headers.update(error.headers or {})
    if response.headers.get("allow") == "GET":
        response.headers["allow"] = "GET, HEAD"  # see `Observe`
    return response


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        schemas = document["components"]["schemas"]
        schemas["ProblemDocument"] = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schemas["ProblemDocument"].pop("$defs", {})
        for path in document["paths"].values():
            for operation in path.values():
                # FastAPI documents its own form of 422, which this application never answers with.
                content = operation["responses"].get("422", {}).get("content", {})
                content.pop("application/json", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema


def _version() -> str:
    try:
        return version("emotion-yolo")
    except PackageNotFoundError:
        return "0+source"
