"""A timeline of the tracks of videos: one row per track, time from left to right, a colour for each emotion.

Its size is bounded. A video of any length has the same width: time is divided into as many bins as there is room for,
each in the colour of the emotion that takes most of it. Of more tracks than fit, those seen for longest are shown.
"""

import io
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from emotion_yolo.drawing import COLOURS
from emotion_yolo.predict.reports import TrackReport
from emotion_yolo.structures.emotions import Emotion

MAX_TRACKS = 40
"""Rows of a video."""
MAX_VIDEOS = 12
"""Videos of a picture."""

_INK, _QUIET, _GRID, _PAPER = (20, 20, 20), (95, 91, 85), (225, 223, 220), (255, 255, 255)
_WIDTH, _LEFT, _RIGHT, _GAP = 1100, 64, 36, 10  # px
_PLOT = _WIDTH - _LEFT - _RIGHT
_ROW, _BAR = 26, 11  # px: of a row, and of the coloured bar at its bottom
_TITLE, _AXIS = 30, 30  # px: above and below the rows
_MOST_TICKS = 10
_LONGEST_TITLE = 120  # characters

_FIRST_BIN_S = 0.01
_LEAST_S = 1e-9  # less is a rounding error
_Seconds = defaultdict[tuple[int, str], float]  # by bin and emotion
_COLOUR_OF = {emotion.label: colour for emotion, colour in COLOURS.items()}


@dataclass
class _Video:
    """Seconds of each emotion in each bin, for each track; bins get twice as long when the video outgrows them."""

    source: str
    end_s: float = 0.0
    bin_s: float = _FIRST_BIN_S
    tracks: dict[int, _Seconds] = field(default_factory=dict)

    def show(self, time_s: float, period_s: float, emotions: Mapping[int, str]) -> None:
        begin_s, end_s = max(time_s, 0.0), max(time_s, 0.0) + period_s
        self.end_s = max(self.end_s, end_s)
        while self.end_s > self.bin_s * _PLOT:
            self._widen()
        for number, emotion in emotions.items():
            seconds = self.tracks.setdefault(number, defaultdict(float))
            for index in range(int(begin_s / self.bin_s), math.ceil(end_s / self.bin_s)):
                inside_s = min(end_s, (index + 1) * self.bin_s) - max(begin_s, index * self.bin_s)
                if inside_s > _LEAST_S:
                    seconds[index, emotion] += inside_s

    def _widen(self) -> None:
        self.bin_s *= 2
        for number, seconds in self.tracks.items():
            wider: _Seconds = defaultdict(float)
            for (index, emotion), value in seconds.items():
                wider[index // 2, emotion] += value
            self.tracks[number] = wider

    def rows(self) -> list[tuple[int, list[tuple[float, float, str]]]]:
        """Return the tracks to show, by number: for each its runs of an emotion, from and to in seconds."""
        longest = sorted(self.tracks, key=lambda number: -sum(self.tracks[number].values()))[:MAX_TRACKS]
        return [(number, list(self._runs(self.tracks[number]))) for number in sorted(longest)]

    def _runs(self, seconds: _Seconds) -> Iterator[tuple[float, float, str]]:
        most: dict[int, str] = {}
        for (index, emotion), value in seconds.items():
            if index not in most or value > seconds[index, most[index]]:
                most[index] = emotion
        # Bins that follow each other have the same difference to their place in the row.
        numbered = enumerate(sorted(most.items()))
        for (_, emotion), group in itertools.groupby(numbered, key=lambda entry: (entry[1][0] - entry[0], entry[1][1])):
            indices = [index for _, (index, _) in group]
            yield indices[0] * self.bin_s, min((indices[-1] + 1) * self.bin_s, self.end_s), emotion


class Timeline(TrackReport):
    """Draws the tracks of videos, one video below the other; memory grows with the number of tracks of one video."""

    def __init__(self) -> None:
        super().__init__()
        self._video: _Video | None = None
        self._panels: list[Image.Image] = []
        self._left_out = 0

    def _begin_video(self, source: str) -> None:
        self._video = _Video(source)

    def _show(self, time_s: float, period_s: float, emotions: Mapping[int, str]) -> None:
        assert self._video is not None
        self._video.show(time_s, period_s, emotions)

    def _end_video(self) -> None:
        assert self._video is not None
        if len(self._panels) < MAX_VIDEOS:
            self._panels.append(_panel(self._video))
        else:
            self._left_out += 1
        self._video = None

    def picture(self) -> Image.Image:
        """Return the videos so far, under a legend."""
        note = f"{self._left_out:,} further videos are not shown" if self._left_out else ""
        note = note or ("" if self._panels else "no video was read")
        parts = [_legend(), *self._panels, *([_heading(note)] if note else [])]
        whole = Image.new("RGB", (_WIDTH, sum(part.height for part in parts) + _GAP), _PAPER)
        top = 0
        for part in parts:
            whole.paste(part, (0, top))
            top += part.height
        return whole

    def encoded(self) -> bytes:
        """Return it as PNG."""
        file = io.BytesIO()
        self.picture().save(file, "PNG", optimize=True)
        return file.getvalue()


def _panel(video: _Video) -> Image.Image:
    rows = video.rows()
    hidden = len(video.tracks) - len(rows)
    title = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in video.source)
    if len(title) > _LONGEST_TITLE:
        title = f"…{title[1 - _LONGEST_TITLE :]}"
    if hidden:
        title += f"  ({hidden:,} further tracks, seen for a shorter time, are not shown)"
    if not rows:
        return _heading(f"{title}  (no tracks)")
    panel = Image.new("RGB", (_WIDTH, _TITLE + len(rows) * _ROW + _AXIS), _PAPER)
    panel.paste(_heading(title))
    draw = ImageDraw.Draw(panel)
    bottom = _TITLE + len(rows) * _ROW
    scale = _PLOT / max(video.end_s, _FIRST_BIN_S)
    _draw_axis(draw, video.end_s, scale, bottom)
    for place, (number, runs) in enumerate(rows):
        low = _TITLE + (place + 1) * _ROW - 1
        draw.text((_LEFT - _GAP, low), f"#{number}", font=_font(13), fill=_INK, anchor="rs")
        _draw_runs(draw, runs, scale, low)
    return panel


def _draw_axis(draw: ImageDraw.ImageDraw, end_s: float, scale: float, bottom: int) -> None:
    for tick_s in _ticks(end_s):
        x = _LEFT + tick_s * scale
        draw.line((x, _TITLE, x, bottom + 4), fill=_GRID)
        draw.text((x, bottom + 6), f"{tick_s:,.10g}", font=_font(12), fill=_QUIET, anchor="ma")
    draw.line((_LEFT, bottom, _LEFT + _PLOT, bottom), fill=_QUIET)
    draw.text((_WIDTH - _GAP, bottom + 6), "s", font=_font(12), fill=_QUIET, anchor="ra")


def _draw_runs(draw: ImageDraw.ImageDraw, runs: Sequence[tuple[float, float, str]], scale: float, low: int) -> None:
    font = _font(11)
    for from_s, to_s, emotion in runs:
        left, right = _LEFT + round(from_s * scale), _LEFT + round(to_s * scale)
        draw.rectangle((left, low - _BAR + 1, max(right - 1, left), low), fill=_COLOUR_OF[emotion])
        # The name stands above its bar where there is room, so that no answer rests on colour alone.
        if font.getlength(emotion) + 4 <= right - left:
            draw.text((left + 1, low - _BAR - 2), emotion, font=font, fill=_INK, anchor="ls")


def _ticks(end_s: float) -> list[float]:
    """Return round times from 0 to `end_s`, ten at most, at a distance of 1, 2 or 5 times a power of ten."""
    least = max(end_s, _FIRST_BIN_S) / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    return [number * step for number in range(int(end_s / step * (1 + 1e-9)) + 1)]


def _legend() -> Image.Image:
    legend = Image.new("RGB", (_WIDTH, _TITLE), _PAPER)
    draw = ImageDraw.Draw(legend)
    x = float(_LEFT)
    for emotion in Emotion:
        draw.rectangle((x, 11, x + 14, 11 + _BAR), fill=COLOURS[emotion])
        draw.text((x + 20, 21), emotion.label, font=_font(13), fill=_INK, anchor="ls")
        x += 20 + _font(13).getlength(emotion.label) + 24
    return legend


def _heading(text: str) -> Image.Image:
    heading = Image.new("RGB", (_WIDTH, _TITLE), _PAPER)
    ImageDraw.Draw(heading).text((_LEFT, 21), text, font=_font(13), fill=_INK, anchor="ls")
    return heading


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
