"""An annotated copy of a video: the frames' own times, and the sound of the original where MP4 can hold it."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from emotion_yolo.errors import StorageError
from emotion_yolo.structures.images import Image
from emotion_yolo.video.reading import open_video

if TYPE_CHECKING:
    pass

_TIME_BASE = Fraction(1, 90_000)  # s, MPEG's
_RATE = 30  # frames a second that the encoder is told to expect; real times come with the frames
_SOUND = frozenset({"aac", "ac3", "alac", "mp3", "opus"})
"""Codecs that MP4 holds; sound in another one is left out."""


class VideoWriter:
    """Writes H.264 in MP4 to `path`; a context manager. The file is complete once it is closed, and not before."""

    def __init__(self, path: Path, *, sound_of: Path | None = None) -> None:
        """Open `path`, replacing what is there; sound is copied from the video `sound_of`, if given.

        Raises:
            StorageError: it cannot be written.
        """
        import av

        self._path = path
        self._stack = contextlib.ExitStack()
        try:
            file = self._stack.enter_context(path.open("wb"))
            self._container = self._stack.enter_context(av.open(file, "w", format="mp4"))
        except OSError as error:
            self._stack.close()
            raise self._refusal(error) from error
        self._video: av.VideoStream | None = None
        self._last_pts = -1
        self._sound: Iterator[av.Packet[av.AudioStream]] = iter(())
        self._waiting: av.Packet[av.AudioStream] | None = None
        if sound_of is not None:
            self._add_sound(sound_of)

    def _add_sound(self, source: Path) -> None:
        container = self._stack.enter_context(open_video(source))
        if not container.streams.audio or container.streams.audio[0].codec_context.name not in _SOUND:
            return
        stream = container.streams.audio[0]
        self._target = self._container.add_stream_from_template(stream)
        self._sound = (packet for packet in container.demux(stream) if packet.dts is not None)

    def write(self, image: Image, *, time_s: float) -> None:
        """Add an RGB frame [H, W, 3] that is shown from `time_s`; all frames have the size of the first.

        Raises:
            StorageError: it cannot be written.
        """
        import av

        height, width = (side - side % 2 for side in image.shape[:2])  # H.264's 4:2:0 halves both
        if self._video is None:
            self._video = self._container.add_stream("libx264", rate=_RATE, options={"crf": "20", "preset": "veryfast"})
            self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
            self._video.codec_context.time_base = _TIME_BASE
        frame = av.VideoFrame.from_ndarray(image[: self._video.height, : self._video.width], format="rgb24")
        self._last_pts = max(round(time_s / _TIME_BASE), self._last_pts + 1)  # an encoder takes only rising times
        frame.pts, frame.time_base = self._last_pts, _TIME_BASE
        self._copy_sound(until_s=time_s)
        try:
            self._container.mux(self._video.encode(frame))
        except OSError as error:
            raise self._refusal(error) from error

    def _copy_sound(self, *, until_s: float) -> None:
        # Beside the pictures that it belongs to, so that a player need not seek.
        while (packet := self._waiting or next(self._sound, None)) is not None:
            if packet.pts is not None and float(packet.pts * packet.time_base) > until_s:
                self._waiting = packet
                return
            self._waiting = None
            packet.stream = self._target
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            if self._video is not None:
                self._copy_sound(until_s=float(self._last_pts * _TIME_BASE) + 1 / _RATE)
                self._container.mux(self._video.encode(None))
            self._stack.close()
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> StorageError:
        why = error.strerror or str(error)
        return StorageError(f"{self._path}: cannot be written ({why}); free space or grant access, then repeat")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()
