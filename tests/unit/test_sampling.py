from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.errors import ParamsError
from emotion_yolo.params import Sampling
from emotion_yolo.preparation.crops import Crop
from emotion_yolo.preparation.sampling import check_sampling, draw_views, plan_views, table_of

BOX = np.asarray([0.5, 0.5, 0.6, 0.8])


def sampling(**changes: object) -> Sampling:
    given = {
        "faces": 400, "most_views": 50, "class_power": 1.0, "source_power": 1.0, "class_weights": {},
        "source_weights": {}, "smoothing": {},
    }  # fmt: skip
    return Sampling.model_validate({**given, **changes})


def crops_of(counts: dict[tuple[int, str], int]) -> list[Crop]:
    return [
        Crop(Path(f"{cls}-{source}-{i}.jpg"), cls, BOX, source=source)
        for (cls, source), count in counts.items()
        for i in range(count)
    ]


CROPS = crops_of({(4, "studio"): 90, (4, "web"): 10, (3, "web"): 50})


def cells(crops: list[Crop], views: list[int]) -> Counter[tuple[int, str]]:
    return Counter((crops[place].cls, crops[place].source) for place in views)


def test_powers_of_one_keep_the_shares_of_the_data() -> None:
    assert cells(CROPS, draw_views(CROPS, sampling(faces=300), seed=0)) == {
        (4, "studio"): 180,
        (4, "web"): 20,
        (3, "web"): 100,
    }


def test_a_source_power_of_zero_shows_each_source_alike_within_a_class() -> None:
    found = cells(CROPS, draw_views(CROPS, sampling(source_power=0.0, faces=300), seed=0))
    assert found == {(4, "studio"): 100, (4, "web"): 100, (3, "web"): 100}


def test_a_class_power_of_zero_shows_classes_alike_and_weights_change_that() -> None:
    found = cells(CROPS, draw_views(CROPS, sampling(class_power=0.0), seed=0))
    assert found[3, "web"] == 200
    weighted = sampling(class_power=0.0, class_weights={"fear": 3.0}, source_weights={"studio": 0.0})
    assert cells(CROPS, draw_views(CROPS, weighted, seed=0)) == {(3, "web"): 300, (4, "web"): 100}


def test_no_crop_is_shown_too_often_and_the_others_fill_up() -> None:
    views = draw_views(CROPS, sampling(source_power=0.0, faces=300, most_views=4), seed=0)
    assert max(Counter(views).values()) <= 4
    found = cells(CROPS, views)
    assert found[4, "web"] == 40
    assert found.total() == 300


def test_crops_of_a_cell_are_shown_equally_often() -> None:
    views = Counter(draw_views(CROPS, sampling(faces=400), seed=0))
    for cell in {(crop.cls, crop.source) for crop in CROPS}:
        times = [views[i] for i, crop in enumerate(CROPS) if (crop.cls, crop.source) == cell]
        assert max(times) - min(times) <= 1


def test_more_faces_than_can_be_shown_are_all_that_can_be() -> None:
    assert len(draw_views(CROPS, sampling(faces=10_000, most_views=2), seed=0)) == 2 * len(CROPS)


def test_the_same_seed_draws_the_same_views_and_another_others() -> None:
    assert draw_views(CROPS, sampling(), seed=1) == draw_views(CROPS, sampling(), seed=1)
    assert draw_views(CROPS, sampling(), seed=1) != draw_views(CROPS, sampling(), seed=2)


def test_views_are_laid_on_sheets_in_order_with_tiles_left_empty() -> None:
    plans = plan_views(list(range(100)), grids=[1, 3], empty=0.3, seed=0)
    members = [member for plan in plans for member in plan.members]
    assert [member for member in members if member is not None] == list(range(100))
    assert all(len(plan.members) == plan.grid**2 for plan in plans)
    assert all(None not in plan.members for plan in plans if plan.grid == 1)
    assert 20 <= members.count(None) <= 70


def test_faces_are_counted_by_source_and_class() -> None:
    table = table_of([("web", 4), ("web", 4), ("studio", 8)])
    assert table == {"studio": {"face": 1}, "web": {"happy": 2}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_weights": {"joy": 2.0}}, r"class_weights: joy is not there; expected one of anger, "),
        ({"source_weights": {"moon": 1.0}}, r"source_weights: moon is not there; expected one of studio, web"),
        ({"smoothing": {"moon": 0.1}}, r"smoothing: moon is not there"),
    ],
)
def test_weights_of_what_is_not_there_are_refused(changes: dict[str, object], message: str) -> None:
    check_sampling(sampling(class_weights={"happy": 2.0}, source_weights={"web": 1.0}), ["studio", "web"])
    with pytest.raises(ParamsError, match=message):
        check_sampling(sampling(**changes), ["studio", "web"])
