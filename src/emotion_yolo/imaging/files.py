"""Pictures on disk, read by Python, so that every file name works, and decoded with limits for local files."""

from pathlib import Path

from emotion_yolo.errors import ImageError
from emotion_yolo.imaging.decoding import decode
from emotion_yolo.imaging.plans import LOCAL, Picture, Pixels
from emotion_yolo.imaging.refusals import RefusedImageError


def read_picture(path: Path, *, fit: int | None = None) -> Picture:
    """Read and decode a picture; with `fit` it may come back reduced, as long as its longer side has at least `fit` px.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    try:
        return decode(path.read_bytes(), LOCAL, fit=fit)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the path and the permissions") from error
    except RefusedImageError as error:
        raise RefusedImageError(error.code, f"{path}: {error}") from error


def read_rgb(path: Path) -> Pixels:
    """Read a picture as RGB [H, W, 3] uint8, turned as its EXIF says, transparent parts on white.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    return read_picture(path).pixels
