"""Stage `train`: datasets/prepared/ and a checkpoint → models/trained/, resumed where it was interrupted."""

import shutil

from emotion_yolo import paths
from emotion_yolo.digests import sha256_of
from emotion_yolo.params import load_params
from emotion_yolo.process import raise_if_interrupted
from emotion_yolo.progress import say
from emotion_yolo.stages import run_stage
from emotion_yolo.tracking.curves import Curves
from emotion_yolo.tracking.lineage import data_digest, git_revision
from emotion_yolo.tracking.tracker import Tracker
from emotion_yolo.yolo.trainer import RESUME_NAME, Epoch
from emotion_yolo.yolo.training import check, copy_pictures, fingerprint, train
from emotion_yolo.yolo.view import write_view
from emotion_yolo.yolo.weights import save_weights


def main() -> None:
    """Run the stage from the project's root."""
    params = load_params()
    setup = check(params.train)
    folder = paths.CHECKPOINTS / fingerprint(params.train, paths.PREPARED)
    run = folder / "run"  # of Ultralytics, which removes it before a training on several GPUs
    resume = (run / RESUME_NAME).exists()
    data = write_view(paths.PREPARED, folder / "view", params.train)
    weights, wandb = paths.TRAINED / paths.WEIGHTS_NAME, {"record": folder / "wandb.json", "wandb_dir": paths.WANDB}
    lineage = {"data": data_digest(paths.DATA_PIN), "revision": git_revision(), "environment": setup.environment}
    weights.parent.mkdir(parents=True, exist_ok=True)
    with (
        Curves(paths.TRAIN_REPORT, journal=folder / "epochs.jsonl", resume=resume) as curves,
        Tracker.start(params, **wandb, resume=resume, lineage=lineage) as tracker,
    ):

        def on_epoch(epoch: Epoch) -> None:
            curves.log_epoch(epoch.number, epoch.metrics, best=epoch.best)
            tracker.log_epoch(epoch.number, {**epoch.metrics, **epoch.costs})
            raise_if_interrupted()

        trained = train(data, params.train, checkpoints=run, setup=setup, on_epoch=on_epoch)
        save_weights(trained.weights, weights, start=params.train.weights, alpha=params.train.wise_ft_alpha)
        for path in copy_pictures(trained, paths.TRAIN_SAMPLES):
            tracker.log_image(path.stem, path)
        tracker.log_summary({"best_epoch": curves.best_epoch or 0})
        tracker.keep_for(sha256_of(weights), wandb_dir=paths.WANDB)
    setup.write(paths.RUN)
    say("train", f"{weights}: epoch {curves.best_epoch} of {params.train.epochs}, the best on valid")
    # All that was worth keeping is now an out; an interrupted stage would have left the folder to resume from.
    shutil.rmtree(folder)


if __name__ == "__main__":
    run_stage(main, interrupted="the next `dvc repro` resumes after the last finished epoch")
