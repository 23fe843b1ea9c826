from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_yolo.data.prepared import Kind, Sample, Writer, read_crops, read_split
from emotion_yolo.params import Prepare, load_params
from emotion_yolo.preparation.composing import Composed, write_train_crops
from emotion_yolo.preparation.crops import Crop
from emotion_yolo.preparation.framing import Region
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.images import read_rgb
from tests.builders import COLOURS, painted, save_picture

REPOSITORY = Path(__file__).parents[2]


def params(**changes: dict[str, Any]) -> Prepare:
    """Build params with sheets of four 96 px crops and nothing else; `changes` are by section."""
    given = load_params(REPOSITORY / "params.yaml").prepare.model_dump()
    given["workers"] = 1
    given["sheets"] |= {"side": 192, "grids": [2], "singles": 0.0, "degraded": 0.0, "rounds": 1, "negatives": 0.0}
    for section, values in changes.items():
        given[section] |= values
    return Prepare.model_validate(given)


def crops_of(folder: Path, count: int) -> list[Crop]:
    box = np.asarray([0.5, 0.5, 1 / 3, 1 / 3])
    return [
        Crop(save_picture(folder / f"{i}.jpg", painted({(1, 1): i % 8})), i % 8, box, "set", "web")
        for i in range(count)
    ]


def silent(_done: int, _total: int) -> None: ...


def compose(
    crops: list[Crop], out: Path, settings: Prepare, *, regions: list[Region] | None = None
) -> tuple[Composed, list[Sample]]:
    writer = Writer(out)
    composed = write_train_crops(crops, writer, settings, regions=regions or [], progress=silent)
    writer.close()
    return composed, read_split(out, "train")


def of_kind(samples: list[Sample], kind: Kind) -> list[Sample]:
    return [sample for sample in samples if sample.kind is kind]


def test_train_crops_lie_on_sheets_and_some_are_single_too(tmp_path: Path) -> None:
    composed, samples = compose(crops_of(tmp_path / "raw", 40), tmp_path / "out", params(sheets={"singles": 0.5}))
    sheets = of_kind(samples, Kind.SHEET)
    assert len(sheets) == composed.sheets == 10
    assert 8 <= len(read_crops(tmp_path / "out", "train")) <= 32
    assert sorted(np.concatenate([sheet.labels.cls for sheet in sheets])) == sorted(i % 8 for i in range(40))
    assert composed.faces == {"web": dict.fromkeys(NAMES, 5)}


def test_pictures_without_a_face_are_added_to_the_sheets_with_no_label(tmp_path: Path) -> None:
    settings = params(sheets={"side": 64, "grids": [1], "rounds": 2, "negatives": 0.25})
    composed, samples = compose(crops_of(tmp_path / "raw", 8), tmp_path / "out", settings)
    negatives = of_kind(samples, Kind.NEGATIVE)
    assert (composed.sheets, len(negatives)) == (16, 4)
    assert len({sample.image.read_bytes() for sample in negatives}) == 4
    for sample in negatives:
        assert read_rgb(sample.image).shape == (64, 64, 3)
        assert len(sample.labels) == 0
    assert all(sample.soft is None for sample in samples)


def test_some_of_them_can_be_parts_of_photographs(tmp_path: Path) -> None:
    photograph = save_picture(tmp_path / "photo.png", np.full((150, 200, 3), (10, 20, 200), np.uint8))
    settings = params(sheets={"side": 64, "grids": [1], "rounds": 4, "negatives": 1.0, "negatives_cut": 0.5})
    regions = [Region(photograph, (0, 0, 200, 120))]
    _, samples = compose(crops_of(tmp_path / "raw", 8), tmp_path / "out", settings, regions=regions)
    cut = [sample for sample in of_kind(samples, Kind.NEGATIVE) if read_rgb(sample.image).shape == (38, 64, 3)]
    assert 8 <= len(cut) <= 24
    assert np.abs(read_rgb(cut[0].image).mean(axis=(0, 1)) - (10, 20, 200)).max() < 5


def test_the_face_on_a_sheet_is_where_its_label_says(tmp_path: Path) -> None:
    _, (sheet,) = compose(crops_of(tmp_path / "raw", 4), tmp_path / "out", params())
    image = read_rgb(sheet.image)
    for cls, (x, y, _, _) in zip(sheet.labels.cls, sheet.labels.xywhn, strict=True):
        assert np.abs(image[int(y * 192), int(x * 192)].astype(int) - COLOURS[cls]).max() < 25


def test_without_sheets_every_crop_stays_single(tmp_path: Path) -> None:
    composed, samples = compose(crops_of(tmp_path / "raw", 5), tmp_path / "out", params(sheets={"side": 0}))
    assert composed.sheets == 0
    assert [sample.kind for sample in samples] == [Kind.SINGLE] * 5


@pytest.mark.parametrize(
    "changes", [{"sheets": {"degraded": 1.0}}, {"appearance": {"grey": 1.0, "noise": 0.5, "jpeg": 0.5}}]
)
def test_changed_crops_are_other_pixels_with_the_same_labels_and_always_the_same(
    changes: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    crops = crops_of(tmp_path / "raw", 8)
    clean, poor, again = (
        compose(crops, tmp_path / name, params(**given))[1]
        for name, given in (("clean", {}), ("poor", changes), ("again", changes))
    )
    for one, two, three in zip(clean, poor, again, strict=True):
        assert one.image.read_bytes() != two.image.read_bytes() == three.image.read_bytes()
        np.testing.assert_array_equal(one.labels.xywhn, two.labels.xywhn)


def test_targets_lie_beside_labels_line_by_line(tmp_path: Path) -> None:
    crops = [
        replace(crop, target=np.eye(8, dtype=np.float32)[i] * 0.5 + 0.0625)
        for i, crop in enumerate(crops_of(tmp_path / "raw", 8))
    ]
    crops[3] = replace(crops[3], target=None)
    _, samples = compose(crops, tmp_path / "out", params())
    for sample in samples:
        assert sample.soft is not None
        for cls, target in zip(sample.labels.cls, sample.soft, strict=True):
            if cls == 3:
                assert np.isnan(target).all()
            else:
                assert target.argmax() == cls
                assert target.max() == pytest.approx(0.5625, abs=1e-4)


def test_sampled_and_reframed_faces_lie_where_their_labels_say(tmp_path: Path) -> None:
    settings = params(
        sheets={"side": 192, "grids": [1, 2]},
        sampling={"faces": 60, "most_views": 20},
        framing={"share": 1.0, "natural": 0.0, "low": 0.4, "empty": 0.3},
    )
    composed, samples = compose(crops_of(tmp_path / "raw", 8), tmp_path / "out", settings)
    faces = [cls for sample in samples for cls in sample.labels.cls.tolist()]
    assert len(faces) == sum(composed.faces["web"].values())
    assert 56 <= len(faces) <= 64
    assert sum(len(sample.labels) < 4 for sample in samples) > 5
    for sample in samples:
        image = read_rgb(sample.image)
        for cls, (x, y, _, _) in zip(sample.labels.cls, sample.labels.xywhn, strict=True):
            assert np.abs(image[int(y * 192), int(x * 192)].astype(int) - COLOURS[cls]).max() < 40


def test_processes_write_the_same_sheets_as_one_does(tmp_path: Path) -> None:
    crops = crops_of(tmp_path / "raw", 8)
    written = []
    for workers in (1, 2):
        given = params(sheets={"side": 64, "grids": [1], "rounds": 16}).model_copy(update={"workers": workers})
        write = compose([*crops, *crops, *crops], tmp_path / f"out{workers}", given)[1]
        written.append([sample.image.read_bytes() for sample in write])
    assert len(written[0]) == 384  # enough for processes to pay
    assert written[0] == written[1]
