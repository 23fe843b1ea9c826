"""`make bench-service PHOTO=photo.jpg`: this service, the naive one, and the network alone, in one run of two minutes.

python -m benchmarks.service --photo photo.jpg --weights models/release/weights.pt [--seconds 10] [--out figures.json]
"""

import argparse
import asyncio
import io
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from api.settings import Settings
from benchmarks.client import Connection, Service, free_port, our_service, percentile, serve
from benchmarks.timing import median_ms
from emotion_yolo.imaging import ImageLimits, decode
from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.inference.detector import Detector

SIZES = {"640x480": (640, 480), "12 MP": (4000, 3000)}
CLIENTS = (1, 16)
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}


@dataclass(frozen=True)
class Aim:
    """What a figure should be: at most, or at least, `bound`."""

    name: str
    figure: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Tell whether the figure is there."""
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound


def pictures(photo: Path) -> dict[str, bytes]:
    """Return the photo as JPEG in each size."""
    made = {}
    with Image.open(photo) as opened:
        rgb = opened.convert("RGB")
    for name, size in SIZES.items():
        buffer = io.BytesIO()
        rgb.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
        made[name] = buffer.getvalue()
    return made


def network_alone(model: Path, imgsz: int, threads: int, precision: Any, files: dict[str, bytes]) -> dict[str, Any]:
    """Time decoding and the network without any service around them; medians in ms."""
    detector = Detector.load(model, imgsz=imgsz, threads=threads, precision=precision)
    timings: dict[str, Any] = {}
    for name, data in files.items():
        decoded = median_ms(lambda data=data: decode(data, ImageLimits(), fit=imgsz))
        tensor, _ = detector.preprocess(decode(data, ImageLimits(), fit=imgsz).pixels)
        timings[name] = {"decode": decoded, "network": median_ms(lambda tensor=tensor: detector.infer(tensor))}
    return timings


async def load(port: int, data: bytes, clients: int, seconds: float, content_type: str) -> dict[str, float]:
    """Post a picture from `clients` connections for `seconds`; latencies in ms."""
    latencies: list[float] = []
    server_ms: list[float] = []
    refused = 0
    end = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal refused
        connection = Connection(port)
        while time.perf_counter() < end:
            started = time.perf_counter()
            status, headers, _ = await connection.post("/v1/detect", data, content_type)
            if status == 200:
                latencies.append((time.perf_counter() - started) * 1000)
                if "server-timing" in headers:
                    server_ms.append(float(headers["server-timing"].rpartition("=")[2]))
            else:
                refused += 1
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(clients)))
    return {
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "pictures_s": len(latencies) / (time.perf_counter() - started),
        "refused": refused,
        "server_p50": percentile(server_ms, 0.5),
    }


def measure(service: Service, files: dict[str, bytes], seconds: float, *, form: bool) -> dict[str, Any]:
    """Load a running service with every picture and number of clients."""
    result: dict[str, Any] = {"ready_s": service.ready_s, "rss_idle_mb": service.rss_mb()}
    for name, data in files.items():
        body, content_type = (_form(data), "multipart/form-data; boundary=b") if form else (data, "image/jpeg")
        for clients in CLIENTS:
            asyncio.run(load(service.port, body, clients, min(seconds, 1), content_type))
            result[f"{name}, {clients}"] = asyncio.run(load(service.port, body, clients, seconds, content_type))
    result |= {"rss_mb": service.rss_mb(), "rss_peak_mb": service.rss_mb("VmHWM")}
    return result


def _form(data: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head + data + b"\r\n--b--\r\n"


def aims(results: dict[str, Any]) -> list[Aim]:
    """Return the aims of issue 4 with what was measured; those against the naive service only where it was measured."""
    ours, naive, alone = results["ours"], results.get("naive"), results["alone"]
    found = [
        Aim(
            f"server time at 1 client / (decode + network alone), {size}",
            ours[f"{size}, 1"]["server_p50"] / (alone[size]["decode"] + alone[size]["network"]),
            1.15,
        )
        for size in alone
    ]
    if naive:
        found += [
            Aim(
                f"pictures/s at {clients} clients / naive, {size}",
                ours[f"{size}, {clients}"]["pictures_s"] / naive[f"{size}, {clients}"]["pictures_s"],
                3,
                at_least=True,
            )
            for size in alone
            for clients in CLIENTS
        ]
    found.append(Aim("RSS, MB", ours["rss_mb"], 350))
    if naive:
        found.append(Aim("RSS / naive", ours["rss_mb"] / naive["rss_mb"], 1 / 3))
    return [*found, Aim("start to ready, s", ours["ready_s"], 2)]


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["| | p50 ms | p99 ms | pictures/s | refused |", "|---|---|---|---|---|"]
    for side in ("ours", "naive"):
        for case, row in results.get(side, {}).items():
            if isinstance(row, dict):
                figures = f"{row['p50']:.1f} | {row['p99']:.1f} | {row['pictures_s']:.1f} | {row['refused']:.0f}"
                lines.append(f"| {side}, {case} clients | {figures} |")
    lines += ["", "| | decode ms | network ms | server p50, 1 client, ms |", "|---|---|---|---|"]
    for size, alone in results["alone"].items():
        server = results["ours"][f"{size}, 1"]["server_p50"]
        lines.append(f"| {size} | {alone['decode']:.2f} | {alone['network']:.2f} | {server:.2f} |")
    lines += ["", "| | start to ready s | RSS MB | peak MB |", "|---|---|---|---|"]
    for side in ("ours", "naive"):
        if row := results.get(side):
            lines.append(f"| {side} | {row['ready_s']:.2f} | {row['rss_mb']:.0f} | {row['rss_peak_mb']:.0f} |")
    lines += ["", "| aim | measured | bound | |", "|---|---|---|---|"]
    for aim in aims(results):
        verdict = "met" if aim.met else "**missed**"
        bound = f"{'≥' if aim.at_least else '≤'} {aim.bound:.3g}"
        lines.append(f"| {aim.name} | {aim.figure:.2f} | {bound} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=DEFAULTS["model"])
    parser.add_argument("--weights", type=Path, help="checkpoint for the naive service; none: leave it out")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--imgsz", type=int)
    parser.add_argument("--threads", type=int, default=DEFAULTS["threads"])
    parser.add_argument("--workers", type=int, default=DEFAULTS["workers"])
    parser.add_argument("--precision", default=DEFAULTS["precision"])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    imgsz = options.imgsz or read_spec(options.model).input.imgsz
    files = pictures(options.photo)
    results: dict[str, Any] = {"settings": {name: str(value) for name, value in vars(options).items()}}
    results["alone"] = network_alone(options.model, imgsz, options.threads, options.precision, files)
    settings = {
        "EMOTION_IMGSZ": str(imgsz),
        "EMOTION_THREADS": str(options.threads),
        "EMOTION_WORKERS": str(options.workers),
        "EMOTION_PRECISION": options.precision,
    }
    with our_service(options.model, **settings) as service:
        results["ours"] = measure(service, files, options.seconds, form=False)
    if options.weights:
        port = free_port()
        arguments = ["-m", "uvicorn", "benchmarks.naive:app", "--port", str(port), "--log-level", "warning"]
        environment = {"NAIVE_WEIGHTS": str(options.weights), "NAIVE_IMGSZ": str(imgsz)}
        environment["YOLO_CONFIG_DIR"] = os.environ.get("YOLO_CONFIG_DIR", str(Path(".ultralytics").resolve()))
        with serve(arguments, environment, port) as service:
            results["naive"] = measure(service, files, options.seconds, form=True)
    print(table(results))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
