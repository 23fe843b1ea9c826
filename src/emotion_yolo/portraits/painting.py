"""Paint the parts of a frontal portrait, back to front: what each is made of, and how far it stands out."""

import cv2
import numpy as np

from emotion_yolo.portraits.anatomy import (
    EYE_Y,
    SKULL_Y,
    ActionUnits,
    Floats,
    Identity,
    Landmarks,
    Pose,
    half_width,
    landmarks,
)
from emotion_yolo.portraits.brush import Brush, mix


class Painter(Brush):
    """Paint one person; call `paint` once, then read the layers."""

    def __init__(self, identity: Identity, units: ActionUnits, pose: Pose, pixels_per_unit: float) -> None:
        super().__init__(pixels_per_unit, identity.texture_seed)
        self.identity, self.units, self.pose = identity, units, pose
        self.marks: Landmarks = landmarks(identity, units)
        self.skin = np.array(identity.skin, np.float32)
        self.hair_colour = np.array(identity.hair_colour, np.float32)

    def paint(self) -> None:
        """Paint everything."""
        self.strands = self.strand_texture()
        self.widths = half_width(self.column, self.identity, self.marks.chin_y)
        self.head = self.inside(self.widths - np.abs(self.x))
        self._paint_back_hair()
        self._paint_torso()
        self._paint_ears()
        self._paint_head()
        self._paint_eyes()
        self._paint_mouth()
        self._paint_beard()
        self._paint_brows()
        self._paint_hair()
        if self.identity.glasses:
            self._paint_glasses()

    def _hair_paint(self, contrast: float = 0.35) -> Floats:
        contrast *= 1 - 0.6 * float(self.hair_colour.mean())  # dark gaps show most in dark hair
        shade = 1 + contrast * self.strands
        return np.clip(self.hair_colour * shade[..., None] + 0.02, 0, 1).astype(np.float32)

    def _paint_back_hair(self) -> None:
        style, volume = self.identity.hair, self.identity.hair_volume
        ragged = 0.03 * self.strands
        if style == "long":
            spread = 0.98 * self.identity.face_width + 0.16 * volume + 0.12 * np.clip(self.y, 0, 2) + ragged
            crown = np.sqrt(np.clip(1 - (np.clip(-self.y, 0, None) / (1.45 + 0.1 * volume)) ** 2, 0, 1))
            reach = self.inside(1.55 + 0.2 * volume + 2 * ragged - self.y, 0.1)
            mask = self.inside(spread * crown - np.abs(self.x), 0.03) * reach * (crown > 0)
        elif style == "curly":
            wobble = 0.05 * self.noise(0.16)
            away = np.hypot(self.x / (1.28 + 0.12 * volume), (self.y + 0.45) / (1.42 + 0.12 * volume))
            mask = self.inside(1 + wobble - away, 0.04)
        elif style == "bun":
            mask = self.inside(0.42 * volume - np.hypot(self.x * 0.9, self.y + 1.72) + ragged, 0.03)
        else:
            return
        self.cover(mask, 0.8 * self._hair_paint())
        self.relief += mask * 0.12 * self.strands - 0.1 * mask

    def _paint_torso(self) -> None:
        width = self.identity.face_width
        neck = self.inside(0.58 * width + 0.10 * np.clip(self.y - 1, 0, 1) ** 2 - np.abs(self.x)) * self.inside(
            self.y - 0.3
        )
        self.cover(neck, self.skin * 0.86)
        self.relief = np.where(neck > 0.5, -0.35 + 0.4 * np.sqrt(np.clip(1 - (self.x / 0.62) ** 2, 0, 1)), self.relief)
        slope = (
            1.62
            + 0.20 * np.clip(np.abs(self.x) - 0.45, 0, 3) ** 1.5
            - 0.30 * np.exp(-((np.abs(self.x) - 0.5) ** 2) / 0.03)
        )
        slope = slope + 1.6 * np.clip(np.abs(self.x) - 1.35, 0, None) ** 3
        collar = 1.60 + 0.28 * np.clip(1 - (self.x / 0.5) ** 2, 0, 1)
        shoulders = self.inside(self.y - np.maximum(slope, np.where(np.abs(self.x) < 0.5, collar, slope)))
        shoulders = shoulders * self.inside(2.05 - np.abs(self.x) + 0.15 * np.clip(self.y - 2, 0, 1))
        weave = 0.06 * self.noise(0.10) * np.clip(2.4 - self.y, 0, 1)
        cloth = np.array(self.identity.clothes, np.float32) * (1 + weave[..., None])
        self.cover(shoulders, cloth)
        self.relief = np.where(
            shoulders > 0.5, 0.55 * np.sqrt(np.clip(1 - (self.x / 2.2) ** 2, 0, 1)) - 0.3, self.relief
        )
        arms = np.exp(-(((np.abs(self.x) - 1.42) / 0.05) ** 2)) * np.clip((self.y - 2.2) / 0.3, 0, 1)
        self.relief = cv2.GaussianBlur(self.relief - 0.12 * arms, (0, 0), 0.05 * self.pixels_per_unit)
        # The head's shadow on the neck.
        shadow = self.inside(self.marks.chin_y + 0.28 - 0.25 * self.x**2 - self.y, 0.25)
        mix(self.albedo, 0.45 * shadow * neck * (1 - shoulders), self.skin * 0.35)

    def _paint_ears(self) -> None:
        reach = 0.9 * self.identity.face_width
        for side in (-1, 1):
            ear = self.inside(1 - np.hypot((self.x - side * (reach - 0.01)) / 0.14, (self.y - 0.02) / 0.30), 0.06)
            self.cover(ear, self.skin * np.array([0.97, 0.90, 0.88], np.float32))
            fold = self.bump(side * (reach + 0.03), 0.0, 0.05, 0.17)
            self.relief = np.where(ear > 0.5, 0.10 * np.sqrt(np.clip(ear, 0, 1)) - 0.12 * fold, self.relief)

    def _paint_head(self) -> None:
        identity = self.identity
        blotches = 1 + 0.022 * self.noise(0.22) + 0.018 * self.noise(0.05)
        skin = self.skin * blotches[..., None]
        flush = 0.30 * self.bumps(0.50, 0.30, 0.26, 0.20) + 0.28 * self.bump(0, 0.33, 0.14, 0.14)
        flush = flush + 0.10 * self.bump(0, 1.1, 0.3, 0.15)
        mix(skin, flush, self.skin * np.array([1.06, 0.80, 0.76], np.float32))
        mix(
            skin,
            0.30 * self.bumps(0.40, EYE_Y + 0.02, 0.22, 0.12),
            self.skin * np.array([0.80, 0.68, 0.66], np.float32),
        )
        if identity.freckles:
            spots = self.inside(self.noise(0.045) - 1.5, 0.8) * (
                self.bumps(0.4, 0.2, 0.3, 0.2) + self.bump(0, 0.2, 0.2, 0.2)
            )
            mix(skin, np.clip(0.6 * identity.freckles * spots, 0, 1), self.skin * 0.62)
        self.cover(self.head, skin)

        relief = self._head_relief() + self.head * (self._wrinkles() + 0.0008 * self.noise(0.05))
        self.relief = self.head * relief + (1 - self.head) * self.relief
        self.head_relief = self.head * relief

        nostrils = self.marks.nostril_half_width * 0.55
        tip = self.marks.nose_tip[1]
        for side in (-1, 1):
            hole = self.inside(1 - np.hypot((self.x - side * nostrils) / 0.055, (self.y - tip - 0.075) / 0.026), 0.5)
            mix(self.albedo, 0.75 * hole, self.skin * 0.22)

    def _head_relief(self) -> Floats:
        identity, units, marks = self.identity, self.units, self.marks
        across = np.clip(1 - (self.x / np.maximum(self.widths, 1e-3)) ** 2, 0, 1)
        middle = np.where(self.column < 0, SKULL_Y * identity.face_height, marks.chin_y)
        down = np.clip(1 - (np.abs(self.column) / middle) ** 2.6, 0, 1)
        relief = 0.80 * across**0.55 * down**0.45
        tip_y, wing = marks.nose_tip[1], marks.nostril_half_width
        rise = np.clip((self.column + 0.28) / (tip_y + 0.28), 0, 1)
        fall = np.clip(1 - (self.column - tip_y) / 0.11, 0, 1)
        ridge = (0.05 + 0.26 * rise**1.3) * np.clip((self.column + 0.42) / 0.2, 0, 1) * (fall**2 * (3 - 2 * fall))
        relief = relief + ridge * np.exp(-((self.row / ((0.075 + 0.06 * rise**2) * identity.nose_width)) ** 2))
        relief = relief + 0.08 * self.bump(0, tip_y - 0.02, 0.10, 0.09)
        relief = relief + 0.11 * self.bumps(wing, tip_y + 0.02, 0.065, 0.075)
        eye_x = 0.40 * identity.eye_distance
        relief = relief - 0.16 * self.bumps(eye_x - 0.03, EYE_Y - 0.01, 0.24, 0.15)
        relief = relief + 0.07 * self.bumps(eye_x, EYE_Y, 0.15, 0.10)
        brow_y = float(marks.brow_right[:, 1].mean())
        relief = relief + 0.05 * self.bumps(0.36, brow_y + 0.03, 0.26, 0.09)
        for side, pull in ((-1, units.au12_left), (1, units.au12_right)):
            lift = max(pull, units.au6)
            cheek = 0.06 + 0.075 * lift
            relief = relief + cheek * self.bump(side * 0.50, 0.30 - 0.07 * lift, 0.24, 0.20)
        mouth_y = float(marks.lip_upper_inner[16, 1])
        relief = relief + 0.09 * self.bump(0, mouth_y, 0.34, 0.22)
        relief = relief - 0.05 * self.bump(0, float(marks.lip_lower_outer[16, 1]) + 0.07, 0.22, 0.06)
        relief = relief + 0.08 * self.bump(0, marks.chin_y - 0.17, 0.24, 0.13)
        return np.asarray(relief - 0.02 * self.bump(0, mouth_y - 0.16, 0.035, 0.08), np.float32)

    def _wrinkles(self) -> Floats:
        """Return the furrows that age and the acting muscles leave, as a relief of negative heights."""
        units, age = self.units, self.identity.wrinkles
        furrows = np.zeros_like(self.relief)

        def furrow(points: list[tuple[float, float]], depth: float, blur: float = 0.032) -> None:
            if depth > 0.004:
                nonlocal furrows
                furrows = furrows - 0.8 * depth * self.line(np.array(points, np.float32), 0.05, blur)

        tip_y, wing = self.marks.nose_tip[1], self.marks.nostril_half_width
        corners = (self.marks.lip_upper_inner[0], self.marks.lip_upper_inner[-1])
        pulls = (units.au12_left, units.au12_right)
        dimples = (units.au14_left, units.au14_right)
        for side, corner, pull, dimple in zip((-1, 1), corners, pulls, dimples, strict=True):
            depth = 0.03 * age + 0.085 * pull + 0.10 * units.au9 + 0.02 * units.au15
            x, y = abs(float(corner[0])), float(corner[1])
            bend = x + 0.10
            cheek = [
                (wing + 0.05, tip_y - 0.03),
                (wing + 0.17, tip_y + 0.11),
                (bend + 0.02, y - 0.10),
                (bend, y + 0.05),
            ]
            furrow([(side * along, down) for along, down in cheek], depth)
            furrow([(side * (bend - 0.03), y - 0.05), (side * (bend - 0.02), y + 0.07)], 0.16 * dimple)
            furrow([(side * x, y + 0.03), (side * bend, y + 0.20)], 0.09 * units.au15 + 0.02 * age)
            frown = float(self.marks.brow_right[0, 1])
            furrow([(side * 0.07, frown - 0.11), (side * 0.055, frown + 0.09)], 0.11 * units.au4 + 0.015 * age)
            furrow([(side * 0.03, -0.16), (side * 0.13, -0.08)], 0.15 * units.au9)
            furrow([(side * 0.04, -0.06), (side * 0.15, 0.02)], 0.13 * units.au9)
            for fan in (-0.09, 0.0, 0.09):
                furrow(
                    [(side * 0.64, EYE_Y + 0.4 * fan), (side * 0.78, EYE_Y + 0.02 + fan)], 0.05 * units.au6 + 0.02 * age
                )
            bag = [(side * 0.24, EYE_Y + 0.11), (side * 0.40, EYE_Y + 0.17), (side * 0.56, EYE_Y + 0.12)]
            furrow(bag, 0.035 * age + 0.05 * max(units.au6, units.au7) + 0.01)
        for height in (-0.62, -0.74, -0.86):
            middle = 0.028 * age + 0.075 * units.au1
            furrow([(-0.28, height), (0.0, height - 0.02), (0.28, height)], middle)
            for side in (-1, 1):
                furrow([(side * 0.28, height), (side * 0.52, height + 0.03)], 0.02 * age + 0.07 * units.au2)
        return furrows

    def _paint_eyes(self) -> None:
        identity, marks = self.identity, self.marks
        gaze_x, gaze_y = self.pose.gaze_xy
        for upper, lower in (
            (marks.lid_upper_left, marks.lid_lower_left),
            (marks.lid_upper_right, marks.lid_lower_right),
        ):
            eye = self.polygon(np.concatenate([upper, lower[::-1]]))
            centre_x = float(upper[16, 0]) + 0.05 * gaze_x
            centre_y = EYE_Y - 0.02 - identity.eye_slant / 2 + 0.03 * gaze_y
            away = np.hypot(self.x - centre_x, self.y - centre_y) / identity.eye_size
            ball = np.full_like(self.albedo, (0.88, 0.86, 0.84)) * (1 - 0.25 * np.clip(away / 0.2, 0, 1))[..., None]
            mix(ball, self.inside(0.098 - away, 0.02), np.array(identity.iris, np.float32) * 0.55)
            mix(ball, self.inside(0.082 - away, 0.02), np.array(identity.iris, np.float32))
            mix(ball, self.inside(0.042 - away, 0.02), (0.03, 0.03, 0.03))
            shade = self.line(upper, 0.05, 0.02)
            ball *= 1 - 0.55 * np.clip(1.6 * shade, 0, 1)[..., None]
            mix(self.albedo, eye, ball)
            glint = self.inside(0.022 - np.hypot(self.x - centre_x + 0.03, self.y - centre_y + 0.035), 0.02)
            self.glints += 0.6 * glint * eye
            lash = np.clip(self.line(upper, 0.030 + 0.02 * identity.make_up, 0.008) * 1.3, 0, 1)
            mix(self.albedo, 0.85 * lash, self.skin * 0.14)
            mix(self.albedo, 0.30 * self.line(lower, 0.022, 0.01), self.skin * np.array([0.45, 0.32, 0.30], np.float32))
            crease = upper - np.array([0, 0.055], np.float32)
            fold = 0.40 * (1 - 0.6 * self.units.au5)
            mix(self.albedo, fold * self.line(crease[3:-2], 0.028, 0.014), self.skin * 0.40)

    def _paint_mouth(self) -> None:
        identity, units, marks = self.identity, self.units, self.marks
        lip = self.skin * np.array([0.90, 0.62, 0.62], np.float32)
        lip = (1 - 0.6 * identity.make_up) * lip + 0.6 * identity.make_up * np.array([0.66, 0.16, 0.20], np.float32)
        upper = self.polygon(np.concatenate([marks.lip_upper_outer, marks.lip_upper_inner[::-1]]), 0.010)
        lower = self.polygon(np.concatenate([marks.lip_lower_inner, marks.lip_lower_outer[::-1]]), 0.012)
        mix(self.albedo, 0.85 * upper, lip * 0.84)
        mix(self.albedo, 0.85 * lower, lip)
        self.relief += 0.035 * self.polygon(np.concatenate([marks.lip_upper_outer, marks.lip_upper_inner[::-1]]), 0.03)
        self.relief += 0.060 * self.polygon(np.concatenate([marks.lip_lower_inner, marks.lip_lower_outer[::-1]]), 0.03)
        opening = self.polygon(np.concatenate([marks.lip_upper_inner, marks.lip_lower_inner[::-1]]))
        inside = np.full_like(self.albedo, (0.16, 0.05, 0.05))
        edge = np.interp(self.row[0], marks.lip_upper_inner[:, 0], marks.lip_upper_inner[:, 1])[None, :]
        show = 0.035 + 0.09 * max(units.au12_left, units.au12_right) + 0.06 * units.au20 + 0.03 * units.au26
        gaps = 1 - 0.10 * (np.abs(np.sin(self.row * 38)) < 0.2)
        teeth = self.inside(edge + show - self.y, 0.02) * self.inside(0.27 - np.abs(self.x), 0.16)
        mix(inside, 0.92 * teeth, np.array([0.90, 0.88, 0.82], np.float32) * gaps[..., None])
        floor = float(marks.lip_lower_inner[16, 1])
        mix(inside, 0.8 * self.bump(0, floor, 0.18, 0.09), (0.60, 0.28, 0.28))
        mix(self.albedo, opening, inside)
        seam = (marks.lip_upper_inner + marks.lip_lower_inner) / 2
        mix(
            self.albedo,
            0.75 * (1 - opening) * self.line(seam, 0.022, 0.010),
            self.skin * np.array([0.32, 0.16, 0.16], np.float32),
        )
        for corner in (seam[0], seam[-1]):
            mix(self.albedo, 0.35 * self.bump(float(corner[0]), float(corner[1]), 0.04, 0.035), self.skin * 0.35)

    def _paint_beard(self) -> None:
        style, marks = self.identity.beard, self.marks
        if style == "none":
            return
        upper_y = float(marks.lip_upper_outer[16, 1])
        moustache = self.bump(0, upper_y - 0.06, 0.30, 0.07)
        jaw_line = 0.28 + 0.62 * np.clip(1 - np.abs(self.x) / (0.86 * self.identity.face_width), 0, 1) ** 0.55
        jaw = self.inside(self.y - jaw_line, 0.22) * self.head
        lips = self.polygon(np.concatenate([marks.lip_upper_outer, marks.lip_lower_outer[::-1]]), 0.02)
        extent = moustache if style == "moustache" else np.maximum(jaw, moustache)
        opacity = {"stubble": 0.30, "moustache": 0.95, "full": 0.95}[style]
        grain = np.clip(0.95 + 0.15 * self.noise(0.035), 0, 1.2)
        mask = np.clip(opacity * extent * grain, 0, 1) * (1 - np.clip(1.4 * lips, 0, 1))
        colour = self._hair_paint(0.15) if style != "stubble" else np.asarray(self.skin * 0.45, np.float32)
        mix(self.albedo, mask, colour)
        if style == "full":
            self.relief += 0.04 * jaw

    def _paint_brows(self) -> None:
        thickness = 0.062 * self.identity.brow_thickness
        colour = np.minimum(self.hair_colour * 0.8, self.skin * 0.62)
        for brow, taper in ((self.marks.brow_left, -1), (self.marks.brow_right, 1)):
            along = np.linspace(0, 1, len(brow), dtype=np.float32)[::taper]
            half = (thickness * (0.75 + 0.35 * np.sin(np.pi * along) - 0.55 * along**2))[:, None] * np.array(
                [0, 1], np.float32
            )
            mask = self.polygon(np.concatenate([brow - half, (brow + half * 0.8)[::-1]]), 0.016)
            hairs = np.clip(0.88 + 0.16 * self.noise(0.04), 0, 1)
            mix(self.albedo, np.clip(1.1 * mask, 0, 0.95) * hairs, colour)

    def _paint_hair(self) -> None:
        style, identity = self.identity.hair, self.identity
        if style == "bald":
            return
        line = self.marks.hairline_y
        temple = np.abs(self.x) / (0.9 * identity.face_width)
        ragged = 0.035 * self.strands
        edge = line + 0.62 * np.clip(temple, 0, 1.2) ** 3.5
        if style == "fringe":
            edge = line + 0.36 + 0.25 * temple**4 + 0.03 * np.sin(self.x * 7)
        elif style == "hat":
            edge, ragged = line + 0.30 + 0.22 * temple**2, np.zeros_like(ragged)
        volume = {"short": 0.07, "fringe": 0.12, "long": 0.13, "curly": 0.16, "bun": 0.04, "hat": 0.06}[style]
        grow = volume * identity.hair_volume
        outer = half_width(self.column, identity, self.marks.chin_y, grow=grow) + 0.6 * ragged - np.abs(self.x)
        cap = self.inside(outer, 0.03) * self.inside(edge + ragged - self.y, 0.05)
        if style in ("long", "curly", "fringe", "short"):
            reach = {"long": 1.5, "curly": 0.35, "fringe": 0.15, "short": -0.02}[style]
            locks = self.inside(np.abs(self.x) - 0.86 * identity.face_width - ragged, 0.06) * self.inside(outer, 0.03)
            cap = np.maximum(
                cap, locks * self.inside(reach + 2 * ragged - self.y, 0.15) * self.inside(self.y - edge + 0.3, 0.1)
            )
        colour = np.array(identity.clothes, np.float32) * (1 + 0.1 * np.sin(self.x * 40))[..., None]
        # Hair lies on the brow: a soft shadow along its edge.
        mix(self.albedo, 0.35 * self.head * cv2.GaussianBlur(cap, (0, 0), 0.05 * self.pixels_per_unit), self.skin * 0.4)
        self.cover(cap, colour if style == "hat" else self._hair_paint())
        dome = (
            0.80
            * np.clip(1 - (self.x / 1.1) ** 2, 0, 1) ** 0.55
            * np.clip(1 - ((self.y + 0.1) / 1.62) ** 2, 0, 1) ** 0.45
        )
        lifted = dome + grow * 0.5 + (0.0 if style == "hat" else 0.014) * self.strands
        self.relief = cap * lifted + (1 - cap) * self.relief

    def _paint_glasses(self) -> None:
        frame = np.zeros_like(self.alpha)
        angle = np.linspace(0, 2 * np.pi, 40, dtype=np.float32)
        eye_x = 0.42 * self.identity.eye_distance
        for side in (-1, 1):
            ring_x = side * eye_x + 0.30 * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.7
            ring_y = EYE_Y + 0.03 + 0.24 * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.7
            ring = np.stack([ring_x, ring_y], 1)
            frame = np.maximum(frame, self.line(ring, 0.035, 0.006))
            temple = np.array([[side * (eye_x + 0.30), EYE_Y - 0.05], [side * 0.92, EYE_Y - 0.02]], np.float32)
            frame = np.maximum(frame, self.line(temple, 0.035, 0.006))
        bridge = np.array([[-eye_x + 0.29, EYE_Y - 0.02], [0, EYE_Y - 0.06], [eye_x - 0.29, EYE_Y - 0.02]], np.float32)
        frame = np.maximum(frame, self.line(bridge, 0.03, 0.006))
        mix(self.albedo, 0.9 * frame, (0.08, 0.07, 0.07))
