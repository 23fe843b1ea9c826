"""What a model was made from: the digest of the data, and the revision of the code."""

import subprocess
from pathlib import Path

import yaml

from emotion_yolo.errors import SourceError


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


def git_revision() -> str:
    """Return the commit, with `-dirty` where tracked files but those a run writes differ; `unknown` outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        # A stage before this one has changed dvc.lock and the metrics already: that is no change of the code.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock", ":!reports")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
