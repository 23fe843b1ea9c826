import json
import math
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_yolo.errors import SourceError, StorageError
from emotion_yolo.inference.detector import Detector
from emotion_yolo.predict.copies import AnnotatedCopies
from emotion_yolo.predict.reports import ReportFile
from emotion_yolo.predict.run import predict
from emotion_yolo.predict.sources import Input, Inputs
from emotion_yolo.predict.summary import Summary
from emotion_yolo.structures.detections import Detections
from emotion_yolo.tracks import FaceTracker, Tracking
from emotion_yolo.video.reading import read_video
from tests.builders import detections_of, exported_model, painted, save_picture
from tests.video_builders import timed

COMMAND = [sys.executable, "-c", "from emotion_yolo.cli import main; main()", "predict"]
HAPPY, SAD = 4, 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return Detector.load(model)


def run(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)


def clip_of(path: Path, faces: Sequence[dict[tuple[int, int], int]], *, times_s: Sequence[float] | None = None) -> Path:
    """Write a video whose frames show `faces`, by cell and emotion; ten frames a second, unless `times_s` are given."""
    times_s = [number / 10 for number in range(len(faces))] if times_s is None else times_s
    return timed(path, times_s, images=[painted(frame) for frame in faces])


def tracked(detector: Detector, clip: Path, tracking: Tracking, **options: Any) -> list[dict[str, Any]]:
    (source,) = Inputs([str(clip)])
    return list(predict(detector, source, tracking=tracking, **options))


def face_at(x: float, *, emotion: int = HAPPY, confidence: float = 0.9) -> Detections:
    return detections_of([[x, 100, x + 100, 220]], confidence=[confidence], emotions=[emotion], image_wh=(1000, 400))


def happiness(faces: Detections) -> float:
    return float(faces.probabilities[0, HAPPY])


# Numbers


def test_each_face_keeps_a_number_of_its_own(detector: Detector, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", [{(0, 0): HAPPY, (2, 2): SAD}] * 8)
    answers = tracked(detector, clip, Tracking())
    assert [face["track"] for face in answers[0]["detections"]] == [None, None]  # found once may be a mistake
    numbers = [{face["emotion"]: face["track"] for face in answer["detections"]} for answer in answers[1:]]
    assert all(entry == numbers[0] for entry in numbers)
    assert sorted(numbers[0].values()) == [0, 1]


def test_numbers_follow_faces_that_move_at_frames_of_varying_length() -> None:
    tracker = FaceTracker(half_life_s=0, confidence=0.25)
    seen: list[tuple[int | None, ...]] = []
    for time_s in (0.0, 0.04, 0.08, 0.12, 0.2, 0.24, 0.5, 0.54, 0.9, 1.0):
        left, right = 100 + 300 * time_s, 800 - 300 * time_s
        boxes = [[left, 20, left + 80, 120], [right, 220, right + 80, 320]]
        faces = detections_of(boxes, confidence=[0.9, 0.8], image_wh=(1000, 400))
        seen.append(tracker.update(faces, time_s=time_s).tracks)
    # At 0.9 s both have moved by more than their width since 0.54 s: only a step scaled by time meets them.
    assert set(seen[1:]) == {seen[1]}
    assert None not in seen[1]


def test_an_unsure_face_continues_a_track_and_begins_none() -> None:
    tracker = FaceTracker(half_life_s=0, confidence=0.5)
    for number in range(5):
        assert len(tracker.update(face_at(700, confidence=0.3), time_s=number / 25).faces) == 0
    for number in range(5, 8):
        tracker.update(face_at(100), time_s=number / 25)
    assert tracker.update(face_at(100, confidence=0.3), time_s=8 / 25).tracks == (0,)


def test_a_face_gone_for_longer_than_a_second_comes_back_as_another() -> None:
    def after(gap_s: float) -> list[int | None]:
        tracker = FaceTracker(half_life_s=0, confidence=0.25)
        times_s = [0.0, 0.1, 0.2, 0.2 + gap_s, 0.3 + gap_s]
        return [tracker.update(face_at(100), time_s=time_s).tracks[0] for time_s in times_s]

    assert after(0.8) == [None, 0, 0, 0, 0]
    assert after(1.2) == [None, 0, 0, None, 1]


def test_times_that_repeat_or_go_back_stop_no_track() -> None:
    tracker = FaceTracker(half_life_s=0.5, confidence=0.25)
    tracks = [tracker.update(face_at(100), time_s=time_s).tracks for time_s in (0.0, 0.1, 0.1, 0.05, 0.2)]
    assert tracks == [(None,), (0,), (0,), (0,), (0,)]


def test_pictures_have_no_tracks(detector: Detector, tmp_path: Path) -> None:
    (answer,) = tracked(detector, save_picture(tmp_path / "x.png", painted({(1, 1): HAPPY})), Tracking())
    assert "track" not in answer["detections"][0]


# Emotions


@pytest.mark.parametrize("times_s", [[0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.1, 0.13, 0.15, 0.38, 0.5]])
def test_probabilities_approach_a_new_value_by_half_in_a_half_life_whatever_the_frame_rate(
    times_s: Sequence[float],
) -> None:
    tracker = FaceTracker(half_life_s=0.2, confidence=0.25)
    for time_s in (-0.2, -0.1, 0.0):
        before = happiness(tracker.update(face_at(100), time_s=time_s).faces)
    target = happiness(face_at(100, emotion=SAD))
    for time_s in times_s[1:]:
        got = happiness(tracker.update(face_at(100, emotion=SAD), time_s=time_s).faces)
        assert got == pytest.approx(target + (before - target) * 0.5 ** (time_s / 0.2), abs=1e-6)


def test_without_a_half_life_probabilities_are_those_of_the_frame() -> None:
    tracker = FaceTracker(half_life_s=0, confidence=0.25)
    for number, emotion in enumerate((HAPPY, SAD, HAPPY, SAD)):
        faces = face_at(100, emotion=emotion)
        got = tracker.update(faces, time_s=number / 25).faces
        np.testing.assert_allclose(got.probabilities, faces.probabilities, atol=1e-6)


def test_a_single_frame_with_another_emotion_changes_no_name(detector: Detector, tmp_path: Path) -> None:
    emotions = [HAPPY] * 6 + [SAD] + [HAPPY] * 3
    clip = clip_of(tmp_path / "clip.mp4", [{(1, 1): emotion} for emotion in emotions])

    def names(half_life_s: float) -> set[str]:
        answers = tracked(detector, clip, Tracking(half_life_s=half_life_s))
        return {face["emotion"] for answer in answers for face in answer["detections"]}

    assert names(0) == {"happy", "sad"}
    assert names(0.5) == {"happy"}


# The command


def test_copies_carry_the_number(detector: Detector, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", [{(1, 1): HAPPY}] * 4)

    def last_frame(folder: Path, tracking: Tracking | None) -> NDArray[np.int64]:
        (source,) = Inputs([str(clip)])
        with AnnotatedCopies(folder) as copies:
            list(predict(detector, source, tracking=tracking, copies=copies))
        image = list(read_video(folder / "clip.mp4"))[-1].image
        assert image is not None
        return image.astype(np.int64)

    plain, numbered = last_frame(tmp_path / "a", None), last_frame(tmp_path / "b", Tracking())
    label = np.s_[20:32, 32:96]
    assert np.abs(plain[label] - numbered[label]).max() > 50
    assert np.abs(plain[64:] - numbered[64:]).mean() < 10


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_cut_file_is_continued_with_the_same_numbers_and_averages(model: Path, tmp_path: Path, kind: str) -> None:
    emotions = [HAPPY, HAPPY, SAD, SAD, HAPPY, SAD, HAPPY, HAPPY]
    clip = clip_of(tmp_path / "clip.mp4", [{(1, 1): emotion} for emotion in emotions])
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = [clip, "--model", model, "--track", "--half-life", "0.1"]
    done = run(*options, f"--{kind}", whole)
    assert done.returncode == 0, done.stderr
    cut.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:5]))
    shutil.copy(tmp_path / "whole.run.json", tmp_path / "cut.run.json")
    done = run(*options, f"--{kind}", cut, "--resume")
    assert done.returncode == 0, done.stderr
    assert cut.read_bytes() == whole.read_bytes()


def test_the_tracks_of_a_camera_are_not_resumed(detector: Detector) -> None:
    camera = Input("camera:0", "camera", Path("camera:0"))
    with pytest.raises(SourceError, match="camera:0: the tracks of a camera cannot be resumed"):
        list(predict(detector, camera, tracking=Tracking(), first_frame=3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--every", "2"], "add --track"),
        (["--summary", "s.json"], "add --track"),
        (["--timeline", "t.png"], "add --track"),
        (["--track", "--summary", "s.json", "--json", "a", "--resume"], "need the whole run"),
        (["--track", "--timeline", "t.png", "--json", "a", "--resume"], "need the whole run"),
        (["--track", "--timeline", "t.jpg"], "expected a name that ends in .png"),
    ],
)
def test_options_that_cannot_do_without_another_or_with_it_are_refused(
    model: Path, tmp_path: Path, options: Sequence[str], said: str
) -> None:
    done = run(tmp_path, "--model", model, *options)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_the_extra_is_named_where_it_is_missing(model: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", [{}])
    script = "import sys; sys.modules['trackers'] = None; from emotion_yolo.cli import main; main()"
    command = [sys.executable, "-c", script, "predict", str(clip), "--model", str(model), "--track"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 16
    assert "pip install 'emotion-yolo[track]'" in done.stderr


# Frames in between


@pytest.mark.parametrize("times_s", [[0.24, 0.28], [0.21, 0.33]])
def test_boxes_move_on_with_the_time_between_the_frames_looked_at(times_s: Sequence[float]) -> None:
    tracker = FaceTracker(half_life_s=0, confidence=0.25)
    for number in range(6):
        tracker.update(face_at(100 + 200 * number * 0.04), time_s=number * 0.04)
    for time_s in times_s:
        held = tracker.carry_on(time_s=time_s)
        assert held.tracks == (0,)
        assert held.faces.xyxy[0].tolist() == pytest.approx([100 + 200 * time_s, 100, 200 + 200 * time_s, 220], abs=3)
    # Carrying on changes nothing: the next frame is met as if it had not been asked.
    assert tracker.update(face_at(100 + 200 * 0.4), time_s=0.4).tracks == (0,)


def test_a_face_that_leaves_the_picture_is_not_carried_on() -> None:
    tracker = FaceTracker(half_life_s=0, confidence=0.25)
    for number in range(6):
        tracker.update(face_at(500 + 2000 * number * 0.04), time_s=number * 0.04)
    assert len(tracker.carry_on(time_s=0.21).faces) == 1
    assert len(tracker.carry_on(time_s=0.6).faces) == 0


def test_faces_are_looked_for_in_every_nth_frame_and_held_between(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emotions = [HAPPY, HAPPY, HAPPY, SAD, SAD, SAD, SAD, HAPPY]
    clip = clip_of(tmp_path / "clip.mp4", [{(1, 1): emotion} for emotion in emotions])
    find, looks = detector.predict_picture, []

    def count(*arguments: Any, **options: Any) -> Detections:
        looks.append(1)
        return find(*arguments, **options)

    monkeypatch.setattr(detector, "predict_picture", count)
    answers = tracked(detector, clip, Tracking(half_life_s=0, every=3))
    assert len(looks) == 3  # of frames 0, 3 and 6
    faces = [answer["detections"][0] for answer in answers]
    assert [face["emotion"] for face in faces] == ["happy"] * 3 + ["sad"] * 5
    assert [face["track"] for face in faces] == [None] * 3 + [0] * 5
    assert all(math.isclose(face["box"]["x1"], 32, abs_tol=2) for face in faces)


# The summary


def frame_answer(frame: int, time_s: float, emotions: dict[int | None, str], source: str = "a.mp4") -> dict[str, Any]:
    faces = [{"track": track, "emotion": emotion} for track, emotion in emotions.items()]
    return {"source": source, "frame": frame, "time_s": time_s, "detections": faces}


def test_a_summary_weighs_frames_by_the_time_they_are_shown() -> None:
    summary = Summary()
    summary.add({"source": "x.png", "detections": [{"emotion": "happy"}]})
    summary.add(frame_answer(0, 0.0, {0: "happy", None: "fear"}))
    summary.add(frame_answer(1, 1.0, {0: "sad", 1: "anger"}))
    summary.add({"source": "a.mp4", "frame": 2, "time_s": 1.2, "error": "a.mp4: frame 2 cannot be decoded"})
    summary.add(frame_answer(3, 1.5, {0: "happy"}))
    summary.add(frame_answer(4, 3.5, {}))
    summary.add(frame_answer(5, 4.0, {0: "happy"}))  # and for another half second, as long as the frame before it
    summary.add(frame_answer(0, 0.0, {0: "neutral"}, "b.mp4"))
    summary.close()
    first = {
        "track": 0,
        "from_s": 0.0,
        "to_s": 4.0,
        "seen_s": 4.0,
        "shares": {"happy": 0.875, "sad": 0.125},
        "changes": 2,
        "changes_per_minute": 30.0,
    }
    second = {
        "track": 1,
        "from_s": 1.0,
        "to_s": 1.0,
        "seen_s": 0.5,
        "shares": {"anger": 1.0},
        "changes": 0,
        "changes_per_minute": 0.0,
    }
    only_frame = {"track": 0, "from_s": 0.0, "to_s": 0.0, "seen_s": 0.0, "shares": {}, "changes": 0}
    assert summary.record() == {
        "videos": [
            {"source": "a.mp4", "tracks": [first, second]},
            {"source": "b.mp4", "tracks": [only_frame | {"changes_per_minute": None}]},
        ]
    }


def test_the_same_video_twice_is_summed_up_twice() -> None:
    summary = Summary()
    for frame in (0, 1, 0, 1):
        summary.add(frame_answer(frame, frame / 2, {0: "happy"}))
    summary.close()
    videos: Any = summary.record()["videos"]
    assert [video["tracks"][0]["seen_s"] for video in videos] == [1.0, 1.0]


def test_the_command_writes_a_summary_of_each_track(model: Path, tmp_path: Path) -> None:
    emotions = [HAPPY] * 6 + [SAD] * 4
    clip = clip_of(tmp_path / "clip.mp4", [{(1, 1): emotion} for emotion in emotions])
    path = tmp_path / "summary.json"
    options = [clip, "--model", model, "--track", "--half-life", "0", "--summary", path]
    done = run(*options)
    assert done.returncode == 0, done.stderr
    (video,) = json.loads(path.read_text())["videos"]
    (track,) = video["tracks"]
    assert video["source"] == str(clip)
    assert track["seen_s"] == pytest.approx(0.9)  # of ten frames; the first has no number yet
    assert track["shares"] == {"happy": pytest.approx(5 / 9, abs=1e-4), "sad": pytest.approx(4 / 9, abs=1e-4)}
    assert (track["changes"], track["changes_per_minute"]) == (1, pytest.approx(60 / 0.9, abs=0.01))
    assert run(*options).returncode == 7
    assert run(*options, "--overwrite").returncode == 0


def test_an_unwritable_summary_is_named_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/s\.json: cannot be written"):
        ReportFile(tmp_path / "nowhere" / "s.json", Summary())


def test_a_summary_whose_folder_goes_meanwhile_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    refused = pytest.raises(StorageError, match=r"s\.json: cannot be written \(No such file")
    with refused, ReportFile(folder / "s.json", Summary()):
        folder.rmdir()
