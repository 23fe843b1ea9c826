"""What each choice of the service gains in time and costs in accuracy, on the valid split.

python -m benchmarks.choices --photo photo.jpg [--every 3] [--large 60]
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from benchmarks.service import pictures
from benchmarks.timing import median_ms
from emotion_yolo.data.prepared import Sample, decoded, read_crops, read_scenes
from emotion_yolo.evaluation.figures import FaceMetrics
from emotion_yolo.evaluation.outcomes import Outcome, match_faces
from emotion_yolo.imaging import ImageLimits, Picture, decode
from emotion_yolo.inference.backends import Precision
from emotion_yolo.inference.detector import Detector
from emotion_yolo.paths import PREPARED, RELEASE

_LIMITS = ImageLimits()
_LARGE = 4000  # px, long side of the enlarged photographs: a telephone's 12 MP


@dataclass(frozen=True)
class Choice:
    """A way to look at a picture; `reduced` decodes a large JPEG at a part of its size."""

    name: str
    square: bool = False
    precision: Precision = "f32"
    reduced: bool = True


CHOICES = (
    Choice("square, f32", square=True),
    Choice("canvases, f32"),
    Choice("canvases, bf16", precision="bf16"),
)
DECODINGS = (Choice("decoded whole", reduced=False), Choice("decoded reduced"))


def look(detector: Detector, picture: Picture, sample: Sample) -> Outcome:
    """Analyse a picture as the service does."""
    tensor, box = detector.preprocess(picture.pixels)
    raw, box = detector.infer(tensor), box.in_full(picture.image_wh, picture.factor)
    found = (detector.postprocess(raw, box, conf=0.001, iou=0.7, ios=1), detector.postprocess(raw, box))
    return Outcome(sample, *(detector.name(faces, picture.pixels, factor=picture.factor) for faces in found))


def whole(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Picture]]:
    """Yield pictures in full."""
    for sample, image in decoded(samples, threads=1):
        yield sample, Picture(image, (image.shape[1], image.shape[0]), 1, "")


def enlarged(samples: Sequence[Sample], *, reduced: bool, fit: int) -> Iterator[tuple[Sample, Picture]]:
    """Yield photographs as they come back from a large JPEG of them."""
    for sample, image in decoded(samples, threads=1):
        factor = _LARGE / max(image.shape[:2])
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        buffer = io.BytesIO()
        PillowImage.fromarray(image).resize(size, PillowImage.Resampling.BICUBIC).save(buffer, "JPEG", quality=88)
        yield sample, decode(buffer.getvalue(), _LIMITS, fit=fit if reduced else None)


def top1(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the share of right emotions among the faces found, and the share found."""
    faces = match_faces(outcomes)
    return float(faces.correct[faces.found].mean()), float(faces.found.mean())


def changed(outcomes: Sequence[Outcome], reference: Sequence[Outcome]) -> int:
    """Count the faces of the truth that are named otherwise than by the reference, or found by one of them only."""
    return int((match_faces(outcomes).predicted != match_faces(reference).predicted).sum())


def face_ap(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the average precision of faces of 32 px and more, and the share of these found at the served threshold."""
    metrics = FaceMetrics(outcomes)(np.ones(len(outcomes)))
    return metrics["face_ap50_32px"], metrics["face_recall_32px"]


def network_ms(detector: Detector, photo: bytes) -> tuple[float, float]:
    """Return ms of preparing the input and of the network."""
    pixels = decode(photo, _LIMITS, fit=detector.imgsz).pixels
    tensor, _ = detector.preprocess(pixels)
    return median_ms(lambda: detector.preprocess(pixels), count=40), median_ms(lambda: detector.infer(tensor), count=40)


def main() -> None:
    """Print a table of inputs and precisions, and one of ways to decode a large JPEG (`--large 0` leaves it out)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=RELEASE)
    parser.add_argument("--prepared", type=Path, default=PREPARED)
    parser.add_argument("--scenes", type=Path, help="prepared set of the scenes, if it is another one")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--large", type=int, default=60)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    crops = read_crops(options.prepared, "valid")[:: options.every]
    scenes = read_scenes(options.scenes or options.prepared, "valid")
    photos = pictures(options.photo)

    print(f"{len(crops)} valid crops, {len(scenes)} valid photographs\n")
    print("| | preprocess ms | network ms | top-1 | found | named otherwise | face AP50 ≥ 32 px | recall ≥ 32 px |")
    print("|---|---|---|---|---|---|---|---|")
    reference: list[Outcome] = []
    for choice in CHOICES:
        detector = Detector.load(
            options.model, threads=options.threads, precision=choice.precision, square=choice.square
        )
        of_crops = [look(detector, picture, sample) for sample, picture in whole(crops)]
        of_scenes = [look(detector, picture, sample) for sample, picture in whole(scenes)]
        reference = reference or of_crops
        preprocess, network = network_ms(detector, photos["640x480"])
        right, found = top1(of_crops)
        ap, recall = face_ap(of_scenes)
        print(
            f"| {choice.name} | {preprocess:.2f} | {network:.2f} | {right:.4f} | {found:.4f} "
            f"| {changed(of_crops, reference)} | {ap:.4f} | {recall:.4f} |",
            flush=True,
        )

    if not options.large:
        return
    large = scenes[:: max(len(scenes) // options.large, 1)]
    print(f"\n{len(large)} valid photographs enlarged to {_LARGE} px, JPEG\n")
    print("| | decode ms (12 MP) | face AP50 ≥ 32 px | recall ≥ 32 px |")
    print("|---|---|---|---|")
    detector = Detector.load(options.model, threads=options.threads)
    for choice in DECODINGS:
        fit = detector.imgsz if choice.reduced else None
        seen = enlarged(large, reduced=choice.reduced, fit=detector.imgsz)
        ap, recall = face_ap([look(detector, picture, sample) for sample, picture in seen])
        decoding = median_ms(lambda fit=fit: decode(photos["12 MP"], _LIMITS, fit=fit), count=10)  # type: ignore[misc]
        print(f"| {choice.name} | {decoding:.1f} | {ap:.4f} | {recall:.4f} |", flush=True)


if __name__ == "__main__":
    main()
