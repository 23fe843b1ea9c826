"""`/` and `/docs`: static pages, read once at import, so that no request ever names a path on the disk."""

from pathlib import Path

from fastapi import APIRouter, Response

from ..problems import Code, Problem

_STATIC = Path(__file__).parent.parent / "static"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = {path.name: path.read_bytes() for path in _STATIC.iterdir() if path.suffix in _MEDIA_TYPES}

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> Response:
    """Return the page."""
    return _file("index.html")


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
    headers = {"content-security-policy": CSP, "cache-control": "no-cache"}
    return Response(_FILES[name], media_type=_MEDIA_TYPES[Path(name).suffix], headers=headers)
