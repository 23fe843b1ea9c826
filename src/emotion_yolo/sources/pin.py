"""`data.dvc`, the root of the graph: DVC's pin of `data/`."""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import NoSCM, SCMError
from pygit2 import GitError

from emotion_yolo.errors import SourceError
from emotion_yolo.paths import DATA, DATA_PIN

Meta = Mapping[str, Any]


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache, which may be on another disk than the project."""
    with _repository(root) as repo:
        return Path(repo.cache.local.path)


def replaceable(root: Path) -> str | None:
    """Return why the data in place would be lost if they were replaced, or None if git and DVC can bring them back.

    What the cache lacks of unchanged pinned data is saved there first.
    """
    if not (root / DATA).exists():
        return None
    if not (root / DATA_PIN).exists():
        return f"{DATA}/ is there, but not pinned by {DATA_PIN}"
    with _repository(root) as repo:
        (out,) = _stage(repo).outs
        if out.workspace_status():
            return f"{DATA}/ is not what {DATA_PIN} pins: it was changed by hand, or {DATA_PIN} was"
        if out.changed_cache():
            with repo.lock:
                out.save()
                out.commit()
    return None


def is_committed(root: Path) -> bool:
    """Return whether git's last commit has `data.dvc` as it is; a project without git has committed nothing."""
    with _repository(root) as repo:
        if isinstance(repo.scm, NoSCM) or repo.scm.no_commits:
            return False
        path = (root.resolve() / DATA_PIN).relative_to(Path(repo.scm.root_dir).resolve())
        try:
            with repo.scm.get_fs("HEAD").open(path.as_posix(), "rb") as file:
                return bool(file.read() == (root / DATA_PIN).read_bytes())
        except (SCMError, OSError):
            return False


def data_hash(root: Path) -> str:
    """Return DVC's hash of the pinned `data/`."""
    with _repository(root) as repo:
        return str(_stage(repo).outs[0].hash_info.value)


def pin_import(root: Path, source: Path) -> None:
    """Make `data/` an import of the project's folder `source`.

    Unfrozen, so that a fresh clone's `dvc repro` and `dvc exp run` copy it in without a remote; a frozen import
    fails there with "missing data" (DVC 3.67.1).
    """
    with _repository(root) as repo:
        repo.imp_url(str(root.absolute() / source), out=str(root.absolute() / DATA), frozen=False)


def pin_added(root: Path) -> None:
    """Add `data/` to DVC's cache, pinned by its hash."""
    with _repository(root) as repo:
        repo.add(str(root.absolute() / DATA))


def annotate(root: Path, description: str, sets: Mapping[str, Meta]) -> str:
    """Write the record of each set with its digest into `data.dvc`, and return DVC's hash of `data/`."""
    with _repository(root) as repo, repo.scm_context():  # stages the file in git if core.autostage is set
        stage = _stage(repo)
        digests = _digests(stage.outs[0])
        stage.desc = description
        stage.meta = {"sets": {name: {**meta, "digest": digests[name]} for name, meta in sets.items()}}
        stage.dump(update_lock=False)
        return str(stage.outs[0].hash_info.value)


def _digests(out: Any) -> dict[str, str]:
    """Return the SHA-256 of each set's list of files, which DVC has hashed already."""
    files: defaultdict[str, list[str]] = defaultdict(list)
    for key, _, digest in out.get_obj():
        files[key[0]].append(f"{'/'.join(key[1:])}\0{digest.value}\n")
    return {name: hashlib.sha256("".join(sorted(lines)).encode()).hexdigest() for name, lines in files.items()}


def _stage(repo: Repo) -> Any:
    return repo.stage.load_one(str(Path(repo.root_dir) / DATA_PIN))


@contextmanager
def _repository(root: Path) -> Iterator[Repo]:
    """Open the project's DVC repository; DVC's own errors become ours."""
    # A full disk would be a line for each of 47,000 files; what matters is raised. Analytics are the command line's.
    for library in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        with Repo(str(root)) as repo:
            if Path(repo.root_dir).resolve() != root.resolve():
                raise SourceError(f"{root}: not the root of the DVC repository {repo.root_dir}; run the command there")
            yield repo
    except DvcException as error:
        raise SourceError(f"{root}: DVC refuses: {error}; the old data are untouched") from error
    except (SCMError, GitError) as error:
        raise SourceError(f"{root}: git refuses: {error}; {_advice(root)}the old data are untouched") from error


def _advice(root: Path) -> str:
    if hasattr(os, "getuid") and root.stat().st_uid != os.getuid():
        return (
            f"the folder belongs to another user; if you trust it: git config --global --add safe.directory "
            f"{root.absolute()}; "
        )
    return ""
