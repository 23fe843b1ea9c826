"""What is not there on Windows is not asked for when modules are imported."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The libraries are imported first: they ask for the real platform. What is left is our own code.
PROGRAM = """
import os, pkgutil, signal, socket, sys
from importlib import import_module

import av, cv2, fastapi, httptools, numpy, onnxruntime, openvino, PIL.Image, PIL.ImageDraw, prometheus_client, pydantic
import matplotlib.backends.backend_agg, pydantic_settings, simplejpeg, tqdm, typer, uvicorn
import uvicorn.protocols.http.httptools_impl, yaml

sys.modules.update(dict.fromkeys(("fcntl", "grp", "pwd", "resource", "termios")))
for module, names in {
    os: ("fork", "getuid", "killpg", "sched_getaffinity", "setsid", "waitid"),
    signal: ("SIGKILL", "SIGHUP", "SIGPROF", "SIGXCPU", "setitimer", "ITIMER_PROF"),
    socket: ("AF_UNIX",),
}.items():
    for name in names:
        delattr(module, name)
sys.platform = "win32"

import emotion_yolo

training = ("composition", "devices", "export", "expression", "onnx_store", "stages", "tracking", "yolo")
skipped = tuple(f"emotion_yolo.{name}" for name in training)
modules = [
    *(name for _, name, _ in pkgutil.walk_packages(emotion_yolo.__path__, "emotion_yolo.", onerror=print)),
    *(f"emotion_yolo.api.{name}" for name in ("__main__", "server", "main", "engine", "protocol", "memory")),
]
for name in modules:
    if not name.startswith(skipped):
        import_module(name)
        print(name)
"""


def test_every_module_but_those_of_training_can_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert {"emotion_yolo.cli", "emotion_yolo.inference.detector", "emotion_yolo.api.server"} <= imported
    assert {"emotion_yolo.sources.landing", "emotion_yolo.recipes.workspace"} <= imported
    assert {"emotion_yolo.isolation.pool", "emotion_yolo.isolation.worker"} <= imported
