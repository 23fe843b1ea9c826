"""Pictures made to cost their reader more than they cost their sender, and what each costs the decoder.

python -m benchmarks.attacks [--bytes 10000000]
"""

import argparse
import os
import resource
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from emotion_yolo.imaging import ImageLimits, RefusedImageError, inspect
from emotion_yolo.isolation.pool import DecoderPool

_HUGE = (26_000, 27_200)


def attacks(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield named files of about `size` bytes, or less where that does not matter."""
    for name, build in ATTACKS.items():
        yield name, build(size)


def jpeg(head: bytes = b"", *, width: int = 64, height: int = 64, sof: int = 0xC0) -> bytes:
    """Return a grey JPEG, black in every block, with `head` before its tables."""
    blocks = -(-width // 8) * -(-height // 8)
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    for table in (0x00, 0x10):
        tables += segment(
            0xC4, bytes([table]) + b"\1" + bytes(15) + b"\0"
        )  # one code, `0`: no difference, end of block
    frame = segment(sof, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    return b"\xff\xd8" + head + tables + frame + scan(blocks) + b"\xff\xd9"


def scan(blocks: int, *, progressive: bool = False) -> bytes:
    """Return a scan of the only component: all of it, or the DC coefficients of a progressive picture."""
    bits = blocks * (1 if progressive else 2)
    return segment(0xDA, b"\1\1\0\0" + (b"\0" if progressive else b"\x3f") + b"\0") + bytes(-(-bits // 8))


def segment(marker: int, body: bytes) -> bytes:
    """Return a JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0, raw: bytes | None = None) -> bytes:
    """Return a PNG with further chunks before its data."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    rows = bytes((1 + width * channels * depth // 8) * height) if raw is None else b""
    data = zlib.compress(rows, 9) if raw is None else raw
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deflated(count: int) -> bytes:
    """Return `count` zeros, compressed a thousandfold."""
    compressor = zlib.compressobj(9)
    zeros = bytes(1_000_000)
    parts = [compressor.compress(zeros[: count - done]) for done in range(0, count, len(zeros))]
    return b"".join(parts) + compressor.flush()


def tiff(*entries: tuple[int, int, int, bytes], size: tuple[int, int] = (64, 64), data: bytes = b"") -> bytes:
    """Return a grey TIFF; an entry is tag, type, count and values, and replaces what the picture would have."""
    short, long = 3, 4
    standard = {
        256: (long, 1, struct.pack("<I", size[0])),
        257: (long, 1, struct.pack("<I", size[1])),
        258: (short, 1, struct.pack("<H", 8)),
        259: (short, 1, struct.pack("<H", 1)),
        262: (short, 1, struct.pack("<H", 1)),
        277: (short, 1, struct.pack("<H", 1)),
    }
    table = standard | {tag: rest for tag, *rest in entries}
    place = 8 + len(data)
    values, directory = b"", b""
    for tag in sorted(table):
        kind, count, value = table[tag]
        if len(value) > 4:
            directory += struct.pack("<HHII", tag, kind, count, place + len(values))
            values += value + bytes(len(value) % 2)
        else:
            directory += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return (
        b"II*\0"
        + struct.pack("<I", place + len(values))
        + data
        + values
        + struct.pack("<H", len(table))
        + directory
        + bytes(4)
    )


def tiled_tiff(tile: tuple[int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    """Return a TIFF whose only tile, of zeros, is deflated."""
    data = deflated(tile[0] * tile[1])
    data += bytes(len(data) % 2)
    long = [(322, tile[0]), (323, tile[1]), (324, 8), (325, len(data))]
    entries = [(tag, 4, 1, struct.pack("<I", value)) for tag, value in long]
    return tiff(*entries, (259, 3, 1, struct.pack("<H", 8)), size=size, data=data)


def striped_tiff(count: int) -> bytes:
    """Return a TIFF of one row a strip that names `count` strips."""
    places, lengths = struct.pack("<I", 8) * count, struct.pack("<I", 64) * count
    rows = (278, 4, 1, struct.pack("<I", 1))
    return tiff((273, 4, count, places), (279, 4, count, lengths), rows, data=bytes(64))


def bmp_rle(width: int, height: int) -> bytes:
    """Return a BMP of run lengths, each of one px."""
    rows = (b"\1\0" * width + b"\0\0") * height + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(rows), 0, 0, 256, 0)
    offset = 14 + len(header) + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + bytes(1024) + rows


def gif(size: tuple[int, int] = (64, 64), *, before: bytes = b"", blocks: bytes = b"\2\x44\1") -> bytes:
    """Return a GIF of two colours whose only frame has the data `blocks`."""
    head = b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + bytes(6)
    return head + before + b"\x2c" + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\2" + blocks + b"\0;"


def webp(width: int, height: int, *, alpha: bool = True) -> bytes:
    """Return a lossless WebP of one colour: some 40 bytes for any size."""
    bits: list[int] = []

    def put(value: int, count: int) -> None:
        bits.extend(value >> i & 1 for i in range(count))

    put(0x2F, 8), put(width - 1, 14), put(height - 1, 14), put(alpha, 1), put(0, 3)
    put(0, 1), put(0, 1), put(0, 1)  # no transforms, no colour cache, one group of codes
    for symbol in (128, 1, 2, 3, 0):  # green, red, blue, opacity, distance: codes of one symbol, which take no bits
        put(1, 1), put(0, 1), put(1, 1), put(symbol, 8)
    data = bytes(sum(bit << i for i, bit in enumerate(bits[j : j + 8])) for j in range(0, len(bits), 8))
    data += bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def _exif_block(rationals: int) -> bytes:
    head = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x9999, 5, rationals, 26, 0)
    return head + bytes(8 * rationals)


def _heif(boxes: int) -> bytes:
    free = struct.pack(">I4s", 8, b"free")
    return struct.pack(">I4s4sI4s", 24, b"ftyp", b"heic", 0, b"mif1") + bytes(4) + free * boxes


_EXIF = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0")

ATTACKS: dict[str, Callable[[int], bytes]] = {
    "jpeg: EXIF segments": lambda n: jpeg(_EXIF * (n // len(_EXIF))),
    "jpeg: large EXIF segments": lambda n: jpeg(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * (n // 65_000 - 1)),
    "jpeg: empty segments": lambda n: jpeg(b"\xff\xef\0\2" * (n // 4 - 100)),
    "jpeg: fill bytes": lambda n: jpeg(b"\xff" * (n - 1_000)),
    "jpeg: stray bytes": lambda n: jpeg(b"\0" * (n - 1_000)),
    "jpeg: tables": lambda n: jpeg(segment(0xDB, b"\0" + b"\1" * 64) * (n // 70)),
    "jpeg: scans": lambda _: (
        jpeg(width=5_000, height=5_000, sof=0xC2)[:-2] + scan(390_625, progressive=True) * 150 + b"\xff\xd9"
    ),
    "png: chunks": lambda n: png(64, 64, chunk(b"teSt", b"") * (n // 12 - 10)),
    "png: data chunks": lambda n: png(64, 64, chunk(b"IDAT", b"") * (n // 12 - 10)),
    "png: text": lambda n: png(64, 64, chunk(b"zTXt", b"k\0\0" + deflated(10 * n))),
    "png: EXIF rationals": lambda n: png(64, 64, chunk(b"eXIf", _exif_block(n // 8 - 20))),
    "png: data behind the picture": lambda n: png(64, 64, raw=deflated(50 * n)),
    "png: 16 bits": lambda _: png(5_000, 5_000, depth=16, colour=6, raw=deflated(201_000_000)),
    "gif: blocks of a byte": lambda n: gif(blocks=b"\1\0" * (n // 2 - 100)),
    "gif: extensions": lambda n: gif(before=b"\x21\xfe\0" * (n // 3 - 100)),
    "bmp: run lengths": lambda n: bmp_rle(2_000, n // 4_100),
    "tiff: strips": lambda n: striped_tiff(n // 8 - 100),
    "tiff: tile of 16,384²": lambda _: tiled_tiff((16_384, 16_384)),
    "tiff: tile of 26,000×27,200": lambda _: tiled_tiff(_HUGE),
    "tiff: tile of 5,008²": lambda _: tiled_tiff((5_008, 5_008), (5_000, 5_000)),
    "tiff: tags": lambda n: tiff((65_000, 5, n // 8 - 100, bytes(8 * (n // 8 - 100))), data=bytes(4_096)),
    "webp: 5,000² with alpha": lambda _: webp(5_000, 5_000),
    "webp: 4,300² with alpha": lambda _: webp(4_300, 4_300),
    "webp: 4,600² without alpha": lambda _: webp(4_600, 4_600, alpha=False),
    "heif: boxes": lambda n: _heif(n // 8 - 10),
}


def cost(data: bytes, *, cpu_s: float) -> tuple[float, float, str]:
    """Return the CPU seconds that a file costs, the MB by which it raises a process's memory, and its outcome.

    It is for a process of its own: the peak of ended processes is that of all of them.
    """
    limits = ImageLimits()
    pool = DecoderPool(limits, seats=1, cpu_s=cpu_s)
    pool.decode(inspect(bmp_rle(16, 16), limits), timeout_s=60)  # starts the process
    (worker,) = pool.processes
    Path("/proc/self/clear_refs").write_text("5")
    held_mb, worker_mb = _status_mb("VmRSS"), _status_mb("VmRSS", worker)
    begin = time.process_time() + _cpu_s(worker)
    try:
        picture = pool.decode(inspect(data, limits, fit=512), timeout_s=60)
        outcome = f"{picture.pixels.shape[1]}×{picture.pixels.shape[0]}"
    except RefusedImageError as error:
        outcome = error.code
    seconds = time.process_time() + _cpu_s(worker) - begin
    grown_mb = _status_mb("VmHWM") - held_mb
    pool.close()
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return seconds, grown_mb + max(peak_mb - worker_mb, 0), outcome


def _status_mb(field: str, process: int | str = "self") -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _cpu_s(process: int) -> float:
    """Return the CPU seconds of a process and of its ended children."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, default=9_900_000)
    parser.add_argument("--cpu-s", type=float, default=0.75)
    options = parser.parse_args()
    print("| attack | bytes | CPU s | MB | outcome |\n|---|---|---|---|---|")
    for name, data in attacks(options.bytes):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            seconds, grown_mb, outcome = process.submit(cost, data, cpu_s=options.cpu_s).result()
        print(f"| {name} | {len(data):,} | {seconds:.2f} | {grown_mb:.0f} | {outcome} |", flush=True)


if __name__ == "__main__":
    main()
