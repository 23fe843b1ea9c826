"""Which faces are laid on sheets and how often: as they come, or balanced by class and by source within each class.

A class that mostly comes from one source teaches a network to recognise the source. `Sampling` says how far the shares
of classes, and of the sources within a class, follow the numbers of faces: a power of 1 keeps them, 0 makes them alike.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from emotion_yolo.data.prepared import CLASSES
from emotion_yolo.data.sheets import SheetPlan
from emotion_yolo.errors import ParamsError
from emotion_yolo.params import Sampling
from emotion_yolo.preparation.crops import Crop

Table = dict[str, dict[str, int]]
"""Number of faces by source and class name."""


def check_sampling(sampling: Sampling, sources: Sequence[str]) -> None:
    """Refuse weights of what is not there.

    Raises:
        ParamsError: a class or a source that the data do not have.
    """
    for key, names, known in (
        ("class_weights", sampling.class_weights, CLASSES),
        ("source_weights", sampling.source_weights, sources),
        ("smoothing", sampling.smoothing, sources),
    ):
        if unknown := sorted(set(names) - set(known)):
            raise ParamsError(
                f"params.yaml: prepare.sampling.{key}: {unknown[0]} is not there; expected one of {', '.join(known)}"
            )


def draw_views(crops: Sequence[Crop], sampling: Sampling, *, seed: int) -> list[int]:
    """Return places of crops in random order, some several times: `sampling.faces` in all, or fewer.

    No crop comes more than `sampling.most_views` times, and within a cell of class and source all crops come equally
    often, to within one. What a cell cannot fill goes to the others in proportion.
    """
    cells: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for place, crop in enumerate(crops):
        cells[crop.cls, crop.source].append(place)
    views: list[int] = []
    rng = np.random.default_rng([seed, 3])
    for cell, count in sorted(_filled(_shares(cells, sampling), cells, sampling).items()):
        order: list[int] = []
        while len(order) < count:
            order += [cells[cell][i] for i in rng.permutation(len(cells[cell]))]
        views += order[:count]
    return [views[i] for i in rng.permutation(len(views))]


def _shares(cells: Mapping[tuple[int, str], Sequence[int]], sampling: Sampling) -> dict[tuple[int, str], float]:
    """Return the share of each cell of class and source; they sum to 1."""
    faces = Counter({cls: 0 for cls, _ in cells})
    for (cls, _), places in cells.items():
        faces[cls] += len(places)
    of_class = {
        cls: sampling.class_weights.get(CLASSES[cls], 1.0) * count**sampling.class_power for cls, count in faces.items()
    }
    of_source = {
        (cls, source): sampling.source_weights.get(source, 1.0) * len(places) ** sampling.source_power
        for (cls, source), places in cells.items()
    }
    all_classes = sum(of_class.values())
    within = {cls: sum(weight for (other, _), weight in of_source.items() if other == cls) for cls in faces}
    return {
        (cls, source): of_class[cls] / all_classes * weight / within[cls] if weight else 0.0
        for (cls, source), weight in of_source.items()
    }


def _filled(
    shares: Mapping[tuple[int, str], float], cells: Mapping[tuple[int, str], Sequence[int]], sampling: Sampling
) -> dict[tuple[int, str], int]:
    """Return the views of each cell; those that reach their limit leave the rest to the others."""
    limits = {cell: sampling.most_views * len(places) for cell, places in cells.items()}
    views: dict[tuple[int, str], int] = {}
    left = {cell: share for cell, share in shares.items() if share > 0}
    while left:
        scale = (sampling.faces - sum(views.values())) / sum(left.values())
        full = [cell for cell, share in left.items() if share * scale >= limits[cell]]
        if not full:
            return views | {cell: round(share * scale) for cell, share in left.items()}
        for cell in full:
            views[cell] = limits[cell]
            del left[cell]
    return views


def plan_views(views: Sequence[int], *, grids: Sequence[int], empty: float, seed: int) -> list[SheetPlan]:
    """Lay views on sheets in order; a tile of a sheet of several stays empty (None) with a chance of `empty`."""
    rng = np.random.default_rng([seed, 4])
    plans: list[SheetPlan] = []
    start = 0
    while start < len(views):
        grid = int(rng.choice(grids))
        members: list[int | None] = []
        for _ in range(grid * grid):
            if start >= len(views) or (grid > 1 and rng.random() < empty):
                members.append(None)
            else:
                members.append(views[start])
                start += 1
        plans.append(SheetPlan(grid, tuple(members)))
    return plans


def table_of(faces: Sequence[tuple[str, int]]) -> Table:
    """Count faces, given as (source, class id), by source and class name."""
    counts = Counter(faces)
    sources = sorted({source for source, _ in counts})
    return {
        source: {CLASSES[cls]: counts[source, cls] for cls in range(len(CLASSES)) if counts[source, cls]}
        for source in sources
    }
