"""Describes a source: finds its sets, writes them into staging, maps their classes, deals missing splits."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emotion_yolo.data.cards import SPLITS, DatasetCard, Deal, SourceSplit
from emotion_yolo.data.sets import Dealt, SetRecord
from emotion_yolo.data.taxonomy import target_of
from emotion_yolo.errors import EmotionYoloError, LayoutError
from emotion_yolo.progress import Progress
from emotion_yolo.sources.classes import map_classes
from emotion_yolo.sources.dealing import deal_missing
from emotion_yolo.sources.fetching import Fetched
from emotion_yolo.sources.layouts import FoundSet, find_sets, find_table_set, find_yaml_set
from emotion_yolo.sources.layouts.fer2013 import VOTES_FILE, with_votes
from emotion_yolo.sources.writing import UNLABELLED, Written, counts_by_class, write_set
from emotion_yolo.structures.emotions import FACE_NAME

NEAR_DISTANCE = 12
"""Bits in which near-duplicates' hashes may differ where splits are dealt, if the caller does not say."""

_UNKNOWN_LICENCE = "unknown to this project: see where the data come from before you use them"
_IGNORED = "ignored"
_SOURCE_SPLITS: tuple[SourceSplit, ...] = (*SPLITS, "all")
_LISTED = 5  # reasons for which pictures were left out, in a summary


@dataclass(frozen=True)
class Choices:
    """The user's options for reading a source."""

    name: str | None = None
    """Name of the set below `data/`; None: of its card, else of its source."""
    card: str | None = None
    """Dataset card to go by; None: the one that fits by name or counts."""
    mapping: Mapping[str, str | None] = field(default_factory=dict)
    """Class name → an emotion, `face`, or None to ignore it; before the card and the taxonomy."""
    near_distance: int = NEAR_DISTANCE
    """Largest number of differing bits, of 64, between hashes of near-duplicates, where splits are dealt."""


@dataclass(frozen=True)
class LandedSet:
    """One set that was landed."""

    record: SetRecord
    layout: str
    found: int
    """Pictures in the source: those landed and those left out."""
    left_out: tuple[tuple[str, str], ...]
    """Pictures that were not landed, and why."""
    differences: tuple[str, ...]
    """Where the counts are not those of the card."""
    notes: tuple[str, ...]

    @property
    def landed(self) -> int:
        """Return how many pictures were landed."""
        return self.found - len(self.left_out)

    def lines(self) -> list[str]:
        """Return a report on the set for a person, one fact per line."""
        head, *facts = self.record.lines()
        lines = [
            f"{head}; {self.layout}",
            f"  {self.found:,} pictures found, {self.landed:,} landed, {len(self.left_out):,} left out",
        ]
        reasons = Counter(reason for _, reason in self.left_out)
        for reason, count in reasons.most_common(_LISTED):
            example = next(where for where, why in self.left_out if why == reason)
            lines.append(f"  left out: {example}{f' and {count - 1:,} more' if count > 1 else ''}: {reason}")
        if len(reasons) > _LISTED:
            more = len(reasons) - _LISTED
            lines.append(f"  left out for {more:,} more reasons; emotion-yolo check lists every picture")
        lines += facts
        lines += [f"  differs from its card: {difference}" for difference in self.differences]
        return lines + [f"  note: {note}" for note in self.notes]


def stage_sets(
    fetched: Fetched,
    folder: Path,
    cards: Mapping[str, DatasetCard],
    choices: Choices,
    *,
    linked: bool,
    progress: Progress,
) -> list[tuple[Written, LandedSet]]:
    """Write every set of a fetched source into `folder`, a subfolder each, and describe it.

    Raises:
        LayoutError: no set, several where one is named, classes that cannot be mapped, or splits that cannot be dealt.
        DataError: see the layouts.
    """
    try:
        found = _find(fetched, cards, choices)
        if len(found) > 1 and choices.name is not None:
            raise LayoutError(f"{fetched.where}: got {len(found)} sets, expected one to be called {choices.name}")
        staged: list[tuple[Written, LandedSet]] = []
        for one in found:
            card = _card_by_name(fetched, one, cards, choices, alone=len(found) == 1)
            name = choices.name or (card.name if card else _slug(_own_name(fetched, one, alone=len(found) == 1)))
            if any(other.record.name == name for _, other in staged):
                raise LayoutError(
                    f"{fetched.where}: got two sets that would be called {name}; pull them one by one with --name"
                )
            owned = fetched.owned and not linked
            written = write_set(one, folder / name, owned=owned, linked=linked, progress=progress)
            staged.append((written, _describe(written, one, fetched, card, cards, choices, progress)))
    except EmotionYoloError as error:
        # Where an archive is unpacked for the moment means nothing to the reader.
        message = str(error).replace(str(fetched.path), fetched.where)
        if not message.startswith(fetched.where) and isinstance(error, LayoutError):
            message = f"{fetched.where}: {message}"
        raise type(error)(message) from error
    return staged


def _find(fetched: Fetched, cards: Mapping[str, DatasetCard], choices: Choices) -> list[FoundSet]:
    card = cards.get(choices.card) if choices.card else fetched.card
    known = {*choices.mapping, *(card.map if card else ())}
    if fetched.path.is_dir():
        found = find_sets(fetched.path, known=known, trusted=not fetched.owned)
    elif fetched.path.suffix.lower() == ".csv":
        found = [find_table_set(fetched.path)]
    else:
        found = [find_yaml_set(fetched.path)]
    return [_with_votes_beside(one, fetched) for one in found]


def _with_votes_beside(found: FoundSet, fetched: Fetched) -> FoundSet:
    """Join FER+'s votes if their file is in the set, in the source, or beside it."""
    folders = [found.root, fetched.path if fetched.path.is_dir() else fetched.path.parent, fetched.beside]
    path = next((folder / VOTES_FILE for folder in folders if folder and (folder / VOTES_FILE).is_file()), None)
    return with_votes(found, path) if path is not None and found.whole_pictures else found


def _own_name(fetched: Fetched, found: FoundSet, *, alone: bool) -> str:
    """Return the name of a set: that of its folder, or of its source if it is the only one."""
    if not alone:
        return found.root.name
    origin = next(value for key, value in fetched.record.items() if key not in ("kind", "sha256"))
    return Path(origin.rstrip("/")).name


def _slug(name: str) -> str:
    """Return a name that is fit for a folder: lower case, digits and hyphens, without the suffixes of archives."""
    stem = re.sub(r"(\.(tar|zip|csv|gz|tgz|bz2|xz|yaml|yml))+$", "", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "set"


def _card_by_name(
    fetched: Fetched, found: FoundSet, cards: Mapping[str, DatasetCard], choices: Choices, *, alone: bool
) -> DatasetCard | None:
    """Return the card given by the user, the source or the set's name; of several, the one with the longest name."""
    if choices.card is not None:
        return cards[choices.card]
    if fetched.card is not None and alone:
        return fetched.card
    name = _own_name(fetched, found, alone=alone).lower()
    fitting = [card for card in cards.values() if name.startswith(card.name)]
    return max(fitting, key=lambda card: len(card.name), default=None)


def _describe(
    written: Written,
    found: FoundSet,
    fetched: Fetched,
    card: DatasetCard | None,
    cards: Mapping[str, DatasetCard],
    choices: Choices,
    progress: Progress,
) -> LandedSet:
    """Map the classes of a written set, deal what it lacks, count it, and compare it with its card."""
    shown = Counter(number for picture in written.pictures for number in picture.class_ids)
    where = f"{fetched.where}: {written.folder.name}" if fetched.path.is_dir() else fetched.where
    classes, notes = map_classes(found.names, shown, card=card, mapping=choices.mapping, where=where)
    targets = {number: classes[name] or _IGNORED for number, name in found.names.items()}
    counts = counts_by_class(written.pictures, targets)
    card = card or _card_by_counts(counts, cards)
    dealt: Dealt | None = None
    has_splits = any(picture.split for picture in written.pictures)
    if card is None or card.deal.by == "pull" or has_splits:
        deal = card.deal if card else Deal()
        dealt = deal_missing(
            written, deal, groups=card.groups if card else None, distance=choices.near_distance, progress=progress
        )
    pictures = counts_by_class(written.pictures, targets)
    named = {target for target in (targets[number] for number in shown) if target != _IGNORED}
    record = SetRecord(
        name=written.folder.name,
        source=dict(fetched.record),
        card=card.name if card else None,
        licence=card.licence if card else _UNKNOWN_LICENCE,
        digest="",
        tag=(card.tag if card else None) or written.folder.name,
        tags=card.sources if card else {},
        boxes=(card.boxes if card else None) or written.boxes,
        emotions="votes" if written.has_votes else "unnamed" if named == {FACE_NAME} else "named",
        classes=classes,
        dealt=dealt,
        pictures=pictures,
    )
    if written.label_codes:
        listed = ", ".join(f"{count:,} {code}" for code, count in sorted(written.label_codes.items()))
        notes.append(f"label lines that prepare will report: {listed}")
    return LandedSet(
        record,
        found.layout,
        written.found,
        tuple(written.remarks.left_out),
        differences(counts, card) if card else (),
        (*notes, *written.remarks.notes),
    )


def _card_by_counts(counts: Mapping[str, Mapping[str, int]], cards: Mapping[str, DatasetCard]) -> DatasetCard | None:
    return next((card for card in cards.values() if card.counts and not differences(counts, card)), None)


def differences(counts: Mapping[str, Mapping[str, int]], card: DatasetCard) -> tuple[str, ...]:
    """Return how the counts of a set by split and class differ from its card; nothing if the card has none."""
    if card.counts is None:
        return ()
    found: list[str] = []
    for split in _SOURCE_SPLITS:
        expected: Counter[str] = Counter()
        for name, count in card.counts.get(split, {}).items():
            expected[card.map.get(name) or target_of(name) or name] += count
        got = counts.get(split, {})
        found += [
            f"{split}/{name}: {got.get(name, 0):,} pictures, the card says {expected[name]:,}"
            for name in dict.fromkeys((*expected, *got, UNLABELLED))
            if got.get(name, 0) != expected[name]
        ]
    return tuple(found)
