"""`emotion-yolo pull` and `emotion-yolo data`: sets from any source, landed in `data/`, pinned in `data.dvc`."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_yolo.data.cards import DatasetCard, load_card
from emotion_yolo.data.sets import SetRecord, read_sets
from emotion_yolo.errors import LayoutError, SourceError
from emotion_yolo.paths import CARDS, DATA, DATA_PIN, DOWNLOADS, SAMPLE
from emotion_yolo.progress import Progress, show_progress
from emotion_yolo.sources import pin
from emotion_yolo.sources.describing import Choices, LandedSet, stage_sets
from emotion_yolo.sources.fetching import SAMPLE_NAME, Fetched, Session, fetch
from emotion_yolo.sources.landing import exclusive, replacing, staging
from emotion_yolo.sources.storage import FreeSpace, format_bytes, free_bytes, require_free, storage_errors

_PINS = DOWNLOADS / "pins"
_PIN_FIRST = f"dvc add {DATA}, and commit {DATA}.dvc"


@dataclass(frozen=True)
class PullReport:
    """The result of a pull."""

    sets: tuple[LandedSet, ...]
    """The sets that this pull landed."""
    kept: tuple[str, ...]
    """Names of the sets that were there before and are kept."""
    notes: tuple[str, ...]
    bytes: int
    """Size of `data/`."""
    pin: str
    """DVC's hash of `data/`."""

    def lines(self) -> list[str]:
        """Return the report for a person, one fact per line."""
        lines = [line for landed in self.sets for line in landed.lines()]
        if self.kept:
            lines.append(f"kept: {', '.join(self.kept)}")
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"{DATA}/ holds {format_bytes(self.bytes)}, pinned in {DATA}.dvc as {self.pin}")
        return lines


def pull(
    source: str,
    *,
    root: Path,
    add: bool = False,
    choices: Choices | None = None,
    force: bool = False,
    progress: Progress = show_progress,
    free: FreeSpace = free_bytes,
) -> PullReport:
    """Replace `data/` by the sets of `source`, or `add` them to it, and pin it; on any failure data and pin stay.

    A source is `sample`, the name of a card with a Kaggle handle (`affectnet`), a folder, an archive, a `data.yaml`,
    FER2013's CSV, `https://….zip`, `s3://bucket/key.zip` or `s3://bucket/folder/`. Relative paths are the caller's,
    not `root`'s. `root` is the project, a DVC repository. `force` replaces data that are not pinned, which
    are moved into `.downloads`.

    Raises:
        SourceError: a source that cannot be fetched, data in place that are not pinned, or a name that is taken.
        ArchiveError, LayoutError, DataError, StorageError: see there.
    """
    choices = choices or Choices()
    if add and force:
        raise SourceError(f"--force with --add: {DATA}/ has to be pinned for sets to be added; {_PIN_FIRST}")
    cards = load_cards(root)
    if choices.card is not None and choices.card not in cards:
        raise LayoutError(f"{CARDS}: no dataset card {choices.card!r}; expected one of {', '.join(cards)}")
    cache = pin.cache_folder(root)
    with exclusive(root) as recovered, staging(root) as folder, storage_errors(root):
        unsaved = _require_replaceable(root, force=force)
        notes = ["an earlier pull had been interrupted; its data were restored before this one"] if recovered else []
        session = Session(root, folder, cache, cards, progress, free)
        before = read_sets(root / DATA_PIN) if add and (root / DATA_PIN).exists() else {}
        fetched = fetch(source, session)
        imported = source == SAMPLE_NAME and not before
        landed = _stage(fetched, session, choices, imported=imported)
        for one in landed:
            old = before.get(one.record.name)
            if old is not None and old.source.get("name") != one.record.source.get("name"):
                raise SourceError(
                    f"{DATA}/{old.name}: a set of this name is there, from {next(iter(old.source.values()))}; choose "
                    f"another name with --name, or remove it first: emotion-yolo data remove {old.name}"
                )
        kept = {name: record for name, record in before.items() if name not in {one.record.name for one in landed}}
        if imported:
            shutil.rmtree(folder / DATA)
        records = {**kept, **{one.record.name: one.record for one in landed}}
        digest, size = _replace(session, records, keep=tuple(kept), imported=imported, unsaved=unsaved, notes=notes)
        for leftover in fetched.leftovers:
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        pinned = read_sets(root / DATA_PIN)
        landed = [replace(one, record=pinned[one.record.name]) for one in landed]
        return PullReport(tuple(landed), tuple(kept), tuple(notes), size, digest)


def remove(name: str, *, root: Path, progress: Progress = show_progress) -> PullReport:
    """Remove a set from `data/` and pin the rest; the previous data stay in DVC's cache.

    Raises:
        SourceError: no such set, or the only one, or data in place that are not pinned.
        StorageError: the disk is full or may not be written.
    """
    cache = pin.cache_folder(root)
    with exclusive(root), staging(root) as folder, storage_errors(root):
        _require_replaceable(root, force=False)
        before = read_sets(root / DATA_PIN)
        if name not in before:
            raise SourceError(f"{DATA}/{name}: no such set; expected one of {', '.join(before)}")
        kept = {other: record for other, record in before.items() if other != name}
        if not kept:
            raise SourceError(f"{DATA}/{name}: the only set; pull another one instead, which replaces it")
        (folder / DATA).mkdir()
        notes: list[str] = []
        session = Session(root, folder, cache, {}, progress, free_bytes)
        digest, size = _replace(session, kept, keep=tuple(kept), imported=False, unsaved=False, notes=notes)
        return PullReport((), tuple(kept), tuple(notes), size, digest)


def load_cards(root: Path) -> dict[str, DatasetCard]:
    """Read every dataset card of a project.

    Raises:
        LayoutError: one that does not fit.
    """
    cards = [load_card(path) for path in sorted((root / CARDS).glob("*.yaml"))]
    return {card.name: card for card in cards}


def _require_replaceable(root: Path, *, force: bool) -> bool:
    """Return whether `force` discards unsaved data that are in place."""
    unsaved = pin.replaceable(root)
    if unsaved and not force:
        raise SourceError(
            f"{unsaved}; nothing was changed. To keep them: {_PIN_FIRST}; "
            f"to replace them: repeat with --force, which moves them into {DOWNLOADS}/"
        )
    return bool(unsaved)


def _stage(fetched: Fetched, session: Session, choices: Choices, *, imported: bool) -> list[LandedSet]:
    size = _size(fetched.path)
    copied = 0 if fetched.owned else size
    where = session.root if imported else session.staging
    require_free([(session.cache, size), (where, copied)], free=session.free)
    staged = stage_sets(
        fetched, session.staging / DATA, session.cards, choices, linked=imported, progress=session.progress
    )
    return [landed for _, landed in staged]


def _replace(
    session: Session,
    records: Mapping[str, SetRecord],
    *,
    keep: Sequence[str],
    imported: bool,
    unsaved: bool,
    notes: list[str],
) -> tuple[str, int]:
    """Swap the staged data in, pin them, and return DVC's hash of them and their size."""
    root = session.root
    keep_old = root / DOWNLOADS / time.strftime("replaced-%Y%m%d-%H%M%S") if unsaved else None
    if keep_old is not None:
        notes.append(f"the data that were not pinned are in {DOWNLOADS}/{keep_old.name}")
    elif (root / DATA_PIN).exists() and not pin.is_committed(root):
        notes.append(_keep_pin(root))
    total = sum(sum(counts.values()) for record in records.values() for counts in record.pictures.values())
    description = f"{', '.join(records)}: {total:,} pictures by class"
    meta = {name: record.model_dump(exclude={"name", "digest"}) for name, record in records.items()}
    with replacing(root, None if imported else session.staging / DATA, keep=keep, keep_old=keep_old):
        if imported:
            pin.pin_import(root, SAMPLE)
        else:
            pin.pin_added(root)
        digest = pin.annotate(root, description, meta)
    return digest, _size(root / DATA)


def _keep_pin(root: Path) -> str:
    """Keep a copy of a pin that git does not have, and say how its data come back."""
    content = (root / DATA_PIN).read_bytes()
    (root / _PINS).mkdir(parents=True, exist_ok=True)
    path = _PINS / pin.data_hash(root)  # not *.dvc: DVC would take it for a stage
    (root / path).write_bytes(content)
    return (
        f"{DATA_PIN} was not committed; its data stay in DVC's cache, and a copy of it is {path}. To go back: "
        f"cp {path} {DATA_PIN} && dvc checkout {DATA_PIN}"
    )


def _size(path: Path) -> int:
    files: Sequence[Path] = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
