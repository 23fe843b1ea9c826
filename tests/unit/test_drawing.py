"""The face renderer: each muscle moves what it says, and what is drawn is a shaded face at the box that is returned."""

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_yolo.portraits.anatomy import ActionUnits, Floats, Identity, Landmarks, Pose, half_width, landmarks
from emotion_yolo.portraits.drawing import Light, draw_face

SIDE = 160
SCALE = 44.0


def face(**units: float) -> Landmarks:
    return landmarks(Identity(), ActionUnits(**units))


def drawn(
    identity: Identity | None = None,
    units: ActionUnits | None = None,
    pose: Pose | None = None,
    light: Light | None = None,
) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
    canvas = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    box = draw_face(
        canvas,
        identity or Identity(),
        units or ActionUnits(),
        pose or Pose(),
        light or Light(azimuth=0),
        centre_xy=(SIDE / 2, SIDE / 2),
        pixels_per_unit=SCALE,
    )
    return canvas, box


def region(image: Floats, x: tuple[float, float], y: tuple[float, float]) -> Floats:
    """Cut out a region given in face units; the middle of the face, y = 0.15, lies in the middle of the picture."""
    columns = [round(SIDE / 2 + value * SCALE) for value in x]
    rows = [round(SIDE / 2 + (value - 0.15) * SCALE) for value in y]
    return image[rows[0] : rows[1], columns[0] : columns[1]]


def opening(marks: Landmarks, *, upper: str, lower: str) -> float:
    """Return the greatest distance between two curves of the same face."""
    return float((getattr(marks, lower)[:, 1] - getattr(marks, upper)[:, 1]).max())


def eye_opening(marks: Landmarks) -> float:
    return opening(marks, upper="lid_upper_right", lower="lid_lower_right")


def mouth_opening(marks: Landmarks) -> float:
    return opening(marks, upper="lip_upper_inner", lower="lip_lower_inner")


def mouth_width(marks: Landmarks) -> float:
    return float(np.ptp(marks.lip_upper_inner[:, 0]))


def lip_thickness(marks: Landmarks) -> float:
    return opening(marks, upper="lip_lower_inner", lower="lip_lower_outer")


def test_au1_raises_the_inner_end_of_the_brow_more_than_the_outer() -> None:
    rise = face().brow_right[:, 1] - face(au1=1.0).brow_right[:, 1]
    assert rise[0] > 0.15 and rise[-1] < 0.01


def test_au2_raises_the_outer_end_of_the_brow_more_than_the_inner() -> None:
    rise = face().brow_right[:, 1] - face(au2=1.0).brow_right[:, 1]
    assert rise[-1] > 0.12 and rise[0] < 0.01


def test_au4_lowers_the_brows_and_draws_them_together() -> None:
    rest, frown = face(), face(au4=1.0)
    assert (frown.brow_right[:, 1] > rest.brow_right[:, 1]).all()
    assert frown.brow_right[0, 0] - frown.brow_left[-1, 0] < rest.brow_right[0, 0] - rest.brow_left[-1, 0]


def test_au5_opens_the_eyes_by_the_upper_lid() -> None:
    rest, wide = face(), face(au5=1.0)
    assert wide.lid_upper_right[16, 1] < rest.lid_upper_right[16, 1] - 0.05
    assert eye_opening(wide) > 1.4 * eye_opening(rest)


@pytest.mark.parametrize("unit", ["au6", "au7"])
def test_au6_and_au7_narrow_the_eyes(unit: str) -> None:
    assert eye_opening(face(**{unit: 1.0})) < 0.75 * eye_opening(face())


def test_au9_raises_the_upper_lip_and_widens_the_nostrils() -> None:
    rest, wrinkled = face(), face(au9=1.0)
    assert wrinkled.lip_upper_outer[16, 1] < rest.lip_upper_outer[16, 1] - 0.04
    assert wrinkled.nostril_half_width > rest.nostril_half_width
    assert wrinkled.nose_tip[1] < rest.nose_tip[1]


def test_au12_raises_the_lip_corners_and_widens_the_mouth() -> None:
    rest, smile = face(), face(au12_left=1.0, au12_right=1.0)
    assert (smile.lip_upper_inner[[0, -1], 1] < rest.lip_upper_inner[[0, -1], 1] - 0.15).all()
    assert mouth_width(smile) > mouth_width(rest)


def test_au12_of_one_side_leaves_the_other_corner_where_it_was() -> None:
    rest, smirk = face(), face(au12_right=1.0)
    assert smirk.lip_upper_inner[-1, 1] < rest.lip_upper_inner[-1, 1] - 0.15
    assert smirk.lip_upper_inner[0, 1] == pytest.approx(rest.lip_upper_inner[0, 1], abs=0.03)
    assert smirk.lip_upper_inner[0, 0] == pytest.approx(rest.lip_upper_inner[0, 0])


def test_au14_tightens_one_corner() -> None:
    rest, dimpled = face(), face(au14_left=1.0)
    assert dimpled.lip_upper_inner[0, 0] > rest.lip_upper_inner[0, 0]
    assert dimpled.lip_upper_inner[-1, 0] == pytest.approx(rest.lip_upper_inner[-1, 0])


def test_au15_lowers_the_lip_corners() -> None:
    assert (face(au15=1.0).lip_upper_inner[[0, -1], 1] > face().lip_upper_inner[[0, -1], 1] + 0.1).all()


def test_au20_stretches_the_mouth() -> None:
    assert mouth_width(face(au20=1.0)) > 1.25 * mouth_width(face())


def test_au23_thins_the_lips() -> None:
    assert lip_thickness(face(au23=1.0)) < 0.6 * lip_thickness(face())


def test_au25_parts_the_lips_and_leaves_the_chin() -> None:
    assert mouth_opening(face()) == pytest.approx(0, abs=1e-6)
    assert mouth_opening(face(au25=1.0)) > 0.1
    assert face(au25=1.0).chin_y == face().chin_y


def test_au26_drops_the_jaw_and_opens_the_mouth_wide() -> None:
    assert face(au26=1.0).chin_y > face().chin_y + 0.1
    assert mouth_opening(face(au26=1.0)) > 2 * mouth_opening(face(au25=1.0))


def test_intensity_is_continuous() -> None:
    heights = [face(au12_left=value, au12_right=value).lip_upper_inner[0, 1] for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert (np.diff(heights) < -0.03).all()


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_rejects_an_intensity_outside_0_to_1(value: float) -> None:
    with pytest.raises(ValueError, match=r"ActionUnits\.au9 is .*expected an intensity from 0 to 1"):
        ActionUnits(au9=value)


def test_head_ends_at_chin_and_skull() -> None:
    widths = half_width(np.array([-2.0, 0.0, 1.26, 1.3], np.float32), Identity(), 1.27)
    assert widths[1] == pytest.approx(0.9)
    assert 0 < widths[2] < 0.3
    assert widths[0] == widths[3] == -1


def test_box_spans_the_drawn_face_from_chin_to_hairline() -> None:
    _, (x1, y1, x2, y2) = drawn()
    marks = face()
    assert (x1 + x2) / 2 == pytest.approx(SIDE / 2, abs=1)
    assert x2 - x1 == pytest.approx(2 * 0.9 * SCALE, rel=0.02)
    assert y2 - y1 == pytest.approx((marks.chin_y - marks.hairline_y) * SCALE, rel=0.02)


def test_skin_fills_the_box_and_the_backdrop_its_surroundings() -> None:
    image, (x1, y1, x2, y2) = drawn(Identity(hair="bald"))
    inside = image[int(y1) + 12 : int(y2) - 12, int(x1) + 12 : int(x2) - 12]
    assert (inside[..., 0] > inside[..., 2]).mean() > 0.85  # skin is redder than blue
    assert (image[: int(y2), : int(x1) - 20] == 0.5).all()


def test_drawing_below_the_face_reaches_the_bottom_of_a_tall_canvas() -> None:
    canvas = np.full((600, 160, 3), 0.5, np.float32)
    draw_face(
        canvas,
        Identity(clothes=(0.8, 0.1, 0.1)),
        ActionUnits(),
        Pose(),
        Light(),
        centre_xy=(80, 60),
        pixels_per_unit=20,
    )
    assert canvas[-1, 80, 0] > 2 * canvas[-1, 80, 2]


def test_same_face_is_drawn_twice_alike() -> None:
    identity = Identity(hair="curly", beard="full", glasses=True, freckles=1.0, texture_seed=5)
    first, first_box = drawn(identity)
    second, second_box = drawn(identity)
    np.testing.assert_array_equal(first, second)
    assert first_box == second_box


def test_texture_seed_changes_the_texture() -> None:
    first, _ = drawn(Identity(texture_seed=1))
    second, _ = drawn(Identity(texture_seed=2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("hair", ["bald", "short", "fringe", "long", "curly", "bun", "hat"])
@pytest.mark.parametrize("beard", ["none", "stubble", "moustache", "full"])
def test_every_hair_and_beard_gives_a_valid_picture(hair: str, beard: str) -> None:
    image, _ = drawn(Identity(hair=hair, beard=beard))  # type: ignore[arg-type]
    plain, _ = drawn(Identity(hair="bald"))
    assert np.isfinite(image).all()
    assert image.min() >= -1e-4 and image.max() <= 1.7
    assert (hair == "bald" and beard == "none") == np.array_equal(image, plain)


def test_glasses_darken_the_bridge_of_the_nose() -> None:
    bare, _ = drawn()
    spectacled, _ = drawn(Identity(glasses=True))
    bridge = ((-0.06, 0.06), (-0.25, -0.15))
    assert region(spectacled, *bridge).mean() < region(bare, *bridge).mean() - 0.1


def test_open_mouth_shows_its_dark_inside() -> None:
    closed, _ = drawn()
    opened, _ = drawn(units=ActionUnits(au26=1.0))
    middle = ((-0.08, 0.08), (0.80, 0.92))
    assert region(opened, *middle).mean() < region(closed, *middle).mean() - 0.15


def test_frown_darkens_the_skin_between_the_brows() -> None:
    smooth, _ = drawn()
    frowning, _ = drawn(units=ActionUnits(au4=1.0))
    between = ((-0.11, 0.11), (-0.44, -0.24))
    assert region(frowning, *between).mean() < region(smooth, *between).mean() - 0.03


@pytest.mark.parametrize(("azimuth", "brighter"), [(-50, "left"), (50, "right")])
def test_lamp_brightens_the_cheek_on_its_side(azimuth: float, brighter: str) -> None:
    image, _ = drawn(light=Light(azimuth=azimuth))
    left = region(image, (-0.75, -0.45), (0.1, 0.5)).mean()
    right = region(image, (0.45, 0.75), (0.1, 0.5)).mean()
    assert (left > right + 0.05) if brighter == "left" else (right > left + 0.05)


def test_yaw_moves_the_nose_to_its_side_and_keeps_the_silhouette() -> None:
    ahead, box_ahead = drawn(Identity(hair="bald"))
    turned, box_turned = drawn(Identity(hair="bald"), pose=Pose(yaw=15))

    def nostrils_x(image: Floats) -> float:
        darkness = np.clip(0.35 - region(image, (-0.5, 0.6), (0.36, 0.52)).mean(2), 0, None).sum(0)
        return float((darkness * np.arange(len(darkness))).sum() / darkness.sum())

    assert nostrils_x(turned) > nostrils_x(ahead) + 5
    assert box_turned[0] == pytest.approx(box_ahead[0], abs=3)
    assert box_turned[2] == pytest.approx(box_ahead[2], abs=3)


def test_pitch_down_lowers_the_hairline() -> None:
    _, ahead = drawn()
    _, down = drawn(pose=Pose(pitch=12))
    assert down[1] > ahead[1] + 0.4


def test_roll_tilts_the_face_clockwise_about_its_middle() -> None:
    upright, box = drawn()
    tilted, box_tilted = drawn(pose=Pose(roll=15))
    assert box_tilted[2] - box_tilted[0] > box[2] - box[0] + 3

    def skin_x(image: Floats, y: tuple[float, float]) -> float:
        part = region(image, (-1.5, 1.5), y)
        painted = (np.abs(part - 0.5).max(2) > 0.02).mean(0)
        return float((painted * np.arange(len(painted))).sum() / painted.sum())

    assert skin_x(tilted, (-0.9, -0.6)) > skin_x(upright, (-0.9, -0.6)) + 5  # the forehead goes to the right
    assert skin_x(tilted, (0.95, 1.1)) < skin_x(upright, (0.95, 1.1)) - 3  # the chin to the left


def test_gaze_moves_the_irises() -> None:
    ahead, _ = drawn()
    aside, _ = drawn(pose=Pose(gaze_xy=(1.0, 0.0)))

    def iris_x(image: Floats) -> float:
        darkness = np.clip(0.3 - region(image, (0.25, 0.55), (-0.17, -0.09)).mean(2), 0, None).sum(0)
        return float((darkness * np.arange(len(darkness))).sum() / darkness.sum())

    assert iris_x(aside) > iris_x(ahead) + 1
