"""Maps the classes of a set by name: through the user's options, a card, and the taxonomy."""

from collections.abc import Mapping

from emotion_yolo.data.cards import DatasetCard
from emotion_yolo.data.taxonomy import IGNORE, nearest, target_from_text, target_of
from emotion_yolo.errors import LayoutError
from emotion_yolo.paths import CARDS
from emotion_yolo.structures.emotions import FACE_NAME, NAMES


def parse_mapping(options: list[str]) -> dict[str, str | None]:
    """Read `--map 'Joy=happy'` options: class name → an emotion, `face`, or None for `ignore`.

    Raises:
        LayoutError: an option of another form, or a class given twice.
    """
    mapping: dict[str, str | None] = {}
    for option in options:
        name, sign, target = option.rpartition("=")
        name = name.strip()
        if not sign or not name:
            raise LayoutError(f"--map {option!r}: expected 'class name=emotion', such as --map 'Joy=happy'")
        if name in mapping:
            raise LayoutError(f"--map {option!r}: {name} is given twice; give it once")
        try:
            mapping[name] = target_from_text(target)
        except ValueError as error:
            raise LayoutError(f"--map {option!r}: {error}") from error
    return mapping


def map_classes(
    names: Mapping[int, str],
    pictures: Mapping[int, int],
    *,
    card: DatasetCard | None,
    mapping: Mapping[str, str | None],
    where: str,
) -> tuple[dict[str, str | None], list[str]]:
    """Return what each class name stands for, and remarks; `pictures` counts those that show a class, by id.

    Classes that no picture shows may be unknown: they are ignored, which is a remark.

    Raises:
        LayoutError: classes that are shown and unknown, all of them listed, or none that is an emotion or a face.
    """
    given = {name: target_from_text(text) for name, text in card.map.items()} if card else {}
    given |= mapping
    if unknown_names := mapping.keys() - set(names.values()):
        raise LayoutError(
            f"{where}: --map names {', '.join(sorted(unknown_names))}, which is no class of this set; its classes are "
            f"{', '.join(names.values())}"
        )
    shown: dict[str, int] = {}
    for number, name in names.items():
        shown[name] = shown.get(name, 0) + pictures.get(number, 0)
    classes: dict[str, str | None] = {}
    unknown: list[str] = []
    unused: list[str] = []
    for name, count in shown.items():
        classes[name] = given[name] if name in given else target_of(name)
        if name not in given and classes[name] is None:
            (unknown if count else unused).append(name)
    targets = {target for name, target in classes.items() if target is not None and shown[name]}
    if not targets and not given:
        raise LayoutError(
            f"{where}: no class is an emotion or a face; got {', '.join(classes)}; expected some of "
            f"{', '.join(NAMES)}, or {FACE_NAME}; take another set{_advice(unknown, shown)}"
        )
    if unknown:
        raise LayoutError(
            f"{where}: {len(unknown)} of {len(classes)} classes are unknown{_advice(unknown, shown)}; expected "
            f"{', '.join(NAMES)}, their usual nouns and adjectives, or {FACE_NAME}"
        )
    if not targets:
        raise LayoutError(f"{where}: no picture shows a class that is not ignored; map at least one to an emotion")
    remarks = [f"classes that no picture shows were ignored: {', '.join(unused)}"] if unused else []
    if targets != {FACE_NAME} and (missing := [name for name in NAMES if name not in targets]):
        remarks.append(f"no picture shows {', '.join(missing)}")
    return classes, remarks


def _advice(unknown: list[str], shown: Mapping[str, int]) -> str:
    lines = "".join(f"\n  {name} ({shown[name]:,} pictures; nearest: {nearest(name)})" for name in unknown)
    if not lines:
        return ""
    example = f"--map '{unknown[0]}={nearest(unknown[0])}'"
    return (
        f":{lines}\nsay what each means with {example} (or ={FACE_NAME}, ={IGNORE}), or under map in a card in {CARDS}/"
    )
