import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from emotion_yolo.drawing import COLOURS
from emotion_yolo.predict.timeline import MAX_TRACKS, MAX_VIDEOS, Timeline
from emotion_yolo.structures.emotions import Emotion
from tests.builders import exported_model, painted
from tests.video_builders import timed

COMMAND = [sys.executable, "-c", "from emotion_yolo.cli import main; main()", "predict"]
LEGEND = 30  # px: height
PLOT = (64, 1064)  # px: left and right end of the bars


def frame(number: int, time_s: float, emotions: Mapping[int | None, str], source: str = "a.mp4") -> dict[str, Any]:
    faces = [{"track": track, "emotion": emotion} for track, emotion in emotions.items()]
    return {"source": source, "frame": number, "time_s": time_s, "detections": faces}


def drawn(frames: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
    """Return the picture [H, W, 3] below its legend."""
    timeline = Timeline()
    for record in frames:
        timeline.add(record)
    timeline.close()
    return np.asarray(Image.open(io.BytesIO(timeline.encoded())).convert("RGB"))[LEGEND:]


def is_of(picture: NDArray[np.uint8], emotion: str) -> NDArray[np.bool_]:
    """Return where a picture [H, W, 3] has the colour of an emotion, [H, W]."""
    return np.asarray((picture == COLOURS[Emotion[emotion.upper()]]).all(axis=2))


def columns(picture: NDArray[np.uint8], emotion: str) -> tuple[int, int]:
    """Return the first and the last column that has the colour of an emotion."""
    found = np.flatnonzero(is_of(picture, emotion).any(axis=0))
    return int(found[0]), int(found[-1])


def test_a_bar_lies_where_its_emotion_was_shown() -> None:
    frames = [frame(n, n / 10, {0: "happy" if n < 5 else "sad"}) for n in range(10)]
    picture = drawn(frames)
    assert columns(picture, "happy") == (64, 563)
    assert columns(picture, "sad") == (564, 1063)


def test_each_track_has_a_row_in_order_of_its_number_and_gaps_stay_empty() -> None:
    frames = [frame(n, n / 10, {1: "anger"} if n < 5 else {1: "anger", 7: "fear", None: "sad"}) for n in range(8)]
    frames += [frame(8, 0.8, {}), frame(9, 0.9, {1: "anger"})]
    picture = drawn(frames)
    rows = [np.flatnonzero(is_of(picture, name).any(axis=1)) for name in ("anger", "fear")]
    assert rows[0].max() < rows[1].min()
    assert len(rows[0]) == len(rows[1]) == 11
    anger = is_of(picture, "anger").any(axis=0)
    assert anger[64:864].all()
    assert not anger[864:964].any()
    assert anger[964:1064].all()
    assert columns(picture, "fear") == (564, 863)
    assert not is_of(picture, "sad").any()  # a face without a track


def test_names_stand_above_bars_that_have_room_for_them() -> None:
    frames = [frame(n, n / 100, {0: "sad" if n == 0 else "surprise"}) for n in range(100)]
    picture = drawn(frames)
    top = np.flatnonzero(is_of(picture, "surprise").any(axis=1))[0]
    above = picture[top - 12 : top - 1] < 100
    assert above[:, 74:140].any()
    assert not above[:, 64:74].any()


def test_an_hour_with_names_that_flicker_is_as_wide_as_a_second() -> None:
    minutes = 60
    frames = (
        frame(n, n / 5, {0: ("happy", "happy", "sad")[n % 3] if n < minutes * 150 else "fear"})
        for n in range(minutes * 300)
    )
    timeline = Timeline()
    for record in frames:
        timeline.add(record)
    timeline.close()
    picture = np.asarray(timeline.picture())[LEGEND:]
    assert picture.shape == drawn([frame(0, 0, {0: "happy"}), frame(1, 1, {0: "happy"})]).shape
    first, last = columns(picture, "happy")
    assert (first, last) == (64, pytest.approx(564, abs=2))
    assert not is_of(picture, "sad").any()  # less than the other in every bin
    assert columns(picture, "fear")[1] == 1063
    assert len(timeline.encoded()) < 20_000


def test_of_a_crowd_those_seen_longest_have_rows() -> None:
    tracks = {number: "anger" if number % 2 else "fear" for number in range(2 * MAX_TRACKS)}
    frames = [frame(0, 0.0, tracks), frame(1, 0.1, {n: e for n, e in tracks.items() if n % 2}), frame(2, 0.2, {})]
    picture = drawn(frames)
    assert not is_of(picture, "fear").any()
    rows = np.flatnonzero(is_of(picture, "anger").any(axis=1))
    assert np.count_nonzero(np.diff(rows) > 1) == MAX_TRACKS - 1


def test_videos_follow_each_other_up_to_a_bound() -> None:
    def of(count: int) -> NDArray[np.uint8]:
        return drawn([frame(n, n / 2, {0: "happy"}, f"{v}.mp4") for v in range(count) for n in range(2)])

    heights = [of(count).shape[0] for count in (1, 2, MAX_VIDEOS, MAX_VIDEOS + 1, MAX_VIDEOS + 9)]
    assert heights[1] - heights[0] == (heights[2] - heights[0]) / (MAX_VIDEOS - 1)
    assert heights[2] < heights[3] == heights[4]  # a line about those that are left out


def test_times_that_go_back_and_frames_without_duration_are_drawn() -> None:
    picture = drawn([frame(0, 0.2, {0: "happy"}), frame(1, 0.1, {0: "sad"})])
    assert not is_of(picture, "happy").any()
    assert picture.shape[1] == 1100


@pytest.mark.parametrize("name", ["\udcff\n.mp4", "x" * 5000 + ".mp4"])
def test_any_name_of_a_file_is_a_title(name: str) -> None:
    assert drawn([frame(0, 0, {0: "sad"}, name), frame(1, 1, {0: "sad"}, name)]).shape[1] == 1100


def test_without_a_face_or_a_video_there_is_a_picture_all_the_same() -> None:
    assert (drawn([frame(0, 0.0, {}), frame(1, 0.1, {})]) < 100).any()
    assert (drawn([]) < 100).any()


def test_the_command_writes_a_timeline_beside_the_answers(tmp_path: Path) -> None:
    model = exported_model(tmp_path / "model")
    happy, sad = 4, 6
    images = [painted({(1, 1): happy if number < 6 else sad}) for number in range(10)]
    clip = timed(tmp_path / "clip.mp4", [number / 10 for number in range(10)], images=images)
    path, summary = tmp_path / "tracks.png", tmp_path / "summary.json"
    options = [clip, "--model", model, "--track", "--half-life", "0", "--timeline", path, "--summary", summary]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *map(str, options), *more], capture_output=True, text=True)

    done = run()
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(path).convert("RGB"))[LEGEND:]
    # The first frame has no number yet; times of the file are in milliseconds.
    assert columns(picture, "happy") == (pytest.approx(164, abs=2), pytest.approx(663, abs=2))
    assert columns(picture, "sad") == (pytest.approx(664, abs=2), 1063)
    assert json.loads(summary.read_text())["videos"][0]["tracks"][0]["changes"] == 1
    assert run().returncode == 7
    assert run("--overwrite").returncode == 0
