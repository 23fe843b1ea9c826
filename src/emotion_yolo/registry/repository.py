"""Reads of the git and DVC repository at any revision."""

import subprocess
from pathlib import Path

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo
from pydantic import ValidationError

from emotion_yolo.errors import ModelError, PromotionError
from emotion_yolo.inference.artefact import SPEC_NAME, ModelSpec

Artifact = tuple[str, str]
"""Name of an entry under `artifacts:` in dvc.yaml, and the path of its folder from the project's root."""


def git(root: Path, *arguments: str) -> str:
    """Return what git prints.

    Raises:
        ModelError: git refused, or is not installed.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except OSError as error:
        raise ModelError(f"git: {error.strerror}; install git") from error
    except subprocess.CalledProcessError as error:
        raise ModelError(f"git {' '.join(arguments)} in {root.resolve()}: {error.stderr.strip()}") from error
    return done.stdout.strip()


def read_artifact(root: Path) -> Artifact:
    """Return the one model that dvc.yaml lists under `artifacts:`.

    Raises:
        PromotionError: it lists none or several, or cannot be read.
    """
    path = root / "dvc.yaml"
    try:
        entries = yaml.safe_load(path.read_text("utf-8")).get("artifacts") or {}
        models = [(name, entry["path"]) for name, entry in entries.items() if entry.get("type") == "model"]
    except (OSError, ValueError, AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
        raise PromotionError(f"{path}: cannot be read ({error!r}); run this in the project's root") from error
    if len(models) != 1:
        raise PromotionError(f"{path}: artifacts of type model are {[n for n, _ in models]}, expected one")
    return models[0]


def spec_at(root: Path, folder: str, revision: str) -> ModelSpec:
    """Return model.json of a model folder as git or DVC has it at a revision.

    Raises:
        ModelError: it is not there, not in the DVC cache, or does not fit.
    """
    where = f"{folder}/{SPEC_NAME} at {revision}"
    try:
        with Repo(str(root.resolve())) as repo, repo.switch(revision):
            return ModelSpec.model_validate_json(repo.dvcfs.cat_file(f"/{folder}/{SPEC_NAME}"))
    except ValidationError as error:
        raise ModelError(f"{where}: does not describe a model this version can read: {error}") from error
    except (OSError, DvcException) as error:
        raise ModelError(
            f"{where}: not there ({error}); commit dvc.lock after `dvc repro`, or run `dvc pull`"
        ) from error
