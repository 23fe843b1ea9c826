"""The prepare stage in a project of painted pictures, from the raw folder to what is trained on."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from emotion_yolo.data.prepared import Kind, read_crops, read_scenes, read_split
from emotion_yolo.errors import DataError
from emotion_yolo.paths import PREPARE_REPORT, PREPARED
from emotion_yolo.stages import prepare as stage
from emotion_yolo.stages import run_stage
from emotion_yolo.structures.emotions import FACE_ID, FACE_NAME, NAMES
from emotion_yolo.structures.labels import Labels, read, write
from tests.builders import (
    CELL,
    COLOURS,
    Image,
    classifier,
    exported_model,
    painted_labels,
    save_picture,
    set_record,
    write_pin,
)

REPOSITORY = Path(__file__).parents[2]
FULL_FRAME = "0.499 0.499 0.999 0.999"
CELLS = [(0, 0), (1, 1), (2, 2), (0, 2), (1, 0), (2, 1)]


def textured(faces: dict[tuple[int, int], int], *, seed: int, side: int = 96) -> Image:
    """Paint faces on noise of a grey mean, in which the painted network sees none; no two seeds look alike."""
    noise = np.random.default_rng(seed).integers(14, 215, (side // 6, side // 6, 1), dtype=np.uint8)
    image = np.repeat(cv2.resize(noise, (side, side), interpolation=cv2.INTER_NEAREST)[..., None], 3, axis=2)
    for (column, row), emotion in faces.items():
        image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = COLOURS[emotion]
    return image


@dataclass(frozen=True)
class Crop:
    """A raw crop: its class as labelled, and where its face is painted, if anywhere."""

    split: str
    name: str
    cls: int
    cell: tuple[int, int] | None
    seed: int

    def image(self) -> Image:
        return textured({} if self.cell is None else {self.cell: self.cls}, seed=self.seed)


def crops_of(split: str, count: int, *, seed: int) -> list[Crop]:
    return [Crop(split, f"{i:03d}.png", i % 8, CELLS[i % len(CELLS)], seed + i) for i in range(count)]


CROPS = [*crops_of("train", 20, seed=100), *crops_of("valid", 6, seed=200), *crops_of("test", 6, seed=300)]
SCENE_FACES = {(0, 0): 2, (3, 3): 5}
CLASSES = {name.capitalize(): name for name in NAMES}
CROP_RECORD = set_record("crops", classes=CLASSES)
GROUP_RECORD = set_record("groups", classes=CLASSES, boxes="tight", tag="party")
SCENE_RECORD = set_record("scenes", classes={"face": "face"}, boxes="tight", emotions="unnamed")


def add(root: Path, crop: Crop, *, image: Image | None = None) -> None:
    folder = root / "data/crops" / crop.split
    save_picture(folder / "images" / crop.name, crop.image() if image is None else image)
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / f"{Path(crop.name).stem}.txt").write_text(f"{crop.cls} {FULL_FRAME}\n")


def add_scenes(root: Path, count: int = 10) -> None:
    labels = root / "data/scenes/all/labels"
    labels.mkdir(parents=True)
    for i in range(count):
        save_picture(root / f"data/scenes/all/images/photo{i}.png", textured(SCENE_FACES, seed=900 + i, side=160))
        write(labels / f"photo{i}.txt", painted_labels(SCENE_FACES, cls=0, image_wh=(160, 160)))
    (root / "data/scenes/data.yaml").write_text("names: [face]")
    write_pin(root / "data.dvc", CROP_RECORD, SCENE_RECORD)


def add_groups(root: Path) -> None:
    """Add photographs with two faces each whose emotions are named."""
    for split, count, seed in (("train", 4, 700), ("valid", 2, 720), ("test", 2, 740)):
        folder = root / "data/groups" / split
        (folder / "labels").mkdir(parents=True)
        for i in range(count):
            save_picture(folder / f"images/{i}.png", textured(SCENE_FACES, seed=seed + i, side=160))
            write(folder / f"labels/{i}.txt", painted_labels(SCENE_FACES, image_wh=(160, 160)))
    (root / "data/groups/data.yaml").write_text(yaml.safe_dump({"names": list(CLASSES)}))


def change(root: Path, **values: Any) -> None:
    """Set values of params.yaml by their dotted names, `__` for the dot."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    for dotted, value in values.items():
        *sections, name = dotted.split("__")
        inner = params
        for section in sections:
            inner = inner[section]
        inner[name] = value
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def make_project(root: Path) -> Path:
    """Make a project with 32 crops, no scenes, and the painted network as its localiser."""
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    shutil.copy(REPOSITORY / "params.yaml", root)
    change(
        root,
        prepare__localise__imgsz=96,
        prepare__teacher__imgsz=96,
        prepare__scenes__valid=0.2,
        prepare__scenes__test=0.3,
    )
    write_pin(root / "data.dvc", CROP_RECORD)
    exported_model(root / "models/release")
    for crop in CROPS:
        add(root, crop)
    names = [name.capitalize() for name in NAMES]
    (root / "data/crops/data.yaml").write_text(yaml.safe_dump({"nc": 8, "names": names}))
    return root


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("template"))


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without faults, as the working folder."""
    root = shutil.copytree(template, tmp_path / "project")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def report() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PREPARE_REPORT / "report.json").read_text("utf-8"))
    return content


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def files_of(*folders: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for root in folders for path in root.rglob("*") if path.is_file()}


def label_of(crop: Crop, *, split: str | None = None) -> Labels:
    return read(PREPARED / "labels" / (split or crop.split) / f"{Path(crop.name).stem}.txt", class_names=NAMES)


def assert_tight(labels: Labels, crop: Crop) -> None:
    assert crop.cell is not None
    assert labels.cls.tolist() == [crop.cls]
    np.testing.assert_allclose(labels.xywhn, painted_labels({crop.cell: crop.cls}).xywhn, atol=2e-3)


def test_crops_of_valid_and_test_keep_their_names_and_get_tight_boxes(project: Path) -> None:
    stage.main()
    for split in ("valid", "test"):
        crops = [crop for crop in CROPS if crop.split == split]
        assert names(PREPARED / "images" / split) == {crop.name for crop in crops}
        for crop in crops:
            assert_tight(label_of(crop), crop)
            raw = project / "data/crops" / split / "images" / crop.name
            assert (PREPARED / "images" / split / crop.name).read_bytes() == raw.read_bytes()
        assert len(read_crops(PREPARED, split)) == len(crops)
    assert yaml.safe_load((PREPARED / "data.yaml").read_text())["names"] == dict(enumerate([*NAMES, FACE_NAME]))


def test_every_train_crop_lies_on_one_sheet_and_some_are_single_too(project: Path) -> None:
    change(project, prepare__sheets__singles=0.5)
    stage.main()
    pictures = {path.stem: path for path in (PREPARED / "images/train").iterdir()}
    sheets = {stem for stem in pictures if stem.startswith("sheet_")}
    on_sheets = [read(PREPARED / f"labels/train/{stem}.txt", class_names=NAMES).cls for stem in sorted(sheets)]
    train = [crop for crop in CROPS if crop.split == "train"]
    assert Counter(np.concatenate(on_sheets).tolist()) == Counter(crop.cls for crop in train)
    assert report()["sheets"] == len(sheets)
    assert report()["crops"] == {"train": 20, "valid": 6, "test": 6}
    assert 0 < len(pictures) - len(sheets) < len(train)
    assert cv2.imread(str(pictures["sheet_000000"])).shape == (256, 256, 3)
    assert not (PREPARED / "scenes").exists()


def test_boxes_on_a_sheet_are_where_the_faces_are(project: Path) -> None:
    stage.main()
    for path in (PREPARED / "images/train").glob("sheet_*.jpg"):
        sheet = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        labels = read(PREPARED / f"labels/train/{path.stem}.txt", class_names=NAMES)
        for cls, (x, y, _, _) in zip(labels.cls, labels.xywhn * 256, strict=True):
            np.testing.assert_allclose(sheet[int(y), int(x)], COLOURS[cls], atol=30)


def test_no_near_duplicate_of_a_test_or_valid_crop_is_left_in_train(project: Path) -> None:
    (test, other), (valid, *_) = ([crop for crop in CROPS if crop.split == s][:2] for s in ("test", "valid"))
    change(project, prepare__sheets__side=0)
    brighter = cv2.convertScaleAbs(test.image(), alpha=0.9, beta=12).astype(np.uint8)
    add(project, Crop("train", "near.png", test.cls, test.cell, 0), image=brighter)
    add(project, Crop("train", "mirrored.png", other.cls, None, 0), image=other.image()[:, ::-1].copy())
    add(project, Crop("train", "exact.png", valid.cls, valid.cell, valid.seed))
    add(project, Crop("valid", "leak.png", other.cls, other.cell, other.seed))
    stage.main()
    assert names(PREPARED / "images/train") == {crop.name for crop in CROPS if crop.split == "train"}
    assert "leak.png" not in names(PREPARED / "images/valid")
    assert {"test", "valid"} <= names(PREPARED / "images")
    near_duplicates = report()["near_duplicates"]
    assert set(near_duplicates["dropped"]) == {
        "crops/train/near.png",
        "crops/train/mirrored.png",
        "crops/train/exact.png",
        "crops/valid/leak.png",
    }
    assert near_duplicates["dropped"]["crops/train/near.png"].startswith(f"near-duplicate of crops/test/{test.name}")
    assert near_duplicates["counts"]["dropped_train"] == 3
    assert near_duplicates["counts"]["test_with_near_duplicate_in_train"] == 2


def test_a_crop_without_a_face_found_gets_the_typical_box(project: Path) -> None:
    change(project, prepare__sheets__side=0)
    faceless = [Crop("train", "faceless.png", 3, None, 801), Crop("test", "faceless.png", 6, None, 802)]
    for crop in faceless:
        add(project, crop)
    stage.main()
    found = [painted_labels({crop.cell: crop.cls}).xywhn[0] for crop in CROPS if crop.cell]
    for crop in faceless:
        labels = label_of(crop)
        assert labels.cls.tolist() == [crop.cls]
        np.testing.assert_allclose(labels.xywhn[0], np.median(found, axis=0), atol=2e-3)
    localised = report()["localised"]["crops"]
    assert localised["not_found"] == ["crops/test/faceless.png", "crops/train/faceless.png"]
    assert localised["how"]["train"] == {"found": 20, "typical": 1}
    assert localised["mean_width"] == pytest.approx(1 / 3, abs=2e-3)


def test_scenes_are_dealt_out_and_their_faces_have_no_emotion(project: Path) -> None:
    add_scenes(project)
    stage.main()
    assert report()["photographs"] == {"train": 5, "valid": 2, "test": 3}
    assert report()["faces_of_photographs"] == {"train": 10, "valid": 4, "test": 6}
    train = sorted((PREPARED / "labels/train").glob("scene_*.txt"))
    assert len(train) == 5
    expected = painted_labels(SCENE_FACES, image_wh=(160, 160)).xywhn
    for split in ("valid", "test"):
        for sample in read_scenes(PREPARED, split):
            assert sample.labels.cls.tolist() == [FACE_ID, FACE_ID]
            np.testing.assert_allclose(sample.labels.xywhn, expected, atol=1e-4)
            raw = project / "data/scenes/all/images" / sample.image.name
            assert sample.image.read_bytes() == raw.read_bytes()
    everywhere = [path.stem.removeprefix("scene_") for path in (*train, *(PREPARED / "scenes").glob("*/labels/*.txt"))]
    assert sorted(everywhere) == sorted(f"photo{i}" for i in range(10))


def targets_of(stem: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.loadtxt(PREPARED / f"targets/train/{stem}.txt", ndmin=2)


def test_a_sheet_of_boxes_lets_a_person_check_them(project: Path) -> None:
    stage.main()
    sheet = cv2.imread(str(PREPARE_REPORT / "boxes.jpg"))
    green = (sheet[..., 1] > 120) & (sheet[..., 2] < 90) & (sheet[..., 0] < 120)
    assert green.sum() > 500


def test_the_teacher_names_faces_of_train_scenes_only(project: Path) -> None:
    change(project, prepare__teacher__min_face=20, prepare__teacher__crops=0.0)
    add_scenes(project)
    stage.main()
    assert report()["named_by_teacher"] == 10
    written = sorted(path.stem for path in (PREPARED / "targets").rglob("*.txt"))
    assert written == sorted(path.stem for path in (PREPARED / "labels/train").glob("scene_*.txt"))
    for stem in written:
        labels = read(PREPARED / f"labels/train/{stem}.txt", class_names=[*NAMES, FACE_NAME])
        # Painted at the top left: emotion 2, at the bottom right: 5.
        assert targets_of(stem).argmax(axis=1).tolist() == [2 if box[0] < 0.5 else 5 for box in labels.xywhn]


def test_the_teacher_has_its_share_in_the_targets_of_train_crops(project: Path) -> None:
    change(project, prepare__sheets__side=0, prepare__teacher__crops=0.5)
    stage.main()
    assert not (PREPARED / "targets/valid").exists()
    for crop in CROPS:
        if crop.split == "train":
            (target,) = targets_of(Path(crop.name).stem)
            assert target.argmax() == crop.cls
            assert target.sum() == pytest.approx(1, abs=1e-3)


def test_a_classifier_beside_the_teacher_is_asked_too(project: Path) -> None:
    change(project, prepare__sheets__side=0, prepare__teacher__crops=1.0)
    stage.main()
    alone = {crop.name: targets_of(Path(crop.name).stem)[0] for crop in CROPS if crop.split == "train"}
    change(project, prepare__teacher__classifier=str(classifier(project / "classifier.onnx")))
    stage.main()
    # It sees the mean of the picture, which is nearer to grey than to any colour: less sure than the teacher.
    for name, before in alone.items():
        assert targets_of(Path(name).stem)[0].max() < before.max() - 0.05


def test_without_a_teacher_there_are_no_targets(project: Path) -> None:
    change(project, prepare__teacher__detector="models/none")
    add_scenes(project)
    stage.main()
    assert not (PREPARED / "targets").exists()
    assert report()["named_by_teacher"] == 0


def test_train_crops_can_keep_the_boxes_they_came_with(project: Path) -> None:
    change(project, prepare__sheets__side=0, prepare__localise__train_boxes="given")
    stage.main()
    for crop in CROPS:
        width = label_of(crop).xywhn[0, 2]
        assert width == pytest.approx(0.999 if crop.split == "train" else 1 / 3, abs=2e-3)


def test_near_duplicates_of_scenes_end_up_in_one_split(project: Path) -> None:
    add_scenes(project)
    for i in range(10):
        picture = textured(SCENE_FACES, seed=900 + i, side=160)
        darker = cv2.convertScaleAbs(picture, alpha=0.85, beta=3).astype(np.uint8)
        save_picture(project / f"data/scenes/all/images/again{i}.png", darker)
        shutil.copy(project / f"data/scenes/all/labels/photo{i}.txt", project / f"data/scenes/all/labels/again{i}.txt")
    stage.main()
    splits: dict[str, set[str]] = {}
    for path in PREPARED.rglob("*.txt"):
        if "photo" in path.stem or "again" in path.stem:
            split = path.parent.name if path.stem.startswith("scene_") else path.parents[1].name
            splits.setdefault(path.stem[-1], set()).add(split)
    assert len(splits) == 10
    assert all(len(where) == 1 for where in splits.values())
    assert report()["near_duplicates"]["dropped"]


def test_scenes_that_are_not_wanted_stay_out(project: Path) -> None:
    add_scenes(project)
    change(project, prepare__scenes__use=False)
    stage.main()
    assert list(report()["sets"]) == ["crops"]
    assert not list(PREPARED.rglob("*photo*"))


def test_a_corrupt_picture_is_left_out_and_named(project: Path) -> None:
    picture = project / "data/crops/train/images/003.png"
    picture.write_bytes(picture.read_bytes()[:200])
    broken = picture.read_bytes()
    stage.main()
    assert list(report()["sets"]["crops"]["quarantined"]) == ["train/images/003.png"]
    assert "cannot be decoded" in report()["sets"]["crops"]["quarantined"]["train/images/003.png"]
    assert "train/images/003.png" in (PREPARE_REPORT / "findings-crops.txt").read_text("utf-8")
    assert report()["sets"]["crops"]["findings"]["unreadable_image"] == 1
    assert report()["crops"]["train"] == 19
    assert picture.read_bytes() == broken


def test_a_label_with_words_in_it_is_named_with_its_line(project: Path) -> None:
    (project / "data/crops/valid/labels/002.txt").write_text("happy 0.5 0.5 0.9 0.9\n")
    stage.main()
    assert "valid/labels/002.txt:1: " in (PREPARE_REPORT / "findings-crops.txt").read_text("utf-8")
    assert "happy" in report()["sets"]["crops"]["quarantined"]["valid/images/002.png"]
    assert "002.png" not in names(PREPARED / "images/valid")


def test_labelled_photographs_teach_emotions_where_they_are(project: Path) -> None:
    add_groups(project)
    write_pin(project / "data.dvc", CROP_RECORD, GROUP_RECORD)
    stage.main()
    assert report()["photographs"] == {"train": 4, "valid": 2, "test": 2}
    for split in ("train", "valid", "test"):
        for sample in read_scenes(PREPARED, split):
            assert sorted(sample.labels.cls.tolist()) == [2, 5]
            assert sample.source == "party"
    for sample in read_scenes(PREPARED, "train"):
        assert sample.soft is not None  # the label, and the teacher's share
        assert sample.soft.argmax(axis=1).tolist() == sample.labels.cls.tolist()


def test_a_set_of_labelled_photographs_alone_is_enough(project: Path) -> None:
    shutil.rmtree(project / "data/crops")
    add_groups(project)
    write_pin(project / "data.dvc", GROUP_RECORD)
    stage.main()
    assert report()["sheets"] == 0
    assert [sample.kind for sample in read_split(PREPARED, "train")] == [Kind.SCENE] * 4


def test_classes_that_no_set_has_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(project / "data/crops")
    add_groups(project)
    write_pin(project / "data.dvc", GROUP_RECORD)
    stage.main()
    assert "no train face of anger, contempt, fear, happy, sad, surprise in any set" in capsys.readouterr().out


def test_photographs_alone_are_no_data_where_they_are_not_wanted(project: Path) -> None:
    add_groups(project)
    write_pin(project / "data.dvc", GROUP_RECORD)
    change(project, prepare__scenes__use=False)
    with pytest.raises(DataError, match=r"data: holds photographs only, and prepare\.scenes\.use is false"):
        stage.main()


def test_near_duplicates_across_sets_stay_out_of_train(project: Path) -> None:
    add_groups(project)
    write_pin(project / "data.dvc", CROP_RECORD, GROUP_RECORD)
    test = next(crop for crop in CROPS if crop.split == "test")
    save_picture(project / "data/groups/train/images/copy.png", test.image())
    write(project / "data/groups/train/labels/copy.txt", painted_labels({(0, 0): 1}, image_wh=(96, 96)))
    stage.main()
    dropped = report()["near_duplicates"]["dropped"]
    assert dropped == {"groups/train/copy.png": f"byte-identical to crops/test/{test.name}"}


def test_votes_are_trained_on_as_they_are_and_kept_for_the_test(project: Path) -> None:
    columns = "image,anger,contempt,disgust,fear,happy,neutral,sad,surprise,unknown,not_a_face"
    rows = [f"{i:03d},{','.join('5' if c == i % 8 else '0' for c in range(7))},5,0,0" for i in range(20)]
    (project / "data/crops/votes.csv").write_text("\n".join([columns, *rows]) + "\n")
    write_pin(project / "data.dvc", set_record("crops", classes=CLASSES, emotions="votes"))
    change(project, prepare__sheets__side=0)
    stage.main()
    for split in ("train", "test"):
        for sample in read_crops(PREPARED, split):
            cls = int(sample.image.stem) % 8
            assert sample.soft is not None
            np.testing.assert_allclose(sample.soft[0], np.eye(8)[[cls, 7]].mean(axis=0), atol=1e-4)


def test_the_report_counts_faces_by_source_and_class(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_groups(project)
    tagged = set_record("crops", classes=CLASSES, tag="plain", tags={"00": "ffhq"})
    write_pin(project / "data.dvc", tagged, GROUP_RECORD)
    stage.main()
    faces = report()["faces"]
    assert sum(faces["train"]["ffhq"].values()) == 10
    assert sum(faces["train"]["plain"].values()) == 10
    assert faces["test"]["party"] == {"disgust": 2, "neutral": 2}
    lines = (PREPARE_REPORT / "faces.csv").read_text("utf-8").splitlines()
    assert lines[0] == "split,source,class,faces"
    assert "test,party,disgust,2" in lines
    assert "plain" in capsys.readouterr().out


def test_sampling_balances_sources_within_classes(project: Path) -> None:
    tagged = set_record("crops", classes=CLASSES, tag="plain", tags={"000": "rare"})
    write_pin(project / "data.dvc", tagged)
    change(project, prepare__sampling__faces=80, prepare__sampling__source_power=0.0, prepare__sampling__most_views=20)
    change(project, prepare__framing__share=1.0)
    stage.main()
    shown = report()["faces_on_sheets"]
    assert shown["rare"]["anger"] == shown["plain"]["anger"]
    labels = [sample.labels for sample in read_split(PREPARED, "train") if sample.kind is Kind.SHEET]
    assert sum(map(len, labels)) == sum(sum(row.values()) for row in shown.values())


def test_two_runs_write_the_same_bytes(project: Path) -> None:
    add_scenes(project)
    change(project, prepare__workers=1)
    stage.main()
    first = files_of(PREPARED, PREPARE_REPORT)
    change(project, prepare__workers=3)
    stage.main()
    assert files_of(PREPARED, PREPARE_REPORT) == first


def test_what_an_earlier_run_left_is_gone(project: Path) -> None:
    save_picture(project / PREPARED / "images/train/old.png", textured({}, seed=1))
    stage.main()
    assert "old.png" not in names(PREPARED / "images/train")


@pytest.mark.usefixtures("sigterm")
class TestRefuses:
    def error(self, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
        with pytest.raises(SystemExit) as exit_:
            run_stage(stage.main)
        return exit_.value.code, capsys.readouterr().err

    def test_another_class_table(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        table = {"nc": 8, "names": [*CLASSES, "Boredom"]}
        (project / "data/crops/data.yaml").write_text(yaml.safe_dump(table))
        code, message = self.error(capsys)
        assert code == 6
        assert "data/crops/data.yaml" in message
        assert "'Boredom' is not in data.dvc" in message
        assert "Traceback" not in message

    def test_a_split_of_which_most_is_broken_and_lists_all_of_it(
        self, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number in range(4):
            (project / f"data/crops/test/images/{number:03d}.png").write_bytes(b"no picture")
        code, message = self.error(capsys)
        assert code == 8
        assert "4 of 6 pictures cannot be used" in message
        assert message.count("no picture of a known format") == 4
        findings = (PREPARE_REPORT / "findings-crops.txt").read_text("utf-8")
        assert findings.count("no picture of a known format") == 4

    def test_a_misspelt_param_before_anything_is_touched(
        self, project: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        stage.main()
        before = files_of(PREPARED)
        change(project, prepare__near_duplicate_distanse=3)
        code, message = self.error(capsys)
        assert code == 3
        assert "params.yaml: prepare.near_duplicate_distanse: unknown key" in message
        assert files_of(PREPARED) == before

    def test_a_localiser_that_is_not_there(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        change(project, prepare__localise__detector="models/none")
        code, message = self.error(capsys)
        assert code == 11
        assert "models/none/model.json" in message

    def test_a_set_in_which_no_face_is_found(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        change(project, prepare__localise__conf=0.999)
        code, message = self.error(capsys)
        assert code == 11
        assert "no face found in any of 32 crops; check prepare.localise.detector" in message
