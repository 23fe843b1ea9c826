"""Windows and OS/2 bitmaps, with and without run lengths."""

import cv2
import numpy as np

from emotion_yolo.imaging.pixels import shrink
from emotion_yolo.imaging.plans import ImageLimits, Pixels, Plan, check_memory, check_size, reduction
from emotion_yolo.imaging.png import memory_of
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError, out_of_memory, undecodable

KIND = "BMP"
RUN_LENGTHS = "BMP/RLE"

_CORE, _HEADERS = 12, {40, 52, 56, 64, 108, 124}
_RGB, _RLE8, _RLE4, _BITFIELDS, _ALPHABITFIELDS = 0, 1, 2, 3, 6


def inspect(data: bytes, limits: ImageLimits, fit: int | None) -> Plan:
    """Read the header, and check that all rows are there.

    Raises:
        RefusedImageError: cut off, out of the limits, or of an unknown kind.
    """
    header = _number(data, 14, 4)
    if len(data) < 14 + max(header, _CORE) or header not in _HEADERS | {_CORE}:
        raise undecodable(KIND)
    if header == _CORE:
        width, height, depth, compression = _number(data, 18, 2), _number(data, 20, 2), _number(data, 24, 2), _RGB
    else:
        width, height = (int.from_bytes(data[i : i + 4], "little", signed=True) for i in (18, 22))
        depth, compression = _number(data, 28, 2), _number(data, 30, 4)
    size = (width, abs(height))
    check_size(size, limits)
    known = {_RGB: {1, 4, 8, 16, 24, 32}, _RLE8: {8}, _RLE4: {4}, _BITFIELDS: {16, 32}, _ALPHABITFIELDS: {16, 32}}
    if depth not in known.get(compression, set()):
        message = f"the BMP has compression {compression} and {depth} bits a pixel; save it as PNG"
        raise RefusedImageError(Refusal.UNSUPPORTED_FORMAT, message)
    factor = reduction(size, fit)
    rle = compression in {_RLE8, _RLE4}
    if not rle and _number(data, 10, 4) + (width * depth + 31) // 32 * 4 * abs(height) > len(data):
        raise undecodable(KIND)
    stored = 6 if rle else 4 if depth > 8 else 1
    memory = memory_of(size, stored, factor, 1) + len(data)
    check_memory(KIND, memory, limits)
    # Pillow reads run lengths in Python, a hundred times slower.
    return Plan(RUN_LENGTHS if rle else KIND, data, size, factor, memory, isolated=True, fit=fit)


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")


def decode_run_lengths(plan: Plan) -> Pixels:
    """Decode a bitmap of run lengths to RGB, reduced by `plan.factor`.

    Raises:
        RefusedImageError: damaged, or there is no memory.
    """
    try:
        decoded = cv2.imdecode(np.frombuffer(plan.payload, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise out_of_memory(KIND) from error
        raise undecodable(KIND) from error
    if decoded is None or decoded.shape[1::-1] != plan.size:
        raise undecodable(KIND)
    return shrink(decoded.astype(np.uint8, copy=False), plan.factor)
