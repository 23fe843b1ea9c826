import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_yolo.data.prepared import Kind, Writer, read_crops
from emotion_yolo.errors import LayoutError, ModelError
from emotion_yolo.evaluation import runs
from emotion_yolo.evaluation.corruptions import CORRUPTIONS
from emotion_yolo.evaluation.measuring import Evaluation, measure
from emotion_yolo.evaluation.model_card import UsedSet, model_card
from emotion_yolo.evaluation.report import write_report
from emotion_yolo.evaluation.robustness import false_faces
from emotion_yolo.evaluation.runs import Condition, Detectors, run, run_plain
from emotion_yolo.evaluation.summary import HEADLINE, last_evaluation
from emotion_yolo.inference.artefact import read_spec, write_spec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.params import Evaluate, load_params
from emotion_yolo.paths import EVALUATE_REPORT, EXPORT, METRICS, PREPARED
from emotion_yolo.stages import evaluate as stage
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from tests.builders import CELL, exported_model, painted, painted_labels, prepared_set, save_picture

SETTINGS = Evaluate(
    conf=0.001,
    iou=0.7,
    scene_imgsz=160,
    scene_sizes=[96, 160],
    robustness=12,
    negatives=3,
    bootstrap=20,
    gallery=6,
    seed=0,
)
WRONG, MISSED = 5, 6
NEUTRAL, HAPPY = NAMES.index("neutral"), NAMES.index("happy")
FILES = {
    "details.json",
    "confusion.csv",
    "pr.csv",
    "reliability.csv",
    "robustness.csv",
    "heights.csv",
    "sets.csv",
    "sources.csv",
    "gallery.jpg",
    "detections.jpg",
}


def prepared(root: Path, *, scenes: bool = True) -> Path:
    """Write 24 crops, one of them misnamed and one without a visible face, and two photographs of two faces."""
    crops = {}
    for i in range(24):
        cell, emotion = (i % 3, i // 3 % 3), i % 8
        shown = {} if i == MISSED else {cell: (emotion + 1) % 8 if i == WRONG else emotion}
        name = f"{'ffhq_' if i % 3 == 0 else 'image'}{i:02d}.png"
        crops[name] = (painted(shown), painted_labels({cell: emotion}))
    faces = {(0, 0): 4, (3, 2): 1}
    picture = painted(faces, width=160, height=160)
    photographs = {f"{i}.png": (picture, painted_labels(faces, cls=FACE_ID, image_wh=(160, 160))) for i in range(2)}
    return prepared_set(root / "prepared", crops=crops, scenes=photographs if scenes else None)


def evaluated(folder: Path, *, scenes: bool = True, out: str = "out") -> tuple[Evaluation, Path]:
    root = folder / "prepared"
    if not root.exists():
        prepared(folder, scenes=scenes)
        exported_model(folder / "export")
    evaluation = measure(SETTINGS, artefact=folder / "export", prepared=root)
    write_report(evaluation, folder / out)
    return evaluation, folder / out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    return evaluated(tmp_path_factory.mktemp("evaluate"))


def test_known_predictions_give_known_metrics(done: tuple[Evaluation, Path]) -> None:
    metrics = done[0].overall.metrics
    assert metrics["face_found"] == pytest.approx(23 / 24, abs=1e-5)
    assert metrics["emotion_top1"] == pytest.approx(22 / 23, abs=1e-5)
    assert metrics["recall_served"] == pytest.approx(22 / 24, abs=1e-5)
    assert metrics["precision_served"] == pytest.approx(22 / 23, abs=1e-5)
    assert metrics["ap50_anger"] == metrics["face_ap50"] == metrics["face_ap50_32px"] == 0.995
    assert metrics["face_precision_32px"] == metrics["face_recall_32px"] == 1.0
    assert metrics["frame_boxes"] == 0.0
    assert metrics["ece"] == pytest.approx(1 / 23, abs=0.01)
    assert (metrics["n_crops"], metrics["n_scenes"], metrics["n_faces"]) == (24, 2, 4)
    assert "face_ap50_128px" not in metrics  # no such face, no metric
    assert "worst_cell" not in metrics  # no cell of 30 faces
    assert done[0].worst is None


def test_names_of_metrics_suit_a_shell_and_values_a_diff(done: tuple[Evaluation, Path]) -> None:
    for name, value in done[0].overall.metrics.items():
        assert name.replace("_", "").isalnum()
        assert name == name.lower()
        assert value == round(value, 5)


def test_every_interval_holds_its_metric(done: tuple[Evaluation, Path]) -> None:
    evaluation, out = done
    details = json.loads((out / "details.json").read_text("utf-8"))
    assert details["version"] == evaluation.spec.version
    assert set(details["sets"]) == {"crops", "scenes"}
    assert set(details["sources"]) == {"ffhq", "other"}
    for part in (details, *details["sets"].values(), *details["sources"].values()):
        assert set(part["intervals"]) <= set(part["metrics"])
        for name in {"face_found", "emotion_top1", "recall_served", "face_ap50"} & set(part["intervals"]):
            low, high = part["intervals"][name]
            assert low <= part["metrics"][name] <= high


def test_everything_promised_is_written(done: tuple[Evaluation, Path]) -> None:
    assert {path.name for path in done[1].iterdir()} == FILES


def test_tables_are_what_dvcs_plots_expect(done: tuple[Evaluation, Path]) -> None:
    out = done[1]
    confusion = (out / "confusion.csv").read_text("utf-8").splitlines()
    assert confusion[0] == "actual,predicted,source"
    assert len(confusion) == 1 + 24
    assert f"{NAMES[WRONG]},{NAMES[WRONG + 1]},other" in confusion
    assert f"{NAMES[MISSED]},background,ffhq" in confusion
    curve = (out / "pr.csv").read_text("utf-8").splitlines()
    assert curve[0] == "recall," + ",".join(NAMES)
    assert len(curve) == 102
    assert (out / "reliability.csv").read_text("utf-8").startswith("probability,accuracy,faces\n")
    assert {"height", "accuracy", "neutral", "happy"} <= set(rows_of(out / "heights.csv")[0])


def test_pictures_can_be_looked_at(done: tuple[Evaluation, Path]) -> None:
    for name, least in (("gallery.jpg", 300), ("detections.jpg", 1200)):
        with Image.open(done[1] / name) as picture:
            assert picture.width > least
            assert np.asarray(picture).std() > 20


def test_the_card_holds_the_metrics(done: tuple[Evaluation, Path]) -> None:
    text = model_card(done[0], [UsedSet("crops", "Painted cells", "free")])
    assert f"| expression right, of the faces found | {22 / 23:.3f} |" in text
    for heading in ("By set", "By source and expression", "By height of the face", "Corrupted pictures"):
        assert f"### {heading}" in text
    assert "Painted cells" in text
    assert "input 96 px" in text
    assert "input 160 px" in text


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    (first, _), (second, _) = evaluated(tmp_path), evaluated(tmp_path, out="again")
    assert list(first.overall.metrics.items()) == list(second.overall.metrics.items())
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_without_photographs_everything_else_is_measured(tmp_path: Path) -> None:
    evaluation, _ = evaluated(tmp_path, scenes=False)
    metrics = evaluation.overall.metrics
    assert (metrics["n_crops"], metrics["n_scenes"]) == (24, 0)
    assert not any("face_ap" in name or name == "frame_boxes" for name in metrics)
    assert "**not measured**" in model_card(evaluation, [])


def counting(folder: Path) -> tuple[Detector, list[int]]:
    """Load a detector that notes each inference."""
    loaded, shown = Detector.load(folder), []

    def infer(tensor: np.ndarray) -> np.ndarray:
        shown.append(1)
        return loaded.infer(tensor)

    return Detector(loaded.spec, infer, canvases=loaded.canvases, backend=loaded.backend), shown


def test_each_picture_is_shown_to_the_network_once(tmp_path: Path) -> None:
    detector, shown = counting(exported_model(tmp_path / "export"))
    outcomes = run_plain(detector, read_crops(prepared(tmp_path), "test"), params=SETTINGS, title="crops")
    assert len(shown) == len(outcomes) == 24
    assert all(len(o.candidates) >= len(o.predictions) for o in outcomes)


def test_each_picture_is_decoded_once_for_all_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, decoded = runs.read_rgb, []
    monkeypatch.setattr(runs, "read_rgb", lambda path: decoded.append(path) or read(path))  # type: ignore[func-returns-value]
    detector, shown = counting(exported_model(tmp_path / "export"))
    samples = read_crops(prepared(tmp_path), "test")
    conditions = [Condition(name, detector, change) for name, change in CORRUPTIONS.items()]
    outcomes = run(conditions, samples, params=SETTINGS, title="corrupted")
    assert sorted(decoded) == sorted(sample.image for sample in samples)
    assert len(shown) == len(samples) * len(CORRUPTIONS)
    assert {name: [o.sample.image for o in of] for name, of in outcomes.items()} == {
        name: [sample.image for sample in samples] for name in CORRUPTIONS
    }


def test_no_detector_is_loaded_twice(tmp_path: Path) -> None:
    detectors = Detectors(exported_model(tmp_path / "export", imgsz=96))
    assert detectors.at() is detectors.at(96)
    assert detectors.at(96, square=True) is not detectors.at(96)
    assert detectors.at(128) is detectors.at(128)
    assert [detectors.at(side).imgsz for side in (96, 128)] == [96, 128]


def test_the_stage_runs_from_the_projects_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path("params.yaml").read_text("utf-8").replace("wandb: auto ", "wandb: off ")
    prepared(tmp_path).rename(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params, "utf-8")
    Path("datasets").mkdir()
    Path("set").rename(PREPARED)
    exported_model(EXPORT)
    stage.main()
    metrics = json.loads(METRICS.read_text("utf-8"))
    assert metrics["n_crops"] == 24
    assert set(metrics) <= set(HEADLINE)
    assert {path.name for path in EVALUATE_REPORT.iterdir()} == FILES | {"MODEL_CARD.md", "reference.parquet"}
    printed = capsys.readouterr()
    assert f"{metrics['map50']:.3f}" in printed.out
    assert printed.out.strip() in last_evaluation()
    # A log is short: the summary, and at most four lines of progress for each part.
    assert len(printed.out.splitlines()) + len(printed.err.splitlines()) < 40
    assert load_params().evaluate.bootstrap > 0


def test_faces_in_photographs_are_measured_at_further_sides(done: tuple[Evaluation, Path]) -> None:
    metrics, intervals = done[0].overall.metrics, done[0].overall.intervals
    for name in ("face_ap50_32px", "frame_boxes"):
        assert metrics[f"{name}_160"] == metrics[name]  # the served side
        assert intervals[f"{name}_160"] == intervals[name]
    # At 96 px the painted cells are no longer the network's.
    assert metrics["face_ap50_32px_96"] < metrics["face_ap50_32px"]
    text = model_card(done[0], [])
    assert "| 160, as served | 0.995 |" in text
    assert "| 96 | 0.000 |" in text


def test_corrupted_pictures_are_measured_beside_plain_ones(done: tuple[Evaluation, Path]) -> None:
    metrics = done[0].overall.metrics
    table = {row["change"]: row for row in rows_of(done[1] / "robustness.csv")}
    # Every other crop, of which one holds no face; the misnamed one is not among them.
    assert metrics["n_robustness"] == 12
    assert table["plain"]["faces"] == "12"
    assert float(table["plain"]["found"]) == pytest.approx(11 / 12, abs=1e-5)
    assert metrics["top1_plain"] == metrics["top1_mirrored"] == float(table["mirrored"]["top1"]) == 1.0
    assert metrics["flip_changed"] == metrics["flip_max_difference"] == 0.0
    assert float(table["grey"]["accuracy"]) == 0.25  # colour is all that painted faces differ in: black ones are left
    assert float(table["jpeg10"]["face_ap50_32px"]) == metrics["face_ap50_32px_jpeg10"] > 0.9
    assert table["grey"]["face_ap50_32px"] == ""


def test_faces_are_measured_at_every_height_that_fits_the_input(done: tuple[Evaluation, Path]) -> None:
    rows = {int(row["height"]): row for row in rows_of(done[1] / "heights.csv")}
    assert list(rows) == [24, 32, 48, 64, 96]  # of an input of 96 px
    assert {row["set"] for row in rows.values()} == {"crops"}
    # Nine cells see a face that fills the input; none of their boxes is as large as it.
    assert rows[96]["found"] == "0.0"
    assert rows[96]["neutral"] == rows[96]["happy"] == "0.0"
    assert rows[96]["accuracy"] == "0.0"


def test_drawn_pictures_without_a_face_show_what_is_found_in_them(
    done: tuple[Evaluation, Path], tmp_path: Path
) -> None:
    kinds = {f"false_faces_{kind}" for kind in ("one_colour", "gradient", "noise", "stripes", "discs")}
    metrics = done[0].overall.metrics
    assert kinds < set(metrics)
    assert metrics["false_faces"] == pytest.approx(sum(metrics[kind] for kind in kinds) / 5, abs=1e-5)
    assert metrics["n_negatives"] == 3
    assert "### Pictures without a face" in model_card(done[0], [])
    for conf, share in ((1e-12, 1.0), (1.0, 0.0)):
        detector = Detector.load(exported_model(tmp_path / f"{conf}", conf=conf))
        found = false_faces(detector, count=2, seed=0)
        assert found == dict.fromkeys({"false_faces", *kinds}, share) | {"n_negatives": 2}
    assert false_faces(detector, count=0, seed=0) == {}


def test_parts_of_faces_are_left_out_of_predictions_but_not_of_average_precision(tmp_path: Path) -> None:
    folder = exported_model(tmp_path / "export", box_side=2 * CELL)
    spec = read_spec(folder)
    apart = spec.thresholds.model_copy(update={"ios": 0.6})
    write_spec(folder, spec.model_copy(update={"thresholds": apart}))
    # Two neighbouring cells, whose boxes of two cells' side lie in each other by two thirds: an IoU of 0.4.
    crop = (painted({(0, 0): 1, (1, 0): 2}), painted_labels({(0, 0): 1}))
    root = prepared_set(tmp_path / "prepared", crops={"a.png": crop})
    (outcome,) = run_plain(Detector.load(folder), read_crops(root, "test"), params=SETTINGS, title="crops")
    assert (len(outcome.predictions), (outcome.candidates.confidence > 0.5).sum()) == (1, 2)


def test_corruptions_can_be_left_out(tmp_path: Path) -> None:
    exported_model(tmp_path / "export")
    settings = SETTINGS.model_copy(update={"robustness": 0, "scene_sizes": []})
    evaluation = measure(settings, artefact=tmp_path / "export", prepared=prepared(tmp_path))
    write_report(evaluation, tmp_path / "out")
    assert not any(name.startswith(("top1_plain", "flip_", "n_robustness")) for name in evaluation.overall.metrics)
    assert rows_of(tmp_path / "out" / "robustness.csv") == rows_of(tmp_path / "out" / "heights.csv") == []
    assert "Corrupted pictures" not in model_card(evaluation, [])


def test_a_missing_artefact_or_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json"):
        measure(SETTINGS, artefact=tmp_path, prepared=prepared(tmp_path))
    exported_model(tmp_path / "export")
    with pytest.raises(LayoutError, match="no prepared set"):
        measure(SETTINGS, artefact=tmp_path / "export", prepared=tmp_path)


# Several sets


def several(root: Path) -> Path:
    """Write a set of votes, one of 70 neutral crops of two sources, one of named faces in photographs, and one unnamed.

    Of the neutral ones the first source's are all right; of the other's 35, 14 are wrong and 7 not found.
    """
    writer = Writer(root / "prepared")

    def add(
        name: str, kind: Kind, dataset: str, faces: dict[tuple[int, int], int], labels: dict[tuple[int, int], int],
        *, source: str = "", votes: list[float] | None = None, side: int = 96,
    ) -> None:  # fmt: skip
        picture = save_picture(root / f"{name}.png", painted(faces, width=side, height=side))
        slot = writer.add(name, split="test", kind=kind, dataset=dataset, source=source or dataset, suffix=".png")
        soft = None if votes is None else np.asarray([votes], np.float32)
        slot.copy(picture, painted_labels(labels, image_wh=(side, side)), soft)

    for i in range(70):
        shown = {} if i >= 63 else {(1, 1): HAPPY if i >= 49 else NEUTRAL}
        source = "first" if i < 35 else "second"
        add(f"neutral{i:02d}", Kind.SINGLE, "calm", shown, {(1, 1): NEUTRAL}, source=source)
    certain, doubtful = [0.0] * 8, [0.125] * 8
    certain[HAPPY] = 1.0
    add("certain", Kind.SINGLE, "votes", {(1, 1): HAPPY}, {(1, 1): HAPPY}, votes=certain)
    add("missed", Kind.SINGLE, "votes", {}, {(1, 1): HAPPY}, votes=certain)
    add("empty", Kind.SINGLE, "votes", {}, {})
    add("doubtful", Kind.SINGLE, "votes", {(1, 1): 0}, {(1, 1): 0}, votes=doubtful)
    two = {(0, 0): HAPPY, (3, 2): 1}
    add("group", Kind.SCENE, "groups", two, two, side=160)
    add("crowd", Kind.SCENE, "crowds", two, dict.fromkeys(two, FACE_ID), side=160)
    writer.close()
    return root / "prepared"


@pytest.fixture(scope="module")
def of_several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    folder = tmp_path_factory.mktemp("several")
    settings = SETTINGS.model_copy(update={"robustness": 4, "negatives": 0})
    evaluation = measure(settings, artefact=exported_model(folder / "export"), prepared=several(folder))
    write_report(evaluation, folder / "out")
    return evaluation, folder / "out"


def test_every_set_has_a_table_of_its_own(of_several: tuple[Evaluation, Path]) -> None:
    rows = {row["set"]: row for row in rows_of(of_several[1] / "sets.csv")}
    assert list(rows) == ["calm", "crowds", "groups", "votes"]
    calm, crowds, groups, votes = rows.values()
    assert (calm["n_faces"], calm["n_classes"], calm["recall_served"], calm["face_found"]) == ("70", "1", "0.7", "0.9")
    assert calm["recall_neutral"] == calm["recall_served"]
    # Means go over the classes that a set has: one here.
    assert calm["emotion_macro_recall"] == calm["emotion_top1"] == "0.77778"
    assert (crowds["map50"], crowds["recall_served"], crowds["face_ap50_32px"]) == ("", "", "0.995")
    # Boxes in place and emotions named: both kinds of metrics.
    assert (groups["map50"], groups["recall_happy"], groups["face_ap50_32px"]) == ("0.995", "1.0", "0.995")
    assert (votes["votes_accuracy"], votes["recall_happy"]) == ("0.5", "0.5")
    assert float(votes["votes_cross_entropy"]) > 1  # a prediction this sure of votes spread over all eight
    assert {row["votes_accuracy"] for row in (calm, crowds, groups)} == {""}


def test_the_worst_cell_of_source_and_expression_is_a_headline_metric(of_several: tuple[Evaluation, Path]) -> None:
    evaluation, out = of_several
    cells = {(row["source"], row["emotion"]): row for row in rows_of(out / "sources.csv")}
    assert cells["first", "neutral"]["accuracy"] == "1.0"
    assert cells["second", "neutral"] | {"faces": "35", "accuracy": "0.4"} == cells["second", "neutral"]
    assert cells["votes", "happy"]["accuracy"] == "0.5"
    # `votes` has a worse cell than none; it is too small to count.
    assert evaluation.worst is not None
    assert (evaluation.worst.source, evaluation.worst.emotion) == ("second", "neutral")
    assert evaluation.overall.metrics["worst_cell"] == 0.4
    low, high = evaluation.overall.intervals["worst_cell"]
    assert low < 0.4 < high


def test_the_headline_is_of_all_sets_with_named_faces(of_several: tuple[Evaluation, Path]) -> None:
    metrics = of_several[0].overall.metrics
    # 49 of 70 calm ones, two of three with votes, both of the group; the crowd has no names.
    assert metrics["recall_served"] == pytest.approx((49 + 2 + 2) / 75, abs=1e-5)
    assert (metrics["n_crops"], metrics["n_scenes"], metrics["n_faces"]) == (74, 2, 4)
    assert metrics["face_ap50"] == 0.995


def test_corruptions_and_heights_are_measured_on_a_part_of_each_set(of_several: tuple[Evaluation, Path]) -> None:
    evaluation, out = of_several
    assert evaluation.overall.metrics["n_robustness"] == 4 + 3
    faces = {(row["set"], row["faces"]) for row in rows_of(out / "heights.csv")}
    assert faces == {("calm", "4"), ("votes", "3")}


def test_a_set_of_photographs_alone_is_measured(tmp_path: Path) -> None:
    faces = {(0, 0): 4, (3, 2): 1}
    scenes = {"0.png": (painted(faces, width=160, height=160), painted_labels(faces, image_wh=(160, 160)))}
    root = prepared_set(tmp_path / "prepared", crops={}, scenes=scenes)
    evaluation = measure(SETTINGS, artefact=exported_model(tmp_path / "export"), prepared=root)
    write_report(evaluation, tmp_path / "out")
    metrics = evaluation.overall.metrics
    assert (metrics["n_crops"], metrics["emotion_top1"], metrics["map50"]) == (0, 1.0, 0.995)
    assert "### By expression" in model_card(evaluation, [])
