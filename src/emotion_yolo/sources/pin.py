"""`data.dvc`, the root of the graph: what DVC is told about `data/`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from emotion_yolo.errors import SourceError
from emotion_yolo.paths import DATA, DATA_PIN

Meta = Mapping[str, Any]


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache, which may lie on another disk than the project."""
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


def pin_import(root: Path, source: Path, *, description: str, meta: Meta) -> str:
    """Make `data/` an import of the project's folder `source`, and return its hash.

    Unfrozen, so that a fresh clone's `dvc repro` and `dvc exp run` copy it in without a remote; a frozen import
    fails there with "missing data" (DVC 3.67.1).
    """
    with _repository(root) as repo:
        repo.imp_url(str(root.absolute() / source), out=str(root.absolute() / DATA), frozen=False)
    return _annotate(root, description, meta)


def pin_added(root: Path, *, description: str, meta: Meta) -> str:
    """Add `data/` to DVC's cache, pinned by its hash, and return that."""
    with _repository(root) as repo:
        repo.add(str(root.absolute() / DATA))
    return _annotate(root, description, meta)


def _annotate(root: Path, description: str, meta: Meta) -> str:
    with _repository(root) as repo, repo.scm_context():  # stages the file in git where core.autostage asks for it
        stage = _stage(repo)
        stage.desc, stage.meta = description, dict(meta)
        stage.dump(update_lock=False)
        return str(stage.outs[0].hash_info.value)


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
