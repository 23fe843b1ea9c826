"""The loop of `predict`: every input through the detector, a JSON-ready record for each picture or frame."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emotion_yolo.drawing import COLOURS, draw_box, draw_detections
from emotion_yolo.errors import ImageError, SourceError
from emotion_yolo.imaging import LOCAL, Picture, decode, read_picture, read_rgb
from emotion_yolo.inference.model import FaceModel
from emotion_yolo.predict.copies import AnnotatedCopies
from emotion_yolo.predict.sources import Input
from emotion_yolo.predict.tables import Position
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.images import Image
from emotion_yolo.tracks import LEAST_CONFIDENCE, FaceTracker, TrackedFaces, Tracking
from emotion_yolo.video.reading import read_camera, read_video


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture or frame, or the `problem` in its place; `index` and `time_s` are a frame's."""

    source: Input
    picture: Picture | None
    problem: str | None = None
    index: int | None = None
    time_s: float | None = None
    data: bytes | None = None
    """The picture's bytes, if it cannot be read again."""

    def in_full(self) -> Image:
        """Return all pixels of the picture, RGB [H, W, 3], also where it was decoded at a part of its size."""
        assert self.picture is not None
        if self.picture.factor == 1:
            return self.picture.pixels
        return read_rgb(self.source.path) if self.data is None else decode(self.data, LOCAL).pixels

    def record(self) -> dict[str, object]:
        """Return the fields of an answer that name its origin."""
        where: dict[str, object] = {"source": self.source.name}
        if self.index is not None:
            where |= {"frame": self.index, "time_s": round(self.time_s or 0.0, 3)}
        return where | ({"error": self.problem} if self.picture is None else {})


def frames_of(source: Input, *, fit: int) -> Iterator[Frame]:
    """Yield the pictures of one input; what cannot be decoded is one with a problem.

    Large files are decoded at a part of their size where their format allows it, to a longer side of at least `fit` px,
    as the service does.

    Raises:
        SourceError: a camera that cannot be opened.
    """
    if source.kind == "picture":
        try:
            yield Frame(source, read_picture(source.path, fit=fit))
        except ImageError as error:
            yield Frame(source, None, str(error))
        return
    if source.kind == "stdin":
        data = sys.stdin.buffer.read()
        try:
            yield Frame(source, decode(data, LOCAL, fit=fit), data=data)
        except ImageError as error:
            yield Frame(source, None, f"standard input: {error}")
        return
    frames = read_camera(source.camera) if source.kind == "camera" else read_video(source.path)
    try:
        for frame in frames:
            problem = f"{source.name}: {frame.problem}" if frame.problem else None
            yield Frame(source, _whole(frame.image), problem, frame.index, frame.time_s)
    except SourceError as error:
        if source.kind == "camera":
            raise
        yield Frame(source, None, str(error))


def _whole(image: Image | None) -> Picture | None:
    return None if image is None else Picture(image, (image.shape[1], image.shape[0]), 1, "video")


class _Following:
    """Detects faces in every Nth frame of a video and tracks them in between."""

    def __init__(self, detector: FaceModel, tracking: Tracking, *, conf: float | None) -> None:
        confidence = detector.spec.thresholds.conf if conf is None else conf
        self._detector, self._every = detector, tracking.every
        self._least = min(confidence, LEAST_CONFIDENCE)
        self._tracker = FaceTracker(half_life_s=tracking.half_life_s, confidence=confidence)
        self._next = 0

    def __call__(self, frame: Frame, picture: Picture) -> TrackedFaces:
        assert frame.index is not None and frame.time_s is not None
        if frame.index < self._next:
            return self._tracker.carry_on(time_s=frame.time_s)
        self._next = frame.index + self._every
        return self._tracker.update(self._detector.predict_picture(picture, conf=self._least), time_s=frame.time_s)


def _drawn(image: Image, faces: Detections | TrackedFaces) -> Image:
    if isinstance(faces, Detections):
        return draw_detections(image, faces)
    for track, face, box in reversed(list(zip(faces.tracks, faces.faces.emotions, faces.faces.xyxy, strict=True))):
        text = face.label if track is None else f"#{track} {face.label}"
        image = draw_box(image, box.tolist(), colour=COLOURS[face], text=text)
    return image


def answer(picture: Picture, faces: Detections | TrackedFaces) -> dict[str, object]:
    """Return the fields of a record on a picture and its faces; boxes are in px of the upright picture."""
    width, height = picture.image_wh
    return {"image": {"width": width, "height": height}, "detections": faces.records()}


def predict(
    detector: FaceModel,
    source: Input,
    *,
    conf: float | None = None,
    min_face: int = 0,
    copies: AnnotatedCopies | None = None,
    first_frame: int = 0,
    tracking: Tracking | None = None,
) -> Iterator[dict[str, object]]:
    """Yield the record of every picture of one input, and keep annotated copies in `copies`, if given.

    Faces whose shorter side has less than `min_face` px are left out, and so are the answers to frames before
    `first_frame`, which are in the copy of a video all the same.
    With `tracking`, faces of videos and cameras have a `track`; the frames before `first_frame` are followed again, so
    that numbers and averages are those of a run in one go. A camera's frames are gone.
    Boxes are px of the upright picture, `time_s` is seconds from the start of a video. However it ends, the copy of a
    video is completed with the frames so far.

    Raises:
        SourceError: a camera that cannot be opened, or whose tracks would have to be resumed.
        StorageError: a copy that cannot be written.
        DependencyError: the tracker is not installed.
    """
    find = None
    if tracking is not None and source.kind in {"video", "camera"}:
        if source.kind == "camera" and first_frame:
            raise SourceError(
                f"{source.name}: the tracks of a camera cannot be resumed, since its frames are gone; "
                "leave out --resume and name another file, or leave out --track"
            )
        find = _Following(detector, tracking, conf=conf)
    try:
        for frame in frames_of(source, fit=detector.imgsz):
            is_answered = frame.index is not None and frame.index < first_frame
            if is_answered and copies is None and find is None:
                continue
            picture = frame.picture
            if picture is None:
                if not is_answered:
                    yield frame.record()
                continue
            faces = find(frame, picture) if find else detector.predict_picture(picture, conf=conf)
            if min_face:
                found = faces.faces if isinstance(faces, TrackedFaces) else faces
                faces = faces.select(found.shorter_sides >= min_face)
            if copies is not None:
                try:
                    image = frame.in_full()
                except ImageError as error:  # too large to be decoded whole, or gone meanwhile
                    yield frame.record() | {"error": str(error)}
                    continue
                drawn = _drawn(image, faces)
                if frame.time_s is None:
                    copies.add_picture("stdin" if source.kind == "stdin" else source.name, drawn)
                else:
                    sound_of = source.path if source.kind == "video" else None
                    copies.add_frame(source.name, drawn, time_s=frame.time_s, sound_of=sound_of)
            if is_answered:
                continue
            yield frame.record() | answer(picture, faces)
    finally:
        if copies is not None:
            copies.finish_video()


def predict_all(
    detector: FaceModel,
    inputs: Iterable[Input],
    *,
    last: Position | None = None,
    conf: float | None = None,
    min_face: int = 0,
    copies: AnnotatedCopies | None = None,
    tracking: Tracking | None = None,
) -> Iterator[dict[str, object]]:
    """Yield the records of all inputs, in order; with `last`, those from that one on.

    Raises:
        SourceError: a camera that cannot be opened, or `last` is of none of the inputs.
        StorageError: a copy that cannot be written.
    """
    waiting = last
    for source in inputs:
        first_frame = 0
        if waiting is not None:
            if not waiting.is_in(source.name):
                continue
            first_frame, waiting = waiting.frame or 0, None
        yield from predict(
            detector,
            source,
            conf=conf,
            min_face=min_face,
            copies=copies,
            first_frame=first_frame,
            tracking=tracking,
        )
    if waiting is not None:
        raise SourceError(
            f"the file ends with {waiting.source}, which is not among the sources; name those of the interrupted run"
        )
