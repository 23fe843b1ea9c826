"""Find every face in a picture and name its expression, in one pass of one YOLO network."""

import sys

# `import openvino` reports itself to an analytics host and writes into the home directory, unless this package of it
# cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
