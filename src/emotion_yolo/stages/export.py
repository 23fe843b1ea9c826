"""Stage `export`: models/trained/ → models/export/, compared with PyTorch; thresholds, calibration fitted on valid."""

import shutil

from emotion_yolo.export.artefact import export
from emotion_yolo.params import load_params
from emotion_yolo.paths import DATA_PIN, EXPORT, EXPORT_REPORT, PREPARED, RUN, TRAINED, WEIGHTS_NAME
from emotion_yolo.stages import run_stage


def main() -> None:
    """Run the stage from the project's root."""
    params = load_params()
    shutil.rmtree(EXPORT, ignore_errors=True)
    EXPORT.mkdir(parents=True)
    EXPORT_REPORT.mkdir(parents=True, exist_ok=True)
    export(
        params,
        weights=TRAINED / WEIGHTS_NAME,
        prepared=PREPARED,
        pin=DATA_PIN,
        run=RUN,
        out=EXPORT,
        report=EXPORT_REPORT,
    )


if __name__ == "__main__":
    run_stage(main)
