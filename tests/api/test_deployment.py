import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from api.metrics import Metrics
from api.settings import Settings
from emotion_yolo.monitoring.reporting import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "dockerfiles"
API = (FOLDER / "api.Dockerfile").read_text()


@pytest.mark.parametrize("name", ["api.Dockerfile", "train.Dockerfile"])
def test_the_dockerfiles_pass_the_linter(name: str) -> None:
    linter = Path(sys.executable).parent / "hadolint"
    found = subprocess.run([linter, FOLDER / name], capture_output=True, text=True, check=False)
    assert found.stdout == ""
    assert found.returncode == 0


def test_the_image_runs_as_nobody_with_hashed_requirements_and_a_health_check() -> None:
    assert re.search(r"^USER (?!0|root)\S+", API, re.MULTILINE)
    assert "--require-hashes" in API
    assert "HEALTHCHECK" in API
    assert "torch" not in (ROOT / "requirements" / "api.txt").read_text().replace("pytorch", "")


def test_the_image_copies_only_what_is_there() -> None:
    for source in re.findall(r"^COPY (?!--from)(\S+) ", API, re.MULTILINE):
        if source != "models/release":  # made by `make release`; test_image.py needs it
            assert (ROOT / source).exists(), source
        allowed = (FOLDER / "api.Dockerfile.dockerignore").read_text().splitlines()
        assert f"!{source}" in allowed


def test_images_and_compose_set_only_variables_that_exist() -> None:
    known = {f"EMOTION_{name.upper()}" for name in Settings.model_fields} | {"EMOTION_TEXTFILES"}  # compose's own
    text = API + (FOLDER / "compose.yaml").read_text()
    assert set(re.findall(r"\bEMOTION_[A-Z_]+", text)) <= known


def test_compose_mounts_only_files_that_are_there_and_locks_the_service_down() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (FOLDER / source).exists(), source
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    api = services["api"]
    assert api["read_only"] is True
    assert api["cap_drop"] == ["ALL"]
    assert (FOLDER / api["build"]["context"] / api["build"]["dockerfile"]).is_file()


def test_dashboard_and_alerts_ask_only_for_metrics_that_exist() -> None:
    known = {metric.name for metric in Metrics().registry.collect()}
    known |= {f"emotion_monitor_{name}" for name in METRICS}
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_sum", "_count", "_total")}
    dashboards = [path.read_text() for path in (FOLDER / "grafana" / "dashboards").glob("*.json")]
    assert len(dashboards) == 2
    text = "".join(dashboards) + (FOLDER / "alerts.yml").read_text()
    asked = set(re.findall(r"\b(?:emotion|process)_[a-z_]+", text))
    assert len(asked) > 15
    assert asked <= known


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed; .ci/run brings it")
@pytest.mark.parametrize(
    "command", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts.test.yml"]
)
def test_prometheus_takes_its_settings_and_the_alerts_fire_when_they_should(command: str) -> None:
    done = subprocess.run(["promtool", *command.split()], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    names = {rule["alert"] for group in rules for rule in group["rules"]}
    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    assert {case["alertname"] for test in tests for case in test["alert_rule_test"]} == names
    firing = {case["alertname"] for test in tests for case in test["alert_rule_test"] if "exp_alerts" in case}
    assert firing == names
