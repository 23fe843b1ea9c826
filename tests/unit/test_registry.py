"""Promotion, rollback and lineage, in a repository of git and DVC with exported networks of painted cells."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from emotion_yolo.data.prepared import Kind, Sample
from emotion_yolo.errors import EmotionYoloError, ModelError, PromotionError
from emotion_yolo.evaluation.outcomes import Outcome
from emotion_yolo.inference.artefact import Lineage, read_spec, write_spec
from emotion_yolo.params import Evaluate, load_params
from emotion_yolo.registry.comparing import Difference, compare, compare_outcomes
from emotion_yolo.registry.origin import check_out, describe_origin, find_origin
from emotion_yolo.registry.promoting import Promotion, promote
from emotion_yolo.registry.repository import read_artifact
from emotion_yolo.registry.versions import list_versions, roll_back
from tests.builders import detections_of, exported_model, labels_of, painted, painted_labels, prepared_set

PARAMS = load_params().evaluate.model_copy(update={"bootstrap": 200, "scene_imgsz": 96})
PRESENT, BETTER, EQUAL, WORSE = 32, 26, 31, 20
"""Sides of the boxes of four networks. Labels have 32 px, and 20 px where `prepared` says so: at IoU 0.5 the first and
the third find those of 32, the second all, and the last those of 20."""


def git(folder: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def prepared(root: Path) -> Path:
    """Write 90 crops and 30 photographs of one happy face each, a third of them with labels of 20 px."""
    small = labels_of([4], [[38, 38, 58, 58]])
    large = painted_labels({(1, 1): 4})
    pictures = {f"{i:03}.png": (painted({(1, 1): 4}), small if i % 3 == 0 else large) for i in range(120)}
    names = list(pictures)
    return prepared_set(root, crops={n: pictures[n] for n in names[:90]}, scenes={n: pictures[n] for n in names[90:]})


class Project:
    """A project whose `models/export` is an out of DVC, pinned by dvc.lock in each commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prepared = root / "datasets/prepared"
        self.release = root / "models/release"
        self.export = root / "models/export"

    @classmethod
    def make(cls, root: Path) -> "Project":
        self = cls(root)
        git(root, "init", "-q")
        git(root, "config", "user.name", "t")
        git(root, "config", "user.email", "t@example.org")
        self.dvc("init", "-q")
        self.dvc("config", "core.analytics", "false")
        (root / "dvc.yaml").write_text(
            "stages:\n  export:\n    cmd: 'true'\n    outs:\n      - models/export\n"
            "artifacts:\n  emotion-yolo:\n    path: models/export\n    type: model\n"
        )
        (root / "params.yaml").write_text("prepare: {a: 1}\ntrain: {lr0: 0.5}\nexport: {}\ntracking: {}\n")
        (root / "reports").mkdir()
        prepared(self.prepared)
        exported_model(self.release, box_side=PRESENT)
        (self.release / "metrics.json").write_text('{"map50": 0.25}')
        (root / ".gitignore").write_text("/datasets\n/models/export\n/out\n")
        git(root, "add", ".gitignore", "dvc.yaml", "params.yaml", "models/release", ".dvc")
        git(root, "commit", "-qm", "first")
        return self

    def dvc(self, *args: str) -> None:
        subprocess.run(["dvc", *args], cwd=self.root, check=True, capture_output=True)

    def commit_model(self, box_side: int, **kwargs: float) -> str:
        exported_model(self.export, box_side=box_side, **kwargs)  # type: ignore[arg-type]
        self.dvc("commit", "-q", "-f", "export")
        (self.root / "reports/metrics.json").write_text(json.dumps({"box_side": box_side}))
        git(self.root, "add", "dvc.lock", "reports/metrics.json")
        git(self.root, "commit", "-qm", f"boxes of {box_side} px")
        return git(self.root, "rev-parse", "HEAD")

    def promote(self) -> Promotion:
        return promote(
            self.export,
            against=self.release,
            prepared=self.prepared,
            params=PARAMS,
            out=self.root / "out",
            root=self.root,
        )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Project.make(tmp_path_factory.mktemp("project")).root


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(template, tmp_path / "project")))


def test_a_better_candidate_is_promoted_and_the_tag_says_why(project: Project) -> None:
    commit = project.commit_model(BETTER)
    done = project.promote()
    gains = {d.name: d.gain for d in done.comparison.differences}
    assert gains["emotion_top1"] == gains["worst_cell"] == pytest.approx(1 / 3)
    assert gains["face_ap50"] > 0.5  # two thirds of the faces at a precision of two thirds before
    assert (done.version, done.commit) == ("v0.0.1", commit)
    assert git(project.root, "rev-list", "-n1", "emotion-yolo@v0.0.1") == commit
    assert git(project.root, "rev-list", "-n1", "emotion-yolo#prod#1") == commit
    for tag in ("emotion-yolo@v0.0.1", "emotion-yolo#prod#1"):
        why = git(project.root, "tag", "-l", "--format=%(contents)", tag)
        assert "emotion top-1, missed faces count as wrong 0.6667 to 1 (gain +0.333" in why.replace("1.0000", "1")
        assert "Not worse beyond noise in any of 6 figures." in why
    report = done.report.read_text()
    assert report.count("| passed |") == 6 and "Not worse beyond noise" in report
    with Image.open(project.root / "out/differences.png") as plot:
        assert plot.width > 400 and len(plot.getcolors(1 << 24) or ()) > 2


def test_an_equal_candidate_is_promoted(project: Project) -> None:
    project.commit_model(EQUAL)
    differences = {d.name: d for d in project.promote().comparison.differences}
    latency = differences["latency"]
    assert latency.tolerance == pytest.approx(max(0.05, 1 / latency.present))
    for name in ("emotion_top1", "worst_cell", "face_ap50", "ece"):
        assert differences[name].gain == pytest.approx(0, abs=1e-4)
    assert [v.stages for v in list_versions(project.root)] == [("prod",)]


def test_a_worse_candidate_is_refused_with_the_figures_and_leaves_no_tag(project: Project) -> None:
    project.commit_model(WORSE)
    with pytest.raises(PromotionError, match=r"worse beyond noise in face AP50.*top-1.* stays"):
        project.promote()
    report = (project.root / "out/promotion.md").read_text()
    assert "| emotion top-1, missed faces count as wrong | 0.6667 | 0.3333 | -0.3333 |" in report
    assert report.count("| worse |") == 3
    assert (project.root / "out/differences.png").is_file()
    assert git(project.root, "tag") == ""


def test_a_candidate_that_is_only_badly_calibrated_is_refused(project: Project) -> None:
    project.commit_model(PRESENT, temperature=8.0)
    with pytest.raises(PromotionError, match="worse beyond noise in expected calibration error"):
        project.promote()


def test_refuses_a_candidate_that_the_commit_does_not_pin(project: Project) -> None:
    exported_model(project.export)
    with pytest.raises(ModelError, match=r"models/export/model\.json at .*commit dvc\.lock"):
        project.promote()
    project.commit_model(EQUAL)
    exported_model(project.export, box_side=BETTER)
    with pytest.raises(PromotionError, match="registered by commit"):
        project.promote()
    assert git(project.root, "tag") == ""


def test_rollback_goes_back_by_one_version_each_time_and_over_what_was_rolled_back(project: Project) -> None:
    with pytest.raises(PromotionError, match="no version is in it"):
        roll_back(project.root)
    commits = []
    for side in (BETTER, EQUAL):
        commits.append(project.commit_model(side))
        project.promote()
    assert roll_back(project.root) == ("v0.0.2", "v0.0.1")
    assert {v.name: v.stages for v in list_versions(project.root)} == {"v0.0.1": ("prod",), "v0.0.2": ()}
    assert git(project.root, "tag", "-l", "--format=%(contents)", "emotion-yolo#prod#3").startswith("Rolled back from")
    with pytest.raises(PromotionError, match=r"only v0\.0\.1 has ever"):
        roll_back(project.root)
    commits.append(project.commit_model(30))
    project.promote()
    assert [(v.name, v.commit) for v in list_versions(project.root)] == [
        (f"v0.0.{i}", commit) for i, commit in enumerate(commits, start=1)
    ]
    assert roll_back(project.root) == ("v0.0.3", "v0.0.1")
    # Promoted again, the version keeps its number.
    assert project.promote().version == "v0.0.3"
    assert roll_back(project.root) == ("v0.0.3", "v0.0.1")


def test_lineage_of_a_registered_version_and_a_worktree_of_it(project: Project, tmp_path: Path) -> None:
    made_from = git(project.root, "rev-parse", "HEAD")
    exported_model(project.export, box_side=BETTER)
    spec = read_spec(project.export)
    lineage = Lineage(data="abc.dir", params="p" * 64, revision=made_from, weights="w" * 64, recipe="configs/r.yaml")
    write_spec(project.export, spec.model_copy(update={"lineage": lineage}))
    project.dvc("commit", "-q", "-f", "export")
    (project.root / "reports/metrics.json").write_text('{"map50": 0.75}')
    git(project.root, "add", "dvc.lock", "reports/metrics.json")
    git(project.root, "commit", "-qm", "better")
    done = project.promote()
    origin = find_origin(spec.digest[:8].upper(), root=project.root)
    assert describe_origin(origin, root=project.root) == {
        "digest": spec.digest,
        "name": "painted-cells",
        "version": "v0.0.1",
        "commit": done.commit,
        "revision": made_from,
        "data": "abc.dir",
        "recipe": "configs/r.yaml",
        "weights": "w" * 64,
        "inputs": {},
        "params": {"prepare": {"a": 1}, "train": {"lr0": 0.5}, "export": {}},
        "metrics": {"map50": 0.75},
    }
    folder = project.root / "out" / "tree"
    assert check_out(origin, folder, root=project.root) == made_from
    assert git(folder, "rev-parse", "HEAD") == made_from
    with pytest.raises(ModelError, match="already"):
        check_out(origin, folder, root=project.root)


def test_lineage_of_a_release_that_was_replaced_since(project: Project) -> None:
    first, commit = read_spec(project.release), git(project.root, "rev-parse", "HEAD")
    exported_model(project.release, box_side=BETTER)
    git(project.root, "commit", "-qam", "second release")
    origin = find_origin(first.version, root=project.root)
    found = describe_origin(origin, root=project.root)
    assert (found["commit"], found["version"], found["metrics"]) == (commit, None, {"map50": 0.25})
    assert found["params"] is None  # its revision is no commit
    folder = project.root / "out" / "tree"
    assert check_out(origin, folder, root=project.root) == commit
    assert read_spec(folder / "models/release") == first


def test_a_digest_of_nothing_and_what_is_no_digest_are_refused(project: Project) -> None:
    with pytest.raises(ModelError, match="git fetch --all --tags"):
        find_origin("0" * 12, root=project.root)
    for text in ("abc", "x" * 12, "", "--all"):
        with pytest.raises(ModelError, match="is no digest"):
            find_origin(text, root=project.root)


@pytest.mark.parametrize("text", ["", "artifacts: {}", "artifacts: 3", "artifacts: {a: {type: model}}", "stages: ["])
def test_a_project_without_a_model_among_its_artifacts_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    with pytest.raises(PromotionError, match=r"dvc\.yaml"):
        read_artifact(tmp_path)


def test_a_folder_outside_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "dvc.yaml").write_text("artifacts: {m: {path: models/export, type: model}}")
    with pytest.raises(EmotionYoloError):
        list_versions(tmp_path)
    with pytest.raises(ModelError, match="git rev-parse HEAD"):
        promote(tmp_path, against=tmp_path, prepared=tmp_path, params=PARAMS, out=tmp_path, root=tmp_path)


def test_refuses_to_decide_without_intervals_or_without_emotions(tmp_path: Path) -> None:
    model = exported_model(tmp_path / "model")
    none = PARAMS.model_copy(update={"bootstrap": 0})
    with pytest.raises(PromotionError, match=r"evaluate\.bootstrap is 0"):
        compare(model, model, prepared=tmp_path, params=none)
    faces = {(1, 1): 4}
    split = prepared_set(tmp_path / "set", crops={"a.png": (painted(faces), painted_labels(faces, cls=8))})
    with pytest.raises(PromotionError, match="no test picture has a face with an emotion"):
        compare(model, model, prepared=split, params=PARAMS)


def test_larger_or_slower_is_worse_only_beyond_the_tolerance() -> None:
    def of(gain: float, high: float) -> Difference:
        return Difference("latency", "latency", 1, 1 - gain, gain, (gain - 0.1, high), tolerance=0.05)

    assert of(-0.2, -0.06).worse
    assert not of(-0.2, -0.04).worse
    assert not of(0.2, 0.3).worse


def synthetic(accuracy: float, faces: int, rng: np.random.Generator) -> list[Outcome]:
    """Return outcomes of crops with a face each that a model names right with this probability."""
    box = [[32, 32, 64, 64]]
    labels = labels_of([4], box)
    outcomes = []
    for right in rng.random(faces) < accuracy:
        found = detections_of(box, confidence=[0.9], emotions=[4 if right else 5], sure=0.7)
        outcomes.append(Outcome(Sample(Path("none"), labels, "set", "source", Kind.SINGLE), found, found))
    return outcomes


def refused(loss: float, *, trials: int = 40, faces: int = 120) -> float:
    """Return how often a candidate is refused whose accuracy is lower than the present model's 0.7 by `loss`."""
    rng = np.random.default_rng(18)
    params: Evaluate = PARAMS.model_copy(update={"bootstrap": 100})
    decisions = [
        any(d.worse for d in compare_outcomes((synthetic(0.7, faces, rng), synthetic(0.7 - loss, faces, rng)), params))
        for _ in range(trials)
    ]
    return float(np.mean(decisions))


def test_wrong_decisions_are_as_rare_as_the_intervals_promise() -> None:
    equal, worse = refused(0.0), refused(0.3)
    # Three figures of one-sided 2.5 % each; two of them, top-1 and the only cell, are one here.
    assert equal <= 0.2
    assert worse >= 0.9


def test_the_commands(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.root / "params.yaml").write_bytes(Path("params.yaml").read_bytes())
    git(project.root, "commit", "-qam", "params")
    project.commit_model(BETTER)
    monkeypatch.chdir(project.root)

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["emotion-yolo", *args], capture_output=True, text=True, check=False)

    assert "no version is registered" in run("models").stderr
    assert "v0.0.1 at" in run("promote").stdout
    listed = run("models").stdout
    assert listed.startswith("v0.0.1") and "prod" in listed and "against" in listed
    project.commit_model(EQUAL)
    assert run("promote", "--out", "out").returncode == 0
    rolled = run("rollback")
    assert rolled.stdout.startswith("v0.0.1 is in prod, v0.0.2 no longer")
    assert run("rollback").returncode == 19
    shown = run("lineage", read_spec(project.release).version, "--checkout", "out/tree")
    assert yaml.safe_load(shown.stdout)["digest"] == read_spec(project.release).digest
    assert (project.root / "out/tree/dvc.yaml").is_file() and "worktree of" in shown.stderr
    project.commit_model(WORSE)
    worse = run("promote")
    assert worse.returncode == 19 and "worse beyond noise" in worse.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_versions_of_another_users_clone_are_a_message(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "dvc.yaml").write_text("artifacts:\n  emotion-yolo:\n    path: models/export\n    type: model\n")
    git(tmp_path, "add", "dvc.yaml")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "first")
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 12345, 12345)
    environment = os.environ | {"HOME": str(tmp_path.parent)}  # no safe.directory of this machine's own
    done = subprocess.run(["emotion-yolo", "models"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == PromotionError.exit_code
    assert "is not owned by current user; run this in a clone of your own" in done.stderr
    assert "Traceback" not in done.stderr
