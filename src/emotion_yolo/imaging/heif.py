"""HEIF with HEVC pictures (ISO/IEC 23008-12), where the package `pillow-heif` is installed."""

import numpy as np
from PIL import Image

from emotion_yolo.imaging.pixels import assemble, blend_on_white
from emotion_yolo.imaging.plans import ImageLimits, Pixels, Plan, check_memory, check_size, reduction
from emotion_yolo.imaging.refusals import RefusedImageError, out_of_memory, too_complex, undecodable

try:
    import pillow_heif
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True
    pillow_heif.options.DECODE_THREADS = 1

KIND = "HEIF"
BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

MAX_BOXES = 2_000  # a photograph of 48 MP has some 200
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # bytes between the box's head and its children


def inspect(data: bytes, limits: ImageLimits, fit: int | None) -> Plan:
    """Walk the boxes and judge the largest picture or tile that they declare.

    Raises:
        RefusedImageError: cut off, too complex, or out of the limits.
    """
    sizes: list[tuple[int, int]] = []
    boxes, pending = 0, [(0, len(data))]
    while pending:
        position, end = pending.pop()
        while position < end:
            boxes += 1
            if boxes > MAX_BOXES:
                raise too_complex(KIND, "boxes", MAX_BOXES)
            length, kind, head = (
                int.from_bytes(data[position : position + 4], "big"),
                data[position + 4 : position + 8],
                8,
            )
            if length == 1:
                length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
            stop = end if length == 0 else position + length
            if stop > end or stop < position + head or position + head > end:
                raise undecodable(KIND)
            if kind in _CONTAINERS:
                pending.append((position + head + _CONTAINERS[kind], stop))
            elif kind == b"ispe":
                place = position + head + 4
                sizes.append(
                    (int.from_bytes(data[place : place + 4], "big"), int.from_bytes(data[place + 4 : place + 8], "big"))
                )
            position = stop
    if not sizes:
        raise undecodable(KIND)
    for size in sizes:
        if size[0] * size[1] > limits.max_pixels or max(size) > limits.max_side:
            check_size(size, limits)
    largest = max(sizes, key=lambda size: size[0] * size[1])
    check_size(largest, limits)
    factor = reduction(largest, fit)
    # Planes of 4:2:0 as libde265 and libheif hold them, and interleaved samples: measured, 5.6 bytes a pixel.
    area = largest[0] * largest[1]
    memory = 57 * area // 10 + (3 * area // factor**2 if factor > 1 else 0) + 2 * len(data) + 4_000_000
    check_memory(KIND, memory, limits)
    return Plan(KIND, data, largest, factor, memory, isolated=True, fit=fit)


def decode(plan: Plan, limits: ImageLimits) -> tuple[Pixels, tuple[int, int], int]:
    """Decode the primary picture, turned as the file says; returns RGB pixels, its full size, and the reduction.

    Raises:
        RefusedImageError: damaged, another size than was judged, or there is no memory.
    """
    try:
        image = pillow_heif.open_heif(plan.payload, convert_hdr_to_8bit=True)[0]
        check_size(image.size, limits)
        if image.size[0] * image.size[1] > plan.size[0] * plan.size[1]:
            raise undecodable(KIND)
        samples = np.asarray(image)
    except RefusedImageError:
        raise
    except MemoryError:
        raise out_of_memory(KIND) from None
    except Exception as error:  # libheif's errors come as several types
        if "memory" in str(error).lower():
            raise out_of_memory(KIND) from error
        raise undecodable(KIND) from error
    if samples.ndim != 3 or samples.shape[2] not in {3, 4} or samples.dtype != np.uint8:
        raise undecodable(KIND)
    size = (samples.shape[1], samples.shape[0])
    factor = reduction(size, plan.fit)
    if factor == 1 and samples.shape[2] == 3:
        return np.ascontiguousarray(samples), size, factor

    def rgb_of(top: int, bottom: int) -> Pixels:
        strip = samples[top:bottom]
        return blend_on_white(Image.fromarray(strip)) if strip.shape[2] == 4 else strip

    return assemble(size, factor, rgb_of), size, factor
