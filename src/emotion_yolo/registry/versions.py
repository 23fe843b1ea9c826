"""Versions and stages of the model in git tags, through GTO: `emotion-yolo@v0.0.2`, `emotion-yolo#prod#3`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gto.api
from gto.exceptions import GTOException
from pygit2 import GitError
from scmrepo.exceptions import SCMError

from emotion_yolo.errors import PromotionError
from emotion_yolo.registry.repository import read_artifact

STAGE = "prod"


@dataclass(frozen=True)
class Version:
    """A registered version; `stages` are those it is in now."""

    name: str
    commit: str
    registered: str
    why: str
    stages: tuple[str, ...]


def list_versions(root: Path) -> list[Version]:
    """Return the registered versions, the latest last.

    Raises:
        PromotionError: no repository, or dvc.yaml lists no model.
    """
    name, _ = read_artifact(root)
    events = _events(root, name)
    serving = _served(events)[-1:]
    return [
        Version(e["version"], e["commit"], f"{e['timestamp']:%Y-%m-%d %H:%M}", str(e["message"]).strip(), stages)
        for e in events
        if e["event"] == "registration"
        for stages in [(STAGE,) if e["version"] in serving else ()]
    ]


def promote_commit(root: Path, commit: str, *, why: str) -> str:
    """Register the model at a commit, unless it is registered already, and assign it the stage; returns its version.

    Raises:
        PromotionError: GTO refuses, such as where git has no identity to tag with.
    """
    name, _ = read_artifact(root)
    known = [version.name for version in list_versions(root) if version.commit == commit]
    try:
        version: str = known[0] if known else gto.api.register(str(root), name, commit, message=why).version
    except (GTOException, SCMError) as error:
        raise PromotionError(f"{name} at {commit[:12]}: could not be registered: {error}") from error
    _assign(root, name, version, why=why)
    return version


def roll_back(root: Path) -> tuple[str, str]:
    """Assign the stage to the version that had it before; returns the version that had it and the one that has.

    Versions rolled back from are skipped: two rollbacks go back by two.

    Raises:
        PromotionError: no version had the stage before.
    """
    name, _ = read_artifact(root)
    served = _served(_events(root, name))
    if len(served) < 2:
        has = f"only {served[0]} has ever been in it" if served else "no version is in it"
        raise PromotionError(f"stage {STAGE} of {name}: {has}; `emotion-yolo models` lists versions")
    had, before = served[-1], served[-2]
    _assign(root, name, before, why=f"Rolled back from {had} to {before}")
    return had, before


def _assign(root: Path, name: str, version: str, *, why: str) -> None:
    try:
        # Forced: a version that had the stage once may get it again.
        gto.api.assign(str(root), name, STAGE, version=version, message=why, force=True)
    except (GTOException, SCMError) as error:
        raise PromotionError(f"{name}@{version}: could not be assigned to {STAGE}: {error}") from error


def _events(root: Path, name: str) -> list[dict[str, Any]]:
    try:
        return list(gto.api.history(str(root), name, ascending=True))
    except (GTOException, SCMError, GitError) as error:  # pygit2's own: the clone belongs to another user
        advice = "run this in a clone of your own"
        raise PromotionError(f"{root.resolve()}: versions cannot be read: {error}; {advice}") from error


def _served(events: list[dict[str, Any]]) -> list[str]:
    """Return the versions in the stage, the present one last, without those rolled back from."""
    stack: list[str] = []
    assignments = [e for e in events if e["event"] == "assignment" and e["stage"] == STAGE]
    for event in sorted(assignments, key=_counter):
        version = event["version"]
        # A version that has been there takes everything after it off.
        stack = [*stack[: stack.index(version)], version] if version in stack else [*stack, version]
    return stack


def _counter(event: dict[str, Any]) -> int:
    # The number in the tag, and not its time, which has whole seconds.
    match = re.search(r"#(\d+)$", str(event["ref"]))
    return int(match[1]) if match else 0
