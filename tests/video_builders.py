"""Builders of small videos, whole and damaged."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from tests.builders import painted

Image = NDArray[np.uint8]

FACE = painted({(1, 1): 4})


def motion_jpeg(path: Path, count: int, *, image: Image = FACE) -> Path:
    """Write an AVI of `count` JPEG frames: each frame can be decoded without the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (image.shape[1], image.shape[0]))
    for _ in range(count):
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def with_zeroed_frame(path: Path, number: int, out: Path) -> Path:
    """Copy the AVI at `path` with all bytes of one frame set to zero."""
    data = bytearray(path.read_bytes())
    place = data.index(b"movi")
    for _ in range(number + 1):
        place = data.index(b"00dc", place + 1)
    length = int.from_bytes(data[place + 4 : place + 8], "little")
    data[place + 8 : place + 8 + length] = bytes(length)
    out.write_bytes(data)
    return out


def timed(path: Path, times_s: Sequence[float], *, images: Sequence[Image] = (FACE,), sound_s: float = 0.0) -> Path:
    """Write a video that shows `images` in turn at `times_s`, with silence of `sound_s` seconds where that is not 0."""
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=1000)
        video.width, video.height, video.pix_fmt = images[0].shape[1], images[0].shape[0], "yuv420p"
        sound = container.add_stream("aac", rate=8000) if sound_s else None
        for time_s, image in zip(times_s, itertools.cycle(images)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(time_s * 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, round(8000 * sound_s)), np.float32), format="fltp", layout="mono"
            )
            silence.rate = 8000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def turned_right(path: Path) -> Path:
    """Have players of the MP4 at `path` turn it clockwise by a quarter, as phones do: by its track's matrix."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    one = 1 << 16
    numbers = [0, one, 0, -one, 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    path.write_bytes(data)
    return path
