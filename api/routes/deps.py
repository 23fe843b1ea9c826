"""Dependencies of the routes: the parts of the running application, the client, the options of a request.

All are coroutines: FastAPI would send plain functions through a thread, which takes longer than they do.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Query, Request, Security
from fastapi.security import APIKeyHeader

from ..access import KEY_HEADER, Access
from ..engine import Engine, Options
from ..limits import ByteBudget
from ..metrics import Metrics
from ..problems import Code, Problem
from ..scheduler import Job, Scheduler
from ..seats import StreamSeats
from ..settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """The parts of one application."""

    settings: Settings
    metrics: Metrics
    access: Access
    admin: Access
    engine: Engine
    scheduler: Scheduler
    budget: ByteBudget
    seats: StreamSeats


async def parts(request: Request) -> Parts:
    """Return the parts of the application that serves the request."""
    return cast(Parts, request.app.state.parts)


ThisApp = Annotated[Parts, Depends(parts)]

_documented_key = APIKeyHeader(
    name=KEY_HEADER, scheme_name="ApiKey", description="Only if the server requires keys.", auto_error=False
)


async def identify(request: Request, app: ThisApp, _: Annotated[str | None, Security(_documented_key)] = None) -> None:
    """Check the key and name the client."""
    request.state.client = app.access.identify(request)


async def admit(request: Request, app: ThisApp, _: Annotated[None, Depends(identify)]) -> None:
    """Check the rate, then whether the model is loaded and there is room: all before the body is read."""
    app.access.charge(request.state.client)
    _loaded = app.engine.detector
    app.scheduler.check_room(request.state.client)


async def admit_feedback(request: Request, app: ThisApp, _: Annotated[None, Depends(identify)]) -> None:
    """Check the rate: an entry of feedback counts as a picture."""
    app.access.charge(request.state.client)


async def options(
    app: ThisApp,
    conf: Annotated[
        float | None, Query(ge=0.001, le=1, description="Minimum confidence of a face, 0-1. Default: the model's.")
    ] = None,
    max_faces: Annotated[int | None, Query(ge=1, description="Maximum number of faces in the answer.")] = None,
    min_face: Annotated[int, Query(ge=0, le=100_000, description="Minimum shorter side of a face's box, px.")] = 0,
) -> Options:
    """Return the options of a request."""
    limit = app.settings.max_faces
    if max_faces is not None and max_faces > limit:
        raise Problem(Code.INVALID_PARAMETER, f"query.max_faces: got {max_faces}, expected at most {limit}")
    return Options(conf, limit if max_faces is None else max_faces, min_face)


ChosenOptions = Annotated[Options, Depends(options)]


async def run_one(request: Request, app: Parts, job: Job[T]) -> T:
    """Run a job for a request whose body is complete.

    Raises:
        Problem: the job's refusal, or the queue's, or the client left.
    """
    result = (await run_all(request, app, [job]))[0]
    if isinstance(result, Problem):
        raise result
    return result


async def run_all(request: Request, app: Parts, jobs: Sequence[Job[T]]) -> list[T | Problem]:
    """Run the jobs of a request whose body is complete; a result or a refusal each, in order.

    Raises:
        Problem: the queue has no room for all, or the client left.
    """
    state = request.state
    return await _unless_gone(request, app.scheduler.run(jobs, client=state.client, request_id=state.request_id))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but drop it when the client leaves.

    Raises:
        Problem: the client left.
    """
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Problem(Code.CLIENT_GONE, "the client left before its answer was ready")
        return task.result()
    finally:
        leaving.cancel()
        task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
