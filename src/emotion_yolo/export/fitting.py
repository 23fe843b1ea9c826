"""Threshold and calibration of an exported network, fitted on the valid split; test pictures are not used."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion_yolo.data.prepared import Sample, decoded
from emotion_yolo.evaluation.metrics import Pair, assign, best_confidence, best_point, rank_faces
from emotion_yolo.export.bias import fit_calibration
from emotion_yolo.inference.artefact import Calibration, ModelSpec
from emotion_yolo.inference.calibration import expected_calibration_error, probabilities
from emotion_yolo.inference.detector import Detector
from emotion_yolo.progress import counting

_SCALE_PICTURES = 200
# Below this share of the F1 at the training size, the size that crops are shown at does not suit the network.
_SCALE_SHARE = 0.8


@dataclass(frozen=True)
class Fitted:
    """Threshold, calibration and report fitted on the valid split."""

    conf: float
    calibration: Calibration
    report: dict[str, object]
    warnings: tuple[str, ...]


def fit(
    folder: Path,
    spec: ModelSpec,
    valid: Sequence[Sample],
    valid_scenes: Sequence[Sample],
    *,
    scene_imgsz: int,
    train_imgsz: int,
    fallback_conf: float,
    bias_prior: float,
) -> Fitted:
    """Choose the confidence threshold and the calibration on valid.

    The threshold is that of the best face F1 on scenes, since they show more than faces; on
    the crops where there are no scenes, or none of their faces is found; `fallback_conf` for a network that finds no
    face at all. The calibration is fitted to the emotions of the crops' faces that were found (`fit_calibration`, whose
    prior is `bias_prior`); without any the temperature is 1.
    """
    warnings: list[str] = []
    crop_detector = Detector.load(folder, spec=spec)
    pairs = list(predict(crop_detector, valid, "valid crops"))
    scenes = list(predict(Detector.load(folder, spec=spec, imgsz=scene_imgsz), valid_scenes, "valid scenes"))
    conf, chosen_on = fallback_conf, "fallback"
    for name, candidates in (("valid scenes", scenes), ("valid crops", pairs)):
        try:
            conf, chosen_on = round(best_confidence(candidates), 3), name
            break
        except ValueError as error:
            if candidates:
                warnings.append(f"no threshold can be chosen on {name}: {error}")
    if chosen_on == "fallback":
        warnings.append(f"the threshold is export.fallback_conf, {conf:g}; the network has hardly learnt: train longer")
    found = [
        (detections.probabilities[finder], cls, sample.set)
        for sample, (detections, labels) in zip(valid, pairs, strict=True)
        for finder, cls in zip(assign(detections, labels), labels.cls, strict=True)
        if finder >= 0
    ]
    report: dict[str, object] = {"conf": conf, "conf_chosen_on": chosen_on, "valid_faces_found": len(found)}
    calibration = Calibration()
    if found:
        # At temperature 1 probabilities are the scores times a factor, to which the fit is invariant.
        at_one, truth = np.stack([row for row, _, _ in found]), np.asarray([cls for _, cls, _ in found])
        calibration = fit_calibration(at_one, truth, [name for _, _, name in found], prior=bias_prior)
        calibrated = probabilities(at_one, temperature=calibration.temperature, bias=calibration.bias)
        report["valid_ece_before"] = round(expected_calibration_error(at_one, truth), 5)
        report["valid_ece"] = round(expected_calibration_error(calibrated, truth), 5)
        report["valid_top1_before"] = round(float((at_one.argmax(axis=1) == truth).mean()), 5)
        report["valid_top1"] = round(float((calibrated.argmax(axis=1) == truth).mean()), 5)
    report |= calibration.model_dump(mode="json")
    scale, warning = check_scale(folder, spec, valid, pairs, train_imgsz=train_imgsz)
    return Fitted(conf, calibration, report | scale, (*warnings, *([warning] if warning else [])))


def check_scale(
    folder: Path, spec: ModelSpec, valid: Sequence[Sample], shown: Sequence[Pair], *, train_imgsz: int
) -> tuple[dict[str, object], str]:
    """Compare the F1 of valid faces at the size crops are shown at with that at the training input.

    The service enlarges small pictures (`max_upscale`, `upscale_to`): a network trained on crops of 96 px was seen to
    find next to nothing in the same crops at 160 px. Returns both for the report, and a warning or "".
    """
    step = max(len(valid) // _SCALE_PICTURES, 1)
    freely = spec.input.model_copy(update={"max_upscale": 8.0, "upscale_to": train_imgsz})
    enlarged = spec.model_copy(update={"input": freely})
    detector = Detector.load(folder, spec=enlarged, imgsz=train_imgsz)
    at_training = _face_f1(list(predict(detector, valid[::step], "valid crops at the training size")))
    at_shown = _face_f1(shown[::step])
    report: dict[str, object] = {
        "valid_face_f1_as_shown": round(at_shown, 4),
        "valid_face_f1_at_training_size": round(at_training, 4),
    }
    if at_shown >= _SCALE_SHARE * at_training:
        return report, ""
    side = max(max(detections.image_wh) for detections, _ in shown)
    upscale = max(round(train_imgsz / side, 2), 1.0)
    shown_at = max(train_imgsz, side)
    message = f"the F1 of valid faces is {at_shown:.3f} as the service shows crops and {at_training:.3f} at train.imgsz"
    settings = f"export.max_upscale to {upscale:g} and export.upscale_to to {shown_at}"
    advice = f"set {settings}, or train at the size that crops are shown at"
    return report, f"{message}, {train_imgsz} px; {advice}"


def predict(detector: Detector, samples: Sequence[Sample], title: str) -> Iterator[Pair]:
    """Yield detections, at next to no threshold, with the truth."""
    with counting(title) as progress:
        for done, (sample, image) in enumerate(decoded(samples), start=1):
            yield detector.predict(image, conf=0.01), sample.labels
            progress(done, len(samples))


def _face_f1(pairs: Sequence[Pair]) -> float:
    """Return the best F1 of faces of whatever expression, over all thresholds; 0 where none is found."""
    _, precision, recall = best_point([rank_faces(pairs)])
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
