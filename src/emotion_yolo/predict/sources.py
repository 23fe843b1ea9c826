"""Resolves the arguments of `predict` to pictures, videos and cameras, and counts what is skipped and why."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from glob import iglob
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Literal

from emotion_yolo.errors import SourceError
from emotion_yolo.predict.copies import LIST_NAME, copies_in
from emotion_yolo.structures.images import SUFFIXES
from emotion_yolo.video import reading

_HEIF = frozenset({".heic", ".heif", ".hif"})
_PICTURES = SUFFIXES | {".dib", ".gif", ".jfif", ".jpe"}  # sets of training pictures have to be of the former
_STDIN = "-"
PATTERN = re.compile(r"[*?\[]")
"""What makes a source a pattern."""

_FOLDERS_OF_SYSTEMS = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin"})


@dataclass(frozen=True)
class Input:
    """One thing to read: `name` is how answers call it."""

    name: str
    kind: Literal["picture", "video", "camera", "stdin"]
    path: Path
    camera: int = 0


@dataclass
class Inputs:
    """Iterates over all inputs of `sources`, in order; `skipped` counts skipped files by reason.

    Patterns are expanded here for shells that do not. Folders are searched, with subfolders if `recursive`; links to
    folders are followed once. Files that systems leave beside pictures
    (`._x.jpg`, `@eaDir`, hidden folders) and annotated copies are skipped.
    """

    sources: Sequence[str]
    skipped: Counter[str] = field(default_factory=Counter)
    recursive: bool = True

    def __iter__(self) -> Iterator[Input]:
        """Yield the inputs.

        Raises:
            SourceError: a source that is not there, or no camera's number.
        """
        for source in self.sources:
            path = Path(source)
            if source == _STDIN:
                yield Input(source, "stdin", path)
            elif source.startswith(reading.CAMERA) and not path.exists():
                number = source.removeprefix(reading.CAMERA) or "0"
                if not number.isdecimal():
                    raise SourceError(f"{source}: {number!r} is not a camera number; expected camera:0, camera:1 …")
                yield Input(source, "camera", path, int(number))
            elif path.is_dir():
                yield from self._folder(path)
            elif not path.exists() and PATTERN.search(source):
                found = sorted(iglob(source, recursive=True))  # noqa: PTH207  patterns may be absolute
                if not found:
                    raise SourceError(f"{source}: no file has a name like this; name pictures, folders or videos")
                yield from (given for name in found for given in self._of_pattern(Path(name)))
            elif not path.exists():
                raise SourceError(f"{source}: no such file or folder; name pictures, folders, videos or camera:0")
            else:
                yield _file(path, name=source)

    def _of_pattern(self, path: Path) -> Iterator[Input]:
        if path.is_dir():
            return  # `**` names folders, and their files as well
        if _is_video(path) or self._is_picture(path):
            yield _file(path, name=str(path))

    def _folder(self, root: Path) -> Iterator[Input]:
        seen: set[tuple[int, int]] = set()
        for folder, names, files in os.walk(root, followlinks=True, onerror=self._unreadable):
            here = Path(folder)
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder that was searched already
                names.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            names[:] = sorted(name for name in names if self.recursive and self._descend(name))
            copies = copies_in(here)
            for name in sorted(files):
                path = here / name
                if name in copies:
                    self.skipped["annotated copy"] += 1
                elif name != LIST_NAME and self._is_picture(path):
                    yield Input(str(path), "picture", path)

    def _descend(self, name: str) -> bool:
        if name.startswith(".") or name.lower() in _FOLDERS_OF_SYSTEMS:
            self.skipped["hidden or system folder"] += 1
            return False
        return True

    def _is_picture(self, path: Path) -> bool:
        suffix = path.suffix.lower()
        if path.name.startswith("."):
            reason = "hidden file"
        elif not path.is_file():
            reason = "neither a file nor a folder, or a broken link"
        elif suffix in _HEIF and not find_spec("pillow_heif"):
            reason = "HEIC picture; to read it: pip install 'emotion-yolo[heic]'"
        elif is_picture_name(path.name):
            return True
        elif suffix in reading.SUFFIXES:
            reason = "video inside a folder; name it to read it"
        else:
            reason = "not a picture by its file name"
        self.skipped[reason] += 1
        return False

    def _unreadable(self, error: OSError) -> None:
        self.skipped[f"folder that cannot be read ({error.strerror})"] += 1


def is_picture_name(name: str) -> bool:
    """Return whether a file is a picture that can be read here, by its suffix."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in _PICTURES or (suffix in _HEIF and find_spec("pillow_heif") is not None)


def _file(path: Path, *, name: str) -> Input:
    return Input(name, "video" if _is_video(path) else "picture", path)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in reading.SUFFIXES
