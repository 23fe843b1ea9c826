"""Compose made-up pictures: who is in them, what their faces do, and how the camera saw it, all drawn by lot."""

import colorsys
import zlib
from dataclasses import dataclass
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_yolo.portraits.anatomy import ActionUnits, Beard, Floats, Hair, Identity, Pose
from emotion_yolo.portraits.drawing import Light, draw_face
from emotion_yolo.structures.boxes import clip_xyxy
from emotion_yolo.structures.emotions import Emotion
from emotion_yolo.structures.images import CROP_SIDE

SCENE_SIZES: tuple[tuple[int, int], ...] = ((416, 312), (312, 416), (416, 277), (400, 400))
_OVERSAMPLING = 2
_FACE_WIDTH, _FACE_HEIGHT = 1.8, 2.25  # of an average face, in face units

EMFACS: dict[Emotion, tuple[str, ...]] = {
    Emotion.ANGER: ("au4", "au5", "au7", "au23"),
    Emotion.CONTEMPT: ("au12", "au14"),  # one side only
    Emotion.DISGUST: ("au9", "au15"),
    Emotion.FEAR: ("au1", "au2", "au4", "au5", "au20"),
    Emotion.HAPPY: ("au6", "au12"),
    Emotion.NEUTRAL: (),
    Emotion.SAD: ("au1", "au4", "au15"),
    Emotion.SURPRISE: ("au1", "au2", "au5", "au26"),
}
"""The action units of each expression, after Friesen and Ekman, EMFACS-7 (1983)."""

_FFHQ_SHARE: dict[Emotion, float] = {
    # AffectNet's own habit: smiling faces come from FFHQ, frightened ones hardly ever do.
    Emotion.ANGER: 0.30,
    Emotion.CONTEMPT: 0.45,
    Emotion.DISGUST: 0.30,
    Emotion.FEAR: 0.05,
    Emotion.HAPPY: 0.85,
    Emotion.NEUTRAL: 0.60,
    Emotion.SAD: 0.30,
    Emotion.SURPRISE: 0.35,
}
_SKINS = (
    (0.95, 0.80, 0.72),
    (0.90, 0.72, 0.60),
    (0.80, 0.61, 0.48),
    (0.66, 0.46, 0.34),
    (0.48, 0.32, 0.23),
    (0.32, 0.21, 0.16),
)
_HAIRS = (
    (0.07, 0.06, 0.06),
    (0.16, 0.10, 0.07),
    (0.32, 0.20, 0.12),
    (0.62, 0.46, 0.26),
    (0.52, 0.24, 0.12),
    (0.60, 0.59, 0.57),
)
_IRISES = ((0.22, 0.13, 0.07), (0.36, 0.25, 0.13), (0.30, 0.38, 0.26), (0.32, 0.45, 0.56), (0.40, 0.43, 0.45))


@dataclass(frozen=True, slots=True)
class Crop:
    """Hold one picture of one face, as AffectNet cuts them."""

    image: NDArray[np.uint8]  # [96, 96, 3], RGB
    emotion: Emotion
    face_xyxy: tuple[float, float, float, float]  # pixels; the drawn face, not what the label file says
    ffhq: bool  # named after the studio-like source
    jpeg_quality: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Hold one picture of several faces."""

    image: NDArray[np.uint8]  # [h, w, 3], RGB
    faces_xyxy: NDArray[np.float64]  # [N, 4], pixels, inside the picture
    emotions: tuple[Emotion, ...]  # N


def random_generator(seed: int, split: str, index: int) -> np.random.Generator:
    """Return the generator of one picture, which depends on no other picture."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def compose_crop(emotion: Emotion, rng: np.random.Generator) -> Crop:
    """Compose one close-up of a face that shows `emotion`."""
    ffhq = bool(rng.random() < _FFHQ_SHARE[emotion])
    identity, pose, light = random_identity(rng), random_pose(rng, still=ffhq), random_light(rng, studio=ffhq)
    side = CROP_SIDE * _OVERSAMPLING
    canvas = _background(rng, (side, side))
    scale = np.clip(rng.normal(0.62, 0.055), 0.45, 0.78) * side / (_FACE_WIDTH * identity.face_width)
    tallest = 0.90 * side / (_FACE_HEIGHT * identity.face_height)
    box = draw_face(
        canvas,
        identity,
        random_units(emotion, rng),
        pose,
        light,
        centre_xy=(side * rng.normal(0.5, 0.02), side * rng.normal(0.5, 0.02)),
        pixels_per_unit=float(min(scale, tallest)),
    )
    shrunk = cv2.resize(canvas, (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA)
    image = _photograph(np.asarray(shrunk, np.float32), rng, clean=ffhq)
    x1, y1, x2, y2 = (value / _OVERSAMPLING for value in box)
    quality = int(rng.integers(84, 93)) if ffhq else int(rng.integers(66, 91))
    return Crop(image=image, emotion=emotion, face_xyxy=(x1, y1, x2, y2), ffhq=ffhq, jpeg_quality=quality)


def compose_scene(rng: np.random.Generator) -> Scene:
    """Compose one picture of one to six people of whom none hides another's face."""
    image_wh = SCENE_SIZES[int(rng.integers(len(SCENE_SIZES)))]
    width, height = (side * _OVERSAMPLING for side in image_wh)
    canvas = _background(rng, (width, height))
    light = random_light(rng, studio=False)
    wanted = int(rng.integers(1, 7))
    largest = 0.42 * min(width, height) / wanted**0.45  # face height, pixels
    scales = np.sort(largest * rng.uniform(0.3, 1.0, wanted)) / _FACE_HEIGHT
    boxes: list[tuple[float, float, float, float]] = []
    emotions: list[Emotion] = []
    for scale in scales.tolist():  # the nearest, hence largest, last: it may hide what lies behind it, but no face
        centre = _free_place(rng, scale, (width, height), boxes)
        if centre is None:
            continue
        emotion = Emotion(int(rng.integers(len(Emotion))))
        identity, units = random_identity(rng), random_units(emotion, rng)
        pose = random_pose(rng, still=False)
        boxes.append(draw_face(canvas, identity, units, pose, light, centre_xy=centre, pixels_per_unit=scale))
        emotions.append(emotion)
    shrunk = np.asarray(cv2.resize(canvas, image_wh, interpolation=cv2.INTER_AREA), np.float32)
    faces = clip_xyxy(np.array(boxes, np.float64) / _OVERSAMPLING, image_wh=image_wh)
    image = _photograph(shrunk, rng, clean=False)
    return Scene(image=image, faces_xyxy=np.asarray(faces, np.float64), emotions=tuple(emotions))


def _free_place(
    rng: np.random.Generator, scale: float, size_wh: tuple[int, int], boxes: list[tuple[float, float, float, float]]
) -> tuple[float, float] | None:
    """Return where a person of `scale` pixels per face unit covers none of `boxes`, or None after 60 tries."""
    for _ in range(60):
        x = rng.uniform(1.1 * scale, size_wh[0] - 1.1 * scale)
        y = rng.uniform(max(1.5 * scale, size_wh[1] - 9 * scale), size_wh[1] - 1.5 * scale)
        head = (x - 1.5 * scale, y - 1.9 * scale, x + 1.5 * scale, y + 1.6 * scale)
        torso = (x - 2.2 * scale, y + 1.2 * scale, x + 2.2 * scale, float(size_wh[1]))
        parts = (head, torso)
        if not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a in parts for b in boxes):
            return float(x), float(y)
    return None


def random_units(emotion: Emotion, rng: np.random.Generator) -> ActionUnits:
    """Draw the muscles' intensities for `emotion`: strong or weak, with gaps, with a little else besides."""
    strength = 1.0 - 0.65 * rng.beta(1.0, 2.2)
    values: dict[str, float] = {}
    for name in (
        "au1",
        "au2",
        "au4",
        "au5",
        "au6",
        "au7",
        "au9",
        "au12",
        "au14",
        "au15",
        "au20",
        "au23",
        "au25",
        "au26",
    ):
        stray, amount = rng.random() < 0.12, rng.uniform(0.05, 0.35)
        missing, own = rng.random() < 0.06, rng.uniform(0.7, 1.2)
        level = strength * own * (0.25 if missing else 1.0) if name in EMFACS[emotion] else amount * stray
        values[name] = float(np.clip(level, 0, 1))
    if emotion in (Emotion.HAPPY, Emotion.FEAR, Emotion.SURPRISE) and rng.random() < 0.6:
        values["au25"] = float(strength * rng.uniform(0.3, 0.9))
    pull, dimple = values.pop("au12"), values.pop("au14")
    # Both sides act alike, within a tenth or so, but in contempt.
    uneven = rng.uniform(0.85, 1.0)
    left, right = (1.0, uneven) if emotion is not Emotion.CONTEMPT else (1.0, rng.uniform(0.0, 0.2))
    if rng.random() < 0.5:
        left, right = right, left
    return ActionUnits(
        **values, au12_left=pull * left, au12_right=pull * right, au14_left=dimple * left, au14_right=dimple * right
    )


def random_identity(rng: np.random.Generator) -> Identity:
    """Draw a person."""
    tone = rng.uniform(0, len(_SKINS) - 1)
    skin = [float(np.interp(tone, range(len(_SKINS)), channel)) for channel in zip(*_SKINS, strict=True)]
    age = float(rng.beta(1.4, 2.2))
    dark = tone > 2.6
    hair_colour = _HAIRS[-1] if rng.random() < (age - 0.35) else _HAIRS[int(rng.integers(2 if dark else 5))]
    bearded = rng.random() < 0.38 and age > 0.15
    clothes = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.7), rng.uniform(0.12, 0.85))

    def around(mean: float, deviation: float) -> float:
        return float(np.clip(rng.normal(mean, deviation), mean - 2.2 * deviation, mean + 2.2 * deviation))

    return Identity(
        skin=(skin[0], skin[1], skin[2]),
        hair_colour=hair_colour,
        iris=_IRISES[int(rng.integers(2 if dark else len(_IRISES)))],
        clothes=clothes,
        hair=rng.choice(get_args(Hair), p=[0.10, 0.26, 0.14, 0.22, 0.12, 0.09, 0.07]),
        beard=rng.choice(get_args(Beard)[1:], p=[0.4, 0.25, 0.35]) if bearded else "none",
        glasses=bool(rng.random() < 0.15),
        make_up=0.0 if bearded else float(max(rng.uniform(-0.8, 0.9), 0)),
        wrinkles=age,
        freckles=float(max(rng.uniform(-2, 1), 0)),
        face_width=around(1.0, 0.05),
        face_height=around(1.03, 0.05),
        jaw=float(rng.beta(1.6, 2.4)),
        eye_size=around(1.0, 0.08),
        eye_distance=around(1.0, 0.05),
        eye_slant=around(0.012, 0.022),
        brow_thickness=around(1.0, 0.22),
        brow_height=around(0.0, 0.03),
        nose_width=around(1.05, 0.14),
        nose_length=around(1.0, 0.08),
        mouth_width=around(1.0, 0.09),
        lip_thickness=around(1.05, 0.22),
        hairline=around(0.0, 0.06),
        hair_volume=around(1.0, 0.3),
        texture_seed=int(rng.integers(2**31)),
    )


def random_pose(rng: np.random.Generator, *, still: bool) -> Pose:
    """Draw a head's turn; `still` people look almost straight into the camera."""
    spread = 0.5 if still else 1.0
    yaw, pitch, roll = (float(np.clip(rng.normal(0, 1), -2, 2)) for _ in range(3))
    gaze_x, gaze_y = (float(np.clip(rng.normal(0, 0.4), -1, 1)) for _ in range(2))
    return Pose(yaw=spread * 10 * yaw, pitch=spread * 6 * pitch, roll=spread * 8 * roll, gaze_xy=(gaze_x, gaze_y))


def random_light(rng: np.random.Generator, *, studio: bool) -> Light:
    """Draw a lamp; a `studio`'s is even and neutral."""
    ambient = float(rng.uniform(0.40, 0.60) if studio else rng.uniform(0.30, 0.60))
    warmth = float(rng.normal(0.02, 0.02 if studio else 0.05))
    return Light(
        azimuth=float(rng.uniform(-60, 60)),
        elevation=float(rng.uniform(15, 60)),
        lamp=float(rng.uniform(0.55, 0.85) if studio else rng.uniform(0.50, 0.95)),
        ambient=ambient,
        colour=(1 + warmth, 1.0, 1 - warmth),
    )


def _background(rng: np.random.Generator, size_wh: tuple[int, int]) -> Floats:
    """Return a backdrop, [h, w, 3], RGB, 0-1: wall, shelves, stripes, foliage or lights, out of focus."""
    width, height = size_wh
    colours = [
        np.array(colorsys.hsv_to_rgb(rng.random(), 0.55 * rng.random() ** 1.6, rng.uniform(0.1, 0.9))) for _ in range(4)
    ]
    corners = np.array([[colours[0], colours[1]], [colours[0], colours[2]]], np.float32)
    canvas = np.asarray(cv2.resize(corners, size_wh, interpolation=cv2.INTER_LINEAR), np.float32)
    kind = rng.choice(["wall", "shelves", "stripes", "foliage", "lights"])
    if kind == "shelves":
        for _ in range(int(rng.integers(6, 26))):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            w, h = int(rng.integers(6, width // 3)), int(rng.integers(6, height // 2))
            colour = colours[int(rng.integers(4))] * rng.uniform(0.5, 1.2)
            cv2.rectangle(canvas, (x, y), (x + w, y + h), colour.tolist(), -1 if rng.random() < 0.8 else 2, cv2.LINE_AA)
    elif kind == "stripes":
        angle, period = rng.uniform(0, np.pi), rng.uniform(8, 40)
        rows, columns = np.indices((height, width), dtype=np.float32)
        wave = np.sin((columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / period) > 0
        canvas += 0.25 * wave[..., None].astype(np.float32) * (colours[3] - canvas)
    elif kind == "foliage":
        for grain in (6, 14, 40):
            shape = (max(height // grain, 2), max(width // grain, 2))
            light, tint = rng.normal(0, 0.08, (*shape, 1)), rng.normal(0, 0.025, (*shape, 3))
            leaves = cv2.resize((light + tint).astype(np.float32), size_wh, interpolation=cv2.INTER_CUBIC)
            canvas += np.asarray(leaves, np.float32)
    elif kind == "lights":
        for _ in range(int(rng.integers(8, 30))):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            colour = np.clip(colours[int(rng.integers(4))] + rng.uniform(0, 0.4), 0, 1)
            cv2.circle(canvas, centre, int(rng.integers(3, 24)), colour.tolist(), -1, cv2.LINE_AA)
    soft = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.5, 7.0)))
    return np.asarray(np.clip(soft + rng.normal(0, 0.01, canvas.shape), 0, 1), np.float32)


def _photograph(canvas: Floats, rng: np.random.Generator, *, clean: bool) -> NDArray[np.uint8]:
    """Return what a camera makes of `canvas`: exposure, contrast, focus, noise, now and then no colour."""
    exposure, contrast = rng.normal(1.0, 0.06 if clean else 0.16), rng.normal(1.0, 0.05 if clean else 0.14)
    blur = rng.uniform(0, 0.45) if clean else rng.uniform(0, 0.9)
    noise = rng.uniform(0, 0.010) if clean else rng.uniform(0, 0.025)
    grey = not clean and rng.random() < 0.12
    image = (canvas * np.clip(exposure, 0.6, 1.4) - 0.5) * np.clip(contrast, 0.65, 1.35) + 0.5
    if blur > 0.2:
        image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), float(blur))
    if grey:
        image = np.repeat((image @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=2)
    image = image + rng.normal(0, noise, image.shape)
    return np.asarray(np.round(np.clip(image, 0, 1) * 255), np.uint8)
