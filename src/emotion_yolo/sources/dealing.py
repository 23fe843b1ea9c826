"""Deals the splits that a set lacks; near-duplicates and groups defined by its card stay in one split."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from emotion_yolo.data.cards import Deal, Split
from emotion_yolo.data.sets import UNDEALT, Dealt
from emotion_yolo.errors import ImageError, LayoutError
from emotion_yolo.pools import map_in_processes
from emotion_yolo.preparation.checks import Fingerprint, fingerprint
from emotion_yolo.preparation.near_duplicates import near_duplicate_groups
from emotion_yolo.progress import Progress
from emotion_yolo.sources.writing import IMAGES, Picture, Written


def deal_missing(
    written: Written, deal: Deal, *, groups: str | None, distance: int, progress: Progress
) -> Dealt | None:
    """Move pictures of train, or of a set without splits, to the splits that it lacks; None where it lacks none.

    `groups` is a card's pattern, `distance` the largest number of differing bits between near-duplicates.

    Raises:
        LayoutError: a set with a valid or test split, and none for training.
    """
    there = {picture.split for picture in written.pictures}
    source: Split | None = "train" if "train" in there else None
    if source is None and None not in there:
        found = ", ".join(sorted(split for split in there if split))
        raise LayoutError(f"{written.folder.name}: got the splits {found or 'none'}, expected train; add its pictures")
    shares: dict[Split, float] = {}
    if "valid" not in there:
        shares["valid"] = deal.valid
    if "test" not in there:
        shares["test"] = deal.test
    if not shares and source is not None and None not in there:
        return None
    places = [place for place, picture in enumerate(written.pictures) if picture.split in (source, None)]
    pictures = [written.pictures[place] for place in places]
    together = _groups(written, pictures, pattern=groups, distance=distance, progress=progress)
    splits = deal_groups(pictures, together, shares, seed=deal.seed)
    for place, picture, split in zip(places, pictures, splits, strict=True):
        if split != picture.split:
            written.pictures[place] = written.move(picture, split)
    if (written.folder / UNDEALT).is_dir():
        _remove_empty(written.folder / UNDEALT)
    return Dealt(valid=shares.get("valid", 0.0), test=shares.get("test", 0.0), seed=deal.seed)


def deal_groups(
    pictures: Sequence[Picture], groups: Sequence[Sequence[int]], shares: dict[Split, float], *, seed: int
) -> list[Split]:
    """Return a split for each picture: whole groups, so that each class comes near to its share in each split.

    Groups come in an order that the names of their pictures and the seed decide. Each goes to the first split, test
    before valid, whose share of the group's most frequent class it does not exceed; the rest is for training.
    """
    classes = [picture.class_ids[0] if picture.class_ids else -1 for picture in pictures]
    totals = Counter(classes)
    wanted: dict[Split, dict[int, int]] = {
        split: {cls: round(share * total) for cls, total in totals.items()}
        for split, share in sorted(shares.items())  # test before valid
    }
    dealt: defaultdict[Split, Counter[int]] = defaultdict(Counter)
    splits: list[Split] = ["train"] * len(pictures)

    def order(group: Sequence[int]) -> bytes:
        first = min(str(pictures[place].name) for place in group)
        return hashlib.sha256(f"{seed}/{first}".encode()).digest()

    for group in sorted(groups, key=order):
        held = Counter(classes[place] for place in group)
        main = min(held, key=lambda cls: (-held[cls], cls))
        for split, most in wanted.items():
            if dealt[split][main] + held[main] <= most[main]:
                dealt[split] += held
                for place in group:
                    splits[place] = split
                break
    return splits


def _groups(
    written: Written, pictures: Sequence[Picture], *, pattern: str | None, distance: int, progress: Progress
) -> list[list[int]]:
    """Return the places of pictures that must stay together, single ones included."""
    paths = [written.folder / (p.split or UNDEALT) / IMAGES / p.name for p in pictures]
    prints: list[Fingerprint] = []
    printed: list[int] = []
    with progress(f"Dealing {written.folder.name}", total=len(paths), unit=" pictures") as bar:
        for place, found in enumerate(map_in_processes(_fingerprint, paths, workers=0)):
            bar.update(1)
            if found is not None:  # the checks of `prepare` leave the others out
                prints.append(found)
                printed.append(place)
    near = [[printed[place] for place in group] for group in near_duplicate_groups(prints, distance=distance)]
    same: defaultdict[str, list[int]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        match = re.match(pattern, picture.name.name) if pattern else None
        if match:
            same[match.group(1)].append(place)
    return _merged(len(pictures), [*near, *same.values()])


def _fingerprint(path: Path) -> Fingerprint | None:
    try:
        return fingerprint(path.read_bytes())
    except (OSError, ImageError):
        return None


def _merged(count: int, groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """Join groups that share a place; places in none are groups of one."""
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for group in groups:
        for place in group[1:]:
            a, b = sorted((root(group[0]), root(place)))
            parent[b] = a
    merged: defaultdict[int, list[int]] = defaultdict(list)
    for place in range(count):
        merged[root(place)].append(place)
    return list(merged.values())


def _remove_empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()
