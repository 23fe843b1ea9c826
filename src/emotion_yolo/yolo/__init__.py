"""Training and ONNX export with Ultralytics; no other package imports it.

Importing this package configures Ultralytics before its first import: settings inside the project, no pip, no
telemetry, no integrations of its own. `assigner` is the loss for faces without a class and for soft labels, `trainer`
the training loop, `training` a whole training around it, `hardware` and `console` what it runs on and says, `view` the
folder that it reads, `weights` checkpoints, `network` the ONNX export.
"""

import os
from pathlib import Path

# Ultralytics reads these once, at import: its settings stay in the project, and loading a model never runs pip.
os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(".ultralytics").absolute()))
os.environ.setdefault("YOLO_AUTOINSTALL", "False")
os.environ.setdefault("YOLO_VERBOSE", "False")
# At import, Ultralytics looks up public hosts to learn whether it may report events. Later it may download weights.
_offline_asked = os.environ.get("YOLO_OFFLINE")
os.environ["YOLO_OFFLINE"] = "True"
# Checkpoints are pickles: only classes of PyTorch and Ultralytics are built from them.
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "True")
Path(os.environ["YOLO_CONFIG_DIR"]).mkdir(parents=True, exist_ok=True)
# Read before Ultralytics sets OMP_NUM_THREADS to 1 where a user has not set it.
CPU_THREADS = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))

from ultralytics import settings  # noqa: E402
from ultralytics.data import utils as data_utils  # noqa: E402
from ultralytics.nn import tasks  # noqa: E402
from ultralytics.utils import env_bool, plotting  # noqa: E402

if _offline_asked is None:
    del os.environ["YOLO_OFFLINE"]
else:
    os.environ["YOLO_OFFLINE"] = _offline_asked

# One DVCLive and one W&B run belong to the train stage; Ultralytics' own integrations would start second ones.
# They act wherever their package is installed, as Ray is for `emotion-yolo score`.
_INTEGRATIONS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
settings.update(dict.fromkeys((*_INTEGRATIONS, "sync"), False))
# Whenever a set is read, a font for plots would be downloaded; without one, Pillow's own is drawn with.
data_utils.check_font = plotting.check_font = lambda *_: None
# Also where Ultralytics had been imported before this package (8.4.190 reads the variable once).
tasks.SAFE_LOAD = env_bool("ULTRALYTICS_SAFE_LOAD")
