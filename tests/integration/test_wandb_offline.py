"""Real W&B runs, read back from the files it writes or from what a server on loopback is sent; and W&B failing."""

import http.server
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image
from wandb.proto import wandb_internal_pb2

from emotion_yolo.params import Params, Tracking, load_params
from emotion_yolo.tracking import wandb_run
from emotion_yolo.tracking.tracker import Tracker

wandb_pb: Any = wandb_internal_pb2  # generated; its types depend on the version of protobuf
ROOT = Path(__file__).parents[2]
KEY = "k" * 40
WEIGHTS = "a" * 64
LINEAGE = {"data": "d1.dir", "revision": "abc1234"}


def params(mode: Literal["auto", "online", "offline", "off"] = "offline") -> Params:
    loaded = load_params(ROOT / "params.yaml")
    return loaded.model_copy(
        update={"tracking": Tracking(wandb=mode, project="emotion-yolo-test", pictures=True, system=False)}
    )


def start(mode: Literal["auto", "online", "offline"] = "offline", *, resume: bool = False) -> Tracker:
    return Tracker.start(
        params(mode),
        record=Path("checkpoints/wandb.json"),
        wandb_dir=Path(".wandb"),
        resume=resume,
        lineage=LINEAGE,
    )


def reopen(mode: Literal["auto", "online", "offline"] = "offline") -> Tracker:
    return Tracker.reopen(params(mode), weights=WEIGHTS, wandb_dir=Path(".wandb"), lineage=LINEAGE)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project and an empty home; the environment is put back."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("WANDB", "DVC"))]:
        del os.environ[name]
    (tmp_path / "home").mkdir()
    (tmp_path / "project").mkdir()
    os.environ["HOME"] = str(tmp_path / "home")
    monkeypatch.chdir(tmp_path / "project")
    yield tmp_path / "project"
    os.environ.clear()
    os.environ.update(before)


# ---------------------------------------------------------------------------------------------- reading runs back


def records(path: Path) -> list[Any]:
    """Read a `.wandb` file: LevelDB's log format behind a header of 7 bytes."""
    raw = path.read_bytes()
    assert raw[:4] == b":W&B"
    found, part, at = [], b"", 7
    while at < len(raw):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = struct.unpack_from("<HB", raw, at + 4)
        part += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # the whole record, or its last part
            found.append(wandb_pb.Record.FromString(part))
            part = b""
    return found


def nested(items: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *parents, leaf = item.nested_key or [item.key]
        inner = found
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[leaf] = json.loads(item.value_json)
    return found


class OfflineRun:
    """What one folder of an offline run says."""

    def __init__(self, folder: Path) -> None:
        [file] = folder.glob("*.wandb")
        self.records = records(file)
        self.run = next(record.run for record in self.records if record.HasField("run"))
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}
        self.lines = [nested(record.history.item) for record in self.records if record.HasField("history")]
        self.summary = nested(
            [item for record in self.records if record.HasField("summary") for item in record.summary.update]
        )
        self.artifacts = [record.artifact for record in self.records if record.HasField("artifact")]
        self.exit_code = [record.exit.exit_code for record in self.records if record.HasField("exit")]


def offline_runs(home: Path = Path(".wandb")) -> list[OfflineRun]:
    return [OfflineRun(folder) for folder in sorted(home.glob("offline-run-*"))]


def logged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in {"_timestamp", "_runtime"}} for line in lines]


# ------------------------------------------------------------------------------------------------ servers on loopback


class Server:
    """As much of a W&B server as a run needs; `answers=False` answers 500 to everything, `hangs` nothing at all."""

    def __init__(self, *, answers: bool = True) -> None:
        self.answers = answers
        self.hangs = False
        self.requests: list[str] = []
        self.history: dict[int, dict[str, Any]] = {}
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.upserts: list[dict[str, Any]] = []
        self.complete = False
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                while server.hangs:
                    time.sleep(0.05)
                server.requests.append(self.path)
                answer = server.answer(self.path, json.loads(body)) if server.answers and body else {}
                text = json.dumps(answer).encode()
                self.send_response(200 if server.answers else 500)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_CONNECT = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, address: object) -> None:
                """A client that hangs up is none."""

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.hangs = False
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path != "/graphql":
            self._take(body)
            return {"limits": {}}
        variables = body.get("variables") or {}
        project = {"id": "p", "name": "emotion-yolo-test", "entity": {"id": "e", "name": "someone"}}
        match body.get("operationName") or body["query"].split("(")[0].split()[-1]:
            case "RunResumeStatus":
                return {"data": {"model": {**project, "bucket": self._bucket(variables["name"])}}}
            case "UpsertBucket":
                self.upserts.append(body["variables"])
                self.config = json.loads(variables["config"]) if variables.get("config") else self.config
                bucket = {"id": "r", "name": variables["name"], "displayName": "a-name", "config": "{}"}
                return {"data": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
                return {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}}
            case _:
                return {"data": {}}

    def _bucket(self, name: str) -> dict[str, Any] | None:
        if not self.config:
            return None
        tail = [json.dumps(self.history[max(self.history)])] if self.history else []
        return {
            "id": "r",
            "name": name,
            "displayName": "a-name",
            "summaryMetrics": json.dumps(self.summary),
            "config": "{}",
            "wandbConfig": json.dumps({"t": 1}),
            "historyLineCount": len(self.history),
            "historyTail": json.dumps(tail),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "tags": [],
        }

    def _take(self, body: dict[str, Any]) -> None:
        for name, part in (body.get("files") or {}).items():
            if name == "wandb-history.jsonl":
                for line, text in enumerate(part["content"]):
                    self.history[part["offset"] + line] = json.loads(text)
            elif name == "wandb-summary.json":
                self.summary = json.loads(part["content"][-1])
        self.complete = self.complete or bool(body.get("complete"))

    @property
    def lines(self) -> list[dict[str, Any]]:
        return logged([self.history[line] for line in sorted(self.history)])


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def failing_server() -> Iterator[Server]:
    running = Server(answers=False)
    yield running
    running.stop()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def use(url: str, **environ: str) -> None:
    os.environ.update({"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, **environ})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("emotion_yolo")]


# ------------------------------------------------------------------------------------------------------------ offline


def test_an_offline_run_holds_config_lines_summary_and_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "wise-owl")
    with start("auto") as tracker:
        tracker.log_epoch(1, {"metrics/mAP50(B)": 0.25, "train/box_loss": 2.0})
        tracker.log_epoch(2, {"metrics/mAP50(B)": 0.5, "train/box_loss": 1.0})
        tracker.log_summary({"best epoch": 2})
    [found] = offline_runs()
    assert tracker.info.mode == "offline"
    assert tracker.info.name == "wise-owl"
    assert found.run.run_id == tracker.info.id
    assert found.run.project == "emotion-yolo-test"
    assert found.run.display_name == "wise-owl"
    expected = {**params("auto").model_dump(), "lineage": {**LINEAGE, "experiment": "wise-owl"}}
    assert {key: value for key, value in found.config.items() if key != "_wandb"} == expected
    assert logged(found.lines) == [
        {"_step": 1, "map50": 0.25, "train_box_loss": 2.0},
        {"_step": 2, "map50": 0.5, "train_box_loss": 1.0},
    ]
    assert found.summary["map50"] == 0.5
    assert found.summary["best_epoch"] == 2
    assert found.exit_code == [0]


def test_the_evaluation_adds_to_the_run_of_the_training() -> None:
    with start() as training:
        training.log_epoch(1, {"map50": 0.25})
        training.keep_for(WEIGHTS, wandb_dir=Path(".wandb"))
    Image.new("RGB", (8, 6)).save("confusion.png")
    Path("pr.csv").write_text("class,recall,precision\nhappy,0.5,0.75\nsad,1.0,0.25\n")
    model = Path("export/openvino")
    model.mkdir(parents=True)
    (model / "model.bin").write_bytes(b"weights")
    (model.parent / "model.json").write_text("{}")
    with reopen() as evaluation:
        evaluation.log_summary({"test/map50": 0.2})
        evaluation.log_image("confusion", Path("confusion.png"))
        evaluation.log_table("pr", Path("pr.csv"))
        evaluation.log_model(Path("export"), name="emotion-yolo", metadata={"version": "v1", **LINEAGE})
    shutil.rmtree("export")  # as the next `dvc repro` does

    trained, evaluated = offline_runs()
    assert evaluation.info.id == training.info.id == evaluated.run.run_id == trained.run.run_id
    assert evaluated.summary["test_map50"] == 0.2
    assert evaluated.summary["map50"] == 0.25, "lost by `wandb sync` unless the second part repeats it"
    [line] = logged(evaluated.lines)
    assert line["_step"] == 2, "after the last epoch"
    assert line["confusion"]["_type"] == "image-file"
    assert line["confusion"]["width"] == 8
    table = next(Path(".wandb").glob(f"offline-run-*/files/{line['pr']['path']}"))
    read = json.loads(table.read_text())
    assert read["columns"] == ["class", "recall", "precision"]
    assert read["data"] == [["happy", 0.5, 0.75], ["sad", 1.0, 0.25]]
    artifact = next(found for found in evaluated.artifacts if found.type == "model")
    assert artifact.name == "emotion-yolo"
    assert json.loads(artifact.metadata) == {"version": "v1", **LINEAGE}
    entries = {entry.path: Path(entry.local_path).read_bytes() for entry in artifact.manifest.contents}
    assert entries == {"model.json": b"{}", "openvino/model.bin": b"weights"}


def test_a_killed_training_goes_on_in_the_same_run_and_repeats_no_line() -> None:
    code = """
import sys, time
sys.path[:0] = sys.argv[1:]
from test_wandb_offline import start
tracker = start()
for epoch in (1, 2):
    tracker.log_epoch(epoch, {"map50": epoch / 10})
time.sleep(0.5)
print("ready", flush=True)
time.sleep(60)
"""
    arguments = [sys.executable, "-c", code, str(ROOT / "src"), str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        victim.send_signal(signal.SIGKILL)
    with start(resume=True) as tracker:  # the last checkpoint is the one of epoch 1
        tracker.log_epoch(2, {"map50": 0.22})
        tracker.log_epoch(3, {"map50": 0.3})

    before, after = offline_runs()
    assert before.run.run_id == after.run.run_id == tracker.info.id
    assert logged(before.lines + after.lines) == [
        {"_step": 1, "map50": 0.1},
        {"_step": 2, "map50": 0.2},
        {"_step": 3, "map50": 0.3},
    ]


def test_wandb_sync_makes_one_run_of_the_parts(server: Server) -> None:
    with start() as tracker:
        tracker.log_epoch(1, {"map50": 0.1})
        tracker.log_epoch(2, {"map50": 0.2})
    with start(resume=True) as tracker:
        tracker.log_epoch(2, {"map50": 0.22})
        tracker.log_epoch(3, {"map50": 0.3})
        tracker.keep_for(WEIGHTS, wandb_dir=Path(".wandb"))
    with reopen() as tracker:
        tracker.log_summary({"test_map50": 0.25})
    environ = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}
    subprocess.run([sys.executable, "-m", "wandb", "sync", "--yes"], env=environ, check=True, capture_output=True)
    assert server.lines == [{"_step": 1, "map50": 0.1}, {"_step": 2, "map50": 0.2}, {"_step": 3, "map50": 0.3}]
    assert (server.summary["map50"], server.summary["test_map50"]) == (0.3, 0.25)


@pytest.mark.parametrize("mode", ["offline", "off"])
def test_offline_and_off_reach_for_no_network(mode: Literal["offline", "off"], server: Server) -> None:
    os.environ.update(dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WANDB_BASE_URL"), server.url))
    os.environ.update({"WANDB_MODE": {"off": "disabled"}.get(mode, mode), "WANDB_API_KEY": KEY})
    os.environ.update({"DVC_STUDIO_TOKEN": "t", "DVC_STUDIO_URL": server.url, "DVC_STUDIO_REPO_URL": server.url})
    with start("auto") as tracker:
        tracker.log_epoch(1, {"map50": 0.1})
    assert tracker.info.mode == mode
    assert server.requests == []


def test_nothing_is_left_outside_the_project(tmp_path: Path) -> None:
    Path("export").mkdir()
    Path("export/model.json").write_text("{}")
    with start() as tracker:
        tracker.log_epoch(1, {"map50": 0.1})
        tracker.log_model(Path("export"), name="m", metadata={})
    assert list((tmp_path / "home").rglob("*")) == []
    assert {path.name for path in Path().iterdir()} == {".wandb", "checkpoints", "export"}


def test_a_queued_experiment_keeps_its_run_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(Path.cwd()))
    monkeypatch.chdir(tmp_path / "temporary")
    start().finish()
    assert not Path(".wandb").exists()
    assert len(offline_runs(tmp_path / "project/.wandb")) == 1


def test_experiments_of_dvc_are_tracked_under_their_names() -> None:
    Path("stage.py").write_text(f"import sys; sys.path[:0] = {[str(ROOT / 'src'), str(Path(__file__).parent)]}\n")
    with Path("stage.py").open("a") as stage:
        stage.write("from test_wandb_offline import start\n")
        stage.write("with start() as tracker: tracker.log_epoch(1, {'metrics/mAP50-95(B)': 0.5})\n")
    stage_of = {"cmd": f"{sys.executable} stage.py", "deps": ["stage.py"], "outs": ["checkpoints"]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"train": stage_of}}))
    Path(".gitignore").write_text(".wandb\n")
    who = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    run("git", "init", "--quiet")
    run(sys.executable, "-m", "dvc", "init", "--quiet")
    run("git", "add", "--all")
    run("git", *who, "commit", "--quiet", "--message", "one")
    run(sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", "wise-owl")
    run(sys.executable, "-m", "dvc", "exp", "apply", "wise-owl")
    [found] = offline_runs()
    assert found.run.display_name == "wise-owl"
    assert logged(found.lines) == [{"_step": 1, "map50_95": 0.5}]


def run(*command: str) -> str:
    environ = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout


def test_an_evaluation_without_a_run_of_the_training_begins_one(caplog: pytest.LogCaptureFixture) -> None:
    with reopen() as tracker:
        tracker.log_summary({"test_map50": 0.5})
    [found] = offline_runs()
    assert found.run.run_id == tracker.info.id
    assert found.summary["test_map50"] == 0.5
    assert warnings(caplog) == []


def test_pictures_of_the_data_set_are_logged_unless_the_params_say_no() -> None:
    Image.new("RGB", (8, 6)).save("batch.png")
    for pictures in (True, False):
        chosen = params().model_copy(update={"tracking": params().tracking.model_copy(update={"pictures": pictures})})
        with Tracker.start(
            chosen, record=Path("wandb.json"), wandb_dir=Path(".wandb"), resume=False, lineage=LINEAGE
        ) as tracker:
            tracker.log_image("batch", Path("batch.png"))
    assert sorted("batch" in line for run in offline_runs() for line in run.lines) == [True]


def _system_figures() -> set[str]:
    """The names of the machine's figures in the runs written so far."""
    try:
        return {
            item.key
            for run in offline_runs()
            for record in run.records
            if record.HasField("stats")
            for item in record.stats.item
        }
    except StopIteration:  # the run's own record is not written yet
        return set()


@pytest.mark.parametrize("system", [True, False])
def test_figures_of_the_machine_are_logged_where_the_params_ask_for_them(
    system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.1")
    chosen = params().model_copy(update={"tracking": params().tracking.model_copy(update={"system": system})})
    with Tracker.start(
        chosen, record=Path("wandb.json"), wandb_dir=Path(".wandb"), resume=False, lineage=LINEAGE
    ) as tracker:
        assert tracker.info.id
        tracker.log_epoch(1, {"map50": 0.25})
        for _ in range(600 if system else 20):
            if _system_figures():
                break
            time.sleep(0.1)
    assert any("cpu" in name for name in _system_figures()) == system


def test_an_exception_marks_the_run_as_failed() -> None:
    with pytest.raises(ZeroDivisionError), start():
        _ = 1 / 0
    assert offline_runs()[0].exit_code == [1]


# ------------------------------------------------------------------------------------------------------------- online


def test_an_online_run_is_streamed_and_reopened(server: Server) -> None:
    use(server.url)
    with start("auto") as training:
        training.log_epoch(1, {"map50": 0.1})
        training.log_epoch(2, {"map50": 0.2})
        training.keep_for(WEIGHTS, wandb_dir=Path(".wandb"))
    assert training.info.mode == "online"
    assert training.info.url == f"{server.url}/someone/emotion-yolo-test/runs/{training.info.id}"
    assert server.complete
    assert server.config["train"]["value"]["epochs"] == params().train.epochs
    assert server.config["lineage"]["value"] == LINEAGE
    assert socket.gethostname() not in json.dumps(server.upserts), "nothing of the machine is sent"
    assert str(Path.cwd().parent) not in json.dumps(server.upserts)
    with reopen("auto") as evaluation:
        evaluation.log_summary({"test_map50": 0.15})
        evaluation.log_image("missing", Path("missing.png"))
    assert evaluation.info.id == training.info.id
    assert server.lines == [{"_step": 1, "map50": 0.1}, {"_step": 2, "map50": 0.2}]
    assert (server.summary["map50"], server.summary["test_map50"]) == (0.2, 0.15)


# ------------------------------------------------------------------------------------------------------- W&B failing


def one_epoch_online() -> Tracker:
    with start("online") as tracker:
        tracker.log_epoch(1, {"map50": 0.1})
    return tracker


def assert_recorded_offline(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    [message] = warnings(caplog)
    assert message.startswith("W&B cannot be reached (")
    assert "`wandb sync`" in message
    assert tracker.info.mode == "offline"
    assert logged(offline_runs()[0].lines) == [{"_step": 1, "map50": 0.1}]


def test_a_server_that_refuses_is_given_up_and_recorded_offline(caplog: pytest.LogCaptureFixture) -> None:
    use(f"http://127.0.0.1:{free_port()}", WANDB_INIT_TIMEOUT="1")
    assert_recorded_offline(one_epoch_online(), caplog)


def test_a_server_that_answers_500_is_given_up_and_recorded_offline(
    failing_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    use(failing_server.url, WANDB_INIT_TIMEOUT="1")
    assert_recorded_offline(one_epoch_online(), caplog)
    assert failing_server.requests


def test_a_server_that_never_answers_is_given_up_and_recorded_offline(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.hangs = True
    use(server.url, WANDB_INIT_TIMEOUT="1")
    assert_recorded_offline(one_epoch_online(), caplog)


def test_a_server_that_stops_answering_does_not_keep_the_training(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    use(server.url, WANDB_FINISH_TIMEOUT="1")
    with start("online") as tracker:
        server.hangs = True
        tracker.log_epoch(1, {"map50": 0.1})
    [message] = warnings(caplog)
    assert message.startswith("W&B failed while finishing (RuntimeError: TimeoutError(")
    assert not server.complete


@pytest.mark.parametrize("key", ["", "too short"])
def test_online_without_a_usable_key_asks_nothing_and_records_offline(
    key: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(f"http://127.0.0.1:{free_port()}", WANDB_API_KEY=key)
    terminal, theirs = pty.openpty()  # W&B prompts on a terminal only
    with os.fdopen(theirs, "r+b", buffering=0) as raw, os.fdopen(terminal, "rb"), monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", raw)
        patch.setattr(sys, "stderr", raw)
        tracker = one_epoch_online()
    assert_recorded_offline(tracker, caplog)


def core_of(tracker: Tracker) -> "subprocess.Popen[bytes]":
    process = wandb_run._core_process()
    assert process is not None
    assert process.poll() is None
    assert tracker.info.id
    return process


def test_a_crash_of_wandbs_process_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with start() as tracker:
        core = core_of(tracker)
        core.kill()
        core.wait()
        for epoch in (1, 2, 3):
            tracker.log_epoch(epoch, {"map50": 0.1})
        tracker.log_summary({"test_map50": 0.1})
    [message] = warnings(caplog)
    assert message.startswith("W&B failed while ")


def test_a_hang_of_wandbs_process_ends_with_its_kill(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_run, "GRACE", 1.0)
    os.environ["WANDB_FINISH_TIMEOUT"] = "0.5"
    with start() as tracker:
        core = core_of(tracker)
        core.send_signal(signal.SIGSTOP)
        tracker.log_epoch(1, {"map50": 0.1})
    [message] = warnings(caplog)
    assert message.startswith("W&B failed while finishing (TimeoutError: no answer in time)")
    assert core.wait() == -signal.SIGKILL


def test_a_missing_picture_and_table_are_one_warning_and_the_rest_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with start() as tracker:
        tracker.log_image("missing", Path("missing.png"))
        tracker.log_table("missing", Path("missing.csv"))
        tracker.log_epoch(1, {"map50": 0.1})
    [message] = warnings(caplog)
    assert message.startswith("W&B failed while logging missing.png")
    assert logged(offline_runs()[0].lines) == [{"_step": 1, "map50": 0.1}]


def test_a_folder_that_cannot_be_written_leaves_the_training_alone(caplog: pytest.LogCaptureFixture) -> None:
    Path(".wandb").write_text("a file where a folder should be")
    with start() as tracker:
        tracker.log_epoch(1, {"map50": 0.1})
    assert tracker.info.mode == "off"
    assert tracker.info.id is None
    [message] = warnings(caplog)
    assert message.startswith("W&B cannot be used (FileExistsError")
    assert message.endswith("continuing without it")
