"""Why a picture is refused: a stable code, and a sentence that says what was found and what to do."""

from enum import StrEnum

from emotion_yolo.errors import ImageError


class Refusal(StrEnum):
    """The stable codes; a code never changes its meaning."""

    EMPTY_FILE = "empty_file"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_COMPLEX = "too_complex"
    BAD_DIMENSIONS = "bad_dimensions"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    UNDECODABLE = "undecodable"
    POLYGLOT = "polyglot"
    DECODE_TIMEOUT = "decode_timeout"
    OUT_OF_MEMORY = "out_of_memory"


class RefusedImageError(ImageError):
    """A picture that is not decoded; `code` says why."""

    def __init__(self, code: Refusal, message: str) -> None:
        super().__init__(message)
        self.code = code


def undecodable(kind: str) -> RefusedImageError:
    """Return the refusal of a file whose structure or data ends early or makes no sense."""
    message = f"cannot be decoded: the {kind} is truncated or damaged; replace the file or save it again"
    return RefusedImageError(Refusal.UNDECODABLE, message)


def too_complex(kind: str, what: str, limit: int) -> RefusedImageError:
    """Return the refusal of a file of more parts than any picture needs."""
    return RefusedImageError(Refusal.TOO_COMPLEX, f"the {kind} has more than {limit:,} {what}; save it again")


def out_of_memory(kind: str) -> RefusedImageError:
    """Return the refusal of a sound picture for which there is no memory now."""
    return RefusedImageError(Refusal.OUT_OF_MEMORY, f"not enough memory to decode this {kind}; free memory and retry")
