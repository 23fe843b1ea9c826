"""The eight expression classes of AffectNet, their ids, and the names other sets give them."""

from enum import IntEnum


class Emotion(IntEnum):
    """A perceived facial expression; the value is the class id of AffectNet's YOLO format."""

    ANGER = 0
    CONTEMPT = 1
    DISGUST = 2
    FEAR = 3
    HAPPY = 4
    NEUTRAL = 5
    SAD = 6
    SURPRISE = 7

    @property
    def label(self) -> str:
        """Return the lower-case name used in every file and answer."""
        return self.name.lower()


NAMES: tuple[str, ...] = tuple(emotion.label for emotion in Emotion)

FACE_ID = len(NAMES)
"""Class id, in prepared labels only, of a face without an emotion label: it has no emotion loss."""

FACE_NAME = "face"
