"""Dataset cards (`configs/datasets/*.yaml`): where a set comes from, under which licence, and what it must hold."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emotion_yolo.errors import LayoutError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


class DatasetCard(BaseModel):
    """What is known of a data set before it is seen; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    kind: Literal["crops", "scenes"]
    """`crops`: one face a picture, named; `scenes`: photographs with face boxes."""
    origin: str
    licence: str
    citation: str
    kaggle: str | None = None
    """Kaggle handle with its pinned version, `owner/name/versions/N`."""
    archive_bytes: Annotated[int, Field(ge=0)] | None = None
    """Size of the archive, to check free disk before it is fetched."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    """Class names by id, as the set's own data.yaml spells them."""
    counts: dict[Split, dict[str, int]] | None = None
    """Expected pictures per split and class; a difference is reported, not refused."""


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
