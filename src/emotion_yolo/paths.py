"""Every path of `dvc.yaml`, once, relative to the project's root (the folder DVC runs stages in)."""

from pathlib import Path

PARAMS = Path("params.yaml")
CARDS = Path("configs/datasets")
RECIPES = Path("configs/recipes")

DATA = Path("data")
DATA_PIN = Path("data.dvc")
SAMPLE = Path("datasets/sample")

PREPARED = Path("datasets/prepared")
TRAINED = Path("models/trained")
EXPORT = Path("models/export")
RELEASE = Path("models/release")
WEIGHTS_NAME = "weights.pt"
CLASSIFIER = Path("models/classifier.onnx")
TEACHER_NAME = "classifier.pt"
"""What `train-classifier` writes beside it, for the detector's training."""
CLASSIFIERS = Path("models/classifiers")
"""Trained baselines by name."""
BASELINES = Path("models/baselines")
"""Two-stage models by name, each a detector and one of the classifiers."""
NO_MODEL = Path("models/none")
"""Named in params.yaml where no model is wanted: a path that exists, because DVC takes no empty dependency."""

# In the clone that a recipe runs in: models it was given, and what its phases hand on.
INPUTS = Path("models/inputs")
PHASES = Path("models/phases")

REPORTS = Path("reports")
PREPARE_REPORT = REPORTS / "prepare"
TRAIN_REPORT = REPORTS / "train"
EXPORT_REPORT = REPORTS / "export"
EVALUATE_REPORT = REPORTS / "evaluate"
CLASSIFY_REPORT = REPORTS / "classify"
ASSEMBLE_REPORT = REPORTS / "assemble"
METRICS = REPORTS / "metrics.json"
RUN = TRAIN_REPORT / "run.json"
"""Hardware, precision and libraries of the training."""
TRAIN_SAMPLES = TRAIN_REPORT / "samples"
"""A batch as augmented, and valid pictures with their labels and with the answers."""

# Not outs: an out is deleted before its stage runs, and checkpoints have to survive that.
CHECKPOINTS = Path(".checkpoints")
DOWNLOADS = Path(".downloads")
RECIPE_RUNS = Path(".recipes")
WANDB = Path(".wandb")
