"""The origin of an answer: the commit, data, params and metrics behind a model's digest."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from emotion_yolo.errors import ModelError
from emotion_yolo.inference.artefact import SPEC_NAME, ModelSpec
from emotion_yolo.paths import METRICS, PARAMS, RELEASE
from emotion_yolo.registry.repository import git, read_artifact, spec_at
from emotion_yolo.registry.versions import list_versions

_LEAST = 6  # digits of a prefix
_SECTIONS = ("prepare", "train", "export")


@dataclass(frozen=True)
class Origin:
    """A model, the commit that holds it, and its version if it is registered."""

    spec: ModelSpec
    commit: str
    metrics: Path
    """Path of its metrics in that commit."""
    version: str | None = None


def find_origin(digest: str, *, root: Path = Path()) -> Origin:
    """Return the model of a digest, or of the first digits of one: a registered version, else a release.

    Raises:
        ModelError: no or several models match, or it is no digest.
    """
    prefix = digest.lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_LEAST},64}}", prefix):
        raise ModelError(f"{digest!r} is no digest; give {_LEAST} to 64 hexadecimal digits, as `model` in an answer")
    origins = [origin for origin in _origins(root) if origin.spec.digest.startswith(prefix)]
    if not origins:
        raise ModelError(
            f"{digest}: no model.json of a registered version or of {RELEASE} in git has this digest; "
            "`git fetch --all --tags` gets what others have made"
        )
    if len(digests := sorted({origin.spec.digest for origin in origins})) > 1:
        raise ModelError(f"{digest}: several models begin so, {', '.join(digests)}; give more digits")
    return origins[0]


def _origins(root: Path) -> Iterator[Origin]:
    _, folder = read_artifact(root)
    for version in reversed(list_versions(root)):
        try:
            yield Origin(spec_at(root, folder, version.commit), version.commit, METRICS, version.name)
        except ModelError:  # neither in the cache nor in a remote: it may be among the releases
            continue
    path = RELEASE / SPEC_NAME
    for commit in git(root, "log", "--all", "--format=%H", "--", path.as_posix()).split():
        try:
            spec = ModelSpec.model_validate_json(git(root, "show", f"{commit}:./{path.as_posix()}"))
        except (ModelError, ValidationError):
            continue  # the commit deletes it, or it is of a version that this one does not know
        yield Origin(spec, commit, RELEASE / METRICS.name)


def describe_origin(origin: Origin, *, root: Path = Path()) -> dict[str, Any]:
    """Return what is known of a model; `params` are those it was made with, None where they are recorded nowhere."""
    lineage = origin.spec.lineage
    settings = lineage.settings
    if settings is None and (revision := _revision(origin, root)) and "-dirty" not in lineage.revision:
        params = yaml.safe_load(git(root, "show", f"{revision}:./{PARAMS.as_posix()}"))
        settings = {section: params[section] for section in _SECTIONS if section in params}
    try:
        metrics = json.loads(git(root, "show", f"{origin.commit}:./{origin.metrics.as_posix()}"))
    except ModelError:
        metrics = None
    return {
        "digest": origin.spec.digest,
        "name": origin.spec.name,
        "version": origin.version,
        "commit": origin.commit,
        "revision": lineage.revision,
        "data": lineage.data,
        "recipe": lineage.recipe,
        "weights": lineage.weights,
        "inputs": dict(lineage.inputs),
        "params": settings,
        "metrics": metrics,
    }


def check_out(origin: Origin, folder: Path, *, root: Path = Path()) -> str:
    """Make a worktree of the revision that the model was made from, else of the commit that holds it; returns it.

    Raises:
        ModelError: git refuses, such as where `folder` is not empty.
    """
    commit = _revision(origin, root) or origin.commit
    git(root, "worktree", "add", "--detach", str(folder.resolve()), commit)
    return commit


def _revision(origin: Origin, root: Path) -> str | None:
    """Return the commit that the model was made from, if this repository has it."""
    revision = origin.spec.lineage.revision.removesuffix("-dirty")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        return None
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except ModelError:
        return None
