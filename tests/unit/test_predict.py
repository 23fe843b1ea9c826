import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_yolo.detector import Detector
from emotion_yolo.errors import SourceError, StorageError
from emotion_yolo.imaging import ImageLimits, decode
from emotion_yolo.predict import Annotated, predict
from tests.builders import exported_model, painted, save_picture


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def detector(model: Path) -> Detector:
    return Detector.load(model)


def video(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (96, 96))
    for _ in range(count):
        writer.write(cv2.cvtColor(painted({(1, 1): 4}), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_a_picture_becomes_one_answer_with_boxes_in_pixels(detector: Detector, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png", painted({(1, 1): 4}))
    (answer,) = predict(detector, [str(picture)])
    assert answer["source"] == str(picture)
    assert answer["image"] == {"width": 96, "height": 96}
    (face,) = answer["detections"]
    assert face["emotion"] == "happy"
    assert face["box"] == {"x1": 32.0, "y1": 32.0, "x2": 64.0, "y2": 64.0}
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_a_folder_is_searched_to_the_bottom_in_order(detector: Detector, tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.png", "a.txt"):
        save_picture(tmp_path / name, painted({})) if name.endswith("png") else (tmp_path / name).write_text("no")
    sources = [Path(str(answer["source"])).name for answer in predict(detector, [str(tmp_path)])]
    assert sources == ["2.png", "1.png"]


def test_one_bad_picture_never_spoils_the_rest(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    save_picture(tmp_path / "b.png", painted({(0, 0): 1}))
    bad, good = predict(detector, [str(tmp_path)])
    assert "cannot be decoded" in str(bad["error"])
    assert len(good["detections"]) == 1


def test_every_frame_of_a_video_is_answered_and_the_annotated_ones_are_a_video(
    detector: Detector, tmp_path: Path
) -> None:
    clip = video(tmp_path / "clip.avi", 3)
    annotated = Annotated(tmp_path / "out")
    answers = list(predict(detector, [str(clip)], annotated=annotated))
    annotated.close()
    assert [answer["frame"] for answer in answers] == [0, 1, 2]
    assert all(answer["detections"] for answer in answers)
    written = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_annotated_pictures_of_one_name_do_not_overwrite_each_other(detector: Detector, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_picture(tmp_path / "in" / folder / "x.png", painted({(1, 1): 2}))
    list(predict(detector, [str(tmp_path / "in")], annotated=Annotated(tmp_path / "out")))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x-1.jpg", "x.jpg"]
    drawn = cv2.imread(str(tmp_path / "out" / "x.jpg"))
    assert np.abs(drawn.astype(int) - cv2.cvtColor(painted({(1, 1): 2}), cv2.COLOR_RGB2BGR)).max() > 50


@pytest.mark.parametrize("source", ["nowhere.jpg", "camera:97", "camera:x"])
def test_a_source_that_is_not_there_is_named(detector: Detector, source: str) -> None:
    with pytest.raises(SourceError, match=source):
        list(predict(detector, [source]))


def test_a_damaged_video_is_named(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"clip\.mp4: OpenCV cannot open it"):
        list(predict(detector, [str(tmp_path / "clip.mp4")]))


def test_pictures_and_videos_that_cannot_be_written_are_named(detector: Detector, tmp_path: Path) -> None:
    picture, clip = save_picture(tmp_path / "a.png", painted({})), video(tmp_path / "clip.avi", 1)
    (tmp_path / "out" / "a.jpg").mkdir(parents=True)
    (tmp_path / "out" / "clip.mp4").mkdir()
    for source in (picture, clip):
        with pytest.raises(StorageError, match="written"):
            list(predict(detector, [str(source)], annotated=Annotated(tmp_path / "out")))


def test_the_command_prints_a_json_line_for_each_picture(model: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a.png", painted({(1, 1): 4}))
    save_picture(tmp_path / "in" / "b.png", painted({}))
    command = [sys.executable, "-c", "from emotion_yolo.cli import main; main()", "predict", str(tmp_path / "in")]
    result = subprocess.run(
        [*command, "--model", str(model), "--out", str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(line["detections"]) for line in lines] == [1, 0]
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_source_is_never_overwritten_by_its_own_annotated_copy(detector: Detector, tmp_path: Path) -> None:
    picture = tmp_path / "x.jpg"
    picture.write_bytes(save_picture(tmp_path / "in.png", painted({(1, 1): 2})).read_bytes())
    before = picture.read_bytes()
    list(predict(detector, [str(picture)], annotated=Annotated(tmp_path)))
    assert picture.read_bytes() == before
    assert (tmp_path / "x-1.jpg").is_file()


def test_videos_of_one_name_become_two(detector: Detector, tmp_path: Path) -> None:
    clips = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        clips.append(str(video(tmp_path / folder / "clip.avi", 1)))
    annotated = Annotated(tmp_path / "out")
    list(predict(detector, clips, annotated=annotated))
    annotated.close()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip-1.mp4", "clip.mp4"]


def test_a_large_picture_is_looked_at_reduced_and_drawn_on_in_full(detector: Detector, tmp_path: Path) -> None:
    large = cv2.resize(painted({(1, 1): 4}), (960, 960), interpolation=cv2.INTER_NEAREST)
    picture = save_picture(tmp_path / "large.png", large)
    annotated = Annotated(tmp_path / "out")
    (answer,) = predict(detector, [str(picture)], annotated=annotated)
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
    good, bad = sorted(predict(detector, [str(tmp_path)]), key=lambda answer: "error" in answer)
    assert "truncated" in str(bad["error"])
    assert len(good["detections"]) == 1
