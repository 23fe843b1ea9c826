"""How often `emotion-yolo monitor` raises a false alarm, and what drift it notices with how many pictures.

    python -m benchmarks.drift PICTURES --model models/release --out reports/drift

Every picture goes through the detector once as it is and once for each kind of made drift (kept in `--out`, so that a
second run only simulates). Half of the pictures, drawn anew each time, are the reference; windows are drawn from the
other half, with or without drift. False alarms: 1,000 windows of each size. Prints tables in Markdown, draws a plot.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from emotion_yolo.inference.detector import Detector
from emotion_yolo.monitoring.drift import COLUMNS, Comparison, calibrate, distances
from emotion_yolo.prediction_log.observations import (
    Collector,
    Indices,
    Observations,
    face_values,
    read_reference,
    write_observations,
)
from emotion_yolo.prediction_log.quality import input_quality
from emotion_yolo.progress import counting
from emotion_yolo.structures.images import SUFFIXES, Image, read_rgb

RATES = (0.01, 0.05)
EVIDENTLY_THRESHOLD = 0.1
MIX = "other emotion mix"
CONSTANT = "constant frame"

Change = Callable[[Image, int], Image]


def darker(image: Image, _: int) -> Image:
    return (image * 0.5).astype(np.uint8)


def blurred(image: Image, _: int) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) / 256), np.uint8)


def smaller(image: Image, number: int) -> Image:
    """Show every third picture at 40 % of its size on grey, so that a third of the faces are smaller."""
    if number % 3:
        return image
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(width * 2 // 5, 1), max(height * 2 // 5, 1)), interpolation=cv2.INTER_AREA)
    framed = np.full_like(image, 114)
    framed[: small.shape[0], : small.shape[1]] = small
    return framed


def unchanged(image: Image, _: int) -> Image:
    return image


CHANGES: dict[str, tuple[Change, int]] = {
    "none": (unchanged, 90),
    "darker by half": (darker, 90),
    "blurred": (blurred, 90),
    "JPEG quality 10": (unchanged, 10),
    "a third of faces smaller": (smaller, 90),
}
"""What is done to a picture, and the JPEG quality it is stored in afterwards, as a camera would."""


def observe(pictures: Sequence[Path], detector: Detector, change: Change, quality: int, *, title: str) -> Observations:
    """Return what the log would hold of the changed pictures."""
    collector = Collector()
    with counting(title) as progress:
        for number, path in enumerate(pictures):
            buffer = io.BytesIO()
            PillowImage.fromarray(change(read_rgb(path), number)).save(buffer, "JPEG", quality=quality)
            image = np.asarray(PillowImage.open(buffer).convert("RGB"))
            found = detector.predict(image)
            faces = face_values(found)
            collector.add(
                image_wh=found.image_wh,
                bytes_=buffer.tell(),
                quality=input_quality(image),
                faces=faces,
                truth=[float("nan")] * len(faces),
            )
            progress(number + 1, len(pictures))
    return collector.observations()


def happy_pictures(observations: Observations) -> NDArray[np.bool_]:
    """Return [P] whether most faces of a picture are happy."""
    of_face = np.repeat(np.arange(len(observations)), observations.counts)
    happy = np.bincount(of_face, observations.faces["emotion"] == 4, minlength=len(observations))
    share: NDArray[np.bool_] = happy > 0.5 * np.maximum(observations.counts, 1)
    return share


def windows(
    kinds: dict[str, Observations], half: Indices, size: int, random: np.random.Generator
) -> dict[str, Observations]:
    """Draw one window of each kind from the pictures at `half`."""
    plain = kinds["none"]
    drawn = {name: kind.take(random.choice(half, size)) for name, kind in kinds.items()}
    # Happy pictures are three times as likely as they were.
    weights = np.where(happy_pictures(plain)[half], 3.0, 1.0)
    drawn[MIX] = plain.take(random.choice(half, size, p=weights / weights.sum()))
    drawn[CONSTANT] = plain.take(np.full(size, random.choice(half)))
    return drawn


def simulate(
    kinds: dict[str, Observations], *, sizes: Sequence[int], splits: int, repeats: int, draws: int
) -> dict[str, dict[int, dict[str, float]]]:
    """Return the share of windows with an alarm, by kind of drift, window size and rule."""
    random = np.random.default_rng(0)
    total = len(kinds["none"])
    counts: dict[tuple[str, int, str], list[bool]] = {}
    with counting("simulate") as progress:
        for split in range(splits):
            order = random.permutation(total)
            reference, rest = kinds["none"].take(order[: total // 2]), order[total // 2 :]
            for size in sizes:
                limits = {
                    rate: calibrate(reference, pictures=size, rate=rate, draws=draws, seed=split) for rate in RATES
                }
                for _ in range(repeats):
                    for kind, window in windows(kinds, rest, size, random).items():
                        if kind != "none" and len(counts.get((kind, size, "1 %"), [])) >= 200:
                            continue
                        found = distances(reference, window)
                        for rate, limit in limits.items():
                            alarm = bool(Comparison(found, limit).drifted)
                            counts.setdefault((kind, size, f"{rate:.0%}".replace("%", " %")), []).append(alarm)
                        theirs = sum(value >= EVIDENTLY_THRESHOLD for value in found.values()) >= len(COLUMNS) / 2
                        counts.setdefault((kind, size, "Evidently"), []).append(theirs)
            progress(split + 1, splits)
    result: dict[str, dict[int, dict[str, float]]] = {}
    for (kind, size, rule), alarms in counts.items():
        result.setdefault(kind, {}).setdefault(size, {})[rule] = float(np.mean(alarms))
    return result


def tables(result: dict[str, dict[int, dict[str, float]]]) -> str:
    """Return the result as tables in Markdown."""
    rules = list(next(iter(next(iter(result.values())).values())))
    lines = [
        f"| drift | pictures | {' | '.join(f'alarms, {rule}' for rule in rules)} |",
        "|---|---|" + "---|" * len(rules),
    ]
    for kind, sizes in result.items():
        for size, shares in sizes.items():
            lines.append(f"| {kind} | {size:,} | {' | '.join(f'{shares[rule]:.3f}' for rule in rules)} |")
    return "\n".join(lines)


def plot(result: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind, sizes in result.items():
        dashed = {"linestyle": "--", "color": "black"} if kind == "none" else {}
        axes.plot(list(sizes), [shares["1 %"] for shares in sizes.values()], marker="o", label=kind, **dashed)
    axes.set(xlabel="pictures in the window", ylabel="share of windows with an alarm", xscale="log", ylim=(-0.02, 1.02))
    axes.set_title("Alarms at a false alarm rate of 1 %")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, help="folder of pictures like those that a service gets")
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--imgsz", type=int, default=None)
    parser.add_argument("--limit", type=int, default=1000, help="pictures, evenly picked")
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 100, 300, 1000], help="pictures in a window")
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--windows", type=int, default=20, help="windows of each split; 50 × 20 = 1,000")
    parser.add_argument("--draws", type=int, default=1000, help="windows behind each threshold")
    parser.add_argument("--out", type=Path, default=Path("reports/drift"))
    given = parser.parse_args(arguments)
    found = sorted(path for path in given.pictures.rglob("*") if path.suffix.lower() in SUFFIXES)
    pictures = [found[i] for i in np.linspace(0, len(found) - 1, min(given.limit, len(found))).astype(int)]
    detector = Detector.load(given.model, imgsz=given.imgsz)
    digest = detector.spec.files["onnx"].sha256
    kinds = {}
    for name, (change, quality) in CHANGES.items():
        path = given.out / f"{name.replace(' ', '-')}-{len(pictures)}.parquet"
        if not path.is_file():
            observed = observe(pictures, detector, change, quality, title=name)
            write_observations(path, observed, model=digest, origin=name)
        kinds[name] = read_reference(path).observations
    result = simulate(kinds, sizes=given.sizes, splits=given.splits, repeats=given.windows, draws=given.draws)
    (given.out / "drift.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(result, given.out / "drift.png")
    faces = int(kinds["none"].counts.sum())
    print(f"{len(pictures):,} pictures, {faces:,} faces, {detector.spec.version} at {detector.imgsz} px\n")
    print(tables(result))


if __name__ == "__main__":
    main()
