"""A clone gets data, cache and model from an S3 remote on loopback, and serves the model without training."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import httpx2 as httpx
import pytest
import yaml
from moto.server import ThreadedMotoServer

from emotion_yolo.inference.artefact import read_spec
from tests.api.conftest import encoded, painted
from tests.api.process import Process
from tests.builders import exported_model

ROOT = Path(__file__).parents[2]
SECRET = "secret-of-the-tests"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key=SECRET
    )
    client.create_bucket(Bucket="store")
    yield address
    client.close()
    server.stop()


def run(folder: Path, *command: str | Path, home: Path) -> str:
    """Run a command as somebody who has the keys in the environment and nothing at home."""
    home.mkdir(exist_ok=True)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home), **KEYS}
    environment |= {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(home / "site-cache")}
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def origin(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of git and DVC with data and a registered model, all of them pushed and gone from here."""
    root = tmp_path_factory.mktemp("origin")
    home = tmp_path_factory.mktemp("home")

    def do(*command: str | Path) -> None:
        run(root, *command, home=home)

    do("git", "init", "-q", "-b", "main")
    do("git", "config", "user.name", "t")
    do("git", "config", "user.email", "t@example.org")
    do("dvc", "init", "-q")
    do("dvc", "remote", "add", "--default", "storage", "s3://store/project")
    do("dvc", "remote", "modify", "storage", "endpointurl", endpoint)
    (root / "data" / "faces").mkdir(parents=True)
    (root / "data" / "faces" / "face.png").write_bytes(encoded(painted()))
    do("dvc", "add", "-q", "data")
    exported_model(root / "models" / "export")
    (root / "dvc.yaml").write_text(
        "stages:\n  export:\n    cmd: exit 1\n    deps: [data]\n    outs: [models/export]\n"
        "artifacts:\n  emotion-yolo: {path: models/export, type: model}\n"
    )
    (root / "models" / ".gitignore").write_text("/export\n")
    do("dvc", "commit", "-q", "-f", "export")
    do("git", "add", "-A")
    do("git", "commit", "-qm", "A model")
    do("gto", "register", "emotion-yolo", "--version", "v0.0.1")
    do("dvc", "push", "-q")
    return root


def served(model: Path) -> str:
    """Return the digest that a service of `model` answers with, after asking it for faces."""
    process = Process({"EMOTION_MODEL": str(model), "EMOTION_PORT": "0", "EMOTION_THREADS": "1"})
    try:
        url = process.wait_ready().url
        answer = httpx.post(f"{url}/v1/detect", content=encoded(painted()), headers={"content-type": "image/png"})
        assert {face["emotion"] for face in answer.json()["detections"]} == {"happy", "surprise"}
        return str(answer.json()["model"]["digest"])
    finally:
        process.popen.terminate()
        process.end()


def test_a_clone_pulls_data_and_model_and_serves_it_without_training(origin: Path, tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "-q", origin, "clone", home=tmp_path / "home")
    clone = tmp_path / "clone"
    assert not (clone / "models/export").exists()
    run(clone, "dvc", "pull", "-q", home=tmp_path / "home")
    assert (clone / "data/faces/face.png").read_bytes() == (origin / "data/faces/face.png").read_bytes()
    # Nothing is left to be done: `exit 1` would fail here.
    assert "up to date" in run(clone, "dvc", "repro", home=tmp_path / "home")
    assert served(clone / "models/export") == read_spec(origin / "models/export").digest


def test_the_init_container_of_the_kubernetes_base_fetches_the_registered_model(origin: Path, tmp_path: Path) -> None:
    deployment = yaml.safe_load((ROOT / "dockerfiles/kubernetes/deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
    values = {"MODEL_REPOSITORY": str(origin), "MODEL_VERSION": "v0.0.1", "/model/current": str(tmp_path / "model")}
    command = shlex.join(container["command"])
    for name, value in values.items():
        command = command.replace(f"'$({name})'", value).replace(name, value)
    for _ in range(2):  # the second time as after a restart, with the model there
        run(tmp_path, *shlex.split(command), home=tmp_path / "home")
    assert served(tmp_path / "model") == read_spec(origin / "models/export").digest


def test_keys_are_in_no_file_of_the_repository(origin: Path) -> None:
    for file in origin.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
