"""Near-duplicates: pictures of the same photograph, and the rule that no group of them spans two splits.

Exact duplicates have the same bytes. Near-duplicates (scaled, recoloured, captioned, mirrored, shifted by a pixel or
two) pass two tests. Their perceptual hashes differ in few bits; and, because tightly framed portraits of two people
reach that too, the band-passed thumbnails correlate: light and tone lie below the band, JPEG noise above, eyes and
mouth within.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.data.cards import SPLITS, Split
from emotion_yolo.preparation.checks import THUMB_SIDE, Record

MIN_CORRELATION = 0.80
"""Least correlation of two near-duplicates.

Of AffectNet's pairs within 12 bits, some 1 % show two people (5 of 48 inspected where both tests are barely passed). Of
37,535 pairs of a picture and another's mirror image within 12 bits, nearly all of them chance, 11 pass.
"""

_BAND = (0.7, 3.0)  # px of the thumbnail; standard deviations of the two Gaussians whose difference is the band
_BLOCK = 4_000_000  # hashes compared at a time: bounds memory to some 50 MB for any number of pictures
_PART = 1024  # thumbnails worked on at a time, 4 MB


class Hashed(Protocol):
    """The fields that near-duplicates are recognised by: see `Record`."""

    @property
    def phash(self) -> int: ...  # noqa: D102

    @property
    def phash_mirrored(self) -> int: ...  # noqa: D102

    @property
    def thumb(self) -> bytes: ...  # noqa: D102


@dataclass(frozen=True)
class NearDuplicateReport:
    """Which pictures stay, which go and why, and how many near-duplicates there were.

    `kept` is in the order given, `dropped` maps `Record.name` to a reason. `counts` is flat: `exact_*` counts groups of
    byte-identical files, `near_*` groups of different files, `*_with_near_duplicate_in_*` and `dropped_*` pictures.
    """

    kept: tuple[Record, ...]
    dropped: dict[str, str]
    counts: dict[str, int]
    distance: int

    def as_dict(self) -> dict[str, object]:
        """Return the report without its records, for JSON."""
        return {
            "distance": self.distance,
            "min_correlation": MIN_CORRELATION,
            "counts": self.counts,
            "dropped": self.dropped,
        }


@dataclass(frozen=True)
class _File:
    """All records of the same bytes."""

    records: tuple[Record, ...]

    @property
    def splits(self) -> set[Split]:
        return {record.split for record in self.records}

    @property
    def label_sets(self) -> set[tuple[int, ...]]:
        """Return the faces' classes; copies that agree have one such set."""
        return {tuple(sorted(record.labels.cls.tolist())) for record in self.records}

    def first_in(self, split: Split) -> str:
        return next(record.name for record in self.records if record.split == split)


@dataclass(frozen=True)
class _Pair:
    """Two different files that are near-duplicates, by their places `a` < `b`; `distance` in bits."""

    a: int
    b: int
    distance: int
    mirrored: bool

    def __str__(self) -> str:
        return f"{'mirrored, ' if self.mirrored else ''}distance {self.distance}"


def resolve_near_duplicates(records: Sequence[Record], *, distance: int) -> NearDuplicateReport:
    """Leave each group of near-duplicates in one split, and one copy of each file.

    A group is all pictures that a chain of near-duplicates joins. Of each group only the pictures of its most
    protected split stay: test before valid before train. Of byte-identical files in one split the first stays; if
    their labels contradict each other, none stays in train, the first in valid and test. Near-duplicates within a
    split stay.
    `distance` is the largest number of differing bits, of 64, between near-duplicates' perceptual hashes.
    """
    by_digest: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_digest[record.sha256].append(record)
    files = [_File(tuple(same)) for same in by_digest.values()]
    pairs = list(_near_pairs([file.records[0] for file in files], distance))
    groups = _connected(len(files), pairs)
    reasons = _resolve_leaks(files, groups, pairs) | _resolve_copies(files, groups)
    dropped = {record.name: reasons[record.name] for record in records if record.name in reasons}
    kept = tuple(record for record in records if record.name not in reasons)
    counts = _count(files, groups, pairs)
    for split in SPLITS:
        counts[f"dropped_{split}"] = sum(record.split == split and record.name in reasons for record in records)
    return NearDuplicateReport(kept, dropped, counts, distance)


def near_duplicate_groups(pictures: Sequence[Hashed], *, distance: int) -> list[list[int]]:
    """Return the places of pictures that chains of near-duplicates join, single ones included."""
    return _connected(len(pictures), list(_near_pairs(pictures, distance)))


def _near_pairs(records: Sequence[Hashed], distance: int) -> Iterator[_Pair]:
    """Yield the pairs that pass both tests, as they are or one of them mirrored."""
    hashes = np.array([record.phash for record in records], np.uint64)
    mirrored_hashes = np.array([record.phash_mirrored for record in records], np.uint64)
    texture = _texture(records)
    rows = max(1, _BLOCK // max(1, len(records)))
    for start in range(0, len(records), rows):
        for mirrored, left in ((False, hashes), (True, mirrored_hashes)):
            differing = np.bitwise_count(left[start : start + rows, None] ^ hashes[None, start:])  # [rows, N - start]
            first, second = np.nonzero(np.triu(differing <= distance, k=1))
            near = np.stack([first + start, second + start, differing[first, second]], axis=1)
            for part in np.split(near, range(_PART, len(near), _PART)):
                a, b = texture[part[:, 0]], texture[part[:, 1]]
                correlation = np.einsum("nij,nij->n", a[:, :, ::-1] if mirrored else a, b)
                for i, j, bits in part[correlation >= MIN_CORRELATION].tolist():
                    yield _Pair(i, j, bits, mirrored)


def _texture(records: Sequence[Hashed]) -> NDArray[np.float32]:
    """Return the [N, 32, 32] thumbnails, band-passed, each with mean 0 and norm 1 (a flat picture: all 0)."""
    fine, coarse = (_gaussian(sigma) for sigma in _BAND)
    texture = np.empty((len(records), THUMB_SIDE, THUMB_SIDE), np.float32)
    for start in range(0, len(records), _PART):
        part = b"".join(record.thumb for record in records[start : start + _PART])
        pixels = np.frombuffer(part, np.uint8).reshape(-1, THUMB_SIDE, THUMB_SIDE).astype(np.float32)
        band = fine @ pixels @ fine.T - coarse @ pixels @ coarse.T
        band -= band.mean(axis=(1, 2), keepdims=True)
        norm = np.linalg.norm(band, axis=(1, 2), keepdims=True)
        texture[start : start + _PART] = np.divide(band, norm, out=np.zeros_like(band), where=norm > 1)
    return texture


def _gaussian(sigma: float) -> NDArray[np.float32]:
    """Return the [32, 32] matrix that blurs a column; at the edges the weights are renormalised."""
    place = np.arange(THUMB_SIDE)
    weights = np.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * sigma**2))
    normalised: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised


def _connected(n: int, pairs: Sequence[_Pair]) -> list[list[int]]:
    """Return the groups of `n` files that chains of pairs join, single ones included (union-find)."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for pair in pairs:
        a, b = sorted((root(pair.a), root(pair.b)))
        parent[b] = a
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for i in range(n):
        groups[root(i)].append(i)
    return list(groups.values())


def _protected(files: Sequence[_File], group: Sequence[int]) -> Split:
    """Return the split that keeps a group: the last of train, valid, test that holds one of it."""
    return max((split for i in group for split in files[i].splits), key=SPLITS.index)


def _resolve_leaks(files: Sequence[_File], groups: Sequence[Sequence[int]], pairs: Sequence[_Pair]) -> dict[str, str]:
    """Return the pictures to drop because their group reaches a more protected split, with the reason."""
    partners: defaultdict[int, list[tuple[_Pair, int]]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair.distance):
        partners[pair.a].append((pair, pair.b))
        partners[pair.b].append((pair, pair.a))
    reasons: dict[str, str] = {}
    for group in groups:
        split = _protected(files, group)
        anchor = next(files[i].first_in(split) for i in group if split in files[i].splits)
        for i in group:
            if split in files[i].splits:
                reason = f"byte-identical to {files[i].first_in(split)}"
            else:
                direct = [(pair, files[other]) for pair, other in partners[i] if split in files[other].splits]
                if direct:
                    reason = f"near-duplicate of {direct[0][1].first_in(split)} ({direct[0][0]})"
                else:
                    pair, other = partners[i][0]
                    near = f"near-duplicate of {files[other].records[0].name} ({pair})"
                    reason = f"{near}, in a chain of near-duplicates with {anchor}"
            reasons |= {record.name: reason for record in files[i].records if record.split != split}
    return reasons


def _resolve_copies(files: Sequence[_File], groups: Sequence[Sequence[int]]) -> dict[str, str]:
    """Return the byte-identical pictures to drop within the split that keeps them, with the reason."""
    reasons: dict[str, str] = {}
    for group in groups:
        split = _protected(files, group)
        for i in group:
            same = _File(tuple(record for record in files[i].records if record.split == split))
            contradict = len(same.label_sets) > 1
            for record in same.records if contradict and split == "train" else same.records[1:]:
                other = next(copy.name for copy in same.records if copy is not record)
                reasons[record.name] = f"byte-identical to {other}" + (", with another label" if contradict else "")
    return reasons


def _count(files: Sequence[_File], groups: Sequence[Sequence[int]], pairs: Sequence[_Pair]) -> dict[str, int]:
    exact = [file for file in files if len(file.records) > 1]
    near = [_File(tuple(record for i in group for record in files[i].records)) for group in groups if len(group) > 1]
    counts: dict[str, int] = {}
    for kind, sets in (("exact", exact), ("near", near)):
        counts[f"{kind}_groups"] = len(sets)
        counts[f"{kind}_groups_across_splits"] = sum(len(same.splits) > 1 for same in sets)
        counts[f"{kind}_groups_contradicting"] = sum(len(same.label_sets) > 1 for same in sets)
    counts["near_pairs"] = len(pairs)
    counts["near_pairs_mirrored"] = sum(pair.mirrored for pair in pairs)
    counts["largest_group"] = max((len(same.records) for same in (*exact, *near)), default=0)
    reach = [file.splits for file in files]  # the splits in which a file or a direct near-duplicate of it lies
    for pair in pairs:
        reach[pair.a] = reach[pair.a] | files[pair.b].splits
        reach[pair.b] = reach[pair.b] | files[pair.a].splits
    leaks: tuple[tuple[Split, Split], ...] = (("test", "train"), ("test", "valid"), ("valid", "train"))
    for split, other in leaks:
        counts[f"{split}_with_near_duplicate_in_{other}"] = sum(
            record.split == split and other in reached
            for file, reached in zip(files, reach, strict=True)
            for record in file.records
        )
    return counts
