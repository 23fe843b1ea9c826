import json
from pathlib import Path

import pytest

from emotion_yolo.errors import ModelError
from emotion_yolo.evaluation.summary import DETAILS, HEADLINE, headline, last_evaluation, summary
from emotion_yolo.paths import EVALUATE_REPORT, METRICS, PREPARE_REPORT

OVERALL = {"map50": 0.5, "ece": 0.04, "ap50_fear": 0.3, "n_crops": 2703, "face_ap50_32px": 0.87, "n_scenes": 190}


def evaluated(root: Path, *, metrics: dict[str, float] | None = None) -> Path:
    """Write what an evaluation leaves behind, but for its pictures."""
    for folder in (EVALUATE_REPORT, PREPARE_REPORT):
        (root / folder).mkdir(parents=True)
    details = {"metrics": OVERALL, "intervals": {"map50": [0.45, 0.55]}, "sets": {"web": {"metrics": {"map50": 0.25}}}}
    (root / EVALUATE_REPORT / DETAILS).write_text(json.dumps(details))
    (root / EVALUATE_REPORT / "MODEL_CARD.md").write_text("card")
    (root / METRICS).write_text(json.dumps(headline(OVERALL) if metrics is None else metrics))
    return root


def test_the_headline_is_few_metrics_and_leaves_out_what_was_not_measured() -> None:
    assert headline(OVERALL) == {name: OVERALL[name] for name in OVERALL if name != "ap50_fear"}
    assert len(HEADLINE) < 20


def test_the_summary_is_aligned_and_shows_intervals_where_there_are_some() -> None:
    lines = summary(OVERALL, {"map50": (0.45, 0.55)}, {}).splitlines()
    assert lines[0] == "expressions, test split (2,703 crops)"
    assert lines[1].endswith("0.500  0.450-0.550")
    assert lines[2].endswith("0.040")
    assert lines[3] == "faces, test split (190 photographs)"
    assert lines[1].index("0.500") == lines[2].index("0.040") == lines[4].index("0.870")


def test_the_summary_has_no_photographs_where_there_are_none() -> None:
    assert "photographs" not in summary({"map50": 0.5, "n_crops": 3}, {}, {})


def test_every_set_has_a_line_and_a_dash_for_what_it_lacks() -> None:
    sets = {"affectnet": {"n_faces": 2703, "map50": 0.8}, "wider": {"n_faces": 4000, "face_ap50_32px": 0.9}}
    header, affectnet, wider = summary({}, {}, sets).splitlines()[-3:]
    assert affectnet.split() == ["affectnet", "2,703", "0.800", "-"]
    assert wider.split() == ["wider", "4,000", "-", "0.900"]
    assert header.rindex("face AP50 ≥ 32 px") + len("face AP50 ≥ 32 px") == len(wider) == len(affectnet)


def test_the_last_evaluation_is_read_from_its_own_outs_and_only_files_that_exist_are_named(tmp_path: Path) -> None:
    text = last_evaluation(evaluated(tmp_path))
    assert "0.500  0.450-0.550" in text
    assert "web" in text
    named = [line.split()[-1] for line in text.splitlines() if str(tmp_path) in line]
    assert {Path(path).name for path in named} == {"MODEL_CARD.md", DETAILS}
    assert "other metrics" not in text


def test_metrics_of_another_run_in_the_commit_are_pointed_out(tmp_path: Path) -> None:
    assert f"{METRICS} holds other metrics than this evaluation" in last_evaluation(
        evaluated(tmp_path, metrics={"map50": 0.1})
    )


def test_metrics_that_came_with_the_commit_are_no_evaluation(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no evaluation has run here; run `dvc repro`"):
        last_evaluation(tmp_path)
    (tmp_path / METRICS).parent.mkdir()
    (tmp_path / METRICS).write_text(json.dumps({"map50": 0.877}))
    with pytest.raises(ModelError, match=r"reports/metrics\.json is part of the commit") as refused:
        last_evaluation(tmp_path)
    assert "0.877" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", '{"metrics": {}}', '{"metrics": {}, "intervals": 3, "sets": {}}'])
def test_a_damaged_evaluation_is_said_with_what_to_run(tmp_path: Path, content: str) -> None:
    (evaluated(tmp_path) / EVALUATE_REPORT / DETAILS).write_text(content)
    with pytest.raises(ModelError, match="dvc repro --force evaluate"):
        last_evaluation(tmp_path)
