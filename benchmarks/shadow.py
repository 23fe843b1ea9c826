"""`make bench-shadow PHOTO=photo.jpg`: what a candidate in the shadow costs the answers, in one run of two minutes.

python -m benchmarks.shadow --photo photo.jpg [--model models/release] [--candidate models/release] [--seconds 10]

Three services, which differ in the share of pictures that the candidate scores, are loaded in turn, in short rounds, so
that other work on the machine hits all alike: compare them within a run only.
"""

import argparse
import json
import os
import re
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.client import START_S, Service, our_service
from benchmarks.service import load_in_turn, pictures

SIZE = "640x480"
SHARES: dict[str, float | None] = {"off": None, "10 %": 0.1, "100 %": 1.0}
CLIENTS = (1, 4)

Results = dict[str, dict[str, dict[str, float]]]
"""Figures by share and case, and under `shadow` the pictures that the candidate has scored and left out."""


def settings_of(share: float | None, candidate: Path) -> dict[str, str]:
    """Return the variables of a service whose candidate scores `share` of the pictures."""
    if share is None:
        return {}
    return {"EMOTION_SHADOW_MODEL": str(candidate), "EMOTION_SHADOW_SHARE": str(share)}


def scored(service: Service) -> dict[str, float]:
    """Return how many pictures the candidate has scored, and how many drawn ones it has left out."""
    text = service.get("/metrics")[1].decode()
    found = re.findall(r'^emotion_shadow_pictures_total{outcome="(\w+)"} (\S+)$', text, re.MULTILINE)
    counts = {outcome: float(count) for outcome, count in found}
    done = counts.pop("scored", 0.0)
    return {"scored": done, "left_out": sum(counts.values())}


def wait_loaded(service: Service) -> None:
    """Wait until the candidate can score: the service is ready before it."""
    end = time.monotonic() + START_S
    while b"emotion_shadow_model_info{" not in service.get("/metrics")[1]:
        if time.monotonic() > end:
            raise SystemExit("the candidate was not loaded; the service's log says why")
        time.sleep(0.2)


def measure(services: dict[str, Service], body: bytes, seconds: float) -> Results:
    """Load running services with every number of clients, in turn."""
    results: Results = {name: {} for name in services}
    for clients in CLIENTS:
        loads = load_in_turn(services, dict.fromkeys(services, (body, "image/jpeg")), clients=clients, seconds=seconds)
        for name in services:
            results[name][f"{clients}"] = loads[name].figures()
    for name, service in services.items():
        results[name]["shadow"] = scored(service)
    return results


def table(results: Results) -> str:
    """Return the figures as Markdown; in brackets, as a multiple of those without a shadow."""
    lines = [
        "| clients | shadow | p50 ms | p99 ms | pictures a second | CPU ms a picture |",
        "|---|---|---|---|---|---|",
    ]
    for clients in CLIENTS:
        off = results["off"][f"{clients}"]
        for name, found in results.items():
            row = found[f"{clients}"]
            cells = [f"{row[key]:.1f} ({row[key] / off[key]:.2f})" for key in ("p50", "p99", "pictures_s", "cpu_ms")]
            lines.append(f"| {clients} | {name} | {' | '.join(cells)} |")
    counts = [
        f"{name}: {row['shadow']['scored']:.0f} scored, {row['shadow']['left_out']:.0f} left out"
        for name, row in results.items()
        if name != "off"
    ]
    return "\n".join([*lines, "", *counts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("models/release"))
    parser.add_argument("--candidate", type=Path, default=Path("models/release"))
    parser.add_argument("--seconds", type=float, default=10, help="load of each service and number of clients")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    given = parser.parse_args()
    body = pictures(given.photo)[SIZE]
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(our_service(given.model, **settings_of(share, given.candidate)))
            for name, share in SHARES.items()
        }
        for name, share in SHARES.items():
            if share is not None:
                wait_loaded(services[name])
        results = measure(services, body, given.seconds)
    print(table(results))
    print(f"\n{SIZE}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, of which this run is about 2")
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
