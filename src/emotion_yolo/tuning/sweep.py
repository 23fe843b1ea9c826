"""The sweep file: which params are searched, in which range, and by which figure; checked before anything starts."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emotion_yolo.errors import ParamsError
from emotion_yolo.params import Params, load_yaml, validation_lines
from emotion_yolo.paths import PARAMS
from emotion_yolo.recipes.recipe import Overrides, merged

SWEEPS = Path("configs/sweeps")

Number = int | float
Value = bool | int | float | str
Values = Mapping[str, Value]
"""One value for each param of a space, by full name."""

METRICS = ("map50", "map50_95", "precision", "recall", "val_box_loss", "val_cls_loss", "val_dfl_loss")
"""Figures of reports/train/metrics.json that are measured on the valid split."""

_SEARCHABLE = ("train.", "prepare.sampling.", "prepare.framing.", "prepare.appearance.", "prepare.sheets.")
"""Params that change how a network is trained, and not what the valid split holds."""
_FIXED = {"train.valid_pictures"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(_Part):
    """Numbers from `low` to `high`, both included; whole ones for a param of whole numbers."""

    low: Number
    high: Number
    log: bool = False
    """Draw evenly on a logarithmic scale."""
    step: Number | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}, expected low below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        if self.step is not None:
            steps = (self.high - self.low) / self.step if self.step > 0 else 0.0
            if steps < 1 or abs(steps - round(steps)) > 1e-6:
                raise ValueError(f"step is {self.step:g}, expected one that leads from low to high, {self.high:g}")
        return self

    @property
    def probes(self) -> tuple[Number, ...]:
        """Values that show whether a param takes the range: both ends, and in a range of whole numbers the second."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            second = self.low + (self.step or 1)
            return (self.low, second, self.high)
        return (self.low, self.high)


class Choices(_Part):
    """Single values, tried without an order."""

    choices: Annotated[list[Value], Field(min_length=2)]

    @property
    def probes(self) -> tuple[Value, ...]:
        """All of them."""
        return tuple(self.choices)


class Pruning(_Part):
    """Ends a trial whose best epoch so far is worse than the median of earlier trials at the same epoch."""

    startup_trials: Annotated[int, Field(ge=1)] = 5
    """Trials that run to their end before one is pruned."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    """Epochs after which a trial is not judged yet."""


class Sweep(_Part):
    """A file of `configs/sweeps/`."""

    about: str
    metric: str
    """One of METRICS; losses are minimised, others maximised."""
    trials: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the sampler, Optuna's TPE."""
    pruning: Pruning | None = Pruning()
    params: Overrides = {}
    """Nested as params.yaml; overrides of all trials, such as fewer epochs."""
    space: Annotated[dict[str, Range | Choices], Field(min_length=1)]
    """By full name, such as `train.lr0`."""

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Which way the metric gets better, in Optuna's words."""
        return "minimize" if self.metric.endswith("_loss") else "maximize"

    @property
    def identity(self) -> str:
        """What makes the trials of two versions of the file comparable; JSON."""
        return json.dumps(self.model_dump(exclude={"about", "trials"}), sort_keys=True)


def sweep_path(name: str) -> Path:
    """Return the path of a sweep, relative to the project's root."""
    return SWEEPS / f"{name}.yaml"


def load_sweep(name: str, *, root: Path) -> Sweep:
    """Read a sweep by its name, and compare it with params.yaml.

    Raises:
        ParamsError: no such sweep, no YAML, an unknown key, an empty range, a param that is not there or does not take
            a value of the space, a metric that is not of the valid split; all findings at once.
    """
    where = sweep_path(name)
    if not (root / where).is_file():
        known = ", ".join(sorted(path.stem for path in (root / SWEEPS).glob("*.yaml"))) or "none"
        raise ParamsError(f"{where}: no such sweep; expected one of: {known}")
    try:
        sweep = Sweep.model_validate(load_yaml(root / where))
    except ValidationError as error:
        raise ParamsError("\n".join(validation_lines(error, where))) from error
    if findings := [*_findings(where, sweep, load_yaml(root / PARAMS))]:
        raise ParamsError("\n".join(findings))
    return sweep


def _findings(where: Path, sweep: Sweep, base: Overrides) -> Iterator[str]:
    if sweep.metric not in METRICS:
        yield (
            f"{where}: metric: got {sweep.metric!r}, expected one of reports/train/metrics.json, which are measured on "
            f"the valid split: {', '.join(METRICS)}. Nothing is chosen by figures of the test split"
        )
    fixed = merged(base, sweep.params)
    try:
        Params.model_validate(fixed)
    except ValidationError as error:  # every trial would repeat it
        yield from validation_lines(error, where, prefix="params: ")
        return
    for key, dimension in sweep.space.items():
        if not key.startswith(_SEARCHABLE) or key in _FIXED:
            yield (
                f"{where}: space.{key}: no param of the training, or one that changes what is measured; "
                f"expected one below {', '.join(name[:-1] for name in _SEARCHABLE)}"
            )
            continue
        lines = dict[str, None]()  # both ends of a range often have the same finding
        for value in dimension.probes:
            try:
                Params.model_validate(merged(fixed, nested({key: value})))
            except ValidationError as error:
                lines |= dict.fromkeys(validation_lines(error, where, prefix="space: "))
        yield from lines


def nested(values: Values) -> Overrides:
    """Return values by full name as they are nested in params.yaml."""
    result: Overrides = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        inner = result
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return result


def flat(overrides: Overrides, prefix: str = "") -> dict[str, Any]:
    """Return nested overrides by full name."""
    result: dict[str, Any] = {}
    for key, value in overrides.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def whole_params(base: Overrides) -> set[str]:
    """Return the full names of the params that are whole numbers, whatever params.yaml writes: `1` may be a float."""
    values = flat(Params.model_validate(base).model_dump())
    return {key for key, value in values.items() if type(value) is int}


def overrides_for_dvc(overrides: Overrides, base: Overrides) -> list[str]:
    """Return overrides as arguments of `dvc exp run`: `-S key=value` each, `+key` for one that params.yaml lacks."""
    present = flat(base)
    arguments = []
    for key, value in flat(overrides).items():
        arguments += ["-S", f"{'' if key in present else '+'}{key}={json.dumps(value, ensure_ascii=False)}"]
    return arguments
