"""The command line: `emotion-yolo --help`."""

import json
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from emotion_yolo import paths
from emotion_yolo.errors import EmotionYoloError
from emotion_yolo.params import load_params

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

_EXAMPLES = 6  # drawn scenes in a release's example picture


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


data = typer.Typer(no_args_is_help=True, help="List and remove the sets in data/.")
app.add_typer(data, name="data")

_MAP_HELP = "what a class means, as 'Joy=happy'; several times for several; face and ignore are meanings too"


@app.command()
def pull(
    source: Annotated[
        str, typer.Argument(help="sample, affectnet, a folder, an archive, a data.yaml, a CSV, https or s3 address")
    ],
    add: Annotated[bool, typer.Option("--add", help="keep the sets that are there")] = False,
    name: Annotated[str | None, typer.Option(help="name of the set below data/")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help=_MAP_HELP)] = None,
    card: Annotated[str | None, typer.Option(help="dataset card to go by, by name")] = None,
    force: Annotated[bool, typer.Option(help="replace data that are not pinned; they are moved aside")] = False,
) -> None:
    """Fetch a data set, verify it, land it in data/ and pin it in data.dvc; then `dvc repro` rebuilds."""
    from emotion_yolo.sources import Choices
    from emotion_yolo.sources import pull as pull_source
    from emotion_yolo.sources.classes import parse_mapping

    choices = Choices(name, card, parse_mapping(map_ or []), load_params().prepare.near_duplicate_distance)
    report = pull_source(source, root=Path(), add=add, choices=choices, force=force)
    typer.echo("\n".join(report.lines()))


@data.command("list")
def list_sets() -> None:
    """Print the sets in data/: pictures, boxes, emotions, source and licence, as data.dvc records them."""
    from emotion_yolo.data.sets import read_sets

    for record in read_sets().values():
        typer.echo("\n".join(record.lines()))


@data.command("remove")
def remove_set(
    name: Annotated[str, typer.Argument(help="name of the set below data/")],
    force: Annotated[bool, typer.Option(help="go on over data that are not pinned; they are moved aside")] = False,
) -> None:
    """Take one set out of data/ and pin what is left."""
    from emotion_yolo.sources import remove

    typer.echo("\n".join(remove(name, root=Path(), force=force).lines()))


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="folder to write")] = paths.SAMPLE,
    seed: Annotated[int, typer.Option(help="another seed draws other faces")] = 0,
) -> None:
    """Draw the bundled sample anew: faces from facial action units, no real person."""
    from emotion_yolo.portraits.sample import generate_sample

    generate_sample(out, seed=seed)
    typer.echo(f"{out}: written")


@app.command()
def report() -> None:
    """Print the metrics of the last evaluation, and where its report and pictures lie."""
    from emotion_yolo.errors import ModelError
    from emotion_yolo.evaluation.report import metrics_table

    if not paths.METRICS.is_file():
        raise ModelError(f"{paths.METRICS}: no evaluation there; run `dvc repro`")
    typer.echo(metrics_table(json.loads(paths.METRICS.read_text("utf-8"))))
    typer.echo(f"\nmodel card   {paths.EVALUATE_REPORT}/MODEL_CARD.md")
    typer.echo(f"detections   {paths.EVALUATE_REPORT}/detections.jpg")
    typer.echo(f"worst errors {paths.EVALUATE_REPORT}/gallery.jpg")
    typer.echo(f"data checks  {paths.PREPARE_REPORT}/report.json")


@app.command()
def predict(
    sources: Annotated[list[str], typer.Argument(help="pictures, folders, videos, or camera:0")],
    model: Annotated[Path, typer.Option(help="folder of an exported model")] = paths.RELEASE,
    out: Annotated[Path | None, typer.Option(help="folder for annotated pictures and videos")] = None,
    conf: Annotated[float | None, typer.Option(min=0, max=1, help="least confidence of a face")] = None,
    imgsz: Annotated[int | None, typer.Option(help="input side in px; the model's own if not given")] = None,
) -> None:
    """Find faces and name their expressions; prints a JSON line for each picture, the count so far to stderr."""
    from contextlib import closing, nullcontext

    from emotion_yolo.inference.detector import Detector
    from emotion_yolo.predict import Annotated as AnnotatedFolder
    from emotion_yolo.predict import predict as answers
    from emotion_yolo.progress import show_progress

    detector = Detector.load(model, imgsz=imgsz)
    with (
        closing(AnnotatedFolder(out)) if out else nullcontext() as annotated,
        show_progress("predict", total=None, unit="pictures") as bar,
    ):
        for line in answers(detector, sources, conf=conf, annotated=annotated):
            typer.echo(json.dumps(line))
            bar.update()


@app.command()
def classifier(
    face_weights: Annotated[Path, typer.Argument(help="the folder `model` of face-api.js")],
    out: Annotated[Path, typer.Option(help="ONNX file to write")] = paths.CLASSIFIER,
    epochs: Annotated[int, typer.Option(min=1, help="passes over the train crops")] = 12,
) -> None:
    """Train a network that names the expressions of single crops, for prepare.teacher.classifier; resumes."""
    from emotion_yolo.data.prepared import read_crops
    from emotion_yolo.expression.face_net import read_face_weights
    from emotion_yolo.expression.training import Crops, export_classifier, fingerprint, train_classifier

    weights = read_face_weights(face_weights)
    train, valid = (Crops.read(read_crops(paths.PREPARED, split)) for split in ("train", "valid"))
    typer.echo(f"{len(train.emotions):,} train crops, {len(valid.emotions):,} valid crops", err=True)
    checkpoint = paths.CHECKPOINTS / f"classifier-{fingerprint(train, weights, epochs=epochs)}.pt"
    net, temperature = train_classifier(
        train, valid, weights=weights, epochs=epochs, checkpoint=checkpoint,
        on_epoch=lambda epoch, loss, top1: typer.echo(
            f"epoch {epoch} of {epochs}: loss {loss:.3f}, valid top-1 {top1:.3f}", err=True
        ),
    )  # fmt: skip
    export_classifier(net, temperature, out)
    checkpoint.unlink()
    typer.echo(f"{out}: written, temperature {temperature:.3f}; name it in prepare.teacher.classifier")


@app.command()
def release(out: Annotated[Path, typer.Argument(help="folder to write")] = paths.RELEASE) -> None:
    """Make the trained, exported and evaluated model the release: served, fine-tuned from and localised with."""
    from emotion_yolo.release import make_release

    files = make_release(
        weights=paths.TRAINED / paths.WEIGHTS_NAME,
        export=paths.EXPORT,
        report=paths.EVALUATE_REPORT,
        metrics=paths.METRICS,
        pictures=sorted((paths.SAMPLE / "sample-scenes/all/images").glob("*.jpg"))[:_EXAMPLES],
        out=out,
    )
    for path in files:
        typer.echo(f"{path.stat().st_size:>12,}  {path}")


def main() -> None:
    """Run the command line; an error of ours is a message and an exit code, not a traceback."""
    try:
        app()
    except EmotionYoloError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
