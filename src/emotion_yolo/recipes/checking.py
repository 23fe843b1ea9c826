"""The check of a recipe before anything starts: all findings at once."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from emotion_yolo.errors import ParamsError
from emotion_yolo.params import MODEL_PARAMS, Params, load_yaml, validation_lines
from emotion_yolo.paths import CLASSIFIER, DATA_PIN, INPUTS, NO_MODEL, PARAMS, PHASES, WEIGHTS_NAME
from emotion_yolo.recipes.recipe import Phase, Product, Recipe, phase_params, recipe_path

_FILES: dict[Product, str] = {"weights": WEIGHTS_NAME, "detector": ".", "classifier": CLASSIFIER.name}


def product_path(phase: str, product: Product) -> PurePosixPath:
    """Return the folder of what a phase hands on, relative to the project's root."""
    return PurePosixPath(PHASES) / phase / _FILES[product]


def check_recipe(name: str, recipe: Recipe, *, root: Path) -> None:
    """Check a recipe against params.yaml, the pulled data, and itself.

    Raises:
        ParamsError: one line for each finding.
    """
    where = recipe_path(name)
    findings = [
        *(f"{where}: {text}" for text in _phase_findings(recipe)),
        *(line for phase in recipe.phases for line in _params_findings(where, recipe, phase, root=root)),
        *(f"{where}: {text}" for text in _reference_findings(recipe, root=root)),
        *(f"{where}: {text}" for text in _data_findings(recipe, root=root)),
    ]
    if findings:
        raise ParamsError("\n".join(findings))


def _phase_findings(recipe: Recipe) -> Iterator[str]:
    names = [phase.name for phase in recipe.phases]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"phases: {name} is the name of {names.count(name)} phases; give each its own"
    if recipe.phases[-1].kind != "detector":
        yield f"phases: the last one, {names[-1]}, is of kind classifier; expected a detector, which is released"
    for phase in recipe.phases:
        if phase.kind == "classifier" and phase.hands_on != ("classifier",):
            yield f"phases.{phase.name}.hands_on: got {list(phase.hands_on)}; a classifier phase hands on [classifier]"
        if phase.kind == "detector" and "classifier" in phase.hands_on:
            yield f"phases.{phase.name}.hands_on: a detector phase makes no classifier; expected weights or detector"


def _params_findings(where: Path, recipe: Recipe, phase: Phase, *, root: Path) -> Iterator[str]:
    try:
        Params.model_validate(phase_params(recipe, phase, load_yaml(root / PARAMS)))
    except ValidationError as error:
        yield from validation_lines(error, where, prefix=f"phase {phase.name}: ")


def _reference_findings(recipe: Recipe, *, root: Path) -> Iterator[str]:
    base = load_yaml(root / PARAMS)
    inputs_used, handed_on, used = set[str](), dict[PurePosixPath, Phase](), set[PurePosixPath]()
    for phase in recipe.phases:
        values = phase_params(recipe, phase, base)
        named = [(param, _value(values, param)) for param in MODEL_PARAMS]
        if phase.kind == "classifier":
            named.append(("classifier.weights", _value(values, "classifier.weights")))
            if _value(values, "classifier.weights") == NO_MODEL.as_posix():
                yield f"phase {phase.name}: classifier.weights: names no model; name the face recognition weights"
        for param, value in named:
            path = PurePosixPath(value)
            if path.is_relative_to(INPUTS):
                inputs_used.add(name := (path.relative_to(INPUTS).parts or ("",))[0])
                if name not in recipe.inputs:
                    yield f"phase {phase.name}: {param}: {value}: no input {name!r}; {_known(recipe.inputs, 'inputs')}"
            elif path.is_relative_to(PHASES):
                below = {
                    one for one in handed_on if MODEL_PARAMS.get(param) == "classifiers" and one.is_relative_to(path)
                }
                used |= below or {path}
                if path not in handed_on and not below:
                    known = _known([str(one) for one in handed_on], "what earlier phases hand on")
                    yield f"phase {phase.name}: {param}: {value}: not handed on by an earlier phase; {known}"
            elif value and not (root / path).exists():
                yield f"phase {phase.name}: {param}: {value}: not in this repository; declare it under inputs"
        handed_on |= {product_path(phase.name, product): phase for product in phase.hands_on}
    for name in sorted(recipe.inputs.keys() - inputs_used):
        yield f"inputs.{name}: no phase uses it; take it out, or name {INPUTS / name} in the params of one"
    for path in sorted(handed_on.keys() - used):
        yield f"phases.{handed_on[path].name}.hands_on: no later phase uses {path}; take it out"


def _data_findings(recipe: Recipe, *, root: Path) -> Iterator[str]:
    pulled = pulled_cards(root / DATA_PIN)
    for card in recipe.data:
        if card not in pulled:
            have = ", ".join(sorted(pulled)) or "no set with a card"
            yield f"data: {card} is not pulled ({DATA_PIN} pins {have}); `emotion-yolo pull` it, and commit {DATA_PIN}"


def pulled_cards(pin: Path) -> set[str]:
    """Return the names of the dataset cards that `data.dvc` records."""
    if not pin.is_file():
        return set()
    meta: dict[str, Any] = (yaml.safe_load(pin.read_text("utf-8")) or {}).get("meta") or {}
    entries = [*meta.values(), *(meta.get("sets") or {}).values()]
    return {str(entry["card"]) for entry in entries if isinstance(entry, dict) and entry.get("card")}


def _value(values: dict[str, Any], param: str) -> str:
    found: Any = values
    for key in param.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def _known(names: Any, what: str) -> str:
    return f"expected one of {what}: {', '.join(sorted(names)) or 'none'}"
