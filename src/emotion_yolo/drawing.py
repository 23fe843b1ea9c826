"""Draws detections on pictures and lays pictures out on contact sheets. Pillow only, with its built-in font."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from emotion_yolo.structures.boxes import xywhn_to_xyxy
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import Emotion
from emotion_yolo.structures.images import Image, read_rgb

T = TypeVar("T")
Colour = tuple[int, int, int]

COLOURS: dict[Emotion, Colour] = {
    Emotion.ANGER: (214, 39, 40),
    Emotion.CONTEMPT: (140, 86, 75),
    Emotion.DISGUST: (44, 145, 44),
    Emotion.FEAR: (148, 80, 200),
    Emotion.HAPPY: (255, 205, 30),
    Emotion.NEUTRAL: (200, 200, 200),
    Emotion.SAD: (50, 120, 220),
    Emotion.SURPRISE: (255, 127, 14),
}
"""RGB of each emotion's box; the label beside it carries the name, so that no answer rests on colour alone."""

TRUTH_COLOUR: Colour = (255, 255, 255)

_FOUND: Colour = (44, 190, 44)
_NOT_FOUND: Colour = (255, 127, 14)
_CHECK_SIDE = 192  # px
_BAND_PX = 1_000_000

_INK: Colour = (20, 20, 20)
_PAPER: Colour = (255, 255, 255)


def draw_detections(image: Image, detections: Detections) -> Image:
    """Return a copy of an RGB picture [H, W, 3] with a box, the emotion and its probability for each face.

    Lines and letters scale with the picture; labels stay within it.
    """
    drawn = image.copy()
    draw_on(drawn, detections)
    return drawn


def plot(image: Image | str | Path, detections: Detections) -> PillowImage.Image:
    """Return a picture with its faces drawn in, as a Pillow image, which a notebook shows.

    `image` is RGB [H, W, 3] uint8 or a file.

    Raises:
        ImageError: the file cannot be read or decoded.
        ValueError: the detections are those of a picture of another size.
    """
    pixels = image if isinstance(image, np.ndarray) else read_rgb(Path(image))
    height, width = pixels.shape[:2]
    if (width, height) != detections.image_wh:
        raise ValueError(f"the picture has {width}×{height} px, the one of the detections {detections.image_wh}")
    return PillowImage.fromarray(draw_detections(pixels, detections))


def draw_on(image: Image, detections: Detections) -> None:
    """Draw a box, the emotion and its probability for each face on an RGB picture [H, W, 3], in place.

    It works in bands, since Pillow copies what it draws on, at four bytes a pixel.
    """
    height, width = image.shape[:2]
    rows = max(_BAND_PX // width, 1)
    for top in range(0, height, rows) if len(detections) else ():
        band = PillowImage.fromarray(image[top : top + rows])
        draw = ImageDraw.Draw(band)
        # The least confident first, so that the most confident ones are on top.
        faces = zip(detections.xyxy, detections.emotions, detections.probabilities, strict=True)
        for box, emotion, probabilities in reversed(list(faces)):
            text = f"{emotion.label} {probabilities.max():.0%}"
            _draw_box(draw, box.tolist(), COLOURS[emotion], text, (width, height), above=top)
        image[top : top + rows] = np.asarray(band)


def draw_box(image: Image, xyxy: Sequence[float], *, colour: Colour = TRUTH_COLOUR, text: str = "") -> Image:
    """Return a copy of an RGB picture [H, W, 3] with one box (corners in px) and a label, if there is text."""
    canvas = PillowImage.fromarray(image)
    _draw_box(ImageDraw.Draw(canvas), xyxy, colour, text, canvas.size)
    return np.asarray(canvas)


def _draw_box(
    draw: ImageDraw.ImageDraw,
    xyxy: Sequence[float],
    colour: Colour,
    text: str,
    image_wh: tuple[int, int],
    *,
    above: int = 0,
) -> None:
    """Draw on a picture, or on a band of it that has `above` rows above it."""
    width, height = image_wh
    line = max(1, round(max(image_wh) / 200))
    left, top = min(max(xyxy[0], 0), width - 1), min(max(xyxy[1], 0), height - 1)
    right, bottom = min(max(xyxy[2], left), width - 1), min(max(xyxy[3], top), height - 1)
    draw.rectangle((left, top - above, right, bottom - above), outline=colour, width=line)
    if not text:
        return
    font = _font(max(11, round(max(image_wh) / 40)))
    _, _, x2, y2 = font.getbbox(text)
    text_w, text_h = x2 + 2 * line, y2 + line
    # Above the box, or inside it at the picture's upper edge; moved left where it would leave the picture.
    label_left = max(min(left, width - text_w), 0)
    label_top = (top - text_h if top >= text_h else top) - above
    draw.rectangle((label_left, label_top, label_left + text_w, label_top + text_h), fill=colour)
    draw.text((label_left + line, label_top), text, font=font, fill=_readable_on(colour))


def _readable_on(colour: Colour) -> Colour:
    """Return dark or light, whichever contrasts more. Weights of luminance: ITU-R BT.601."""
    luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return _INK if luminance > 140 else _PAPER


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a contact sheet: RGB [H, W, 3], and the lines below it."""

    image: Image
    caption: tuple[str, ...] = ()


def contact_sheet(tiles: Sequence[Tile], *, title: str, columns: int = 6, side: int = 240) -> Image:
    """Lay pictures out in rows, each scaled to fit a square of `side` px, under a title.

    Without tiles the sheet holds the title alone.
    """
    font, gap = _font(13), 8
    line = 16
    caption_lines = max((len(tile.caption) for tile in tiles), default=0)
    cell_w, cell_h = side + gap, side + caption_lines * line + gap
    columns = min(columns, max(len(tiles), 1))
    rows = -(-len(tiles) // columns)
    heading = _font(18)
    width = max(columns * cell_w + gap, int(heading.getbbox(title)[2]) + 2 * gap)
    sheet = PillowImage.new("RGB", (width, 40 + rows * cell_h + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 10), title, font=heading, fill=_INK)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = gap + column * cell_w, 40 + row * cell_h
        picture = _scaled(tile.image, side)
        sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
        for number, text in enumerate(tile.caption):
            draw.text((left, top + side + number * line), _shortened(text, font, side), font=font, fill=_INK)
    return np.asarray(sheet)


def stacked(sheets: Sequence[Image]) -> Image:
    """Lay sheets one below the other, on paper as wide as the widest."""
    width = max(sheet.shape[1] for sheet in sheets)
    return np.concatenate(
        [np.pad(sheet, ((0, 0), (0, width - sheet.shape[1]), (0, 0)), constant_values=255) for sheet in sheets]
    )


def to_check(boxes: Sequence[tuple[str, float]], *, count: int = 48) -> list[int]:
    """Choose the localised boxes that are worth a look, each given as (how, confidence); returns their indices.

    Half of the places are for the least confident ones that were found, a sixth for those that were not, the rest for
    an even pick of all others.
    """
    found = [index for index, (how, _) in enumerate(boxes) if how == "found"]
    doubtful = sorted(found, key=lambda index: boxes[index][1])[: count // 2]
    missed = evenly([index for index, (how, _) in enumerate(boxes) if how != "found"], count // 6)
    chosen = [*doubtful, *missed]
    others = sorted(set(range(len(boxes))) - set(chosen))
    return [*chosen, *evenly(others, count - len(chosen))]


def check_sheet(boxes: Sequence[tuple[Image, Sequence[float], str, float]]) -> Image:
    """Show where localisation saw a face: (RGB crop [H, W, 3], xywhn box, how, confidence) each, in the given order.

    A box that was found is green, any other orange; the caption says which, with the detector's confidence.
    """
    tiles = []
    for image, xywhn, how, confidence in boxes:
        large = fitted(image, side=_CHECK_SIDE)
        xyxy = xywhn_to_xyxy(np.asarray([xywhn], np.float64), image_wh=(large.shape[1], large.shape[0]))[0]
        drawn = draw_box(large, xyxy.tolist(), colour=_FOUND if how == "found" else _NOT_FOUND)
        tiles.append(Tile(drawn, (f"{how} {confidence:.2f}" if how == "found" else how,)))
    title = "Boxes of crops: the least confident found (green), not found (orange), then an even pick"
    return contact_sheet(tiles, title=title, columns=8, side=_CHECK_SIDE)


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return `count` items at even distances, an unbiased choice."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def fitted(image: Image, *, side: int) -> Image:
    """Return an RGB picture scaled to a long side of `side` px, so that what is drawn on it is as large everywhere."""
    return np.asarray(_scaled(image, side))


def enlarged(image: Image, *, side: int) -> Image:
    """Return a small RGB picture scaled up to a long side of `side` px, so that a label fits; larger ones unchanged."""
    return image if max(image.shape[:2]) >= side else fitted(image, side=side)


def _scaled(image: Image, side: int) -> PillowImage.Image:
    picture = PillowImage.fromarray(image)
    scale = side / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, PillowImage.Resampling.LANCZOS)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getbbox(text)[2] <= width:
        return text
    while text and font.getbbox(f"{text}…")[2] > width:
        text = text[:-1]
    return f"{text}…"
