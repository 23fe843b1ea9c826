"""Sets in COCO's format: JSON files with `images`, `annotations` and `categories`."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from emotion_yolo.data.cards import Split
from emotion_yolo.errors import LayoutError
from emotion_yolo.sources.layouts.found import FoundSet, Item, Remarks, is_picture, pictures_below, split_of

_FOLDERS = ("annotations", "train", "valid", "val", "test")
_SHOWN = 3  # mistakes of a file in a message

Side = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Image(BaseModel):
    id: int | str
    file_name: str
    width: Side
    height: Side


class _Annotation(BaseModel):
    image_id: int | str
    category_id: int
    bbox: Annotated[list[Number], Field(min_length=4, max_length=4)] | None = None
    segmentation: Any = None
    iscrowd: bool = False


class _Category(BaseModel):
    id: int
    name: str


class _Coco(BaseModel):
    """What is read of a file; other keys are ignored."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: Annotated[list[_Category], Field(min_length=1)]


def find(root: Path) -> FoundSet | None:
    """Return the set in COCO's format whose root is this folder, if there is one.

    Raises:
        LayoutError: a file of annotations that cannot be used, or two whose categories contradict each other.
    """
    paths = [path for folder in (root, *(root / name for name in _FOLDERS)) for path in _json_files(folder)]
    files = [(path, coco) for path in paths if (coco := _load(path)) is not None]
    if not files:
        return None
    categories: dict[int, str] = {}
    for path, coco in files:
        for category in coco.categories:
            known = categories.setdefault(category.id, category.name)
            if known != category.name:
                raise LayoutError(
                    f"{path}: category {category.id} is {category.name!r}, in another file {known!r}; give every file "
                    "the same categories"
                )
    numbers = {key: number for number, key in enumerate(sorted(categories))}
    names = {number: categories[key] for key, number in numbers.items()}
    read = partial(_read, root, files, numbers)
    return FoundSet(root, "COCO JSON", names, read, "not in any file of annotations")


def _json_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def _load(path: Path) -> _Coco | None:
    """Read a file of annotations; None where it is JSON of another kind."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise LayoutError(f"{path}: cannot be read as JSON ({error}); correct or remove it") from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        return None
    try:
        return _Coco.model_validate(content)
    except ValidationError as error:
        found = error.errors()
        shown = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise LayoutError(f"{path}: not COCO annotations: {shown}{more}; correct the file") from error


def _read(root: Path, files: Sequence[tuple[Path, _Coco]], numbers: dict[int, int], remarks: Remarks) -> Iterator[Item]:
    index: defaultdict[str, list[Path]] = defaultdict(list)
    for picture in pictures_below(root):
        index[picture.name].append(picture)
    crowds = from_polygons = unlisted = degenerate = 0
    for path, coco in files:
        split = split_of(path.stem) or (split_of(path.parent.name) if path.parent != root else None)
        by_image: defaultdict[int | str, list[_Annotation]] = defaultdict(list)
        for annotation in coco.annotations:
            by_image[annotation.image_id].append(annotation)
        for image in coco.images:
            found = _picture(root, path, image.file_name, split, index)
            if found is None:
                reason = f"no file {image.file_name} below {root.name}/; restore it or drop its entry"
                remarks.left_out.append((f"{path.name}: image {image.id}", reason))
                by_image.pop(image.id, None)
                continue
            lines = []
            for annotation in by_image.pop(image.id, []):
                box = annotation.bbox
                if annotation.iscrowd:
                    crowds += 1
                    continue
                if annotation.category_id not in numbers:
                    raise LayoutError(
                        f"{path}: annotation of image {image.id} has category {annotation.category_id}; expected one "
                        f"of {', '.join(map(str, numbers))}; correct the file"
                    )
                if box is None and (box := _box_of_polygons(annotation.segmentation)) is not None:
                    from_polygons += 1
                if box is None or (line := _line(numbers[annotation.category_id], box, image)) is None:
                    degenerate += 1
                    continue
                lines.append(line)
            yield Item(split, _name(found, root), found, "".join(lines))
        unlisted += sum(map(len, by_image.values()))
    for count, what in (
        (crowds, "annotations of crowds (iscrowd) were left out"),
        (from_polygons, "polygons without a bbox became the boxes around them"),
        (degenerate, "annotations without a box inside their picture were left out"),
        (unlisted, "annotations belong to no listed picture and were left out"),
    ):
        if count:
            remarks.notes.append(f"{count:,} {what}")


def _picture(root: Path, path: Path, file_name: str, split: Split | None, index: dict[str, list[Path]]) -> Path | None:
    """Find a picture beside its file of annotations, below images/, or anywhere where its name is unique."""
    relative = PurePosixPath(file_name.replace("\\", "/"))
    candidates = index.get(relative.name, []) if is_picture(relative.name) else []
    ending = [p for p in candidates if p.as_posix().endswith(f"/{relative.as_posix().lstrip('./')}")] or candidates
    if len(ending) > 1:
        beside = [p for p in ending if p.parent == path.parent]
        of_split = [p for p in ending if split is not None and split_of(p.parent.relative_to(root).as_posix()) == split]
        ending = beside or of_split
    return ending[0] if len(ending) == 1 else None


def _name(picture: Path, root: Path) -> PurePosixPath:
    """Return a picture's path below images/: without the folders that say only which split it is of."""
    parts = picture.relative_to(root).parts
    folders = [part for part in parts[:-1] if part != "images" and split_of(part) is None]
    return PurePosixPath(*folders, parts[-1])


def _box_of_polygons(segmentation: Any) -> list[float] | None:
    """Return the x, y, w, h around all polygons; None for masks in run lengths and what is no polygon."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    try:
        numbers = [[float(value) for value in polygon] for polygon in segmentation]
    except (TypeError, ValueError):
        return None
    xs = [value for polygon in numbers for value in polygon[::2]]
    ys = [value for polygon in numbers for value in polygon[1::2]]
    if not xs or not ys:
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _line(number: int, box: Sequence[float], image: _Image) -> str | None:
    """Return a box in pixels as a label line, clipped to the picture; None where nothing of it is inside."""
    x, y, w, h = box
    x1, x2 = max(x, 0) / image.width, min(x + w, image.width) / image.width
    y1, y2 = max(y, 0) / image.height, min(y + h, image.height) / image.height
    if x2 <= x1 or y2 <= y1:
        return None
    return f"{number} {(x1 + x2) / 2:.6f} {(y1 + y2) / 2:.6f} {x2 - x1:.6f} {y2 - y1:.6f}\n"
