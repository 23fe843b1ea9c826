"""Stage `evaluate`: models/export + datasets/prepared (test) → reports/evaluate/. Measures what is served."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from emotion_yolo.data.negatives import HELD_OUT, LEARNT
from emotion_yolo.data.prepared import Sample, decoded, read_crops, read_scenes
from emotion_yolo.drawing import contact_sheet, evenly, stacked
from emotion_yolo.evaluation.figures import (
    CropFigures,
    Faces,
    Outcome,
    SceneFigures,
    Slice,
    at_size,
    flip_figures,
    match_faces,
    slice_of,
)
from emotion_yolo.evaluation.metrics import bootstrap
from emotion_yolo.evaluation.model_card import Evaluation, UsedSet, model_card, used_sets
from emotion_yolo.evaluation.report import (
    SLICE_COLUMNS,
    answer_tile,
    confusion_rows,
    metrics_table,
    mistake_tile,
    pr_rows,
    reliability_rows,
    rounded,
    slice_rows,
    worst_mistakes,
    write_csv,
    write_json,
)
from emotion_yolo.evaluation.robustness import (
    CORRUPTIONS,
    MIRRORED,
    PLAIN,
    SCENE_CORRUPTIONS,
    Corruption,
    face_heights,
    plain,
    side_for_corruptions,
)
from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.params import Evaluate, Params, load_params
from emotion_yolo.paths import CARDS, DATA_PIN, EVALUATE_REPORT, EXPORT, METRICS, PREPARED, RUN, WANDB
from emotion_yolo.progress import counting
from emotion_yolo.stages import run_stage
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.images import Image, read_rgb
from emotion_yolo.tracking.tracker import Tracker

_CORES = max((os.cpu_count() or 1) // 8, 1)  # of one inference; eight at a time are enough, and each takes memory
_AT_ONCE = max((os.cpu_count() or 1) // _CORES, 1)
_SHOWN = 12  # pictures of each kind among the annotated ones
_SCENE_SIDE, _CROP_SIDE = 640, 320  # px, long sides at which they are shown
_FACELESS_WH = (640, 480)  # px


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
    detector = Detector.load(artefact, threads=_CORES)
    samples = read_crops(prepared, "test")
    crops = run(detector, samples, params=params, title="crops")
    photographs = read_scenes(prepared, "test")
    by_side: dict[int, list[Outcome]] = {}
    for side in dict.fromkeys((params.scene_imgsz, *params.scene_sizes)) if photographs else ():
        scene_detector = Detector.load(artefact, imgsz=side, threads=_CORES)
        by_side[side] = run(scene_detector, photographs, params=params, title=f"scenes at {side} px")
    scenes = by_side.get(params.scene_imgsz, [])

    crop_figures = CropFigures(crops, conf=params.conf)
    figures: dict[str, float] = {**crop_figures(np.ones(len(crops))), **crop_figures.counts()}
    intervals = bootstrap(crop_figures, len(crops), resamples=params.bootstrap, seed=params.seed)
    if scenes:
        scene_figures = SceneFigures(scenes)
        figures |= {**scene_figures(np.ones(len(scenes))), **scene_figures.counts()}
        intervals |= bootstrap(scene_figures, len(scenes), resamples=params.bootstrap, seed=params.seed)
        for side in params.scene_sizes:
            sized = at_size(SceneFigures(by_side[side]), side)
            figures |= sized(np.ones(len(scenes)))
            intervals |= bootstrap(sized, len(scenes), resamples=params.bootstrap, seed=params.seed)
    slices, more = measure_robustness(evenly(samples, params.robustness), photographs, params=params, artefact=artefact)
    figures |= more
    figures |= false_faces(detector, count=params.negatives, seed=params.seed)

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
        slices=slices,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "intervals.json", {n: [round(low, 5), round(high, 5)] for n, (low, high) in intervals.items()})
    write_csv(out / "confusion.csv", ("actual", "predicted", "source"), evaluation.confusion)
    write_csv(out / "pr.csv", ("recall", *NAMES), pr_rows(crop_figures.rankings))
    write_csv(out / "reliability.csv", ("probability", "accuracy", "faces"), reliability_rows(faces))
    write_csv(out / "robustness.csv", SLICE_COLUMNS, slice_rows(slices))
    mistakes = worst_mistakes(crops, faces, scenes, match_faces(scenes), count=params.gallery)
    title = "Worst errors: white = truth, coloured = answer"
    _write_sheet(out / "gallery.jpg", contact_sheet([mistake_tile(m) for m in mistakes], title=title))
    _write_sheet(out / "detections.jpg", answers_sheet(crops, scenes))
    (out / "MODEL_CARD.md").write_text(model_card(evaluation), "utf-8")
    return evaluation


def measure_robustness(
    crops: Sequence[Sample], photographs: Sequence[Sample], *, params: Evaluate, artefact: Path
) -> tuple[list[Slice], dict[str, float]]:
    """Measure the emotions of crops under every change, and the faces of photographs under some."""
    if not crops:
        return [], {}
    given = read_spec(artefact).input
    images = (image for _, image in decoded(crops))
    side = side_for_corruptions(images, imgsz=given.imgsz, max_upscale=given.max_upscale)
    detectors: dict[int, Detector] = {}
    scene_detector = Detector.load(artefact, imgsz=params.scene_imgsz, threads=_CORES)
    slices: list[Slice] = []
    faces: dict[str, Faces] = {}
    for name, (side, change) in ({n: (side, c) for n, c in CORRUPTIONS.items()} | face_heights(given.imgsz)).items():
        if side not in detectors:
            detectors[side] = Detector.load(artefact, imgsz=side, threads=_CORES, square=True)
        faces[name] = match_faces(run(detectors[side], crops, params=params, title=f"crops, {name}", change=change))
        scenes: list[Outcome] = []
        if name in SCENE_CORRUPTIONS:
            scenes = run(scene_detector, photographs, params=params, title=f"scenes, {name}", change=change)
        slices.append(slice_of(name, faces[name], resamples=params.bootstrap, seed=params.seed, scenes=scenes))
    figures: dict[str, float] = {
        **{f"top1_{s.change}": s.top1 for s in slices if s.change in CORRUPTIONS},
        **{f"face_ap50_32px_{s.change}": s.face_ap50_32px for s in slices if s.change in SCENE_CORRUPTIONS},
        **flip_figures(faces[PLAIN], faces[MIRRORED]),
        "n_robustness": len(crops),
    }
    return slices, figures


def false_faces(detector: Detector, *, count: int, seed: int) -> dict[str, float]:
    """Return in what share of `count` drawn pictures of each kind, none with a face, the detector answers with one."""
    figures: dict[str, float] = {}
    for number, (kind, draw) in enumerate((LEARNT | HELD_OUT).items() if count else (), start=1):
        rng = np.random.default_rng([seed, 0, number])  # never the numbers of the train pictures, [seed, index]
        pictures = [draw(rng, _FACELESS_WH) for _ in range(count)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            seen = sum(len(answer) > 0 for answer in pool.map(detector.predict, pictures))
        figures[f"false_faces_{kind}"] = seen / count
    return figures | ({"n_negatives": count} if count else {})


def answers_sheet(crops: Sequence[Outcome], scenes: Sequence[Outcome]) -> Image:
    """Show answers to photographs, large, and to crops, both at even distances through the split."""
    title = "Answers at the served threshold, at even distances through the test split: "
    of_scenes = [answer_tile(outcome, side=_SCENE_SIDE) for outcome in evenly(scenes, _SHOWN)]
    of_crops = [answer_tile(outcome, side=_CROP_SIDE) for outcome in evenly(crops, _SHOWN)]
    sheets = [contact_sheet(of_crops, title=f"{title}crops", columns=6, side=_CROP_SIDE)]
    if of_scenes:
        sheets.insert(0, contact_sheet(of_scenes, title=f"{title}photographs", columns=3, side=_SCENE_SIDE))
    return stacked(sheets)


def run(
    detector: Detector, samples: Sequence[Sample], *, params: Evaluate, title: str, change: Corruption = plain
) -> list[Outcome]:
    """Show every picture, so changed, to the network once; decode its answer for average precision, and as served.

    Several pictures at once: the detector should be one whose inferences take `_CORES` each.
    """

    def one(sample: Sample) -> Outcome:
        image, labels = change(read_rgb(sample.image), sample.labels)
        tensor, box = detector.preprocess(image)
        raw = detector.infer(tensor)
        # Average precision knows no suppression but the one by IoU.
        candidates = detector.postprocess(raw, box, conf=params.conf, iou=params.iou, ios=1)
        return Outcome(replace(sample, labels=labels), candidates, detector.postprocess(raw, box))

    outcomes = []
    with counting(f"evaluate {title}") as progress, ThreadPoolExecutor(_AT_ONCE) as pool:
        for done, outcome in enumerate(pool.map(one, samples), start=1):
            outcomes.append(outcome)
            progress(done, len(samples))
    return outcomes


def _write_sheet(path: Path, sheet: NDArray[np.uint8]) -> None:
    PillowImage.fromarray(sheet).save(path, quality=88)


if __name__ == "__main__":
    run_stage(main)
