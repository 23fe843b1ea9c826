"""Write the bundled sample: made-up faces in AffectNet's own YOLO format, and scenes with true boxes.

Each of its three folders is a set as in `data/`: crops, scenes whose faces have no emotion, and groups of
people whose faces have one. Like the real set, its crops carry labels that say nothing about where the face is, its
file names recur across splits, and a few of its pictures have near-duplicates in another split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.portraits.composing import Crop, Scene, compose_crop, compose_scene, random_generator
from emotion_yolo.structures.boxes import xyxy_to_xywhn
from emotion_yolo.structures.emotions import Emotion

CROP_COUNTS: dict[str, int] = {"train": 640, "valid": 128, "test": 192}
SCENE_COUNT = 48
GROUP_COUNTS: dict[str, int] = {"train": 20, "valid": 5, "test": 8}
CROPS, SCENES, GROUPS = "sample", "sample-scenes", "sample-groups"
"""Folders of the three sets, named after their cards."""
FULL_FRAME = "0.499 0.499 0.999 0.999"
"""What every label line of AffectNet in YOLO format says about where the face is."""

_SCENE_QUALITY = 82
_NEAR_DUPLICATE_QUALITY = 60


@dataclass(frozen=True, slots=True)
class PlantedNearDuplicate:
    """Name a crop that is taken from the train split instead of being drawn; both indices are of the same class."""

    split: str
    index: int
    train_index: int
    exact: bool  # the same bytes, or encoded anew at another JPEG quality


PLANTED_NEAR_DUPLICATES = (
    PlantedNearDuplicate("test", 12, 4, exact=True),
    PlantedNearDuplicate("test", 29, 13, exact=True),
    PlantedNearDuplicate("test", 47, 31, exact=True),
    PlantedNearDuplicate("valid", 18, 2, exact=False),
    PlantedNearDuplicate("valid", 38, 22, exact=False),
)


@dataclass(frozen=True, slots=True)
class CropFile:
    """Hold a crop as stored on disk."""

    name: str  # without extension
    emotion: Emotion
    jpeg: bytes


def crop_emotion(index: int) -> Emotion:
    """Return the class of the crop at `index` of any split: the classes take turns, so that every split is balanced."""
    return Emotion(index % len(Emotion))


def draw_crop(split: str, index: int, *, seed: int) -> Crop:
    """Draw the crop at `index` of `split`, independently of the rest of the sample."""
    return compose_crop(crop_emotion(index), random_generator(seed, split, index))


def crop_file(split: str, index: int, *, seed: int) -> CropFile:
    """Return the file of the crop at `index` of `split`, planted near-duplicates included."""
    planted = next(
        (planted for planted in PLANTED_NEAR_DUPLICATES if (planted.split, planted.index) == (split, index)),
        None,
    )
    crop = draw_crop("train", planted.train_index, seed=seed) if planted else draw_crop(split, index, seed=seed)
    quality = _NEAR_DUPLICATE_QUALITY if planted and not planted.exact else crop.jpeg_quality
    # Numbered per split, as the real set is: the same name means another picture elsewhere.
    name = f"ffhq_{index:04d}" if crop.ffhq else f"image{index:07d}"
    return CropFile(name=name, emotion=crop.emotion, jpeg=encode_jpeg(crop.image, quality=quality))


def generate_sample(
    out: Path,
    *,
    seed: int,
    crop_counts: Mapping[str, int] = CROP_COUNTS,
    scene_count: int = SCENE_COUNT,
    group_counts: Mapping[str, int] = GROUP_COUNTS,
) -> None:
    """Write the sample into the folder `out`: three sets and a README.

    Existing files of the same name are replaced. Each picture depends on `seed`, its split and its index alone; the
    bytes are the same on every run with the same versions of NumPy and OpenCV.
    """
    for split, count in crop_counts.items():
        images, labels = _folders(out / CROPS / split)
        for index in range(count):
            file = crop_file(split, index, seed=seed)
            (images / f"{file.name}.jpg").write_bytes(file.jpeg)
            (labels / f"{file.name}.txt").write_text(f"{int(file.emotion)} {FULL_FRAME}\n", encoding="utf-8")
    for index in range(scene_count):
        scene = compose_scene(random_generator(seed, "scenes", index))
        _write_scene(scene, out / SCENES / "all", f"scene_{index:03d}", [0] * len(scene.emotions))
    for split, count in group_counts.items():
        for index in range(count):
            scene = compose_scene(random_generator(seed, f"groups/{split}", index))
            _write_scene(scene, out / GROUPS / split, f"group_{index:03d}", [int(e) for e in scene.emotions])
    for folder, content in (
        (CROPS, _class_table()),
        (SCENES, 'train: "images"\nval: "images"\n\nnc: 1\n\nnames: ["face"]\n'),
        (GROUPS, _class_table()),
    ):
        (out / folder).mkdir(parents=True, exist_ok=True)
        (out / folder / "data.yaml").write_text(content, encoding="utf-8")
    (out / "README.md").write_text(_readme(seed, crop_counts, scene_count, group_counts), encoding="utf-8")


def _write_scene(scene: Scene, folder: Path, stem: str, class_ids: Sequence[int]) -> None:
    images, labels = _folders(folder)
    height, width = scene.image.shape[:2]
    boxes = xyxy_to_xywhn(scene.faces_xyxy, image_wh=(width, height))
    lines = (
        " ".join([str(cls), *(f"{value:.6f}" for value in box)]) + "\n"
        for cls, box in zip(class_ids, boxes, strict=True)
    )
    (images / f"{stem}.jpg").write_bytes(encode_jpeg(scene.image, quality=_SCENE_QUALITY))
    (labels / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")


def encode_jpeg(image: NDArray[np.uint8], *, quality: int) -> bytes:
    """Return an RGB picture as the bytes of a JPEG file."""
    _, buffer = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return buffer.tobytes()


def _folders(folder: Path) -> tuple[Path, Path]:
    images, labels = folder / "images", folder / "labels"
    for made in (images, labels):
        made.mkdir(parents=True, exist_ok=True)
    return images, labels


def _class_table() -> str:
    names = ", ".join(f'"{emotion.label.capitalize()}"' for emotion in Emotion)
    return (
        f'train: "train/images"\nval: "valid/images"\ntest: "test/images"\n\nnc: {len(Emotion)}\n\nnames: [{names}]\n'
    )


def _readme(seed: int, crop_counts: Mapping[str, int], scene_count: int, group_counts: Mapping[str, int]) -> str:
    counts, groups = (
        ", ".join(f"{count} {split}" for split, count in each.items()) for each in (crop_counts, group_counts)
    )
    near_duplicates = "".join(
        f"| {planted.split}, no. {planted.index} | train, no. {planted.train_index} | "
        f"{'the same bytes' if planted.exact else f'encoded anew at JPEG quality {_NEAR_DUPLICATE_QUALITY}'} |\n"
        for planted in PLANTED_NEAR_DUPLICATES
        if planted.index < crop_counts.get(planted.split, 0)
    )
    return f"""# The bundled sample

Drawings, not photographs: **no real person is shown.** Every face is drawn by the package `emotion_yolo.portraits`
from facial action units (EMFACS), a random identity, pose, light and background. Generated with seed {seed};
`emotion-yolo sample OUT --seed {seed}` writes it anew. Licence: CC0-1.0, use it as you like.

- `{CROPS}/`: {counts} pictures of 96 by 96 pixels, balanced over AffectNet's eight classes, in
  the layout of AffectNet in YOLO format. As there, every label says `<class> {FULL_FRAME}`: the expression, but
  nothing about where the face is. Files named `ffhq_...` are the cleaner, more frontal pictures, more frequent
  among happy faces than among frightened ones, as in the real set.
- `{SCENES}/`: {scene_count} pictures of one to six people with the true box of each face, from chin to hairline; \
class 0
  is `face`, the expression is not given. They have no splits: `prepare` deals them out.
- `{GROUPS}/`: {groups} pictures of one to six people with the true box and the expression of each face.

The numbers in the file names count per split: the same name in two splits means two pictures. A few crops have a
near-duplicate in train on purpose, so that the check for leaks has something to find:

| crop | near-duplicate of | how |
|---|---|---|
{near_duplicates}
It serves to try the pipeline. A model trained on it alone recognises drawings, not people.
"""
