"""`/admin/reload`: for the operator, with a separate key."""

import asyncio

from fastapi import APIRouter, Depends, Request

from ..problems import Code, Problem
from ..schemas import ReloadAnswer, model_name, problem_responses
from .deps import ThisApp


async def admit_admin(request: Request, app: ThisApp) -> None:
    """Check the administrator's key; without one the path does not exist."""
    if not app.admin.has_keys:
        raise Problem(Code.NOT_FOUND, "there is nothing under this path; /docs lists what there is")
    app.admin.identify(request)
    request.state.client = "admin"


router = APIRouter(prefix="/admin", tags=["operation"], dependencies=[Depends(admit_admin)])


@router.post(
    "/reload",
    summary="Reload the model",
    responses=problem_responses(
        Code.UNAUTHORIZED, Code.NOT_FOUND, Code.MODEL_REFUSED, Code.NOT_READY, Code.OVERLOADED, Code.INTERNAL_ERROR
    ),
)
async def reload(app: ThisApp) -> ReloadAnswer:
    """Load the model's folder beside the present model, then answer with the new one; as SIGHUP does.

    A model that cannot be loaded is refused and the present one stays. No request is lost. Needs the key in
    `EMOTION_ADMIN_KEY`, sent as `X-API-Key`.
    """
    changed = await asyncio.to_thread(app.engine.reload)
    return ReloadAnswer(status="loaded" if changed else "unchanged", model=model_name(app.engine.detector.spec))
