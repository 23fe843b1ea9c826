"""Builders of what tests are made of: detections, labels, a prepared set, an exported network that was never trained.

The network of `exported_model` looks at each 32 px cell of its input and finds a face where the cell's colour is near
one of eight, one an emotion (see `COLOURS`). A picture painted so has known faces, and every part behind it is real.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import onnx
import openvino
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from emotion_yolo.data.cards import Split
from emotion_yolo.data.prepared import Kind, Writer
from emotion_yolo.data.sets import SetRecord
from emotion_yolo.inference.artefact import (
    Calibration,
    Input,
    Lineage,
    ModelSpec,
    SecondStage,
    Thresholds,
    describe,
    digest_of,
    read_spec,
    write_spec,
)
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.labels import Labels

Image = NDArray[np.uint8]

CELL = 32
"""Side of a painted face in px of the network's input."""

COLOURS: tuple[tuple[int, int, int], ...] = tuple(
    ((i >> 2 & 1) * 255, (i >> 1 & 1) * 255, (i & 1) * 255) for i in range(len(NAMES))
)
"""RGB by emotion id."""

SEVEN = tuple(name for name in NAMES if name != "contempt")
"""FER2013's emotions."""

GREY = (114, 114, 114)
"""A colour without a face."""


def uncovered(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment without coverage, for a process that a signal will interrupt.

    Coverage 7.17 takes a lock in Python code: if the exception of a signal's handler is raised there, the lock is never
    released, and the process waits for it forever.
    """
    return {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}


def exported_model(
    folder: Path,
    *,
    imgsz: int = 96,
    conf: float = 0.25,
    iou: float = 0.5,
    temperature: float = 1.0,
    box_side: int = CELL,
    channels: int = 4 + len(NAMES),
) -> Path:
    """Write a whole artefact (ONNX, OpenVINO, model.json) into `folder` and return it.

    Each cell answers with a box of `box_side` px around its centre. A cell in an emotion's own colour scores 0.982 for
    it and less than 0.001 for others; grey scores nothing. The input is dynamic: [1, 3, S, S], S any multiple of 32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx_path, xml = folder / "model.onnx", folder / "model.xml"
    onnx.save(_network(box_side, channels), onnx_path)
    openvino.save_model(openvino.Core().read_model(onnx_path), xml, compress_to_fp16=False)
    file = describe(onnx_path)
    spec = ModelSpec(
        name="painted-cells",
        version=file.sha256[:12],
        classes=NAMES,
        input=Input(imgsz=imgsz),
        files={"onnx": file, "openvino_xml": describe(xml), "openvino_bin": describe(xml.with_suffix(".bin"))},
        thresholds=Thresholds(conf=conf, iou=iou),
        calibration=Calibration(temperature=temperature),
        lineage=Lineage(data="d" * 32 + ".dir", params="p" * 64, revision="r" * 40, weights="w" * 64),
    )
    write_spec(folder, spec)
    return folder


def _network(box_side: int, channels: int) -> onnx.ModelProto:
    signs = np.asarray(COLOURS, np.float32) / 127.5 - 1  # [8, 3] of -1 and 1
    sharpness, least = 8.0, 20.0
    # sharpness · signs · (2 rgb - 1) - least, as a convolution of rgb in 0-1.
    weight = (2 * sharpness * signs)[:, :, None, None].astype(np.float32)
    bias = (-sharpness * signs.sum(axis=1) - least).astype(np.float32)
    constants = {
        "weight": weight,
        "bias": bias,
        "zero": np.float32(0),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "cell": np.float32(CELL),
        "side": np.float32(box_side),
        "x_axis": np.int64(3),
        "y_axis": np.int64(2),
        "flat": np.asarray([0, channels, -1], np.int64),
        "first": np.asarray([0], np.int64),
        "second": np.asarray([1], np.int64),
        "channel": np.asarray([1], np.int64),
        "last": np.asarray([channels], np.int64),
    }
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Conv", ["pooled", "weight", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        # Cell centres by counting, so that the input side stays free.
        helper.make_node("Slice", ["pooled", "first", "second", "channel"], ["red"]),
        helper.make_node("Mul", ["red", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["ones"]),
        helper.make_node("CumSum", ["ones", "x_axis"], ["column"]),
        helper.make_node("CumSum", ["ones", "y_axis"], ["row"]),
        helper.make_node("Sub", ["column", "half"], ["column_middle"]),
        helper.make_node("Sub", ["row", "half"], ["row_middle"]),
        helper.make_node("Mul", ["column_middle", "cell"], ["x"]),
        helper.make_node("Mul", ["row_middle", "cell"], ["y"]),
        helper.make_node("Mul", ["ones", "side"], ["sides"]),
        helper.make_node("Concat", ["x", "y", "sides", "sides", "scores"], ["grid"], axis=1),
        helper.make_node("Slice", ["grid", "first", "last", "channel"], ["kept"]),
        helper.make_node("Reshape", ["kept", "flat"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "painted-cells",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", channels, "anchors"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def classifier(path: Path, *, side: int = 32, emotions: Sequence[int] = range(len(NAMES))) -> Path:
    """Write a classifier that names a picture by its mean colour (see `COLOURS`), with a probability of 0.99.

    It names the `emotions` of these ids, in that order.
    """
    classes = len(emotions)
    signs = (np.asarray(COLOURS, np.float32) / 127.5 - 1)[list(emotions)]
    constants = {
        "weight": (4 * signs)[:, :, None, None],
        "bias": (-2 * signs.sum(axis=1)).astype(np.float32),
        "flat": np.asarray([0, -1], np.int64),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["crops"], ["mean"]),
        helper.make_node("Conv", ["mean", "weight", "bias"], ["logits"]),
        helper.make_node("Reshape", ["logits", "flat"], ["rows"]),
        helper.make_node("Softmax", ["rows"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mean-colour",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["batch", 3, side, side])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def two_stage_model(
    folder: Path, *, classes: Sequence[str] = SEVEN, yunet: Path | None = None, margin: float = 1.0
) -> Path:
    """Write a two-stage artefact: the painted cells' detector, and the mean colour's classifier behind it."""
    exported_model(folder)
    detector = read_spec(folder)
    ids = [NAMES.index(name) for name in classes]
    second = SecondStage(
        architecture="mean-colour",
        onnx=describe(classifier(folder / "classifier.onnx", emotions=ids)),
        imgsz=32,
        margin=margin,
        landmarks=describe(Path(shutil.copyfile(yunet, folder / "landmarks.onnx"))) if yunet else None,
        temperature=1.0,
    )
    version = digest_of(detector.files["onnx"], second.onnx, second.landmarks)[:12]
    changes = {"classes": tuple(classes), "classifier": second, "version": version, "name": "painted-cells+mean-colour"}
    write_spec(folder, ModelSpec.model_validate(detector.model_dump() | changes))
    return folder


def painted(faces: Mapping[tuple[int, int], int], *, width: int = 96, height: int = 96) -> Image:
    """Paint a grey RGB picture with faces: `faces` maps a 32 px cell (column, row) to an emotion's id."""
    image = np.full((height, width, 3), GREY, np.uint8)
    for (column, row), emotion in faces.items():
        image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = COLOURS[emotion]
    return image


def labels_of(cls: Sequence[int], xyxy: Sequence[Sequence[float]], *, image_wh: tuple[int, int] = (96, 96)) -> Labels:
    """Build labels from corner boxes in pixels."""
    boxes = np.asarray(xyxy, np.float64).reshape(-1, 4)
    sides = np.asarray([*image_wh, *image_wh])
    xywhn = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1) / sides
    return Labels(np.asarray(cls, np.int64), xywhn)


def painted_labels(
    faces: Mapping[tuple[int, int], int], *, cls: int | None = None, image_wh: tuple[int, int] = (96, 96)
) -> Labels:
    """Build the true labels of `painted`; `cls` replaces all emotions."""
    boxes = [[c * CELL, r * CELL, (c + 1) * CELL, (r + 1) * CELL] for c, r in faces]
    return labels_of([emotion if cls is None else cls for emotion in faces.values()], boxes, image_wh=image_wh)


def detections_of(
    xyxy: Sequence[Sequence[float]],
    *,
    confidence: Sequence[float],
    emotions: Sequence[int] | None = None,
    sure: float = 0.86,
    image_wh: tuple[int, int] = (96, 96),
) -> Detections:
    """Build detections; each is `sure` (0-1) of its emotion (0, if not given), the other seven share the rest."""
    emotions = [0] * len(xyxy) if emotions is None else emotions
    probabilities = np.full((len(xyxy), len(NAMES)), (1 - sure) / (len(NAMES) - 1), np.float32)
    probabilities[np.arange(len(xyxy)), list(emotions)] = sure
    boxes = np.asarray(xyxy, np.float32).reshape(-1, 4)
    return Detections(boxes, np.asarray(confidence, np.float32), probabilities, image_wh)


def save_picture(path: Path, image: Image) -> Path:
    """Write an RGB picture; JPEG in a quality that keeps flat colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 100] if path.suffix == ".jpg" else []
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    return path


def set_record(name: str, **changes: Any) -> SetRecord:
    """Build the record of a set of crops with the eight classes, named as emotions are."""
    given = {
        "source": {"kind": "folder"}, "card": None, "licence": "CC0-1.0", "digest": "0" * 64, "tag": name,
        "boxes": "frame", "emotions": "named", "classes": {name: name for name in NAMES}, "dealt": None, "pictures": {},
    }  # fmt: skip
    return SetRecord.model_validate({"name": name, **given, **changes})


def write_pin(path: Path, *records: SetRecord) -> None:
    """Write a `data.dvc` with the records of sets."""
    sets = {record.name: record.model_dump(exclude={"name"}) for record in records}
    content = {"outs": [{"md5": "abc.dir", "path": "data"}], "meta": {"sets": sets}}
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


_KINDS = {kind.value: kind for kind in (Kind.SHEET, Kind.NEGATIVE)}


def prepared_set(
    root: Path,
    *,
    crops: Mapping[str, tuple[Image, Labels]],
    scenes: Mapping[str, tuple[Image, Labels]] | None = None,
    split: Split = "test",
    soft: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """Write one split of a prepared set, pictures by file name, and return its root.

    Crops named `sheet_…` or `negative_…` are such pictures; those named `ffhq_…` come from another source than others.
    `soft` holds the soft labels of the pictures that have some. Called again, it adds to the set.
    """
    writer = Writer(root)
    for pictures, set_ in ((crops, "crops"), (scenes or {}, "scenes")):
        for name, (image, labels) in pictures.items():
            path = Path(name)
            kind = Kind.SCENE if set_ == "scenes" else _KINDS.get(path.stem.partition("_")[0], Kind.SINGLE)
            source = "ffhq" if path.stem.startswith("ffhq_") else "other"
            slot = writer.add(path.stem, split=split, kind=kind, dataset=set_, source=source, suffix=path.suffix)
            with TemporaryDirectory() as folder:
                slot.copy(save_picture(Path(folder) / name, image), labels, (soft or {}).get(name))
    writer.close()
    return root


def yunet_network(path: Path, *, side: int, box: tuple[float, float, float, float], stride: int = 8) -> Path:
    """Write an ONNX file with the input and the twelve outputs of OpenCV's YuNet that sees one face, wherever it looks.

    Of the three grids (8, 16, 32 px) the one of `stride` answers: the cell that holds the middle of `box` (x, y, width,
    height in px of a `side` px square) has score 1, all others 0.
    """
    outputs: dict[str, NDArray[np.float32]] = {}
    for grid in (8, 16, 32):
        cells = side // grid
        widths = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
        tensors = {name: np.zeros((1, cells * cells, width), np.float32) for name, width in widths.items()}
        if grid == stride:
            x, y, width, height = box
            column, row = int((x + width / 2) / grid), int((y + height / 2) / grid)
            cell = row * cells + column
            tensors["cls"][0, cell] = tensors["obj"][0, cell] = 1
            # YuNet codes the middle as an offset from the cell and the size as a logarithm, both in cells.
            middle = [(x + width / 2) / grid - column, (y + height / 2) / grid - row]
            tensors["bbox"][0, cell] = [*middle, np.log(width / grid), np.log(height / grid)]
        outputs |= {f"{name}_{grid}": tensor for name, tensor in tensors.items()}
    order = [f"{name}_{grid}" for name in ("cls", "obj", "bbox", "kps") for grid in (8, 16, 32)]
    constants = [numpy_helper.from_array(outputs[name], f"{name}.value") for name in order]
    constants.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        *(helper.make_node("Add", [f"{name}.value", "nothing"], [name]) for name in order),
    ]
    graph = helper.make_graph(
        nodes,
        "one-face",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, outputs[name].shape) for name in order],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
