import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_yolo.errors import LayoutError, ModelError
from emotion_yolo.evaluation.model_card import Evaluation, UsedSet
from emotion_yolo.inference.artefact import read_spec, write_spec
from emotion_yolo.params import Evaluate, load_params
from emotion_yolo.stages import evaluate as stage
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from tests.builders import CELL, exported_model, painted, painted_labels, prepared_set

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
FILES = {
    "intervals.json",
    "confusion.csv",
    "pr.csv",
    "reliability.csv",
    "robustness.csv",
    "gallery.jpg",
    "detections.jpg",
    "MODEL_CARD.md",
}


def prepared(root: Path, *, scenes: bool = True) -> Path:
    """Write 24 crops, one of them misnamed and one without a visible face, and two scenes of two faces."""
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


def run(folder: Path, *, scenes: bool = True, out: str = "out") -> Evaluation:
    root = folder / "prepared"
    if not root.exists():
        prepared(folder, scenes=scenes)
        exported_model(folder / "export")
    sets = [UsedSet("crops", "Painted cells", "free")]
    return stage.evaluate(SETTINGS, artefact=folder / "export", prepared=root, sets=sets, out=folder / out)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    folder = tmp_path_factory.mktemp("evaluate")
    return run(folder), folder / "out"


def test_known_answers_give_known_figures(done: tuple[Evaluation, Path]) -> None:
    metrics = done[0].metrics
    assert metrics["face_found"] == pytest.approx(23 / 24, abs=1e-5)
    assert metrics["emotion_top1"] == pytest.approx(22 / 23, abs=1e-5)
    assert metrics["recall_served"] == pytest.approx(22 / 24, abs=1e-5)
    assert metrics["precision_served"] == pytest.approx(22 / 23, abs=1e-5)
    assert metrics["ap50_anger"] == metrics["face_ap50"] == metrics["face_ap50_32px"] == 0.995
    assert metrics["face_precision_32px"] == metrics["face_recall_32px"] == 1.0
    assert metrics["frame_boxes"] == 0.0
    assert metrics["ece"] == pytest.approx(1 / 23, abs=0.01)
    assert (metrics["n_crops"], metrics["n_ffhq"], metrics["n_scenes"], metrics["n_faces"]) == (24, 8, 2, 4)
    assert "face_ap50_128px" not in metrics  # no such face, no figure


def test_names_of_figures_suit_a_shell_and_values_a_diff(done: tuple[Evaluation, Path]) -> None:
    for name, value in done[0].metrics.items():
        assert name.replace("_", "").isalnum()
        assert name == name.lower()
        assert value == round(value, 5)


def test_every_interval_holds_its_figure(done: tuple[Evaluation, Path]) -> None:
    evaluation, out = done
    intervals = json.loads((out / "intervals.json").read_text("utf-8"))
    assert {"map50", "emotion_top1", "face_ap50", "ece", "top1_ffhq"} <= set(intervals) <= set(evaluation.metrics)
    for name in ("face_found", "emotion_top1", "recall_served", "face_ap50"):
        low, high = intervals[name]
        assert low <= evaluation.metrics[name] <= high


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


def test_pictures_can_be_looked_at(done: tuple[Evaluation, Path]) -> None:
    for name, least in (("gallery.jpg", 300), ("detections.jpg", 1200)):
        with Image.open(done[1] / name) as picture:
            assert picture.width > least
            assert np.asarray(picture).std() > 20


def test_the_card_holds_the_figures(done: tuple[Evaluation, Path]) -> None:
    text = (done[1] / "MODEL_CARD.md").read_text("utf-8")
    assert f"| emotion top-1 of the faces found | {22 / 23:.3f} |" in text
    assert "Painted cells" in text
    assert "input 96 px" in text
    assert "input 160 px" in text


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path, out="again")
    assert list(first.metrics.items()) == list(second.metrics.items())
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_without_scenes_everything_else_is_measured(tmp_path: Path) -> None:
    evaluation = run(tmp_path, scenes=False)
    assert evaluation.metrics["n_crops"] == 24
    assert not any("face_ap" in name or "scene" in name or name == "frame_boxes" for name in evaluation.metrics)
    assert "**not measured**" in (tmp_path / "out" / "MODEL_CARD.md").read_text("utf-8")


def test_each_picture_is_shown_to_the_network_once(tmp_path: Path) -> None:
    root, shown = prepared(tmp_path), []
    detector = stage.Detector.load(exported_model(tmp_path / "export"))
    infer = detector._infer
    detector._infer = lambda tensor: shown.append(1) or infer(tensor)  # type: ignore[func-returns-value]
    samples = stage.read_crops(root, "test")
    outcomes = stage.run(detector, samples, params=SETTINGS, title="crops")
    assert len(shown) == len(outcomes) == 24
    assert all(len(o.candidates) >= len(o.answers) for o in outcomes)


def test_the_stage_runs_from_the_projects_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = Path("params.yaml").read_text("utf-8").replace("wandb: auto ", "wandb: off ")
    prepared(tmp_path).rename(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params, "utf-8")
    Path("datasets").mkdir()
    Path("set").rename(stage.PREPARED)
    exported_model(stage.EXPORT)
    stage.main()
    metrics = json.loads(stage.METRICS.read_text("utf-8"))
    assert metrics["n_crops"] == 24
    assert {path.name for path in stage.EVALUATE_REPORT.iterdir()} == FILES
    assert f"{metrics['map50']:.3f}" in capsys.readouterr().out
    assert load_params().evaluate.bootstrap > 0


def test_faces_in_scenes_are_measured_at_further_sides(done: tuple[Evaluation, Path]) -> None:
    metrics, intervals = done[0].metrics, done[0].intervals
    for name in ("face_ap50_32px", "frame_boxes"):
        assert metrics[f"{name}_160"] == metrics[name]  # the served side
        assert intervals[f"{name}_160"] == intervals[name]
    # At 96 px the painted cells are no longer the network's.
    assert metrics["face_ap50_32px_96"] < metrics["face_ap50_32px"]
    text = (done[1] / "MODEL_CARD.md").read_text("utf-8")
    assert "| 160, as served | 0.995 |" in text
    assert "| 96 | 0.000 |" in text


def test_changed_pictures_are_measured_beside_plain_ones(done: tuple[Evaluation, Path]) -> None:
    metrics = done[0].metrics
    rows = [line.split(",") for line in (done[1] / "robustness.csv").read_text("utf-8").splitlines()]
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    # Every other crop, of which one holds no face; the misnamed one is not among them.
    assert metrics["n_robustness"] == 12
    assert table["plain"]["faces"] == "12"
    assert float(table["plain"]["found"]) == pytest.approx(11 / 12, abs=1e-5)
    assert metrics["top1_plain"] == metrics["top1_mirrored"] == float(table["mirrored"]["top1"]) == 1.0
    assert metrics["flip_changed"] == metrics["flip_max_difference"] == 0.0
    assert float(table["grey"]["right"]) == 0.25  # colour is all that painted faces differ in: black ones are left
    assert {"face_24px", "face_64px"} <= set(table)
    assert "face_128px" not in table  # too large for an input of 96 px
    assert table["face_32px"] | {"top1": "", "right": "0.0"} == table["face_32px"]  # between the cells: none is found
    assert float(table["jpeg10"]["face_ap50_32px"]) == metrics["face_ap50_32px_jpeg10"] > 0.9
    assert table["grey"]["face_ap50_32px"] == ""
    assert "### Changed pictures" in (done[1] / "MODEL_CARD.md").read_text("utf-8")


def test_drawn_pictures_without_a_face_show_what_is_seen_in_them(done: tuple[Evaluation, Path], tmp_path: Path) -> None:
    kinds = {f"false_faces_{kind}" for kind in ("one_colour", "gradient", "noise", "stripes", "discs")}
    shares = {name: value for name, value in done[0].metrics.items() if name in kinds}
    assert set(shares) == kinds
    assert done[0].metrics["n_negatives"] == 3
    assert "### Pictures without a face" in (done[1] / "MODEL_CARD.md").read_text("utf-8")
    for conf, share in ((0.0, 1.0), (1.0, 0.0)):
        detector = stage.Detector.load(exported_model(tmp_path / f"{conf}", conf=conf))
        figures = stage.false_faces(detector, count=2, seed=0)
        assert figures == dict.fromkeys(kinds, share) | {"n_negatives": 2}
    assert stage.false_faces(detector, count=0, seed=0) == {}


def test_parts_of_faces_are_left_out_of_answers_but_not_of_average_precision(tmp_path: Path) -> None:
    folder = exported_model(tmp_path / "export", box_side=2 * CELL)
    spec = read_spec(folder)
    apart = spec.thresholds.model_copy(update={"ios": 0.6})
    write_spec(folder, spec.model_copy(update={"thresholds": apart}))
    # Two neighbouring cells, whose boxes of two cells' side lie in each other by two thirds: an IoU of 0.4.
    crop = (painted({(0, 0): 1, (1, 0): 2}), painted_labels({(0, 0): 1}))
    root = prepared_set(tmp_path / "prepared", crops={"a.png": crop})
    detector = stage.Detector.load(folder)
    (outcome,) = stage.run(detector, stage.read_crops(root, "test"), params=SETTINGS, title="crops")
    assert (len(outcome.answers), (outcome.candidates.confidence > 0.5).sum()) == (1, 2)


def test_changed_pictures_can_be_left_out(tmp_path: Path) -> None:
    exported_model(tmp_path / "export")
    settings = SETTINGS.model_copy(update={"robustness": 0, "scene_sizes": []})
    evaluation = stage.evaluate(
        settings, artefact=tmp_path / "export", prepared=prepared(tmp_path), sets=[], out=tmp_path / "out"
    )
    assert not any(name.startswith(("top1_plain", "flip_", "n_robustness")) for name in evaluation.metrics)
    assert len((tmp_path / "out" / "robustness.csv").read_text("utf-8").splitlines()) == 1
    assert "Changed pictures" not in (tmp_path / "out" / "MODEL_CARD.md").read_text("utf-8")


def test_a_missing_artefact_or_set_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json"):
        stage.evaluate(SETTINGS, artefact=tmp_path, prepared=prepared(tmp_path), sets=[], out=tmp_path / "out")
    exported_model(tmp_path / "export")
    with pytest.raises(LayoutError, match="no prepared set"):
        stage.evaluate(SETTINGS, artefact=tmp_path / "export", prepared=tmp_path, sets=[], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
