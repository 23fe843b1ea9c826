"""`/` and `/docs`: static pages, read once at import, so that no request ever names a path on the disk."""

from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from emotion_yolo.errors import SettingsError
from emotion_yolo.page import DEVICE, DEVICE_CSP, DEVICE_FILES, MARK, SERVER_CSP

from ..problems import Code, Problem
from .deps import ThisApp

_STATIC = Path(__file__).parent.parent / "static"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_DEVICE_TYPES = {
    ".mjs": _MEDIA_TYPES[".js"],
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".onnx": "application/octet-stream",
}
_FILES = {path.name: path.read_bytes() for path in _STATIC.iterdir() if path.suffix in _MEDIA_TYPES}

router = APIRouter(include_in_schema=False)


def check_web(folder: Path) -> None:
    """Return if a folder of `emotion-yolo export-web` is complete.

    Raises:
        SettingsError: it is not.
    """
    if missing := [name for name in DEVICE_FILES if not (folder / DEVICE / name).is_file()]:
        message = f"EMOTION_WEB: {folder} has no {DEVICE}/{missing[0]}"
        raise SettingsError(f"{message}; write the folder with emotion-yolo export-web")


@router.get("/")
async def page(app: ThisApp) -> Response:
    """Return the page."""
    if app.settings.web is None:
        return _file("index.html")
    content = _FILES["index.html"].replace(MARK.encode(), f"{MARK} data-device".encode(), 1)
    headers = {"content-security-policy": DEVICE_CSP, "cache-control": "no-cache"}
    return Response(content, media_type=_MEDIA_TYPES[".html"], headers=headers)


@router.get("/device/{name}")
async def device(name: str, app: ThisApp) -> Response:
    """Return a file that the page needs to find faces in the browser."""
    if app.settings.web is None or name not in DEVICE_FILES:
        raise Problem(Code.NOT_FOUND, "there is no such file")
    headers = {"content-security-policy": DEVICE_CSP, "cache-control": "max-age=3600"}
    path = app.settings.web / DEVICE / name
    return FileResponse(path, media_type=_DEVICE_TYPES[path.suffix], headers=headers)


@router.get("/docs")
async def docs() -> Response:
    """Return the API's documentation for people."""
    return _file("docs.html")


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Return a file that the pages use."""
    if name not in _FILES or name.endswith(".html"):
        raise Problem(Code.NOT_FOUND, "there is no such file")
    return _file(name)


def _file(name: str) -> Response:
    # A worker's policy is that of its file.
    policy = DEVICE_CSP if name == "device.js" else SERVER_CSP
    headers = {"content-security-policy": policy, "cache-control": "no-cache"}
    return Response(_FILES[name], media_type=_MEDIA_TYPES[Path(name).suffix], headers=headers)
