"""The kustomize base: valid to Kubernetes' own schemas, locked down, and true to the service and its image."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from api.metrics import Metrics
from api.settings import Settings, load_settings, unknown_variables

ROOT = Path(__file__).parents[2]
BASE = ROOT / "dockerfiles/kubernetes"
PAGE = (ROOT / "docs/kubernetes.md").read_text("utf-8")
LABEL = {"app.kubernetes.io/name": "emotion-yolo"}
VERSIONS = ("1.30", "1.37")

Manifest = dict[str, Any]


def rendered(folder: Path) -> dict[str, Manifest]:
    """Return the objects that `kubectl apply -k` would send, by kind; config maps by name without its hash."""
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True)
    objects = list(yaml.safe_load_all(done.stdout))
    maps = {re.sub(r"-\w{10}$", "", one["metadata"]["name"]): one for one in objects if one["kind"] == "ConfigMap"}
    return maps | {one["kind"]: one for one in objects if one["kind"] != "ConfigMap"}


@pytest.fixture(scope="module")
def objects() -> dict[str, Manifest]:
    return rendered(BASE)


@pytest.fixture(scope="module")
def pod(objects: dict[str, Manifest]) -> Manifest:
    spec: Manifest = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def service(pod: Manifest) -> Manifest:
    (container,) = pod["containers"]
    return dict(container)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schema(objects: dict[str, Manifest], version: str) -> None:
    for one in objects.values():
        kubernetes_validate.validate(one, version, strict=True)


def test_the_schema_refuses_a_misspelt_field(objects: dict[str, Manifest]) -> None:
    wrong = {**objects["Service"], "spec": {**objects["Service"]["spec"], "portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_selectors_all_mean_these_pods(objects: dict[str, Manifest]) -> None:
    assert objects["Deployment"]["spec"]["template"]["metadata"]["labels"].items() >= LABEL.items()
    assert objects["Service"]["spec"]["selector"] == LABEL
    assert objects["Deployment"]["spec"]["selector"] == {"matchLabels": LABEL}
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": LABEL}
    assert objects["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": LABEL}
    scaled = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", objects["Deployment"]["metadata"]["name"])


def test_variables_are_settings_that_the_service_takes(
    objects: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in objects["emotion-yolo-service"]["data"].items():
        monkeypatch.setenv(name, value)
    assert unknown_variables() == []
    settings = load_settings()
    assert settings.host == "0.0.0.0"
    assert settings.model == Path("/model/current")


def test_ports_and_probes_are_those_of_the_service(objects: dict[str, Manifest], service: Manifest) -> None:
    (port,) = service["ports"]
    assert port["containerPort"] == int(objects["emotion-yolo-service"]["data"]["EMOTION_PORT"])
    assert port["containerPort"] == Settings.model_fields["port"].default
    annotations = objects["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert objects["NetworkPolicy"]["spec"]["ingress"][0]["ports"] == [{"port": port["name"]}]
    paths = {name: service[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    assert all(service[f"{name}Probe"]["httpGet"]["port"] == port["name"] for name in paths)


def test_it_may_end_in_its_own_time_and_use_the_cores_that_it_has(
    objects: dict[str, Manifest], pod: Manifest, service: Manifest
) -> None:
    values = objects["emotion-yolo-service"]["data"]
    ending = float(values["EMOTION_DRAIN_S"]) + float(values["EMOTION_SHUTDOWN_S"])
    assert pod["terminationGracePeriodSeconds"] >= ending + 5
    # The readiness probe fails, and is seen to, before the port closes.
    probe = service["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < float(values["EMOTION_DRAIN_S"])
    assert values["EMOTION_THREADS"] == service["resources"]["limits"]["cpu"]
    assert (service["resources"]["requests"]["memory"], service["resources"]["limits"]["memory"]) == ("768Mi", "1Gi")


def test_every_container_is_locked_down(pod: Manifest) -> None:
    user = re.findall(r"^USER (\d+)$", (ROOT / "dockerfiles/api.Dockerfile").read_text(), re.MULTILINE)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert [str(pod["securityContext"]["runAsUser"])] == user
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert all("emptyDir" in volume and volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"])


def test_the_model_that_is_fetched_is_the_one_that_is_served(objects: dict[str, Manifest], pod: Manifest) -> None:
    (fetching,) = pod["initContainers"]
    command = fetching["command"]
    assert command[:3] == ["dvc", "artifacts", "get"]
    assert command[command.index("--out") + 1] == objects["emotion-yolo-service"]["data"]["EMOTION_MODEL"]
    assert set(re.findall(r"\$\((\w+)\)", " ".join(command))) == set(objects["emotion-yolo-model"]["data"])
    assert command[4] in yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]


def test_the_autoscaler_and_the_rule_of_its_adapter_name_a_metric_that_exists(objects: dict[str, Manifest]) -> None:
    (metric,) = objects["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert name in {known.name for known in Metrics().registry.collect()}
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "seriesQuery" in block]
    (rule,) = yaml.safe_load(block)["rules"]["custom"]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}


def test_the_overlay_of_the_page_renders(tmp_path: Path) -> None:
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "Kustomization" in block]
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    base = Path("../base")
    (tmp_path / "base").symlink_to(BASE)
    overlay.joinpath("kustomization.yaml").write_text(
        block.replace("../emotion-yolo/dockerfiles/kubernetes", str(base))
    )
    built = rendered(overlay)
    assert built["emotion-yolo-model"]["data"]["MODEL_VERSION"] == "v0.0.2"
    images = built["Deployment"]["spec"]["template"]["spec"]
    assert images["containers"][0]["image"] == "registry.example.org/emotion-yolo-api:1.0"
    assert images["initContainers"][0]["image"] == "registry.example.org/emotion-yolo-train:1.0"
    assert all(one["metadata"]["namespace"] == "faces" for one in built.values())
    for one in built.values():
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)
