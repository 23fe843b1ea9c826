import re

import pytest

from emotion_yolo import errors
from emotion_yolo.errors import EmotionYoloError

TREE = {
    "EmotionYoloError": ("Exception", 1),
    "ParamsError": ("EmotionYoloError", 3),
    "SourceError": ("EmotionYoloError", 4),
    "ArchiveError": ("SourceError", 5),
    "LayoutError": ("SourceError", 6),
    "StorageError": ("SourceError", 7),
    "DataError": ("EmotionYoloError", 8),
    "LabelError": ("DataError", 9),
    "ImageError": ("DataError", 10),
    "ModelError": ("EmotionYoloError", 11),
    "ParityError": ("ModelError", 12),
    "TrainingError": ("EmotionYoloError", 13),
    "SettingsError": ("EmotionYoloError", 14),
    "RecipeError": ("EmotionYoloError", 15),
    "DependencyError": ("EmotionYoloError", 16),
    "MonitoringError": ("EmotionYoloError", 17),
    "DriftError": ("MonitoringError", 18),
    "PromotionError": ("EmotionYoloError", 19),
}
"""Public API: scripts around the command line act on these names and exit codes."""


def classes() -> dict[str, type[EmotionYoloError]]:
    return {
        name: item
        for name, item in vars(errors).items()
        if isinstance(item, type) and issubclass(item, EmotionYoloError)
    }


def test_the_tree_is_the_public_one() -> None:
    assert {name: (item.__base__.__name__, item.exit_code) for name, item in classes().items() if item.__base__} == TREE


def test_every_exit_code_is_its_own_and_none_that_shells_and_click_use() -> None:
    codes = [item.exit_code for item in classes().values()]
    assert len(set(codes)) == len(codes)
    assert not {0, 2, *range(126, 256)} & set(codes)


def test_the_docstring_draws_the_tree() -> None:
    drawn = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│├└─ ]*)(\w+Error) +exit (\d+)", line):
            depth = len(match[1]) // 4
            ancestors = [*ancestors[:depth], match[2]]
            drawn[match[2]] = (ancestors[depth - 1] if depth else "Exception", int(match[3]))
    assert drawn == TREE


@pytest.mark.parametrize("name", TREE)
def test_one_except_clause_catches_every_error(name: str) -> None:
    with pytest.raises(EmotionYoloError, match="what and where"):
        raise classes()[name]("what and where")
