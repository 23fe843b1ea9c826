import os
from pathlib import Path

import av
import numpy as np
import pytest

from emotion_yolo.errors import SourceError, StorageError
from emotion_yolo.video.reading import VideoFrame, read_video
from emotion_yolo.video.writing import VideoWriter
from tests.builders import painted
from tests.video_builders import FACE, motion_jpeg, timed, turned_right, with_zeroed_frame


def problems(frames: list[VideoFrame]) -> list[str]:
    return [frame.problem for frame in frames if frame.problem]


def test_a_damaged_frame_is_said_in_its_place_and_the_rest_follows(tmp_path: Path) -> None:
    clip = with_zeroed_frame(motion_jpeg(tmp_path / "whole.avi", 40), 19, tmp_path / "damaged.avi")
    frames = list(read_video(clip))
    assert [frame.index for frame in frames] == list(range(40))
    assert [frame.index for frame in frames if frame.image is None] == [19]
    assert "frame 19 cannot be decoded" in str(frames[19].problem)
    assert frames[20].time_s == pytest.approx(20 / 25)


@pytest.mark.parametrize("part", [0.4, 0.7, 0.9])
def test_a_file_that_is_cut_off_says_how_many_frames_it_lacks(tmp_path: Path, part: float) -> None:
    data = motion_jpeg(tmp_path / "whole.avi", 40).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: round(len(data) * part)])
    *frames, last = read_video(tmp_path / "cut.avi")
    assert 0 < len(frames) < 40
    assert f"the file is cut off: {40 - len(frames)} of 40 frames missing at its end" in str(last.problem)


def test_a_file_whose_container_counts_no_frames_is_measured_in_seconds(tmp_path: Path) -> None:
    noise = list(np.random.default_rng(0).integers(0, 256, (60, 96, 96, 3)).astype(np.uint8))
    data = timed(tmp_path / "whole.mkv", [i / 10 for i in range(60)], images=noise).read_bytes()
    assert not problems(list(read_video(tmp_path / "whole.mkv")))
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    (problem,) = problems(list(read_video(tmp_path / "cut.mkv")))
    assert problem.startswith("the file is cut off: ")
    assert problem.endswith(" s missing at its end")


@pytest.mark.parametrize("name", ["http:x.mp4", "2024-01-01T10:20:30.mp4", os.fsdecode(b"caf\xe9.mp4"), "a b'c.mp4"])
def test_any_file_name_is_a_file(tmp_path: Path, name: str) -> None:
    path = timed(tmp_path / "x.mp4", [0.0, 0.1]).rename(tmp_path / name)
    assert len(list(read_video(path))) == 2


def test_a_turned_video_is_read_as_players_show_it(tmp_path: Path) -> None:
    image = painted({(0, 0): 4}, width=128)  # the face at the upper left
    (frame,) = read_video(turned_right(timed(tmp_path / "x.mp4", [0.0], images=[image])))
    assert frame.image is not None
    assert frame.image.shape == (128, 96, 3)
    assert np.abs(frame.image[16, 80].astype(int) - image[16, 16]).max() < 40  # now at the upper right


@pytest.mark.parametrize("content", [b"no video", b""])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.mp4: cannot be read as a video"):
        list(read_video(tmp_path / "x.mp4"))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(tmp_path / "x.m4a", "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match="holds no video"):
        list(read_video(tmp_path / "x.m4a"))


def test_a_copy_keeps_the_times_and_the_sound_of_its_source(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.54, 1.9]
    source = timed(tmp_path / "x.mp4", times, sound_s=2.0)
    with VideoWriter(tmp_path / "copy.mp4", sound_of=source) as copy:
        for frame in read_video(source):
            assert frame.image is not None
            copy.write(frame.image, time_s=frame.time_s)
    again = list(read_video(tmp_path / "copy.mp4"))
    assert [frame.time_s for frame in again] == pytest.approx(times, abs=0.002)
    with av.open(tmp_path / "copy.mp4") as container:
        (sound,) = container.streams.audio
        assert float(sound.duration * sound.time_base) == pytest.approx(2.0, abs=0.3)


def test_frames_of_odd_and_of_changing_sizes_are_written(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "x.mp4") as copy:
        copy.write(FACE[:95, :93], time_s=0.0)
        copy.write(FACE, time_s=0.1)
        copy.write(FACE[:50, :40], time_s=0.1)  # at the same time: it is shown a tick later
    frames = list(read_video(tmp_path / "x.mp4"))
    assert [frame.image.shape for frame in frames if frame.image is not None] == [(94, 92, 3)] * 3


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/x\.mp4: cannot be written"):
        VideoWriter(tmp_path / "nowhere" / "x.mp4")
