"""The one EXIF tag that changes how a picture looks, read without the rest (Exif 2.32, 4.6.2 and 4.6.4 A)."""

from collections.abc import Callable

import numpy as np

from emotion_yolo.imaging.plans import Pixels

ORIENTATION = 0x0112
_MAX_TAGS = 512
_SHORT, _LONG = 3, 4

# The turns that undo each orientation.
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


def read_orientation(block: bytes) -> int:
    """Return the orientation 1-8 that an EXIF block (a TIFF header and directory) states; 1 where it states none."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(block[:4])
    if order is None:
        return 1

    def number(place: int, size: int) -> int:
        return int.from_bytes(block[place : place + size], "little" if order == "little" else "big")

    directory = number(4, 4)
    for index in range(min(number(directory, 2), _MAX_TAGS)):
        entry = directory + 2 + 12 * index
        if number(entry, 2) == ORIENTATION:
            kind = number(entry + 2, 2)
            value = number(entry + 8, 4 if kind == _LONG else 2) if kind in {_SHORT, _LONG} else 1
            return value if value in _UPRIGHT else 1
    return 1


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return stored pixels [h, w, 3] turned upright."""
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)) if orientation in _UPRIGHT else pixels


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return the width and height of a picture after `turn_upright`."""
    return size if orientation < 5 else (size[1], size[0])
