from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from emotion_yolo.data.prepared import Sample
from emotion_yolo.evaluation.corruptions import CORRUPTIONS
from emotion_yolo.evaluation.figures import HEIGHTS
from emotion_yolo.evaluation.measuring import Cell, Evaluation
from emotion_yolo.evaluation.metrics import Measured
from emotion_yolo.evaluation.model_card import UsedSet, model_card, used_sets
from emotion_yolo.evaluation.outcomes import Outcome, match_faces
from emotion_yolo.evaluation.robustness import ConditionMetrics, Robustness
from emotion_yolo.inference.artefact import CloseUp, ModelSpec, read_spec
from emotion_yolo.params import Evaluate
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import NAMES
from tests.builders import detections_of, exported_model, labels_of

AFFECTNET = UsedSet(
    "affectnet", "AffectNet in YOLO format", "research only", "https://example.org", "Mollahosseini et al."
)
CROPS = {"map50": 0.8, "n_crops": 2703, "n_scenes": 0, "ece": 0.0123, "ap50_fear": 0.61}
SCENES = {"n_scenes": 190, "face_ap50": 0.7, "face_ap50_32px": 0.9} | {
    f"n_faces{suffix}": 100 + i for i, suffix in enumerate(HEIGHTS)
}
BOX = [10.0, 10.0, 50.0, 50.0]
NAN = float("nan")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return read_spec(exported_model(tmp_path_factory.mktemp("export"), conf=0.31))


def outcome(label: str, predicted: str | None, *, also: str | None = None) -> Outcome:
    """Build the outcome of a crop of one face; `also` is predicted where there is no face."""
    said = [(BOX, predicted), ([60.0, 60.0, 90.0, 90.0], also)]
    boxes = [(box, NAMES.index(name)) for box, name in said if name]
    found = (
        detections_of([b for b, _ in boxes], confidence=[0.9, 0.8][: len(boxes)], emotions=[e for _, e in boxes])
        if boxes
        else Detections.empty((96, 96))
    )
    return Outcome(Sample(Path("a.jpg"), labels_of([NAMES.index(label)], [BOX])), found, found)


def card(
    spec: ModelSpec,
    metrics: Mapping[str, float],
    *,
    used: Sequence[UsedSet] = (AFFECTNET,),
    outcomes: Sequence[Outcome] = (),
    sets: Mapping[str, Measured] | None = None,
    sources: Mapping[str, Measured] | None = None,
    cells: Sequence[Cell] = (),
    worst: Cell | None = None,
    robustness: Robustness | None = None,
) -> str:
    settings = Evaluate(
        conf=0.001,
        iou=0.7,
        scene_imgsz=640,
        scene_sizes=[320],
        robustness=600,
        negatives=50,
        bootstrap=200,
        gallery=24,
        seed=0,
    )
    evaluation = Evaluation(
        spec=spec,
        settings=settings,
        imgsz=128,
        backend="openvino",
        overall=Measured(metrics, {"map50": (0.78, 0.82), "ap50_fear": (0.55, 0.67)}),
        sets=sets or {},
        sources=sources or {},
        cells=cells,
        worst=worst,
        robustness=robustness or Robustness(),
        photographs=[outcome("fear", None)] if metrics["n_scenes"] else [],
        named=outcomes,
        faces=match_faces(outcomes),
    )
    return model_card(evaluation, used)


def test_the_card_says_how_faces_are_named(spec: ModelSpec) -> None:
    plain = card(spec, CROPS)
    assert "close-ups of" not in plain
    assert "| Biases of the classes, fitted on valid | none |" in plain
    fitted = spec.calibration.model_copy(update={"bias": (-0.5, 0.25, *[0.0] * 6)})
    biased = spec.model_copy(update={"calibration": fitted, "close_up": CloseUp(faces=2, side=160, face=120)})
    text = card(biased, CROPS)
    assert "any multiple of 32 px works; close-ups of 160 px, faces 120 px high or wide |" in text
    assert "| anger -0.50, contempt +0.25, disgust +0.00," in text


def test_every_metric_stands_with_its_conditions(spec: ModelSpec) -> None:
    text = card(spec, CROPS | SCENES)
    assert "| mAP50, eight expressions | 0.800 | 0.780-0.820 |" in text
    for condition in ("n = 2,703", "input 128 px", "n = 190 with 100 faces", "input 640 px", "conf 0.001, iou 0.7"):
        assert condition in text
    assert "as served: conf 0.31, iou 0.5" in text
    assert "200 bootstrap resamples" in text


def test_the_card_says_what_the_law_and_the_licences_say(spec: ModelSpec) -> None:
    text = card(spec, CROPS)
    for article in ("Art. 5(1)(f)", "Art. 50(3)", "Annex III 1(c)"):
        assert article in text
    assert "AGPL-3.0" in text
    assert (
        "| affectnet | AffectNet in YOLO format | research only | https://example.org | Mollahosseini et al. |" in text
    )
    assert "not felt emotion" in text


def test_the_card_names_what_the_model_was_made_from(spec: ModelSpec) -> None:
    text = card(spec, CROPS)
    for digest in (spec.version, spec.lineage.data, spec.lineage.params, spec.lineage.revision, spec.lineage.weights):
        assert digest in text


def test_without_photographs_the_card_says_that_they_were_not_measured(spec: ModelSpec) -> None:
    text = card(spec, CROPS)
    assert "faces in whole photographs were **not measured**" in text
    assert "Faces in photographs" not in text
    assert "Faces in photographs by height" in card(spec, CROPS | SCENES)


def test_each_expression_has_its_recall_and_its_commonest_mistake(spec: ModelSpec) -> None:
    outcomes = [
        *[outcome("fear", "fear")] * 5,
        outcome("fear", "fear", also="fear"),
        *[outcome("fear", "surprise")] * 3,
        outcome("fear", "sad"),
        outcome("fear", None),
        *[outcome("sad", "fear")] * 2,
    ]
    text = card(spec, CROPS, outcomes=outcomes)
    # Precision 6 of 8, recall 6 of 10, each of the faces found.
    assert "| fear | 11 | 0.610 | 0.550-0.670 | 0.750 | 0.600 | 0.667 | surprise (30%) |" in text
    assert "| anger | 0 | - | - | - | - | - | - |" in text
    assert "| fear | 0 | 0 | 0 | 6 | 0 | 0 | 1 | 3 | 1 |" in text  # the confusion matrix
    assert all(f"| {name} |" in text for name in NAMES)


def test_each_set_has_a_row_with_what_it_can_tell(spec: ModelSpec) -> None:
    sets = {
        "ferplus": Measured(
            {"n_faces": 3573, "map50": 0.7, "ece": 0.07, "votes_accuracy": 0.75, "votes_cross_entropy": 0.9}, {}
        ),
        "wider": Measured({"n_faces": 1500, "face_ap50_32px": 0.91}, {}),
    }
    text = card(spec, CROPS, sets=sets)
    assert "|  | faces | mAP50 | ECE | majority right | votes' CE | face AP50 ≥ 32 px |" in text
    assert "| ferplus | 3,573 | 0.700 | 0.070 | 0.750 | 0.900 | - |" in text
    assert "| wider | 1,500 | - | - | - | - | 0.910 |" in text


def test_sources_stand_beside_their_expressions_and_the_worst_cell_is_named(spec: ModelSpec) -> None:
    cells = [Cell("web", "neutral", 90, 0.4, (0.3, 0.5)), Cell("ffhq", "happy", 1200, 0.9, (0.88, 0.92))]
    sources = {
        "ffhq": Measured({"recall_served": 0.8}, {"recall_served": (0.78, 0.82)}),
        "web": Measured({"recall_served": 0.6}, {}),
    }
    text = card(spec, CROPS, outcomes=[outcome("fear", "fear")], sources=sources, cells=cells, worst=cells[0])
    assert "| ffhq | 0.800 | 0.780-0.820 | - | - | - | - | 0.900 (1,200) | - | - | - |" in text
    assert "| web | 0.600 | - | - | - | - | - | - | 0.400 (90) | - | - |" in text
    assert "Worst: neutral of web, 0.400 (0.300-0.500, n = 90)." in text
    assert "Worst:" not in card(spec, CROPS, outcomes=[outcome("fear", "fear")], sources=sources, cells=cells)


def test_photographs_are_given_for_each_size_of_the_input(spec: ModelSpec) -> None:
    sized = {"frame_boxes": 0.0, "face_ap50_32px_320": 0.71, "face_ap50_128px_320": 0.98, "frame_boxes_320": 0.01}
    text = card(spec, CROPS | SCENES | sized)
    assert "| 640, as served | 0.900 | - | - | - | 0.000 |" in text
    assert "| 320 | 0.710 | - | 0.980 | - | 0.010 |" in text


def test_corrupted_pictures_and_face_heights_stand_in_tables_with_their_conditions(spec: ModelSpec) -> None:
    blurred = ConditionMetrics(600, 0.99, 0.51, 0.505, (0.47, 0.54), (0.47, 0.55), 0.6, 0.7)
    unseen = ConditionMetrics(600, 0.0, NAN, 0.0, (0.0, 0.0), (NAN, NAN), 0.0, NAN)
    robustness = Robustness(
        corruptions={"blur": blurred, "dark": unseen},
        scenes={"blur": 0.6},
        heights={("web", 24): unseen, ("web", 500): blurred},
    )
    flip = {"flip_changed": 0.125, "flip_difference": 0.04, "flip_max_difference": 0.5}
    text = card(spec, CROPS | {"n_robustness": 600} | flip, robustness=robustness)
    assert "| Gaussian blur of 2 px | 0.990 | 0.510 | 0.470-0.550 | 0.505 | 0.600 |" in text
    assert "| darkened to 0.3 | 0.000 | - | - | 0.000 | - |" in text
    assert "| 24 | web | 600 | 0.000 | 0.000 | 0.000-0.000 | 0.000 | - |" in text
    assert "| 500 | web | 600 | 0.990 | 0.505 | 0.470-0.540 | 0.600 | 0.700 |" in text
    assert "600 of the test crops" in text
    assert "12.5%" in text
    assert "Corrupted pictures" not in card(spec, CROPS)


def test_pictures_without_a_face_stand_in_a_table_that_says_which_kinds_were_learnt(spec: ModelSpec) -> None:
    kinds = {"one_colour": 0.25, "gradient": 0.125, "noise": 0.0, "stripes": 0.5, "discs": 0.75}
    text = card(spec, CROPS | {"n_negatives": 40} | {f"false_faces_{kind}": share for kind, share in kinds.items()})
    for row in ("| one colour | yes | 0.250 |", "| stripes | no | 0.500 |", "40 drawn pictures of each kind"):
        assert row in text
    assert "Pictures without a face" not in card(spec, CROPS)


def test_parts_of_faces_are_named_among_the_thresholds_where_they_are_left_out(spec: ModelSpec) -> None:
    assert "ios" not in card(spec, CROPS)
    apart = spec.model_copy(update={"thresholds": spec.thresholds.model_copy(update={"ios": 0.7})})
    assert "conf 0.31, iou 0.5, ios 0.7" in card(apart, CROPS)


def test_every_corruption_has_a_name_that_people_read(spec: ModelSpec) -> None:
    row = ConditionMetrics(9, 1.0, 0.5, 0.5, (0.4, 0.6), (0.4, 0.6), 0.5, 0.5)
    robustness = Robustness(corruptions=dict.fromkeys(CORRUPTIONS, row), heights={("web", 24): row})
    text = card(spec, CROPS | {"n_robustness": 9}, robustness=robustness)
    assert not [name for name in CORRUPTIONS if "_" in name and name in text]


def test_a_bar_in_a_citation_does_not_break_the_table(spec: ModelSpec) -> None:
    assert "A \\| B" in card(spec, CROPS, used=[UsedSet("crops", "A | B", "free")])


def test_unknown_data_are_called_unknown(spec: ModelSpec) -> None:
    assert "does not say which sets these are" in card(spec, CROPS, used=[])


# What data.dvc says


def pinned(folder: Path, meta: object) -> Path:
    path = folder / "data.dvc"
    path.write_text(yaml.safe_dump({"outs": [], "meta": meta}), "utf-8")
    return path


def test_sets_are_known_by_the_cards_that_the_pin_names(tmp_path: Path) -> None:
    pin = pinned(tmp_path, {"crops": {"card": "affectnet"}, "scenes": {"card": "wider-face"}})
    crops, scenes = used_sets(pin, Path("configs/datasets"))
    assert (crops.name, crops.title) == ("crops", "AffectNet in YOLO format")
    assert "non-commercial research" in crops.licence
    assert scenes.title.startswith("WIDER FACE")
    assert "arXiv:1511.06523" in scenes.citation


def test_a_set_without_a_card_keeps_the_licence_of_its_pin(tmp_path: Path) -> None:
    pin = pinned(tmp_path, {"crops": {"card": None, "licence": "ask Ada"}, "scenes": {}})
    crops, scenes = used_sets(pin, tmp_path)
    assert crops == UsedSet("crops", "a set without a dataset card", "ask Ada")
    assert scenes.licence == "unknown"


@pytest.mark.parametrize("meta", [None, {}])
def test_a_pin_without_meta_names_no_sets(tmp_path: Path, meta: object) -> None:
    assert used_sets(pinned(tmp_path, meta), tmp_path) == []


def test_no_pin_names_no_sets(tmp_path: Path) -> None:
    assert used_sets(tmp_path / "data.dvc", tmp_path) == []


def test_sets_are_known_by_the_name_of_their_folder(tmp_path: Path) -> None:
    pin = pinned(
        tmp_path, {"sets": {"ferplus": {"card": None, "licence": "research"}, "wider": {"card": "wider-face"}}}
    )
    ferplus, wider = used_sets(pin, Path("configs/datasets"))
    assert (ferplus.name, ferplus.licence) == ("ferplus", "research")
    assert (wider.name, wider.title[:10]) == ("wider", "WIDER FACE")
