"""Batches composed on the device: faces lie where their boxes say, and a seed says which come."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emotion_yolo.composition import composer as composing
from emotion_yolo.composition.appearance import blurred, changed, compressed, covered
from emotion_yolo.composition.chances import chances_of
from emotion_yolo.composition.composer import Batch, Composer
from emotion_yolo.composition.draws import Draws
from emotion_yolo.composition.empty import GREY, backgrounds, without_faces
from emotion_yolo.composition.loader import COMPLETE, ComposedLoader
from emotion_yolo.composition.material import Faces, Material, Photographs, read_material
from emotion_yolo.composition.textures import Textures, textures_of
from emotion_yolo.composition.views import Views, views_of_faces
from emotion_yolo.data.prepared import CLASSES
from emotion_yolo.errors import ParamsError
from emotion_yolo.params import Compose
from emotion_yolo.structures.emotions import FACE_ID
from emotion_yolo.structures.images import Image
from tests.builders import labels_of, prepared_set

GREEN = (0, 255, 0)
FACE = [12.0, 16.0, 36.0, 56.0]  # in `crop`


def crop(*, colour: tuple[int, int, int] = GREEN, width: int = 48) -> Image:
    """A dark crop, higher than wide, with a face in one bright colour."""
    image = np.full((72, width, 3), 20, np.uint8)
    image[16:56, 12:36] = colour
    return image


def textures(*images: Image, side: int = 72) -> Textures:
    return textures_of(iter(images), count=len(images), side=side, device="cpu")


def faces_of(name: str, *images: Image, ids: list[int], source: str = "all") -> Faces:
    boxes = np.tile(np.asarray(FACE), (len(images), 1))
    emotions = np.asarray([min(number, FACE_ID) for number in ids])
    return Faces(name, textures(*images), boxes, np.asarray(ids), emotions, np.asarray([source] * len(images)))


def material(*, photographs: Photographs | None = None, patches: Textures | None = None) -> Material:
    """Two crops, one green and one blue."""
    faces = faces_of("crops", crop(), crop(colour=(0, 0, 255)), ids=[3, 9])
    return Material((faces,), photographs, patches, np.full((1, 8), 0.125, np.float32), ())


def compose(**changes: Any) -> Compose:
    given = {"updates": 2, "close_ups": 6, "pictures": 8, "sets": {}, "class_power": 0.5, "source_power": 0.5}
    given |= {"class_weights": {}, "teachers": "models/none", "teacher_share": {}, "own_share": 0.0}
    return Compose.model_validate({**given, **changes})


def view(*, scale: float = 1.0, angle: float = 0.0, mirrored: float = 1.0, at: tuple[float, float] = (64, 64)) -> Views:
    """The middle of the face of `crop` somewhere on a canvas."""
    numbers = (np.asarray([value]) for value in (scale, angle, mirrored))
    return Views(np.asarray([[24.0, 36.0]]), np.asarray([at], float), *numbers)


def edges(bright: torch.Tensor) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 of what is true in [H, W]."""
    rows, columns = np.flatnonzero(bright.any(1).numpy()), np.flatnonzero(bright.any(0).numpy())
    return np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def bright(image: torch.Tensor, channel: int = 1) -> torch.Tensor:
    """Return where a picture [3, H, W] has that colour of a face."""
    others = [c for c in range(3) if c != channel]
    return (image[channel] > 0.5) & (image[others] < 0.45).all(0)


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 1.9])
@pytest.mark.parametrize("mirrored", [1.0, -1.0])
@pytest.mark.parametrize("at", [(64.0, 64.0), (50.5, 80.25)])
def test_a_face_is_drawn_where_its_box_lands(scale: float, mirrored: float, at: tuple[float, float]) -> None:
    seen = view(scale=scale, mirrored=mirrored, at=at)
    pixels, _ = textures(crop()).draw(np.asarray([0]), seen, canvas=128)
    (box,) = seen.boxes(np.asarray([FACE]))
    np.testing.assert_allclose(edges(bright(pixels[0])), box, atol=1.2)
    assert (box[2] - box[0], box[3] - box[1]) == (pytest.approx(24 * scale), pytest.approx(40 * scale))


def test_a_mirrored_face_lies_on_the_other_side_of_the_middle_of_the_view() -> None:
    for mirrored, expected in ((1.0, [70, 44, 94, 84]), (-1.0, [34, 44, 58, 84])):
        seen = Views(
            np.asarray([[6.0, 36.0]]), np.asarray([[64.0, 64.0]]), np.ones(1), np.zeros(1), np.asarray([mirrored])
        )
        pixels, _ = textures(crop()).draw(np.asarray([0]), seen, canvas=128)
        np.testing.assert_allclose(seen.boxes(np.asarray([FACE]))[0], expected)
        np.testing.assert_allclose(edges(bright(pixels[0])), expected, atol=1)


@pytest.mark.parametrize("mirrored", [1.0, -1.0])
@pytest.mark.parametrize("angle", [-0.26, 0.26])
def test_a_turned_face_has_its_middle_in_that_of_its_box(angle: float, mirrored: float) -> None:
    seen = Views(
        np.asarray([[10.0, 20.0]]), np.asarray([[50.0, 60.0]]), np.ones(1), np.full(1, angle), np.full(1, mirrored)
    )
    pixels, _ = textures(crop()).draw(np.asarray([0]), seen, canvas=128)
    (box,) = seen.boxes(np.asarray([FACE]))
    middle = np.argwhere(bright(pixels[0]).numpy())[:, ::-1].mean(axis=0) + 0.5
    np.testing.assert_allclose(middle, (box[:2] + box[2:]) / 2, atol=0.5)
    assert np.abs(middle - [50 + 14 * mirrored, 60 + 16]).max() > 2  # turned at all


def test_what_lies_outside_the_picture_is_not_covered() -> None:
    _, cover = textures(crop()).draw(np.asarray([0]), view(), canvas=128)
    np.testing.assert_allclose(edges(cover[0, 0] > 0.5), [64 - 24, 64 - 36, 64 + 24, 64 + 36], atol=1)
    assert cover[0, 0, 64, 64] == 1


def test_a_shrunk_picture_is_averaged_and_not_sampled_with_gaps() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    seen = Views(np.full((1, 2), 32.0), np.full((1, 2), 8.0), np.full(1, 0.25), np.zeros(1), np.ones(1))
    pixels, _ = textures(stripes, side=64).draw(np.asarray([0]), seen, canvas=16)
    assert (pixels - 0.5).abs().max() < 0.02


def test_the_longer_side_of_a_face_is_as_long_as_asked() -> None:
    boxes = np.asarray([FACE, [0.0, 0, 60, 20]])
    longer, at = np.asarray([30.0, 90.0]), np.full((2, 2), 64.0)
    seen = views_of_faces(boxes, longer=longer, at=at, angle=np.zeros(2), mirrored=np.ones(2))
    found = seen.boxes(boxes)
    np.testing.assert_allclose((found[:, 2:] - found[:, :2]).max(axis=1), longer)
    np.testing.assert_allclose((found[:, 2:] + found[:, :2]) / 2, at)


@pytest.fixture
def as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave colours as they are, so that faces can be found by theirs."""
    monkeypatch.setattr(composing, "changed", lambda images, *_, **__: images)
    monkeypatch.setattr(composing, "covered", lambda images, *_, **__: images)
    monkeypatch.setattr(
        composing, "backgrounds", lambda count, side, *_, **__: torch.full((count, 3, side, side), GREY)
    )


def composer_of(found: Material, *, seed: int = 0, **changes: Any) -> Composer:
    return Composer(found, chances_of(found.faces, compose(**changes)), Draws([seed], "cpu"))


def assert_faces_fill_their_boxes(batch: Batch) -> None:
    """Check that the inner part of each box has the colour of its label: 3 is green, 9 is blue."""
    side = batch.images.shape[-1]
    assert (batch.boxes >= 0).all() and (batch.boxes <= side).all()
    for box, picture, number in zip(batch.boxes, batch.index, batch.ids, strict=True):
        x1, y1, x2, y2 = (box + np.asarray([1, 1, -1, -1]) * 0.2 * np.tile(box[2:] - box[:2], 2)).round().astype(int)
        assert bright(batch.images[picture, :, y1:y2, x1:x2], {3: 1, 9: 2}[int(number)]).all()


@pytest.mark.usefixtures("as_they_are")
def test_close_ups_show_one_face_each_in_the_middle_of_its_label() -> None:
    composer = composer_of(material())
    sides = set()
    for _ in range(25):
        batch = composer.close_ups(12)
        sides.add(batch.images.shape[-1])
        assert batch.index.tolist() == list(range(len(batch.images)))
        assert_faces_fill_their_boxes(batch)
        heights = (batch.boxes[:, 3] - batch.boxes[:, 1]) / batch.images.shape[-1]
        assert heights.min() > 0.4 and set(batch.ids.tolist()) <= {3, 9}
        assert len(batch.images) * batch.images.shape[-1] ** 2 == pytest.approx(12 * 160**2, rel=0.06)
    assert sides == {128, 160, 192}


@pytest.mark.usefixtures("as_they_are")
@pytest.mark.parametrize("side", [64, 192, 320])
def test_sheets_have_a_face_on_each_tile_and_pictures_without_faces_none(side: int) -> None:
    composer = composer_of(material())
    grids = set()
    for _ in range(30):
        batch = composer.pictures(3, side)
        assert batch.images.shape == (3, 3, side, side)
        faces = np.bincount(batch.index, minlength=3)
        assert faces.min() == 0 and (faces > 0).sum() == 2
        assert len(set(faces[faces > 0].tolist())) == 1
        grids.add(round(float(faces.max()) ** 0.5))
        assert_faces_fill_their_boxes(batch)
        assert (batch.boxes[:, 2:] - batch.boxes[:, :2]).max(axis=1).min() >= 23
    assert grids == ({1, 2} if side < 256 else {1, 2, 3, 4})


def photographs(*, faces: list[list[float]]) -> Photographs:
    """One photograph of 400 × 300 px with green faces, in stripes so that they can be told from their mean colour."""
    image = np.full((300, 400, 3), 30, np.uint8)
    for x1, y1, x2, y2 in np.asarray(faces, int):
        image[y1:y2, x1:x2, 1] = 255
        image[y1:y2, x1:x2:8, 1] = 0
    boxes = np.asarray(faces, float).reshape(-1, 4)
    return Photographs(textures(image, side=400), (boxes,), (np.full(len(faces), FACE_ID),))


@pytest.mark.usefixtures("as_they_are")
@pytest.mark.parametrize("mirrored", [1.0, -1.0])
def test_a_face_of_a_photograph_is_labelled_if_half_of_it_is_seen_and_else_hidden(
    mirrored: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The window is 100 to 300 px across, 50 to 250 down, and drawn at half the size.
    monkeypatch.setattr(composing, "_window", lambda *_: (np.asarray([200.0, 150.0]), 200.0))
    monkeypatch.setattr(composing, "_MOST_TILTED", 0.0)
    monkeypatch.setattr(Draws, "signs", lambda _, count: np.full(count, mirrored))
    faces = [[160, 100, 240, 200], [240, 60, 340, 90], [76, 60, 108, 90], [264, 120, 392, 220], [96, 250, 140, 290]]
    found = photographs(faces=faces)
    batch = composer_of(material())._windows(found, 2, 100)
    expected = np.asarray([[30, 25, 70, 75], [70, 5, 100, 20]])  # the second ends where the window does
    if mirrored < 0:
        expected = np.stack([100 - expected[:, 2], expected[:, 1], 100 - expected[:, 0], expected[:, 3]], axis=1)
    np.testing.assert_allclose(batch.boxes, np.tile(expected, (2, 1)), atol=1e-6)
    assert batch.index.tolist() == [0, 0, 1, 1]
    for image in batch.images:
        seen = (image if mirrored > 0 else image.flip(-1))[1]
        assert seen[26:74, 31:69].std() > 0.2  # striped, as it is
        for hidden in (seen[6:19, 0:3], seen[36:84, 83:99]):
            assert hidden.std() < 1e-6 and hidden.mean() > 0.5


@pytest.mark.usefixtures("as_they_are")
def test_photographs_without_a_face_and_with_small_ones_have_windows_too() -> None:
    for faces in ([], [[10.0, 10, 26, 30]]):
        found = material(photographs=photographs(faces=faces))
        batch = composer_of(found).pictures(20, 64)
        assert batch.images.shape == (20, 3, 64, 64)
        assert len(set(batch.index.tolist())) <= 18  # two of them are without a face


@pytest.mark.usefixtures("as_they_are")
def test_pictures_are_mixed_and_their_faces_in_order() -> None:
    found = material(photographs=photographs(faces=[[60, 100, 140, 200]]))
    composer, first = composer_of(found), set()
    for _ in range(12):
        batch = composer.pictures(10, 96)
        assert (np.diff(batch.index) >= 0).all()
        first.add(int(batch.ids[0]))
        sheets = batch.ids != FACE_ID
        parts = (part[sheets] for part in (batch.boxes, batch.index, batch.ids, batch.faces))
        assert_faces_fill_their_boxes(Batch(batch.images, *parts))
        assert ((batch.faces == -1) == ~sheets).all()
    assert first == {3, 9, FACE_ID}


def test_a_batch_of_one_picture_is_a_sheet() -> None:
    assert len(composer_of(material()).pictures(1, 64).boxes) >= 1


def batches(loader: ComposedLoader) -> list[dict[str, Any]]:
    return list(loader)


def loader_of(found: Material, *, epoch: int = 0, seed: int = 0, part: float = 1.0, **changes: Any) -> ComposedLoader:
    given = compose(**changes)
    return ComposedLoader(found, given, sides=[64], seed=seed, epoch=lambda: epoch, device="cpu", part=part)


def test_a_seed_and_an_epoch_say_which_batches_come() -> None:
    found = material(photographs=photographs(faces=[[60, 100, 140, 200]]), patches=textures(crop()))
    first, again = batches(loader_of(found)), batches(loader_of(found))
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("img", "cls", "bboxes", "batch_idx"))
    for changed_ in ({"epoch": 1}, {"seed": 1}):
        other = batches(loader_of(found, **changed_))[0]["img"]
        assert other.shape != first[0]["img"].shape or not torch.equal(other, first[0]["img"])


def test_close_ups_and_pictures_take_turns_and_complete_an_update_together() -> None:
    loader = loader_of(material(), part=0.5)
    assert len(loader) == 4
    found = batches(loader)
    assert [batch[COMPLETE] for batch in found] == [False, True, False, True]
    for batch in found:
        image, boxes = batch["img"], batch["bboxes"]
        assert image.dtype == boxes.dtype == torch.float32
        assert image.min() >= 0 and image.max() <= 1
        assert batch["cls"].shape == (len(boxes), 1) and batch["batch_idx"].shape == (len(boxes),)
        assert (boxes[:, :2] - boxes[:, 2:] / 2 > -1e-6).all() and (boxes[:, :2] + boxes[:, 2:] / 2 < 1 + 1e-6).all()
    assert len(found[1]["img"]) == round(4 * (320 / 64) ** 2)
    assert len(found[0]["img"]) * found[0]["img"].shape[-1] ** 2 == pytest.approx(3 * 160**2, rel=0.35)
    assert len(loader.dataset) == 0 and len(loader.sampler) % loader.batch_size == 0
    loader.reset()
    assert len(batches(loader)) == 4


def set_of(name: str, emotions: list[int], sources: list[str]) -> Faces:
    count = len(emotions)
    numbers = np.asarray(emotions)
    return Faces(
        name, textures(*[crop()] * count), np.tile(np.asarray(FACE), (count, 1)), numbers, numbers, np.asarray(sources)
    )


def test_sets_have_their_shares_and_emotions_by_the_power_of_their_number() -> None:
    sets = [set_of("a", [4] * 9 + [1], ["x"] * 10), set_of("b", [4] * 5, ["x"] * 5)]
    by_size = chances_of(sets, compose(class_power=1.0))
    np.testing.assert_allclose(by_size, 1 / 15)
    chances = chances_of(sets, compose(sets={"a": 3.0, "b": 1.0}))
    assert chances[:10].sum() == pytest.approx(0.75)
    assert chances[9] / chances[:9].sum() == pytest.approx(1 / 3)
    weighted = chances_of(sets, compose(sets={"a": 1.0}, class_weights={CLASSES[1]: 2.0}, class_power=0.0))
    assert weighted[9] == pytest.approx(2 / 3)
    assert weighted[10:].sum() == 0


def test_sources_are_evened_within_an_emotion() -> None:
    chances = chances_of([set_of("a", [4] * 17, ["x"] * 16 + ["y"])], compose(source_power=0.5))
    assert chances[16] == pytest.approx(1 / 5)
    np.testing.assert_allclose(chances[:16], 4 / 5 / 16)


def test_shares_of_what_is_not_there_are_refused() -> None:
    sets = [set_of("a", [4], ["x"])]
    with pytest.raises(ParamsError, match=r"train\.compose\.sets: b is not there; expected one of a$"):
        chances_of(sets, compose(sets={"b": 1.0}))
    with pytest.raises(ParamsError, match="leave no face to draw"):
        chances_of(sets, compose(sets={"a": 0.0}))
    with pytest.raises(ParamsError, match="leave no face to draw"):
        chances_of(sets, compose(class_weights={CLASSES[4]: 0.0}))


def test_faces_are_drawn_by_their_chances() -> None:
    composer = Composer(material(), np.asarray([0.9, 0.1]), Draws([0], "cpu"))
    drawn = np.concatenate([composer.close_ups(60).ids for _ in range(10)])
    assert (drawn == 3).mean() == pytest.approx(0.9, abs=0.04)


@pytest.mark.usefixtures("as_they_are")
@pytest.mark.parametrize(("chances", "ids"), [([1.0, 0.0], {3}), ([0.0, 1.0], {9}), ([0.5, 0.5], {3, 9})])
def test_faces_of_several_sets_lie_on_one_batch_each_with_its_label(chances: list[float], ids: set[int]) -> None:
    sets = (faces_of("greens", crop(), ids=[3]), faces_of("blues", crop(colour=(0, 0, 255)), ids=[9]))
    found = Material(sets, None, None, np.zeros((1, 8), np.float32), ())
    batch = Composer(found, np.asarray(chances), Draws([0], "cpu")).close_ups(30)
    assert set(batch.ids.tolist()) == ids
    assert_faces_fill_their_boxes(batch)


def pictures(count: int = 64, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2


def test_appearance_changes_most_pictures_and_keeps_them_pictures() -> None:
    before = pictures()
    after = changed(before.clone(), np.full(64, 100.0), Draws([0], "cpu"), strength=1.0)
    assert after.shape == before.shape
    assert after.min() >= 0 and after.max() <= 1
    moved = (after - before).abs().amax((1, 2, 3)) > 0.01
    assert 0.7 < moved.float().mean() < 1
    grey = (after - after.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-4
    assert 0.05 < grey.float().mean() < 0.6
    assert torch.equal(changed(before.clone(), np.full(64, 100.0), Draws([0], "cpu"), strength=0.0), before)


def test_small_faces_lose_neither_resolution_nor_sharpness(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("emotion_yolo.composition.appearance._coarser", lambda part, **_: asked.append(1) or part)
    monkeypatch.setattr("emotion_yolo.composition.appearance.compressed", lambda part, _: asked.append(1) or part)
    changed(pictures(), np.full(64, 12.0), Draws([0], "cpu"), strength=1.0)
    assert not asked
    changed(pictures(), np.full(64, 120.0), Draws([0], "cpu"), strength=1.0)
    assert len(asked) == 4


def test_a_blur_keeps_the_mean_and_takes_the_detail() -> None:
    before = pictures(4)
    after = blurred(before, 2.0)
    assert after.shape == before.shape
    assert float(after.mean()) == pytest.approx(float(before.mean()), abs=0.01)
    assert after.std() < before.std() / 2


def test_compression_loses_the_more_the_lower_its_quality() -> None:
    before = pictures(3)
    lost = (compressed(before, torch.tensor([10.0, 40.0, 95.0])) - before).abs().mean((1, 2, 3))
    assert lost[0] > lost[1] > lost[2] > 0
    flat = torch.full((1, 3, 16, 16), 0.5)
    torch.testing.assert_close(compressed(flat, torch.tensor([50.0])), flat, atol=0.01, rtol=0)


def test_a_rectangle_of_one_colour_covers_some() -> None:
    before = pictures(8)
    assert torch.equal(covered(before.clone(), Draws([0], "cpu"), chance=0.0), before)
    after = covered(before.clone(), Draws([0], "cpu"), chance=1.0)
    for one, other in zip(before, after, strict=True):
        part = (one != other).any(0)
        x1, y1, x2, y2 = edges(part).astype(int)
        assert part[y1:y2, x1:x2].all()
        assert 2 <= x2 - x1 <= 12 and 2 <= y2 - y1 <= 12
        assert other[:, y1:y2, x1:x2].flatten(1).std(1).max() < 1e-6


def test_backgrounds_are_grey_coloured_or_parts_of_photographs() -> None:
    blue = np.full((40, 40, 3), (0, 0, 200), np.uint8)
    drawn = backgrounds(200, 16, Draws([0], "cpu"), patches=textures(blue, side=40))
    corners = [tuple((image[:, 0, 0] * 255).round().int().tolist()) for image in drawn]
    assert 60 < corners.count((114, 114, 114)) < 120
    assert 25 < corners.count((0, 0, 200)) < 70
    assert corners.count((67, 67, 67)) > 15  # the same in grey
    without = backgrounds(100, 16, Draws([0], "cpu"), patches=None)
    assert 60 < sum(bool((image == GREY).all()) for image in without) < 90


def test_pictures_without_a_face_are_parts_of_photographs_where_there_are_some() -> None:
    blue = np.full((40, 40, 3), (0, 0, 200), np.uint8)
    drawn = without_faces(50, 16, Draws([3], "cpu"), patches=textures(blue, side=40))
    torch.testing.assert_close(drawn[20:], drawn[20:21].expand(30, -1, -1, -1))
    without = without_faces(30, 16, Draws([0], "cpu"), patches=None)
    assert without.shape == (30, 3, 16, 16)
    kinds = [len(np.unique(image.numpy().reshape(3, -1).round(4), axis=1)[0]) for image in without]
    assert any(kind == 1 for kind in kinds) and any(kind > 1 for kind in kinds)


def prepared(root: Path, **more: Any) -> Path:
    """Two sets of crops, one of them of pictures with soft labels, two photographs and a picture without a face."""
    small = np.full((40, 40, 3), 90, np.uint8)
    scene = np.full((240, 320, 3), 60, np.uint8)
    label = labels_of([4], [FACE], image_wh=(48, 72))
    soft = {"0.png": np.eye(8, dtype=np.float32)[[2]], "scene.png": np.asarray([[np.nan] * 8, [0.125] * 8], np.float32)}
    crops = {"0.png": (crop(), label), "ffhq_1.png": (crop(), label)}
    scenes = {
        "scene.png": (scene, labels_of([FACE_ID, 1], [[10, 10, 60, 70], [200, 90, 240, 140]], image_wh=(320, 240))),
        "tiny.png": (small, labels_of([], [])),
    }
    negative = {"negative_0.png": (np.full((64, 64, 3), 200, np.uint8), labels_of([], []))}
    return prepared_set(root, crops=crops | negative | more, scenes=scenes, split="train", soft=soft)


def test_material_is_the_single_crops_and_photographs_of_the_train_split(tmp_path: Path) -> None:
    found = read_material(prepared(tmp_path), device="cpu")
    (faces,) = found.faces
    assert (faces.name, len(faces), faces.textures.side) == ("crops", 2, 72)
    assert sorted(faces.sources.tolist()) == ["ffhq", "other"]
    np.testing.assert_allclose(faces.boxes, [FACE, FACE], atol=0.01)
    assert faces.ids.tolist() == [FACE_ID + 1, 4]  # by file name, the first with a soft label
    assert faces.emotions.tolist() == [2, 4]
    assert found.photographs is not None
    assert found.photographs.textures.side == 320
    assert [ids.tolist() for ids in found.photographs.ids] == [[FACE_ID, FACE_ID + 2], []]
    np.testing.assert_allclose(found.photographs.boxes[0], [[10, 10, 60, 70], [200, 90, 240, 140]], atol=0.01)
    np.testing.assert_allclose(found.targets, [[0, 0, 1, 0, 0, 0, 0, 0], [0.125] * 8])
    assert [label["cls"].ravel().tolist() for label in found.labels] == [[9], [4], [8, 10], []]
    assert all(label["bboxes"].shape == (len(label["cls"]), 4) for label in found.labels)
    assert found.patches is not None
    assert len(found.patches) == 3  # two parts of the large photograph, and the negative
    assert found.patches.levels[0].amin((1, 2, 3)).tolist() == [60, 60, 200]


def test_crops_on_sheets_or_none_at_all_are_refused_with_the_remedy(tmp_path: Path) -> None:
    label = labels_of([4], [[10, 10, 20, 20]])
    sheet = {"sheet_0.png": (np.zeros((96, 96, 3), np.uint8), label)}
    with pytest.raises(ParamsError, match=r"has crops on sheets; set prepare\.sheets\.side to 0"):
        read_material(prepared(tmp_path / "both", **sheet), device="cpu")
    with pytest.raises(ParamsError, match=r"has no single crops; set prepare\.sheets\.side to 0"):
        read_material(prepared_set(tmp_path / "none", crops=sheet, split="train"), device="cpu")


def test_a_set_without_photographs_is_composed_too(tmp_path: Path) -> None:
    label = labels_of([4], [FACE], image_wh=(48, 72))
    found = read_material(prepared_set(tmp_path, crops={"0.png": (crop(), label)}, split="train"), device="cpu")
    assert found.photographs is None and found.patches is None
    assert found.targets.shape == (0, 8)
    assert len(batches(loader_of(found))) == 4
