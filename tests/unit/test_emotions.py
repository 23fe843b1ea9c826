from emotion_yolo.structures.emotions import FACE_ID, FACE_NAME, NAMES, Emotion


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
