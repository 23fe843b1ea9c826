"""The process behind `CandidateProcess`: loads a model, then reads pictures from stdin and writes answers to stdout."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np

from emotion_yolo.imaging import Picture
from emotion_yolo.inference.loading import load_model
from emotion_yolo.shadow.process import receive, send

_NICENESS = 10
"""The system gives a process of the usual priority some nine times the share of this one where both want a core."""


def main() -> None:
    """Serve until stdin ends."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    cv2.setNumThreads(1)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    asked = receive(source)
    if asked is None:
        return
    try:
        model = load_model(
            Path(asked["folder"]),
            backend=asked["backend"],
            precision=asked["precision"],
            imgsz=asked["imgsz"],
            threads=1,
        )
        width, height = model.canvases[0]
        model.predict(np.full((height, width, 3), 114, np.uint8))
    except Exception as error:  # reported to the parent, whatever it is
        send(sink, {"error": f"{error}" or type(error).__name__})
        return
    send(sink, {"name": model.spec.name, "version": model.spec.version, "digest": model.spec.digest})
    while (head := receive(source)) is not None:
        height, width = head["size"]
        pixels = np.frombuffer(source.read(height * width * 3), np.uint8).reshape(height, width, 3)
        picture = Picture(pixels, tuple(head["image_wh"]), head["factor"], head["format"])
        found = model.predict_picture(picture, max_faces=head["max_faces"])
        send(
            sink,
            {
                "xyxy": found.xyxy.tolist(),
                "confidence": found.confidence.tolist(),
                "probabilities": found.probabilities.tolist(),
                "names": found.names,
            },
        )


if __name__ == "__main__":
    main()
