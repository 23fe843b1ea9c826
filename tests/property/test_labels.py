import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emotion_yolo.structures.emotions import NAMES
from emotion_yolo.structures.labels import Labels, parse, read, write

SHARE = st.floats(0, 1)


@st.composite
def faces(draw: st.DrawFn) -> tuple[int, list[float]]:
    """Draw a class id and a box inside the picture, by its corners."""
    (x1, x2), (y1, y2) = (
        sorted(draw(st.tuples(SHARE, SHARE).filter(lambda ends: abs(ends[0] - ends[1]) > 1e-4))) for _ in "xy"
    )
    return draw(st.integers(0, len(NAMES) - 1)), [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


@given(st.lists(faces(), max_size=6, unique_by=lambda face: (face[0], *(round(v, 6) for v in face[1]))))
def test_any_labels_survive_being_written_and_read(drawn: list[tuple[int, list[float]]]) -> None:
    labels = Labels(
        np.array([cls for cls, _ in drawn], np.int64), np.array([box for _, box in drawn], np.float64).reshape(-1, 4)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        write(path, labels)
        again = read(path, class_names=NAMES)
    assert again.cls.tolist() == labels.cls.tolist()
    np.testing.assert_allclose(again.xywhn, labels.xywhn, atol=5.1e-7)


@given(st.text())
def test_any_text_gives_labels_and_findings_and_never_an_exception(text: str) -> None:
    labels, findings = parse(text, where="a.txt", class_names=NAMES)
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(labels) + len(findings) <= len(lines)  # fewer where a line is given twice
    assert bool(lines) == bool(len(labels) + len(findings))


@given(
    st.lists(st.lists(st.floats().map(repr) | st.sampled_from(["0", "7", "8", "0.5", "1", "x", "1e400"]), max_size=9))
)
def test_labels_that_are_taken_lie_in_the_picture_and_the_class_table(rows: list[list[str]]) -> None:
    labels, findings = parse("\n".join(map(" ".join, rows)), where="a.txt", class_names=NAMES)
    assert len(labels) + len(findings) <= sum(bool(row) for row in rows)
    assert np.isin(labels.cls, range(len(NAMES))).all()
    low, high = labels.xywhn[:, :2] - labels.xywhn[:, 2:] / 2, labels.xywhn[:, :2] + labels.xywhn[:, 2:] / 2
    assert (low >= -0.003).all()
    assert (high <= 1.003).all()
    assert (labels.xywhn[:, 2:] > 0).all()
