"""How often a model sees a face where there is none: smooth colour gradients, noise, and plain colours.

python -m benchmarks.faceless [--model models/release] [--count 100]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from emotion_yolo.detector import Detector
from emotion_yolo.images import Image
from emotion_yolo.paths import RELEASE

_WIDTH, _HEIGHT = 640, 480  # px


def gradient(rng: np.random.Generator) -> Image:
    """Return a picture that runs smoothly between twelve random colours, as an unsharp background does."""
    few = rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return cv2.resize(few, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)


def noise(rng: np.random.Generator) -> Image:
    """Return a picture of random pixels."""
    return rng.integers(0, 256, (_HEIGHT, _WIDTH, 3)).astype(np.uint8)


def plain(rng: np.random.Generator) -> Image:
    """Return a picture of one random colour."""
    return np.full((_HEIGHT, _WIDTH, 3), rng.integers(0, 256, 3), np.uint8)


KINDS: dict[str, Callable[[np.random.Generator], Image]] = {"gradients": gradient, "noise": noise, "one colour": plain}


def main() -> None:
    """Print a row a kind: pictures with a face by the served threshold, and the highest confidence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=RELEASE, help="folder with model.json")
    parser.add_argument("--count", type=int, default=100, help="pictures of each kind")
    given = parser.parse_args()
    detector = Detector.load(given.model)
    print(f"{detector.spec.version} at {detector.imgsz} px, conf {detector.spec.thresholds.conf}\n")
    print("| pictures without a face | with a face found | highest confidence |\n|---|---|---|")
    for name, draw in KINDS.items():
        rng = np.random.default_rng(0)
        best = [float(max(detector.predict(draw(rng)).confidence, default=0)) for _ in range(given.count)]
        print(f"| {name} | {sum(c > 0 for c in best)} of {given.count} | {max(best):.2f} |")


if __name__ == "__main__":
    main()
