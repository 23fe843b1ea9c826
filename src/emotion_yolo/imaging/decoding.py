"""The one decoder: bytes are inspected first, and what is decoded is complete, upright, on white, in 8-bit RGB.

bytes ── signature ──▶ format ── inspection ──▶ Plan: size, memory, payload ── decoder ──▶ Picture
"""

from collections.abc import Callable

from emotion_yolo.imaging import bmp, gif, heif, jpeg, pillow, png, tiff, webp
from emotion_yolo.imaging.exif import turn_upright, upright_size
from emotion_yolo.imaging.plans import ImageLimits, Picture, Pixels, Plan
from emotion_yolo.imaging.polyglots import refuse_polyglots
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError, out_of_memory

_INSPECTORS: dict[str, Callable[[bytes, ImageLimits, int | None], Plan]] = {
    "JPEG": jpeg.inspect,
    "PNG": png.inspect,
    "WEBP": webp.inspect,
    "GIF": gif.inspect,
    "TIFF": tiff.inspect,
    "BMP": bmp.inspect,
    "HEIF": heif.inspect,
}
_DECODERS: dict[str, Callable[[Plan], Pixels]] = {
    "JPEG": jpeg.decode,
    "JPEG/CMYK": jpeg.decode,
    "PNG": pillow.decode,
    "WEBP": webp.decode,
    "GIF": pillow.decode,
    "TIFF": pillow.decode,
    "BMP": pillow.decode,
    "BMP/RLE": bmp.decode_run_lengths,
}


def inspect(data: bytes, limits: ImageLimits, *, fit: int | None = None) -> Plan:
    """Judge a file by its structure; with `fit` it will be decoded reduced, to a longer side of at least `fit` px.

    Time is linear in the bytes and bounded by the limits of each format.

    Raises:
        RefusedImageError: no picture of a known format, cut off, outside the limits, too complex, or also something
            else than a picture.
    """
    if not data:
        raise RefusedImageError(Refusal.EMPTY_FILE, "the file is empty (0 bytes); expected a picture")
    if len(data) > limits.max_bytes:
        message = f"the file has {len(data)} bytes, expected at most {limits.max_bytes}; scale or compress the picture"
        raise RefusedImageError(Refusal.TOO_LARGE, message)
    kind = sniff(data)
    if not limits.polyglots:
        refuse_polyglots(data)
    return _INSPECTORS[kind](data, limits, fit)


def decode_plan(plan: Plan, limits: ImageLimits) -> Picture:
    """Decode an inspected picture in this process.

    Raises:
        RefusedImageError: damaged, or there is no memory.
    """
    try:
        if plan.kind == "HEIF":
            pixels, size, factor = heif.decode(plan, limits)
            return Picture(pixels, size, factor, plan.format)
        pixels = turn_upright(_DECODERS[plan.kind](plan), plan.orientation)
    except MemoryError:
        raise out_of_memory(plan.format) from None
    return Picture(pixels, upright_size(plan.size, plan.orientation), plan.factor, plan.format)


def decode(data: bytes, limits: ImageLimits, *, fit: int | None = None) -> Picture:
    """Inspect and decode a picture in this process.

    Raises:
        RefusedImageError: see `inspect` and `decode_plan`.
    """
    return decode_plan(inspect(data, limits, fit=fit), limits)


def sniff(data: bytes) -> str:
    """Return the name of the format that the first bytes show.

    Raises:
        RefusedImageError: none of those that are decoded.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(png.SIGNATURE):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if data.startswith(b"BM"):
        return "BMP"
    if data[4:8] == b"ftyp" and data[8:12] in heif.BRANDS:
        if heif.INSTALLED:
            return "HEIF"
        message = "HEIC is not supported by this installation; send JPEG, or install the extra `heic`"
        raise RefusedImageError(Refusal.UNSUPPORTED_FORMAT, message)
    names = "JPEG, PNG, WebP, GIF, TIFF, BMP" + (" or HEIC" if heif.INSTALLED else "")
    raise RefusedImageError(
        Refusal.UNSUPPORTED_FORMAT, f"cannot be decoded: no picture of a known format; expected {names}"
    )
