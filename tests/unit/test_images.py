from pathlib import Path

import numpy as np
import pytest

from emotion_yolo.errors import ImageError
from emotion_yolo.structures.images import read_rgb
from tests.builders import save_picture


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg: cannot be decoded"):
        read_rgb(tmp_path / "broken.jpg")


def test_pictures_are_read_as_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert read_rgb(save_picture(tmp_path / "red.png", red))[0, 0].tolist() == [255, 0, 0]
