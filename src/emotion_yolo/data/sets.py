"""The sets in `data/`: their records in `data.dvc`, written by `emotion-yolo pull`, and their class ids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emotion_yolo.errors import LayoutError, SourceError
from emotion_yolo.paths import DATA_PIN
from emotion_yolo.structures.emotions import FACE_ID, FACE_NAME, NAMES

DATA_YAML = "data.yaml"
UNDEALT = "all"
"""Folder of a set without splits, which `prepare` deals out."""

Boxes = Literal["tight", "frame"]
"""`tight`: around faces; `frame`: the whole picture, whose face is still to be localised."""

Emotions = Literal["named", "unnamed", "votes"]

_TARGETS: Mapping[str, int] = {name: number for number, name in enumerate(NAMES)} | {FACE_NAME: FACE_ID}
_PULL_AGAIN = "pull the set again: emotion-yolo pull SOURCE"


class Dealt(BaseModel):
    """How `pull` dealt missing splits: shares of all pictures that went to valid and test, and the seed of the draw."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    valid: Annotated[float, Field(ge=0, lt=1)]
    test: Annotated[float, Field(ge=0, lt=1)]
    seed: int


class SetRecord(BaseModel):
    """The record of one set in `data.dvc`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The set's folder below `data/`."""
    source: dict[str, str]
    """Where it was pulled from; no secrets, no folders of the machine."""
    card: str | None
    licence: str
    digest: str
    """SHA-256 of the set's file names and contents."""
    tag: str
    """Source of its pictures in reports, where `tags` has no other."""
    tags: dict[str, str] = {}
    """Beginning of a file's name → source tag."""
    boxes: Boxes
    emotions: Emotions
    classes: dict[str, str | None]
    """Class name in the source → an emotion, `face`, or None where its labels are ignored."""
    dealt: Dealt | None
    pictures: dict[str, dict[str, int]]
    """Pictures by split and class; `unlabelled` counts those without a usable label."""

    @property
    def origin(self) -> str:
        """Return the set's origin in a word or two."""
        return next(value for key, value in self.source.items() if key not in ("kind", "sha256"))

    def lines(self) -> list[str]:
        """Return the record for a person, one fact per line."""
        trust = {"tight": "boxes around faces", "frame": "boxes that are the whole picture, to be localised"}
        lines = [f"{self.name}: from {self.origin}, {trust[self.boxes]}, emotions {self.emotions}"]
        for split, counts in self.pictures.items():
            lines.append(f"  {split}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")
        if self.dealt:
            shares = {"valid": self.dealt.valid, "test": self.dealt.test}
            dealt = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share)
            lines.append(f"  dealt by groups of near-duplicates, seed {self.dealt.seed}: {dealt}")
        return [*lines, f"  licence: {self.licence}"]

    def source_tag(self, image: str) -> str:
        """Return the source under which a picture of this file name is reported."""
        return next((tag for prefix, tag in self.tags.items() if image.startswith(prefix)), self.tag)


def read_sets(pin: Path = DATA_PIN) -> dict[str, SetRecord]:
    """Read what `data.dvc` records of each set, in the order of their names.

    Raises:
        SourceError: there is no `data.dvc`.
        LayoutError: one that was not written by `emotion-yolo pull`, or by an earlier version of it.
    """
    try:
        content = yaml.safe_load(pin.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SourceError(f"{pin}: not there, no data were pulled; run: emotion-yolo pull sample") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LayoutError(f"{pin}: cannot be read ({error}); restore it from git, or {_PULL_AGAIN}") from error
    meta = content.get("meta") if isinstance(content, dict) else None
    sets = meta.get("sets") if isinstance(meta, dict) else None
    if not isinstance(sets, dict) or not sets:
        raise LayoutError(f"{pin}: got no meta.sets, expected a record of each set; {_PULL_AGAIN}")
    records = {}
    for name in sorted(sets):
        try:
            records[name] = SetRecord.model_validate({**sets[name], "name": name})
        except (ValidationError, TypeError) as error:
            raise LayoutError(f"{pin}: meta.sets.{name} cannot be read: {error}; {_PULL_AGAIN}") from error
    return records


def class_ids(record: SetRecord, folder: Path) -> dict[int, int]:
    """Return the class id 0-7, or FACE_ID, of each id in the label files of a set; ids of ignored classes are absent.

    `folder` is the set's folder, which holds its `data.yaml`.

    Raises:
        LayoutError: no readable class table, or one with a class that the record does not know.
    """
    ids: dict[int, int] = {}
    for number, name in read_class_names(folder / DATA_YAML).items():
        if name not in record.classes:
            known = ", ".join(record.classes)
            raise LayoutError(
                f"{folder / DATA_YAML}: class {name!r} is not in data.dvc, which has {known}; {_PULL_AGAIN}"
            )
        target = record.classes[name]
        if target is not None:
            ids[number] = _TARGETS[target]
    return ids


def read_class_names(path: Path) -> dict[int, str]:
    """Read the class names of a data.yaml by id; `names` is a list or a table, whose keys may be strings.

    Raises:
        LayoutError: no such file, no YAML, or no usable `names`.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise LayoutError(f"{path}: not there; expected the class table of a set in YOLO format") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LayoutError(f"{path}: cannot be read as YAML ({error}); correct or replace it") from error
    return class_names_in(content, where=path)


def class_names_in(content: Any, *, where: Path) -> dict[int, str]:
    """Return the class names by id of the content of a data.yaml.

    Raises:
        LayoutError: no usable `names`.
    """
    names = content.get("names") if isinstance(content, dict) else None
    table = dict(enumerate(names)) if isinstance(names, list) else names
    expected = "expected names: [Anger, …] or names: {0: Anger, …}; correct the file"
    if not isinstance(table, dict) or not table:
        raise LayoutError(f"{where}: got names {names!r}, {expected}")
    try:
        by_id = {int(key): str(name) for key, name in table.items()}
    except (TypeError, ValueError) as error:
        raise LayoutError(f"{where}: a key of names is not a number ({error}), {expected}") from error
    if sorted(by_id) != list(range(len(table))):
        raise LayoutError(f"{where}: got names {names!r}, whose ids are not 0-{len(table) - 1}, each once; {expected}")
    return dict(sorted(by_id.items()))
