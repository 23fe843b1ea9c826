"""A run of `score`: the plan, the missing shards, an engine, and progress lines."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from emotion_yolo.errors import SourceError
from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.inference.backends import available_cores
from emotion_yolo.progress import Bar, duration, say, show_progress
from emotion_yolo.scoring.listing import Listing, Selection
from emotion_yolo.scoring.local import score_here
from emotion_yolo.scoring.on_ray import score_on_ray
from emotion_yolo.scoring.plan import Options, Planned, identity, read_planned, write_plan
from emotion_yolo.scoring.shards import Job, shard_number
from emotion_yolo.scoring.stores import Folder, absolute

Engine = Literal["local", "ray"]

_LINE_EVERY_S = 30.0


@dataclass
class Result:
    """What a run has done, or a dry run would do."""

    pictures: int
    shards: int
    done_before: int
    """Shards that an earlier run had committed."""
    scored: int = 0
    """Pictures that this run has answered."""
    faces: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Pictures of this run that could not be read, by code."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Skipped files of the listing, by reason."""
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """Return it as lines for people."""
        lines = [f"skipped {count:,}: {reason}" for reason, count in sorted(self.skipped.items())]
        if self.done_before:
            lines.append(f"{self.done_before:,} of {self.shards:,} shards were there already")
        if self.scored:
            rate = f"{self.scored / self.seconds:.1f}/s"
            lines.append(f"{self.scored:,} pictures scored in {duration(self.seconds)} ({rate}), {self.faces:,} faces")
        lines += [f"{count:,} could not be read: {code}" for code, count in sorted(self.errors.items())]
        return [*lines, f"{self.pictures:,} pictures in {self.shards:,} shard{'s' * (self.shards != 1)}"]


def score(
    selection: Selection,
    *,
    out: str,
    model: Path,
    options: Options,
    engine: Engine = "local",
    workers: int = 0,
    dry_run: bool = False,
    progress: Callable[[str, int, int], Bar] | None = None,
) -> Result:
    """Score all selected pictures into `out`, a folder or an address; resumes an interrupted run.

    `workers` is their number, each with one core; 0: as many as this machine, or the Ray cluster, has. A
    dry run lists the pictures, and loads and writes nothing.

    Raises:
        SourceError: no pictures, or a source or store that cannot be read.
        StorageError: `out` holds another run, or cannot be written.
        ModelError: the model cannot be loaded.
        DependencyError: an extra is missing.
    """
    expected = identity(selection, options, read_spec(model))
    folder = Folder(absolute(out))
    listing = Listing(selection)
    planned = _continued(folder, expected)
    if planned is None:
        names = _counted(listing)
        planned = _count(names, options.shard) if dry_run else write_plan(folder, names, expected, shard=options.shard)
    if not planned.pictures:
        raise SourceError(f"{selection.source}: no pictures{_reasons(listing.skipped)}; name a source that has some")
    finished = {number for name in folder.names() if (number := shard_number(name)) is not None}
    result = Result(planned.pictures, planned.shards, len(finished), skipped=listing.skipped)
    if dry_run:
        return result
    left = (shard for shard in range(planned.shards) if shard not in finished)
    job = Job(str(model.absolute()), folder.address, options)
    before = _pictures_in(finished, planned, options.shard)
    start = time.monotonic()
    with (progress or _progress)("score", planned.pictures, before) as bar:
        shards = (
            score_on_ray(job, left, workers=workers)
            if engine == "ray"
            else score_here(job, left, workers=workers or available_cores())
        )
        for done in shards:
            result.scored += done.pictures
            result.faces += done.faces
            result.errors.update(done.errors)
            bar.update(done.pictures)
    result.seconds = time.monotonic() - start
    folder.sweep()
    return result


def _continued(folder: Folder, expected: dict[str, object]) -> Planned | None:
    found = read_planned(folder, expected)
    if found is None:
        return None
    planned, changed = found
    if changed:
        say("score", f"versions have changed since this run began ({', '.join(changed)}); shards may differ slightly")
    return planned


def _count(names: Iterable[str], shard: int) -> Planned:
    pictures = sum(1 for _ in names)
    return Planned(pictures, -(-pictures // shard))


def _counted(listing: Listing) -> Iterator[str]:
    """Yield the names, with progress lines."""
    last, count = time.monotonic(), 0
    for count, name in enumerate(listing, 1):
        yield name
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            say("score", f"{count:,} pictures listed")


def _pictures_in(shards: Iterable[int], planned: Planned, size: int) -> int:
    return sum(min(size, planned.pictures - shard * size) for shard in shards)


def _reasons(skipped: Counter[str]) -> str:
    return f" ({', '.join(f'{count:,} skipped: {reason}' for reason, count in sorted(skipped.items()))})" * bool(
        skipped
    )


def _progress(title: str, total: int, initial: int) -> Bar:
    if sys.stderr.isatty():
        return show_progress(title, total=total, unit="pictures", initial=initial)
    return PaceLines(title, total, initial)


class PaceLines:
    """Progress in a log: every half minute a line with count, rate and time left."""

    def __init__(self, title: str, total: int, initial: int) -> None:
        self._title, self._total, self._initial, self._done = title, total, initial, initial
        self._start = self._last = time.monotonic()

    def update(self, n: float | None = 1, /) -> None:
        """Count `n` further pictures as done."""
        self._done += int(n or 0)
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_S or self._done >= self._total:
            self._last = now
            rate = (self._done - self._initial) / max(now - self._start, 1e-9)
            left = duration((self._total - self._done) / rate) if rate else "unknown"
            say(self._title, f"{self._done:,} of {self._total:,} pictures, {rate:.1f}/s, {left} left")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None
