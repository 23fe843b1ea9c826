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
"""Class id, in prepared labels only, of a face whose expression nobody has named: it has no emotion loss."""

FACE_NAME = "face"

ALIASES: dict[str, Emotion] = {
    # FER2013 and its relatives name the same expressions otherwise.
    "angry": Emotion.ANGER,
    "contemptuous": Emotion.CONTEMPT,
    "disgusted": Emotion.DISGUST,
    "fearful": Emotion.FEAR,
    "happiness": Emotion.HAPPY,
    "happy": Emotion.HAPPY,
    "sadness": Emotion.SAD,
    "surprised": Emotion.SURPRISE,
} | {emotion.label: emotion for emotion in Emotion}


def from_name(name: str) -> Emotion | None:
    """Return the emotion that `name` (any case, aliases of FER2013 included) stands for, or None."""
    return ALIASES.get(name.strip().lower())
