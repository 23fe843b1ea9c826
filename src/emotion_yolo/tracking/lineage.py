"""The lineage of a model: the digest of the data, the revision of the code, and the machine."""

import hashlib
import json
import subprocess
from pathlib import Path

import yaml

from emotion_yolo.digests import sha256_of
from emotion_yolo.errors import ModelError, SourceError
from emotion_yolo.inference.artefact import Environment, read_spec
from emotion_yolo.params import MODEL_PARAMS, Params, named_models
from emotion_yolo.paths import TEACHER_NAME


def input_digests(params: Params) -> dict[str, str]:
    """Return the SHA-256 of each model that params name, by param: of a file, or of an exported detector's network.

    Of a folder of teachers it is that of their digests, one a line in the order of their paths.
    """
    digests = {}
    for param, path in named_models(params).items():
        if MODEL_PARAMS[param] == "classifiers":
            lines = "".join(f"{sha256_of(file)}\n" for file in sorted(path.rglob(TEACHER_NAME)))
            digests[param] = hashlib.sha256(lines.encode()).hexdigest()
        elif path.is_dir():
            digests[param] = read_spec(path).files["onnx"].sha256
        elif path.is_file():  # Ultralytics knows names of its own besides
            digests[param] = sha256_of(path)
    return digests


def read_environment(run: Path, *, command: str) -> Environment:
    """Return where a training ran, from its record `run`, which `command` writes.

    Raises:
        ModelError: no such record, or one of something else.
    """
    try:
        return Environment.model_validate(json.loads(run.read_text("utf-8"))["environment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{run}: does not say where the weights were trained ({type(error).__name__})"
        raise ModelError(f"{message}; run `{command}`") from error


def data_digest(pin: Path) -> str:
    """Return the digest by which DVC knows the raw data.

    Raises:
        SourceError: `data.dvc` is missing or pins nothing.
    """
    try:
        (out,) = yaml.safe_load(pin.read_text("utf-8"))["outs"]
        return str(out["md5"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SourceError(f"{pin}: pins no data ({error!r}); run `emotion-yolo pull` or `dvc repro`") from error


def git_revision(root: Path = Path()) -> str:
    """Return the commit, with `-dirty` where tracked files but those a run writes differ; `unknown` outside git."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return f"{commit}-dirty" if uncommitted(root) else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def uncommitted(root: Path = Path()) -> list[str]:
    """Return the tracked files that differ from the commit, but those a run writes; raises as git does."""
    # A stage before this one has changed dvc.lock and the metrics already: that is no change of the code.
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", ":!reports")
    return [line.split(maxsplit=1)[1] for line in changed.splitlines()]


def _git(root: Path, *arguments: str) -> str:
    # git refuses a clone that belongs to another user, lest its settings run code. Here the clone's code runs already.
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
