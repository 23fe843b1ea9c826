"""The options of a run, recorded in its folder, and its pictures, frozen to numbered shards.

`plan.parquet` holds the names, a row group a shard: a resumed run, on any machine, sees the same
pictures under the same numbers, also when the source has changed meanwhile. `run.json` is written after it, and shards
after both.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

from emotion_yolo.errors import StorageError
from emotion_yolo.inference.artefact import ModelSpec
from emotion_yolo.inference.identity import settings_of
from emotion_yolo.scoring.listing import Selection
from emotion_yolo.scoring.stores import Folder, absolute

RUN_NAME, PLAN_NAME = "run.json", "plan.parquet"
_VERSION = 1


@dataclass(frozen=True)
class Options:
    """How pictures are answered: input side in px, least confidence, least shorter side of a face in px.

    None is the model's own. `shard` is the number of pictures of a shard.
    """

    imgsz: int | None = None
    conf: float | None = None
    min_face: int = 0
    shard: int = 1000


@dataclass(frozen=True)
class Planned:
    """A run whose pictures are known."""

    pictures: int
    shards: int


def identity(selection: Selection, options: Options, spec: ModelSpec) -> dict[str, Any]:
    """Return everything that determines the shards, as JSON values."""
    return {
        "version": _VERSION,
        **asdict(selection),
        "source": absolute(selection.source),
        "shard": options.shard,
        **settings_of(spec, imgsz=options.imgsz, conf=options.conf, min_face=options.min_face),
    }


def made_with() -> dict[str, str]:
    """Return the versions on which the bytes of a shard may depend."""
    return {name: version(name) for name in ("emotion-yolo", "openvino", "pyarrow")}


def read_planned(folder: Folder, expected: dict[str, Any]) -> tuple[Planned, list[str]] | None:
    """Return the run in `folder` and the packages that are of another version now; None if none was begun there.

    Raises:
        StorageError: the run there is another one, or `run.json` is none of ours.
    """
    data = folder.read(RUN_NAME)
    if data is None:
        return None
    try:
        found = json.loads(data)
        planned = Planned(int(found.pop("pictures")), int(found.pop("shards")))
        then = dict(found.pop("made_with"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{folder.address}/{RUN_NAME}: not written by score ({error}); name another folder"
        ) from error
    wrong = [name for name in expected if found.get(name) != expected[name]]
    if wrong:
        what = "; ".join(f"{name}: {found.get(name)} there, {expected[name]} now" for name in wrong)
        raise StorageError(f"{folder.address}: holds another run ({what}); name another folder, or repeat that run")
    changed = [f"{name} {then.get(name)} → {now}" for name, now in made_with().items() if then.get(name) != now]
    return planned, changed


def write_plan(folder: Folder, names: Iterable[str], expected: dict[str, Any], *, shard: int) -> Planned:
    """Write the names as they come, a shard at a time, then `run.json`; an empty plan leaves nothing.

    Raises:
        SourceError: the listing failed.
        StorageError: the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field("name", pa.binary(), nullable=False)])  # bytes: file names need not be UTF-8
    names = iter(names)
    first = _take(names, shard)
    if not first:
        return Planned(0, 0)
    pictures = shards = 0
    with folder.writing(PLAN_NAME) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        batch = first
        while batch:
            writer.write_table(pa.table([pa.array(batch, pa.binary())], schema=schema), row_group_size=shard)
            pictures, shards = pictures + len(batch), shards + 1
            batch = _take(names, shard)
    record = {**expected, "pictures": pictures, "shards": shards, "made_with": made_with()}
    folder.write(RUN_NAME, json.dumps(record, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    return Planned(pictures, shards)


def _take(names: Iterator[str], count: int) -> list[bytes]:
    return [os.fsencode(name) for name in islice(names, count)]


class PlanFile:
    """The plan of a run, from which shards are read by number."""

    def __init__(self, folder: Folder) -> None:
        """Open it.

        Raises:
            StorageError: it cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._opened = folder.open(PLAN_NAME)
        try:
            self._file: Any = pq.ParquetFile(self._opened)
        except pa.ArrowException as error:
            self._opened.close()
            message = f"{folder.address}/{PLAN_NAME}: damaged ({error}); name another folder"
            raise StorageError(message) from error

    def names(self, shard: int) -> Sequence[str]:
        """Return the pictures of a shard."""
        column = self._file.read_row_group(shard).column("name")
        return [os.fsdecode(name) for name in column.to_pylist()]

    def close(self) -> None:
        """Close the file."""
        self._opened.close()
