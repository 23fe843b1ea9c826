import pytest

from emotion_yolo.data.taxonomy import emotion_of, nearest, target_from_text, target_of
from emotion_yolo.structures.emotions import FACE_NAME, Emotion


@pytest.mark.parametrize("emotion", Emotion)
def test_every_emotion_is_known_by_its_own_name_in_any_case(emotion: Emotion) -> None:
    for name in (emotion.label, emotion.name, f" {emotion.label.title()}\n"):
        assert emotion_of(name) is emotion


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        ("angry", Emotion.ANGER),
        ("Contemptuous", Emotion.CONTEMPT),
        ("disgusted", Emotion.DISGUST),
        ("fearful", Emotion.FEAR),
        ("Scared", Emotion.FEAR),
        ("fears", Emotion.FEAR),
        ("Happiness", Emotion.HAPPY),
        ("Neutrality", Emotion.NEUTRAL),
        ("sadness", Emotion.SAD),
        ("Surprised", Emotion.SURPRISE),
        ("3_happy", Emotion.HAPPY),
        ("Sad face", Emotion.SAD),
        ("facial-expression-neutral", Emotion.NEUTRAL),
    ],
)
def test_nouns_adjectives_plurals_and_decorations_of_other_sets_are_known(name: str, emotion: Emotion) -> None:
    assert emotion_of(name) is emotion
    assert target_of(name) == emotion.label


@pytest.mark.parametrize(
    "name", ["", "4", "not happy", "no_mask", "happy-sad", "angerr", "Joy", "colère", "unhappy", "Freude", "face", "s"]
)
def test_nothing_is_guessed(name: str) -> None:
    assert emotion_of(name) is None


@pytest.mark.parametrize(("name", "known"), [("Face", True), ("faces", True), ("face mask", False), ("person", False)])
def test_a_face_without_an_expression_is_known(name: str, known: bool) -> None:
    assert target_of(name) == (FACE_NAME if known else None)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Joy", "happy"),
        ("Smiling", "happy"),
        ("mad", "anger"),
        ("angerr", "anger"),
        ("Suprise", "surprise"),
        ("", None),
    ],
)
def test_the_nearest_emotion_is_named_for_what_is_unknown(name: str, label: str | None) -> None:
    assert nearest(name) == (label or nearest(name))
    assert nearest(name) in {emotion.label for emotion in Emotion}


def test_a_mapping_names_an_emotion_a_face_or_nothing() -> None:
    assert target_from_text("Happiness") == "happy"
    assert target_from_text("face") == FACE_NAME
    assert target_from_text(" Ignore") is None
    with pytest.raises(ValueError, match=r"'joy' is no class; expected one of anger, .*, surprise, face, ignore"):
        target_from_text("joy")
