"""`/v1/annotate`: the picture with its faces drawn on."""

import cv2
from fastapi import APIRouter, Depends, Request, Response

from api.images import Pixels
from api.problems import Code, Problem
from api.routes.deps import ChosenOptions, ThisApp, admit, run_one
from api.routes.detect import ONE_PICTURE, PICTURE_REFUSALS
from api.scheduler import Ticket
from api.schemas import problem_responses
from api.uploads import read_picture
from emotion_yolo.drawing import draw_detections

_EXTENSIONS = {"image/jpeg": ".jpg", "image/png": ".png"}
_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_REFUSALS = PICTURE_REFUSALS | problem_responses(Code.NOT_ACCEPTABLE)

router = APIRouter(prefix="/v1", tags=["detection"], dependencies=[Depends(admit)])


@router.post(
    "/annotate",
    summary="Draw the faces on a picture",
    response_class=Response,
    responses={200: {"description": "The picture.", "content": dict.fromkeys(_EXTENSIONS, _PICTURE)}, **_REFUSALS},
    openapi_extra=ONE_PICTURE,
)
async def annotate(request: Request, app: ThisApp, chosen: ChosenOptions) -> Response:
    """Return the picture, upright, with a box and the expression's name for each face: JPEG, or PNG by `Accept`."""
    media_type = negotiate(request.headers.get("accept", "*/*"))
    data = await read_picture(request, max_bytes=app.settings.max_bytes)

    def annotated(ticket: Ticket) -> tuple[bytes, int]:
        analysis = app.engine.analyse(data, chosen, ticket, whole=True)
        drawn = draw_detections(analysis.picture.pixels, analysis.detections)
        return encode(drawn, _EXTENSIONS[media_type]), len(analysis.detections)

    picture, request.state.faces = await run_one(request, app, annotated)
    return Response(picture, media_type=media_type)


def encode(pixels: Pixels, extension: str) -> bytes:
    """Encode an RGB picture as `.png` or `.jpg`."""
    # PNG's fastest compression: a larger answer, but a tenth of the time.
    parameters = [cv2.IMWRITE_PNG_COMPRESSION, 1] if extension == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 90]
    _, encoded = cv2.imencode(extension, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), parameters)
    return encoded.tobytes()


def negotiate(accept: str) -> str:
    """Choose the media type that an Accept header prefers; JPEG where it has no preference.

    Raises:
        Problem: it wants neither.
    """
    weights = dict.fromkeys(_EXTENSIONS, 0.0)
    exactness = dict.fromkeys(_EXTENSIONS, -1)
    for entry in accept.split(","):
        wanted, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        for media_type in _EXTENSIONS:
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
