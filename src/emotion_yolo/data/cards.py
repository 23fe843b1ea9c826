"""Dataset cards (`configs/datasets/*.yaml`): origin, licence and expected contents of a set."""

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from emotion_yolo.data.taxonomy import target_from_text
from emotion_yolo.errors import LayoutError

Split = Literal["train", "valid", "test"]
SourceSplit = Split | Literal["all"]
"""A split of a source; `all` if it has none."""
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class Deal(BaseModel):
    """How missing splits of a set are dealt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["pull", "prepare"] = "pull"
    """`pull` deals once, by groups of near-duplicates; `prepare` deals a set without any splits by its own params."""
    valid: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the pictures that become valid, where the set has no valid split."""
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the pictures that become test, where the set has no test split."""
    seed: int = 0


class DatasetCard(BaseModel):
    """The description of a known data set; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    origin: str
    licence: str
    citation: str
    kaggle: str | None = None
    """Kaggle handle with its pinned version, `owner/name/versions/N`."""
    archive_bytes: Annotated[int, Field(ge=0)] | None = None
    """Size of the archive, to check free disk before it is fetched."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    """Class names as spelt in the set, in any order."""
    map: dict[str, str] = {}
    """Class name of the set → an emotion, `face` or `ignore`, if its name is not enough."""
    boxes: Literal["tight", "frame"] | None = None
    """Whether boxes are around faces or the whole picture; None: inferred from the labels."""
    tag: str | None = None
    """Source its pictures are reported under; None: the set's name."""
    sources: dict[str, str] = {}
    """Beginning of a file's name → source its picture is reported under."""
    groups: str | None = None
    """Pattern of a file's name whose first group (such as a person) is dealt to one split."""
    deal: Deal = Deal()
    counts: dict[SourceSplit, dict[str, int]] | None = None
    """Expected pictures per split and class before any split is dealt, `all` for a set without splits; a difference is
    reported, not refused.
    """

    @field_validator("map")
    @classmethod
    def _known_targets(cls, value: dict[str, str]) -> dict[str, str]:
        for target in value.values():
            target_from_text(target)
        return value

    @field_validator("groups")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        if value is not None and re.compile(value).groups != 1:
            raise ValueError(f"{value!r} has no group or several; expected one, such as '^(.+)_[0-9]+'")
        return value


def load_card(path: Path) -> DatasetCard:
    """Read a dataset card.

    Raises:
        LayoutError: no such card, or one that does not fit.
    """
    try:
        return DatasetCard.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise LayoutError(f"{path}: no dataset card there ({error.strerror}); see configs/datasets/") from error
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise LayoutError(f"{path}: not a dataset card: {error}") from error
