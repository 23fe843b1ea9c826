"""`/healthz`, `/readyz` and `/metrics`: for orchestrators and monitoring."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ..engine import State
from ..problems import Code, Problem
from ..schemas import Health, problem_responses
from .deps import ThisApp

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Is the process alive?", responses=problem_responses(Code.NOT_READY))
async def healthz(app: ThisApp) -> Health:
    """Answer as long as the process does; restart it when this fails. 503 where the model cannot be loaded."""
    if app.engine.state is State.FAILED:
        raise Problem(Code.NOT_READY, "the model cannot be loaded; the log says why")
    return Health(status="alive")


@router.get("/readyz", summary="Can it take requests?", responses=problem_responses(Code.NOT_READY))
async def readyz(app: ThisApp) -> Health:
    """Answer 503 until the model is loaded and warm, and from SIGTERM on; send no requests while it does."""
    if app.engine.state is not State.READY:
        raise Problem(Code.NOT_READY, f"the service is {app.engine.state}", retry_after_s=1)
    return Health(status="ready")


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(app: ThisApp) -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(generate_latest(app.metrics.registry), media_type=CONTENT_TYPE_LATEST)
