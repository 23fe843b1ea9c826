"""`make bench-service PHOTO=photo.jpg`: this service, the naive one, and the network alone, in one run of two minutes.

python -m benchmarks.service --photo photo.jpg --weights models/release/weights.pt [--seconds 10] [--out figures.json]

The services are loaded in turn, in short rounds, so that other work on the machine hits both alike. CPU time for a
picture hardly depends on such work; latencies and pictures a second do: compare them within a run only.
"""

import argparse
import asyncio
import io
import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from api.settings import Settings
from benchmarks.client import Connection, Service, free_port, our_service, percentile, serve
from benchmarks.timing import median_ms
from emotion_yolo.imaging import ImageLimits, decode
from emotion_yolo.inference.artefact import read_spec
from emotion_yolo.inference.close_up import cut_out, mirrored
from emotion_yolo.inference.detector import Detector
from emotion_yolo.structures.detections import Detections
from emotion_yolo.structures.images import Image

SIZES = {"640x480": (640, 480), "12 MP": (4000, 3000)}
CLIENTS = (1, 16)
ROUNDS = 5
DEFAULTS = {name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()}


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
    with PillowImage.open(photo) as opened:
        rgb = opened.convert("RGB")
    for name, size in SIZES.items():
        buffer = io.BytesIO()
        rgb.resize(size, PillowImage.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
        made[name] = buffer.getvalue()
    return made


def network_alone(model: Path, imgsz: int, threads: int, precision: Any, files: dict[str, bytes]) -> dict[str, Any]:
    """Time decoding, and the network on the picture and on the close-ups of its faces, with nothing around them.

    Medians in ms; `close_ups` is of all of them.
    """
    detector = Detector.load(model, imgsz=imgsz, threads=threads, precision=precision)
    timings: dict[str, Any] = {}
    for name, data in files.items():
        decoded = median_ms(lambda data=data: decode(data, ImageLimits(), fit=imgsz))
        pixels = decode(data, ImageLimits(), fit=imgsz).pixels
        tensor, box = detector.preprocess(pixels)
        found = detector.postprocess(detector.infer(tensor), box)
        timings[name] = {
            "decode": decoded,
            "network": median_ms(lambda tensor=tensor: detector.infer(tensor)),
            "close_ups": close_ups_alone(detector, found, pixels),
        }
    return timings


def close_ups_alone(detector: Detector, found: Detections, pixels: Image) -> float:
    """Return the ms that the network takes for all close-ups of the faces `found`."""
    given = detector.spec.close_up
    if not given or not len(found):
        return 0.0
    seen, _ = cut_out(pixels, found.xyxy[0], given)
    pair = np.concatenate([seen, mirrored(seen)])
    return min(len(found), given.faces) * median_ms(lambda: detector.infer(pair))


@dataclass
class Load:
    """What came of posting a picture again and again."""

    latencies_ms: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)
    refused: int = 0
    seconds: float = 0
    cpu_s: float = 0

    def figures(self) -> dict[str, float]:
        """Return latencies in ms, pictures a second, and CPU ms of the server for a picture."""
        answered = len(self.latencies_ms)
        return {
            "p50": percentile(self.latencies_ms, 0.5),
            "p99": percentile(self.latencies_ms, 0.99),
            "pictures_s": answered / self.seconds,
            "cpu_ms": 1000 * self.cpu_s / answered if answered else nan,
            "refused": self.refused,
            "server_p50": percentile(self.server_ms, 0.5),
        }


async def load(service: Service, body: bytes, content_type: str, *, clients: int, seconds: float, into: Load) -> None:
    """Post a picture from `clients` connections for `seconds`."""
    started, cpu_s = time.perf_counter(), service.cpu_s()
    end = started + seconds

    async def ask() -> None:
        connection = Connection(service.port)
        while time.perf_counter() < end:
            asked = time.perf_counter()
            status, headers, _ = await connection.post("/v1/detect", body, content_type)
            if status == 200:
                into.latencies_ms.append((time.perf_counter() - asked) * 1000)
                if "server-timing" in headers:
                    into.server_ms.append(float(headers["server-timing"].rpartition("=")[2]))
            else:
                into.refused += 1
        connection.close()

    await asyncio.gather(*(ask() for _ in range(clients)))
    into.seconds += time.perf_counter() - started
    into.cpu_s += service.cpu_s() - cpu_s


def load_in_turn(
    services: Mapping[str, Service], bodies: Mapping[str, tuple[bytes, str]], *, clients: int, seconds: float
) -> dict[str, Load]:
    """Load running services in turn, in short rounds, each with its body and content type; a first round warms up."""
    loads = {name: Load() for name in services}
    for number in range(ROUNDS + 1):
        for name, service in services.items():
            length = seconds / ROUNDS if number else min(seconds / ROUNDS, 1)
            into = loads[name] if number else Load()
            asyncio.run(load(service, *bodies[name], clients=clients, seconds=length, into=into))
    return loads


def measure(services: dict[str, Service], files: dict[str, bytes], seconds: float) -> dict[str, dict[str, Any]]:
    """Load running services with every picture and number of clients, in turn; a form each for the naive one."""
    results: dict[str, dict[str, Any]] = {
        name: {"ready_s": service.ready_s, "rss_idle_mb": service.rss_mb()} for name, service in services.items()
    }
    for size, data in files.items():
        bodies = {name: _form(data) if name == "naive" else (data, "image/jpeg") for name in services}
        for clients in CLIENTS:
            loads = load_in_turn(services, bodies, clients=clients, seconds=seconds)
            for name in services:
                results[name][f"{size}, {clients}"] = loads[name].figures()
    for name, service in services.items():
        results[name] |= {"rss_mb": service.rss_mb(), "rss_peak_mb": service.rss_mb("VmHWM")}
    return results


def _form(data: bytes) -> tuple[bytes, str]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head + data + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


def aims(results: dict[str, Any]) -> list[Aim]:
    """Return the aims of issue 4 with what was measured; those against the naive service only where it was measured."""
    ours, naive, alone = results["ours"], results.get("naive"), results["alone"]
    found = [
        Aim(
            f"server time at 1 client / (decode + network with close-ups), {size}",
            ours[f"{size}, 1"]["server_p50"] / sum(alone[size].values()),
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
    lines = ["| | p50 ms | p99 ms | pictures/s | CPU ms | refused |", "|---|---|---|---|---|---|"]
    for side in ("ours", "naive"):
        for case, row in results.get(side, {}).items():
            if isinstance(row, dict):
                figures = f"{row['p50']:.1f} | {row['p99']:.1f} | {row['pictures_s']:.1f} | {row['cpu_ms']:.1f}"
                lines.append(f"| {side}, {case} clients | {figures} | {row['refused']:.0f} |")
    lines += ["", "| | decode ms | network ms | close-ups ms | server p50, 1 client, ms |", "|---|---|---|---|---|"]
    for size, alone in results["alone"].items():
        server = results["ours"][f"{size}, 1"]["server_p50"]
        lines.append(
            f"| {size} | {alone['decode']:.2f} | {alone['network']:.2f} | {alone['close_ups']:.2f} | {server:.2f} |"
        )
    lines += ["", "| | start to ready s | RSS MB | peak MB |", "|---|---|---|---|"]
    for side in ("ours", "naive"):
        if row := results.get(side):
            lines.append(f"| {side} | {row['ready_s']:.2f} | {row['rss_mb']:.0f} | {row['rss_peak_mb']:.0f} |")
    lines += ["", "| aim | measured | bound | |", "|---|---|---|---|"]
    for aim in aims(results):
        verdict = "met" if aim.met else "**missed**"
        bound = f"{'≥' if aim.at_least else '≤'} {aim.bound:.3g}"
        lines.append(f"| {aim.name} | {aim.figure:.2f} | {bound} | {verdict} |")
    if load_average := results.get("load"):
        lines += ["", "load of the machine, 1, 5, 15 minutes: {:.1f}, {:.1f}, {:.1f}".format(*load_average)]
    return "\n".join(lines)


def _naive_service(weights: Path, imgsz: int) -> AbstractContextManager[Service]:
    port = free_port()
    arguments = ["-m", "uvicorn", "benchmarks.naive:app", "--port", str(port), "--log-level", "warning"]
    environment = {"NAIVE_WEIGHTS": str(weights), "NAIVE_IMGSZ": str(imgsz)}
    environment["YOLO_CONFIG_DIR"] = os.environ.get("YOLO_CONFIG_DIR", str(Path(".ultralytics").resolve()))
    return serve(arguments, environment, port)


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
    with ExitStack() as stack:
        services = {"ours": stack.enter_context(our_service(options.model, **settings))}
        if options.weights:
            services["naive"] = stack.enter_context(_naive_service(options.weights, imgsz))
        results |= measure(services, files, options.seconds)
    results["load"] = os.getloadavg()
    print(table(results))
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
