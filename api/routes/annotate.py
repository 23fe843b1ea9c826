"""`/v1/annotate`: the picture with its faces drawn on."""

from functools import partial

import cv2
import numpy as np
import simplejpeg
from fastapi import APIRouter, Depends, Request, Response
from starlette.types import Receive, Scope, Send

from emotion_yolo.drawing import draw_on
from emotion_yolo.imaging import Pixels
from emotion_yolo.structures.detections import Detections

from ..engine import Analysis
from ..memory import Answer
from ..problems import Code, Problem
from ..scheduler import Ticket
from ..schemas import problem_responses
from ..uploads import read_picture
from .deps import ChosenOptions, ThisApp, admit, run_one
from .detect import ONE_PICTURE, PICTURE_REFUSALS

# The most bytes for a pixel that encoding takes: OpenCV holds a PNG, of samples at worst, twice.
_ANSWER_BYTES = {"image/jpeg": 2, "image/png": 6}
_PIECE = 65_536
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_REFUSALS = PICTURE_REFUSALS | problem_responses(Code.NOT_ACCEPTABLE)

router = APIRouter(prefix="/v1", tags=["detection"], dependencies=[Depends(admit)])


@router.post(
    "/annotate",
    summary="Draw the faces on a picture",
    response_class=Response,
    responses={200: {"description": "The picture.", "content": dict.fromkeys(_ANSWER_BYTES, _PICTURE)}, **_REFUSALS},
    openapi_extra=ONE_PICTURE,
)
async def annotate(request: Request, app: ThisApp, chosen: ChosenOptions) -> Response:
    """Return the picture, upright, with a box and the expression's name for each face: JPEG, or PNG by `Accept`."""
    media_type = negotiate(request.headers.get("accept", "*/*"))
    data = await read_picture(request, max_bytes=app.settings.max_bytes)

    draw = partial(draw_and_encode, media_type=media_type)

    def annotated(ticket: Ticket) -> tuple[Answer, Analysis]:
        return app.engine.annotate(data, chosen, ticket, draw=draw, answer_bytes=_ANSWER_BYTES[media_type])

    answer, analysis = await run_one(request, app, annotated)
    request.state.faces = len(analysis.detections)
    return PictureResponse(answer, media_type)


class PictureResponse(Response):
    """An encoded picture, sent in pieces: its memory is released when the client has read it, or has left."""

    def __init__(self, answer: Answer, media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"content-length": str(len(answer.data))})
        self._answer = answer

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the answer."""
        data = self._answer.data
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(data), _PIECE):
                piece = bytes(data[start : start + _PIECE])
                await send({"type": "http.response.body", "body": piece, "more_body": start + _PIECE < len(data)})
        finally:
            self._answer.release()


def draw_and_encode(pixels: Pixels, detections: Detections, *, media_type: str) -> memoryview:
    """Draw faces on an RGB picture, which is overwritten, and encode it."""
    draw_on(pixels, detections)
    if media_type == "image/jpeg":
        return memoryview(simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling="420"))
    cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR, dst=pixels)
    # PNG's fastest compression: a larger answer, but a tenth of the time.
    _, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return np.asarray(encoded, np.uint8).data.cast("B")


def negotiate(accept: str) -> str:
    """Choose the media type that an Accept header prefers; JPEG where it has no preference.

    Raises:
        Problem: it wants neither.
    """
    weights = dict.fromkeys(_ANSWER_BYTES, 0.0)
    exactness = dict.fromkeys(_ANSWER_BYTES, -1)
    for entry in accept.split(","):
        wanted, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        for media_type in _ANSWER_BYTES:
            exact = {"*/*": 0, "image/*": 1, media_type: 2}.get(wanted, -1)
            if exact > exactness[media_type]:
                weights[media_type], exactness[media_type] = weight, exact
    best = max(weights, key=lambda media_type: weights[media_type])
    if not weights[best]:
        raise Problem(Code.NOT_ACCEPTABLE, f"Accept is {accept[:80]!r}, expected image/jpeg or image/png")
    return best


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0
