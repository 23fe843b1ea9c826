"""WebP (RFC 9649): lossy and lossless, with and without transparency, the first frame of an animation.

A file is rewritten as the still picture that is wanted, so that libwebp allocates nothing for the rest of it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from emotion_yolo.imaging.exif import read_orientation
from emotion_yolo.imaging.pixels import assemble, blend_on_white, shrink
from emotion_yolo.imaging.plans import ImageLimits, Pixels, Plan, check_memory, check_size, reduction
from emotion_yolo.imaging.refusals import out_of_memory, too_complex, undecodable

KIND = "WEBP"

MAX_CHUNKS = 5_000  # an animation has one for each frame
_ANIMATED, _HAS_ALPHA = 0x02, 0x10


@dataclass(frozen=True)
class _Still:
    size: tuple[int, int]
    chunks: bytes
    alpha: bool
    lossless: bool


def inspect(data: bytes, limits: ImageLimits, fit: int | None) -> Plan:
    """Walk the chunks and find the first frame.

    Raises:
        RefusedImageError: cut off, too complex, or out of the limits.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise undecodable(KIND)
    canvas: tuple[int, int] | None = None
    alpha = b""
    still: _Still | None = None
    corner = (0, 0)
    orientation = 1
    for kind, start, stop in _chunks(data, 12, end):
        if kind == b"VP8X":
            if stop - start < 10:
                raise undecodable(KIND)
            canvas = (1 + _number(data, start + 4, 3), 1 + _number(data, start + 7, 3))
            check_size(canvas, limits)
        elif kind == b"ANMF" and still is None:
            corner = (2 * _number(data, start, 3), 2 * _number(data, start + 3, 3))
            frame = (1 + _number(data, start + 6, 3), 1 + _number(data, start + 9, 3))
            still = _first_frame(data, start + 16, stop)
            if (
                canvas is None
                or still.size != frame
                or any(c + f > side for c, f, side in zip(corner, frame, canvas, strict=True))
            ):
                raise undecodable(KIND)
        elif kind == b"ALPH" and still is None:
            alpha = data[start - 8 : stop + (stop & 1)]
        elif kind in {b"VP8 ", b"VP8L"} and still is None:
            still = _read_bitstream(kind, data, start, stop, alpha)
            canvas = canvas or still.size
            if still.size != canvas:
                raise undecodable(KIND)
        elif kind == b"EXIF":
            orientation = read_orientation(data[start:stop])
    if still is None or canvas is None:
        raise undecodable(KIND)
    check_size(canvas, limits)
    factor = reduction(canvas, fit)
    placed = None if still.size == canvas and corner == (0, 0) else (*corner, *still.size)
    payload = _as_file(still)
    memory = _memory(still, canvas, factor, orientation, placed=placed is not None) + len(payload)
    check_memory(KIND, memory, limits)
    # Lossless streams, which opacity is coded in too, choose the number and size of their code tables.
    isolated = still.alpha or still.lossless or placed is not None
    return Plan(KIND, payload, canvas, factor, memory, orientation, isolated, fit=fit, placed=placed, alpha=still.alpha)


def _memory(still: _Still, canvas: tuple[int, int], factor: int, orientation: int, *, placed: bool) -> int:
    """Return the bytes for libwebp's result, its working copy or OpenCV's, the canvas, and what is made of them."""
    frame = still.size[0] * still.size[1]
    decoded = frame * (4 if still.alpha else 3)
    working = frame * (4 if still.lossless else 2 if still.alpha else 0) + 200 * still.size[0]
    result = 3 * canvas[0] * canvas[1] // factor**2 if still.alpha or factor > 1 else 0
    if placed:
        result = 3 * (frame + canvas[0] * canvas[1])
    turned = 3 * canvas[0] * canvas[1] // factor**2 if orientation > 1 else 0
    return decoded + max(working, decoded, result + turned + 20_000_000 * still.alpha)


def _chunks(data: bytes, position: int, end: int) -> list[tuple[bytes, int, int]]:
    found = []
    while position + 8 <= end:
        start = position + 8
        stop = start + _number(data, position + 4, 4)
        if stop > end:
            raise undecodable(KIND)
        found.append((data[position : position + 4], start, stop))
        if len(found) > MAX_CHUNKS:
            raise too_complex(KIND, "chunks", MAX_CHUNKS)
        position = stop + (stop & 1)
    return found


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "little")


def _first_frame(data: bytes, start: int, stop: int) -> _Still:
    alpha = b""
    for kind, begin, end in _chunks(data, start, stop):
        if kind == b"ALPH":
            alpha = data[begin - 8 : end + (end & 1)]
        elif kind in {b"VP8 ", b"VP8L"}:
            return _read_bitstream(kind, data, begin, end, alpha)
    raise undecodable(KIND)


def _read_bitstream(kind: bytes, data: bytes, start: int, stop: int, alpha: bytes) -> _Still:
    head = data[start : min(start + 10, stop)]
    chunk = data[start - 8 : stop] + b"\0" * (stop & 1)
    if kind == b"VP8L":
        if len(head) < 5 or head[0] != 0x2F:
            raise undecodable(KIND)
        bits = _number(head, 1, 4)
        size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        return _Still(size, chunk, alpha=bool(bits >> 28 & 1), lossless=True)
    if len(head) < 10 or head[3:6] != b"\x9d\x01\x2a":
        raise undecodable(KIND)
    size = (_number(head, 6, 2) & 0x3FFF, _number(head, 8, 2) & 0x3FFF)
    return _Still(size, alpha + chunk, alpha=bool(alpha), lossless=False)


def _as_file(still: _Still) -> bytes:
    body = still.chunks
    if still.alpha and not still.lossless:
        sides = b"".join((side - 1).to_bytes(3, "little") for side in still.size)
        body = b"VP8X" + (10).to_bytes(4, "little") + bytes([_HAS_ALPHA, 0, 0, 0]) + sides + body
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body


def decode(plan: Plan) -> Pixels:
    """Decode to RGB on white, reduced by `plan.factor`.

    Raises:
        RefusedImageError: damaged, or there is no memory.
    """
    try:
        flags = cv2.IMREAD_UNCHANGED if plan.alpha else cv2.IMREAD_COLOR
        decoded = cv2.imdecode(np.frombuffer(plan.payload, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise out_of_memory(KIND) from error
        raise undecodable(KIND) from error
    size = plan.placed[2:] if plan.placed else plan.size
    if decoded is None or decoded.shape[1::-1] != size:
        raise undecodable(KIND)
    samples = decoded.astype(np.uint8, copy=False)

    def rgb_of(top: int, bottom: int) -> Pixels:
        strip = samples[top:bottom]
        if strip.shape[2] == 4:
            return blend_on_white(Image.fromarray(cv2.cvtColor(strip, cv2.COLOR_BGRA2RGBA)))
        return np.ascontiguousarray(strip[..., ::-1])

    if plan.placed:
        left, top, width, height = plan.placed
        canvas = np.full((plan.size[1], plan.size[0], 3), 255, np.uint8)
        canvas[top : top + height, left : left + width] = assemble(size, 1, rgb_of)
        return shrink(canvas, plan.factor)
    if samples.shape[2] == 3:
        cv2.cvtColor(samples, cv2.COLOR_BGR2RGB, dst=samples)  # in place
        return shrink(samples, plan.factor)
    return assemble(size, plan.factor, rgb_of)
