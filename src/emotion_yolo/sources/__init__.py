"""`emotion-yolo pull`: a data set from wherever it is, verified, landed in `data/`, pinned in `data.dvc`.

Read in this order: `pulling` (the whole way), `fetching` (which kind of source), `downloads`, `buckets`, `kaggle` (how
each is fetched), `archives` (unpacked safely), `layouts` (what a set looks like), `landing` (swapped in atomically),
`pin` (told to DVC), `storage` (disks that are full).
"""

from emotion_yolo.sources.pulling import PullReport, pull

__all__ = ["PullReport", "pull"]
