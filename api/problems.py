"""Every refusal: a stable code, a status, and a sentence that helps (RFC 9457, `application/problem+json`)."""

from enum import StrEnum

MEDIA_TYPE = "application/problem+json"


class Code(StrEnum):
    """The stable codes. A code never changes its meaning; the sentence beside it may."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    INVALID_PARAMETER = "invalid_parameter"
    MALFORMED_REQUEST = "malformed_request"
    HEAD_TOO_LARGE = "head_too_large"
    MALFORMED_BODY = "malformed_body"
    MISSING_FILE = "missing_file"
    EMPTY_FILE = "empty_file"
    TOO_MANY_FILES = "too_many_files"
    TOO_MANY_PARTS = "too_many_parts"
    TOO_MANY_CHUNKS = "too_many_chunks"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_COMPLEX = "too_complex"
    BAD_DIMENSIONS = "bad_dimensions"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    UNDECODABLE = "undecodable"
    DECODE_TIMEOUT = "decode_timeout"
    POLYGLOT = "polyglot"
    UPLOAD_TIMEOUT = "upload_timeout"
    UNAUTHORIZED = "unauthorized"
    ORIGIN_REFUSED = "origin_refused"
    RATE_LIMITED = "rate_limited"
    MODEL_REFUSED = "model_refused"
    CLIENT_GONE = "client_gone"
    OVERLOADED = "overloaded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_READY = "not_ready"
    NOT_INSTALLED = "not_installed"
    INTERNAL_ERROR = "internal_error"


STATUS: dict[Code, int] = {
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.NOT_ACCEPTABLE: 406,
    Code.INVALID_PARAMETER: 422,
    Code.MALFORMED_REQUEST: 400,
    Code.HEAD_TOO_LARGE: 431,
    Code.MALFORMED_BODY: 400,
    Code.MISSING_FILE: 400,
    Code.EMPTY_FILE: 400,
    Code.TOO_MANY_FILES: 413,
    Code.TOO_MANY_PARTS: 413,
    Code.TOO_MANY_CHUNKS: 413,
    Code.TOO_LARGE: 413,
    Code.TOO_MANY_PIXELS: 413,
    Code.TOO_COMPLEX: 422,
    Code.BAD_DIMENSIONS: 422,
    Code.UNSUPPORTED_CONTENT_TYPE: 415,
    Code.UNSUPPORTED_FORMAT: 415,
    Code.UNSUPPORTED_PIXELS: 415,
    Code.UNDECODABLE: 422,
    Code.DECODE_TIMEOUT: 422,
    Code.POLYGLOT: 422,
    Code.UPLOAD_TIMEOUT: 408,
    Code.UNAUTHORIZED: 401,
    Code.ORIGIN_REFUSED: 403,
    Code.RATE_LIMITED: 429,
    Code.MODEL_REFUSED: 422,
    # No client receives this one: it appears in logs and metrics only. The number is nginx's.
    Code.CLIENT_GONE: 499,
    Code.OVERLOADED: 503,
    Code.DEADLINE_EXCEEDED: 503,
    Code.NOT_READY: 503,
    Code.NOT_INSTALLED: 501,
    Code.INTERNAL_ERROR: 500,
}


class Problem(Exception):  # noqa: N818  RFC 9457 calls it so
    """A refusal on its way to the client; `retry_after_s` says when to try again."""

    def __init__(self, code: Code, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        """Return the HTTP status of the code."""
        return STATUS[self.code]

    @property
    def title(self) -> str:
        """Return the code in words."""
        return self.code.replace("_", " ").capitalize()

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that belong to the refusal."""
        headers = {"cache-control": "no-store"}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        if self.code is Code.UNAUTHORIZED:
            headers["www-authenticate"] = "ApiKey"
        return headers

    def body(self, request_id: str | None = None) -> dict[str, str | int]:
        """Return the members of the problem document."""
        members: dict[str, str | int] = {
            "type": f"urn:emotion-yolo:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": str(self.code),
            "detail": self.detail,
        }
        return members | ({"request_id": request_id} if request_id else {})
