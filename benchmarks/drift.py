"""How often `emotion-yolo monitor` raises a false alarm, and what drift it notices with how many pictures.

    python -m benchmarks.drift PICTURES --model models/release --out reports/drift

Every picture goes through the detector once as it is and once for each kind of made drift (kept in `--out`, so that a
second run only simulates). Half of the pictures, drawn anew each time, are the reference; windows are drawn from the
other half, with or without drift, each picture at most once where there are enough. False alarms: 1,000 windows of each
size; `--windows` and `--splits` make it fewer. An interrupted run goes on. Prints tables in Markdown, draws a plot.
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
from emotion_yolo.monitoring.drift import COLUMNS, DRAWS, Comparison, distances, draw_null
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
EVIDENTLY, EVIDENTLY_THRESHOLD = "Evidently", 0.1
MIX = "other emotion mix"
CONSTANT = "constant frame"

Change = Callable[[Image, int], Image]


def darker(image: Image, _: int) -> Image:
    return (image * 0.5).astype(np.uint8)


def blurred(image: Image, _: int) -> Image:
    sigma = max(max(image.shape[:2]) / 256, 1.0)  # px; less is hardly seen on a small crop
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


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


def draw_window(
    kind: str, kinds: dict[str, Observations], half: Indices, size: int, random: np.random.Generator
) -> Observations:
    """Draw a window of one kind of drift from the pictures at `half`, each at most once where there are enough."""
    plain = kinds["none"]
    if kind == CONSTANT:
        return plain.take(np.full(size, random.choice(half)))
    if kind == MIX:  # happy pictures are three times as likely as they were
        weights = np.where(happy_pictures(plain)[half], 3.0, 1.0)
        return plain.take(random.choice(half, size, p=weights / weights.sum()))
    return kinds[kind].take(random.choice(half, size, replace=size > len(half)))


Alarms = dict[str, dict[str, int]]
"""By kind of drift: `windows`, and how many of them each rule calls drifted."""


def simulate_split(
    kinds: dict[str, Observations], *, split: int, size: int, repeats: int, drifted: int, draws: int
) -> Alarms:
    """Return the alarms of one reference: `repeats` windows without drift, `drifted` of each kind with it.

    Each split has a seed of its own: an interrupted simulation ends as one that was not.
    """
    random = np.random.default_rng([split, size])
    order = random.permutation(len(kinds["none"]))
    reference, rest = kinds["none"].take(order[: len(order) // 2]), order[len(order) // 2 :]
    null = draw_null(reference, pictures=size, draws=draws, seed=split)
    limits = {_rule(rate): null.thresholds(rate) for rate in RATES}
    alarms: Alarms = {}
    for kind in (*kinds, MIX, CONSTANT):
        count = repeats if kind == "none" else drifted
        of_kind = alarms[kind] = {"windows": count, **dict.fromkeys([*limits, EVIDENTLY], 0)}
        for _ in range(count):
            found = distances(reference, draw_window(kind, kinds, rest, size, random))
            for rule, limit in limits.items():
                of_kind[rule] += bool(Comparison(found, limit).drifted)
            of_kind[EVIDENTLY] += sum(value >= EVIDENTLY_THRESHOLD for value in found.values()) >= len(COLUMNS) / 2
    return alarms


def _rule(rate: float) -> str:
    return f"{rate:.0%}".replace("%", " %")


def simulate(
    kinds: dict[str, Observations],
    *,
    sizes: Sequence[int],
    splits: int,
    repeats: int,
    drifted: int,
    draws: int,
    done: Path,
) -> dict[str, dict[int, dict[str, float]]]:
    """Return the share of windows with an alarm, by kind of drift, window size and rule.

    A line of `done` is a split of a size; those that are there are not simulated again.
    """
    settings = [len(kinds["none"]), repeats, drifted, draws]
    found: dict[tuple[int, int], Alarms] = {}
    if done.is_file():
        for line in done.read_text("utf-8").splitlines():
            row = json.loads(line)
            if row["settings"] == settings:
                found[row["size"], row["split"]] = row["alarms"]
    wanted = [(size, split) for size in sizes for split in range(splits)]
    with counting("simulate", unit="splits") as progress:
        for number, (size, split) in enumerate(wanted, 1):
            if (size, split) not in found:
                alarms = simulate_split(kinds, split=split, size=size, repeats=repeats, drifted=drifted, draws=draws)
                found[size, split] = alarms
                with done.open("a", encoding="utf-8") as file:
                    row = {"settings": settings, "size": size, "split": split, "alarms": alarms}
                    file.write(json.dumps(row) + "\n")
            progress(number, len(wanted))
    result: dict[str, dict[int, dict[str, float]]] = {}
    for kind in (*kinds, MIX, CONSTANT):
        for size in sizes:
            rows = [found[size, split][kind] for split in range(splits)]
            total = sum(row["windows"] for row in rows)
            shares = {rule: sum(row[rule] for row in rows) / total for rule in rows[0] if rule != "windows"}
            result.setdefault(kind, {})[size] = shares
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
    parser.add_argument("--limit", type=int, default=800, help="pictures, evenly picked")
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 100, 300], help="pictures in a window")
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--windows", type=int, default=20, help="windows without drift of each split; 50 × 20 = 1,000")
    parser.add_argument("--drifted", type=int, default=4, help="windows of each kind of drift of each split")
    parser.add_argument("--draws", type=int, default=DRAWS, help="windows behind each threshold")
    parser.add_argument("--out", type=Path, default=Path("reports/drift"))
    given = parser.parse_args(arguments)
    found = sorted(path for path in given.pictures.rglob("*") if path.suffix.lower() in SUFFIXES)
    pictures = [found[i] for i in np.linspace(0, len(found) - 1, min(given.limit, len(found))).astype(int)]
    detector = Detector.load(given.model, imgsz=given.imgsz)
    digest = detector.spec.files["onnx"].sha256
    kinds = {}
    for name, (change, quality) in CHANGES.items():
        path = given.out / f"{name.replace(' ', '-')}-{len(pictures)}.parquet"
        if not path.is_file() or read_reference(path).model != digest:
            observed = observe(pictures, detector, change, quality, title=name)
            write_observations(path, observed, model=digest, origin=name)
        kinds[name] = read_reference(path).observations
    result = simulate(
        kinds,
        sizes=given.sizes,
        splits=given.splits,
        repeats=given.windows,
        drifted=given.drifted,
        draws=given.draws,
        done=given.out / "alarms.jsonl",
    )
    (given.out / "drift.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(result, given.out / "drift.png")
    faces = int(kinds["none"].counts.sum())
    print(f"{len(pictures):,} pictures, {faces:,} faces, {detector.spec.version} at {detector.imgsz} px\n")
    print(tables(result))


if __name__ == "__main__":
    main()
