"""The benchmark of precisions, run as it is called, on a painted network."""

import subprocess
import sys
from pathlib import Path

from emotion_yolo.structures.emotions import FACE_ID
from tests.builders import exported_model, painted, painted_labels, prepared_set

ROOT = Path(__file__).parents[2]


def test_every_precision_and_size_has_its_row(tmp_path: Path) -> None:
    crops = {f"{i}.png": (painted({(i % 3, 1): i}), painted_labels({(i % 3, 1): i})) for i in range(8)}
    faces = {(0, 0): 4, (2, 2): 1}
    scenes = {"0.png": (painted(faces), painted_labels(faces, cls=FACE_ID))}
    prepared_set(tmp_path / "prepared", crops=crops, scenes=scenes, split="valid")
    prepared_set(tmp_path / "prepared", crops=crops, split="train")
    model = exported_model(tmp_path / "model")
    given = ["--model", str(model), "--data", str(tmp_path / "prepared"), "--sizes", "96", "192"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.precision", *given, "--rounds", "3", "--calibration", "4"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, _, table = done.stdout[done.stdout.index("8 valid crops") :].partition("\n\n")
    assert said == "8 valid crops, 1 valid scenes, 4 train pictures for INT8"
    header, _, *rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    names = ("fp32", "bf16", "INT8, the rest fp32", "INT8, the rest bf16")
    assert [row[:2] for row in rows] == [[name, side] for side in ("96", "192") for name in names]
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0][2:5] == ["1.000", "0.995", "0.995"]  # what is painted is known
    assert rows[0][5] == "-"  # no face so large
    assert all(float(cell) >= 0 for row in rows for cell in row[6:])
