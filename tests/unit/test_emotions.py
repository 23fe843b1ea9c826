import pytest

from emotion_yolo.structures.emotions import ALIASES, FACE_ID, FACE_NAME, NAMES, Emotion, from_name


def test_ids_are_those_of_affectnet() -> None:
    assert [(emotion.value, emotion.label) for emotion in Emotion] == [
        (0, "anger"),
        (1, "contempt"),
        (2, "disgust"),
        (3, "fear"),
        (4, "happy"),
        (5, "neutral"),
        (6, "sad"),
        (7, "surprise"),
    ]
    assert tuple(emotion.label for emotion in Emotion) == NAMES


def test_a_face_without_a_name_has_an_id_and_a_name_of_its_own() -> None:
    assert FACE_ID not in list(Emotion)
    assert FACE_NAME not in NAMES
    assert from_name(FACE_NAME) is None


@pytest.mark.parametrize("emotion", Emotion)
def test_finds_an_emotion_by_its_own_name(emotion: Emotion) -> None:
    for name in (emotion.label, emotion.name, f" {emotion.label.title()}\n"):
        assert from_name(name) is emotion


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        ("angry", Emotion.ANGER),
        ("disgust", Emotion.DISGUST),
        ("fear", Emotion.FEAR),
        ("happy", Emotion.HAPPY),
        ("sad", Emotion.SAD),
        ("surprise", Emotion.SURPRISE),
        ("neutral", Emotion.NEUTRAL),
        ("Happiness", Emotion.HAPPY),
        ("sadness", Emotion.SAD),
        ("Contemptuous", Emotion.CONTEMPT),
        ("fearful", Emotion.FEAR),
        ("disgusted", Emotion.DISGUST),
        ("surprised", Emotion.SURPRISE),
    ],
)
def test_finds_an_emotion_by_the_names_of_other_sets(name: str, emotion: Emotion) -> None:
    assert from_name(name) is emotion


@pytest.mark.parametrize("name", ["", "joyful-ish", "4", "angerr"])
def test_does_not_guess(name: str) -> None:
    assert from_name(name) is None


def test_every_alias_is_lower_case_as_the_lookup_needs_it() -> None:
    assert all(alias == alias.lower().strip() for alias in ALIASES)
