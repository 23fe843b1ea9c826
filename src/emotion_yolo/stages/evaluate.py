"""Stage `evaluate`: models/export + datasets/prepared (test) → reports/evaluate/. Measures what is served."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from emotion_yolo.detector import Detector
from emotion_yolo.emotions import NAMES
from emotion_yolo.evaluation import CropFigures, Outcome, SceneFigures, match_faces
from emotion_yolo.gallery import contact_sheet
from emotion_yolo.metrics import bootstrap
from emotion_yolo.model_card import Evaluation, UsedSet, model_card, used_sets
from emotion_yolo.params import Evaluate, Params, load_params
from emotion_yolo.paths import CARDS, DATA_PIN, EVALUATE_REPORT, EXPORT, METRICS, PREPARED, RUN, WANDB
from emotion_yolo.prepared import Image, Sample, decoded, read_crops, read_scenes
from emotion_yolo.progress import counting
from emotion_yolo.report import (
    answer_tile,
    confusion_rows,
    evenly,
    metrics_table,
    mistake_tile,
    pr_rows,
    reliability_rows,
    rounded,
    worst_mistakes,
    write_csv,
    write_json,
)
from emotion_yolo.stages import run_stage
from emotion_yolo.tracking import Tracker

_SHOWN = 12  # pictures of each kind among the annotated ones


def main() -> None:
    """Run the stage from the project's root."""
    params = load_params()
    sets = used_sets(DATA_PIN, CARDS)
    evaluation = evaluate(params.evaluate, artefact=EXPORT, prepared=PREPARED, sets=sets, out=EVALUATE_REPORT)
    write_json(METRICS, evaluation.metrics)
    track(params, evaluation)
    print(metrics_table(evaluation.metrics, evaluation.intervals))


def track(params: Params, evaluation: Evaluation) -> None:
    """Add test figures, curves and the model to the W&B run of the training."""
    lineage = evaluation.spec.lineage.model_dump()
    with Tracker.reopen(params, run_file=RUN, wandb_dir=WANDB, lineage=lineage) as tracker:
        tracker.log_summary({f"test_{name}": value for name, value in evaluation.metrics.items()})
        for name in ("confusion", "pr", "reliability"):
            tracker.log_table(name, EVALUATE_REPORT / f"{name}.csv")
        # Of faces from research-only sets: the run that they go to is the user's own.
        for name in ("gallery", "detections"):
            tracker.log_image(name, EVALUATE_REPORT / f"{name}.jpg")
        metadata = {"version": evaluation.spec.version, **lineage, **evaluation.metrics}
        tracker.log_model(EXPORT, name=evaluation.spec.name, metadata=metadata)


def evaluate(params: Evaluate, *, artefact: Path, prepared: Path, sets: Sequence[UsedSet], out: Path) -> Evaluation:
    """Measure the artefact on the test split and write everything but the metrics themselves into `out`."""
    detector = Detector.load(artefact)
    samples = read_crops(prepared, "test")
    crops = run(detector, decoded(samples), total=len(samples), params=params, title="crops")
    scenes: list[Outcome] = []
    if photographs := read_scenes(prepared, "test"):
        scene_detector = Detector.load(artefact, imgsz=params.scene_imgsz)
        scenes = run(scene_detector, decoded(photographs), total=len(photographs), params=params, title="scenes")

    crop_figures = CropFigures(crops, conf=params.conf)
    figures: dict[str, float] = {**crop_figures(np.ones(len(crops))), **crop_figures.counts()}
    intervals = bootstrap(crop_figures, len(crops), resamples=params.bootstrap, seed=params.seed)
    if scenes:
        scene_figures = SceneFigures(scenes)
        figures |= {**scene_figures(np.ones(len(scenes))), **scene_figures.counts()}
        intervals |= bootstrap(scene_figures, len(scenes), resamples=params.bootstrap, seed=params.seed)

    faces = crop_figures.faces
    evaluation = Evaluation(
        spec=detector.spec,
        settings=params,
        imgsz=detector.imgsz,
        backend=detector.backend,
        metrics=rounded(figures),
        intervals=intervals,
        confusion=confusion_rows(crops, faces),
        sets=sets,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "intervals.json", {n: [round(low, 5), round(high, 5)] for n, (low, high) in intervals.items()})
    write_csv(out / "confusion.csv", ("actual", "predicted"), evaluation.confusion)
    write_csv(out / "pr.csv", ("recall", *NAMES), pr_rows(crop_figures.rankings))
    write_csv(out / "reliability.csv", ("probability", "accuracy", "faces"), reliability_rows(faces))
    mistakes = worst_mistakes(crops, faces, scenes, match_faces(scenes), count=params.gallery)
    title = "Worst errors: white = truth, coloured = answer"
    _write_sheet(out / "gallery.jpg", contact_sheet([mistake_tile(m) for m in mistakes], title=title))
    shown = [answer_tile(outcome) for outcome in (*evenly(scenes, _SHOWN), *evenly(crops, _SHOWN))]
    title = "Answers to test pictures at the served threshold, at even distances through the split"
    _write_sheet(out / "detections.jpg", contact_sheet(shown, title=title, columns=4, side=320))
    (out / "MODEL_CARD.md").write_text(model_card(evaluation), "utf-8")
    return evaluation


def run(
    detector: Detector, pictures: Iterable[tuple[Sample, Image]], *, total: int, params: Evaluate, title: str
) -> list[Outcome]:
    """Show every picture to the network once and decode its answer twice: for average precision, and as served."""
    outcomes = []
    with counting(f"evaluate {title}") as progress:
        for done, (sample, image) in enumerate(pictures, start=1):
            tensor, box = detector.preprocess(image)
            raw = detector.infer(tensor)
            candidates = detector.postprocess(raw, box, conf=params.conf, iou=params.iou)
            outcomes.append(Outcome(sample, candidates, detector.postprocess(raw, box)))
            progress(done, total)
    return outcomes


def _write_sheet(path: Path, sheet: NDArray[np.uint8]) -> None:
    PillowImage.fromarray(sheet).save(path, quality=88)


if __name__ == "__main__":
    run_stage(main)
