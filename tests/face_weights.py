"""Weights in the layout of face-api.js' recognition network, drawn instead of learnt."""

import json
from pathlib import Path

import numpy as np

LAYERS = (
    [("conv32_down", 7, 3, 32)]
    + [(f"conv32_{i}/conv{c}", 3, 32, 32) for i in (1, 2, 3) for c in (1, 2)]
    + [("conv64_down/conv1", 3, 32, 64), ("conv64_down/conv2", 3, 64, 64)]
    + [(f"conv64_{i}/conv{c}", 3, 64, 64) for i in (1, 2, 3) for c in (1, 2)]
    + [("conv128_down/conv1", 3, 64, 128), ("conv128_down/conv2", 3, 128, 128)]
    + [(f"conv128_{i}/conv{c}", 3, 128, 128) for i in (1, 2) for c in (1, 2)]
    + [("conv256_down/conv1", 3, 128, 256), ("conv256_down/conv2", 3, 256, 256)]
    + [(f"conv256_{i}/conv{c}", 3, 256, 256) for i in (1, 2) for c in (1, 2)]
    + [("conv256_down_out/conv1", 3, 256, 256), ("conv256_down_out/conv2", 3, 256, 256)]
)
"""Name, kernel side, channels in and out."""

PARTS = ("conv/bias", "scale/weights", "scale/biases")
MANIFEST = "face_recognition_model-weights_manifest.json"


def write_face_weights(folder: Path, *, seed: int = 0) -> Path:
    """Write a manifest and two files of numbers: kernels in eight bits, the rest in 32. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    entries: list[dict[str, object]] = []
    raw = b""
    for name, side, given, answered in LAYERS:
        scale = 3 / (255 * np.sqrt(side * side * given))
        packed = {"dtype": "uint8", "scale": scale, "min": -128 * scale}
        shape = [side, side, given, answered]
        entries.append({"name": f"{name}/conv/filters", "shape": shape, "dtype": "float32", "quantization": packed})
        raw += rng.integers(0, 256, shape).astype(np.uint8).tobytes()
        for part in PARTS:
            entries.append({"name": f"{name}/{part}", "shape": [answered], "dtype": "float32"})
            values = rng.uniform(0.8, 1.2, answered) if part == "scale/weights" else rng.normal(0, 0.1, answered)
            raw += values.astype(np.float32).tobytes()
    half = len(raw) // 2
    (folder / "one.bin").write_bytes(raw[:half])
    (folder / "two.bin").write_bytes(raw[half:])
    (folder / MANIFEST).write_text(json.dumps([{"paths": ["one.bin", "two.bin"], "weights": entries}]), "utf-8")
    return folder
