"""`/v1/stream`: see `..streams`."""

from typing import cast

from fastapi import APIRouter, WebSocket
from starlette.responses import JSONResponse

from ..access import is_welcome
from ..middleware import SECURITY_HEADERS
from ..problems import MEDIA_TYPE, Code, Problem
from ..streams import Stream
from .deps import Parts

router = APIRouter()


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """Answer frames with tracked faces until either side ends it."""
    app = cast(Parts, socket.app.state.parts)
    headers = socket.headers
    if not is_welcome(headers.get("origin"), headers.get("host"), app.settings.cors_origins):
        message = "pages of this origin may not open streams here (EMOTION_CORS_ORIGINS)"
        problem = Problem(Code.ORIGIN_REFUSED, message)
        app.metrics.rejections.labels(str(problem.code)).inc()
        refusal = JSONResponse(
            problem.body(socket.state.request_id),
            problem.status,
            headers={**SECURITY_HEADERS, **problem.headers},
            media_type=MEDIA_TYPE,
        )
        await socket.send_denial_response(refusal)
        return
    await socket.accept()
    await Stream(socket, app).run()
