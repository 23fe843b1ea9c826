from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from emotion_yolo.evaluation.figures import HEIGHTS, Slice
from emotion_yolo.evaluation.model_card import Evaluation, UsedSet, model_card, used_sets
from emotion_yolo.evaluation.report import Answer
from emotion_yolo.evaluation.robustness import CORRUPTIONS, face_heights
from emotion_yolo.inference.artefact import ModelSpec, read_spec
from emotion_yolo.params import Evaluate
from emotion_yolo.structures.emotions import NAMES
from tests.builders import exported_model

AFFECTNET = UsedSet("crops", "AffectNet in YOLO format", "research only", "https://example.org", "Mollahosseini et al.")
CROPS = {"map50": 0.8, "n_crops": 2703, "n_ffhq": 800, "n_other": 1903, "top1_ffhq": 0.9, "top1_other": 0.7} | {
    "top1_gap": 0.2,
    "ece": 0.0123,
    "ap50_fear": 0.61,
}
SCENES = {"n_scenes": 190, "face_ap50": 0.7, "face_ap50_32px": 0.9} | {
    f"n_faces{suffix}": 100 + i for i, suffix in enumerate(HEIGHTS)
}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return read_spec(exported_model(tmp_path_factory.mktemp("export"), conf=0.31))


def card(
    spec: ModelSpec,
    metrics: dict[str, float],
    *,
    sets: Sequence[UsedSet] = (AFFECTNET,),
    confusion: Sequence[Answer] = (),
    slices: Sequence[Slice] = (),
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
    return model_card(
        Evaluation(
            spec=spec,
            settings=settings,
            imgsz=128,
            backend="openvino",
            metrics=metrics,
            intervals={"map50": (0.78, 0.82), "ap50_fear": (0.55, 0.67)},
            confusion=confusion,
            sets=sets,
            slices=slices,
        )
    )


def test_every_figure_stands_with_its_conditions(spec: ModelSpec) -> None:
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
    assert "| crops | AffectNet in YOLO format | research only | https://example.org | Mollahosseini et al. |" in text
    assert "not felt emotion" in text


def test_the_card_names_what_the_model_was_made_from(spec: ModelSpec) -> None:
    text = card(spec, CROPS)
    for digest in (spec.version, spec.lineage.data, spec.lineage.params, spec.lineage.revision, spec.lineage.weights):
        assert digest in text


def test_without_scenes_the_card_says_that_they_were_not_measured(spec: ModelSpec) -> None:
    text = card(spec, CROPS)
    assert "faces in whole photographs were **not measured**" in text
    assert "by height" not in text
    assert "by height" in card(spec, CROPS | SCENES)


def test_each_expression_has_its_recall_and_its_commonest_mistake(spec: ModelSpec) -> None:
    confusion: list[Answer] = [
        *[("fear", "fear", "other")] * 6,
        *[("fear", "surprise", "other")] * 3,
        ("fear", "sad", "ffhq"),
        ("fear", "background", "ffhq"),
        ("sad", "fear", "ffhq"),
        ("sad", "fear", "other"),
        ("background", "fear", "other"),
    ]
    text = card(spec, CROPS, confusion=confusion)
    # Precision 6 of 8, recall 6 of 10, each of the faces found.
    assert "| fear | 11 | 0.610 | 0.550-0.670 | 0.750 | 0.600 | 0.667 | surprise (30%) |" in text
    assert "| anger | 0 | - | - | - | - | - | - |" in text
    assert all(f"| {name} |" in text for name in NAMES)


def test_each_source_has_its_confusions_and_scores(spec: ModelSpec) -> None:
    confusion: list[Answer] = [
        *[("fear", "fear", "other")] * 3,
        ("fear", "sad", "other"),
        ("fear", "background", "other"),
        ("sad", "fear", "other"),
        ("sad", "sad", "ffhq"),
    ]
    ffhq, others = card(spec, CROPS, confusion=confusion).split("true expressions in rows")[1:]
    assert "| fear | 0 | 0 | 0 | 3 | 0 | 0 | 1 | 0 | 1 | 5 | 0.750 | 0.750 | 0.750 |" in others
    assert "| sad | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 0 | 0 | 1 | 0.000 | 0.000 | 0.000 |" in others
    assert "| sad | 0 | 0 | 0 | 0 | 0 | 0 | 1 | 0 | 0 | 1 | 1.000 | 1.000 | 1.000 |" in ffhq


def test_scenes_are_given_for_each_size_of_the_input(spec: ModelSpec) -> None:
    sized = {"frame_boxes": 0.0, "face_ap50_32px_320": 0.71, "face_ap50_128px_320": 0.98, "frame_boxes_320": 0.01}
    text = card(spec, CROPS | SCENES | sized)
    assert "| 640, as served | 0.900 | - | - | - | 0.000 |" in text
    assert "| 320 | 0.710 | - | 0.980 | - | 0.010 |" in text


def test_changed_pictures_stand_in_a_table_with_their_conditions(spec: ModelSpec) -> None:
    nan = float("nan")
    slices = [
        Slice("blur", 600, 0.99, 0.51, (0.47, 0.55), 0.505, 0.6),
        Slice("face_24px", 600, 0.0, nan, (nan, nan), 0.0, nan),
    ]
    flip = {"flip_changed": 0.125, "flip_difference": 0.04, "flip_max_difference": 0.5}
    text = card(spec, CROPS | {"n_robustness": 600} | flip, slices=slices)
    assert "| blurred, Gaussian of 2 px | 0.990 | 0.510 | 0.470-0.550 | 0.505 | 0.600 |" in text
    assert "| face 24 px high in the input | 0.000 | - | - | 0.000 | - |" in text
    assert "600 of the test crops" in text
    assert "12.5%" in text
    assert "Changed pictures" not in card(spec, CROPS)


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


def test_every_change_has_a_name_that_people_read(spec: ModelSpec) -> None:
    names = [*CORRUPTIONS, *face_heights(4096)]
    slices = [Slice(name, 9, 1.0, 0.5, (0.4, 0.6), 0.5, 0.9) for name in names]
    text = card(spec, CROPS | {"n_robustness": 9}, slices=slices)
    assert not [name for name in names if "_" in name and name in text]


def test_sources_are_compared(spec: ModelSpec) -> None:
    text = card(spec, CROPS)
    assert "| Flickr-Faces-HQ (`ffhq_…`) | 800 | 0.900 | - | - | - |" in text
    assert "differs by +0.200" in text
    without = {name: value for name, value in CROPS.items() if name != "top1_gap"}
    assert "differs by" not in card(spec, without)


def test_a_bar_in_a_citation_does_not_break_the_table(spec: ModelSpec) -> None:
    assert "A \\| B" in card(spec, CROPS, sets=[UsedSet("crops", "A | B", "free")])


def test_unknown_data_are_called_unknown(spec: ModelSpec) -> None:
    assert "does not say which sets these are" in card(spec, CROPS, sets=[])


# What data.dvc tells


def pinned(folder: Path, meta: object) -> Path:
    path = folder / "data.dvc"
    path.write_text(yaml.safe_dump({"outs": [], "meta": meta}), "utf-8")
    return path


def test_sets_are_known_by_the_cards_that_the_pin_names(tmp_path: Path) -> None:
    pin = pinned(tmp_path, {"crops": {"card": "affectnet"}, "scenes": {"card": "wider-face"}})
    crops, scenes = used_sets(pin, Path("configs/datasets"))
    assert (crops.kind, crops.title) == ("crops", "AffectNet in YOLO format")
    assert "non-commercial research" in crops.licence
    assert scenes.title.startswith("WIDER FACE")
    assert "arXiv:1511.06523" in scenes.citation


def test_a_set_without_a_card_keeps_the_licence_of_its_pin(tmp_path: Path) -> None:
    pin = pinned(tmp_path, {"crops": {"card": None, "licence": "ask Ada"}, "scenes": {}})
    crops, scenes = used_sets(pin, tmp_path)
    assert crops == UsedSet("crops", "a set without a dataset card", "ask Ada")
    assert scenes.licence == "unknown"


@pytest.mark.parametrize("meta", [None, {}])
def test_a_pin_that_says_nothing_tells_of_no_sets(tmp_path: Path, meta: object) -> None:
    assert used_sets(pinned(tmp_path, meta), tmp_path) == []


def test_no_pin_tells_of_no_sets(tmp_path: Path) -> None:
    assert used_sets(tmp_path / "data.dvc", tmp_path) == []
