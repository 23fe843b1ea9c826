"""JPEG (ITU-T T.81): baseline and progressive, 8 bits, with one, three or four components.

Inspection walks the markers, drops metadata, and counts what each scan will cost. libjpeg-turbo decodes, through
simplejpeg, which reports libjpeg's warnings instead of printing them: so a padded picture is told from a whole one.
"""

import re
from dataclasses import dataclass

import numpy as np
import simplejpeg

from emotion_yolo.imaging.exif import read_orientation
from emotion_yolo.imaging.plans import ImageLimits, Pixels, Plan, check_memory, check_size, reduction
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError, out_of_memory, too_complex, undecodable

KIND = "JPEG"

MAX_SEGMENTS = 1_000  # an ICC profile may have 255, a large XMP packet some 150
MAX_FILL = 4_096  # bytes of 0xFF, or of nothing known, between segments
MAX_SCANS = 100  # encoders write about ten
# Of all pixels of a picture at its limit, how often their coefficients may be visited: 14 in a usual progressive 4:4:4.
_MAX_VISITS = 24

_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_RESTARTS = frozenset(range(0xD0, 0xD8))
_NEEDED = frozenset(
    {0xC4, 0xDB, 0xDD, 0xCC}
)  # Huffman and quantisation tables, restart interval, arithmetic conditions
# A marker, as against a 0xFF of the compressed data (stuffed with 0x00), restart markers and fill.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
# libjpeg's warnings that mean lost pixels (jerror.h); others, such as a few stray bytes before a marker, are harmless.
# Many of them are compressed data that nobody asked for: what came before was not the picture's.
_LOST = re.compile(r"premature end|bad Huffman|found marker|Unsupported marker|\d{3,} extraneous bytes", re.IGNORECASE)

# Reductions that libjpeg's inverse DCT does at a fraction of the cost.
_REDUCTIONS = (8, 4, 2)
_STRIP_PX = 1_000_000


@dataclass(frozen=True)
class _Component:
    identifier: int
    h: int
    v: int


@dataclass(frozen=True)
class _Frame:
    marker: int
    size: tuple[int, int]
    components: tuple[_Component, ...]

    def coefficients(self) -> dict[int, int]:
        """Return the number of coefficients of each component, in whole blocks of 64."""
        width, height = self.size
        h_max, v_max = max(c.h for c in self.components), max(c.v for c in self.components)
        return {
            c.identifier: -(-width * c.h // (8 * h_max)) * -(-height * c.v // (8 * v_max)) * 64 for c in self.components
        }


def inspect(data: bytes, limits: ImageLimits, fit: int | None) -> Plan:
    """Walk the markers to the end of the image.

    Raises:
        RefusedImageError: cut off, too complex, out of the limits, or coded in a way that is not supported.
    """
    kept = [b"\xff\xd8"]
    frame: _Frame | None = None
    orientation, inverted = 0, False
    position, segments, scans, visits, stray = 2, 0, 0, 0, 0
    while True:
        found = _next_marker(data, position)
        stray += found - position - 2
        if stray > MAX_FILL:
            raise too_complex(KIND, "bytes between its segments", MAX_FILL)
        segments += 1
        if segments > MAX_SEGMENTS:
            raise too_complex(KIND, "segments", MAX_SEGMENTS)
        position, marker = found, data[found - 1]
        if marker == _EOI:
            break
        if marker in _RESTARTS or marker in {_SOI, _TEM}:
            continue
        end = position + int.from_bytes(data[position : position + 2], "big")
        if end < position + 2 or end > len(data):
            raise undecodable(KIND)
        body = data[position + 2 : end]
        if marker in _FRAMES:
            if frame is not None:
                raise undecodable(KIND)
            frame = _read_frame(marker, body)
            check_size(frame.size, limits)
        elif marker == _APP1:
            if body.startswith(b"Exif\0\0") and not orientation:
                orientation = read_orientation(body)
        elif marker == _APP14 and body.startswith(b"Adobe"):
            inverted = True
        if marker == _SOS:
            members = _members(body, frame)
            if frame is None or members is None:
                raise undecodable(KIND)
            scans += 1
            coefficients = frame.coefficients()
            visits += sum(coefficients.get(member, 0) for member in members)
            if scans > MAX_SCANS:
                raise too_complex(KIND, "scans", MAX_SCANS)
            if visits > _MAX_VISITS * limits.max_pixels:
                raise too_complex(KIND, "coefficients in all its scans", _MAX_VISITS * limits.max_pixels)
            if frame.marker != _PROGRESSIVE and scans == 1 and len(members) == len(frame.components):
                # The only scan: everything up to the end of the image is its data.
                last = data.find(b"\xff\xd9", end)
                if last < 0:
                    raise undecodable(KIND)
                kept.append(data[position - 2 : last + 2])
                return _plan(kept, frame, limits, fit, orientation, inverted, buffered=False)
            following = _MARKER.search(data, end)
            if following is None:
                raise undecodable(KIND)
            kept.append(data[position - 2 : following.start()])
            position = following.start()
            continue
        jfif = marker == _APP0 and body.startswith(b"JFIF\0")
        adobe = marker == _APP14 and body.startswith(b"Adobe")
        if marker in _NEEDED or marker in _FRAMES or jfif or adobe:
            kept.append(data[position - 2 : end])
        position = end
    if frame is None or not scans:
        raise undecodable(KIND)
    kept.append(b"\xff\xd9")
    return _plan(kept, frame, limits, fit, orientation, inverted, buffered=True)


def _next_marker(data: bytes, position: int) -> int:
    """Return the place behind the next marker's code, past fill and stray bytes."""
    found = data.find(b"\xff", position, position + MAX_FILL + 2)
    while found >= 0:
        code = found + 1
        while data[code : code + 1] == b"\xff" and code - position <= MAX_FILL + 2:
            code += 1
        if data[code : code + 1] == b"\xff":
            raise too_complex(KIND, "bytes between its segments", MAX_FILL)
        if code >= len(data):
            break
        if data[code]:
            return code + 1
        found = data.find(b"\xff", code, position + MAX_FILL + 2)
    if position + MAX_FILL + 2 < len(data):
        raise too_complex(KIND, "bytes between its segments", MAX_FILL)
    raise undecodable(KIND)


def _read_frame(marker: int, body: bytes) -> _Frame:
    if marker not in {_BASELINE, _EXTENDED, _PROGRESSIVE}:
        message = f"the JPEG's coding process is {marker - 0xC0}, expected baseline or progressive Huffman coding"
        raise RefusedImageError(Refusal.UNSUPPORTED_FORMAT, f"{message}; save it as one of these")
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise undecodable(KIND)
    if body[0] != 8 or body[5] not in {1, 3, 4}:
        message = f"the JPEG has {body[5]} components of {body[0]} bits, expected 1, 3 or 4 of 8 bits; convert it"
        raise RefusedImageError(Refusal.UNSUPPORTED_PIXELS, message)
    components = tuple(_Component(body[i], body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, 6 + 3 * body[5], 3))
    if not all(1 <= c.h <= 4 and 1 <= c.v <= 4 for c in components):
        raise undecodable(KIND)
    return _Frame(marker, (int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")), components)


def _members(body: bytes, frame: _Frame | None) -> list[int] | None:
    """Return the component identifiers of a scan's header; None where it is none."""
    if frame is None or not body or not 1 <= body[0] <= len(frame.components) or len(body) < 4 + 2 * body[0]:
        return None
    return [body[1 + 2 * i] for i in range(body[0])]


def _plan(
    kept: list[bytes],
    frame: _Frame,
    limits: ImageLimits,
    fit: int | None,
    orientation: int,
    inverted: bool,
    *,
    buffered: bool,
) -> Plan:
    width, height = frame.size
    wanted = reduction(frame.size, fit)
    factor = next((r for r in _REDUCTIONS if r <= wanted), 1)
    payload = b"".join(kept)
    pixels = -(-width // factor) * -(-height // factor)
    # Turning a picture upright copies it; CMYK is decoded as such first. Rows of all components are buffered.
    per_pixel = (7 if len(frame.components) == 4 else 3) + (3 if orientation > 1 else 0)
    memory = pixels * per_pixel + len(payload) + 500 * width
    if buffered:
        memory += 2 * sum(frame.coefficients().values())
    check_memory(KIND, memory, limits)
    kind = "JPEG/CMYK" if len(frame.components) == 4 else KIND
    return Plan(kind, payload, frame.size, factor, memory, orientation or 1, fit=fit, inverted=inverted)


def decode(plan: Plan) -> Pixels:
    """Decode to RGB, reduced by `plan.factor`.

    Raises:
        RefusedImageError: pixels are missing, or there is no memory.
    """
    pixels = _decompress(plan, "CMYK" if plan.kind == "JPEG/CMYK" else "RGB")
    return _cmyk_to_rgb(pixels, inverted=plan.inverted) if plan.kind == "JPEG/CMYK" else pixels


def _decompress(plan: Plan, colorspace: str) -> Pixels:
    width, height = (-(-side // plan.factor) for side in plan.size)
    for strict in (True, False):
        try:
            pixels = simplejpeg.decode_jpeg(
                plan.payload,
                colorspace,
                min_width=width if plan.factor > 1 else 0,
                min_height=height if plan.factor > 1 else 0,
                min_factor=plan.factor,
                strict=strict,
            )
        except ValueError as error:
            if "memory" in str(error).lower():
                raise out_of_memory(KIND) from error
            if not strict or _LOST.search(str(error)):
                raise undecodable(KIND) from error
        else:
            if pixels.shape[:2] != (height, width):
                raise undecodable(KIND)
            return np.asarray(pixels, np.uint8)
    raise undecodable(KIND)


def _cmyk_to_rgb(cmyk: Pixels, *, inverted: bool) -> Pixels:
    height, width = cmyk.shape[:2]
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(_STRIP_PX // width, 1)
    for top in range(0, height, rows):
        strip = cmyk[top : top + rows].astype(np.uint16)
        if not inverted:
            strip = 255 - strip
        rgb[top : top + rows] = (strip[..., :3] * strip[..., 3:] + 127) // 255
    return rgb
