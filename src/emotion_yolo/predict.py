"""`emotion-yolo predict`: pictures, folders, videos and cameras through the detector, one JSON line a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from emotion_yolo.detections import Detections
from emotion_yolo.detector import Detector
from emotion_yolo.emotions import NAMES
from emotion_yolo.errors import ImageError, SourceError, StorageError
from emotion_yolo.gallery import draw_detections
from emotion_yolo.images import SUFFIXES, Image, read_rgb
from emotion_yolo.imaging import Picture, read_picture

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})
CAMERA = "camera:"


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture to look at, or why there is none. `index` counts a video's frames from 0; of a file it is None."""

    source: str
    index: int | None
    picture: Picture | None
    problem: str | None = None

    def whole(self) -> Image:
        """Return all pixels of the picture, which may have been decoded reduced.

        Raises:
            ImageError: its file has changed meanwhile and cannot be decoded any more.
        """
        assert self.picture is not None
        return self.picture.pixels if self.picture.factor == 1 else read_rgb(Path(self.source))


def frames(sources: Sequence[str], *, fit: int | None = None) -> Iterator[Frame]:
    """Yield the pictures of files, folders (searched to the bottom, in order), videos and cameras (`camera:0`).

    With `fit`, large files come reduced, to a longer side of at least `fit` px, as the service decodes them.

    A picture that cannot be decoded is a frame with a problem: it never spoils the rest.

    Raises:
        SourceError: a source that is not there, or a video or camera that cannot be opened.
    """
    for source in sources:
        path = Path(source)
        if source.startswith(CAMERA):
            number = source.removeprefix(CAMERA) or "0"
            if not number.isdecimal():
                raise SourceError(f"{source}: {number!r} is no camera's number; expected camera:0, camera:1 …")
            yield from _video(source, int(number))
        elif path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES):
                yield _picture(file, fit)
        elif not path.exists():
            raise SourceError(f"{source}: no such file or folder; name pictures, folders, videos or camera:0")
        elif path.suffix.lower() in VIDEOS:
            yield from _video(source, source)
        else:
            yield _picture(path, fit)


def _picture(path: Path, fit: int | None) -> Frame:
    try:
        return Frame(str(path), None, read_picture(path, fit=fit))
    except ImageError as error:
        return Frame(str(path), None, None, str(error))


def _video(name: str, source: str | int) -> Iterator[Frame]:
    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            raise SourceError(f"{name}: OpenCV cannot open it; convert the video, or check that the camera is free")
        index = 0
        while True:
            read, bgr = capture.read()
            if not read:
                return
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            yield Frame(name, index, Picture(rgb, (rgb.shape[1], rgb.shape[0]), 1, "video"))
            index += 1
    finally:
        capture.release()


def answer(frame: Frame, faces: Detections | None) -> dict[str, object]:
    """Return a frame's JSON object: boxes in px of the upright picture, probabilities by emotion, or its problem."""
    where: dict[str, object] = {"source": frame.source}
    if frame.index is not None:
        where["frame"] = frame.index
    if faces is None:
        return {**where, "error": frame.problem}
    width, height = faces.image_wh
    detections = [
        {
            "box": dict(zip(("x1", "y1", "x2", "y2"), (round(float(v), 1) for v in box), strict=True)),
            "emotion": emotion.label,
            "confidence": round(float(confidence), 4),
            "probabilities": {name: round(float(p), 4) for name, p in zip(NAMES, probabilities, strict=True)},
        }
        for box, emotion, confidence, probabilities in zip(
            faces.xyxy, faces.emotions, faces.confidence, faces.probabilities, strict=True
        )
    ]
    return {**where, "image": {"width": width, "height": height}, "detections": detections}


class Annotated:
    """A folder of annotated pictures: files keep their names, frames of a video or camera become one video each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, cv2.VideoWriter] = {}
        self._names: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, frame: Frame, image: Image, faces: Detections) -> None:
        """Draw `faces` on `image` and keep it.

        Raises:
            StorageError: it cannot be written.
        """
        bgr = cv2.cvtColor(draw_detections(image, faces), cv2.COLOR_RGB2BGR)
        if frame.index is None:
            path = self._free_path(frame.source, ".jpg")
            if not cv2.imwrite(str(path), bgr):
                raise StorageError(f"{path}: could not be written; check the free space and the permissions")
            return
        if frame.source not in self._writers:
            size = (bgr.shape[1], bgr.shape[0])
            path = self._free_path(frame.source.replace(":", "-"), ".mp4")
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, size)
            if not writer.isOpened():
                raise StorageError(f"{path}: no video can be written there; check the free space and the permissions")
            self._writers[frame.source] = writer
        self._writers[frame.source].write(bgr)

    def _free_path(self, source: str, suffix: str) -> Path:
        # Folders may hold files of one name below different parents, and the source itself may lie in this one.
        stem, number = Path(source).stem, 1
        path = self._folder / f"{stem}{suffix}"
        while path.name in self._names or path.resolve() == Path(source).resolve():
            path, number = self._folder / f"{stem}-{number}{suffix}", number + 1
        self._names.add(path.name)
        return path

    def close(self) -> None:
        """Finish the videos."""
        for writer in self._writers.values():
            writer.release()


def predict(
    detector: Detector, sources: Sequence[str], *, conf: float | None = None, annotated: Annotated | None = None
) -> Iterator[dict[str, object]]:
    """Yield the JSON object of every picture of `sources`, and keep it drawn on in `annotated`, if given."""
    for frame in frames(sources, fit=detector.imgsz):
        if frame.picture is None:
            yield answer(frame, None)
            continue
        faces = detector.predict_picture(frame.picture, conf=conf)
        if annotated is not None:
            annotated.write(frame, frame.whole(), faces)
        yield answer(frame, faces)
