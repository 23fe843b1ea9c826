"""Annotated copies of pictures and videos, which never replace a file that this run did not write.

A copy is written under a temporary name beside its place and moved there when it is complete: a run that ends early
leaves whole files. Copies are listed in the folder with their sizes, so that a later run does not take them for
pictures, nor a picture that was put in the place of one for a copy.
"""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from emotion_yolo.errors import StorageError
from emotion_yolo.structures.images import Image
from emotion_yolo.video.writing import VideoWriter

LIST_NAME = ".emotion-yolo-copies"
"""File in a folder of copies that lists them: a JSON array of name and bytes a line, the last one of a name holds."""

_LONGEST_STEM = 200
"""Bytes of a copy's name before its number and suffix; file systems allow 255 in all."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def copies_in(folder: Path) -> frozenset[str]:
    """Return the names of the files in `folder` that are annotated copies, unchanged since."""
    try:
        lines = (folder / LIST_NAME).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    sizes: dict[str, int] = {}
    for line in lines:
        with suppress(ValueError, TypeError):  # an incomplete line, or one written by hand
            name, size = json.loads(line)
            sizes[name] = size
    return frozenset(name for name, size in sizes.items() if _size_of(folder / name) == size)


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return None


class AnnotatedCopies:
    """A folder of annotated copies; a context manager.

    A picture becomes NAME.jpg, a video or camera NAME.mp4. Where a file of that name exists, the copy becomes NAME-1,
    NAME-2 and so on; with `overwrite` it replaces a copy that an earlier run has written, and nothing else.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        """Make the folder.

        Raises:
            StorageError: it is a file, or cannot be written to.
        """
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / LIST_NAME).touch()
        except OSError as error:
            raise _refusal(folder, error) from error
        self._replaceable = copies_in(folder) if overwrite else frozenset[str]()
        self._written: set[str] = set()
        self._video: VideoWriter | None = None
        self._video_name = ""

    def add_picture(self, name: str, image: Image) -> Path:
        """Write an RGB picture [H, W, 3] as a copy of the picture called `name`; returns its path.

        Raises:
            StorageError: it cannot be written.
        """
        encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if not encoded:
            raise StorageError(f"{name}: cannot be encoded as JPEG; run without --out, or leave it out")
        stem = _stem_of(name)
        partial = self._partial(".jpg")
        try:
            partial.write_bytes(data.tobytes())
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _refusal(partial, error) from error
        return self._place(partial, stem, ".jpg")

    def add_frame(self, name: str, image: Image, *, time_s: float, sound_of: Path | None = None) -> None:
        """Add an RGB frame [H, W, 3], shown from `time_s`, to the copy of the video or camera called `name`.

        Raises:
            StorageError: it cannot be written.
        """
        if self._video is None:
            self._video_name = _stem_of(name.replace(":", "-"))
            self._video = VideoWriter(self._partial(".mp4"), sound_of=sound_of)
        self._video.write(image, time_s=time_s)

    def finish_video(self) -> Path | None:
        """Complete the copy of the present video and move it into place; returns its path, None if there is none.

        Raises:
            StorageError: it cannot be written.
        """
        if self._video is None:
            return None
        video, self._video = self._video, None
        video.close()
        return self._place(self._partial(".mp4"), self._video_name, ".mp4")

    def _partial(self, suffix: str) -> Path:
        return self._folder / f".emotion-yolo-{os.getpid()}.partial{suffix}"

    def _place(self, partial: Path, stem: str, suffix: str) -> Path:
        try:
            number = 0
            while True:
                name = f"{stem}-{number}{suffix}" if number else f"{stem}{suffix}"
                path = self._folder / name
                if name in self._replaceable and name not in self._written and path.is_file():
                    partial.replace(path)
                    break
                if _move_without_replacing(partial, path):
                    break
                number += 1
            self._written.add(name)
            with (self._folder / LIST_NAME).open("a", encoding="ascii") as file:
                file.write(json.dumps([name, path.stat().st_size]) + "\n")
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _refusal(path, error) from error
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.finish_video()


def _stem_of(name: str) -> str:
    """Return a file's name without its suffix, cut where the name of its copy would become too long."""
    stem = Path(name).stem
    return os.fsdecode(os.fsencode(stem)[:_LONGEST_STEM]) if len(os.fsencode(stem)) > _LONGEST_STEM else stem


def _move_without_replacing(source: Path, target: Path) -> bool:
    """Rename `source` to `target` unless that exists; returns whether it did. A rename alone would replace it."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: claim the name first.
        try:
            target.open("xb").close()
        except FileExistsError:
            return False
        source.replace(target)
        return True
    source.unlink()
    return True


def _refusal(path: Path, error: OSError) -> StorageError:
    why = error.strerror or str(error)
    return StorageError(f"{path}: cannot be written ({why}); name another folder, free space or grant access")
