"""Files on the tracks of videos, written at the end of a run: a summary, a timeline."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from emotion_yolo.errors import StorageError


@dataclass(frozen=True)
class _Frame:
    source: str
    time_s: float
    emotions: Mapping[int, str]


class TrackReport(ABC):
    """Collects the answers to tracked videos, in order.

    A frame counts for the time until the next one, the last frame of a video for as long as the one before it.
    """

    def __init__(self) -> None:
        self._last: _Frame | None = None
        self._period_s = 0.0

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the answer to one frame; answers to pictures and unreadable frames are ignored."""
        if "time_s" not in record or "error" in record:
            return
        emotions = {face["track"]: face["emotion"] for face in record["detections"] if face["track"] is not None}
        frame = _Frame(record["source"], record["time_s"], emotions)
        if self._last is None or self._last.source != frame.source or record["frame"] == 0:
            self.close()
            self._begin_video(frame.source)
        else:
            # Damaged files have times that go back.
            self._period_s = max(frame.time_s - self._last.time_s, 0.0)
            self._show(self._last.time_s, self._period_s, self._last.emotions)
        self._last = frame

    def close(self) -> None:
        """Finish the present video: count its last frame."""
        if self._last is not None:
            self._show(self._last.time_s, self._period_s, self._last.emotions)
            self._end_video()
        self._last, self._period_s = None, 0.0

    @abstractmethod
    def _begin_video(self, source: str) -> None: ...

    @abstractmethod
    def _show(self, time_s: float, period_s: float, emotions: Mapping[int, str]) -> None:
        """Add a frame: when and for how long it is shown, and the emotion of each track in it."""

    @abstractmethod
    def _end_video(self) -> None: ...

    @abstractmethod
    def encoded(self) -> bytes:
        """Return the file's content."""


Report = TypeVar("Report", bound=TrackReport)


class ReportFile(Generic[Report]):
    """A report that is written to a file, even if the run is interrupted; a context manager."""

    def __init__(self, path: Path, report: Report, *, overwrite: bool = False) -> None:
        """Set the path of the file.

        Raises:
            StorageError: the file exists and may not be replaced, or its folder does not exist.
        """
        if path.exists() and not overwrite:
            raise StorageError(f"{path}: exists already; add --overwrite to replace it, or name another file")
        if not path.parent.is_dir():
            raise StorageError(f"{path}: cannot be written (no such folder); make {path.parent}, or name another file")
        self._path, self._report = path, report

    def __enter__(self) -> Report:
        return self._report

    def __exit__(self, *_: object) -> None:
        self._report.close()
        partial = self._path.with_name(f"{self._path.name}.partial")
        try:
            partial.write_bytes(self._report.encoded())
            partial.replace(self._path)
        except OSError as error:
            why = error.strerror or str(error)
            raise StorageError(
                f"{self._path}: cannot be written ({why}); name another file, free space or grant access"
            ) from error
