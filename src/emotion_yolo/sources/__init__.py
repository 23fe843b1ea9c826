"""`emotion-yolo pull`, `data` and `check`: data sets from any source, in `data/`, pinned in `data.dvc`.

Read in this order: `pulling` (the whole way), `fetching` (which kind of source), `downloads`, `buckets`, `kaggle` (how
each is fetched), `archives` (unpacked safely), `layouts` (what a set looks like), `describing` (what a source holds),
`writing` (into the one layout of `data/`), `classes` (what its classes mean), `dealing` (splits that it lacks),
`landing` (swapped in atomically), `pin` (DVC's pin), `storage` (free space and write errors).
"""

from emotion_yolo.sources.describing import Choices, LandedSet
from emotion_yolo.sources.pulling import PullReport, pull, remove

__all__ = ["Choices", "LandedSet", "PullReport", "pull", "remove"]
