"""Class names of other data sets, mapped to the eight emotions.

Names are English; case, plural and the common noun and adjective forms do not matter (`Happiness`, `Surprised`),
nor do numbers and the words face, expression and emotion around a name (`3_fear`, `Happy face`). Anything else, other
languages included, is mapped by a dataset card or with `--map`.
"""

import difflib
import re

from emotion_yolo.structures.emotions import FACE_NAME, NAMES, Emotion

IGNORE = "ignore"
"""The value in `--map` and cards for a class whose labels are left out."""

_SYNONYMS: dict[Emotion, tuple[str, ...]] = {
    Emotion.ANGER: ("anger", "angry", "angered"),
    Emotion.CONTEMPT: ("contempt", "contemptuous"),
    Emotion.DISGUST: ("disgust", "disgusted", "disgusting"),
    Emotion.FEAR: ("fear", "fearful", "afraid", "scared", "frightened"),
    Emotion.HAPPY: ("happy", "happiness"),
    Emotion.NEUTRAL: ("neutral", "neutrality"),
    Emotion.SAD: ("sad", "sadness"),
    Emotion.SURPRISE: ("surprise", "surprised", "surprising"),
}
# Close in meaning, but not the same class: suggested in messages, never mapped unasked.
_RELATED: dict[Emotion, tuple[str, ...]] = {
    Emotion.ANGER: ("mad", "rage", "fury", "furious", "annoyed", "irritated"),
    Emotion.CONTEMPT: ("scorn", "disdain", "smug", "smirk"),
    Emotion.DISGUST: ("aversion", "revulsion", "yuck"),
    Emotion.FEAR: ("terror", "horror", "panic", "anxious", "anxiety", "worried"),
    Emotion.HAPPY: ("joy", "joyful", "glad", "delight", "smile", "smiling", "laugh", "laughing", "amused", "excited"),
    Emotion.NEUTRAL: ("calm", "blank", "none", "normal", "natural", "relaxed", "serious"),
    Emotion.SAD: ("sorrow", "sorrowful", "grief", "unhappy", "depressed", "cry", "crying"),
    Emotion.SURPRISE: ("shock", "shocked", "amazed", "amazement", "astonished", "astonishment"),
}
_MEANINGS = {word: emotion for emotion, words in _SYNONYMS.items() for word in words}
_SUGGESTIONS = _MEANINGS | {word: emotion for emotion, words in _RELATED.items() for word in words}
_FACES = frozenset({FACE_NAME, "faces"})
_FILLERS = frozenset({*_FACES, "expression", "emotion", "facial"})


def emotion_of(name: str) -> Emotion | None:
    """Return the emotion that a class name stands for, or None."""
    meaning = [word for word in _words(name) if word not in _FILLERS]
    if len(meaning) != 1:
        return None
    for word in (meaning[0], meaning[0].removesuffix("s")):
        if word in _MEANINGS:
            return _MEANINGS[word]
    return None


def target_of(name: str) -> str | None:
    """Return the label of the emotion that a class name stands for, `face` where it names a face, or None."""
    emotion = emotion_of(name)
    if emotion is not None:
        return emotion.label
    words = _words(name)
    return FACE_NAME if words and set(words) <= _FACES else None


def target_from_text(text: str) -> str | None:
    """Read the right side of `--map 'Joy=happy'`: an emotion's label, `face`, or None for `ignore`.

    Raises:
        ValueError: none of these.
    """
    if text.strip().lower() == IGNORE:
        return None
    target = target_of(text)
    if target is None:
        raise ValueError(f"{text!r} is no class; expected one of {', '.join((*NAMES, FACE_NAME, IGNORE))}")
    return target


def nearest(name: str) -> str:
    """Return the label of the emotion that an unknown class name is closest to, for a message."""
    words = _words(name) or [name.lower()]
    for word in words:
        if word in _SUGGESTIONS:
            return _SUGGESTIONS[word].label
    likeness = {
        (word, known): difflib.SequenceMatcher(None, word, known).ratio() for word in words for known in _SUGGESTIONS
    }
    _, closest = max(likeness, key=lambda pair: likeness[pair])
    return _SUGGESTIONS[closest].label


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.casefold())
