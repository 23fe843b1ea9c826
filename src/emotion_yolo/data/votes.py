"""Annotators' votes on the pictures of a set, and the rule by which they become labels."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_yolo.errors import LayoutError
from emotion_yolo.structures.emotions import NAMES, Emotion

VOTES = "votes.csv"
VOTE_COLUMNS = (*NAMES, "unknown", "not_a_face")


@dataclass(frozen=True, eq=False)
class Votes:
    """The annotators' votes on one picture: `counts` [10] in the order of `VOTE_COLUMNS`.

    The rule for votes, which holds everywhere: a picture is left out where more than half of its votes are for
    `unknown` or `not_a_face`; otherwise the votes for the eight emotions, divided by their sum, are its soft label.
    """

    counts: NDArray[np.float64]

    @property
    def usable(self) -> bool:
        """Whether at least half of the votes name an emotion, and there is one."""
        named = self.counts[: len(NAMES)].sum()
        return bool(named > 0 and 2 * named >= self.counts.sum())

    @property
    def soft(self) -> NDArray[np.float32]:
        """Return the probabilities [8] of the emotions; of usable votes only."""
        named = self.counts[: len(NAMES)]
        probabilities: NDArray[np.float32] = (named / named.sum()).astype(np.float32)
        return probabilities

    def majority(self, given: Emotion | None = None) -> Emotion:
        """Return the emotion of most votes; among equals the set's own label `given`, else the first by class id."""
        named = self.counts[: len(NAMES)]
        if given is not None and named[given] == named.max():
            return given
        return Emotion(int(named.argmax()))


def read_votes(folder: Path) -> dict[str, Votes]:
    """Read the votes of a set by picture name without suffix; none where the set has no `votes.csv`.

    Raises:
        LayoutError: a file that `emotion-yolo pull` did not write.
    """
    path = folder / VOTES
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header != ["image", *VOTE_COLUMNS]:
            raise LayoutError(f"{path}: header is {','.join(header)}, expected image,{','.join(VOTE_COLUMNS)}")
        return {row[0]: Votes(np.array(row[1:], np.float64)) for row in rows}
