"""GIF (87a, 89a): the first frame."""

from emotion_yolo.imaging.plans import ImageLimits, Plan, check_memory, check_size, reduction
from emotion_yolo.imaging.png import memory_of
from emotion_yolo.imaging.refusals import too_complex, undecodable

KIND = "GIF"

MAX_EXTENSIONS = 1_000
MAX_BLOCKS = 1_000  # and one more for each 64 bytes: encoders write blocks of 255 bytes
_IMAGE, _EXTENSION, _CONTROL = 0x2C, 0x21, 0xF9


def inspect(data: bytes, limits: ImageLimits, fit: int | None) -> Plan:
    """Walk the blocks to the end of the first frame.

    Raises:
        RefusedImageError: cut off, too complex, or out of the limits.
    """
    if len(data) < 13:
        raise undecodable(KIND)
    screen = (int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"))
    position = 13 + _table_bytes(data[10])
    kept, control = [data[:position]], b""
    extensions = 0
    while True:
        kind = data[position] if position < len(data) else 0
        if kind == _EXTENSION:
            extensions += 1
            if extensions > MAX_EXTENSIONS:
                raise too_complex(KIND, "extensions", MAX_EXTENSIONS)
            end = _skip_blocks(data, position + 2)
            if data[position + 1] == _CONTROL:
                control = data[position:end]
            position = end
        elif kind == _IMAGE and position + 11 <= len(data):
            left, top, width, height = (
                int.from_bytes(data[i : i + 2], "little") for i in range(position + 1, position + 9, 2)
            )
            end = _skip_blocks(data, position + 11 + _table_bytes(data[position + 9]))
            break
        else:
            raise undecodable(KIND)
    kept += [control, data[position:end], b";"]
    check_size((width, height), limits)
    size = (max(screen[0], left + width), max(screen[1], top + height))  # as Pillow has it
    check_size(size, limits)
    factor = reduction(size, fit)
    payload = b"".join(kept)
    memory = memory_of(size, 1, factor, 1) + len(payload)
    check_memory(KIND, memory, limits)
    return Plan(KIND, payload, size, factor, memory, isolated=True, fit=fit)


def _table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(data: bytes, position: int) -> int:
    """Return the place behind a chain of data blocks."""
    most = MAX_BLOCKS + len(data) // 64
    for _ in range(most):
        if position >= len(data):
            raise undecodable(KIND)
        length = data[position]
        position += 1 + length
        if not length:
            return position
    raise too_complex(KIND, "data blocks", most)
