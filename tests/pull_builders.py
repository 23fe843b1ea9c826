"""Small data sets, archives, projects and servers for the tests of `emotion-yolo pull`."""

import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from dvc.repo import Repo

from emotion_yolo.data.cards import SPLITS

REPOSITORY = Path(__file__).parents[1]
AFFECTNET_NAMES = ("Anger", "Contempt", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")


def write_picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)


def write_crops(root: Path, *, names: Sequence[str] = AFFECTNET_NAMES, per_split: int = 3, seed: int = 0) -> Path:
    """Write crops in AffectNet's format; picture i of a split shows class i."""
    for number, split in enumerate(SPLITS):
        for part in ("images", "labels"):
            (root / split / part).mkdir(parents=True)
        for i in range(per_split):
            write_picture(root / split / "images" / f"{i}.png", seed * 1000 + number * 100 + i)
            (root / split / "labels" / f"{i}.txt").write_text(f"{i % 8} 0.499 0.499 0.999 0.999\n")
    listed = ", ".join(f'"{name}"' for name in names)
    (root / "data.yaml").write_text(f"train: train/images\nval: valid/images\nnc: {len(names)}\nnames: [{listed}]\n")
    return root


def write_scenes(root: Path, *, count: int = 2, names: Sequence[str] | None = None, seed: int = 9) -> Path:
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for i in range(count):
        write_picture(root / "images" / f"scene{i}.png", seed * 1000 + i)
        (root / "labels" / f"scene{i}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    if names is not None:
        (root / "data.yaml").write_text(f"names: {list(names)}\n")
    return root


def zip_folder(folder: Path, archive: Path, *, inside: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(folder.rglob("*")):
            zipped.write(path, f"{inside}{path.relative_to(folder)}")
    return archive


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def make_project(root: Path) -> Path:
    """Make a git and DVC repository with the dataset cards and a sample, nothing pulled yet."""
    root.mkdir(parents=True)
    git(root, "init", "-q")
    Repo.init(str(root)).close()
    shutil.copytree(REPOSITORY / "configs/datasets", root / "configs/datasets")
    shutil.copyfile(REPOSITORY / "params.yaml", root / "params.yaml")
    write_crops(root / "datasets/sample/sample", per_split=8)
    write_scenes(root / "datasets/sample/sample-scenes/all")
    (root / "datasets/sample/sample-scenes/data.yaml").write_text("names: [face]\n")
    (root / ".gitignore").write_text("/.downloads\n")
    commit(root, "begin")
    return root


def commit(root: Path, message: str) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", message)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` with its bytes; empty if there is no such folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pictures_of(folder: Path) -> dict[str, bytes]:
    """Return the pictures and label files below `folder`; a class table is written anew when a set is pulled."""
    return {name: content for name, content in files_of(folder).items() if not name.endswith("data.yaml")}


def write_fer2013(path: Path, usages: Sequence[str], *, emotions: Sequence[int] | None = None) -> Path:
    """Write a table of FER2013 with a row for each usage; pixels are noise, emotions go round if not given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["emotion,pixels,Usage"]
    for i, usage in enumerate(usages):
        pixels = " ".join(map(str, np.random.default_rng(i).integers(0, 256, 48 * 48)))
        lines.append(f"{emotions[i] if emotions else i % 7},{pixels},{usage}")
    path.write_text("\n".join(lines) + "\n")
    return path


class RecordedProgress:
    """A Progress that draws nothing, keeps what it was told, and raises `error` in the task titled `title…`."""

    def __init__(self, title: str = "\0", error: BaseException | None = None) -> None:
        self.titles: list[str] = []
        self.initials: list[int] = []
        self.done = 0.0
        self._title, self._error, self._armed = title, error, False

    def __call__(self, title: str, *, total: int | None, unit: str, initial: int = 0) -> Self:
        self.titles.append(title)
        self.initials.append(initial)
        self.total, self.unit = total, unit
        self._armed = title.startswith(self._title)
        return self

    def update(self, n: float | None = 1, /) -> None:
        self.done += n or 0
        if self._armed and self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass


class FileServer(ThreadingHTTPServer):
    """Serves one file with ranges, on loopback; its attributes are its behaviour and what it saw."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = b""
        self.etag: str | None = '"one"'
        self.ranges = True
        self.break_off_after: list[int] = []  # bytes after which each of the next answers ends early
        self.statuses: list[int] = []  # what the next answers are instead
        self.redirect_path: str | None = None  # this path redirects to the file
        self.redirect_to = ""
        self.careless = False  # ignores If-Range
        self.silent = False  # takes requests and never answers
        self.extra_headers: dict[str, str] = {}
        self.woken = threading.Event()
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, Range

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.command, self.path, wanted))
        if server.silent:
            server.woken.wait()
            self.close_connection = True
            return
        if server.statuses:
            self._answer(server.statuses.pop(0), {"Content-Length": "0"})
            return
        if server.redirect_path is not None and self.path.endswith(server.redirect_path):
            self._answer(302, {"Location": server.redirect_to, "Content-Length": "0"})
            return
        begin = 0
        if wanted and server.ranges and (server.careless or self.headers.get("If-Range", server.etag) == server.etag):
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        headers = server.extra_headers | ({"Accept-Ranges": "bytes"} if server.ranges else {})
        size = len(server.content)
        if begin >= size > 0:
            self._answer(416, headers | {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
        if server.etag is not None:
            headers["ETag"] = server.etag
        self._answer(206 if begin else 200, headers | {"Content-Length": str(size - begin)})
        end = begin + server.break_off_after.pop(0) if server.break_off_after else size
        self.wfile.write(server.content[begin:end])
        self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@contextmanager
def serving() -> Iterator[FileServer]:
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.woken.set()
            server.shutdown()
            thread.join()
