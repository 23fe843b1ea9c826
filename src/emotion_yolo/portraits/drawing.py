"""Draw a made-up face as a shaded portrait: paint what each part is made of, raise a relief, light it, turn it.

The relief (a height above the picture's plane at each pixel) does most of the work: its slopes give the
shading, its height the parallax of a turned head. Colours are RGB floats from 0 to 1, lengths face units (see
`anatomy`) unless a name says pixels.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from emotion_yolo.portraits.anatomy import ActionUnits, Floats, Identity, Pose
from emotion_yolo.portraits.painting import Painter

_NECK_Y, _MIDDLE_Y = 1.45, 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Light a portrait: one lamp and an even surrounding."""

    azimuth: float = -35.0  # degrees, negative: from the picture's left
    elevation: float = 40.0  # degrees above the eyes
    lamp: float = 0.75  # strength, 0-1.5
    ambient: float = 0.45  # strength, 0-1
    colour: tuple[float, float, float] = (1.0, 0.98, 0.94)  # RGB gains


def draw_face(
    canvas: Floats,
    identity: Identity,
    units: ActionUnits,
    pose: Pose,
    light: Light,
    *,
    centre_xy: tuple[float, float],
    pixels_per_unit: float,
) -> tuple[float, float, float, float]:
    """Draw a person onto `canvas` ([h, w, 3], RGB, 0-1) in place and return the face's box.

    The box is x1, y1, x2, y2 in canvas pixels, from the chin to the hairline and between the cheeks, without ears; it
    is not clipped to the canvas. `centre_xy` is where the middle of the face lands before yaw and pitch, in pixels.
    """
    painter = Painter(identity, units, pose, pixels_per_unit)
    painter.paint()
    rgb = np.clip(painter.albedo * _shading(painter.relief, light, pixels_per_unit), 0, 1)
    rgb = rgb + painter.glints[..., None]
    layers = np.dstack([rgb * painter.alpha[..., None], painter.alpha]).astype(np.float32)
    layers, outline, middle = _turn(layers, painter, pose)

    height = canvas.shape[0]
    # The torso goes on below the drawn part, down to the edge of any canvas.
    extended = cv2.copyMakeBorder(layers, 0, height, 0, 0, cv2.BORDER_REPLICATE)
    shift = np.array(centre_xy, np.float32) - middle
    to_canvas = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    placed = cv2.warpAffine(extended, to_canvas, (canvas.shape[1], height), flags=cv2.INTER_LINEAR)
    canvas *= 1 - placed[..., 3:]
    canvas += placed[..., :3]
    on_canvas = outline + shift
    (x1, y1), (x2, y2) = on_canvas.min(0), on_canvas.max(0)
    return float(x1), float(y1), float(x2), float(y2)


def _shading(relief: Floats, light: Light, pixels_per_unit: float) -> Floats:
    """Return RGB gains, [h, w, 3], of a relief under `light`."""
    smooth = cv2.GaussianBlur(relief, (0, 0), max(0.012 * pixels_per_unit, 0.4))
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=pixels_per_unit / 8)
    slope_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=pixels_per_unit / 8)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    azimuth, elevation = np.radians(light.azimuth), np.radians(light.elevation)
    lamp_x, lamp_y = np.sin(azimuth) * np.cos(elevation), -np.sin(elevation)
    lamp_z = np.cos(azimuth) * np.cos(elevation)
    facing = (-slope_x * lamp_x - slope_y * lamp_y + lamp_z) / length
    diffuse = np.clip((facing + 0.25) / 1.25, 0, None)
    shine = np.clip((facing + 1 / length) / np.sqrt(2 + 2 * lamp_z), 0, 1) ** 24
    around = cv2.GaussianBlur(relief, (0, 0), 0.09 * pixels_per_unit)
    occlusion = np.clip(1 + 3.0 * (smooth - around), 0.45, 1.12)
    gain = (light.ambient * (0.6 + 0.4 / length) + light.lamp * diffuse) * occlusion + 0.10 * light.lamp * shine
    # Light that is scattered inside skin leaves it redder: dim parts lose blue and green first.
    warmth = 0.10 * np.clip(1 - gain, 0, 1)
    rgb = np.dstack([gain + 0.3 * warmth, gain - 0.2 * warmth, gain - 0.4 * warmth])
    return (rgb * np.array(light.colour, np.float32)).astype(np.float32)


def _turn(layers: Floats, painter: Painter, pose: Pose) -> tuple[Floats, Floats, Floats]:
    """Turn the head: yaw and pitch shift every part by its height, roll tilts it about the neck.

    Return the layers, and the outline ([n, 2]) and middle ([2]) of the turned face, in pixels.
    """
    scale = painter.pixels_per_unit
    depth = cv2.GaussianBlur(painter.head_relief, (0, 0), 0.06 * scale)
    shift_x, shift_y = math.sin(math.radians(pose.yaw)), math.sin(math.radians(pose.pitch))
    neck_x, neck_y = painter.to_pixels(np.array([[0, _NECK_Y]], np.float32))[0].tolist()
    rows, columns = np.indices(depth.shape, dtype=np.float32)
    fade = np.clip((painter.y - _NECK_Y) / 0.9, 0, 1)
    angle = math.radians(pose.roll) * (1 - fade**2 * (3 - 2 * fade))
    level_x = neck_x + np.cos(angle) * (columns - neck_x) + np.sin(angle) * (rows - neck_y)
    level_y = neck_y - np.sin(angle) * (columns - neck_x) + np.cos(angle) * (rows - neck_y)
    source_x, source_y = level_x, level_y
    for _ in range(5):  # fixed point: which source pixel lands here?
        here = cv2.remap(depth, source_x, source_y, cv2.INTER_LINEAR) * scale
        source_x, source_y = level_x - here * shift_x, level_y - here * shift_y
    turned = np.asarray(cv2.remap(layers, source_x, source_y, cv2.INTER_LINEAR), np.float32)

    points = painter.to_pixels(painter.marks.outline)
    height = cv2.remap(depth, points[:, :1], points[:, 1:], cv2.INTER_LINEAR) * scale
    points = points + height * np.array([shift_x, shift_y], np.float32)
    points = np.concatenate([points, painter.to_pixels(np.array([[0, _MIDDLE_Y]], np.float32))])
    cos, sin = math.cos(math.radians(pose.roll)), math.sin(math.radians(pose.roll))
    neck = np.array([neck_x, neck_y], np.float32)
    points = (points - neck) @ np.array([[cos, sin], [-sin, cos]], np.float32) + neck
    return turned, points[:-1], points[-1]
