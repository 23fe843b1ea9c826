"""Find every face in a picture and name its expression, in one pass of one YOLO network.

The names of `__all__` are the public API; everything else may change in any version.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emotion_yolo.drawing import plot
    from emotion_yolo.errors import EmotionYoloError
    from emotion_yolo.inference.detector import Detector
    from emotion_yolo.structures.detections import Detections
    from emotion_yolo.structures.emotions import Emotion

__all__ = ["Detections", "Detector", "Emotion", "EmotionYoloError", "plot"]

# `import openvino` reports itself to an analytics host and writes into the home directory, unless this package of it
# cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_HOME = {
    "Detections": "emotion_yolo.structures.detections",
    "Detector": "emotion_yolo.inference.detector",
    "Emotion": "emotion_yolo.structures.emotions",
    "EmotionYoloError": "emotion_yolo.errors",
    "plot": "emotion_yolo.drawing",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: stages and the service need not load all of them (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
