"""Request body to bytes, in memory only: one picture, raw or as multipart, or a batch of them."""

from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from .problems import Code, Problem

Upload = bytes | Problem
"""A file of a batch, or why it was refused."""

# Fields beside the files that a form may carry; they are discarded.
_SPARE_PARTS = 8


async def read_picture(request: Request, *, max_bytes: int) -> bytes:
    """Return the picture of a request: the multipart field `file`, or the body itself.

    Raises:
        Problem: another content type, a form that cannot be read, no file or several, too many bytes.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type == b"multipart/form-data":
        files = await _read_form(request, options, "file", max_files=1, max_bytes=max_bytes)
        upload = files[0]
    elif content_type.startswith(b"image/") or content_type == b"application/octet-stream":
        upload = b"".join([chunk async for chunk in _chunks(request)])
        if len(upload) > max_bytes:
            upload = _too_large(len(upload), max_bytes)
    else:
        message = "send multipart/form-data with a field `file`, or the picture's bytes with an image/* content type"
        raise Problem(Code.UNSUPPORTED_CONTENT_TYPE, message)
    if isinstance(upload, Problem):
        raise upload
    return upload


async def read_batch(request: Request, *, max_files: int, max_bytes: int) -> list[Upload]:
    """Return the files of the multipart field `files`, in order; one that is too large does not affect the others.

    Raises:
        Problem: another content type, a form that cannot be read, no file or more than `max_files`.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        message = "send multipart/form-data with a field `files` for each picture"
        raise Problem(Code.UNSUPPORTED_CONTENT_TYPE, message)
    return await _read_form(request, options, "files", max_files=max_files, max_bytes=max_bytes)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    # Not request.stream(): it raises its own exception when a client leaves.
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Problem(Code.CLIENT_GONE, "the client left before its body was complete")
        more = message.get("more_body", False)
        if body := message.get("body", b""):
            yield body


async def _read_form(
    request: Request, options: dict[bytes, bytes], field: str, *, max_files: int, max_bytes: int
) -> list[Upload]:
    boundary = options.get(b"boundary")
    if not boundary:
        raise Problem(Code.MALFORMED_BODY, "the content type names no boundary; let the HTTP library set the header")
    try:
        form = _Form(boundary, field, max_files=max_files, max_bytes=max_bytes)
        async for chunk in _chunks(request):
            form.write(chunk)
    except FormParserError as error:
        raise Problem(Code.MALFORMED_BODY, f"the form cannot be read: {error}") from error
    if not form.ended:
        raise Problem(Code.MALFORMED_BODY, "the form ends before its closing boundary; send it again")
    if not form.files:
        raise Problem(Code.MISSING_FILE, f"the form has no field `{field}`; put the picture there")
    return form.files


def _too_large(size: int, max_bytes: int) -> Problem:
    return Problem(Code.TOO_LARGE, f"the file has {size} bytes, expected at most {max_bytes}")


class _Form:
    """Collects one field's files out of a multipart body and drops the rest as it passes."""

    def __init__(self, boundary: bytes, field: str, *, max_files: int, max_bytes: int) -> None:
        self.files: list[Upload] = []
        self.ended = False
        self._field = field.encode()
        self._max_files, self._max_bytes = max_files, max_bytes
        self._parts = 0
        self._name = self._value = self._disposition = b""
        self._wanted = False
        self._size = 0
        self._chunks: list[bytes] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def write(self, chunk: bytes) -> None:
        self._parser.write(chunk)

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > self._max_files + _SPARE_PARTS:
            allowed = self._max_files + _SPARE_PARTS
            raise Problem(Code.TOO_MANY_PARTS, f"the form has more than {allowed} fields; send only the pictures")
        self._disposition = b""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._wanted = options.get(b"name") == self._field
        self._size, self._chunks = 0, []
        if self._wanted and len(self.files) == self._max_files:
            message = f"more than {self._max_files} files in the field `{self._field.decode()}`"
            raise Problem(Code.TOO_MANY_FILES, f"{message}; send the rest in another request")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self._size += end - start
            if self._size <= self._max_bytes:
                self._chunks.append(data[start:end])
            else:
                self._chunks.clear()

    def _end_part(self) -> None:
        if self._wanted:
            too_large = self._size > self._max_bytes
            self.files.append(_too_large(self._size, self._max_bytes) if too_large else b"".join(self._chunks))
            self._chunks = []

    def _end(self) -> None:
        self.ended = True
