"""Find the sets below a folder, whatever their layouts."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from emotion_yolo.data.votes import VOTES, read_votes
from emotion_yolo.errors import LayoutError
from emotion_yolo.sources.layouts import class_folders, coco, fer2013, voc, yolo
from emotion_yolo.sources.layouts.found import FoundSet, Item, Remarks, walk

EXPECTED = (
    "YOLO (data.yaml, or {train,val,test}/{images,labels}), COCO JSON, Pascal VOC, folders of classes, or fer2013.csv"
)
_SHOWN = 8


def find_sets(folder: Path, *, known: Collection[str] = (), trusted: bool = True) -> list[FoundSet]:
    """Return every set below a folder, however deep; folders within a set belong to it.

    `known` are class names beyond those of the taxonomy. Folders that are not `trusted`, those of an archive, may not
    name pictures outside of themselves.

    Raises:
        LayoutError: none, or one that cannot be read.
    """
    sets: list[FoundSet] = []
    for place, folders, files in walk(folder):
        found = list(_sets_at(place, files, known=frozenset(known), trusted=trusted))
        sets += found
        if found:
            folders.clear()
    if not sets:
        raise LayoutError(f"no data set found; got {_listing(folder)}; expected one in a layout of {EXPECTED}")
    return sets


def find_table_set(path: Path) -> FoundSet:
    """Return the set of a CSV file.

    Raises:
        LayoutError: a table of another kind.
    """
    found = fer2013.find_table(path)
    if found is None:
        raise LayoutError(f"{path}:1: not FER2013's table; expected the header emotion,pixels,Usage")
    return found


def _sets_at(place: Path, files: list[str], *, known: frozenset[str], trusted: bool) -> Iterator[FoundSet]:
    tables = [
        place / name for name in files if name.lower().endswith(".csv") and name not in (fer2013.VOTES_FILE, VOTES)
    ]
    found = (
        yolo.find(place, trusted=trusted)
        or coco.find(place)
        or voc.find(place)
        or fer2013.find_ferplus(place)
        or class_folders.find(place, known=known)
    )
    if found is not None:
        yield with_own_votes(found, place / VOTES) if (place / VOTES).is_file() else found
        return
    yield from (table for path in tables if (table := fer2013.find_table(path)) is not None)


def with_own_votes(found: FoundSet, path: Path) -> FoundSet:
    """Return the set with the votes of a votes.csv, as pulled sets have it."""
    votes = {stem: tuple(map(int, known.counts)) for stem, known in read_votes(path.parent).items()}

    def read(remarks: Remarks) -> Iterator[Item]:
        for item in found.read(remarks):
            yield replace(item, votes=item.votes or votes.get(item.name.stem))

    return replace(found, read=read)


def find_yaml_set(path: Path) -> FoundSet:
    """Return the set in YOLO format that a data.yaml describes.

    Raises:
        LayoutError: nothing that it names is there.
    """
    found = yolo.find(path.parent, trusted=True, table=path)
    if found is None:
        raise LayoutError(
            f"{path}: none of the folders and lists it names is there; correct its path, train, val and test"
        )
    return found


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "") if names else "an empty folder"
