"""TIFF 6.0: the first page, in strips or tiles.

The file gets a new directory with only the tags that its pixels need: metadata, further pages and
directories are not read.
"""

from collections.abc import Mapping
from typing import Literal

from emotion_yolo.imaging.exif import ORIENTATION
from emotion_yolo.imaging.plans import ImageLimits, Plan, check_memory, check_size, reduction
from emotion_yolo.imaging.png import memory_of
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError, too_complex, undecodable

KIND = "TIFF"

MAX_TAGS = 512
MAX_TILE_SIDE = 1_024  # px; a larger tile has at most the picture's own sides, in whole units of 16

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANAR = 256, 257, 258, 259, 277, 278, 284
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 322, 323, 324, 325
_SAMPLE_FORMAT, _EXTRA_SAMPLES = 339, 338
# Beside those: photometric interpretation, fill order, CCITT options, predictor, palette, inks, JPEG tables, YCbCr.
_KEPT = frozenset(
    {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, 262, 266, _STRIP_OFFSETS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, 292, 293}
    | {317, 320, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, 332, _EXTRA_SAMPLES, _SAMPLE_FORMAT, 347}
    | {529, 530, 531, 532}
)
# None, CCITT, LZW, JPEG, Deflate (two numbers), PackBits.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32_946, 32_773})
_FIXED_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_MAX_SAMPLES = 5

_Entries = Mapping[int, tuple[int, int, int]]
"""Type, count and place of the values of each tag."""


def inspect(data: bytes, limits: ImageLimits, fit: int | None) -> Plan:
    """Read the first directory.

    Raises:
        RefusedImageError: cut off, too complex, out of the limits, or coded in a way that is not supported.
    """
    reader = _Reader(data)
    size = (reader.one(_WIDTH), reader.one(_HEIGHT))
    check_size(size, limits)
    compression = reader.one(_COMPRESSION, 1)
    if compression not in _COMPRESSIONS:
        message = f"the TIFF's compression is {compression}, expected none, LZW, Deflate, PackBits, JPEG or CCITT"
        raise RefusedImageError(Refusal.UNSUPPORTED_FORMAT, f"{message}; save it with one of these")
    samples = reader.one(_SAMPLES, 1)
    if not 1 <= samples <= _MAX_SAMPLES:
        message = f"the TIFF has {samples} samples a pixel, expected 1 to {_MAX_SAMPLES}; convert it to RGB"
        raise RefusedImageError(Refusal.UNSUPPORTED_PIXELS, message)
    bits = max(reader.some(_BITS, _MAX_SAMPLES) or [1])
    if bits > 16 or reader.one(_SAMPLE_FORMAT, 1) not in {1, 4}:
        message = f"the TIFF's samples have {bits} bits or are no unsigned integers, expected integers of 8 or 16 bits"
        raise RefusedImageError(Refusal.UNSUPPORTED_PIXELS, f"{message}; convert it")
    planes = samples if reader.one(_PLANAR, 1) == 2 else 1
    unit = _check_tiles(reader, size, planes) if _TILE_WIDTH in reader.entries else _check_strips(reader, size, planes)
    unit_bytes = unit * bits * (samples if planes == 1 else 1) // 8
    factor = reduction(size, fit)
    stored = 4 if samples > 1 or bits == 8 else 2
    orientation = reader.one(ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    payload = reader.rewritten()
    memory = memory_of(size, stored, factor, orientation) + 2 * unit_bytes + 2 * len(payload)
    check_memory(KIND, memory, limits)
    return Plan(KIND, payload, size, factor, memory, orientation, isolated=True, fit=fit)


def _check_strips(reader: "_Reader", size: tuple[int, int], planes: int) -> int:
    """Check the number of strips and where they lie; returns the pixels of one."""
    rows = min(reader.one(_ROWS, size[1]), size[1])
    if not rows:
        raise undecodable(KIND)
    reader.check_places(_STRIP_OFFSETS, _STRIP_BYTES, -(-size[1] // rows) * planes, "strips")
    return rows * size[0]


def _check_tiles(reader: "_Reader", size: tuple[int, int], planes: int) -> int:
    """Check the size and number of tiles and where they lie; returns the pixels of one."""
    tile = (reader.one(_TILE_WIDTH), reader.one(_TILE_HEIGHT))
    for side, length in zip(size, tile, strict=True):
        most = max(MAX_TILE_SIDE, -(-side // 16) * 16)
        if not 16 <= length <= most:
            message = f"the TIFF's tiles measure {tile[0]}×{tile[1]} px, expected sides of 16 to {most}; save it again"
            raise RefusedImageError(Refusal.TOO_COMPLEX, message)
    count = -(-size[0] // tile[0]) * -(-size[1] // tile[1]) * planes
    reader.check_places(_TILE_OFFSETS, _TILE_BYTES, count, "tiles")
    return tile[0] * tile[1]


class _Reader:
    """The first directory of a TIFF file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
        place = self._number(4, 4)
        count = self._number(place, 2)
        if place < 8 or place + 2 + 12 * count > len(data):
            raise undecodable(KIND)
        if count > MAX_TAGS:
            raise too_complex(KIND, "tags", MAX_TAGS)
        self._raw: dict[int, bytes] = {}
        entries: dict[int, tuple[int, int, int]] = {}
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind, number = self._number(entry, 2), self._number(entry + 2, 2), self._number(entry + 4, 4)
            if tag not in _KEPT and tag != ORIENTATION:
                continue
            length = number * _FIXED_TYPES.get(kind, 8)
            values = entry + 8 if length <= 4 else self._number(entry + 8, 4)
            if tag in entries or values + length > len(data):
                raise undecodable(KIND)
            entries[tag] = (kind, number, values)
            if tag != ORIENTATION:
                self._raw[tag] = data[entry : entry + 12]
        self.entries: _Entries = entries

    def _number(self, place: int, size: int) -> int:
        return int.from_bytes(self._data[place : place + size], self._order)

    def some(self, tag: int, most: int) -> list[int]:
        """Return the first values of a tag, at most `most`."""
        kind, count, place = self.entries.get(tag, (3, 0, 0))
        size = {1: 1, 3: 2, 4: 4}.get(kind)
        if size is None:
            raise undecodable(KIND)
        return [self._number(place + i * size, size) for i in range(min(count, most))]

    def one(self, tag: int, default: int = 0) -> int:
        """Return the value of a tag."""
        values = self.some(tag, 1)
        return values[0] if values else default

    def check_places(self, offsets: int, lengths: int, expected: int, what: str) -> None:
        """Check that there are as many strips or tiles as the sizes ask for, all within the file."""
        count = self.entries.get(offsets, (0, 0, 0))[1]
        if count > expected:
            raise too_complex(KIND, what, expected)
        if count < expected:
            raise undecodable(KIND)
        places, sizes = self.some(offsets, expected), self.some(lengths, expected)
        if len(sizes) != len(places):
            raise undecodable(KIND)
        if any(place + size > len(self._data) for place, size in zip(places, sizes, strict=True)):
            raise undecodable(KIND)

    def rewritten(self) -> bytes:
        """Return the file with a directory that holds only what the pixels need."""
        place = len(self._data) + len(self._data) % 2
        order = self._order
        directory = len(self._raw).to_bytes(2, order) + b"".join(self._raw[tag] for tag in sorted(self._raw)) + bytes(4)
        head = self._data[:4] + place.to_bytes(4, order)
        return head + self._data[8:] + bytes(len(self._data) % 2) + directory
