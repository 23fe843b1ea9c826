"""From kept pictures to a YOLO set that `emotion-yolo pull` takes."""

import csv
import shutil
from pathlib import Path

import yaml

from emotion_yolo.errors import StorageError
from emotion_yolo.review.folder import Case, read_cases
from emotion_yolo.structures.emotions import FACE_ID, FACE_NAME, NAMES

REVIEW = "review.csv"


def export_cases(kept: Path, out: Path, *, unlabelled: bool = False) -> tuple[int, int]:
    """Write kept pictures as a YOLO set into `out`, which must not exist; returns numbers of pictures and of labels.

    A face with feedback has that emotion, any other is `face`. With `unlabelled`, pictures without any feedback are
    written as well, and faces without feedback have the model's emotion, for a person to correct.

    Raises:
        StorageError: no kept pictures, none to write, or `out` exists.
    """
    if out.exists():
        raise StorageError(f"{out} exists; name a folder that does not")
    cases = [(case, picture) for case, picture in read_cases(kept) if unlabelled or case.feedback]
    if not cases:
        advice = "" if unlabelled else "; no feedback came for any: write all for a person to label with --unlabelled"
        raise StorageError(f"{kept}: no pictures to write{advice}")
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True)
    (out / "data.yaml").write_text(yaml.safe_dump({"path": ".", "train": "images", "names": [*NAMES, FACE_NAME]}))
    labels = 0
    with open(out / REVIEW, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("picture", "reasons", "face", "model_emotion", "probability", "feedback"))
        for case, picture in cases:
            shutil.copyfile(picture, out / "images" / picture.name)
            lines = _lines(case, suggest=unlabelled)
            (out / "labels" / picture.with_suffix(".txt").name).write_text("".join(f"{line}\n" for line in lines))
            labels += len(case.feedback)
            for number, face in enumerate(case.faces):
                given = case.feedback.get(number, "")
                row = (picture.name, " ".join(case.reasons), number, face.emotion, face.probability, given)
                table.writerow(row)
    return len(cases), labels


def _lines(case: Case, *, suggest: bool) -> list[str]:
    lines = []
    for number, face in enumerate(case.faces):
        emotion = case.feedback.get(number, face.emotion if suggest else None)
        x1, y1, x2, y2 = face.box
        class_id = FACE_ID if emotion is None else NAMES.index(emotion)
        lines.append(f"{class_id} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}")
    return lines
