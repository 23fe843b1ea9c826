"""Frames of video files and cameras, each with its time; a frame that cannot be decoded does not end the video."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from emotion_yolo.errors import SourceError
from emotion_yolo.structures.images import Image

if TYPE_CHECKING:
    import av

SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".m2ts", ".m2v", ".m4v", ".mjpeg"}
    | {".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".ts", ".vob"}
    | {".webm", ".wmv", ".y4m"}
)
"""File name endings, in lower case, that are read as videos."""

CAMERA = "camera:"

# A last frame may be shorter than the others, and containers round: only a longer gap is a cut.
_LEAST_CUT_S = 0.5
_LEAST_CUT_FRAMES = 2


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame: `index` from 0 in the order of display, `time_s` from the start, RGB `image` [H, W, 3] as displayed.

    A frame that cannot be decoded has a `problem` and no image.
    """

    index: int
    time_s: float
    image: Image | None
    problem: str | None = None


@contextmanager
def open_video(path: Path) -> Iterator["av.container.InputContainer"]:
    """Open a video file with PyAV, for a `with` statement.

    The file is opened by Python and handed over: FFmpeg would read a name such as `http:clip.mp4` as a URL.

    Raises:
        SourceError: PyAV is not installed, or the file holds no video.
    """
    try:
        import av
    except ImportError as error:
        raise SourceError(f"{path}: reading videos needs PyAV; pip install 'emotion-yolo[video]'") from error
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            container = stack.enter_context(av.open(file, "r", metadata_errors="replace"))
        except (OSError, av.FFmpegError) as error:
            message = f"{path}: cannot be read as a video ({error.strerror})"
            raise SourceError(f"{message}; check that it plays, or convert it to MP4") from error
        if not container.streams.video:
            raise SourceError(f"{path}: holds no video, or is cut off before its index; check that it plays")
        yield container


def read_video(path: Path) -> Iterator[VideoFrame]:
    """Yield the frames of a video file, rotated as the player would show them; memory does not grow with its length.

    What is missing is a frame with a problem: one that is damaged, in its place; all that a cut-off file lacks, one at
    the end.

    Raises:
        SourceError: it cannot be opened, or none of its frames can be decoded.
    """
    import av

    with open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        period_s = float(1 / stream.average_rate) if stream.average_rate else 0.04
        index, time_s, decoded = 0, -period_s, 0
        for packet in _packets(container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                time_s += period_s
                yield VideoFrame(index, time_s, None, f"frame {index} cannot be decoded ({error.strerror})")
                index += 1
                continue
            for frame in frames:
                time_s = frame.time if frame.time is not None else time_s + period_s
                yield VideoFrame(index, time_s, _displayed(frame))
                index, decoded = index + 1, decoded + 1
        if not decoded:
            raise SourceError(f"{path}: none of its frames can be decoded; check that it plays, or convert it to MP4")
        missing = _missing(container, stream, index=index, end_s=time_s + period_s, period_s=period_s)
    if missing:
        yield VideoFrame(index, time_s + period_s, None, f"the file is cut off: {missing} missing at its end")


def _packets(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> Iterator["av.Packet[av.VideoStream]"]:
    import av

    packets = container.demux(stream)
    while True:
        try:
            yield next(packets)
        except StopIteration:
            return
        except av.FFmpegError:  # the file ends in the middle of a packet; `_missing` says what it lacks
            return


def _missing(
    container: "av.container.InputContainer", stream: "av.VideoStream", *, index: int, end_s: float, period_s: float
) -> str | None:
    """Return what a file lacks according to its header, in frames or seconds; None if nothing is missing."""
    if stream.frames:  # 0 where the container does not count them
        lacking = stream.frames - index
        return f"{lacking} of {stream.frames} frames" if lacking >= _LEAST_CUT_FRAMES else None
    if not container.duration:
        return None
    total_s = container.duration / 1e6
    lacking_s = total_s - end_s
    return f"{lacking_s:.1f} of {total_s:.1f} s" if lacking_s > max(_LEAST_CUT_S, 2 * period_s) else None


def _displayed(frame: "av.VideoFrame") -> Image:
    image: Image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    turns = round(frame.rotation / 90) % 4  # counter-clockwise, as the display matrix says
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def read_camera(number: int) -> Iterator[VideoFrame]:
    """Yield frames of camera `number` until it is closed or gone.

    Raises:
        SourceError: no such camera, or one that another program uses.
    """
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise SourceError(
                f"{CAMERA}{number}: cannot be opened; check that it is connected and that no other program uses it"
            )
        index, started = 0, cv2.getTickCount()
        while True:
            read, bgr = capture.read()
            if not read:
                return
            time_s = (cv2.getTickCount() - started) / cv2.getTickFrequency()
            yield VideoFrame(index, time_s, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))
            index += 1
    finally:
        capture.release()
