"""Optuna's study of a sweep: what was tried and came out, in an SQLite file, so that it survives any kill."""

import logging
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from emotion_yolo.errors import RecipeError
from emotion_yolo.recipes.recipe import Overrides, merged
from emotion_yolo.tuning.sweep import Choices, Sweep, Values, whole_params

EXPERIMENT = "experiment"
"""Attribute of a trial: the name of DVC's experiment."""
REASON = "reason"
"""Attribute of a trial that failed."""

_MADE_OF = "made_of"
_RETRY_OF = "retry_of"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_INTERRUPTED = "interrupted; tried again"


class Study:
    """The trials of a sweep; made anew, or what an earlier call has left."""

    def __init__(self, path: Path, sweep: Sweep, *, base: Overrides, revision: str) -> None:
        """Open `path`; `base` are the values of params.yaml at `revision`.

        Raises:
            RecipeError: the file holds trials of another commit, or of another version of the sweep.
        """
        logging.getLogger("alembic").setLevel(logging.WARNING)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep = sweep
        self._whole = whole_params(merged(base, sweep.params))
        url = f"sqlite:///{path.absolute()}"
        self._study = optuna.create_study(
            storage=url, study_name="sweep", direction=sweep.direction, load_if_exists=True
        )
        made_of = {"revision": revision, "sweep": sweep.identity}
        was = self._study.user_attrs.get(_MADE_OF)
        if was is None:
            self._study.set_user_attr(_MADE_OF, made_of)
        elif was != made_of:
            difference = "another version of the sweep" if was["revision"] == revision else (
                f"commit {was['revision'][:12]}, and {revision[:12]} is checked out"
            )  # fmt: skip
            raise RecipeError(
                f"{path.parent}: holds trials of {difference}, which are not comparable; bring that back to go on with "
                "them, or add --restart to begin anew"
            )
        # A sampler that starts again from the same seed would draw the first trials again.
        self._study.sampler = optuna.samplers.TPESampler(seed=sweep.seed + len(self.trials))
        if sweep.pruning is None:
            self._study.pruner = optuna.pruners.NopPruner()
        else:
            self._study.pruner = optuna.pruners.MedianPruner(
                n_startup_trials=sweep.pruning.startup_trials, n_warmup_steps=sweep.pruning.warmup_epochs
            )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, in the order in which they began."""
        return self._study.get_trials(deepcopy=False)

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that came to an end of their own: complete, pruned or failed."""
        return [t for t in self.trials if t.state in _FINISHED and t.user_attrs.get(REASON) != _INTERRUPTED]

    @property
    def best(self) -> FrozenTrial | None:
        """The best complete trial."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        pick = min if self._sweep.direction == "minimize" else max
        return pick(complete, key=lambda trial: trial.value or 0.0) if complete else None

    def recover(self) -> list[str]:
        """Mark trials failed that a killed call has left running, and line them up again; returns their experiments.

        A retry has the same values and the name of the same experiment: what that has finished is not done again.
        """
        lined_up = {t.user_attrs.get(_RETRY_OF) for t in self.trials if t.state == TrialState.WAITING}
        names = []
        for trial in self.trials:
            if trial.state != TrialState.RUNNING:
                continue
            name = trial.user_attrs.get(EXPERIMENT)
            if name and trial.number not in lined_up:  # killed before it had a name, it had begun nothing
                attributes = {EXPERIMENT: name, _RETRY_OF: trial.number}
                values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}  # a retry may have begun none
                self._study.enqueue_trial(values, user_attrs=attributes)
                names.append(name)
            # In this order: killed between the two, the next call sees that the retry is lined up.
            Trial(self._study, trial._trial_id).set_user_attr(REASON, _INTERRUPTED)
            self._study.tell(trial.number, state=TrialState.FAIL)
        return names

    def ask(self, *, prefix: str) -> tuple[Trial, Values]:
        """Begin a trial, whose experiment is called `prefix` and its number; returns it and its values."""
        trial = self._study.ask()
        for key, dimension in self._sweep.space.items():
            if isinstance(dimension, Choices):
                trial.suggest_categorical(key, dimension.choices)
            elif key in self._whole:
                step = int(dimension.step or 1)
                trial.suggest_int(key, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
            else:
                trial.suggest_float(key, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
        if EXPERIMENT not in trial.user_attrs:
            trial.set_user_attr(EXPERIMENT, f"{prefix}{trial.number:03d}")
        return trial, trial.params

    def twin_of(self, trial: Trial) -> FrozenTrial | None:
        """Return an earlier trial of the same values that is complete or was pruned."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        return next((t for t in self.trials if t.state in states and t.params == trial.params), None)

    def report(self, trial: Trial, value: float, epoch: int) -> None:
        """Note the figure of an epoch, once."""
        if epoch not in self.trials[trial.number].intermediate_values:
            trial.report(value, step=epoch)

    def take_over(self, trial: Trial, twin: FrozenTrial) -> None:
        """End a trial as an earlier one of the same values ended."""
        for step, value in twin.intermediate_values.items():
            trial.report(value, step)
        self._study.tell(trial, twin.value if twin.state == TrialState.COMPLETE else None, state=twin.state)

    def complete(self, trial: Trial, value: float) -> None:
        """End a trial with its figure."""
        self._study.tell(trial, value)

    def prune(self, trial: Trial) -> None:
        """End a trial that was stopped early."""
        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """End a trial that gave no figure."""
        trial.set_user_attr(REASON, reason)
        self._study.tell(trial, state=TrialState.FAIL)

    def importance(self) -> dict[str, float]:
        """Return how much each param of the space decides which trials are good, 0-1 in all (PED-ANOVA).

        Empty with fewer than four complete trials, of which nothing can be said, or where all came out alike.
        """
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)
