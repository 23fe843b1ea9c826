"""Pictures kept for labelling, from a real service to a new data version."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import httpx2 as httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from emotion_yolo.data.sets import read_sets
from emotion_yolo.errors import StorageError
from emotion_yolo.review.exporting import export_cases
from emotion_yolo.review.folder import Case, Face, KeptFolder, read_case, read_cases
from emotion_yolo.review.keeper import Contradiction, Keeper, Seen
from tests.api.conftest import Serve, code_of, encoded, painted
from tests.api.process import Process, Start, wait_until
from tests.api.test_prediction_log import metric
from tests.api.test_shadow import loaded
from tests.builders import exported_model

ROOT = Path(__file__).parents[2]
FACE = Face((0.25, 0.25, 0.5, 0.75), "happy", 0.9, 0.95)
JPEG = encoded(Image.new("RGB", (64, 48), (90, 120, 60)), "JPEG")


def cases(folder: Path) -> list[Case]:
    return [case for case, _ in read_cases(folder)] if folder.is_dir() else []


def ask(process: Process, picture: bytes, request_id: str) -> None:
    headers = {"content-type": "image/jpeg", "x-request-id": request_id}
    assert httpx.post(f"{process.url}/v1/detect", content=picture, headers=headers).status_code == 200


def say(process: Process, request_id: str, emotion: str, face: int = 0) -> None:
    given = {"request_id": request_id, "item": 0, "face": face, "emotion": emotion}
    assert httpx.post(f"{process.url}/v1/feedback", json=given).status_code == 202


def turned() -> bytes:
    """Return the painted picture stored lying on its side, with EXIF that says so and a comment."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "secret-place"
    return encoded(painted().rotate(90), "JPEG", quality=95, exif=exif)


def test_contradicted_answers_become_a_new_data_version(start: Start, photo: bytes, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    process = start(EMOTION_KEEP_PICTURES=str(kept)).wait_ready()
    for number in range(12):
        ask(process, photo if number % 2 else turned(), f"mine-{number}")
        time.sleep(0.1)  # a person's pace: of pictures that come faster than they are encoded some are dropped
    assert cases(kept) == []  # sure answers, nobody has contradicted them
    say(process, "mine-0", "surprise")  # as the model said
    say(process, "unknown", "sad")
    for number in range(1, 12):
        say(process, f"mine-{number}", "sad")
    say(process, "mine-1", "happy", face=1)  # a second word about a picture that is kept: as the model said
    wait_until(lambda: len(cases(kept)) == 11)
    wait_until(lambda: any(len(case.feedback) == 2 for case in cases(kept)))
    process.popen.terminate()
    assert process.end() == 0
    case = next(case for case in cases(kept) if case.request_id == "mine-1")
    assert (case.reasons, case.feedback) == (["feedback"], {0: "sad", 1: "happy"})
    assert [face.emotion for face in case.faces] == ["surprise", "happy"]
    files = list(kept.iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert all(b"secret-place" not in file.read_bytes() for file in files)
    case, picture = next(pair for pair in read_cases(kept) if pair[0].request_id == "mine-2")
    pixels = cv2.imread(str(picture))
    x1, y1, x2, y2 = case.faces[0].box
    centre = pixels[int((y1 + y2) / 2 * pixels.shape[0]), int((x1 + x2) / 2 * pixels.shape[1])]
    upright = np.asarray(painted())[800, 800][::-1]  # BGR of the surprised face
    assert np.abs(centre.astype(int) - upright).max() < 30  # its box is where the face is, though it was stored turned

    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "params.yaml", project)
    shutil.copytree(ROOT / "configs/datasets", project / "configs/datasets")
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    cli = Path(sys.executable).with_name("emotion-yolo")
    run("git", "init", "-q")
    run(Path(sys.executable).with_name("dvc"), "init", "-q")
    assert "11 pictures, 12 faces with feedback" in run(cli, "review", kept, "--out", "reviewed")
    run(cli, "pull", "reviewed", "--add")
    (record,) = read_sets(project / "data.dvc").values()
    counted: dict[str, int] = {}
    for split in record.pictures.values():
        for name, count in split.items():
            counted[name] = counted.get(name, 0) + count
    assert record.boxes == "tight"
    assert counted == {"sad": 11, "happy": 1, "face": 10}


def test_unsure_answers_are_kept_and_the_shadow_contradicts(start: Start, photo: bytes, tmp_path: Path) -> None:
    exported_model(tmp_path / "candidate", box_side=16)
    process = start(
        EMOTION_KEEP_PICTURES=str(tmp_path / "kept"),
        EMOTION_KEEP_BELOW="0",
        EMOTION_SHADOW_MODEL=str(tmp_path / "candidate"),
        EMOTION_SHADOW_SHARE="1",
    ).wait_ready()
    wait_until(lambda: loaded(process), seconds=120)
    ask(process, photo, "shadowed")
    wait_until(lambda: [case.reasons for case in cases(tmp_path / "kept")] == [["shadow"]])
    process.popen.terminate()
    assert process.end() == 0


def test_nothing_is_kept_unless_it_is_asked_for(serve: Serve, photo: bytes, tmp_path: Path) -> None:
    client = serve()
    client.post("/v1/detect", files={"file": photo})
    assert client.app.state.parts.engine.keeper is None
    given = {"request_id": "a", "item": 0, "face": 0, "emotion": "sad"}
    assert code_of(client.post("/v1/feedback", json=given)) == "not_found"


def test_low_probabilities_are_kept_and_a_folder_that_cannot_be_written_costs_pictures_only(
    serve: Serve, photo: bytes, tmp_path: Path
) -> None:
    client = serve(keep_pictures=tmp_path / "kept", keep_below=1)
    client.post("/v1/detect", files={"file": photo}, headers={"x-request-id": "unsure"})
    wait_until(lambda: [case.reasons for case in cases(tmp_path / "kept")] == [["unsure"]])
    (tmp_path / "file").touch()
    client = serve(keep_pictures=tmp_path / "file" / "kept", keep_below=1)
    assert client.post("/v1/detect", files={"file": photo}).status_code == 200
    wait_until(lambda: metric(client.get("/metrics").text, 'emotion_kept_pictures_total{outcome="failed"}') == 1)


def test_the_folder_is_bounded_in_bytes_and_age(tmp_path: Path) -> None:
    folder = KeptFolder(tmp_path, days=1, max_bytes=20 * (len(JPEG) + 400))
    now = time.time_ns() // 1000
    old = Case("old", 0, "m", [FACE], ["unsure"], time_us=now - 2 * 86_400_000_000)
    folder.add(old, JPEG)
    (tmp_path / "notes.txt").write_text("not ours")
    for number in range(100):
        folder.add(Case(f"r{number}", 0, "m", [FACE], ["unsure"], time_us=now + number), JPEG)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 20 * (len(JPEG) + 400) + 2 * len(JPEG)
    folder.prune()
    left = [case.request_id for case in cases(tmp_path)]
    assert left == [f"r{number}" for number in range(100 - len(left), 100)]
    assert 5 < len(left) <= 25
    assert (tmp_path / "notes.txt").exists()
    assert folder.find("r99", 0) is not None
    assert folder.find("r9", 0) is None


def test_a_keeper_that_cannot_keep_up_drops_and_counts(tmp_path: Path) -> None:
    outcomes: list[str] = []
    keeper = Keeper(KeptFolder(tmp_path, days=1, max_bytes=10**6), below=1, on_outcome=outcomes.append)
    keeper.close()
    pixels = np.zeros((8, 8, 3), np.uint8)
    for number in range(6):
        keeper.see(pixels, Case(f"r{number}", 0, "m", [FACE]))
    assert outcomes == ["busy"] * 2
    keeper.see(np.zeros((4000, 4000, 3), np.uint8), Case("large", 0, "m", [FACE]))
    assert outcomes[2:] == ["too_large"]
    for number in range(61):
        keeper.contradict(Contradiction(f"r{number}", 0))
    assert outcomes[3:] == ["busy"]


def test_only_the_latest_pictures_are_held_in_memory(tmp_path: Path) -> None:
    keeper = Keeper(KeptFolder(tmp_path, days=1, max_bytes=10**9), below=0, on_outcome=lambda _: None)
    keeper.close()
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3)).astype(np.uint8)
    for number in range(30):
        keeper._see(Seen(Case(f"r{number}", 0, "m", [FACE]), noise))
    held = sum(len(jpeg) for _, jpeg in keeper._recent.values())
    assert held == keeper._recent_bytes <= 64_000_000
    assert ("r29", 0) in keeper._recent
    assert ("r0", 0) not in keeper._recent
    keeper._take(Contradiction("r0", 0, 0, "sad"))  # too late
    keeper._take(Contradiction("r29", 0, 7, "sad"))  # it has no such face
    assert cases(tmp_path) == []
    keeper._take(Contradiction("r29", 0, 0, "sad"))
    keeper._take(Contradiction("r29", 0))
    assert [case.reasons for case in cases(tmp_path)] == [["feedback", "shadow"]]


def test_all_are_written_with_suggestions_for_a_person(tmp_path: Path) -> None:
    folder = KeptFolder(tmp_path / "kept", days=1, max_bytes=10**6)
    folder.add(Case("a", 0, "m", [FACE, FACE], ["unsure"], time_us=1), JPEG)
    folder.add(Case("b", 0, "m", [FACE, FACE], ["feedback"], {1: "fear"}, time_us=2), JPEG)
    assert export_cases(tmp_path / "kept", tmp_path / "few") == (1, 1)
    assert export_cases(tmp_path / "kept", tmp_path / "all", unlabelled=True) == (2, 1)
    place = "0.375000 0.500000 0.250000 0.500000"
    assert (tmp_path / "few/labels/2-b-0.txt").read_text() == f"8 {place}\n3 {place}\n"
    assert (tmp_path / "all/labels/1-a-0.txt").read_text() == f"4 {place}\n4 {place}\n"
    assert (tmp_path / "all/labels/2-b-0.txt").read_text() == f"4 {place}\n3 {place}\n"
    names = yaml.safe_load((tmp_path / "all/data.yaml").read_text())["names"]
    assert (names[4], names[3], names[8]) == ("happy", "fear", "face")
    assert "2-b-0.jpg,feedback,1,happy,0.95,fear" in (tmp_path / "all/review.csv").read_text()


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="EMOTION_KEEP_PICTURES"):
        export_cases(tmp_path / "none", tmp_path / "out")
    folder = KeptFolder(tmp_path / "kept", days=1, max_bytes=10**6)
    folder.add(Case("a", 0, "m", [FACE], ["unsure"], time_us=1), JPEG)
    with pytest.raises(StorageError, match="--unlabelled"):
        export_cases(tmp_path / "kept", tmp_path / "out")
    with pytest.raises(StorageError, match="exists"):
        export_cases(tmp_path / "kept", tmp_path, unlabelled=True)
    (tmp_path / "kept/1-a-0.json").write_text('{"faces": 3}')
    with pytest.raises(StorageError, match="no case of a kept picture"):
        read_case(tmp_path / "kept/1-a-0.json")
