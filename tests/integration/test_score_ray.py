"""`score --engine ray` on a cluster of two node processes on loopback: the same bytes, whoever is killed."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.score_kills import COMMAND, digests
from emotion_yolo.scoring.listing import Selection
from emotion_yolo.scoring.on_ray import _files, _Worker
from emotion_yolo.scoring.plan import Options
from emotion_yolo.scoring.run import score
from emotion_yolo.scoring.shards import Job, shard_name
from tests.builders import exported_model, painted, save_picture

needs_cluster = pytest.mark.skipif(
    "EMOTION_TEST_RAY" not in os.environ,
    reason="starts a Ray cluster, which Ray gives up where its agents take more than 15 s to start; `make test-ray`",
)

PICTURES, SHARD = 2400, 40
TRIES = 3  # Ray gives a node up whose agents take more than 15 s to start


@dataclass
class Cluster:
    """A head and a second node, each with one core for actors."""

    environment: dict[str, str]
    nodes: list[psutil.Process]

    def workers(self, node: int) -> list[psutil.Process]:
        """Return the actors at work on a node."""
        found = []
        for process in self.nodes[node].children(recursive=True):
            try:
                if " ".join(process.cmdline()).startswith("ray::_Worker.score"):
                    found.append(process)
            except psutil.Error:  # ended meanwhile
                continue
        return found

    def kill(self, node: int) -> None:
        """Kill all processes of a node at once, as a power cut does."""
        doomed = [self.nodes[node], *self.nodes[node].children(recursive=True)]
        for process in doomed:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(doomed, timeout=30)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # not tmp_path: sockets have short names
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        # Else Ray 2.60 has the head node ask for a token, and the second one not send it.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    of_all = ["--block", "--num-cpus=1", "--object-store-memory=100000000", "--include-log-monitor=false"]
    head = [
        "--head",
        f"--port={address.partition(':')[2]}",
        "--include-dashboard=false",
        f"--temp-dir={folder}",
    ]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start"]
    started: list[subprocess.Popen[bytes]] = []
    running = Cluster({**environment, "RAY_ADDRESS": address}, [])
    try:
        for options in (head, [f"--address={address}"]):
            for _ in range(TRIES):
                log = Path(folder, f"node-{len(started)}.log")
                with log.open("wb") as file:
                    node = subprocess.Popen([*ray, *of_all, *options], env=environment, stdout=file, stderr=file)
                started.append(node)
                while node.poll() is None and "Ray runtime started" not in log.read_text("utf-8"):
                    time.sleep(0.1)
                if node.poll() is None:
                    break
            assert node.poll() is None, log.read_text("utf-8")
            running.nodes.append(psutil.Process(node.pid))
        yield running
    finally:
        for number in reversed(range(len(running.nodes))):
            if running.nodes[number].is_running():
                running.kill(number)
        for process in started:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.02)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a manifest that names a few pictures many times."""
    names = [str(save_picture(tmp_path / f"p/{i}.png", painted({(i % 3, 1): i}))) for i in range(8)]
    names.append("gone.png")
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": [names[i % 9] for i in range(PICTURES)]}), path)
    return path


@needs_cluster
@pytest.mark.timeout(900)
def test_a_lost_worker_and_a_lost_node_change_no_byte(cluster: Cluster, source: Path, tmp_path: Path) -> None:
    model = exported_model(tmp_path / "model")
    score(Selection(str(source)), out=str(tmp_path / "local"), model=model, options=Options(shard=SHARD), workers=1)
    out = tmp_path / "ray"
    arguments = [str(source), "--out", str(out), "--model", str(model), "--shard", str(SHARD), "--engine", "ray"]

    def committed() -> int:
        return len(list(out.glob("part-*"))) if out.is_dir() else 0

    with subprocess.Popen([*COMMAND, *arguments], env=cluster.environment, stdout=subprocess.PIPE) as run:
        try:
            wait_for(lambda: cluster.workers(0) and cluster.workers(1), run)
            cluster.workers(0)[0].kill()
            at_loss = committed()
            wait_for(lambda: committed() > at_loss + 1 and cluster.workers(1), run)
            cluster.kill(1)
            assert at_loss < committed() < PICTURES // SHARD
            printed, _ = run.communicate()
        finally:
            run.kill()
    assert run.returncode == 0
    assert f"{PICTURES:,} pictures scored" in printed.decode()
    assert digests(out) == digests(tmp_path / "local")


def test_a_worker_brings_its_own_copy_of_the_model(source: Path, tmp_path: Path) -> None:
    model = exported_model(tmp_path / "model")
    choices = Options(shard=SHARD)
    score(Selection(str(source), limit=SHARD), out=str(tmp_path / "out"), model=model, options=choices, workers=1)
    part = tmp_path / "out" / shard_name(0)
    before = part.read_bytes()
    part.unlink()
    files = _files(model)
    shutil.rmtree(model)
    worker = _Worker(Job(str(model), str(tmp_path / "out"), choices), files)
    worker.begin()
    assert (worker.score(0).pictures, part.read_bytes()) == (SHARD, before)
    worker.end()
