"""The engine of several machines: actors of a Ray cluster, a core each, that take a shard at a time.

Actors, and not Ray Data: a shard is read, answered and committed by one worker, so no rows pass between machines, and
Ray Data would choose the blocks by itself, whose bytes are then not those of the shards of the local engine. A shard
whose worker or node is lost goes to another worker, while a new worker starts wherever there is a free core.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from emotion_yolo.errors import EmotionYoloError, SourceError
from emotion_yolo.inference.artefact import SPEC_NAME, read_spec
from emotion_yolo.progress import say
from emotion_yolo.scoring.shards import Done, Job, Scorer

_LOSSES = 3  # workers that one shard may cost, or that may die one after the other as they start
_WAIT_S = 60.0


class _Worker:
    """An actor: it writes a copy of the model, which need not be on its machine before."""

    def __init__(self, job: Job, files: dict[str, bytes]) -> None:
        self._folder = TemporaryDirectory()
        for name, data in files.items():
            (Path(self._folder.name) / name).write_bytes(data)
        self._scorer = Scorer(replace(job, model=self._folder.name))

    def begin(self) -> None:
        """Answer once the model is loaded."""

    def score(self, shard: int) -> Done:
        """Answer and commit a shard."""
        return self._scorer(shard)

    def end(self) -> None:
        """Close the plan and delete the copy."""
        self._scorer.close()
        self._folder.cleanup()


def score_on_ray(job: Job, shards: Iterable[int], *, workers: int) -> Iterator[Done]:
    """Yield each shard as it is committed, in any order, by `workers` actors (0: one a core of the cluster).

    The cluster is the one at RAY_ADDRESS, else one of this machine that `ray start` has begun, else a new one of this
    process. `job.out` and the pictures have to be where all its machines reach them.

    Raises:
        SourceError: a store that does not answer, or a shard that has cost several workers.
        StorageError: a shard that cannot be written.
        ModelError: the model cannot be loaded.
    """
    ray = _load_ray()
    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise SourceError(f"no Ray cluster at RAY_ADDRESS ({error}); start one with `ray start`") from error
    try:
        count = workers or int(ray.cluster_resources().get("CPU", 1))
        yield from _Pool(job, count).run(iter(shards))
    finally:
        ray.shutdown()


class _Pool:
    """Actors at work: the shard of each, and replacements of lost ones."""

    def __init__(self, job: Job, workers: int) -> None:
        self._ray = ray = _load_ray()
        self._job, self._files = job, ray.put(_files(Path(job.model)))
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker)
        # By result to come: the actor, and its shard if it has one.
        self._running: dict[Any, tuple[Any, int | None]] = {}
        self._idle: list[Any] = []
        self._again: deque[int] = deque()
        self._lost: Counter[int | None] = Counter()  # workers by the shard that they had; None: as they started
        for _ in range(workers):
            self._start()

    def run(self, shards: Iterator[int]) -> Iterator[Done]:
        further: int | None = next(shards, None)
        while further is not None or self._again or self._at_work():
            while self._idle and (self._again or further is not None):
                if self._again:
                    shard = self._again.popleft()
                else:
                    assert further is not None
                    shard, further = further, next(shards, None)
                actor = self._idle.pop()
                self._running[actor.score.remote(shard)] = actor, shard
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_WAIT_S)
            for result in ended:
                done = self._end(result)
                if done is not None:
                    yield done
            if not ended and not self._at_work():
                say("score", "no worker has started for a minute; the cluster has no free core or cannot start one")

    def _at_work(self) -> bool:
        return any(shard is not None for _, shard in self._running.values())

    def _start(self) -> None:
        actor = self._actor.remote(self._job, self._files)
        self._running[actor.begin.remote()] = actor, None

    def _end(self, result: Any) -> Done | None:
        """Take a result, or note the loss of its worker and start another."""
        actor, shard = self._running.pop(result)
        try:
            done: Done | None = self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EmotionYoloError):
                raise cause from None
            raise
        except self._ray.exceptions.RayActorError as error:
            self._lost[shard] += 1
            if self._lost[shard] >= _LOSSES:
                what = "a worker as it started" if shard is None else f"the worker of shard {shard:,}"
                raise SourceError(f"{what} died {_LOSSES} times, most recently: {error}") from error
            if shard is not None:
                self._again.append(shard)
            self._start()
            return None
        self._lost.pop(None, None)
        self._idle.append(actor)
        return done


def _load_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    return ray


def _files(model: Path) -> dict[str, bytes]:
    """Return the files of a model by name."""
    spec = read_spec(model)
    second = (spec.classifier.onnx, spec.classifier.landmarks) if spec.classifier else ()
    names = [SPEC_NAME, *(file.path for file in (*spec.files.values(), *second) if file)]
    return {name: (model / name).read_bytes() for name in names}
