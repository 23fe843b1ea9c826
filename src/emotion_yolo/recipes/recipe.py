"""The recipe file: phases as overrides of params.yaml, what they start from and hand on, and the figures to expect."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emotion_yolo.errors import ParamsError
from emotion_yolo.params import load_yaml, validation_lines
from emotion_yolo.paths import RECIPES

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Product = Literal["weights", "detector", "classifier"]
Overrides = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Part):
    """A model that no phase makes; params name it as `models/inputs/<name>`."""

    about: str
    """What it is, and where to get it."""
    git: Annotated[str | None, Field(pattern=r"^[0-9a-f]{7,40}:\S+$")] = None
    """`<commit>:<path>` of a file or folder in this repository's history; without it, `--input` names a path."""
    sha256: Sha256 | dict[str, Sha256]
    """Of the file, or of each file that is used in the folder."""


class Phase(_Part):
    """One training: of a detector through the whole graph, or of an expression classifier on the prepared crops."""

    name: Name
    kind: Literal["detector", "classifier"] = "detector"
    params: Overrides = {}
    """Nested as params.yaml; they override the recipe's own `params`, which override the file of the commit."""
    hands_on: tuple[Product, ...] = ()
    """What later phases use: `models/phases/<phase>` is a detector, with `weights.pt` or `classifier.onnx` in it."""
    minutes: Annotated[float | None, Field(gt=0)] = None
    """What it took on the recipe's `machine`, for the estimate of the time left."""


class Expected(_Part):
    """Figures that a run of the recipe is expected to reach."""

    command: str
    """What measured them."""
    split: Literal["valid", "test"]
    file: Annotated[str, Field(pattern=r"^reports/\S+\.json$")]
    """Where the run writes its figures."""
    tolerance: Annotated[float, Field(ge=0)]
    """Largest absolute difference that another machine or seed explains."""
    figures: Annotated[dict[str, float], Field(min_length=1)]


class Recipe(_Part):
    """A file of `configs/recipes/`."""

    about: str
    machine: str = ""
    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the dataset cards of the sets that have to be pulled."""
    inputs: dict[Name, Input] = {}
    params: Overrides = {}
    """Overrides of all phases."""
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    expected: tuple[Expected, ...] = ()


def recipe_path(name: str) -> Path:
    """Return the path of a recipe, relative to the project's root."""
    return RECIPES / f"{name}.yaml"


def load_recipe(name: str, *, root: Path) -> Recipe:
    """Read a recipe by its name.

    Raises:
        ParamsError: no such recipe, no YAML, an unknown or missing key, a value of another type; all findings at once.
    """
    where = recipe_path(name)
    if not (root / where).is_file():
        known = ", ".join(sorted(path.stem for path in (root / RECIPES).glob("*.yaml"))) or "none"
        raise ParamsError(f"{where}: no such recipe; expected one of: {known}")
    try:
        return Recipe.model_validate(load_yaml(root / where))
    except ValidationError as error:
        raise ParamsError("\n".join(validation_lines(error, where))) from error


def phase_params(recipe: Recipe, phase: Phase, base: Overrides) -> Overrides:
    """Return the values of params.yaml for a phase, `base` being those of the commit."""
    return merged(merged(base, recipe.params), phase.params)


def merged(base: Overrides, overrides: Overrides) -> Overrides:
    """Return `base` with the leaves of `overrides` in place of its own."""
    result = dict(base)
    for key, value in overrides.items():
        present = result.get(key)
        result[key] = merged(present, value) if isinstance(present, dict) and isinstance(value, dict) else value
    return result


def dump_params(values: Overrides) -> str:
    """Return params as YAML, keys in the order given."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
