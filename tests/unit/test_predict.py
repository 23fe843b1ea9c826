import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

from emotion_yolo.errors import SourceError, StorageError
from emotion_yolo.imaging import ImageLimits, Picture, decode
from emotion_yolo.inference.detector import Detector
from emotion_yolo.predict.copies import AnnotatedCopies
from emotion_yolo.predict.run import predict
from emotion_yolo.predict.sources import Inputs
from emotion_yolo.structures.detections import Detections
from emotion_yolo.video.reading import read_video
from tests.builders import exported_model, painted, save_picture, uncovered
from tests.video_builders import motion_jpeg, timed, with_zeroed_frame

COMMAND = [sys.executable, "-c", "from emotion_yolo.cli import main; main()", "predict"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return Detector.load(model)


def answers(detector: Detector, *sources: Path | str, copies: AnnotatedCopies | None = None) -> list[dict[str, Any]]:
    inputs = Inputs([str(source) for source in sources])
    return [record for source in inputs for record in predict(detector, source, copies=copies)]


def run(model: Path, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "--model", str(model), *map(str, arguments)], capture_output=True, text=True)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def skipped(*sources: Path) -> tuple[list[str], dict[str, int]]:
    inputs = Inputs([str(source) for source in sources])
    return [source.path.name for source in inputs], dict(inputs.skipped)


def test_a_picture_becomes_one_answer_with_boxes_in_pixels(detector: Detector, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png", painted({(1, 1): 4}))
    (answer,) = answers(detector, picture)
    assert answer["source"] == str(picture)
    assert answer["image"] == {"width": 96, "height": 96}
    (face,) = answer["detections"]
    assert face["emotion"] == "happy"
    assert face["box"] == {"x1": 32.0, "y1": 32.0, "x2": 64.0, "y2": 64.0}
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_one_bad_picture_never_spoils_the_rest(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    save_picture(tmp_path / "b.png", painted({(0, 0): 1}))
    bad, good = answers(detector, tmp_path)
    assert "cannot be decoded" in bad["error"]
    assert len(good["detections"]) == 1


def test_a_large_picture_is_looked_at_reduced_and_drawn_on_in_full(detector: Detector, tmp_path: Path) -> None:
    large = cv2.resize(painted({(1, 1): 4}), (960, 960), interpolation=cv2.INTER_NEAREST)
    picture = save_picture(tmp_path / "large.png", large)
    with AnnotatedCopies(tmp_path / "out") as copies:
        (answer,) = answers(detector, picture, copies=copies)
    reduced = decode(picture.read_bytes(), ImageLimits(), fit=detector.imgsz)
    assert reduced.factor > 1
    (box,) = detector.predict_picture(reduced).xyxy.tolist()
    assert list(answer["detections"][0]["box"].values()) == pytest.approx(box, abs=0.1)
    assert answer["image"] == {"width": 960, "height": 960}
    assert cv2.imread(str(tmp_path / "out" / "large.jpg")).shape == (960, 960, 3)


def test_a_cut_picture_is_an_error_and_a_name_that_is_not_utf_8_is_none(detector: Detector, tmp_path: Path) -> None:
    whole = save_picture(tmp_path / "x.png", painted({(1, 1): 4})).read_bytes()
    (tmp_path / "x.png").write_bytes(whole[:-12])
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(whole)
    good, bad = sorted(answers(detector, tmp_path), key=lambda answer: "error" in answer)
    assert "truncated" in bad["error"]
    assert len(good["detections"]) == 1


# Folders


def test_a_folder_is_searched_to_the_bottom_in_order(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.png", "c.png"):
        save_picture(tmp_path / name, painted({}))
    assert skipped(tmp_path) == (["c.png", "2.png", "1.png"], {})


def test_what_systems_leave_beside_pictures_is_skipped_and_counted(tmp_path: Path) -> None:
    data = save_picture(tmp_path / "x.jpg", painted({})).read_bytes()
    for name in ("._x.jpg", "@eaDir/x.jpg", "Thumbs.db", ".thumbnails/x.jpg", "__MACOSX/._x.jpg", "clip.mp4", "n.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found, reasons = skipped(tmp_path)
    assert found == ["x.jpg"]
    assert reasons == {
        "hidden file": 1,
        "hidden or system folder": 3,
        "not a picture by its file name": 2,
        "video inside a folder; name it to read it": 1,
    }


def test_pictures_are_read_by_content_under_every_ending_of_their_format(detector: Detector, tmp_path: Path) -> None:
    photo = save_picture(tmp_path / "photo.jpg", painted({(1, 1): 4}))
    for name in ("download.jfif", "old.JPE"):
        (tmp_path / name).write_bytes(photo.read_bytes())
    PIL.Image.fromarray(painted({})).save(tmp_path / "moving.gif")
    found = {Path(answer["source"]).name: len(answer["detections"]) for answer in answers(detector, tmp_path)}
    assert found == {"download.jfif": 1, "moving.gif": 0, "old.JPE": 1, "photo.jpg": 1}


@pytest.mark.parametrize("name", ["a.avi", "a.DIVX", "a.vob", "2024-01-01T10:20:30.wmv", "http:a.3gp", "-a.ts"])
def test_a_video_is_one_whatever_its_ending(
    detector: Detector, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    motion_jpeg(tmp_path / "made" / "clip.avi", 2).rename(name)
    assert [answer["frame"] for answer in answers(detector, name)] == [0, 1]


def test_a_folder_named_as_a_picture_is_a_folder(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "x.jpg" / "y.png", painted({}))
    assert skipped(tmp_path / "in") == (["y.png"], {})


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    save_picture(tmp_path / "elsewhere" / "x.png", painted({}))
    (tmp_path / "in").mkdir()
    for name, target in (
        ("album", "../elsewhere"),
        ("again", "../elsewhere"),
        ("loop", "."),
        ("broken.png", "nothing"),
    ):
        (tmp_path / "in" / name).symlink_to(target)
    found, reasons = skipped(tmp_path / "in")
    assert found == ["x.png"]
    assert reasons == {"neither a file nor a folder, or a broken link": 1}


def test_heic_is_read_where_its_reader_is_installed_and_else_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.heic").write_bytes(b"")
    assert skipped(tmp_path) == (["x.heic"], {})
    monkeypatch.setattr("emotion_yolo.predict.sources.find_spec", lambda _: None)
    assert skipped(tmp_path) == ([], {"HEIC picture; to read it: pip install 'emotion-yolo[heic]'": 1})


@pytest.mark.parametrize("source", ["nowhere.jpg", "camera:97", "camera:x"])
def test_a_source_that_is_not_there_is_named(detector: Detector, source: str) -> None:
    with pytest.raises(SourceError, match=source):
        answers(detector, source)


# Videos


def test_every_frame_of_a_video_is_answered_with_its_time(detector: Detector, tmp_path: Path) -> None:
    clip = timed(tmp_path / "clip.mp4", [0.0, 0.3, 0.4])
    got = answers(detector, clip)
    assert [(answer["frame"], answer["time_s"]) for answer in got] == [(0, 0.0), (1, 0.3), (2, 0.4)]
    assert all(answer["detections"] for answer in got)


def test_a_damaged_frame_is_an_answer_with_an_error(detector: Detector, tmp_path: Path) -> None:
    clip = with_zeroed_frame(motion_jpeg(tmp_path / "whole.avi", 8), 3, tmp_path / "clip.avi")
    got = answers(detector, clip)
    assert [answer["frame"] for answer in got if "error" in answer] == [3]
    assert len(got) == 8


def test_a_video_that_cannot_be_opened_never_spoils_the_rest(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    bad, good = answers(detector, tmp_path / "bad.mp4", save_picture(tmp_path / "x.png", painted({})))
    assert "bad.mp4: cannot be read as a video" in bad["error"]
    assert good["detections"] == []


# Annotated copies


def test_annotated_pictures_of_one_name_do_not_overwrite_each_other(detector: Detector, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_picture(tmp_path / "in" / folder / "x.png", painted({(1, 1): 2}))
    with AnnotatedCopies(tmp_path / "out") as copies:
        answers(detector, tmp_path / "in", copies=copies)
    assert names_in(tmp_path / "out") == ["x-1.jpg", "x.jpg"]
    drawn = cv2.imread(str(tmp_path / "out" / "x.jpg"))
    assert np.abs(drawn.astype(int) - cv2.cvtColor(painted({(1, 1): 2}), cv2.COLOR_RGB2BGR)).max() > 50


def test_copies_into_the_folder_of_the_sources_replace_none_of_them(model: Path, tmp_path: Path) -> None:
    sources = ("IMG.jpg", "IMG-1.jpg", "p.jpg", "p.png")
    for number, name in enumerate(sources):
        save_picture(tmp_path / name, painted({(1, 1): number}))
    before = {name: (tmp_path / name).read_bytes() for name in sources}
    for options in ([], ["--overwrite"], ["--overwrite"]):
        done = run(model, tmp_path, "--out", tmp_path, *options)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 4  # copies of the run before are not pictures
        assert {name: (tmp_path / name).read_bytes() for name in sources} == before
    # The runs with --overwrite replaced what the first had written.
    assert len(names_in(tmp_path)) == 8


@pytest.mark.parametrize("replaced", [False, True])
def test_copies_of_an_earlier_run_are_replaced_only_on_request(
    detector: Detector, tmp_path: Path, replaced: bool
) -> None:
    for emotion in (2, 5):
        picture = save_picture(tmp_path / "x.png", painted({(1, 1): emotion}))
        with AnnotatedCopies(tmp_path / "out", overwrite=replaced) as copies:
            answers(detector, picture, copies=copies)
    assert names_in(tmp_path / "out") == (["x.jpg"] if replaced else ["x-1.jpg", "x.jpg"])


def test_a_file_that_is_no_copy_is_not_replaced_even_on_request(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.jpg").write_bytes(b"somebody's")
    with AnnotatedCopies(tmp_path / "out", overwrite=True) as copies:
        answers(detector, save_picture(tmp_path / "x.png", painted({})), copies=copies)
    assert (tmp_path / "out" / "x.jpg").read_bytes() == b"somebody's"
    assert names_in(tmp_path / "out") == ["x-1.jpg", "x.jpg"]


def test_a_picture_in_the_place_of_a_copy_is_read_and_never_replaced(detector: Detector, tmp_path: Path) -> None:
    save_picture(tmp_path / "x.png", painted({(1, 1): 2}))
    with AnnotatedCopies(tmp_path) as copies:
        answers(detector, tmp_path, copies=copies)
    theirs = save_picture(tmp_path / "x.jpg", painted({(1, 1): 3}, width=64, height=64))
    before = theirs.read_bytes()
    with AnnotatedCopies(tmp_path, overwrite=True) as copies:
        assert [Path(str(answer["source"])).name for answer in answers(detector, tmp_path, copies=copies)] == [
            "x.jpg",
            "x.png",
        ]
    assert theirs.read_bytes() == before


@pytest.mark.parametrize("stem", ["a\nb", "é" * 125, "x" * 251, os.fsdecode(b"caf\xe9"), "12 angry", '"'])
def test_a_copy_of_any_name_is_known_as_one(detector: Detector, tmp_path: Path, stem: str) -> None:
    save_picture(tmp_path / "plain.png", painted({(1, 1): 2})).rename(tmp_path / f"{stem}.png")
    theirs = save_picture(tmp_path / "b.jpg", painted({}))
    before = theirs.read_bytes()
    for overwrite in (False, True):
        with AnnotatedCopies(tmp_path, overwrite=overwrite) as copies:
            assert len(answers(detector, tmp_path, copies=copies)) == 2
    assert theirs.read_bytes() == before
    assert len(names_in(tmp_path)) == 4


def test_a_picture_that_goes_before_it_is_drawn_on_never_spoils_the_rest(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 4 * detector.imgsz
    large = save_picture(tmp_path / "large.jpg", painted({}, width=side, height=side))
    find = detector.predict_picture

    def find_while_it_goes(picture: Picture, *, conf: float | None = None) -> Detections:
        large.unlink(missing_ok=True)
        return find(picture, conf=conf)

    monkeypatch.setattr(detector, "predict_picture", find_while_it_goes)
    with AnnotatedCopies(tmp_path / "out") as copies:
        first, second = answers(detector, large, save_picture(tmp_path / "x.png", painted({})), copies=copies)
    assert "large.jpg: cannot be read" in first["error"]
    assert second["detections"] == []


def test_a_file_system_without_hard_links_is_written_to_all_the_same(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for folder in ("a", "b"):
        save_picture(tmp_path / "in" / folder / "x.png", painted({}))
    with AnnotatedCopies(tmp_path / "out") as copies:
        answers(detector, tmp_path / "in", copies=copies)
    assert names_in(tmp_path / "out") == ["x-1.jpg", "x.jpg"]


def test_a_video_is_complete_before_the_next_is_read(detector: Detector, tmp_path: Path) -> None:
    clips = [str(motion_jpeg(tmp_path / folder / "clip.avi", 3)) for folder in ("a", "b")]
    with AnnotatedCopies(tmp_path / "out") as copies:
        first, second = Inputs(clips)
        list(predict(detector, first, copies=copies))
        assert len(list(read_video(tmp_path / "out" / "clip.mp4"))) == 3
        list(predict(detector, second, copies=copies))
    assert names_in(tmp_path / "out") == ["clip-1.mp4", "clip.mp4"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_a_playable_copy_of_the_frames_so_far(
    model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    clip = motion_jpeg(tmp_path / "clip.avi", 3000)
    command = [*COMMAND, str(clip), "--model", str(model), "--out", str(tmp_path / "out")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=uncovered(), **pipes)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(20)]
    process.send_signal(number)
    rest, errors = process.communicate(timeout=60)
    count = len(lines) + len(rest.splitlines())
    assert process.returncode == 130, errors
    assert "interrupted after" in errors
    assert count < 3000
    assert abs(len(list(read_video(tmp_path / "out" / "clip.mp4"))) - count) <= 1
    assert names_in(tmp_path / "out") == ["clip.mp4"]


def test_many_videos_need_few_descriptors(model: Path, tmp_path: Path) -> None:
    clips = [motion_jpeg(tmp_path / f"{i}.avi", 1) for i in range(60)]
    command = [*COMMAND, *map(str, clips), "--model", str(model), "--out", str(tmp_path / "out")]
    script = f"ulimit -n 60; exec {subprocess.list2cmdline(command)}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(names_in(tmp_path / "out")) == 60


def test_a_folder_for_copies_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="out: cannot be written"):
        AnnotatedCopies(tmp_path / "out")


# The command


def test_the_command_prints_a_json_line_for_each_picture(model: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a.png", painted({(1, 1): 4}))
    save_picture(tmp_path / "in" / "b.png", painted({}))
    done = run(model, tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [len(json.loads(line)["detections"]) for line in done.stdout.splitlines()] == [1, 0]
    assert names_in(tmp_path / "out") == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        ([], 4, "no pictures in "),
        (["bad.jpg"], 10, "1 of 1 pictures could not be read"),
        (["bad.jpg", "good.png"], 10, "1 of 2 pictures could not be read"),
    ],
)
def test_the_exit_code_says_what_could_not_be_read(
    model: Path, tmp_path: Path, files: Sequence[str], code: int, said: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        path = tmp_path / "in" / name
        path.write_bytes(b"no picture") if name == "bad.jpg" else save_picture(path, painted({}))
    done = run(model, tmp_path / "in")
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stdout.splitlines()) == len(files)


def test_what_was_skipped_is_said_at_the_end(model: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "x.png", painted({}))
    (tmp_path / "._x.png").write_bytes(b"")
    done = run(model, tmp_path)
    assert done.returncode == 0
    assert "skipped 1: hidden file" in done.stderr
