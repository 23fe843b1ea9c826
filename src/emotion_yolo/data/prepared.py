"""Reads the prepared set: which pictures a split holds, with their labels, where they came from, and their pixels."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from emotion_yolo.data.cards import Split
from emotion_yolo.errors import LayoutError
from emotion_yolo.structures.emotions import FACE_NAME, NAMES
from emotion_yolo.structures.images import SUFFIXES, Image, read_rgb
from emotion_yolo.structures.labels import Labels, read

Source = Literal["ffhq", "other"]

SOURCES: tuple[Source, ...] = ("ffhq", "other")
CLASSES: tuple[str, ...] = (*NAMES, FACE_NAME)
"""Class names of prepared labels by id."""

_FFHQ_PREFIX = "ffhq_"


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture and its faces; class ids as in `CLASSES`."""

    image: Path
    labels: Labels

    @property
    def source(self) -> Source:
        """Return whose photograph it is, which AffectNet's file names tell: Flickr-Faces-HQ's, or others'."""
        return "ffhq" if self.image.name.startswith(_FFHQ_PREFIX) else "other"


def read_crops(root: Path, split: Split) -> list[Sample]:
    """Return the crops of a split, by name.

    Raises:
        LayoutError: no prepared set, or none of this split, or one with other classes.
        LabelError: a label file that is missing or cannot be used.
    """
    _check_classes(root)
    samples = _samples(root / "images" / split, root / "labels" / split)
    if not samples:
        raise LayoutError(
            f"{root / 'images' / split}: no pictures, expected the crops of {split}; run `dvc repro prepare`"
        )
    return samples


def read_scenes(root: Path, split: Split) -> list[Sample]:
    """Return the photographs of several faces of a split, by name; none where the set has no scenes.

    Raises:
        LayoutError: no prepared set, or one with other classes.
        LabelError: a label file that is missing or cannot be used.
    """
    _check_classes(root)
    folder = root / "scenes" / split
    return _samples(folder / "images", folder / "labels")


def decoded(samples: Sequence[Sample], *, threads: int = 2, ahead: int = 8) -> Iterator[tuple[Sample, Image]]:
    """Yield each sample with its RGB picture [H, W, 3], in order; reads at most `ahead` pictures in advance.

    Raises:
        ImageError: a picture that cannot be decoded.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Sample, Future[Image]]] = deque()
        for sample in samples:
            waiting.append((sample, pool.submit(read_rgb, sample.image)))
            if len(waiting) > ahead:
                done, image = waiting.popleft()
                yield done, image.result()
        while waiting:
            done, image = waiting.popleft()
            yield done, image.result()


def _check_classes(root: Path) -> None:
    path = root / "data.yaml"
    try:
        names = yaml.safe_load(path.read_text("utf-8"))["names"]
    except OSError as error:
        raise LayoutError(f"{path}: no prepared set there ({error.strerror}); run `dvc repro prepare`") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise LayoutError(f"{path}: has no table of class names; run `dvc repro --force prepare`") from error
    if names != dict(enumerate(CLASSES)):
        raise LayoutError(f"{path}: classes are {names}, expected {dict(enumerate(CLASSES))}; run `dvc repro prepare`")


def _samples(images: Path, labels: Path) -> list[Sample]:
    paths = sorted(path for path in images.glob("*") if path.suffix.lower() in SUFFIXES)
    return [Sample(path, read(labels / f"{path.stem}.txt", class_names=CLASSES)) for path in paths]
