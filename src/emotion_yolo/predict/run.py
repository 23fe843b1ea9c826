"""The loop of `predict`: every input through the detector, a JSON-ready record for each picture or frame."""

from collections.abc import Iterator
from dataclasses import dataclass

from emotion_yolo.drawing import draw_detections
from emotion_yolo.errors import ImageError, SourceError
from emotion_yolo.imaging import Picture, read_picture, read_rgb
from emotion_yolo.inference.model import FaceModel
from emotion_yolo.predict.copies import AnnotatedCopies
from emotion_yolo.predict.sources import Input
from emotion_yolo.structures.images import Image
from emotion_yolo.video.reading import read_camera, read_video


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture or frame to look at, or the `problem` that there is instead; `index` and `time_s` are a frame's."""

    source: Input
    picture: Picture | None
    problem: str | None = None
    index: int | None = None
    time_s: float | None = None

    def record(self) -> dict[str, object]:
        """Return what an answer says of where it comes from."""
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


def predict(
    detector: FaceModel, source: Input, *, conf: float | None = None, copies: AnnotatedCopies | None = None
) -> Iterator[dict[str, object]]:
    """Yield the record of every picture of one input, and keep annotated copies in `copies`, if given.

    Boxes are px of the upright picture, `time_s` is seconds from the start of a video. However it ends, the copy of a
    video is completed with the frames so far.

    Raises:
        SourceError: a camera that cannot be opened.
        StorageError: a copy that cannot be written.
    """
    try:
        for frame in frames_of(source, fit=detector.imgsz):
            picture = frame.picture
            if picture is None:
                yield frame.record()
                continue
            faces = detector.predict_picture(picture, conf=conf)
            if copies is not None:
                image = picture.pixels if picture.factor == 1 else read_rgb(source.path)
                drawn = draw_detections(image, faces)
                if frame.time_s is None:
                    copies.add_picture(source.name, drawn)
                else:
                    sound_of = source.path if source.kind == "video" else None
                    copies.add_frame(source.name, drawn, time_s=frame.time_s, sound_of=sound_of)
            width, height = faces.image_wh
            yield frame.record() | {"image": {"width": width, "height": height}, "detections": faces.records()}
    finally:
        if copies is not None:
            copies.finish_video()
