"""Where the browser is, and what its camera sees."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Return the path of a Chromium: of `CHROMIUM`, else on the PATH, else none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def fake_camera(path: Path, images: Iterable[NDArray[np.uint8]]) -> list[str]:
    """Return options of a Chromium whose camera shows RGB pictures of one size, 25 a second, over and over.

    They are written to `path` as YUV4MPEG2.
    """
    with path.open("wb") as file:
        for number, image in enumerate(images):
            if not number:
                file.write(b"YUV4MPEG2 W%d H%d F25:1 Ip C420jpeg\n" % (image.shape[1], image.shape[0]))
            file.write(b"FRAME\n" + cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420).tobytes())
    return ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={path}"]
