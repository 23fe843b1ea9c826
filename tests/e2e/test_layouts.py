"""Sets as people have them, trained on together: each is pulled, prepared, and goes into one training."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from emotion_yolo.structures.emotions import NAMES
from tests.e2e.project import REPOSITORY, Project

SAMPLE = REPOSITORY / "datasets/sample"
AFFECTNET = tuple(name.capitalize() for name in NAMES)
PER_SPLIT = {"train": 8, "val": 4}

Crop = tuple[Path, int]


def crops(used: list[int]) -> Iterator[list[Crop]]:
    """Yield a train crop of each emotion, other ones each time."""
    by_class: dict[int, list[Path]] = {}
    for label in sorted((SAMPLE / "sample/train/labels").iterdir()):
        by_class.setdefault(int(label.read_text().split()[0]), []).append(
            SAMPLE / "sample/train/images" / f"{label.stem}.jpg"
        )
    while True:
        yield [(by_class[i][len(used)], i) for i in range(len(NAMES))]
        used.append(1)


def put(crop: Crop, images: Path, labels: Path, number: int) -> None:
    path, _ = crop
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, images / path.name)
    (labels / f"{path.stem}.txt").write_text(f"{number} 0.499 0.499 0.999 0.999\n")


def ultralytics(folder: Path, deal: Iterator[list[Crop]]) -> None:
    """`images/train` beside `labels/train`, and a data.yaml with `path`."""
    for split in PER_SPLIT:
        for crop in next(deal):
            put(crop, folder / "images" / split, folder / "labels" / split, crop[1])
    table = {"path": ".", "train": "images/train", "val": "images/val", "names": list(AFFECTNET)}
    (folder / "data.yaml").write_text(yaml.safe_dump(table))


def split_folders(folder: Path, deal: Iterator[list[Crop]], names: object, ids: Sequence[int]) -> None:
    """`train/` and `val/`, no test split; emotion i has the number `ids[i]`, or is not there."""
    for split in PER_SPLIT:
        for crop in next(deal):
            if crop[1] < len(ids) and ids[crop[1]] >= 0:
                put(crop, folder / split / "images", folder / split / "labels", ids[crop[1]])
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": names}))


def val_instead_of_valid(folder: Path, deal: Iterator[list[Crop]]) -> None:
    split_folders(folder, deal, list(AFFECTNET), range(8))


def another_order(folder: Path, deal: Iterator[list[Crop]]) -> None:
    split_folders(folder, deal, list(reversed(AFFECTNET)), range(7, -1, -1))


def other_words(folder: Path, deal: Iterator[list[Crop]]) -> None:
    words = ("Anger", "Contempt", "Disgusted", "Fear", "Happiness", "Neutrality", "Sadness", "Surprised")
    split_folders(folder, deal, {str(i): word for i, word in enumerate(words)}, range(8))


def seven_classes(folder: Path, deal: Iterator[list[Crop]]) -> None:
    split_folders(folder, deal, [name for name in AFFECTNET if name != "Contempt"], [0, -1, 1, 2, 3, 4, 5, 6])


def several_faces(folder: Path, deal: Iterator[list[Crop]]) -> None:
    """Photographs with several labelled faces, as labelling tools export them."""
    shutil.copytree(SAMPLE / "sample-groups", folder)


def fer2013(folder: Path, deal: Iterator[list[Crop]]) -> None:
    """FER2013's table, with FER+'s votes beside it."""
    folder.mkdir()
    kaggle = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    voted = ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt")
    spelt = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
    with (folder / "fer2013.csv").open("w") as table, (folder / "fer2013new.csv").open("w") as votes:
        pixels, counts = csv.writer(table), csv.writer(votes)
        pixels.writerow(["emotion", "pixels", "Usage"])
        counts.writerow(["Usage", "Image name", *spelt])
        row = 0
        for usage in ("Training", "PublicTest", "PrivateTest"):
            for path, emotion in next(deal):
                if NAMES[emotion] not in kaggle:
                    continue
                grey = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (48, 48), interpolation=cv2.INTER_AREA)
                pixels.writerow([kaggle.index(NAMES[emotion]), " ".join(map(str, grey.ravel())), usage])
                given = np.where([name == NAMES[emotion] for name in voted], 7, 0)
                given[voted.index("contempt")] += 3
                counts.writerow([usage, f"fer{row:07d}.png", *given, 0, 0])
                row += 1


KINDS: tuple[Callable[[Path, Iterator[list[Crop]]], None], ...] = (
    several_faces, ultralytics, val_instead_of_valid, another_order, other_words, seven_classes, fer2013,
)  # fmt: skip


@pytest.mark.timeout(900)
def test_every_kind_of_set_is_pulled_prepared_and_trained_on(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("git", "init", "-q", "-b", "main")
    project.shrink()
    project.commit("clone")
    deal = crops([])
    for number, kind in enumerate(KINDS):
        source = tmp_path / "sets" / kind.__name__
        source.parent.mkdir(exist_ok=True)
        kind(source, deal)
        project.emotion_yolo("pull", str(source), "--name", kind.__name__, *(["--add"] if number else []))
        project.commit(kind.__name__)

    project.dvc("repro", "train")
    faces = json.loads((project.root / "reports/prepare/report.json").read_text("utf-8"))["faces"]
    for kind in KINDS:
        [seen] = [emotions for source, emotions in faces["train"].items() if _plain(source) == kind.__name__]
        assert len(seen) >= 6, kind
        assert kind is not seven_classes or "contempt" not in seen
        assert kind.__name__ in {name for split in ("valid", "test") for name in map(_plain, faces[split])}, kind
    assert (project.root / "models/trained/weights.pt").is_file()


def test_classes_that_are_no_emotions_are_refused_with_the_reason(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.run("git", "init", "-q", "-b", "main")
    source = tmp_path / "masks"
    split_folders(source, crops([]), ["mask", "no-mask"], [0, 1])
    with pytest.raises(AssertionError, match=r"no class is an emotion or a face; got mask, no-mask"):
        project.emotion_yolo("pull", str(source))
    assert not (project.root / "data").exists()


def _plain(source: str) -> str:
    return source.removesuffix("-other")
