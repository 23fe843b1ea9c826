"""Every path of `dvc.yaml`, once, relative to the project's root (the folder DVC runs stages in)."""

from pathlib import Path

PARAMS = Path("params.yaml")
CARDS = Path("configs/datasets")

DATA = Path("data")
DATA_PIN = Path("data.dvc")
SAMPLE = Path("datasets/sample")

PREPARED = Path("datasets/prepared")
TRAINED = Path("models/trained")
EXPORT = Path("models/export")
RELEASE = Path("models/release")
WEIGHTS_NAME = "weights.pt"
CLASSIFIER = Path("models/classifier.onnx")

REPORTS = Path("reports")
PREPARE_REPORT = REPORTS / "prepare"
TRAIN_REPORT = REPORTS / "train"
EXPORT_REPORT = REPORTS / "export"
EVALUATE_REPORT = REPORTS / "evaluate"
METRICS = REPORTS / "metrics.json"
RUN = TRAIN_REPORT / "run.json"
"""Which W&B run the training was. Not in `TRAINED`: its id is random, and whatever depends on it would run again."""

# Not outs: an out is deleted before its stage runs, and a checkpoint has to outlive that to be resumed from.
CHECKPOINTS = Path(".checkpoints")
DOWNLOADS = Path(".downloads")
WANDB = Path(".wandb")
