import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_yolo.errors import ModelError
from emotion_yolo.inference.artefact import describe, read_spec, write_spec
from emotion_yolo.inference.backends import as_planes, available_cores
from emotion_yolo.inference.decoding import decode
from emotion_yolo.inference.detector import Detector
from emotion_yolo.inference.letterbox import Letterbox, canvases, letterbox
from emotion_yolo.structures.emotions import Emotion
from tests.builders import CELL, COLOURS, GREY, exported_model, painted

FACES = {(0, 0): Emotion.HAPPY, (2, 1): Emotion.ANGER, (1, 2): Emotion.SURPRISE}
WHOLE = Letterbox((96, 96), scale=1.0, left=0, top=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("export"))


def answer(boxes: list[list[float]], scores: list[list[float]]) -> NDArray[np.float32]:
    return np.concatenate([np.asarray(boxes), np.asarray(scores)], axis=1).T[None].astype(np.float32)


def score(emotion: Emotion, value: float) -> list[float]:
    return [value if index == emotion else 0.0 for index in range(8)]


# Letterbox


def test_a_wide_picture_is_scaled_to_fit_and_centred_on_grey() -> None:
    image = np.full((50, 100, 3), (255, 0, 51), np.uint8)
    tensor, box = letterbox(image, [(64, 64)])
    assert tensor.shape == (1, 64, 64, 3)
    assert tensor.dtype == np.uint8
    assert box == Letterbox((100, 50), scale=0.64, left=0, top=16)
    assert tensor[0, 32, 32].tolist() == [255, 0, 51]
    assert tensor[0, 15, 32].tolist() == tensor[0, 48, 32].tolist() == [114] * 3


def test_a_tall_picture_has_its_border_left_and_right() -> None:
    _, box = letterbox(np.zeros((100, 50, 3), np.uint8), [(64, 64)])
    assert (box.left, box.top) == (16, 0)


def test_canvases_are_a_square_and_4_to_3_lying_and_upright_in_whole_strides() -> None:
    assert canvases(640) == ((640, 640), (640, 480), (480, 640))
    assert canvases(416) == ((416, 416), (416, 320), (320, 416))
    assert canvases(96) == ((96, 96),)


@pytest.mark.parametrize(
    ("image_wh", "canvas_wh"),
    [
        ((640, 480), (416, 320)),
        ((1920, 1080), (416, 320)),
        ((5000, 50), (416, 320)),
        ((480, 640), (320, 416)),
        ((500, 500), (416, 416)),
        ((640, 500), (416, 416)),
        ((80, 90), (416, 320)),
    ],
)
def test_a_picture_lies_on_the_smallest_canvas_that_holds_it(
    image_wh: tuple[int, int], canvas_wh: tuple[int, int]
) -> None:
    tensor, box = letterbox(np.zeros((image_wh[1], image_wh[0], 3), np.uint8), canvases(416), max_upscale=1.2)
    assert (tensor.shape[2], tensor.shape[1]) == canvas_wh
    assert box.image_wh == image_wh
    bright = np.flatnonzero((tensor[0] == 0).all(axis=2).any(axis=1))
    assert abs((bright[0] + bright[-1] + 1) / 2 - canvas_wh[1] / 2) <= 1


def test_a_small_picture_is_enlarged_no_more_than_allowed() -> None:
    _, box = letterbox(np.zeros((50, 100, 3), np.uint8), [(416, 416)], max_upscale=1.2)
    assert box == Letterbox((100, 50), scale=1.2, left=148, top=178)


@pytest.mark.parametrize(
    ("long_side", "shown_at"),
    [(40, 80), (72, 144), (100, 144), (144, 144), (145, 145), (400, 400), (416, 416), (800, 416)],
)
def test_a_small_picture_is_enlarged_to_a_side_and_a_larger_one_is_left_as_it_is(long_side: int, shown_at: int) -> None:
    image = np.zeros((long_side // 2, long_side, 3), np.uint8)
    tensor, box = letterbox(image, [(416, 416)], max_upscale=2, upscale_to=144)
    assert box.scale == pytest.approx(shown_at / long_side)
    assert (tensor[0, 208, :, 0] == 0).sum() == shown_at


def test_a_picture_of_the_inputs_size_is_not_touched() -> None:
    image = painted(FACES)
    tensor, box = letterbox(image, [(96, 96)])
    assert tensor[0].tolist() == image.tolist()
    assert box == WHOLE


def test_a_line_of_one_pixel_keeps_a_pixel() -> None:
    tensor, box = letterbox(np.zeros((1, 1000, 3), np.uint8), [(32, 32)])
    assert (tensor[0, ..., 0] == 0).sum() == 32
    assert box.top == 15


@pytest.mark.parametrize("side", [32, 300, 352, 500])
def test_shrinking_keeps_thin_lines_as_grey(side: int) -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    image[::20] = 255
    tensor, _ = letterbox(image, [(side, side)])
    assert tensor.mean() / 255 == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_picture_is_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"expected \[H, W, 3\] uint8 RGB"):
        letterbox(image, [(32, 32)])


def test_as_planes_is_what_the_network_itself_takes() -> None:
    tensor = as_planes(np.full((1, 32, 64, 3), (255, 0, 51), np.uint8))
    assert (tensor.shape, tensor.dtype) == ((1, 3, 32, 64), np.float32)
    assert tensor[0, :, 5, 7] == pytest.approx([1.0, 0.0, 0.2])


# Decoding


def test_boxes_come_back_in_the_pictures_own_pixels() -> None:
    box = Letterbox((200, 100), scale=0.5, left=0, top=25)
    found = decode(answer([[50, 50, 20, 10]], [score(Emotion.SAD, 0.9)]), box, conf=0.1, iou=0.5, temperature=1)
    assert found.xyxy.tolist() == [[80, 40, 120, 60]]
    assert found.emotions == [Emotion.SAD]
    assert found.image_wh == (200, 100)


def test_confidence_is_the_sum_of_the_scores_at_most_one() -> None:
    raw = answer([[20, 20, 10, 10], [60, 60, 10, 10]], [[0.1] * 8, [0.5] * 8])
    found = decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1)
    assert found.confidence == pytest.approx([1.0, 0.8])


def test_two_emotions_of_one_face_come_back_as_one_answer() -> None:
    raw = answer([[48, 48, 40, 40], [49, 48, 40, 40]], [score(Emotion.FEAR, 0.8), score(Emotion.SURPRISE, 0.9)])
    found = decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1)
    assert found.emotions == [Emotion.SURPRISE]


def test_boxes_that_overlap_no_more_than_allowed_both_stay() -> None:
    raw = answer([[20, 20, 20, 20], [30, 20, 20, 20]], [score(Emotion.FEAR, 0.8), score(Emotion.SAD, 0.9)])  # IoU 1/3
    assert len(decode(raw, WHOLE, conf=0.1, iou=0.34, temperature=1)) == 2
    assert len(decode(raw, WHOLE, conf=0.1, iou=0.32, temperature=1)) == 1


def test_a_part_of_a_surer_face_is_no_face_of_its_own() -> None:
    whole, mouth, hat = [50, 50, 40, 40], [50, 60, 16, 10], [50, 32, 40, 12]  # 2/3 of the hat lie in the face
    raw = answer([mouth, whole, hat], [score(Emotion.SAD, 0.6), score(Emotion.SAD, 0.9), score(Emotion.SAD, 0.5)])
    assert len(decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1)) == 3
    assert decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1, ios=0.7).xyxy.tolist() == [
        [30, 30, 70, 70],
        [30, 26, 70, 38],
    ]
    assert len(decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1, ios=0.6)) == 1


def test_a_less_sure_box_around_a_face_is_none_either() -> None:
    raw = answer([[50, 50, 80, 80], [50, 50, 20, 20]], [score(Emotion.SAD, 0.5), score(Emotion.SAD, 0.9)])
    assert decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1, ios=0.7).xyxy.tolist() == [[40, 40, 60, 60]]


def test_a_part_takes_no_other_faces_place_among_the_most() -> None:
    boxes = [[30, 30, 40, 40], [30, 30, 10, 10], [75, 75, 20, 20]]
    raw = answer(boxes, [score(Emotion.SAD, c) for c in (0.9, 0.8, 0.7)])
    found = decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1, ios=0.7, max_faces=2)
    assert found.confidence == pytest.approx([0.9, 0.7])


def test_faces_below_the_threshold_are_left_out() -> None:
    raw = answer([[20, 20, 10, 10], [60, 60, 10, 10]], [score(Emotion.SAD, 0.3), score(Emotion.SAD, 0.1)])
    assert decode(raw, WHOLE, conf=0.2, iou=0.5, temperature=1).confidence == pytest.approx([0.3])
    assert len(decode(raw, WHOLE, conf=0.31, iou=0.5, temperature=1)) == 0


def test_no_more_faces_come_back_than_asked_for_and_the_surest_stay() -> None:
    boxes = [[10.0 + 20 * i, 10, 10, 10] for i in range(4)]
    raw = answer(boxes, [score(Emotion.SAD, 0.2 + 0.1 * i) for i in range(4)])
    found = decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1, max_faces=2)
    assert found.confidence == pytest.approx([0.5, 0.4])


def test_boxes_are_cut_at_the_edge_of_the_picture() -> None:
    found = decode(answer([[0, 90, 40, 40]], [score(Emotion.SAD, 0.9)]), WHOLE, conf=0.1, iou=0.5, temperature=1)
    assert found.xyxy.tolist() == [[0, 70, 20, 96]]


def test_a_box_in_the_grey_border_is_no_face() -> None:
    box = Letterbox((200, 100), scale=0.48, left=0, top=24)
    raw = answer([[48, 10, 20, 20], [48, 48, 20, 20]], [score(Emotion.SAD, 0.9), score(Emotion.SAD, 0.8)])
    found = decode(raw, box, conf=0.1, iou=0.5, temperature=1, max_faces=1)
    assert found.confidence == pytest.approx([0.8])


def test_a_higher_temperature_makes_probabilities_less_sure_and_changes_nothing_else() -> None:
    raw = answer([[20, 20, 10, 10]], [[0.2, 0.6, 0.1, 0.05, 0.01, 0.01, 0.01, 0.01]])
    cold, warm = (decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=t) for t in (1.0, 2.0))
    assert warm.probabilities.max() < cold.probabilities.max()
    assert (warm.confidence, warm.emotions) == (cold.confidence, cold.emotions)


def test_a_bias_changes_names_and_neither_boxes_nor_confidence() -> None:
    raw = answer([[20, 20, 10, 10]], [[0.3, 0.35, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]])
    plain = decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1)
    biased = decode(raw, WHOLE, conf=0.1, iou=0.5, temperature=1, bias=[0.5, *[0.0] * 7])
    assert (plain.emotions, biased.emotions) == ([Emotion.CONTEMPT], [Emotion.ANGER])
    assert biased.confidence == plain.confidence
    assert biased.xyxy.tolist() == plain.xyxy.tolist()


def test_equal_confidences_keep_the_networks_order() -> None:
    boxes = [[10.0 + 20 * i, 10, 10, 10] for i in range(4)]
    found = decode(answer(boxes, [score(Emotion.SAD, 0.5)] * 4), WHOLE, conf=0.1, iou=0.5, temperature=1)
    assert found.xyxy[:, 0].tolist() == [5, 25, 45, 65]


# The loaded model


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_faces_are_found_and_named(model: Path, backend: Literal["openvino", "onnx"]) -> None:
    detector = Detector.load(model, backend=backend, threads=1)
    found = detector.predict(painted(FACES))
    assert detector.backend == backend
    corners = {tuple(box[:2]): emotion for box, emotion in zip(found.xyxy.tolist(), found.emotions, strict=True)}
    assert corners == {(column * CELL, row * CELL): emotion for (column, row), emotion in FACES.items()}
    assert found.confidence == pytest.approx([0.982] * 3, abs=0.001)


def test_openvino_is_preferred(model: Path) -> None:
    assert Detector.load(model).backend == "openvino"


def test_precision_can_be_left_to_openvino(model: Path) -> None:
    assert len(Detector.load(model, precision="auto").predict(painted(FACES))) == 3


def test_without_openvino_onnx_runtime_takes_its_place(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    detector = Detector.load(model)
    assert detector.backend == "onnx"
    assert len(detector.predict(painted(FACES))) == 3


def test_openvino_demanded_but_absent_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match="openvino is not installed"):
        Detector.load(model, backend="openvino")


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_the_input_side_can_be_chosen(model: Path, backend: Literal["openvino", "onnx"]) -> None:
    image = np.full((128, 128, 3), GREY, np.uint8)
    image[96:, 96:] = COLOURS[Emotion.FEAR]
    detector = Detector.load(model, backend=backend, imgsz=256)
    assert detector.preprocess(image)[0].shape == (1, 256, 256, 3)
    found = detector.predict(image)
    assert sorted(found.xyxy[:, :2].tolist()) == [[96, 96], [96, 112], [112, 96], [112, 112]]  # four cells now
    assert found.emotions == [Emotion.FEAR] * 4


@pytest.mark.parametrize("imgsz", [100, 16, -32])
def test_an_input_side_off_the_stride_is_refused(model: Path, imgsz: int) -> None:
    with pytest.raises(ModelError, match=f"imgsz is {imgsz}, expected a multiple of 32 px"):
        Detector.load(model, imgsz=imgsz)


def test_an_artefact_without_openvino_files_is_read_from_its_onnx_file(tmp_path: Path) -> None:
    spec = read_spec(exported_model(tmp_path))
    write_spec(tmp_path, spec.model_copy(update={"files": {"onnx": spec.files["onnx"]}}))
    for name in ("model.xml", "model.bin"):
        (tmp_path / name).unlink()
    detector = Detector.load(tmp_path, backend="openvino")
    assert len(detector.predict(painted(FACES))) == 3


def test_thresholds_of_the_artefact_are_the_default(tmp_path: Path) -> None:
    strict = Detector.load(exported_model(tmp_path, conf=0.99))
    assert len(strict.predict(painted(FACES))) == 0
    assert len(strict.predict(painted(FACES), conf=0.5)) == 3
    assert len(strict.predict(painted(FACES), conf=0.5, max_faces=1)) == 1


def test_overlap_of_the_artefact_is_the_default(tmp_path: Path) -> None:
    detector = Detector.load(exported_model(tmp_path, box_side=64, iou=0.2))  # neighbours overlap by a third
    image = painted({(0, 0): 4, (1, 0): 4})
    assert len(detector.predict(image)) == 1
    assert len(detector.predict(image, iou=0.5)) == 2


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
@pytest.mark.parametrize("image_wh", [(128, 128), (128, 96), (96, 128), (256, 192)])
def test_faces_are_found_on_every_canvas(
    model: Path, backend: Literal["openvino", "onnx"], image_wh: tuple[int, int]
) -> None:
    width, height = image_wh
    factor = max(image_wh) // 128
    small = painted({(1, 0): Emotion.FEAR}, width=width // factor, height=height // factor)
    image = np.kron(small, np.ones((factor, factor, 1), np.uint8))
    found = Detector.load(model, backend=backend, imgsz=128, threads=1).predict(image)
    assert found.emotions == [Emotion.FEAR]
    assert (found.image_wh, found.xyxy[0].tolist()) == (image_wh, [32 * factor, 0, 64 * factor, 32 * factor])


def test_square_leaves_the_square_canvas_only(model: Path) -> None:
    detector = Detector.load(model, imgsz=128, square=True)
    assert detector.canvases == ((128, 128),)
    assert detector.preprocess(np.zeros((50, 100, 3), np.uint8))[0].shape == (1, 128, 128, 3)


@pytest.mark.parametrize("threads", [0, 1])
def test_many_threads_get_the_answers_of_one(model: Path, threads: int) -> None:
    detector = Detector.load(model, threads=threads)
    images = [painted({(i % 3, i // 3 % 3): i % 8}) for i in range(36)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(detector.predict, images))
    for image, found in zip(images, together, strict=True):
        alone = detector.predict(image)
        assert (alone.xyxy.tolist(), alone.emotions) == (found.xyxy.tolist(), found.emotions)


def test_a_tampered_file_is_not_loaded(tmp_path: Path) -> None:
    exported_model(tmp_path)
    with (tmp_path / "model.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match="sha256"):
        Detector.load(tmp_path, backend="openvino")


@pytest.mark.parametrize(
    ("backend", "name", "key", "runtime"),
    [("openvino", "model.xml", "openvino_xml", "OpenVINO"), ("onnx", "model.onnx", "onnx", "ONNX Runtime")],
)
def test_a_file_that_is_no_network_is_refused(
    tmp_path: Path, backend: Literal["openvino", "onnx"], name: str, key: Literal["openvino_xml", "onnx"], runtime: str
) -> None:
    exported_model(tmp_path)
    (tmp_path / name).write_bytes(b"<net>")
    spec = read_spec(tmp_path)
    write_spec(tmp_path, spec.model_copy(update={"files": spec.files | {key: describe(tmp_path / name)}}))
    with pytest.raises(ModelError, match=f"{name}: {runtime} cannot read it"):
        Detector.load(tmp_path, backend=backend)


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_network_of_other_classes_is_refused(tmp_path: Path, backend: Literal["openvino", "onnx"]) -> None:
    exported_model(tmp_path, channels=11)
    with pytest.raises(ModelError, match=r"answers with shape \(1, 11, 9\), expected \[1, 12, boxes\]"):
        Detector.load(tmp_path, backend=backend)


def test_uses_the_cores_that_a_container_may_use(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    quota = tmp_path / "cpu.max"
    for text, expected in (
        ("max 100000\n", cores),
        ("50000 100000\n", 1),
        ("100000 100000\n", 1),
        (f"{100_000 * (cores + 3)} 100000\n", cores),
        ("nonsense", cores),
    ):
        quota.write_text(text)
        assert available_cores(quota) == expected, text
    assert available_cores(tmp_path / "nothing") == cores


def test_uses_the_cores_that_it_was_bound_to() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from emotion_yolo.inference.backends import available_cores; print(available_cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_answers_the_same_with_fewer_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = exported_model(tmp_path / "model")
    picture = painted({(1, 1): Emotion.HAPPY})
    backends: tuple[Literal["openvino", "onnx"], ...] = ("openvino", "onnx")
    before = [Detector.load(folder, backend=backend).predict(picture) for backend in backends]
    monkeypatch.setattr("emotion_yolo.inference.backends.cpu_count", lambda: 1000)  # a host of which this is a part
    after = [Detector.load(folder, backend=backend).predict(picture) for backend in backends]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-3)
