"""What a file may cost: everything is judged before a decoder runs, and a decoder that overruns is stopped."""

import io
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from benchmarks.attacks import ATTACKS, bmp_rle, chunk, gif, jpeg, png, segment, striped_tiff, tiff, tiled_tiff, webp
from emotion_yolo.imaging import ImageLimits, Refusal, RefusedImageError, decode, decode_plan, inspect
from emotion_yolo.isolation.pool import DecoderPool

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning")]

pillow_heif.register_heif_opener()

LIMITS = ImageLimits()
SIZE = 300_000  # bytes of an attack: more than any count allows, small enough to be quick


def refused(data: bytes, limits: ImageLimits = LIMITS, *, fit: int | None = 512) -> Refusal:
    with pytest.raises(RefusedImageError) as raised:
        inspect(data, limits, fit=fit)
    return raised.value.code


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("jpeg: EXIF segments", Refusal.TOO_COMPLEX),
        ("jpeg: empty segments", Refusal.TOO_COMPLEX),
        ("jpeg: fill bytes", Refusal.TOO_COMPLEX),
        ("jpeg: tables", Refusal.TOO_COMPLEX),
        ("jpeg: scans", Refusal.TOO_COMPLEX),
        ("png: chunks", Refusal.TOO_COMPLEX),
        ("png: data chunks", Refusal.TOO_COMPLEX),
        ("png: 16 bits", Refusal.TOO_MANY_PIXELS),
        ("gif: blocks of a byte", Refusal.TOO_COMPLEX),
        ("gif: extensions", Refusal.TOO_COMPLEX),
        ("tiff: strips", Refusal.TOO_COMPLEX),
        ("tiff: tile of 16,384²", Refusal.TOO_COMPLEX),
        ("tiff: tile of 5,008²", Refusal.TOO_MANY_PIXELS),
        ("webp: 5,000² with alpha", Refusal.TOO_MANY_PIXELS),
        ("heif: boxes", Refusal.TOO_COMPLEX),
    ],
)
def test_inspection_alone_refuses_what_would_cost_much(name: str, code: Refusal) -> None:
    assert refused(ATTACKS[name](SIZE)) is code


@pytest.mark.parametrize(
    "name", ["jpeg: large EXIF segments", "png: text", "png: EXIF rationals", "png: data behind the picture"]
)
def test_harmless_pictures_are_decoded_without_their_metadata(name: str) -> None:
    data = ATTACKS[name](SIZE)
    plan = inspect(data, LIMITS)
    assert name == "png: data behind the picture" or len(plan.payload) < len(data) / 2
    assert decode_plan(plan, LIMITS).image_wh == (64, 64)


def test_takes_a_jpeg_with_as_many_segments_as_photographs_have() -> None:
    profile = b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([i, 255]) + bytes(50)) for i in range(1, 256))
    packet = b"".join(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(500)) for _ in range(150))
    assert decode(jpeg(profile + packet), LIMITS).image_wh == (64, 64)


def test_takes_fill_bytes_up_to_a_page() -> None:
    assert decode(jpeg(b"\xff" * 4_000), LIMITS).image_wh == (64, 64)
    assert refused(jpeg(b"\xff" * 2_500 + segment(0xFE, b"x") + b"\xff" * 2_500)) is Refusal.TOO_COMPLEX


@pytest.mark.parametrize("sof", [0xC3, 0xC9, 0xCA])
def test_refuses_lossless_and_arithmetic_jpegs(sof: int) -> None:
    assert refused(jpeg(sof=sof)) is Refusal.UNSUPPORTED_FORMAT


def test_refuses_jpegs_of_12_bits() -> None:
    data = jpeg().replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x0c")
    assert refused(data) is Refusal.UNSUPPORTED_PIXELS


@pytest.mark.parametrize(
    "data",
    [
        jpeg().replace(b"\xff\xda", b"\xff\xfe"),  # no scan
        jpeg().replace(b"\1\x11\0", b"\1\0\0"),  # no sampling factor
        jpeg()[:2] + segment(0xC0, b"\x08\0\x40\0\x40\1\1\x11\0") + jpeg()[2:],  # two frames
        b"\xff\xd8\xff\xe0\0\1" + jpeg()[2:],  # a length below 2
        jpeg()[:-2],
        png(64, 64)[:33] + png(64, 64)[-12:],  # no data
        png(64, 64, chunk(b"PLTE", bytes(3_000))),
        png(64, 64, chunk(b"IDAT", b"") + chunk(b"tEXt", b"k\0v")),  # data interrupted
        png(64, 64).replace(b"\x08\0\0\0\0", b"\x07\0\0\0\0"),  # seven bits
        png(64, 64)[:-12],
        gif()[:20],
        bmp_rle(20, 20)[:40],
        striped_tiff(10),
        tiff((278, 4, 1, bytes(4))),
        tiff((322, 4, 1, struct.pack("<I", 64)), (323, 4, 1, struct.pack("<I", 64))),  # tiles that lie nowhere
        tiff((273, 4, 64, struct.pack("<I", 10**6) * 64), (279, 4, 64, struct.pack("<I", 64) * 64), (278, 4, 1, b"\1")),
        webp(64, 64)[:-3],
        webp(64, 64).replace(b"\x2f", b"\x2e"),
        b"RIFF\x0c\0\0\0WEBPEXIF\0\0\0\0",
        b"\0\0\0\x18ftypheic" + bytes(12),
    ],
)
def test_refuses_files_whose_structure_is_damaged(data: bytes) -> None:
    with pytest.raises(RefusedImageError) as raised:
        decode(data, LIMITS)
    assert raised.value.code is Refusal.UNDECODABLE


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ((259, 3, 1, struct.pack("<H", 34_925)), Refusal.UNSUPPORTED_FORMAT),  # LZMA
        ((277, 3, 1, struct.pack("<H", 200)), Refusal.UNSUPPORTED_PIXELS),
        ((258, 3, 1, struct.pack("<H", 64)), Refusal.UNSUPPORTED_PIXELS),
        ((256, 4, 1, struct.pack("<I", 30_000)), Refusal.BAD_DIMENSIONS),
    ],
)
def test_refuses_tiffs_of_other_kinds(entry: tuple[int, int, int, bytes], code: Refusal) -> None:
    assert refused(tiff(entry)) is code


def test_takes_a_tile_that_is_larger_than_a_small_picture() -> None:
    assert decode(tiled_tiff((256, 256)), LIMITS).image_wh == (64, 64)
    assert refused(tiled_tiff((2_048, 2_048))) is Refusal.TOO_COMPLEX
    assert refused(tiled_tiff((8, 8))) is Refusal.TOO_COMPLEX


def test_judges_the_canvas_and_every_frame() -> None:
    still = webp(64, 64)[12:]
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\x3f\0" * 2
    frame = b"ANMF" + struct.pack("<I", 16 + len(still)) + bytes(6) + b"\x3f\0\0" * 2 + bytes(4) + still
    body = b"WEBP" + canvas + frame
    assert refused(b"RIFF" + struct.pack("<I", len(body)) + body) is Refusal.TOO_MANY_PIXELS
    assert refused(gif((20_000, 20))) is Refusal.BAD_DIMENSIONS
    assert refused(tiff((257, 4, 1, struct.pack("<I", 16_384)), size=(16_384, 1))) is Refusal.TOO_MANY_PIXELS


def test_memory_counts_everything_that_a_decoder_holds() -> None:
    flat, striped = Image.new("RGB", (4_000, 4_000)), ImageLimits(max_memory=60_000_000)
    assert inspect(encoded(flat, "JPEG"), striped).memory < 60_000_000
    assert refused(encoded(flat, "JPEG", progressive=True), striped, fit=None) is Refusal.TOO_MANY_PIXELS
    assert inspect(encoded(flat, "JPEG"), LIMITS, fit=512).memory < 10_000_000
    assert refused(webp(4_000, 4_000), striped) is Refusal.TOO_MANY_PIXELS


def test_deep_pictures_may_have_fewer_pixels() -> None:
    limits = ImageLimits(max_pixels=10_000)
    assert inspect(png(100, 90, depth=8, colour=6), limits).size == (100, 90)
    assert refused(png(100, 90, depth=16, colour=6), limits) is Refusal.TOO_MANY_PIXELS


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    made = DecoderPool(LIMITS, seats=2, cpu_s=20)
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "HEIF", "WEBP"])
def test_a_process_of_its_own_decodes_the_same(pool: DecoderPool, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    plan = inspect(encoded(noise, kind, **({"lossless": True} if kind == "WEBP" else {})), LIMITS, fit=16)
    assert plan.isolated
    there, here = pool.decode(plan, timeout_s=60), decode_plan(plan, LIMITS)
    assert np.array_equal(there.pixels, here.pixels)
    assert (
        (there.image_wh, there.factor, there.format) == (here.image_wh, here.factor, here.format) == ((64, 48), 4, kind)
    )
    assert there.pixels.flags.writeable


def test_ordinary_pictures_need_no_process() -> None:
    unused = DecoderPool(LIMITS, seats=1, cpu_s=20)
    photo = Image.new("RGB", (64, 48))
    for kind in ("JPEG", "PNG", "WEBP"):
        assert unused.decode(inspect(encoded(photo, kind), LIMITS), timeout_s=60).image_wh == (64, 48)
    assert unused.processes == []


def test_a_refusal_comes_back_from_the_process(pool: DecoderPool) -> None:
    data = encoded(Image.new("L", (64, 48)), "GIF")
    damaged = data[:-6] + b"\0;"
    with pytest.raises(RefusedImageError) as raised:
        pool.decode(replace(inspect(data, LIMITS), payload=damaged), timeout_s=60)
    assert raised.value.code is Refusal.UNDECODABLE


def test_a_decoder_that_overruns_is_stopped_and_the_next_picture_is_decoded() -> None:
    hasty = DecoderPool(LIMITS, seats=1, cpu_s=0.02)
    try:
        for _ in range(2):
            with pytest.raises(RefusedImageError) as raised:
                hasty.decode(inspect(webp(4_000, 4_000), LIMITS), timeout_s=60)
            assert raised.value.code is Refusal.DECODE_TIMEOUT
            assert hasty.decode(inspect(bmp_rle(16, 16), LIMITS), timeout_s=60).image_wh == (16, 16)
    finally:
        hasty.close()


def test_a_decoder_gets_no_more_memory_than_its_plan_says(pool: DecoderPool) -> None:
    plan = inspect(webp(4_000, 4_000), LIMITS)
    with pytest.raises(RefusedImageError) as raised:
        pool.decode(replace(plan, memory=1_000_000), timeout_s=60)
    assert raised.value.code in {Refusal.TOO_COMPLEX, Refusal.UNDECODABLE}


def test_a_decoder_process_that_was_killed_is_replaced(pool: DecoderPool) -> None:
    plan = inspect(bmp_rle(16, 16), LIMITS)
    pool.decode(plan, timeout_s=60)
    for process in pool.processes:
        os.kill(process, signal.SIGKILL)
    time.sleep(0.1)
    assert pool.decode(plan, timeout_s=60).image_wh == (16, 16)


def test_time_that_runs_out_is_not_the_pictures_fault(pool: DecoderPool) -> None:
    with pytest.raises(TimeoutError):
        pool.decode(inspect(webp(4_000, 4_000), LIMITS), timeout_s=0.05)


def test_closing_ends_what_is_being_decoded() -> None:
    closing = DecoderPool(LIMITS, seats=1, cpu_s=60)
    closing.decode(inspect(bmp_rle(16, 16), LIMITS), timeout_s=60)
    (process,) = closing.processes
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            while True:
                closing.decode(inspect(webp(4_000, 4_000), LIMITS), timeout_s=60)
        except TimeoutError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.3)
    closing.close()
    thread.join(30)
    assert not thread.is_alive()
    assert len(outcome) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
