"""Promotes a candidate: compare, report, register."""

from dataclasses import dataclass
from pathlib import Path

from emotion_yolo.errors import PromotionError
from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.params import Evaluate
from emotion_yolo.registry.comparing import Comparison, compare
from emotion_yolo.registry.report import message, verdict, write_report
from emotion_yolo.registry.repository import git, read_artifact, spec_at
from emotion_yolo.registry.versions import promote_commit


@dataclass(frozen=True)
class Promotion:
    """A candidate that was promoted."""

    comparison: Comparison
    version: str
    commit: str
    report: Path


def promote(
    candidate: Path, *, against: Path, prepared: Path, params: Evaluate, out: Path, root: Path = Path()
) -> Promotion:
    """Compare, write the report into `out`, and register the candidate at the present commit of `root`.

    Raises:
        PromotionError: the present commit holds another model, the candidate is worse, or GTO refuses.
        ModelError: one of the models cannot be loaded.
    """
    commit = git(root, "rev-parse", "HEAD")
    name, folder = read_artifact(root)
    # A tag stands for a commit: what is fetched by it later has to be what was compared.
    if (pinned := spec_at(root, folder, commit)) != (spec := read_spec(candidate)):
        got = f"{pinned.version}, the candidate {candidate} is {spec.version}"
        raise PromotionError(
            f"{folder} at {commit[:12]} is {got}, or differs in thresholds or lineage; check out the commit whose "
            f"dvc.lock pins it, or commit dvc.lock: {name} is registered by commit"
        )
    comparison = compare(against, candidate, prepared=prepared, params=params)
    report = write_report(comparison, out)
    if comparison.worse:
        raise PromotionError(f"{candidate}: {verdict(comparison)} {report} has the figures; {against} stays")
    return Promotion(comparison, promote_commit(root, commit, why=message(comparison)), commit, report)
