"""Stage `assemble@NAME`: a detector and models/classifiers/NAME/ → the two-stage model models/baselines/NAME/."""

import shutil
import sys
from functools import partial

from emotion_yolo import paths
from emotion_yolo.data.prepared import read_crops
from emotion_yolo.export.two_stage import assemble
from emotion_yolo.expression.baselines import landmarks_of, read_faces
from emotion_yolo.expression.networks import load
from emotion_yolo.params import load_params
from emotion_yolo.stages import run_stage


def main(name: str) -> None:
    """Run the stage from the project's root."""
    params = load_params()
    folder, out, report = paths.CLASSIFIERS / name, paths.BASELINES / name, paths.ASSEMBLE_REPORT / name
    net = load(folder)
    settings = params.baselines.of(name)
    valid = read_faces(
        read_crops(paths.PREPARED, "valid"),
        settings=settings,
        classes=net.spec.classes,
        imgsz=net.imgsz,
        landmarks=landmarks_of(settings),
        title="valid faces",
    )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    report.mkdir(parents=True, exist_ok=True)
    assemble(
        params, name, net=net, folder=folder, valid=valid.crops, pin=paths.DATA_PIN, out=out, report=report
    )  # fmt: skip


if __name__ == "__main__":
    run_stage(partial(main, sys.argv[1]))
