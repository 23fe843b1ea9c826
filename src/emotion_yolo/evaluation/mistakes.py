"""Error analysis in pictures: the worst mistakes, and an even pick of all predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion_yolo.data.prepared import CLASSES, Sample
from emotion_yolo.drawing import Tile, contact_sheet, draw_box, draw_detections, enlarged, evenly, fitted, stacked
from emotion_yolo.evaluation.metrics import HEIGHT_SIDE, Array, truth_xyxy
from emotion_yolo.evaluation.outcomes import Outcome, match_faces
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.images import Image, read_rgb

_LEAST_MISSED_HEIGHT = 32  # px; a smaller face is often missed and shows little
_PICTURE_SIDE = 320  # px, long side of a picture before a box is drawn into it
_SHOWN = 12  # pictures of each kind on the sheet of predictions
_SCENE_SIDE, _CROP_SIDE = 640, 320  # px, long sides at which they are shown there


@dataclass(frozen=True, eq=False)
class Mistake:
    """A face that was missed or named wrongly: the `face`-th of the outcome's labels."""

    outcome: Outcome
    face: int
    prediction: int
    """Index among the outcome's predictions; -1 where the face was missed."""

    @property
    def xyxy(self) -> list[float]:
        """Return the true box in px."""
        box = truth_xyxy(self.outcome.sample.labels, self.outcome.predictions.image_wh)[self.face]
        return [float(value) for value in box]


def worst_mistakes(outcomes: Sequence[Outcome], *, count: int) -> list[Mistake]:
    """Choose the most confident wrong emotions and, for a third of the places, the largest faces missed.

    If there are too few of one kind, the other takes its places.
    """
    confident, missed = [], []
    faces = match_faces(outcomes)
    predicted = faces.predicted
    order = np.arange(len(faces.cls)) - np.searchsorted(faces.picture, faces.picture)  # index within its picture
    for index in range(len(faces.cls)):
        outcome = outcomes[faces.picture[index]]
        image_wh = outcome.predictions.image_wh
        mistake = Mistake(outcome, int(order[index]), int(faces.match[index]))
        if mistake.prediction < 0:
            height = float(outcome.sample.labels.xywhn[mistake.face, 3]) * image_wh[1]
            if height * min(1.0, HEIGHT_SIDE / max(image_wh)) >= _LEAST_MISSED_HEIGHT:
                missed.append((-height, mistake))
        elif faces.cls[index] not in (FACE_ID, predicted[index]):
            confident.append((-float(faces.probabilities[index].max()), mistake))
    wrong, lost = (
        [mistake for _, mistake in sorted(kind, key=lambda rated: (rated[0], rated[1].outcome.sample.image.name))]
        for kind in (confident, missed)
    )
    places = max(min(len(lost), count // 3), count - len(wrong))
    return [*wrong[: count - min(places, len(lost))], *lost[:places]]


def mistake_tile(mistake: Mistake) -> Tile:
    """Show a mistake, cut out of its picture: the labelled box in white, the predicted one in colour."""
    sample, predictions = mistake.outcome.sample, mistake.outcome.predictions
    truth = CLASSES[int(sample.labels.cls[mistake.face])]
    shown = predictions.select(np.arange(len(predictions)) == mistake.prediction)
    text = f"predicted: {shown.emotions[0].label} {shown.probabilities.max():.0%}" if len(shown) else "not found"
    image, offset = _around(read_rgb(sample.image), mistake.xyxy)
    large = enlarged(image, side=_PICTURE_SIDE)
    box = (np.asarray(mistake.xyxy) - offset) * _scale(large, image)
    large = draw_detections(draw_box(large, box.tolist()), _moved(shown, offset, image, large))
    return Tile(large, (f"label: {truth}", text, sample.image.name))


def prediction_tile(outcome: Outcome, *, side: int) -> Tile:
    """Show a picture, scaled to a long side of `side` px, with all its predictions."""
    image = read_rgb(outcome.sample.image)
    large = fitted(image, side=side)
    moved = _moved(outcome.predictions, np.zeros(4), image, large)
    return Tile(draw_detections(large, moved), (outcome.sample.image.name, _label_text(outcome.sample)))


def predictions_sheet(photographs: Sequence[Outcome], crops: Sequence[Outcome]) -> Image:
    """Show predictions for photographs, large, and for crops, both evenly picked."""
    title = "Predictions at the served threshold, evenly picked from the test split: "
    of_crops = [prediction_tile(outcome, side=_CROP_SIDE) for outcome in evenly(crops, _SHOWN)]
    of_photographs = [prediction_tile(outcome, side=_SCENE_SIDE) for outcome in evenly(photographs, _SHOWN)]
    sheets = []
    if of_photographs:
        sheets.append(contact_sheet(of_photographs, title=f"{title}photographs", columns=3, side=_SCENE_SIDE))
    if of_crops:
        sheets.append(contact_sheet(of_crops, title=f"{title}crops", columns=6, side=_CROP_SIDE))
    return stacked(sheets)


def _label_text(sample: Sample) -> str:
    names = [CLASSES[cls] for cls in sample.labels.cls.tolist() if cls != FACE_ID]
    return f"label: {', '.join(names)}" if names else f"{len(sample.labels)} faces"


def _around(image: Image, xyxy: Sequence[float]) -> tuple[Image, Array]:
    """Cut out a square of three times the box, within the picture; returns it and its offset (x, y, x, y) in px."""
    height, width = image.shape[:2]
    half = 1.5 * max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1])
    x, y = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
    left, top = max(int(x - half), 0), max(int(y - half), 0)
    right, bottom = min(int(x + half) + 1, width), min(int(y + half) + 1, height)
    return image[top:bottom, left:right], np.asarray([left, top, left, top], np.float64)


def _scale(large: Image, image: Image) -> Array:
    x, y = large.shape[1] / image.shape[1], large.shape[0] / image.shape[0]
    return np.asarray([x, y, x, y])


def _moved(detections: Detections, offset: Array, image: Image, large: Image) -> Detections:
    """Return the detections in the pixels of a part of their picture that begins at `offset` and was enlarged."""
    height, width = large.shape[:2]
    boxes = (detections.xyxy - offset) * _scale(large, image)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return Detections(boxes.astype(np.float32), detections.confidence, detections.probabilities, (width, height))
