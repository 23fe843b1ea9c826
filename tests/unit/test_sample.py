"""The bundled sample: the generator's promises, and that what is committed is what the generator draws."""

import hashlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from emotion_yolo.portraits.composing import EMFACS, SCENE_SIZES, compose_scene, random_generator, random_units
from emotion_yolo.portraits.sample import (
    CROP_COUNTS,
    FULL_FRAME,
    PLANTED_NEAR_DUPLICATES,
    SCENE_COUNT,
    PlantedNearDuplicate,
    crop_file,
    draw_crop,
    generate_sample,
)
from emotion_yolo.structures.boxes import iou_matrix, xywhn_to_xyxy
from emotion_yolo.structures.emotions import Emotion

BUNDLED = Path(__file__).parents[2] / "datasets" / "sample"
FEW = {"train": 1, "valid": 0, "test": 1}
SMALL = {"train": 24, "valid": 8, "test": 16}
CLASSES = ["Anger", "Contempt", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    generate_sample(folder, seed=0, crop_counts=SMALL, scene_count=3, group_counts=FEW)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def decoded(jpeg: bytes) -> NDArray[np.int16]:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(np.int16)


def digests(split: str) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (BUNDLED / "sample" / split / "images").iterdir()
    }


# The generator ---


def test_two_runs_write_the_same_bytes(small: Path, tmp_path: Path) -> None:
    generate_sample(tmp_path, seed=0, crop_counts=SMALL, scene_count=3, group_counts=FEW)
    assert contents(tmp_path) == contents(small)


def test_another_seed_draws_other_pictures(small: Path) -> None:
    first, second = draw_crop("train", 0, seed=0), draw_crop("train", 0, seed=1)
    assert not np.array_equal(first.image, second.image)


def test_a_picture_does_not_depend_on_how_many_others_are_drawn(small: Path) -> None:
    file = crop_file("test", 5, seed=0)
    assert (small / "sample" / "test" / "images" / f"{file.name}.jpg").read_bytes() == file.jpeg


def test_splits_draw_different_pictures_at_the_same_index() -> None:
    assert not np.array_equal(draw_crop("train", 3, seed=0).image, draw_crop("valid", 3, seed=0).image)


def test_small_sample_has_the_counts_asked_for(small: Path) -> None:
    for split, count in SMALL.items():
        assert len(list((small / "sample" / split / "images").iterdir())) == count
        assert len(list((small / "sample" / split / "labels").iterdir())) == count
    assert len(list((small / "sample-scenes" / "all" / "images").iterdir())) == 3


def test_readme_lists_only_near_duplicates_that_were_written(small: Path) -> None:
    text = (small / "README.md").read_text(encoding="utf-8")
    assert "test, no. 12" in text and "test, no. 47" not in text
    assert "24 train, 8 valid, 16 test" in text


@pytest.mark.parametrize("index", range(16))
def test_face_lies_in_its_crop(index: int) -> None:
    crop = draw_crop("test", index, seed=0)
    x1, y1, x2, y2 = crop.face_xyxy
    assert crop.image.shape == (96, 96, 3) and crop.image.dtype == np.uint8
    assert -6 <= x1 < x2 <= 102 and -6 <= y1 < y2 <= 102
    assert 0.4 < (x2 - x1) / 96 < 0.9 and 0.5 < (y2 - y1) / 96 < 1.05


def test_faces_fill_as_much_of_the_crop_as_in_affectnet() -> None:
    boxes = np.array([draw_crop("train", index, seed=0).face_xyxy for index in range(40)]) / 96
    assert (boxes[:, 2] - boxes[:, 0]).mean() == pytest.approx(0.62, abs=0.05)
    assert (boxes[:, 3] - boxes[:, 1]).mean() == pytest.approx(0.83, abs=0.06)


@pytest.mark.parametrize("emotion", list(Emotion))
def test_muscles_of_an_expression_act_more_than_the_others(emotion: Emotion) -> None:
    drawn = [random_units(emotion, random_generator(0, "units", index)) for index in range(60)]
    sides = {"au12": ("au12_left", "au12_right"), "au14": ("au14_left", "au14_right")}
    for name in EMFACS[emotion]:
        fields = sides.get(name, (name,))
        strongest = [max(getattr(units, field) for field in fields) for units in drawn]
        assert np.mean(strongest) > 0.4, name
        assert np.std(strongest) > 0.1, name  # weak ones exist
    for name in ("au4", "au9", "au15", "au23"):
        if name not in EMFACS[emotion]:
            assert np.mean([getattr(units, name) for units in drawn]) < 0.1, name


def test_contempt_is_one_sided_and_happiness_is_not() -> None:
    def unevenness(emotion: Emotion) -> list[float]:
        drawn = (random_units(emotion, random_generator(0, "units", index)) for index in range(60))
        return [abs(units.au12_left - units.au12_right) / max(units.au12_left, units.au12_right) for units in drawn]

    assert min(unevenness(Emotion.CONTEMPT)) > 0.75
    assert max(unevenness(Emotion.HAPPY)) < 0.2


def test_contempt_shows_on_either_side() -> None:
    drawn = (random_units(Emotion.CONTEMPT, random_generator(0, "units", index)) for index in range(30))
    assert {units.au12_left > units.au12_right for units in drawn} == {True, False}


@pytest.mark.parametrize("index", range(6))
def test_no_face_of_a_scene_hides_another(index: int) -> None:
    scene = compose_scene(random_generator(3, "scenes", index))
    height, width = scene.image.shape[:2]
    assert (width, height) in SCENE_SIZES
    assert 1 <= len(scene.faces_xyxy) <= 6
    assert (iou_matrix(scene.faces_xyxy, scene.faces_xyxy) - np.eye(len(scene.faces_xyxy)) < 0.02).all()
    assert (scene.faces_xyxy >= 0).all() and (scene.faces_xyxy <= [width, height, width, height]).all()


def test_person_for_whom_there_is_no_room_is_left_out() -> None:
    # This scene's lot asks for three people, of whom the last, drawn nearest, would hide another wherever it stood.
    assert len(compose_scene(random_generator(0, "scenes", 47)).faces_xyxy) == 2


# What is committed ---


def test_bundled_sample_is_at_most_6_mb() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) <= 6_000_000


@pytest.mark.parametrize(("split", "count"), list(CROP_COUNTS.items()))
def test_bundled_split_is_complete_balanced_and_in_affectnets_form(split: str, count: int) -> None:
    folder = BUNDLED / "sample" / split
    images = sorted(path.stem for path in (folder / "images").glob("*.jpg"))
    labels = sorted((folder / "labels").glob("*.txt"))
    assert images == [path.stem for path in labels] and len(images) == count
    lines = [path.read_text(encoding="utf-8") for path in labels]
    assert Counter(lines) == {f"{emotion.value} {FULL_FRAME}\n": count // 8 for emotion in Emotion}
    for path in (folder / "images").iterdir():
        assert decoded(path.read_bytes()).shape == (96, 96, 3)


def test_bundled_class_tables() -> None:
    crops = yaml.safe_load((BUNDLED / "sample" / "data.yaml").read_text(encoding="utf-8"))
    assert crops == {
        "train": "train/images",
        "val": "valid/images",
        "test": "test/images",
        "nc": 8,
        "names": CLASSES,
    }
    scenes = yaml.safe_load((BUNDLED / "sample-scenes" / "data.yaml").read_text(encoding="utf-8"))
    assert scenes["names"] == ["face"] and scenes["nc"] == 1 and "path" not in scenes


def test_bundled_scenes_have_one_to_six_true_boxes_each() -> None:
    images = sorted((BUNDLED / "sample-scenes" / "all" / "images").glob("*.jpg"))
    assert len(images) == SCENE_COUNT
    counts: Counter[int] = Counter()
    for path in images:
        height, width = decoded(path.read_bytes()).shape[:2]
        assert max(height, width) <= 416
        rows = np.loadtxt(BUNDLED / "sample-scenes" / "all" / "labels" / f"{path.stem}.txt", ndmin=2)
        counts[len(rows)] += 1
        assert (rows[:, 0] == 0).all()
        boxes = xywhn_to_xyxy(rows[:, 1:], image_wh=(width, height))
        assert (boxes >= -0.01).all() and (boxes <= np.array([width, height, width, height]) + 0.01).all()
        assert (boxes[:, 3] - boxes[:, 1] >= 10).all()
    assert set(counts) == {1, 2, 3, 4, 5, 6}


def test_ffhq_names_are_frequent_among_the_happy_and_rare_among_the_frightened() -> None:
    shares: dict[Emotion, list[bool]] = {emotion: [] for emotion in Emotion}
    for path in (BUNDLED / "sample" / "train" / "labels").iterdir():
        shares[Emotion(int(path.read_text(encoding="utf-8").split()[0]))].append(path.stem.startswith("ffhq_"))
    assert np.mean(shares[Emotion.HAPPY]) > 0.7
    assert np.mean(shares[Emotion.FEAR]) < 0.15
    assert np.mean([ffhq for each in shares.values() for ffhq in each]) == pytest.approx(0.4, abs=0.06)


def test_names_recur_across_splits_for_different_pictures() -> None:
    train, valid, test = (digests(split) for split in CROP_COUNTS)
    shared = (set(train) & set(valid)) | (set(train) & set(test))
    assert len(shared) > 20
    assert all(train[name] != other.get(name) for name in shared for other in (valid, test))


def test_no_picture_is_shared_between_splits_but_the_planted_ones() -> None:
    train, valid, test = (set(digests(split).values()) for split in CROP_COUNTS)
    assert (
        len(train & test)
        == sum(near_duplicate.exact and near_duplicate.split == "test" for near_duplicate in PLANTED_NEAR_DUPLICATES)
        == 3
    )
    assert not train & valid and not valid & test
    assert [len(digests(split)) for split in CROP_COUNTS] == [len(train), len(valid), len(test)]


@pytest.mark.parametrize("planted", PLANTED_NEAR_DUPLICATES)
def test_planted_near_duplicate_shows_the_same_face_and_class(planted: PlantedNearDuplicate) -> None:
    copy = crop_file(planted.split, planted.index, seed=0)
    original = crop_file("train", planted.train_index, seed=0)
    assert copy.emotion is original.emotion
    assert planted.index % 8 == copy.emotion
    assert (copy.jpeg == original.jpeg) == planted.exact
    assert np.abs(decoded(copy.jpeg) - decoded(original.jpeg)).mean() < 6


@pytest.mark.parametrize(
    ("split", "index"), [("train", 0), ("train", 321), ("train", 639), ("valid", 77), ("test", 12)]
)
def test_bundled_crop_is_what_the_generator_draws(split: str, index: int) -> None:
    file = crop_file(split, index, seed=0)
    committed = (BUNDLED / "sample" / split / "images" / f"{file.name}.jpg").read_bytes()
    # Other versions of NumPy and OpenCV may round otherwise: pixels are compared, not bytes.
    assert np.abs(decoded(committed) - decoded(file.jpeg)).mean() < 2
    label = (BUNDLED / "sample" / split / "labels" / f"{file.name}.txt").read_text(encoding="utf-8")
    assert label == f"{int(file.emotion)} {FULL_FRAME}\n"


def test_bundled_scene_is_what_the_generator_draws() -> None:
    scene = compose_scene(random_generator(0, "scenes", 7))
    committed = decoded((BUNDLED / "sample-scenes" / "all" / "images" / "scene_007.jpg").read_bytes())
    assert np.abs(committed - scene.image[..., ::-1].astype(np.int16)).mean() < 4
    rows = np.loadtxt(BUNDLED / "sample-scenes" / "all" / "labels" / "scene_007.txt", ndmin=2)
    height, width = committed.shape[:2]
    np.testing.assert_allclose(xywhn_to_xyxy(rows[:, 1:], image_wh=(width, height)), scene.faces_xyxy, atol=0.5)


def test_bundled_readme_says_what_it_is() -> None:
    text = (BUNDLED / "README.md").read_text(encoding="utf-8")
    for phrase in ("no real person", "CC0-1.0", "seed 0", "640 train, 128 valid, 192 test"):
        assert phrase in text
