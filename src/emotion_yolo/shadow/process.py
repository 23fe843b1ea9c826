"""Starts, queries and ends the process of a candidate. No failure of the candidate affects the caller."""

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from emotion_yolo.errors import ModelError
from emotion_yolo.imaging import Picture
from emotion_yolo.structures.detections import Detections

_HEAD = struct.Struct("<Q")
_LOAD_S = 120.0
_ANSWER_S = 60.0


@dataclass(frozen=True)
class Loading:
    """Which model to load, and how: the options of `load_model`."""

    folder: Path
    backend: str = "auto"
    precision: str = "auto"
    imgsz: int | None = None


@dataclass(frozen=True)
class Candidate:
    """The model that a process has loaded."""

    name: str
    version: str
    digest: str


class CandidateProcess:
    """A process that has loaded a candidate, on one core and at low priority. For one thread, but for `end`.

    Raises:
        ModelError: the model cannot be loaded.
    """

    def __init__(self, loading: Loading) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "emotion_yolo.shadow.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # its own group: signals to the service do not reach it
        )
        asked = {
            "folder": str(loading.folder),
            "backend": loading.backend,
            "precision": loading.precision,
            "imgsz": loading.imgsz,
        }
        try:
            answer = self._exchange(asked, b"", _LOAD_S)
            if "error" in answer:
                raise ModelError(str(answer["error"]))
        except (OSError, EOFError, ValueError) as error:
            self.end()
            raise ModelError(f"{loading.folder}: its process ended while it was loaded") from error
        except ModelError:
            self.end()
            raise
        self.candidate = Candidate(str(answer["name"]), str(answer["version"]), str(answer["digest"]))

    def score(self, picture: Picture, *, max_faces: int) -> Detections:
        """Return what the candidate finds in a decoded picture, with its own thresholds.

        Raises:
            ModelError: it failed or took too long; its process has ended.
        """
        height, width = picture.pixels.shape[:2]
        head = {
            "size": [height, width],
            "image_wh": list(picture.image_wh),
            "factor": picture.factor,
            "format": picture.format,
            "max_faces": max_faces,
        }
        try:
            answer = self._exchange(head, np.ascontiguousarray(picture.pixels).data, _ANSWER_S)
            names = tuple(map(str, answer["names"]))
            return Detections(
                np.asarray(answer["xyxy"], np.float32).reshape(-1, 4),
                np.asarray(answer["confidence"], np.float32),
                np.asarray(answer["probabilities"], np.float32).reshape(-1, len(names)),
                picture.image_wh,
                names,
            )
        except (OSError, EOFError, ValueError, KeyError) as error:
            self.end()
            raise ModelError(f"the candidate gave no answer ({type(error).__name__}: {error})") from error

    def end(self) -> None:
        """Kill the process; a thread that waits for its answer gets a `ModelError`."""
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what could not be written any more
                if stream is not None:
                    stream.close()

    def _exchange(self, head: dict[str, Any], pixels: bytes | memoryview, seconds: float) -> dict[str, Any]:
        timer = threading.Timer(seconds, self.end)
        timer.start()
        try:
            assert self._process.stdin is not None and self._process.stdout is not None
            send(self._process.stdin, head, pixels)
            answer = receive(self._process.stdout)
        finally:
            timer.cancel()
        if answer is None:
            raise EOFError("its process has ended")
        return answer


def send(sink: BinaryIO | Any, head: dict[str, Any], pixels: bytes | memoryview = b"") -> None:
    """Write a message: the length of its JSON head, the head, bytes whose number the head tells."""
    text = json.dumps(head).encode()
    sink.write(_HEAD.pack(len(text)) + text)
    sink.write(pixels)
    sink.flush()


def receive(source: BinaryIO | Any) -> dict[str, Any] | None:
    """Read the head of a message; None at the end."""
    length = source.read(_HEAD.size)
    if len(length) < _HEAD.size:
        return None
    head: dict[str, Any] = json.loads(source.read(_HEAD.unpack(length)[0]))
    return head
