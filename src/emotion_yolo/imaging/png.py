"""PNG (ISO/IEC 15948), the still picture of an APNG included."""

from emotion_yolo.imaging.exif import read_orientation
from emotion_yolo.imaging.plans import ImageLimits, Plan, check_memory, check_size, reduction
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError, too_complex, undecodable

KIND = "PNG"
SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_CHUNKS = 2_000  # and one more for each KiB: encoders write chunks of 8 KiB and more
# Bytes of samples for each pixel at its limit: eight-bit RGBA. Deeper pictures may have fewer pixels.
_SAMPLE_BYTES = 4
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}


def inspect(data: bytes, limits: ImageLimits, fit: int | None) -> Plan:
    """Walk the chunks to the end of the image.

    Raises:
        RefusedImageError: cut off, too complex, or out of the limits.
    """
    most = MAX_CHUNKS + len(data) // 1024
    position, chunks, orientation = len(SIGNATURE), 0, 1
    header = palette = transparency = b""
    first = last = 0  # of the image data, which may not be interrupted
    while True:
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if end > len(data):
            raise undecodable(KIND)
        chunks += 1
        if chunks > most:
            raise too_complex(KIND, "chunks", most)
        if chunks == 1:
            if kind != b"IHDR" or length != 13:
                raise undecodable(KIND)
            header = data[position:end]
            _check_header(header, limits)
        elif kind == b"PLTE" and not palette:
            palette = data[position:end]
        elif kind == b"tRNS" and not first:
            transparency = data[position:end]
        elif kind == b"eXIf":
            orientation = read_orientation(data[position + 8 : end - 4])
        elif kind == b"IDAT":
            if first and last != position:
                raise undecodable(KIND)
            first, last = first or position, end
        elif kind == b"IEND":
            break
        position = end
    if not first or len(palette) > 12 + 768 or len(transparency) > 12 + 256:
        raise undecodable(KIND)
    size = _size(header)
    colour, depth = header[17], header[16]
    payload = b"".join([SIGNATURE, header, palette, transparency, data[first:last], data[position:end]])
    factor = reduction(size, fit)
    # Pillow keeps one byte for grey and palettes, two for deep grey, else four.
    stored = 4 if colour in {2, 4, 6} or transparency else 2 if depth == 16 else 1
    memory = memory_of(size, stored, factor, orientation) + len(payload)
    check_memory(KIND, memory, limits)
    return Plan(KIND, payload, size, factor, memory, orientation, fit=fit)


def memory_of(size: tuple[int, int], stored: int, factor: int, orientation: int) -> int:
    """Return the bytes that a picture takes which Pillow holds in `stored` bytes a pixel and `pillow.rgb` converts."""
    result = 3 * (size[0] // factor) * (size[1] // factor) * (2 if orientation > 1 else 1)
    strip = 16 * min(size[0] * size[1], 1_000_000 + size[0] * factor)
    return stored * size[0] * size[1] + result + strip


def _size(header: bytes) -> tuple[int, int]:
    return int.from_bytes(header[8:12], "big"), int.from_bytes(header[12:16], "big")


def _check_header(header: bytes, limits: ImageLimits) -> None:
    width, height = _size(header)
    depth, colour, compression, filters, interlace = header[16:21]
    if depth not in _DEPTHS.get(colour, set()) or compression or filters or interlace > 1:
        raise undecodable(KIND)
    check_size((width, height), limits)
    samples = (width * _CHANNELS[colour] * depth + 7) // 8 * height
    if samples > _SAMPLE_BYTES * limits.max_pixels:
        message = f"the PNG has {samples:,} bytes of samples, expected at most {_SAMPLE_BYTES * limits.max_pixels:,}"
        raise RefusedImageError(Refusal.TOO_MANY_PIXELS, f"{message}; scale it down, or save it with 8 bits a sample")
