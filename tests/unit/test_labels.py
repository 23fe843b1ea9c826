from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.errors import LabelError
from emotion_yolo.structures.labels import Labels, parse, read, write

CLASSES = ("Anger", "Sad")
FULL = "0.5 0.5 1 1"


def test_reads_classes_and_boxes_line_by_line() -> None:
    labels, findings = parse("1 0.5 0.25 0.5 0.125\n\n  0\t0.5 0.5 1.0 1.0  \n", where="a.txt", class_names=CLASSES)
    assert not findings
    assert labels.cls.tolist() == [1, 0]
    assert labels.xywhn.tolist() == [[0.5, 0.25, 0.5, 0.125], [0.5, 0.5, 1, 1]]
    assert len(labels) == 2


def test_an_empty_text_has_no_faces() -> None:
    labels, findings = parse(" \n", where="a.txt", class_names=CLASSES)
    assert not findings
    assert labels.cls.shape == (0,)
    assert labels.xywhn.shape == (0, 4)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("0 0.5 0.5 1", "malformed", "got 4 fields, expected 5"),
        ("0 0.5 0.5 1 1 0.9", "malformed", "got 6 fields, expected 5"),
        ("0 0.1 0.1 0.9 0.1 0.9", "malformed", "got 6 fields, expected 5"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9 0.1", "malformed", "at least three points"),
        ("0 0.1 0.1 0.9 0.1 1.2 0.9", "box_out_of_bounds", "spans 0.100 to 1.200"),
        ("0 0.1 0.1 0.1 0.5 0.1 0.9", "degenerate_box", "width 0 and height 0.8"),
        ("happy 0.5 0.5 1 1", "malformed", "'happy' is not a number"),
        ("0 0.5 0.5 1 l", "malformed", "'l' is not a number"),
        ("0 nan 0.5 1 1", "malformed", "not finite"),
        ("0 0.5 0.5 inf 1", "malformed", "not finite"),
        (f"2 {FULL}", "class_out_of_range", "class id 2 is not in 0-1"),
        (f"-1 {FULL}", "class_out_of_range", "class id -1 is not in 0-1"),
        (f"0.5 {FULL}", "class_out_of_range", "class id 0.5 is not in 0-1"),
        (f"nan {FULL}", "class_out_of_range", "class id nan is not in 0-1"),
        (f"inf {FULL}", "class_out_of_range", "class id inf is not in 0-1"),
        ("0 0.5 0.5 0 1", "degenerate_box", "width 0 and height 1"),
        ("0 0.5 0.5 0.2 -0.1", "degenerate_box", "width 0.2 and height -0.1"),
        ("0 0.9 0.5 0.4 0.4", "box_out_of_bounds", "spans 0.300 to 1.100 of the picture"),
        ("0 0.5 0.1 0.4 0.4", "box_out_of_bounds", "spans -0.100 to 0.700 of the picture"),
        ("0 48 48 96 96", "box_out_of_bounds", "expected 0 to 1"),
    ],
)
def test_a_bad_line_is_a_finding_with_its_number_and_the_good_ones_stay(line: str, code: str, message: str) -> None:
    labels, (finding,) = parse(f"0 {FULL}\n{line}\n1 {FULL}", where="train/labels/a.txt", class_names=CLASSES)
    assert labels.cls.tolist() == [0, 1]
    assert finding.where == "train/labels/a.txt:2"
    assert finding.code == code
    assert message in finding.message
    assert str(finding) == f"train/labels/a.txt:2: {finding.message}"


def test_takes_a_box_that_rounding_puts_over_the_edge_as_it_is() -> None:
    labels, findings = parse("0 0.5015 0.5 0.999 0.999", where="a.txt", class_names=CLASSES)
    assert not findings
    assert labels.xywhn.tolist() == [[0.5015, 0.5, 0.999, 0.999]]


def test_clips_a_box_that_is_up_to_a_hundredth_over_the_edge() -> None:
    half_a_pixel = 0.5 / 96
    labels, findings = parse(f"0 {0.9 + half_a_pixel} 0.5 0.2 1.02", where="a.txt", class_names=CLASSES)
    assert not findings
    np.testing.assert_allclose(labels.xywhn, [[(0.8 + half_a_pixel + 1) / 2, 0.5, 0.2 - half_a_pixel, 1]])


def test_a_line_given_twice_is_one_face() -> None:
    labels, findings = parse(f"0 {FULL}\n1 {FULL}\n0 0.50 0.5 1 1.0\n", where="a.txt", class_names=CLASSES)
    assert not findings
    assert labels.cls.tolist() == [0, 1]


@pytest.mark.parametrize(
    "line", ["1 0.1 0.2 0.5 0.2 0.3 0.8", "1 0.1 0.5 0.3 0.2 0.5 0.5 0.3 0.8"], ids=["polygon", "oriented box"]
)
def test_a_polygon_stands_for_the_box_around_it(line: str) -> None:
    labels, findings = parse(line, where="a.txt", class_names=CLASSES)
    assert not findings
    assert labels.cls.tolist() == [1]
    np.testing.assert_allclose(labels.xywhn, [[0.3, 0.5, 0.4, 0.6]])


def test_a_byte_order_mark_is_no_part_of_the_first_number(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf1 0.5 0.5 1 1\r\n")
    assert read(tmp_path / "a.txt", class_names=CLASSES).cls.tolist() == [1]


def test_reads_back_what_it_wrote(tmp_path: Path) -> None:
    labels = Labels(np.array([1, 0]), np.array([[0.5, 0.5, 1, 1], [0.123456, 0.2, 0.1, 0.3]]))
    write(tmp_path / "a.txt", labels)
    assert (tmp_path / "a.txt").read_text() == (
        "1 0.500000 0.500000 1.000000 1.000000\n0 0.123456 0.200000 0.100000 0.300000\n"
    )
    again = read(tmp_path / "a.txt", class_names=CLASSES)
    assert again.cls.tolist() == [1, 0]
    assert again.xywhn.tolist() == labels.xywhn.tolist()


def test_a_picture_without_faces_gets_an_empty_file(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", Labels(np.zeros(0, np.int64), np.zeros((0, 4))))
    assert (tmp_path / "a.txt").read_bytes() == b""


def test_reading_a_file_with_bad_lines_names_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"x\n0 {FULL}\n7 {FULL}\n")
    with pytest.raises(LabelError) as caught:
        read(path, class_names=CLASSES)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path}:1: got 1 fields")
    assert second.startswith(f"{path}:3: class id 7 is not in 0-1")


@pytest.mark.parametrize("data", [b"\xff\xfe", None])
def test_reading_a_file_that_is_no_text_or_not_there_names_it(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "a.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(LabelError, match=r"a\.txt: cannot be read as text"):
        read(path, class_names=CLASSES)
