"""The geometry of a drawn face: who it is, which muscles act, and where that puts its landmarks.

Everything here is in face units: x to the picture's right, y down, the origin between eyes and nose tip, half the
width of an average face 0.9, its chin near y = 1.3 and its hairline near y = -1. "Left" and "right" are the picture's,
as a viewer sees them.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Hair = Literal["bald", "short", "fringe", "long", "curly", "bun", "hat"]
Beard = Literal["none", "stubble", "moustache", "full"]

MOUTH_Y = 0.74
EYE_Y = -0.13
SKULL_Y = 1.42
_CURVE = np.linspace(-1.0, 1.0, 33, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionUnits:
    """Hold the intensity of each facial action unit, 0 (at rest) to 1 (maximal).

    Source of the numbering: Ekman, Friesen and Hager, Facial Action Coding System (2002).
    """

    au1: float = 0.0  # inner brow raiser
    au2: float = 0.0  # outer brow raiser
    au4: float = 0.0  # brow lowerer
    au5: float = 0.0  # upper lid raiser
    au6: float = 0.0  # cheek raiser
    au7: float = 0.0  # lid tightener
    au9: float = 0.0  # nose wrinkler
    au12_left: float = 0.0  # lip corner puller, one side
    au12_right: float = 0.0
    au14_left: float = 0.0  # dimpler, one side
    au14_right: float = 0.0
    au15: float = 0.0  # lip corner depressor
    au20: float = 0.0  # lip stretcher
    au23: float = 0.0  # lip tightener
    au25: float = 0.0  # lips part
    au26: float = 0.0  # jaw drop

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"ActionUnits.{field.name} is {value!r}, expected an intensity from 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Describe a made-up person; lengths are factors of the average face unless said otherwise."""

    skin: tuple[float, float, float] = (0.80, 0.61, 0.50)  # RGB, 0-1
    hair_colour: tuple[float, float, float] = (0.22, 0.15, 0.10)  # RGB, 0-1
    iris: tuple[float, float, float] = (0.30, 0.20, 0.12)  # RGB, 0-1
    clothes: tuple[float, float, float] = (0.25, 0.30, 0.42)  # RGB, 0-1
    hair: Hair = "short"
    beard: Beard = "none"
    glasses: bool = False
    make_up: float = 0.0  # 0-1: redder lips, darker lashes
    wrinkles: float = 0.2  # 0 (child) to 1 (old)
    freckles: float = 0.0  # 0-1
    face_width: float = 1.0
    face_height: float = 1.0
    jaw: float = 0.5  # 0 (pointed) to 1 (square)
    eye_size: float = 1.0
    eye_distance: float = 1.0
    eye_slant: float = 0.0  # face units that the outer corner lies above the inner one
    brow_thickness: float = 1.0
    brow_height: float = 0.0  # face units added to the distance between eye and brow
    nose_width: float = 1.0
    nose_length: float = 1.0
    mouth_width: float = 1.0
    lip_thickness: float = 1.0
    hairline: float = 0.0  # face units that the hairline lies above the average one
    hair_volume: float = 1.0
    texture_seed: int = 0  # of pores, strands and freckles


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Turn the head, in degrees; `gaze_xy` shifts the irises, -1 to 1."""

    yaw: float = 0.0  # positive: nose to the picture's right
    pitch: float = 0.0  # positive: nose down
    roll: float = 0.0  # positive: clockwise in the picture
    gaze_xy: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Hold the curves of a frontal face, each [n, 2] from the picture's left to its right, in face units."""

    outline: Floats  # closed polygon: chin, jaw, temples, forehead up to the hairline
    brow_left: Floats
    brow_right: Floats
    lid_upper_left: Floats
    lid_lower_left: Floats
    lid_upper_right: Floats
    lid_lower_right: Floats
    lip_upper_outer: Floats
    lip_upper_inner: Floats
    lip_lower_inner: Floats
    lip_lower_outer: Floats
    nose_tip: tuple[float, float]
    nostril_half_width: float
    chin_y: float
    hairline_y: float


def half_width(y: Floats, identity: Identity, chin_y: float, *, grow: float = 0.0) -> Floats:
    """Return half the head's width at each height `y`, -1 above the skull and below the chin.

    `grow` widens it all round.
    """
    top, bottom = -SKULL_Y * identity.face_height - grow, chin_y + grow
    up = np.clip(y / top, 0.0, 1.0)
    down = np.clip(y / bottom, 0.0, 1.0)
    skull = (1.0 - up**2.5) ** (1.0 / 2.4)
    chin = (1.0 - down ** (2.2 + 0.7 * identity.jaw)) ** (1.0 / (1.45 + 0.65 * identity.jaw))
    width = 0.9 * identity.face_width + grow
    beyond = (y < top) | (y > bottom)
    return np.where(beyond, -1.0, width * np.where(y < 0, skull, chin)).astype(np.float32)


def landmarks(identity: Identity, units: ActionUnits) -> Landmarks:
    """Place the landmarks of `identity` with the muscles of `units` at work."""
    chin_y = 1.27 * identity.face_height + 0.17 * units.au26
    hairline_y = -0.98 * identity.face_height - identity.hairline
    heights = np.linspace(hairline_y, chin_y, 49, dtype=np.float32)
    widths = np.maximum(half_width(heights, identity, chin_y), 0)
    outline = np.concatenate([np.stack([-widths, heights], 1), np.stack([widths, heights], 1)[::-1]])
    brow = _brow(identity, units)
    lid_upper, lid_lower = _lids(identity, units)
    upper_outer, upper_inner, lower_inner, lower_outer = _lips(identity, units)
    return Landmarks(
        outline=outline,
        brow_left=_mirrored(brow),
        brow_right=brow,
        lid_upper_left=_mirrored(lid_upper),
        lid_lower_left=_mirrored(lid_lower),
        lid_upper_right=lid_upper,
        lid_lower_right=lid_lower,
        lip_upper_outer=upper_outer,
        lip_upper_inner=upper_inner,
        lip_lower_inner=lower_inner,
        lip_lower_outer=lower_outer,
        nose_tip=(0.0, 0.36 * identity.nose_length - 0.06 * units.au9),
        nostril_half_width=0.145 * identity.nose_width * (1 + 0.3 * units.au9),
        chin_y=chin_y,
        hairline_y=hairline_y,
    )


def _mirrored(curve: Floats) -> Floats:
    return (curve * np.array([-1, 1], np.float32))[::-1].copy()


def _brow(identity: Identity, units: ActionUnits) -> Floats:
    """Return the right brow's centre line, inner end first."""
    along = np.linspace(0.0, 1.0, 17, dtype=np.float32)
    inner = 1.0 - along
    x = (0.17 - 0.045 * units.au4) + along * 0.56
    arch = 0.10 * np.sin(np.pi * np.clip(along * 0.9, 0, 1)) * (1 - 0.5 * units.au4)
    raised = 0.20 * units.au1 * inner**1.2 + 0.19 * units.au2 * along**0.6 * (1.25 - 0.35 * along)
    lowered = units.au4 * (0.15 * inner**0.8 + 0.04) + 0.08 * units.au9 * inner
    y = -0.37 - identity.brow_height - arch + 0.05 * along**2 - raised + lowered
    return np.stack([x * identity.eye_distance, y], 1).astype(np.float32)


def _lids(identity: Identity, units: ActionUnits) -> tuple[Floats, Floats]:
    """Return the right eye's upper and lower lid, inner corner first."""
    half = 0.185 * identity.eye_size
    centre = 0.40 * identity.eye_distance
    t = _CURVE
    squint = np.clip(1 - 0.30 * units.au6 - 0.30 * units.au7 - 0.15 * units.au9, 0.3, 1)
    upper = 0.112 * identity.eye_size * squint * (1 + 0.80 * units.au5)
    lower = 0.068 * identity.eye_size * (1 + 0.15 * units.au5 - 0.60 * units.au6 - 0.45 * units.au7)
    base = EYE_Y - identity.eye_slant * (t + 1) / 2
    # Raised inner brows pull the inner part of the upper lid with them; a lowered brow presses on it.
    tilt = 0.045 * (units.au1 * (1 - units.au2) - 0.8 * units.au4 * (1 - units.au1))
    dome = (1 - t**2) ** 0.75
    upper_y = base - dome * (upper - tilt * t)
    lower_y = base + (1 - t**2) * max(lower, 0.008)
    x = centre + half * t
    return (np.stack([x, upper_y], 1).astype(np.float32), np.stack([x, lower_y], 1).astype(np.float32))


def _lips(identity: Identity, units: ActionUnits) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the four edges of the lips, from the top down, each from left to right."""
    t = _CURVE
    left = t < 0
    pull = np.where(left, units.au12_left, units.au12_right)
    dimple = np.where(left, units.au14_left, units.au14_right)
    half = (
        0.315
        * identity.mouth_width
        * (1 + 0.24 * pull + 0.34 * units.au20 - 0.04 * dimple)
        * (1 - 0.15 * units.au23 - 0.18 * units.au26 - 0.05 * units.au15)
    )
    x = half * t
    strongest = max(units.au12_left, units.au12_right)
    middle = MOUTH_Y * identity.face_height + 0.02 * strongest - 0.055 * units.au9 - 0.02 * units.au15
    corner = 0.05 * units.au26 - 0.21 * pull - 0.06 * dimple + 0.18 * units.au15 + 0.035 * units.au20
    seam = middle + corner * np.abs(t) ** 1.7
    gap_up = 0.035 * units.au25 + 0.06 * units.au26 + 0.02 * units.au9
    gap_down = 0.085 * units.au25 + 0.30 * units.au26
    thickness = 0.075 * identity.lip_thickness * (1 - 0.6 * units.au23) * (1 - 0.15 * strongest)
    round_ = np.sqrt(np.maximum(1 - t**2, 0))
    cupid = (1 - np.abs(t) ** 1.6) * (0.86 + 0.28 * np.exp(-(((np.abs(t) - 0.22) / 0.16) ** 2)))
    upper_inner = seam - gap_up * round_
    lower_inner = seam + gap_down * round_**1.3
    upper_outer = upper_inner - thickness * cupid
    lower_outer = lower_inner + 1.35 * thickness * (1 - np.abs(t) ** 2.2) ** 0.9
    edges = (upper_outer, upper_inner, lower_inner, lower_outer)
    curves = [np.stack([x, y], 1).astype(np.float32) for y in edges]
    return curves[0], curves[1], curves[2], curves[3]
