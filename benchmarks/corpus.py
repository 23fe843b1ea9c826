"""Bad files, made from a seed: pictures of every format and mode, mutated, and constructions that decoders died of."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

Mutation = Callable[[random.Random, bytes, list[bytes]], bytes]


def corpus(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield `count` named files: the hand-made ones first, then mutations of good pictures."""
    made = hand_made()
    yield from made[:count]
    rng = random.Random(seed)
    good = good_files()
    pool = [data for _, data in good]
    for number in range(max(count - len(made), 0)):
        name, data = rng.choice(good)
        steps = rng.choices(MUTATIONS, k=rng.choice((1, 1, 1, 2, 4)))
        for mutate in steps:
            data = mutate(rng, data, pool)
        yield f"{number}-{name}-{'+'.join(step.__name__ for step in steps)}", data[:2_000_000]


def good_files() -> list[tuple[str, bytes]]:
    """Return small pictures of each format, mode and compression that Pillow can write."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
    alpha = smooth.convert("RGBA")
    alpha.putalpha(128)
    exif = Image.Exif()
    exif[0x0112] = 6

    def frames() -> dict[str, Any]:
        # New ones each time: Pillow's writers leave their settings in them.
        return {"save_all": True, "append_images": [smooth.rotate(90), smooth.rotate(180)]}

    deep = Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 257)
    wanted: list[tuple[str, Image.Image, str, dict[str, Any]]] = [
        ("jpeg", smooth, "JPEG", {"exif": exif}),
        ("jpeg-progressive", smooth, "JPEG", {"progressive": True}),
        ("jpeg-grey", smooth.convert("L"), "JPEG", {}),
        ("jpeg-cmyk", smooth.convert("CMYK"), "JPEG", {}),
        ("jpeg-restart", smooth, "JPEG", {"restart_marker_rows": 1}),
        ("mpo", smooth, "MPO", frames()),
        ("png", smooth, "PNG", {"exif": exif}),
        ("png-palette", smooth.quantize(16), "PNG", {"transparency": 3}),
        ("png-alpha", alpha, "PNG", {}),
        ("png-16", deep, "PNG", {}),
        ("png-1", smooth.convert("1"), "PNG", {}),
        ("apng", smooth, "PNG", frames()),
        ("webp", smooth, "WEBP", {"exif": exif}),
        ("webp-lossless", alpha, "WEBP", {"lossless": True}),
        ("webp-animated", smooth, "WEBP", frames()),
        ("gif", smooth, "GIF", {}),
        ("gif-animated", smooth, "GIF", frames()),
        ("tiff", smooth, "TIFF", {"exif": exif}),
        ("tiff-lzw", smooth, "TIFF", {"compression": "tiff_lzw"}),
        ("tiff-deflate", alpha, "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("tiff-jpeg", smooth, "TIFF", {"compression": "jpeg"}),
        ("tiff-g4", smooth.convert("1"), "TIFF", {"compression": "group4"}),
        ("tiff-packbits", smooth, "TIFF", {"compression": "packbits"}),
        ("tiff-16", deep, "TIFF", {}),
        ("tiff-float", Image.new("F", (32, 32), 0.5), "TIFF", {}),
        ("tiff-pages", smooth, "TIFF", frames()),
        ("bmp", smooth, "BMP", {}),
        ("bmp-palette", smooth.quantize(16), "BMP", {}),
        ("bmp-1", smooth.convert("1"), "BMP", {}),
    ]
    files = [(name, _encoded(image, kind, options)) for name, image, kind, options in wanted]
    try:
        import pillow_heif
    except ImportError:
        return files
    pillow_heif.register_heif_opener()
    return [*files, ("heic", _encoded(smooth, "HEIF", {}))]


def hand_made() -> list[tuple[str, bytes]]:
    """Return constructions: empty, tiny, huge by their header, bombs, polyglots, endless scans, lying sizes."""
    black = Image.new("1", (16_000, 1_500))
    small = dict(good_files())
    archive = io.BytesIO(small["jpeg"])
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a") as entries:
        entries.writestr("x.sh", "true")
    progressive = small["jpeg-progressive"]
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    sizes = [(0, 0), (1, 1), (0, 100), (60_000, 1), (65_500, 65_500), (2**31 - 1, 2**31 - 1), (25_000_000, 1)]
    return [
        ("empty", b""),
        ("a-byte", b"\xff"),
        ("text", b"hello, world"),
        ("html", b"<html><script>alert(1)</script></html>"),
        ("pickle", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."),
        ("zeros", bytes(1_000_000)),
        ("signatures-only", b"\xff\xd8\xff"),
        *[(f"only-{sign[:4].hex()}", sign + bytes(40)) for sign in _SIGNATURES],
        *[(f"png-{w}x{h}", _png(w, h, b"")) for w, h in sizes],
        ("png-bomb", _png(5_000, 5_000, bytes(75_005_000))),
        ("png-too-many-pixels", _png(16_000, 16_000, bytes(100_000))),
        ("png-text-bomb", _png(96, 96, bytes(96 * 289), text=zlib.compress(bytes(100_000_000)))),
        ("png-icc-bomb", _png(96, 96, bytes(96 * 289), icc=zlib.compress(bytes(100_000_000)))),
        ("png-missing-data", _png(4_000, 4_000, bytes(100))),
        ("png-extra-data", _png(16, 16, bytes(10_000_000))),
        ("gif-huge-screen", _patched(small["gif"], 6, struct.pack("<HH", 65_535, 65_535))),
        ("gif-tiny-screen", _patched(small["gif"], 6, struct.pack("<HH", 1, 1))),
        ("bmp-huge", _patched(small["bmp"], 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1))),
        ("bmp-negative", _patched(small["bmp"], 18, struct.pack("<ii", -96, -72))),
        ("bmp-below-limit", _patched(small["bmp"], 18, struct.pack("<ii", 5_000, 5_000))),
        ("webp-huge", _patched(small["webp-animated"], 24, b"\xff" * 6)),
        ("jpeg-below-limit", _sized_jpeg(small["jpeg"], 5_000, 5_000)),
        ("jpeg-progressive-below-limit", _sized_jpeg(progressive, 5_000, 5_000)),
        ("jpeg-huge", _sized_jpeg(small["jpeg"], 65_500, 65_500)),
        ("jpeg-zero", _sized_jpeg(small["jpeg"], 0, 0)),
        ("jpeg-endless-scans", _sized_jpeg(progressive[:-2], 5_000, 5_000) + scan * 20_000 + b"\xff\xd9"),
        ("jpeg-and-zip", archive.getvalue()),
        ("jpeg-and-php", small["jpeg"] + b"<?php system('id'); __halt_compiler();"),
        ("gif-and-script", b"GIF89a/*" + bytes(30) + b"*/=1;alert(1)"),
        ("pdf-and-jpeg", b"\xff\xd8\xff\xe0\x00\x20%PDF-1.7" + small["jpeg"]),
        ("svg-bomb", b"<svg xmlns='http://www.w3.org/2000/svg' width='99999999' height='99999999'/>"),
        ("largest-black", _encoded(black, "PNG", {})),
        ("wide", _encoded(Image.new("1", (60_000, 12)), "PNG", {})),
        ("tall", _encoded(Image.new("1", (12, 60_000)), "TIFF", {})),
    ]


def _flip_bits(rng: random.Random, data: bytes, _: list[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 32)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_head(rng: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    return _flip_bits(rng, data[:80], pool) + data[80:]


def _truncate(rng: random.Random, data: bytes, _: list[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(rng: random.Random, data: bytes, _: list[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randrange(1, 400) :]


def _insert(rng: random.Random, data: bytes, _: list[bytes]) -> bytes:
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.randrange(1, 400)) + data[place:]


def _fill(rng: random.Random, data: bytes, _: list[bytes]) -> bytes:
    place, count = rng.randrange(len(data) + 1), rng.randrange(1, 64)
    return data[:place] + rng.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * count + data[place + count :]


def _repeat(rng: random.Random, data: bytes, _: list[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.randrange(1, 300)]
    return data[:start] + piece * rng.choice((2, 50, 500)) + data[start:]


def _splice(rng: random.Random, data: bytes, pool: list[bytes]) -> bytes:
    other = rng.choice(pool)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _number(rng: random.Random, data: bytes, _: list[bytes]) -> bytes:
    """Put a telling number where a size may be."""
    value = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 5_000, 16_384, 0x7FFFFFFF, 0xFFFFFFFF))
    form = rng.choice(("<I", ">I")) if value > 0xFFFF else rng.choice(("<H", ">H", "<I", ">I"))
    number = struct.pack(form, value)
    place = rng.randrange(max(min(len(data), 200), 1))
    return data[:place] + number + data[place + len(number) :]


MUTATIONS: list[Mutation] = [
    _flip_bits, _flip_head, _truncate, _drop, _insert, _fill, _repeat, _splice, _number, _number
]  # fmt: skip

_SIGNATURES = [
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\xff\xff\xff\xffWEBPVP8X",
    b"II*\0\x08\0\0\0\xff\xff",
    b"MM\0*\0\0\0\x08",
    b"BM\xff\xff",
    b"\0\0\0\x18ftypheic",
]


def _encoded(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def _patched(data: bytes, place: int, patch: bytes) -> bytes:
    return data[:place] + patch + data[place + len(patch) :]


def _sized_jpeg(data: bytes, width: int, height: int) -> bytes:
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return _patched(data, frame + 5, struct.pack(">HH", height, width))


def _png(width: int, height: int, raw: bytes, *, text: bytes = b"", icc: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    if text:
        parts.append(chunk(b"zTXt", b"k\0\0" + text))
    if icc:
        parts.append(chunk(b"iCCP", b"k\0\0" + icc))
    return b"".join([*parts, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")])
