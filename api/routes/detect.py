"""`/v1/detect`, `/v1/detect/batch` and `/v1/annotate`."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request

from ..engine import Analysis
from ..problems import Code, Problem
from ..schemas import BatchAnswer, BatchError, BatchResult, DetectAnswer, problem_document, problem_responses
from ..uploads import read_batch, read_picture
from .deps import ChosenOptions, ThisApp, admit, run_all, run_one

_ADMISSION = (
    Code.UNAUTHORIZED,
    Code.RATE_LIMITED,
    Code.INVALID_PARAMETER,
    Code.NOT_READY,
    Code.OVERLOADED,
    Code.DEADLINE_EXCEEDED,
    Code.INTERNAL_ERROR,
)
_BODY = (
    Code.MALFORMED_BODY,
    Code.MISSING_FILE,
    Code.TOO_LARGE,
    Code.TOO_MANY_FILES,
    Code.TOO_MANY_PARTS,
    Code.TOO_MANY_CHUNKS,
    Code.UNSUPPORTED_CONTENT_TYPE,
    Code.UPLOAD_TIMEOUT,
)
PICTURE = (
    Code.EMPTY_FILE,
    Code.TOO_MANY_PIXELS,
    Code.TOO_COMPLEX,
    Code.BAD_DIMENSIONS,
    Code.UNSUPPORTED_FORMAT,
    Code.UNSUPPORTED_PIXELS,
    Code.UNDECODABLE,
    Code.DECODE_TIMEOUT,
    Code.POLYGLOT,
)

_BINARY = {"type": "string", "format": "binary"}
ONE_PICTURE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _BINARY}},
            },
            "image/*": {"schema": _BINARY},
        },
    }
}
MANY_PICTURES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "minItems": 1, "items": _BINARY}},
                }
            }
        },
    }
}
PICTURE_REFUSALS = problem_responses(*_ADMISSION, *_BODY, *PICTURE)

router = APIRouter(prefix="/v1", tags=["detection"], dependencies=[Depends(admit)])


@router.post("/detect", summary="Find the faces in one picture", responses=PICTURE_REFUSALS, openapi_extra=ONE_PICTURE)
async def detect(request: Request, app: ThisApp, chosen: ChosenOptions) -> DetectAnswer:
    """Find every face in a picture and name its expression.

    Send the picture as the multipart field `file`, or as the body itself with an `image/*` content type.
    """
    data = await read_picture(request, max_bytes=app.settings.max_bytes)
    analysis = await run_one(request, app, partial(app.engine.analyse, data, chosen))
    request.state.faces = len(analysis.detections)
    return DetectAnswer.of(analysis)


@router.post(
    "/detect/batch",
    summary="Find the faces in several pictures",
    responses=problem_responses(*_ADMISSION, *_BODY),
    openapi_extra=MANY_PICTURES,
)
async def detect_batch(request: Request, app: ThisApp, chosen: ChosenOptions) -> BatchAnswer:
    """Answer for several pictures at once, sent as multipart fields `files`: one entry each, in order."""
    limits = app.settings
    uploads = await read_batch(request, max_files=limits.batch_files, max_bytes=limits.max_bytes)
    if len(uploads) > 1:
        app.access.charge(request.state.client, len(uploads) - 1)
    jobs = [
        partial(app.engine.analyse, upload, chosen, item=item)
        for item, upload in enumerate(uploads)
        if isinstance(upload, bytes)
    ]
    analysed = iter(await run_all(request, app, jobs))
    results = [upload if isinstance(upload, Problem) else next(analysed) for upload in uploads]
    request.state.faces = sum(len(result.detections) for result in results if isinstance(result, Analysis))
    entries: list[BatchResult | BatchError] = []
    for result in results:
        if isinstance(result, Problem):
            app.metrics.rejections.labels(str(result.code)).inc()
            entries.append(BatchError(error=problem_document(result, request.state.request_id)))
        else:
            entries.append(BatchResult(result=DetectAnswer.of(result)))
    return BatchAnswer(results=entries)
