"""Pictures that other programs would open as a document, a page, a script or an archive."""

from emotion_yolo.imaging.refusals import Refusal, RefusedImageError

_HEAD_MARKS = (b"%pdf-", b"<?php", b"<script", b"<html", b"<svg", b"<!doctype")
_TAIL_MARKS = (b"</html>", b"</script>", b"%%eof", b"__halt_compiler")
_READ = 1024
_ZIP_END = 22  # bytes of the record at a ZIP's end, which a comment may follow
_ZIP_COMMENT = 65_535


def refuse_polyglots(data: bytes) -> None:
    """Return if a file is a picture only.

    Raises:
        RefusedImageError: it is something else as well.
    """
    head, tail = data[:_READ].lower(), data[-_READ:].lower()
    for part, marks in ((head, _HEAD_MARKS), (tail, _TAIL_MARKS)):
        for mark in marks:
            if mark in part:
                raise _polyglot(mark.decode())
    # A ZIP is found from its end: a record and a comment that reaches the end of the file.
    end = data.rfind(b"PK\x05\x06", max(len(data) - _ZIP_END - _ZIP_COMMENT, 0))
    if end >= 0 and end + _ZIP_END + int.from_bytes(data[end + 20 : end + 22], "little") == len(data):
        raise _polyglot("a ZIP directory")


def _polyglot(mark: str) -> RefusedImageError:
    message = f"the file is a picture and something else as well ({mark}); save the picture again"
    return RefusedImageError(Refusal.POLYGLOT, message)
