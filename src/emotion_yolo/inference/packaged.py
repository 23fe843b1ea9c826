"""The path of the release: inside an installed package, or in the checkout that the package is run from."""

from importlib.resources import files
from pathlib import Path

from emotion_yolo.inference.artefact import SPEC_NAME
from emotion_yolo.paths import RELEASE


def packaged_release() -> Path:
    """Return the folder of the release that belongs to this package, wherever the process runs."""
    package = Path(str(files("emotion_yolo")))  # a folder: OpenVINO and ONNX Runtime read files, not archives
    installed = package / "packaged_release"  # put there by setup.py
    return installed if installed.is_dir() else package.parents[1] / RELEASE


def default_model() -> Path:
    """Return the default model of the command line and the service.

    It is `models/release` of the working folder, if that is a checkout with a model; else the package's own.
    """
    return RELEASE if (RELEASE / SPEC_NAME).is_file() else packaged_release()
