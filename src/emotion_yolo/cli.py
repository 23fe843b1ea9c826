"""The command line: `emotion-yolo --help`."""

import json
import time
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

from emotion_yolo import paths
from emotion_yolo.errors import DependencyError, RecipeError
from emotion_yolo.process import run_process

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

_EXAMPLES = 6  # drawn scenes in a release's example picture


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _needs(extra: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a command name the extra that it needs if a package of that extra is missing."""

    def decorate(command: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(command)
        def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return command(*args, **kwargs)
            except ModuleNotFoundError as error:
                missing = (error.name or "").partition(".")[0]
                if missing == "emotion_yolo":
                    raise
                advice = f"install it with pip install 'emotion-yolo[{extra}]'"
                raise DependencyError(f"this command needs the package {missing}; {advice}") from error

        return run

    return decorate


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"emotion-yolo {version_of('emotion-yolo')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """See the module's docstring: the help of all is given there."""


class Engine(StrEnum):
    """What the workers of `score` run on."""

    LOCAL = "local"
    RAY = "ray"


data = typer.Typer(no_args_is_help=True, help="List and remove the sets in data/.")
app.add_typer(data, name="data")

_MAP_HELP = "meaning of a class, as 'Joy=happy'; repeatable; face and ignore are allowed too"


@app.command()
@_needs("train")
def pull(
    source: Annotated[
        str, typer.Argument(help="sample, affectnet, a folder, an archive, a data.yaml, a CSV, https or s3 address")
    ],
    add: Annotated[bool, typer.Option("--add", help="keep the present sets")] = False,
    name: Annotated[str | None, typer.Option(help="name of the set below data/")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help=_MAP_HELP)] = None,
    card: Annotated[str | None, typer.Option(help="dataset card to go by, by name")] = None,
    force: Annotated[
        bool, typer.Option(help="replace data that are not pinned; they are moved to .downloads/")
    ] = False,
) -> None:
    """Fetch a data set, verify it, put it in data/ and pin it in data.dvc; then run `dvc repro`."""
    from emotion_yolo.params import load_params
    from emotion_yolo.sources import Choices
    from emotion_yolo.sources import pull as pull_source
    from emotion_yolo.sources.classes import parse_mapping

    choices = Choices(name, card, parse_mapping(map_ or []), load_params().prepare.near_duplicate_distance)
    report = pull_source(source, root=Path(), add=add, choices=choices, force=force)
    typer.echo("\n".join(report.lines()))


@data.command("list")
@_needs("train")
def list_sets() -> None:
    """Print the sets in data/: pictures, boxes, emotions, source and licence, as data.dvc records them."""
    from emotion_yolo.data.sets import read_sets

    for record in read_sets().values():
        typer.echo("\n".join(record.lines()))


@data.command("remove")
@_needs("train")
def remove_set(name: Annotated[str, typer.Argument(help="name of the set below data/")]) -> None:
    """Remove a set from data/ and pin the rest."""
    from emotion_yolo.sources import remove

    typer.echo("\n".join(remove(name, root=Path()).lines()))


@app.command()
@_needs("train")
def check(
    source: Annotated[Path, typer.Argument(help="a folder, a data.yaml, or FER2013's CSV")],
    map_: Annotated[list[str] | None, typer.Option("--map", help=_MAP_HELP)] = None,
    card: Annotated[str | None, typer.Option(help="dataset card to go by, by name")] = None,
    out: Annotated[Path, typer.Option(help="folder for a contact sheet of each set")] = paths.REPORTS / "check",
) -> None:
    """Run all checks on a set without pulling it; exits with 1 where anything was found."""
    from PIL import Image as PillowImage

    from emotion_yolo.params import load_params
    from emotion_yolo.sources import Choices
    from emotion_yolo.sources.checking import check_source
    from emotion_yolo.sources.classes import parse_mapping
    from emotion_yolo.sources.pulling import load_cards

    choices = Choices(None, card, parse_mapping(map_ or []), load_params().prepare.near_duplicate_distance)
    results = check_source(source, load_cards(Path()), choices)
    out.mkdir(parents=True, exist_ok=True)
    for result in results:
        sheet = out / f"{result.landed.record.name}.jpg"
        PillowImage.fromarray(result.sheet).save(sheet, quality=88)
        typer.echo("\n".join([*result.lines(), f"  contact sheet: {sheet}"]))
    if not all(result.is_clean for result in results):
        raise typer.Exit(1)


@app.command()
@_needs("train")
def sample(
    out: Annotated[Path, typer.Argument(help="folder to write")] = paths.SAMPLE,
    seed: Annotated[int, typer.Option(help="seed of the drawn faces")] = 0,
) -> None:
    """Draw the bundled sample: faces from facial action units, no real person."""
    from emotion_yolo.portraits.sample import generate_sample

    generate_sample(out, seed=seed)
    typer.echo(f"{out}: written")


@app.command()
@_needs("train")
def report() -> None:
    """Print the metrics of the last evaluation in this folder, and the paths of its report and pictures."""
    from emotion_yolo.evaluation.committed import other_machine
    from emotion_yolo.evaluation.summary import last_evaluation

    typer.echo(last_evaluation())
    if difference := other_machine():
        typer.echo(f"\n{difference}")


@app.command()
@_needs("train")
def experiments() -> None:
    """Print the experiments of all commits: a few metrics, the params that differ, the best first."""
    from shutil import get_terminal_size

    from emotion_yolo.evaluation.experiments import read_experiments, table

    typer.echo(table(read_experiments(), width=get_terminal_size().columns))


@app.command()
@_needs("video")
def predict(
    sources: Annotated[
        list[str], typer.Argument(help="pictures, folders, patterns, videos, camera:0, or - for a picture on stdin")
    ],
    model: Annotated[
        Path | None, typer.Option(help="folder of an exported model; default: models/release here, else the package's")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for annotated copies")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="file for JSON Lines, instead of stdout")] = None,
    csv: Annotated[Path | None, typer.Option(help="file for a CSV table, one row per face")] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="file for a Parquet table, one row per face; needs the extra table")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the file of an interrupted run")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the file, and copies of an earlier run")
    ] = False,
    conf: Annotated[float | None, typer.Option(min=0, max=1, help="least confidence of a face")] = None,
    min_face: Annotated[int, typer.Option(min=0, help="least shorter side of a face, px")] = 0,
    imgsz: Annotated[int | None, typer.Option(help="input side in px; the model's own if not given")] = None,
    recursive: Annotated[bool, typer.Option(help="search subfolders")] = True,
    track: Annotated[
        bool,
        typer.Option("--track", help="track faces through videos and average their emotions; needs the extra track"),
    ] = False,
    half_life: Annotated[
        float, typer.Option(min=0, help="half-life in seconds of the average of a track's emotions; 0: no average")
    ] = 0.5,
    every: Annotated[int, typer.Option(min=1, help="detect faces in every Nth frame, track them in between")] = 1,
    summary: Annotated[
        Path | None, typer.Option(help="JSON file for a summary of each track: share of time per emotion, changes")
    ] = None,
    timeline: Annotated[Path | None, typer.Option(help="PNG file for a timeline of the tracks")] = None,
) -> None:
    """Find faces and name their expressions; prints a JSON line for each picture, a summary to stderr.

    Exits with 10 if a picture or frame could not be read; all others are answered.
    """
    from contextlib import ExitStack
    from dataclasses import asdict

    from emotion_yolo.errors import ImageError, SourceError
    from emotion_yolo.inference.identity import settings_of
    from emotion_yolo.inference.loading import load_model
    from emotion_yolo.inference.packaged import default_model
    from emotion_yolo.predict.copies import AnnotatedCopies
    from emotion_yolo.predict.reports import ReportFile, TrackReport
    from emotion_yolo.predict.run import predict_all
    from emotion_yolo.predict.sources import Inputs
    from emotion_yolo.predict.summary import Summary
    from emotion_yolo.predict.tables import AnswerFile, Format
    from emotion_yolo.predict.timeline import Timeline
    from emotion_yolo.progress import show_progress
    from emotion_yolo.tracks import Tracking

    files: dict[Format, Path | None] = {"json": json_, "csv": csv, "parquet": parquet}
    named = [(path, kind) for kind, path in files.items() if path is not None]
    if len(named) > 1 or (resume and (overwrite or not named)):
        raise typer.BadParameter("give one of --json, --csv and --parquet; --resume needs one, and no --overwrite")
    if (every > 1 or summary or timeline) and not track:
        raise typer.BadParameter("--every, --summary and --timeline need tracks; add --track")
    if (summary or timeline) and resume:
        raise typer.BadParameter(
            "--summary and --timeline need the whole run, and --resume processes only the rest; leave out one of them"
        )
    if timeline and timeline.suffix.lower() != ".png":
        raise typer.BadParameter(f"--timeline is {timeline}, expected a name that ends in .png")
    tracking = Tracking(half_life_s=half_life, every=every) if track else None
    inputs = Inputs(sources, recursive=recursive)
    detector = load_model(model or default_model(), imgsz=imgsz)
    settings = settings_of(detector.spec, imgsz=imgsz, conf=conf, min_face=min_face)
    settings |= {"tracking": asdict(tracking) if tracking else None}
    read = failed = 0
    try:
        with ExitStack() as stack:
            file = None
            for path, kind in named:
                answers = AnswerFile(path, kind, settings=settings, overwrite=overwrite, resume=resume)
                file = stack.enter_context(answers)
            wanted: list[tuple[Path | None, TrackReport]] = [(summary, Summary()), (timeline, Timeline())]
            reports = [
                stack.enter_context(ReportFile(path, report, overwrite=overwrite)) for path, report in wanted if path
            ]
            copies = stack.enter_context(AnnotatedCopies(out, overwrite=overwrite)) if out else None
            bar = stack.enter_context(show_progress("predict", total=None, unit="pictures"))
            last = None if file is None else file.last
            records = predict_all(
                detector, inputs, last=last, conf=conf, min_face=min_face, copies=copies, tracking=tracking
            )
            for record in records:
                if file is None:
                    typer.echo(json.dumps(record))
                else:
                    file.add(record)
                for report in reports:
                    report.add(record)
                failed += "error" in record
                read += "error" not in record
                bar.update()
    except KeyboardInterrupt:
        typer.echo(f"interrupted after {read + failed:,} pictures; what was written is complete", err=True)
        raise
    for reason, count in sorted(inputs.skipped.items()):
        typer.echo(f"skipped {count:,}: {reason}", err=True)
    if failed:
        raise ImageError(f"{failed:,} of {read + failed:,} pictures could not be read; the lines with `error` say why")
    if not read:
        raise SourceError(f"no pictures in {', '.join(sources)}; name pictures, folders of pictures, or videos")


@app.command()
@_needs("score")
def score(
    source: Annotated[
        str, typer.Argument(help="folder, pattern, or Parquet file with a column of paths; local, s3://, gs://, az://")
    ],
    out: Annotated[str, typer.Option(help="folder or address for the Parquet files")],
    engine: Annotated[
        Engine, typer.Option(help="local: processes of this machine; ray: a Ray cluster; needs the extra ray")
    ] = Engine.LOCAL,
    workers: Annotated[int, typer.Option(min=0, help="workers of one core each; 0: one per core")] = 0,
    model: Annotated[
        Path | None, typer.Option(help="folder of an exported model; default: models/release here, else the package's")
    ] = None,
    column: Annotated[str | None, typer.Option(help="column of a Parquet file that names pictures")] = None,
    sample: Annotated[
        float, typer.Option(min=0, max=1, help="share of the pictures, chosen by a hash of their names")
    ] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="maximum number of pictures")] = None,
    shard: Annotated[int, typer.Option(min=1, help="pictures per Parquet file")] = 1000,
    conf: Annotated[float | None, typer.Option(min=0, max=1, help="least confidence of a face")] = None,
    min_face: Annotated[int, typer.Option(min=0, help="least shorter side of a face, px")] = 0,
    imgsz: Annotated[int | None, typer.Option(help="input side in px; the model's own if not given")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the pictures and write nothing")] = False,
) -> None:
    """Score any number of pictures to Parquet files, one row per face; the same command resumes an interrupted run."""
    from emotion_yolo.inference.packaged import default_model
    from emotion_yolo.scoring.listing import Selection
    from emotion_yolo.scoring.plan import Options
    from emotion_yolo.scoring.run import score as run

    result = run(
        Selection(source, column, sample, limit),
        out=out,
        model=model or default_model(),
        options=Options(imgsz=imgsz, conf=conf, min_face=min_face, shard=shard),
        engine=engine.value,
        workers=workers,
        dry_run=dry_run,
    )
    for line in result.lines():
        typer.echo(line)


@app.command(
    add_help_option=False,  # the service's own parser knows the settings
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@_needs("api")
def serve(context: typer.Context) -> None:
    """Serve the model over HTTP, with a page to try it; `--help` lists the settings."""
    # In a checkout the service is api/; as a module of this package it is there for Python only, not for type checkers.
    server = import_module("emotion_yolo.api.server")
    raise typer.Exit(server.main(context.args, prog="emotion-yolo serve"))


@app.command("export-web")
def web(
    out: Annotated[Path, typer.Argument(help="folder to write")],
    model: Annotated[
        Path | None, typer.Option(help="folder of an exported model; default: models/release here, else the package's")
    ] = None,
    runtime: Annotated[
        Path | None, typer.Option(help="onnxruntime-web: npm's archive or its folder (default: fetched with npm)")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace existing files")] = False,
) -> None:
    """Write the page as a folder for any web host: it finds faces in the browser and uploads nothing."""
    from emotion_yolo.inference.packaged import default_model
    from emotion_yolo.web import export_web

    for path in export_web(out, model or default_model(), runtime=runtime, overwrite=overwrite):
        typer.echo(f"{path.stat().st_size:>12,}  {path}")


@app.command()
def doctor(
    model: Annotated[
        Path | None, typer.Option(help="folder of an exported model; default: models/release here, else the package's")
    ] = None,
) -> None:
    """Print the facts for a bug report: versions, CPU, precision, model, speed, free disk."""
    from emotion_yolo.doctor import examine
    from emotion_yolo.inference.packaged import default_model

    for subject, finding in examine(model or default_model()):
        typer.echo(f"{subject + ':':<16}{finding}")


@app.command("train-classifier")
@_needs("train")
def classifier(out: Annotated[Path, typer.Option(help="ONNX file to write")] = paths.CLASSIFIER) -> None:
    """Train a classifier of face crops that teaches the detector; resumes an interrupted training.

    Its settings are the section `classifier` of params.yaml. The ONNX file is for prepare.teacher.classifier, the one
    beside it, classifier.pt, for train.compose.teachers.
    """
    from emotion_yolo.expression.exporting import export_classifier, temperature_of
    from emotion_yolo.expression.teacher_training import prepare_training
    from emotion_yolo.expression.teaching import save_teacher
    from emotion_yolo.expression.training import Epoch, logits_of, train_classifier
    from emotion_yolo.params import load_params

    given = load_params()
    params = given.classifier
    net, train, valid, name = prepare_training(paths.PREPARED, params, given.train.compose)
    typer.echo(f"{len(train):,} batches an epoch, {len(valid):,} valid crops", err=True)
    checkpoint = paths.CHECKPOINTS / f"classifier-{name}.pt"
    if checkpoint.is_file():
        typer.echo(f"resuming from {checkpoint}", err=True)
    start, first = time.monotonic(), 0

    def report_epoch(epoch: Epoch) -> None:
        nonlocal first
        first = first or epoch.number
        left = (time.monotonic() - start) / (epoch.number - first + 1) * (params.epochs - epoch.number)
        line = f"epoch {epoch.number} of {params.epochs}: loss {epoch.loss:.3f}, valid top-1 {epoch.valid_top1:.3f}"
        typer.echo(f"{line}, about {left / 60:.0f} min left", err=True)

    net = train_classifier(net, train, valid, params, checkpoint=checkpoint, on_epoch=report_epoch)
    temperature = temperature_of(logits_of(net, valid), valid)
    export_classifier(net, temperature, out)
    save_teacher(net, temperature, out.with_name(paths.TEACHER_NAME))
    checkpoint.unlink()
    typer.echo(f"{out}: written, temperature {temperature:.3f}; name it in prepare.teacher.classifier")


@app.command()
@_needs("train")
def release(
    out: Annotated[Path, typer.Argument(help="folder to write")] = paths.RELEASE,
    recipe: Annotated[
        str | None, typer.Option(help="train it by configs/recipes/NAME.yaml first; resumes an interrupted run")
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option("--input", help="NAME=PATH of a model that the recipe starts from; repeatable")
    ] = None,
    restart: Annotated[bool, typer.Option(help="discard what an earlier run of the recipe has done")] = False,
) -> None:
    """Make the evaluated export the release, which is served, fine-tuned from, and used to localise faces."""
    from emotion_yolo.release import make_release

    project, made_by, comparison = Path(), None, list[str]()
    if recipe:
        from emotion_yolo.recipes.running import compare, run_recipe

        finished = run_recipe(
            recipe, root=Path(), given=given or [], restart=restart,
            say=lambda text: typer.echo(f"{recipe}: {text}", err=True),
        )  # fmt: skip
        project, made_by, comparison = finished.project, (str(finished.path), finished.revision), compare(finished)
    elif given or restart:
        raise RecipeError("--input and --restart belong to a recipe; name it with --recipe")
    files = make_release(
        weights=project / paths.TRAINED / paths.WEIGHTS_NAME,
        export=project / paths.EXPORT,
        report=project / paths.EVALUATE_REPORT,
        metrics=project / paths.METRICS,
        pictures=sorted((paths.SAMPLE / "sample-scenes/all/images").glob("*.jpg"))[:_EXAMPLES],
        out=out,
        recipe=made_by,
    )
    for path in files:
        typer.echo(f"{path.stat().st_size:>12,}  {path}")
    for line in comparison:
        typer.echo(line)


@app.command()
@_needs("train")
def tune(
    sweep: Annotated[str, typer.Argument(help="name of a file in configs/sweeps/, without .yaml")],
    trials: Annotated[
        int | None, typer.Option(min=1, help="finished trials wanted, with those of earlier calls; else the sweep's")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="leave what earlier calls have found")] = False,
    out: Annotated[Path, typer.Option(help="folder for NAME/trials.csv and NAME/sweep.png")] = paths.REPORTS / "tune",
) -> None:
    """Search for params with Optuna, each trial an experiment of DVC; the same command goes on after any kill."""
    from emotion_yolo.tuning.report import table, write_report
    from emotion_yolo.tuning.running import tune as run

    searched, study = run(
        sweep, root=Path(), trials=trials, restart=restart, say=lambda text: typer.echo(f"{sweep}: {text}", err=True)
    )
    typer.echo(table(searched, study))
    for path in write_report(searched, study, out / sweep):
        typer.echo(f"{path}: written")


@app.command()
@_needs("monitor")
def monitor(
    log: Annotated[Path, typer.Option(envvar="EMOTION_LOG_DB", help="the service's prediction log")],
    model: Annotated[Path, typer.Option(help="folder of the served model, which holds its reference")] = paths.RELEASE,
    reference: Annotated[Path | None, typer.Option(help="reference, if it is elsewhere")] = None,
    since: Annotated[str, typer.Option(help="start of the window: 24h, 7d, or a time")] = "24h",
    until: Annotated[str | None, typer.Option(help="end of the window (default: now)")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="only the latest N pictures")] = None,
    rate: Annotated[float, typer.Option(min=0.001, max=0.5, help="probability of a false alarm")] = 0.01,
    out: Annotated[Path, typer.Option(help="folder for verdict.json and report.html")] = paths.REPORTS / "monitor",
    page: Annotated[bool, typer.Option("--page/--no-page", help="write report.html, with Evidently")] = True,
    prometheus: Annotated[Path | None, typer.Option(help="text file for Prometheus' node exporter")] = None,
    accept: Annotated[Path | None, typer.Option(help="write the window as a new reference instead")] = None,
) -> None:
    """Compare the service's pictures and answers with the model's reference; exits with 18 if they differ."""
    from emotion_yolo.monitoring import monitor as monitoring

    choices = monitoring.Choices(
        log, reference or monitoring.reference_of(model), since, until, last, rate, out, page, prometheus
    )
    if accept is not None:
        window = monitoring.accept(choices, accept)
        typer.echo(f"{accept}: {len(window.observations):,} pictures are the reference of model {window.model[:12]}")
        return
    verdict = monitoring.monitor(choices)
    typer.echo(
        f"{len(verdict.window.observations):,} pictures, {len(verdict.window.observations.truth):,} faces, "
        f"{verdict.window.feedback:,} with feedback; {out / 'verdict.json'}"
    )
    monitoring.raise_on_drift(verdict)
    typer.echo(f"like the reference ({verdict.reference.origin})")


@app.command()
@_needs("train")
def review(
    kept: Annotated[Path, typer.Argument(envvar="EMOTION_KEEP_PICTURES", help="folder of the service's kept pictures")],
    out: Annotated[Path, typer.Option(help="folder to write, for pull")],
    unlabelled: Annotated[
        bool,
        typer.Option("--unlabelled", help="include pictures without feedback, labelled by the model, for correction"),
    ] = False,
) -> None:
    """Write the pictures kept by the service, with feedback as labels, as a YOLO set for `pull --add`."""
    from emotion_yolo.review.exporting import export_cases

    pictures, labels = export_cases(kept, out, unlabelled=unlabelled)
    typer.echo(f"{out}: {pictures:,} pictures, {labels:,} faces with feedback")


@app.command()
@_needs("train")
def promote(
    candidate: Annotated[Path, typer.Argument(help="folder of an exported model")] = paths.EXPORT,
    against: Annotated[Path, typer.Option(help="folder of the present model")] = paths.RELEASE,
    out: Annotated[Path, typer.Option(help="folder for promotion.md and its plot")] = paths.REPORTS / "promote",
) -> None:
    """Register a model and assign it the stage prod, unless it is worse than the present one (exit code 19)."""
    from emotion_yolo.params import load_params
    from emotion_yolo.registry.promoting import promote as decide
    from emotion_yolo.registry.report import verdict

    done = decide(candidate, against=against, prepared=paths.PREPARED, params=load_params().evaluate, out=out)
    typer.echo(f"{done.version} at {done.commit[:12]} is in prod. {verdict(done.comparison)} {done.report}")
    typer.echo("share the tags with `git push --tags`")


@app.command()
@_needs("train")
def models() -> None:
    """Print the registered versions, their stages and why they were registered, latest last."""
    from emotion_yolo.registry.versions import list_versions

    versions = list_versions(Path())
    for v in versions:
        why = v.why.partition("\n")[0]
        typer.echo(f"{v.name:<10}{','.join(v.stages) or '-':<6}{v.commit[:12]}  {v.registered}  {why}")
    if not versions:
        typer.echo("no version is registered; `emotion-yolo promote` registers one", err=True)


@app.command()
@_needs("train")
def rollback() -> None:
    """Assign the stage prod to the version that had it before."""
    from emotion_yolo.registry.versions import roll_back

    had, has = roll_back(Path())
    typer.echo(f"{has} is in prod, {had} no longer; share the tags with `git push --tags`")


@app.command()
@_needs("train")
def lineage(
    digest: Annotated[str, typer.Argument(help="digest of a model from an answer, or its first digits")],
    checkout: Annotated[
        Path | None, typer.Option(help="folder for a worktree of the revision it was made from")
    ] = None,
) -> None:
    """Print the commit, data, recipe, params and metrics behind a model's digest, as YAML."""
    import yaml

    from emotion_yolo.registry.origin import check_out, describe_origin, find_origin

    origin = find_origin(digest)
    typer.echo(yaml.safe_dump(describe_origin(origin), sort_keys=False, allow_unicode=True).rstrip())
    if checkout is not None:
        commit = check_out(origin, checkout)
        typer.echo(f"{checkout}: worktree of {commit[:12]}; `git worktree remove` takes it away", err=True)


def main() -> None:
    """Run the command line; an error of ours is a message and an exit code, not a traceback."""
    run_process(app, interrupted="what was finished is kept")
