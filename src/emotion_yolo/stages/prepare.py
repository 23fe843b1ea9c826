"""Stage `prepare`: data/ → datasets/prepared/, checked, deduplicated, localised, composed."""

from emotion_yolo.params import load_params
from emotion_yolo.paths import DATA, DATA_PIN, PREPARE_REPORT, PREPARED
from emotion_yolo.preparation.preparing import prepare
from emotion_yolo.stages import run_stage


def main() -> None:
    """Run the stage from the project's root."""
    print(prepare(load_params().prepare, data=DATA, pin=DATA_PIN, out=PREPARED, report=PREPARE_REPORT))


if __name__ == "__main__":
    run_stage(main)
