"""The formats that Pillow decodes: PNG, GIF, TIFF, and bitmaps without run lengths."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from emotion_yolo.imaging.pixels import assemble, blend_on_white
from emotion_yolo.imaging.plans import Pixels, Plan
from emotion_yolo.imaging.refusals import Refusal, RefusedImageError, out_of_memory, undecodable

# Pillow warns of damaged metadata, which has been dropped here, and of large pictures: our limits are decided before.
warnings.filterwarnings("ignore", module=r"PIL\.")

_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
}


def decode(plan: Plan) -> Pixels:
    """Decode to RGB on white, reduced by `plan.factor`.

    Raises:
        RefusedImageError: damaged, of samples that are not supported, or there is no memory.
    """
    try:
        # Not Image.open: it would refuse what its own limit of 178,956,970 pixels does not allow.
        with _OPENERS[plan.kind](io.BytesIO(plan.payload)) as image:
            if image.size != plan.size:
                raise undecodable(plan.kind)
            with _whole_pictures_only():
                image.load()
            if image.size != plan.size:
                raise undecodable(plan.kind)
            return _rgb(image, plan.factor)
    except RefusedImageError:
        raise
    except MemoryError:
        raise out_of_memory(plan.kind) from None
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged input
        if "memory" in str(error).lower():
            raise out_of_memory(plan.kind) from error
        raise undecodable(plan.kind) from error


@contextmanager
def _whole_pictures_only() -> Iterator[None]:
    """Have Pillow refuse cut-off pictures, whatever another library has set."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _rgb(image: Image.Image, factor: int) -> Pixels:
    if image.mode in {"I", "F"}:
        message = f"the samples are of Pillow's mode {image.mode} (32 bits), expected 8 or 16 bits; convert the picture"
        raise RefusedImageError(Refusal.UNSUPPORTED_PIXELS, message)
    width, height = image.size
    transparent = image.has_transparency_data

    def rgb_of(top: int, bottom: int) -> Pixels:
        strip = image.crop((0, top, width, bottom))
        if strip.mode.startswith("I;16"):
            # Pillow's own conversion clips at 255 instead of scaling.
            grey = (np.asarray(strip).astype(np.uint16) >> 8).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        if transparent:
            return blend_on_white(strip.convert("RGBA"))
        return np.asarray(strip.convert("RGB"))

    return assemble((width, height), factor, rgb_of)
