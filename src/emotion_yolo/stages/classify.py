"""Stage `classify@NAME`: datasets/prepared/ → models/classifiers/NAME/, resumed after an interruption."""

import shutil
import sys
import time
from functools import partial

from emotion_yolo import paths
from emotion_yolo.digests import sha256_of
from emotion_yolo.expression.baselines import baseline, training_faces, weights_file, write_record
from emotion_yolo.expression.networks import build, save
from emotion_yolo.expression.training import CropBatches, Epoch, fingerprint, train_classifier
from emotion_yolo.params import load_params
from emotion_yolo.process import raise_if_interrupted
from emotion_yolo.progress import say
from emotion_yolo.stages import run_stage
from emotion_yolo.tracking.curves import Curves
from emotion_yolo.tracking.lineage import data_digest, git_revision
from emotion_yolo.tracking.tracker import Tracker


def main(name: str) -> None:
    """Run the stage from the project's root."""
    params, started = load_params(), time.monotonic()
    model, fitting = baseline(params.baselines, name), params.fitting(name)
    faces = training_faces(paths.PREPARED, params.baselines.of(name), imgsz=model.imgsz)
    train, valid = faces.train.crops, faces.valid.crops
    net = build(model, faces.classes, dropout=fitting.dropout, seed=fitting.seed)
    folder = paths.CHECKPOINTS / f"classify-{name}-{fingerprint(train, fitting, net.state_dict())}"
    checkpoint, out = folder / "state.pt", paths.CLASSIFIERS / name
    lineage = {
        "data": data_digest(paths.DATA_PIN),
        "revision": git_revision(),
        "baseline": name,
        "start": net.spec.start,
    }
    wandb = {"record": folder / "wandb.json", "wandb_dir": paths.WANDB}
    report, resume = paths.CLASSIFY_REPORT / name, checkpoint.is_file()
    with (
        Curves(report, journal=folder / "epochs.jsonl", resume=resume) as curves,
        Tracker.start(params, **wandb, resume=resume, lineage=lineage) as tracker,
    ):

        def on_epoch(epoch: Epoch) -> None:
            curves.log_epoch(epoch.number, epoch.metrics(), best=epoch.best)
            tracker.log_epoch(epoch.number, {**epoch.metrics(), "seconds": epoch.seconds})
            of = f"epoch {epoch.number} of {fitting.epochs}, {epoch.seconds:.0f} s"
            say(f"classify@{name}", f"{of}: loss {epoch.loss:.3f}, valid top-1 {epoch.valid_top1:.3f}")
            raise_if_interrupted()

        net = train_classifier(
            net, CropBatches(train, fitting), valid, fitting, checkpoint=checkpoint, on_epoch=on_epoch
        )
        save(net, out)
        tracker.keep_for(sha256_of(weights_file(out)), wandb_dir=paths.WANDB)
    seconds = time.monotonic() - started
    write_record(out / paths.RUN.name, fitting, faces, best_epoch=curves.best_epoch, seconds=seconds)
    shutil.rmtree(folder)


if __name__ == "__main__":
    run_stage(partial(main, sys.argv[1]), interrupted="the next run resumes after the last finished epoch")
