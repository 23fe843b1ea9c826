from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_yolo.errors import ModelError
from emotion_yolo.preparation.localise import face_finder, localise, locate
from emotion_yolo.structures.images import Image
from tests.builders import exported_model, painted, save_picture, yunet_network


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("detector"))


def finder_of(boxes: list[list[float]], confidence: list[float]):
    return lambda _image: (np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(confidence, np.float32))


def test_the_box_of_a_crop_becomes_the_face_found_in_it(detector: Path, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "a.png", painted({(1, 1): 4}))
    (box,) = localise([picture], face_finder(str(detector), imgsz=96, conf=0.3), threads=1)
    assert box.how == "found"
    assert box.confidence > 0.9
    np.testing.assert_allclose(box.xywhn, [0.5, 0.5, 1 / 3, 1 / 3], atol=1e-3)


def test_boxes_come_in_the_order_of_the_pictures_whatever_the_threads(detector: Path, tmp_path: Path) -> None:
    cells = [(0, 0), (2, 1), (1, 2), (0, 2), (2, 2)]
    pictures = [save_picture(tmp_path / f"{i}.png", painted({cell: 1})) for i, cell in enumerate(cells)]
    boxes = localise(pictures, face_finder(str(detector), imgsz=96, conf=0.3), threads=2)
    centres = [[(column + 0.5) / 3, (row + 0.5) / 3] for column, row in cells]
    np.testing.assert_allclose([box.xywhn[:2] for box in boxes], centres, atol=1e-3)


def test_a_crop_without_a_found_face_gets_the_median_box_and_says_so(detector: Path, tmp_path: Path) -> None:
    pictures = [save_picture(tmp_path / f"{i}.png", painted({(i, 1): 2})) for i in range(3)]
    pictures.append(save_picture(tmp_path / "empty.png", painted({})))
    boxes = localise(pictures, face_finder(str(detector), imgsz=96, conf=0.3), threads=1)
    assert [box.how for box in boxes] == ["found", "found", "found", "typical"]
    np.testing.assert_allclose(boxes[3].xywhn, boxes[1].xywhn)
    assert boxes[3].confidence == 0


def test_refuses_a_set_in_which_no_face_is_found(detector: Path, tmp_path: Path) -> None:
    picture = save_picture(tmp_path / "empty.png", painted({}))
    with pytest.raises(ModelError, match="no face found in any of 1 crops"):
        localise([picture], face_finder(str(detector), imgsz=96, conf=0.3), threads=1)


def test_the_most_confident_face_that_fills_enough_of_the_crop_is_taken() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    small_but_sure, large, larger_but_unsure = [0, 0, 10, 10], [20, 20, 80, 90], [0, 0, 100, 100]
    found = locate(image, finder_of([small_but_sure, large, larger_but_unsure], [0.99, 0.8, 0.3]))
    assert found is not None
    np.testing.assert_allclose(found[0], [0.5, 0.55, 0.6, 0.7], atol=1e-6)
    assert found[1] == pytest.approx(0.8)


def test_a_face_in_the_background_is_no_face_of_the_crop() -> None:
    assert locate(np.zeros((100, 100, 3), np.uint8), finder_of([[0, 0, 10, 10]], [0.99])) is None


def test_reports_progress_up_to_the_last_picture(detector: Path, tmp_path: Path) -> None:
    pictures = [save_picture(tmp_path / f"{i}.png", painted({(1, 1): 0})) for i in range(3)]
    seen: list[tuple[int, int]] = []
    finder = face_finder(str(detector), imgsz=96, conf=0.3)
    localise(pictures, finder, threads=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_missing_yunet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"yunet\.onnx: no such file"):
        face_finder(str(tmp_path / "yunet.onnx"), imgsz=96, conf=0.3)


def test_refuses_an_onnx_file_that_is_not_yunet(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot read it as a YuNet"):
        face_finder(str(tmp_path / "other.onnx"), imgsz=96, conf=0.3)


def test_yunet_answers_in_pixels_of_the_crop_clipped_at_its_edges(tmp_path: Path) -> None:
    # The network looks at 192 px; the crop has 96, and the box it sees reaches 32 px over the right edge.
    network = yunet_network(tmp_path / "yunet.onnx", side=192, box=(96.0, 64.0, 128.0, 96.0))
    find = face_finder(str(network), imgsz=192, conf=0.5)
    for _ in range(2):  # one detector serves all pictures of a thread
        xyxy, confidence = find(painted({}))
        np.testing.assert_allclose(xyxy, [[48, 32, 96, 80]], atol=0.5)
        np.testing.assert_allclose(confidence, [1], atol=1e-3)


def test_yunet_that_sees_no_face_answers_with_none(tmp_path: Path) -> None:
    network = yunet_network(tmp_path / "yunet.onnx", side=96, box=(16.0, 16.0, 64.0, 64.0))
    xyxy, confidence = face_finder(str(network), imgsz=96, conf=1.1)(painted({}))
    assert xyxy.shape == (0, 4)
    assert confidence.shape == (0,)


def test_a_crop_without_a_face_is_looked_at_again_with_a_border(tmp_path: Path) -> None:
    # The painted network sees whole cells of 32 px: a face of 32 px that fills the crop is one only in a wider picture.
    find = face_finder(str(exported_model(tmp_path / "model")), imgsz=96, conf=0.3)
    picture = painted({(1, 1): 5})[16:80, 16:80]  # 64 px, the face in its middle

    def only_larger(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if max(image.shape[:2]) < 96:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        return find(image)

    assert locate(picture, only_larger) is None
    found = locate(picture, only_larger, pad=0.25)
    assert found is not None
    np.testing.assert_allclose(found[0], [0.5, 0.5, 0.5, 0.5], atol=2e-2)
