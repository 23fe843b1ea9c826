"""What each ingredient of the recipe is worth: short trainings, one without each, measured on the valid split.

    python -m benchmarks.ablation configs/ablations/ingredients.yaml

The commit that is checked out is cloned into a workspace, and of the train pictures of each set one in `every` is
pulled into it. There every variant is an experiment of DVC, `dvc exp run -n <name> -S … export`: up to the export and
no further, so that no choice can rest on the test split. Its export is then measured on the valid pictures that the
first variant
has prepared, the same for all. Called again, it goes on: a variant with a row in rows.jsonl is done, an interrupted
training continues after its last finished epoch.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from emotion_yolo.errors import DataError, EmotionYoloError, ParamsError

WORKSPACES = Path(".ablation")
ROWS = "rows.jsonl"

COLUMNS = (
    "map50",
    "recall_served",
    "emotion_top1",
    "worst_cell",
    "face_ap50_32px",
    "face_ap50_128px",
    "frame_boxes",
    "false_faces",
)

Row = dict[str, Any]
"""A variant's name, overrides, revision, minutes, and metrics with their intervals on valid."""


class Plan(BaseModel):
    """A file of `configs/ablations/`; overrides are written as for `dvc exp run -S`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: Annotated[int, Field(ge=1)]
    base: tuple[str, ...]
    variants: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")], tuple[str, ...]], Field(min_length=1)
    ]

    def overrides(self, name: str, given: Sequence[str] = ()) -> list[str]:
        """Return all overrides of a variant: its own before those of the command line, and these before the base's."""
        by_key = {item.partition("=")[0]: item for item in (*self.base, *given, *self.variants[name])}
        return list(by_key.values())


def load_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ParamsError(f"{path}: not the plan of an ablation: {error}") from error


def read_rows(path: Path) -> dict[str, Row]:
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["name"]: row for row in rows}


def pending(plan: Plan, rows: Mapping[str, Row], given: Sequence[str] = ()) -> list[str]:
    """Return the variants still to be run, in order; refuses rows that were made with other overrides."""
    for name in plan.variants.keys() & rows.keys():
        if (was := rows[name]["overrides"]) != (now := plan.overrides(name, given)):
            differing = sorted(set(was) ^ set(now))
            raise ParamsError(
                f"{name}: was run with other overrides ({', '.join(differing)}); "
                f"take its line out of {ROWS}, or name another --workspace"
            )
    return [name for name in plan.variants if name not in rows]


def thin(data: Path, out: Path, *, every: int) -> None:
    """Copy the sets of `data`, but of the train pictures of each, by name, only one in `every` with its label."""
    sets = sorted(path.parent for path in data.glob("*/data.yaml"))
    if not sets:
        raise DataError(f"{data}/: holds no set; `emotion-yolo pull` one, or `dvc repro`, first")
    left_out = {
        folder: {stem for i, stem in enumerate(sorted(path.stem for path in folder.iterdir())) if i % every}
        for folder in (one / "train" / "images" for one in sets)
        if folder.is_dir()
    }

    def ignore(folder: str, names: list[str]) -> set[str]:
        without = left_out.get(Path(folder).parent / "images", set())
        return {name for name in names if name.endswith(".cache") or Path(name).stem in without}

    for one in sets:
        shutil.copytree(one, out / one.name, ignore=ignore)


class Project:
    """A clone to experiment in, with a part of the data and nothing measured on test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        identity = {f"GIT_{who}_{what}": "ablation" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self._environment = os.environ | identity | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder.absolute() / "src"),  # the clone's package, not the one that is installed
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "DVC_NO_ANALYTICS": "1",
        }  # fmt: skip

    def run(self, *command: str, log: Path | None = None) -> str:
        """Run a command in the clone; returns its stdout, or writes all it says to `log`, if given."""
        call = partial(subprocess.run, command, cwd=self.folder, env=self._environment, check=True, text=True)
        if log is None:
            return str(call(stdout=subprocess.PIPE).stdout)
        with log.open("a") as file:
            call(stdout=file, stderr=subprocess.STDOUT)
        return ""

    def python(self, *arguments: str, log: Path | None = None) -> str:
        return self.run(sys.executable, *arguments, log=log)

    def create(self, source: Path, *, every: int) -> None:
        """Clone the commit of `source`, pull a part of its data, and commit that; all of it or nothing."""
        if self.folder.is_dir():
            return
        part = Project(self.folder.with_name(f"{self.folder.name}.part"))
        shutil.rmtree(part.folder, ignore_errors=True)
        part.folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "-q", source, part.folder], check=True)
        few = part.folder.absolute() / ".downloads" / "few"
        thin(source / "data", few, every=every)
        log = part.folder.with_name("pull.log")
        for number, one in enumerate(sorted(few.iterdir())):
            command = ("pull", str(one), "--name", one.name, *(("--add",) if number else ()))
            part.python("-c", "from emotion_yolo.cli import main; main()", *command, log=log)
        shutil.rmtree(few)
        # Measured on test, and by another model: `dvc exp show` would list it beside every variant.
        part.run("git", "rm", "-q", "--ignore-unmatch", "reports/metrics.json")
        part.run("git", "add", "-A")
        part.run("git", "commit", "-qm", "The data of the ablation")
        part.folder.rename(self.folder)

    def experiment(self, name: str, overrides: Iterable[str], *, log: Path) -> None:
        """Run a variant from the commit's own params, whatever the one before has left."""
        self.run("git", "reset", "-q", "--hard")
        if name in self.python("-m", "dvc", "exp", "list", "--name-only").split():  # trained, but not measured
            self.python("-m", "dvc", "exp", "remove", "-q", name)
        settings = [part for item in overrides for part in ("-S", item)]
        self.python("-m", "dvc", "exp", "run", "-n", name, *settings, "export", log=log)


def measure(export: Path, valid: Path) -> dict[str, dict[str, Any]]:
    """Measure an export on the valid pictures in `valid`, with the `evaluate` section of the params here."""
    from emotion_yolo.evaluation.measuring import measure as measure_model
    from emotion_yolo.params import load_params

    params = load_params().evaluate.model_copy(update={"robustness": 0, "scene_sizes": []})
    measured = measure_model(params, artefact=export, prepared=valid, split="valid").overall
    return {
        "figures": dict(measured.metrics),
        "intervals": {name: [round(low, 5), round(high, 5)] for name, (low, high) in measured.intervals.items()},
    }


def keep_valid(prepared: Path, out: Path) -> None:
    """Keep the valid pictures of a prepared set, once."""
    from emotion_yolo.data.prepared import copy_split

    if out.is_dir():
        return
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    copy_split(prepared, "valid", part)
    part.rename(out)


def run_variant(project: Project, workspace: Path, name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Train and export a variant, and measure it in a process of its own."""
    log, valid, out = workspace / f"{name}.log", workspace.absolute() / "valid", workspace.absolute() / "measured.json"
    project.experiment(name, overrides, log=log)
    keep_valid(project.folder / "datasets/prepared", valid)
    code = "import sys; from benchmarks.ablation import write_measured; write_measured(*sys.argv[1:])"
    project.python("-c", code, str(valid), str(out), log=log)
    return {**json.loads(out.read_text("utf-8")), "revision": project.run("git", "rev-parse", "HEAD").strip()}


def write_measured(valid: str, out: str) -> None:
    from emotion_yolo.paths import EXPORT

    Path(out).write_text(json.dumps(measure(EXPORT, Path(valid))), "utf-8")


def run_all(
    plan: Plan, rows: Path, run: Callable[[str, Sequence[str]], dict[str, Any]], *, given: Sequence[str] = ()
) -> list[str]:
    """Run what is still to be run, a row and a line each; returns the variants that failed."""
    names, failed = pending(plan, read_rows(rows), given), []
    for name in names:
        overrides, begin = plan.overrides(name, given), time.monotonic()
        try:
            measured = run(name, overrides)
        except subprocess.CalledProcessError as error:
            say(f"{name}: failed with exit code {error.returncode}; see {rows.with_name(f'{name}.log')}")
            if name == next(iter(plan.variants)):  # it prepares the pictures that all are measured on
                return names
            failed.append(name)
            continue
        minutes = round((time.monotonic() - begin) / 60, 2)
        with rows.open("a") as file:
            file.write(json.dumps({"name": name, "overrides": overrides, "minutes": minutes, **measured}) + "\n")
        shown = ", ".join(f"{column} {measured['figures'].get(column, float('nan')):.3f}" for column in COLUMNS)
        say(f"{name}: {minutes} min; {shown}")
    return failed


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def table(plan: Plan, rows: Mapping[str, Row]) -> str:
    """Return the Markdown table: the first variant's figures, and how far the others' lie from them."""
    present = [rows[name] for name in plan.variants if name in rows]
    if not present:
        return ""
    first = present[0]["figures"]
    lines = [["variant", "changes", *COLUMNS, "min"], ["---"] * (len(COLUMNS) + 3)]
    for row in present:
        own = ", ".join(f"`{item}`" for item in plan.variants[row["name"]]) or "–"
        cells = [_cell(row, column, None if row is present[0] else first.get(column)) for column in COLUMNS]
        lines.append([row["name"], own, *cells, f"{row['minutes']:.1f}"])
    counts = ", ".join(f"{first[name]:,.0f} {text}" for name, text in _COUNTS.items() if name in first)
    conditions = f"Valid split, {counts}; ± half of the 95 % interval. In brackets: against {present[0]['name']}."
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines]) + f"\n\n{conditions}"


_COUNTS = {
    "n_crops": "crops",
    "n_scenes": "photographs",
    "n_faces_32px": "faces ≥ 32 px",
    "n_faces_128px": "≥ 128 px",
    "n_negatives": "drawn pictures of each kind without one",
}


def _cell(row: Row, column: str, first: float | None) -> str:
    if (value := row["figures"].get(column)) is None:
        return "–"
    text = f"{value:.3f}"
    if interval := row["intervals"].get(column):
        text += f" ±{(interval[1] - interval[0]) / 2:.3f}"
    return text if first is None else f"{text} ({value - first:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="YAML of configs/ablations/")
    parser.add_argument("-S", dest="given", action="append", default=[], help="override of all variants, key=value")
    parser.add_argument("--workspace", type=Path, help=f"folder to work in; {WORKSPACES}/<plan> if not given")
    given = parser.parse_args()
    try:
        plan = load_plan(given.plan)
        workspace = given.workspace or WORKSPACES / given.plan.stem
        rows = workspace / ROWS
        if pending(plan, read_rows(rows), given.given):
            project = Project(workspace / "project")
            project.create(Path().absolute(), every=plan.every)
            failed = run_all(plan, rows, partial(run_variant, project, workspace), given=given.given)
        else:
            failed = []
    except EmotionYoloError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as error:
        raise SystemExit("interrupted; the same command goes on") from error
    print(table(plan, read_rows(rows)))
    raise SystemExit(f"not measured: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
