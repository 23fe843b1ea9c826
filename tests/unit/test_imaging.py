import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from skimage.data import astronaut

from benchmarks.attacks import bmp_rle
from emotion_yolo.errors import ImageError
from emotion_yolo.imaging import ImageLimits, Refusal, RefusedImageError, decode, heif, read_rgb
from tests.api.conftest import encoded, painted

# Pillow warns of damaged metadata; here warnings would be errors.
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]

pillow_heif.register_heif_opener()

LIMITS = ImageLimits()
EXIF_ORIENTATION = 0x0112

# Left half red, right half blue, top row white: no symmetry that would hide a wrong turn.
_PATTERN = np.zeros((24, 48, 3), np.uint8)
_PATTERN[:, :24] = (255, 0, 0)
_PATTERN[:, 24:] = (0, 0, 255)
_PATTERN[:8] = (255, 255, 255)


def pattern() -> Image.Image:
    return Image.fromarray(_PATTERN)


def refused(data: bytes, limits: ImageLimits = LIMITS) -> Refusal:
    with pytest.raises(RefusedImageError) as raised:
        decode(data, limits)
    return raised.value.code


def near(pixels: np.ndarray, expected: np.ndarray, *, tolerance: float = 12) -> bool:
    return (
        pixels.shape == expected.shape and float(np.abs(pixels.astype(int) - expected.astype(int)).mean()) < tolerance
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF"])
def test_decodes_each_format_by_its_content(kind: str) -> None:
    picture = decode(encoded(pattern(), kind), LIMITS)
    assert (picture.format, picture.image_wh) == (kind, (48, 24))
    assert picture.pixels.dtype == np.uint8
    assert near(picture.pixels, _PATTERN, tolerance=30 if kind in {"WEBP", "HEIF", "JPEG"} else 1)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_takes_the_first_frame_of_an_animation(kind: str) -> None:
    black = Image.new("RGB", (48, 24))
    picture = decode(encoded(pattern(), kind, save_all=True, append_images=[black, black]), LIMITS)
    assert near(picture.pixels, _PATTERN, tolerance=30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_brings_every_mode_to_rgb(mode: str) -> None:
    grey = Image.fromarray(np.repeat(np.linspace(0, 255, 48).astype(np.uint8)[None], 24, axis=0))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert("RGB").convert("CMYK") if mode == "CMYK" else grey.convert(mode)
    picture = decode(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), LIMITS)
    expected = np.asarray((image if mode == "1" else grey).convert("RGB"))
    assert near(picture.pixels, expected, tolerance=10)


def test_keeps_the_scale_of_16_bit_colour() -> None:
    raw = b"".join(b"\0" + bytes([200, 7] * 3) * 16 for _ in range(16))
    assert decode(png(16, 16, raw, depth=16), LIMITS).pixels[3, 3].tolist() == [200, 200, 200]


def test_reads_cmyk_jpegs_as_they_look() -> None:
    picture = decode(encoded(pattern().convert("CMYK"), "JPEG", quality=95), LIMITS)
    assert near(picture.pixels, _PATTERN, tolerance=30)


def test_shows_transparent_parts_on_white() -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert decode(encoded(image), LIMITS).pixels[0, 0].tolist() == [255, 255, 255]
    palette = image.convert("P")
    assert decode(encoded(palette, transparency=palette.getpixel((0, 0))), LIMITS).pixels[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_pictures_upright(kind: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = pattern().transpose(undo[orientation]) if orientation in undo else pattern()
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    picture = decode(encoded(stored, kind, exif=exif), LIMITS)
    assert picture.image_wh == (48, 24)
    assert near(picture.pixels, _PATTERN, tolerance=30)


def test_ignores_an_exif_block_that_cannot_be_read() -> None:
    plain = encoded(pattern(), "JPEG")
    broken = plain[:2] + b"\xff\xe1" + struct.pack(">H", 16) + b"Exif\0\0II*\0\xff\xff\xff\x7f" + plain[2:]
    assert decode(broken, LIMITS).image_wh == (48, 24)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_reduces_large_pictures_but_not_below_what_is_asked(kind: str) -> None:
    picture = decode(encoded(painted(), kind), LIMITS, fit=100)
    assert picture.image_wh == (960, 960)
    assert 100 <= max(picture.pixels.shape) < 240
    whole = np.asarray(painted().resize(picture.pixels.shape[1::-1], Image.Resampling.BOX))
    assert near(picture.pixels, whole, tolerance=4)


@settings(deadline=None)
@given(st.integers(8, 700), st.integers(8, 700), st.integers(32, 640))
def test_a_reduced_picture_keeps_its_proportions(width: int, height: int, fit: int) -> None:
    picture = decode(encoded(Image.new("RGB", (width, height)), "JPEG"), LIMITS, fit=fit)
    h, w = picture.pixels.shape[:2]
    assert picture.image_wh == (width, height)
    assert max(w, h) >= min(fit, max(width, height))
    assert abs(w / width - h / height) <= 1 / min(width, height)


@pytest.mark.parametrize(
    "data", [b"hello", b"%PDF-1.7", b"RIFF....WAVEfmt ", b"\x7fELF" + bytes(60), b"GIF", bytes(99)]
)
def test_refuses_what_is_no_picture(data: bytes) -> None:
    assert refused(data) is Refusal.UNSUPPORTED_FORMAT


def test_refuses_an_empty_file() -> None:
    assert refused(b"") is Refusal.EMPTY_FILE


def test_refuses_too_many_bytes() -> None:
    assert refused(encoded(pattern()), ImageLimits(max_bytes=50)) is Refusal.TOO_LARGE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF"])
@pytest.mark.parametrize("part", [0.2, 0.6])
def test_refuses_truncated_files(kind: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    assert refused(data[: int(len(data) * part)]) is Refusal.UNDECODABLE


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
def test_refuses_sides_outside_the_limits(kind: str) -> None:
    for size in ((1, 1), (7, 200)):
        assert refused(encoded(Image.new("RGB", size), kind)) is Refusal.BAD_DIMENSIONS
    wide = ImageLimits(max_side=1000)
    assert refused(encoded(Image.new("RGB", (1001, 9)), kind), wide) is Refusal.BAD_DIMENSIONS


def test_refuses_a_picture_60000_px_wide() -> None:
    assert refused(encoded(Image.new("1", (60_000, 10)))) is Refusal.BAD_DIMENSIONS


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "JPEG", "WEBP"])
def test_refuses_too_many_pixels(kind: str) -> None:
    assert refused(encoded(Image.new("L", (200, 100)), kind), ImageLimits(max_pixels=19_999)) is Refusal.TOO_MANY_PIXELS


@pytest.mark.parametrize("size", [(16_000, 16_000), (65_000, 65_000), (2**31 - 1, 2**31 - 1)])
def test_refuses_a_bomb_by_its_header_alone(size: tuple[int, int]) -> None:
    assert refused(png(*size, b"")) in {Refusal.TOO_MANY_PIXELS, Refusal.BAD_DIMENSIONS}


def test_refuses_a_gif_whose_first_frame_is_larger_than_its_screen() -> None:
    data = bytearray(encoded(Image.new("L", (300, 200)), "GIF"))
    data[6:10] = struct.pack("<HH", 20, 20)
    picture_or_code = decode(bytes(data), LIMITS).image_wh
    assert picture_or_code == (300, 200)  # Pillow takes the frame's size, and so do the limits:
    assert refused(bytes(data), ImageLimits(max_pixels=50_000)) is Refusal.TOO_MANY_PIXELS


def test_refuses_a_jpeg_of_endless_scans() -> None:
    data = encoded(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)),
        "JPEG",
        progressive=True,
    )
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    assert decode(data[:-2] + scan * 20 + data[-2:], LIMITS).image_wh == (64, 64)
    # A phone's video behind the picture may hold any bytes.
    assert decode(data + b"\xff\xda" * 300, LIMITS).image_wh == (64, 64)
    hidden = b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"  # a comment that looks like an end
    assert refused(data[:start] + hidden + scan * 200 + data[-2:]) is Refusal.TOO_COMPLEX


def test_refuses_32_bit_samples() -> None:
    assert refused(encoded(Image.new("F", (16, 16)), "TIFF")) is Refusal.UNSUPPORTED_PIXELS


def test_refuses_a_picture_that_is_an_archive_as_well() -> None:
    archive = io.BytesIO(encoded(pattern(), "JPEG"))
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a") as entries:
        entries.writestr("run.sh", "true")
    assert refused(archive.getvalue()) is Refusal.POLYGLOT


@pytest.mark.parametrize(
    "comment", [b"%PDF-1.7 1 0 obj", b"<script>alert(1)</script>", b"<?php system($_GET[0]);", b"<HTML><body>"]
)
def test_refuses_a_picture_that_is_a_document_as_well(comment: bytes) -> None:
    assert refused(encoded(pattern(), "JPEG", comment=comment)) is Refusal.POLYGLOT


@pytest.mark.parametrize("tail", [b"<html>x</html>", b"</script>", b"trailer %%EOF\n"])
def test_refuses_a_document_behind_a_picture(tail: bytes) -> None:
    assert refused(encoded(pattern(), "PNG") + tail) is Refusal.POLYGLOT


def test_accepts_harmless_bytes_behind_a_picture() -> None:
    # Phones append a video ("motion photo"), cameras a second picture.
    assert decode(encoded(pattern(), "JPEG") + bytes(500) + b"MotionPhoto_Data", LIMITS).image_wh == (48, 24)


def test_refuses_text_that_only_begins_like_a_picture() -> None:
    assert refused(b"GIF89a/*" + b" " * 30 + b"*/=1;") in {Refusal.UNDECODABLE, Refusal.BAD_DIMENSIONS}
    assert refused(b"BM = 'a script'; alert(BM)") is Refusal.UNDECODABLE


def test_says_so_where_heic_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    heic = encoded(pattern(), "HEIF")
    monkeypatch.setattr(heif, "INSTALLED", False)
    with pytest.raises(RefusedImageError, match="extra `heic`") as raised:
        decode(heic, LIMITS)
    assert raised.value.code is Refusal.UNSUPPORTED_FORMAT


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF"]), st.data())
def test_damaged_files_end_in_a_picture_or_a_refusal(noise: bytes, kind: str, data: st.DataObject) -> None:
    whole = encoded(pattern(), kind)
    place = data.draw(st.integers(0, len(whole)))
    try:
        picture = decode(whole[:place] + noise + whole[place + len(noise) :], LIMITS)
    except RefusedImageError as error:
        assert error.code in Refusal  # noqa: PT017  either outcome is right
    else:
        assert picture.pixels.shape[2] == 3


def png(width: int, height: int, raw: bytes, *, depth: int = 8) -> bytes:
    """Return an RGB PNG with any size in its header."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_refuses_cut_off_pictures_even_when_another_library_allows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)))
    cut = data[:-2_000] + data[-12:]
    assert refused(cut) is Refusal.UNDECODABLE
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_decodes_more_pixels_than_pillow_allows_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    assert decode(encoded(pattern(), "PNG"), LIMITS).image_wh == (48, 24)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9", b"\0" * 64 + b"\xff\xd9"])
def test_refuses_a_cut_jpeg_however_it_ends(end: bytes, progressive: bool) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    data = encoded(noise, "JPEG", progressive=progressive)
    assert refused(data[: len(data) * 35 // 100] + end) is Refusal.UNDECODABLE


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_refuses_a_jpeg_whose_rest_is_zeros(part: float, progressive: bool) -> None:
    data = encoded(Image.fromarray(astronaut()), "JPEG", quality=95, progressive=progressive)
    whole = int(len(data) * part)
    assert refused(data[:whole] + bytes(len(data) - whole - 2) + data[-2:]) is Refusal.UNDECODABLE


def test_takes_a_jpeg_with_a_few_stray_bytes() -> None:
    data = encoded(pattern(), "JPEG")
    table = data.index(b"\xff\xdb")
    assert decode(data[:table] + b"\0\0\xff\xff" + data[table:], LIMITS).image_wh == (48, 24)
    assert decode(data[:-2] + b"\0" * 9 + data[-2:], LIMITS).image_wh == (48, 24)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_ordinary_pictures_have_the_pixels_that_opencv_reads(kind: str, mode: str) -> None:
    data = encoded(
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (61, 83, 3), dtype=np.uint8)).convert(mode), kind
    )
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(decode(data, LIMITS).pixels, expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_shows_what_is_transparent_on_white_in_every_format(kind: str) -> None:
    image = Image.new("RGBA", (48, 24), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 24, 24))
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encoded(image, kind, **options), LIMITS).pixels
    assert pixels[12, 12].tolist() == [255, 255, 255]
    assert pixels[12, 36].tolist() == [255, 0, 0]


def test_lays_the_first_frame_of_a_webp_on_its_canvas() -> None:
    red = Image.new("RGB", (48, 24), "red")
    blue = red.copy()
    blue.paste("blue", (20, 10, 30, 20))
    data = bytearray(encoded(red, "WEBP", save_all=True, append_images=[blue], lossless=True))
    first = data.index(b"ANMF")
    second = data.index(b"ANMF", first + 4)
    del data[first:second]  # so that the smaller second frame comes first
    data[4:8] = struct.pack("<I", len(data) - 8)
    pixels = decode(bytes(data), LIMITS).pixels
    assert pixels.shape == (24, 48, 3)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[15, 25].tolist() == [0, 0, 255]


def test_decodes_bitmaps_of_run_lengths() -> None:
    assert decode(bmp_rle(40, 30), LIMITS).image_wh == (40, 30)
    assert refused(bmp_rle(40, 30)[:1000]) is Refusal.UNDECODABLE


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_a_reduced_pixel_is_the_mean_of_a_block(kind: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (205, 307, 3), dtype=np.uint8)
    picture = decode(
        encoded(Image.fromarray(noise), kind, **({"lossless": True} if kind == "WEBP" else {})), LIMITS, fit=100
    )
    assert (picture.factor, picture.pixels.shape) == (3, (68, 102, 3))
    mean = noise[:204, :306].reshape(68, 3, 102, 3, 3).mean(axis=(1, 3))
    assert np.abs(picture.pixels - mean).max() <= 1


def test_reads_a_file_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(encoded(pattern()))
    assert np.array_equal(read_rgb(path), _PATTERN)


def test_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"x\.png: cannot be read"):
        read_rgb(tmp_path / "x.png")
