"""What batches are composed of: the single crops and the photographs of the prepared set, on the training device."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from emotion_yolo.composition.draws import Device
from emotion_yolo.composition.textures import Textures, textures_of
from emotion_yolo.composition.views import Floats
from emotion_yolo.data.prepared import Kind, Sample, decoded, read_split
from emotion_yolo.errors import ParamsError
from emotion_yolo.structures.boxes import iou_matrix, xywhn_to_xyxy
from emotion_yolo.structures.emotions import FACE_ID, NAMES
from emotion_yolo.structures.images import Image

_CROP_SIDES = (32, 224)  # px, least and largest side at which the crops of a set are kept
_PHOTOGRAPH_SIDE = 640  # px, largest side at which photographs are kept
_PATCH_SIDE = 160  # px, side at which parts of photographs without a face are kept
_LEAST_PATCH = 60  # px of the photograph
_TRIES = 40  # squares drawn a photograph in search of such parts
_FROM_EACH = 2  # of them kept, the largest
_WITH_HAIR = 1.6  # boxes are taken so much larger there: hair and ears are parts of a face too


@dataclass(frozen=True)
class Faces:
    """The single crops of one data set, one face each."""

    name: str
    textures: Textures
    boxes: Floats
    """[N, 4] xyxy, px of the textures."""
    ids: NDArray[np.int64]
    """[N] class ids, see `Material.targets`."""
    emotions: NDArray[np.int64]
    """[N] the likeliest emotion, `FACE_ID` where nobody named one."""
    sources: NDArray[np.str_]
    """[N] origin within the set."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Photographs:
    """Pictures with any number of faces."""

    textures: Textures
    boxes: tuple[Floats, ...]
    """Of each photograph [n, 4] xyxy, px of the textures."""
    ids: tuple[NDArray[np.int64], ...]
    """Of each photograph [n], as those of `Faces`."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Material:
    """All that batches are composed of."""

    faces: tuple[Faces, ...]
    photographs: Photographs | None
    patches: Textures | None
    """Square parts of photographs without a labelled face, and prepared pictures without any: backgrounds."""
    targets: NDArray[np.float32]
    """[T, 8] soft labels. A class id from `FACE_ID` + 1 on is the row of one, see `yolo.assigner`."""
    labels: tuple[dict[str, NDArray[np.float32]], ...]
    """Of each picture `cls` [n, 1] and `bboxes` xywhn [n, 4], as Ultralytics' data sets list them."""

    def labels_of(self, faces: Faces) -> NDArray[np.float32]:
        """Return the probabilities of the emotions [N, 8] as labelled; all alike where nobody named one."""
        alike = np.full((1, len(NAMES)), 1 / len(NAMES), np.float32)
        rows = np.concatenate([np.eye(len(NAMES), dtype=np.float32), alike, self.targets])
        return np.asarray(rows[faces.ids], np.float32)


def read_material(root: Path, *, device: Device) -> Material:
    """Read the train split of the prepared set in `root` into the memory of `device`.

    Raises:
        ParamsError: crops that lie on sheets, or none at all.
        LayoutError, LabelError, ImageError: see `data.prepared`.
    """
    samples = read_split(root, "train")
    by_set: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.kind is Kind.SINGLE and len(sample.labels) == 1:
            by_set[sample.set].append(sample)
    if not by_set or any(sample.kind is Kind.SHEET for sample in samples):
        found = "crops on sheets" if by_set else "no single crops"
        raise ParamsError(
            f"params.yaml: train.compose.updates: batches are composed of single crops, and {root} has {found}; "
            "set prepare.sheets.side to 0, or train.compose.updates to 0"
        )
    rows: list[NDArray[np.float32]] = []
    faces = tuple(_faces(name, found, rows, device) for name, found in sorted(by_set.items()))
    scenes = [sample for sample in samples if sample.kind is Kind.SCENE]
    photographs = _photographs(scenes, rows, device) if scenes else None
    negatives = [sample for sample in samples if sample.kind is Kind.NEGATIVE]
    places = [*_patches(scenes), *_images(negatives)]
    patches = textures_of(places, count=len(places), side=_PATCH_SIDE, device=device) if places else None
    ids = [face.ids[[place]] for face in faces for place in range(len(face))]
    order = [sample for _, found in sorted(by_set.items()) for sample in found] + scenes
    labels = tuple(
        {"cls": cls[:, None].astype(np.float32), "bboxes": sample.labels.xywhn.astype(np.float32)}
        for cls, sample in zip([*ids, *(photographs.ids if photographs else ())], order, strict=True)
    )
    return Material(faces, photographs, patches, np.asarray(rows, np.float32).reshape(-1, len(NAMES)), labels)


def _ids(sample: Sample, rows: list[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Return the class ids [n] of a picture's faces; soft labels are added to `rows`, and stand for the labels."""
    ids = sample.labels.cls.copy()
    if sample.soft is not None:
        named = np.flatnonzero(~np.isnan(sample.soft).any(axis=1))
        ids[named] = FACE_ID + 1 + len(rows) + np.arange(len(named))
        rows.extend(sample.soft[named])
    return ids


def _faces(name: str, samples: Sequence[Sample], rows: list[NDArray[np.float32]], device: Device) -> Faces:
    longest = [max(_size_of(sample.image)) for sample in samples]
    side = int(np.clip(-(-np.percentile(longest, 90) // 8) * 8, *_CROP_SIDES))
    textures = textures_of(_images(samples), count=len(samples), side=side, device=device)
    xywhn = np.concatenate([sample.labels.xywhn for sample in samples])
    boxes = xywhn_to_xyxy(xywhn, image_wh=(1, 1)) * np.tile(textures.wh, 2)
    first = len(rows)
    ids = np.concatenate([_ids(sample, rows) for sample in samples])
    # Rows of soft labels were numbered through: those of this set begin at `first`.
    likeliest = [int(row.argmax()) for row in rows[first:]]
    emotions = [likeliest[number - FACE_ID - 1 - first] if number > FACE_ID else int(number) for number in ids]
    return Faces(name, textures, boxes, ids, np.asarray(emotions), np.asarray([sample.source for sample in samples]))


def _images(samples: Sequence[Sample]) -> Iterator[Image]:
    return (image for _, image in decoded(samples, threads=os.cpu_count() or 1, ahead=64))


def _size_of(path: Path) -> tuple[int, int]:
    with PillowImage.open(path) as image:  # reads the header alone
        return image.size


def _photographs(scenes: Sequence[Sample], rows: list[NDArray[np.float32]], device: Device) -> Photographs:
    side = min(-(-max(max(_size_of(scene.image)) for scene in scenes) // 8) * 8, _PHOTOGRAPH_SIDE)
    textures = textures_of(_images(scenes), count=len(scenes), side=side, device=device)
    boxes = [
        xywhn_to_xyxy(scene.labels.xywhn, image_wh=(1, 1)) * np.tile(wh, 2)
        for scene, wh in zip(scenes, textures.wh, strict=True)
    ]
    return Photographs(textures, tuple(boxes), tuple(_ids(scene, rows) for scene in scenes))


def _patches(scenes: Sequence[Sample]) -> Iterator[Image]:
    """Yield square parts of photographs in which no face is labelled, at most two of each."""
    rng = np.random.default_rng(0)  # of the data, not of the training: all seeds see the same backgrounds
    for scene, image in zip(scenes, _images(scenes), strict=True):
        height, width = image.shape[:2]
        if min(height, width) < _LEAST_PATCH:
            continue
        faces = xywhn_to_xyxy(scene.labels.xywhn * [1, 1, _WITH_HAIR, _WITH_HAIR], image_wh=(width, height))
        sides = rng.integers(_LEAST_PATCH, min(height, width) + 1, _TRIES)
        x, y = (rng.integers(0, length - sides + 1) for length in (width, height))
        squares = np.stack([x, y, x + sides, y + sides], axis=1).astype(np.float64)
        free = np.flatnonzero((iou_matrix(squares, faces) == 0).all(axis=1))
        for place in free[np.argsort(-sides[free], kind="stable")][:_FROM_EACH]:
            part = image[y[place] : y[place] + sides[place], x[place] : x[place] + sides[place]]
            yield np.asarray(cv2.resize(part, (_PATCH_SIDE, _PATCH_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
