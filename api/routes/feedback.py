"""`/v1/feedback`: the right expression of a face, as given by a person."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from emotion_yolo.prediction_log.rows import Feedback
from emotion_yolo.review.keeper import Contradiction

from ..problems import Code, Problem
from ..schemas import FeedbackAnswer, FeedbackRequest, problem_responses
from .deps import ThisApp, admit_feedback

_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": FeedbackRequest.model_json_schema()}}}
}


async def feedback_in(request: Request, _: Annotated[None, Depends(admit_feedback)]) -> FeedbackRequest:
    """Read the body, after the key and the rate have been checked: FastAPI itself would read it before."""
    try:
        return FeedbackRequest.model_validate_json(await request.body())
    except ValidationError as error:
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from error


router = APIRouter(prefix="/v1", tags=["feedback"])

_REFUSALS = problem_responses(
    Code.UNAUTHORIZED,
    Code.RATE_LIMITED,
    Code.NOT_FOUND,
    Code.INVALID_PARAMETER,
    Code.TOO_LARGE,
    Code.TOO_MANY_CHUNKS,
    Code.UPLOAD_TIMEOUT,
    Code.OVERLOADED,
    Code.INTERNAL_ERROR,
)


@router.post(
    "/feedback",
    summary="Correct the expression of an answered face",
    status_code=202,
    responses=_REFUSALS,
    openapi_extra=_BODY,
)
async def feedback(app: ThisApp, given: Annotated[FeedbackRequest, Depends(feedback_in)]) -> FeedbackAnswer:
    """Note the right expression of a face for `emotion-yolo monitor`; where it is given twice, the later one counts.

    Only where the server keeps a prediction log or pictures. Unknown ids are accepted and ignored.
    """
    log, keeper = app.engine.log, app.engine.keeper
    if log is None and keeper is None:
        message = "this server keeps neither a prediction log nor pictures, so it takes no feedback (EMOTION_LOG_DB)"
        raise Problem(Code.NOT_FOUND, message)
    if keeper is not None:
        keeper.contradict(Contradiction(given.request_id, given.item, given.face, given.emotion))
    if log is not None and not log.put(Feedback(given.request_id, given.item, given.face, given.emotion)):
        raise Problem(Code.OVERLOADED, "the prediction log cannot keep up; try again", retry_after_s=5)
    return FeedbackAnswer()
