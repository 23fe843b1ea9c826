"""`score`: folders, patterns, manifests and stores to Parquet shards, on real files, processes and servers."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.score_kills import COMMAND, digests, kill_and_resume
from emotion_yolo.errors import DependencyError, ModelError, SourceError, StorageError
from emotion_yolo.inference.artefact import CloseUp, read_spec, write_spec
from emotion_yolo.inference.detector import Detector
from emotion_yolo.predict.run import predict
from emotion_yolo.predict.sources import Inputs
from emotion_yolo.scoring import shards
from emotion_yolo.scoring.listing import Listing, Selection
from emotion_yolo.scoring.plan import RUN_NAME, Options
from emotion_yolo.scoring.run import Result, score
from emotion_yolo.scoring.shards import shard_name
from emotion_yolo.scoring.stores import Folder, file_system
from emotion_yolo.structures.emotions import NAMES
from tests.builders import exported_model, painted, save_picture
from tests.pull_builders import serving

PICTURES = 14


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures with none, one or two faces, one that is no picture, and two other files."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES - 1):
        faces = {(0, 0): i % 8, (2, 2): (i + 3) % 8} if i % 3 == 2 else {(1, 1): i % 8} if i % 3 else {}
        save_picture(root / "ab"[i % 2] / f"{i:02}.png", painted(faces))
    (root / "a/bad.jpg").write_bytes(b"no picture")
    (root / "a/._00.png").write_bytes(b"of a system")
    (root / "a/notes.txt").write_text("no picture")
    return root


def run(source: object, out: object, model: Path, *, workers: int = 1, **choices: Any) -> Result:
    """Score with shards of 5; `choices` are of the selection or of the options."""
    of_options = {name: choices.pop(name) for name in ("imgsz", "conf", "min_face", "shard") if name in choices}
    dry_run = choices.pop("dry_run", False)
    return score(
        Selection(str(source), **choices),
        out=str(out),
        model=model,
        options=Options(**{"shard": 5} | of_options),
        workers=workers,
        dry_run=dry_run,
    )


def rows(out: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(out / "part-*.parquet").to_dicts()


def sources(out: Path) -> list[str]:
    return [row["source"] for row in rows(out)]


# What is in the files


def test_a_row_is_a_face_as_predict_answers_it(pictures: Path, model: Path, tmp_path: Path) -> None:
    result = run(pictures, tmp_path / "out", model)
    detector = Detector.load(model, threads=1)
    records = [r for source in Inputs([str(pictures)]) for r in predict(detector, source)]
    expected = [(r["source"], face) for r in records for face in r.get("detections", ())]  # type: ignore[attr-defined]
    found = [row for row in rows(tmp_path / "out") if row["face"] is not None]
    assert len(found) == len(expected) == result.faces > 8
    for row, (source, face) in zip(found, expected, strict=True):
        assert row["source"] == source
        assert row["emotion"] == face["emotion"]
        assert [row[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx(list(face["box"].values()))
        assert [row[name] for name in NAMES] == pytest.approx(list(face["probabilities"].values()))
        assert row["confidence"] == pytest.approx(face["confidence"])
        assert (row["width"], row["height"], row["bytes"]) == (96, 96, Path(source).stat().st_size)
    assert [row["face"] for row in found[:3]] == [0, 1, 0]


def test_each_picture_is_there_also_without_a_face_or_unreadable(pictures: Path, model: Path, tmp_path: Path) -> None:
    result = run(pictures, tmp_path / "out", model)
    (bad,) = [row for row in rows(tmp_path / "out") if row["error_code"]]
    assert (bad["source"], bad["error_code"], bad["x1"]) == (str(pictures / "a/bad.jpg"), "unsupported_format", None)
    assert bad["error"].startswith("cannot be decoded")
    assert len(set(sources(tmp_path / "out"))) == PICTURES == result.scored
    empty = [row for row in rows(tmp_path / "out") if row["face"] is None and not row["error_code"]]
    assert len(empty) == 5
    assert {(row["emotion"], row["width"]) for row in empty} == {(None, 96)}
    assert result.errors == {"unsupported_format": 1}
    assert result.skipped == {"hidden file": 1, "not a picture by its file name": 1}


def test_files_that_are_gone_or_cannot_be_read_are_rows(model: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(2**31 + 1)  # sparse
    manifest(tmp_path / "list.parquet", ["gone.png", "folder.png", "huge.png"])
    run(tmp_path / "list.parquet", tmp_path / "out", model)
    assert [row["error_code"] for row in rows(tmp_path / "out")] == ["not_found", "unreadable", "too_large"]


def test_a_name_that_is_not_utf_8_is_read_and_written_with_escapes(model: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "p/x.png", painted({(1, 1): 4})).rename(tmp_path / "p" / os.fsdecode(b"caf\xe9.png"))
    assert run(tmp_path / "p", tmp_path / "out", model).faces == 1
    assert sources(tmp_path / "out") == [f"{tmp_path}/p/caf\\udce9.png"]


def test_options_choose_faces(pictures: Path, model: Path, tmp_path: Path) -> None:
    assert run(pictures, tmp_path / "small", model, min_face=33).faces == 0
    assert run(pictures, tmp_path / "sure", model, conf=0.99).faces == 0


# Killed and resumed


@pytest.mark.parametrize(("workers", "kills"), [(1, 2), (2, 3)])
def test_a_run_that_is_killed_ends_as_one_that_was_not(pictures: Path, model: Path, workers: int, kills: int) -> None:
    arguments = [str(pictures), "--model", str(model), "--workers", str(workers), "--shard", "1"]
    hit, _ = kill_and_resume(arguments, kills=kills, seed=workers)
    assert sum(hit.values()) == kills


def test_two_workers_write_the_bytes_of_one(pictures: Path, model: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "one", model)
    done = run(pictures, tmp_path / "two", model, workers=2)
    assert (done.scored, done.shards) == (PICTURES, 3)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 5


def test_shards_that_are_there_are_left_alone_and_others_made_anew(
    pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(pictures, out, model)
    before = digests(out)
    (out / shard_name(1)).unlink()
    (out / ".part-000001.parquet.0.partial").write_bytes(b"PAR1 torn")
    kept = (out / shard_name(0)).stat().st_mtime_ns
    again = run(pictures, out, model)
    assert (again.done_before, again.scored) == (2, 5)
    assert digests(out) == before
    assert (out / shard_name(0)).stat().st_mtime_ns == kept
    assert "score: 14 of 14 pictures" in capsys.readouterr().err


def test_a_run_goes_on_with_the_pictures_it_began_with(model: Path, tmp_path: Path) -> None:
    for name in "bdfhj":
        save_picture(tmp_path / "p" / f"{name}.png", painted({}))
    run(tmp_path / "p", tmp_path / "out", model, shard=2)
    for shard in (1, 2):
        (tmp_path / "out" / shard_name(shard)).unlink()
    save_picture(tmp_path / "p/a.png", painted({}))
    (tmp_path / "p/h.png").unlink()
    run(tmp_path / "p", tmp_path / "out", model, shard=2)
    assert [Path(source).stem for source in sources(tmp_path / "out")] == list("bdfhj")
    assert [row["error_code"] for row in rows(tmp_path / "out")] == [None, None, None, "not_found", None]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"conf": 0.5}, "conf: 0.25 there, 0.5 now"),
        ({"limit": 3}, "limit: None there, 3 now"),
        ({"shard": 4, "min_face": 2}, "shard: 5 there, 4 now; min_face: 0 there, 2 now"),
    ],
)
def test_another_run_over_it_is_refused(
    pictures: Path, model: Path, tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    run(pictures, tmp_path / "out", model)
    before = digests(tmp_path / "out")
    with pytest.raises(StorageError, match=f"holds another run .{named}"):
        run(pictures, tmp_path / "out", model, **changed)
    assert digests(tmp_path / "out") == before


def test_the_same_network_named_in_another_way_is_another_run(pictures: Path, model: Path, tmp_path: Path) -> None:
    """The digest is that of the network alone: how it is fed and read lies in model.json."""
    run(pictures, tmp_path / "out", model)
    changed = shutil.copytree(model, tmp_path / "changed")
    spec = read_spec(changed)
    write_spec(changed, spec.model_copy(update={"close_up": CloseUp(faces=1, side=96, face=32)}))
    with pytest.raises(StorageError, match=r"close_up: None there, \{'faces': 1"):
        run(pictures, tmp_path / "out", changed)
    write_spec(changed, spec.model_copy(update={"input": spec.input.model_copy(update={"upscale_to": 64})}))
    with pytest.raises(StorageError, match="upscale_to: 4096 there, 64 now"):
        run(pictures, tmp_path / "out", changed)


def test_another_model_or_source_is_refused(pictures: Path, model: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "out", model)
    other = exported_model(tmp_path / "other", box_side=16)
    with pytest.raises(StorageError, match="model: "):
        run(pictures, tmp_path / "out", other)
    with pytest.raises(StorageError, match=r"source: .*pictures.* there, .*/a now"):
        run(pictures / "a", tmp_path / "out", model)


def test_a_run_that_cannot_be_understood_is_refused_and_other_versions_are_said(
    pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(pictures, tmp_path / "out", model)
    record = tmp_path / "out" / RUN_NAME
    content = json.loads(record.read_bytes())
    content["made_with"]["openvino"] = "2020.1"
    record.write_text(json.dumps(content))
    run(pictures, tmp_path / "out", model)
    assert "openvino 2020.1 → 20" in capsys.readouterr().err
    record.write_text("[]")
    with pytest.raises(StorageError, match="not written by score"):
        run(pictures, tmp_path / "out", model)
    (tmp_path / "out" / "plan.parquet").write_bytes(b"PAR1")
    record.write_text(json.dumps(content))
    (tmp_path / "out" / shard_name(0)).unlink()
    with pytest.raises(StorageError, match=r"plan\.parquet: damaged"):
        run(pictures, tmp_path / "out", model)


# Which pictures


def test_a_sample_is_the_same_share_each_time_and_a_limit_its_beginning(tmp_path: Path) -> None:
    manifest(tmp_path / "list.parquet", [f"{i:05}.png" for i in range(4000)])
    source = str(tmp_path / "list.parquet")
    drawn = list(Listing(Selection(source, sample=0.25)))
    assert drawn == list(Listing(Selection(source, sample=0.25)))
    assert 900 < len(drawn) < 1100
    assert set(drawn) < set(Listing(Selection(source, sample=0.5)))
    assert list(Listing(Selection(source, sample=0.25, limit=7))) == drawn[:7]


def test_a_dry_run_counts_and_writes_nothing(pictures: Path, model: Path, tmp_path: Path) -> None:
    result = run(pictures, tmp_path / "out", model, dry_run=True)
    assert (result.pictures, result.shards, result.scored) == (PICTURES, 3, 0)
    assert not (tmp_path / "out").exists()
    run(pictures, tmp_path / "out", model)
    (tmp_path / "out" / shard_name(2)).unlink()
    assert run(pictures, tmp_path / "out", model, dry_run=True).done_before == 2
    assert not (tmp_path / "out" / shard_name(2)).exists()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a/0?.png", ["00", "02", "04", "06", "08"]),
        ("*/*1.png", ["01", "11"]),
        ("**/1[02].*", ["10", "12"]),
        ("b/*", ["01", "03", "05", "07", "09", "11"]),
        ("b/01.png", ["01"]),
    ],
)
def test_patterns_and_single_pictures_name_pictures(pictures: Path, pattern: str, names: list[str]) -> None:
    assert [Path(name).stem for name in Listing(Selection(f"{pictures}/{pattern}"))] == names


def manifest(path: Path, names: list[Any], column: str = "path") -> Path:
    pq.write_table(pa.table({"n": range(len(names)), column: names}), path)
    return path


def test_a_manifest_names_pictures_relative_to_itself_absolute_or_elsewhere(pictures: Path, tmp_path: Path) -> None:
    names = ["x/1.png", str(pictures / "a/00.png"), "s3://bucket/y.png", "x/1.png"]
    listed = list(Listing(Selection(str(manifest(tmp_path / "list.parquet", names, "photo")), column="photo")))
    assert listed == [f"{tmp_path}/x/1.png", names[1], names[2], f"{tmp_path}/x/1.png"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none", "no such file or folder"),
        ("none/*.png", "none: no such folder"),
        ("other.parquet", "its columns are n, photo, expected path or url or"),
        ("gap.parquet", "row 1, column path: got None"),
        ("torn.parquet", "not a readable Parquet file"),
        ("clip.mp4", "a video, expected pictures"),
        ("**x.png", "entire path component"),
        ("https://127.0.0.1/pictures/", "web servers do not list"),
        ("nonsense://x/y", "expected a path, or s3://"),
        ("memory://none/at/all", "not found"),
    ],
)
def test_a_source_that_cannot_be_listed_is_refused(tmp_path: Path, source: str, words: str) -> None:
    manifest(tmp_path / "other.parquet", ["a"], "photo")
    manifest(tmp_path / "gap.parquet", ["a", None])
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match=words):
        list(Listing(Selection(source if "://" in source else str(tmp_path / source))))


def test_nothing_to_score_is_an_error_that_says_what_was_passed_over(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/notes.txt").write_text("")
    with pytest.raises(SourceError, match=r"no pictures \(1 skipped: not a picture by its file name\)"):
        run(tmp_path / "p", tmp_path / "out", model)
    assert not (tmp_path / "out").exists()


# Stores


@pytest.fixture
def store(s3: Any) -> Iterator[Any]:
    """Return the client of the S3 server; fsspec keeps what it knew of an earlier one."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield s3
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_is_scored_into_a_bucket(store: Any, pictures: Path, model: Path, tmp_path: Path) -> None:
    for path in pictures.rglob("*.*"):
        store.put_object(Bucket="faces", Key=f"in/{path.relative_to(pictures)}", Body=path.read_bytes())
    result = run("s3://faces/in", "s3://faces/out", model, workers=2)
    assert (result.pictures, result.errors) == (PICTURES, {"unsupported_format": 1})
    assert result.skipped == {"hidden file": 1, "not a picture by its file name": 1}
    run(pictures, tmp_path / "local", model)
    local = rows(tmp_path / "local")
    tables = [store.get_object(Bucket="faces", Key=f"out/{shard_name(i)}")["Body"].read() for i in range(3)]
    remote = pl.concat([pl.read_parquet(table) for table in tables]).to_dicts()
    assert [row["source"] for row in remote] == [row["source"].replace(str(pictures), "s3://faces/in") for row in local]
    assert [row | {"source": ""} for row in remote] == [row | {"source": ""} for row in local]

    store.delete_object(Bucket="faces", Key=f"out/{shard_name(1)}")
    again = run("s3://faces/in", "s3://faces/out", model)
    assert (again.done_before, again.scored) == (2, 5)
    assert store.get_object(Bucket="faces", Key=f"out/{shard_name(1)}")["Body"].read() == tables[1]
    assert run("s3://faces/in/*/*1.png", tmp_path / "some", model).pictures == 2
    assert run("s3://faces/in/a/02.png", tmp_path / "one", model).faces == 2


def test_a_bucket_of_more_than_a_page_is_listed_whole_and_in_order(store: Any) -> None:
    keys = [f"many/{i:04}.jpg" for i in range(1003)]
    for key in keys:
        store.put_object(Bucket="faces", Key=key, Body=b"")
    assert list(Listing(Selection("s3://faces/many/"))) == [f"s3://faces/{key}" for key in keys]
    assert list(Listing(Selection("s3://faces/many/", limit=2))) == [f"s3://faces/{key}" for key in keys[:2]]


def test_an_object_that_is_gone_is_a_row_and_a_store_that_refuses_ends_the_run(
    store: Any, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest(tmp_path / "list.parquet", ["s3://faces/none.png"])
    run(tmp_path / "list.parquet", tmp_path / "out", model)
    assert [row["error_code"] for row in rows(tmp_path / "out")] == ["not_found"]
    with pytest.raises(StorageError, match="cannot be written"):
        run(tmp_path / "list.parquet", "s3://no-such-bucket/out", model)
    monkeypatch.setattr(shards, "_PAUSE_S", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    type(file_system("s3://faces")).clear_instance_cache()
    with pytest.raises(SourceError, match=r"none\.png: cannot be read .*check credentials and network"):
        run(tmp_path / "list.parquet", tmp_path / "later", model)
    assert not (tmp_path / "later" / shard_name(0)).exists()
    with pytest.raises(SourceError, match="check address, credentials and network"):
        list(Listing(Selection("s3://faces/in")))


def test_web_addresses_are_fetched_and_a_server_that_refuses_costs_its_picture(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_PAUSE_S", 0.01)
    monkeypatch.setattr(shards, "_AHEAD", 1)
    with serving() as server:
        server.content = save_picture(tmp_path / "x.png", painted({(1, 1): 4})).read_bytes()
        server.statuses = [404, 503, 403, 403]
        names = [f"{server.address}/{i}.png" for i in range(4)]
        run(manifest(tmp_path / "list.parquet", [*names, "http://127.0.0.1:9/x.png"], "url"), tmp_path / "out", model)
    found = [(row["error_code"], row["emotion"]) for row in rows(tmp_path / "out")]
    assert found == [
        ("not_found", None),  # 404, which is final
        ("unreachable", None),  # 503, then 403
        (None, "happy"),  # 403, then the picture
        (None, "happy"),
        ("unreachable", None),  # no server
    ]


def test_any_file_system_of_fsspec_is_walked_in_order(model: Path, pictures: Path) -> None:
    memory = file_system("memory://")
    for path in pictures.rglob("*.*"):
        memory.pipe_file(f"/in/{path.relative_to(pictures)}", path.read_bytes())
    try:
        listed = list(Listing(Selection("memory://in")))
        assert listed == [
            f"memory://in/{p.relative_to(pictures)}" for p in map(Path, Listing(Selection(str(pictures))))
        ]
        assert run("memory://in", "memory://out", model).faces > 8
        assert sorted(Folder("memory://out").names())[:2] == [shard_name(0), shard_name(1)]
        with pytest.raises(ModelError):
            run("memory://in", "memory://out", pictures)
    finally:
        memory.rm("/", recursive=True)


@pytest.mark.parametrize(("address", "package", "extra"), [("gs://a/b", "gcsfs", "gs"), ("az://a/b", "adlfs", "az")])
def test_a_store_whose_package_is_missing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, address: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf"emotion-yolo\[{extra}\]"):
        list(Listing(Selection(address)))


# The command


def test_the_command_says_what_it_did(pictures: Path, model: Path, tmp_path: Path) -> None:
    arguments = [str(pictures), "--model", str(model), "--out", str(tmp_path / "out"), "--workers", "1"]
    first = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "12 faces" in first.stdout
    assert "1 could not be read: unsupported_format" in first.stdout
    assert "14 pictures in 1 shard" in first.stdout
    refused = subprocess.run([*COMMAND, *arguments, "--conf", "0.4"], capture_output=True, text=True)
    assert refused.returncode == StorageError.exit_code
    assert "holds another run (conf: 0.25 there, 0.4 now)" in refused.stderr
