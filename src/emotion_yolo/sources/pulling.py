"""`emotion-yolo pull`: fetch a data set from wherever it is, verify it, land it in `data/`, pin it in `data.dvc`."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emotion_yolo.data.cards import SPLITS, DatasetCard, load_card
from emotion_yolo.errors import LayoutError, SourceError
from emotion_yolo.paths import CARDS, CROPS, DATA, DOWNLOADS, SAMPLE, SCENES
from emotion_yolo.progress import Progress, show_progress
from emotion_yolo.sources import layouts, pin
from emotion_yolo.sources.fetching import SAMPLE_NAME, Fetched, Session, fetch
from emotion_yolo.sources.landing import exclusive, replacing, staging
from emotion_yolo.sources.layouts import Counts, FoundSets
from emotion_yolo.sources.storage import FreeSpace, format_bytes, free_bytes, require_free, storage_errors
from emotion_yolo.structures import emotions

_UNKNOWN_LICENCE = "unknown to this project: see where the data come from before you use them"
_SCENES_YAML = f"train: images\nval: images\nnc: 1\nnames: [{emotions.FACE_NAME}]\n"


@dataclass(frozen=True)
class LandedSet:
    """One set that was landed."""

    kind: Literal["crops", "scenes"]
    source: str
    """Where it came from, without secrets and without folders of this machine."""
    licence: str
    card: str | None
    """Name of the dataset card that fits, if one does."""
    pictures: int
    counts: Counts
    """Pictures per split and class; empty for scenes."""


@dataclass(frozen=True)
class PullReport:
    """What a pull changed."""

    crops: LandedSet
    scenes: LandedSet | None
    differences: tuple[str, ...]
    """Where the counts are not those of the card."""
    notes: tuple[str, ...]
    bytes: int
    """Size of `data/`."""
    pin: str
    """DVC's hash of `data/`."""

    def lines(self) -> list[str]:
        """Return the report for a person, a fact a line."""
        lines = []
        for landed in (self.crops, self.scenes):
            if landed is not None:
                lines.append(f"{landed.kind}: {landed.pictures} pictures from {landed.source}")
                for split, counts in landed.counts.items():
                    lines.append(f"  {split}: {', '.join(f'{count} {name}' for name, count in counts.items())}")
                lines.append(f"  licence: {landed.licence}")
        lines += [f"differs from its card: {difference}" for difference in self.differences]
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"{DATA}/ holds {format_bytes(self.bytes)}, pinned in {DATA}.dvc as {self.pin}")
        return lines


def pull(
    source: str,
    *,
    root: Path,
    scenes: str | None = None,
    card: str | None = None,
    force: bool = False,
    progress: Progress = show_progress,
    free: FreeSpace = free_bytes,
) -> PullReport:
    """Replace `data/` by the crops of `source` and pin them; on any failure the old data and pin stay.

    A source is `sample`, the name of a card with a Kaggle handle (`affectnet`), a folder, a zip, `https://….zip`,
    `s3://bucket/key.zip` or `s3://bucket/folder/`. Relative paths are the caller's, not `root`'s.

    `root` is the project, a DVC repository. `scenes` is a source of photographs with face boxes; without it, those
    that `source` itself brings are taken, if any. `card` names the dataset card to compare with; without it, the one
    that fits by name or counts. `force` goes on where data that are not pinned are in place; they are moved into
    `.downloads`.

    Raises:
        SourceError: a source that cannot be fetched, or data in place that are not pinned.
        ArchiveError, LayoutError, StorageError: see there.
    """
    cards = _load_cards(root)
    if card is not None and card not in cards:
        raise LayoutError(f"{CARDS}: no dataset card {card!r}; expected one of {', '.join(cards)}")
    cache = pin.cache_folder(root)
    with exclusive(root) as recovered, staging(root) as folder, storage_errors(root):
        unsaved = pin.replaceable(root)
        if unsaved and not force:
            raise SourceError(
                f"{unsaved}; nothing was pulled. To keep them: dvc add {DATA}, and commit {DATA}.dvc; "
                f"to go on: repeat with --force, which moves them into {DOWNLOADS}/"
            )
        session = Session(root, folder, cache, cards, progress, free)
        notes = ["an earlier pull had been interrupted; its data were restored before this one"] if recovered else []
        return _land(session, source, scenes, cards[card] if card else None, unsaved=bool(unsaved), notes=notes)


def _land(
    session: Session,
    source: str,
    scenes: str | None,
    card: DatasetCard | None,
    *,
    unsaved: bool,
    notes: list[str],
) -> PullReport:
    root = session.root
    fetched = fetch(source, session, into="crops")
    found = layouts.find_sets(fetched.folder)
    crops_root = layouts.the_crops(found, where=fetched.where, folder=fetched.folder)
    fetched_scenes = fetch(scenes, session, into="scenes") if scenes is not None else fetched
    scenes_root = _scenes_root(fetched_scenes, found if scenes is None else None)
    imported = source == SAMPLE_NAME and scenes is None
    if imported:
        staged, data = None, root / SAMPLE
        size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
        require_free([(root, size), (session.cache, size)], free=session.free)
    else:
        staged = data = session.staging / DATA
        _stage_set(crops_root, staged / CROPS.name, session, owned=fetched.owned)
        if scenes_root is not None:
            _stage_set(scenes_root, staged / SCENES.name, session, owned=fetched_scenes.owned)
            if not (staged / SCENES.name / layouts.DATA_YAML).exists():
                (staged / SCENES.name / layouts.DATA_YAML).write_text(_SCENES_YAML, "utf-8")
        size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    crops = _describe_crops(data / CROPS.name, fetched, card, session)
    landed_scenes = None
    if scenes_root is not None:
        landed_scenes = _describe_scenes(data / SCENES.name, fetched_scenes, session)
    elif (root / SCENES).is_dir():
        notes.append("the scenes that were in place are gone with the old data; add scenes with --scenes SOURCE")
    keep_old = root / DOWNLOADS / time.strftime("replaced-%Y%m%d-%H%M%S") if unsaved else None
    if keep_old is not None:
        notes.append(f"the data that were not pinned lie in {DOWNLOADS}/{keep_old.name}")
    meta = _meta(crops, fetched.record, landed_scenes, fetched_scenes.record)
    description = f"{crops.pictures} crops and {landed_scenes.pictures if landed_scenes else 0} scenes"
    with replacing(root, staged, keep_old=keep_old):
        if imported:
            digest = pin.pin_import(root, SAMPLE, description=description, meta=meta)
        else:
            digest = pin.pin_added(root, description=description, meta=meta)
    for leftover in (*fetched.leftovers, *fetched_scenes.leftovers):
        shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    used = session.cards.get(crops.card) if crops.card else None
    differences = layouts.differences(crops.counts, used) if used else ()
    return PullReport(crops, landed_scenes, differences, tuple(notes), size, digest)


def _scenes_root(fetched: Fetched, found: FoundSets | None) -> Path | None:
    """Return the scenes of a source of their own, or those that came with the crops, if any."""
    if found is None:
        return layouts.the_scenes(layouts.find_sets(fetched.folder), where=fetched.where, folder=fetched.folder)
    return layouts.the_scenes(found, where=fetched.where, folder=fetched.folder) if found.scenes else None


def _stage_set(origin: Path, target: Path, session: Session, *, owned: bool) -> None:
    """Bring the files of a set into staging: by renames what is ours, by copies what is not."""
    files = list(layouts.set_files(origin))
    size = sum((origin / file).stat().st_size for file in files)
    require_free([(session.cache, size), (target, 0 if owned else size)], free=session.free)
    move: Callable[[Path, Path], Any] = os.rename if owned else shutil.copyfile
    with session.progress(f"Landing {target.name}", total=len(files), unit=" files") as bar:
        for file in files:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            move(origin / file, target / file)
            bar.update(1)


def _describe_crops(folder: Path, fetched: Fetched, card: DatasetCard | None, session: Session) -> LandedSet:
    counts: Counts = {s: layouts.count_pictures(folder / s, class_names=emotions.NAMES) for s in SPLITS}
    card = card or fetched.card or _fitting_card(fetched, "crops", session, counts)
    return LandedSet(
        "crops",
        fetched.origin,
        card.licence if card else _UNKNOWN_LICENCE,
        card.name if card else None,
        layouts.picture_total(folder),
        counts,
    )


def _describe_scenes(folder: Path, fetched: Fetched, session: Session) -> LandedSet:
    card = session.cards.get(f"{fetched.card.name}-scenes") if fetched.card else None
    card = card or _fitting_card(fetched, "scenes", session, {})
    return LandedSet(
        "scenes",
        fetched.origin,
        card.licence if card else _UNKNOWN_LICENCE,
        card.name if card else None,
        layouts.picture_total(folder),
        {},
    )


def _fitting_card(fetched: Fetched, kind: str, session: Session, counts: Counts) -> DatasetCard | None:
    """Return the card that a set is known by: its counts are exactly those, or its name begins with the card's."""
    name = Path(fetched.origin).name
    for card in session.cards.values():
        same_counts = card.counts is not None and not layouts.differences(counts, card)
        if card.kind == kind and (name.startswith(card.name) or same_counts):
            return card
    return None


def _meta(
    crops: LandedSet, record: Mapping[str, str], scenes: LandedSet | None, scenes_record: Mapping[str, str]
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "crops": {
            "source": dict(record),
            "card": crops.card,
            "licence": crops.licence,
            "pictures": {split: dict(counts) for split, counts in crops.counts.items()},
        }
    }
    if scenes is not None:
        meta["scenes"] = {
            "source": dict(scenes_record),
            "card": scenes.card,
            "licence": scenes.licence,
            "pictures": scenes.pictures,
        }
    return meta


def _load_cards(root: Path) -> dict[str, DatasetCard]:
    cards = [load_card(path) for path in sorted((root / CARDS).glob("*.yaml"))]
    return {card.name: card for card in cards}
