"""`make setup` behind a proxy that reads TLS, as companies have them: its own authority signs every certificate."""

import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trustme

ROOT = Path(__file__).parents[2]
INDEX_HOST = "index.example"  # a reserved name: only the proxy answers for it

# A build backend of the project's own, so that nothing has to be fetched to build it.
BACKEND = """
import zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "project-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{wheel_directory}/{name}", "w") as wheel:
        info = "project-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: project\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


def wheel_of(name: str, folder: Path) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


class InterceptingProxy(ThreadingHTTPServer):
    """Answers for the host behind a CONNECT with a certificate of its own, and serves a package index (PEP 503)."""

    daemon_threads = True

    def __init__(self, wheels: list[Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(INDEX_HOST).configure_cert(self.context)
        self.wheels = {path.name: path.read_bytes() for path in wheels}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that refuse the certificate."""


class _Handler(BaseHTTPRequestHandler):
    server: InterceptingProxy

    def do_CONNECT(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.close_connection = False  # the request inside follows

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # the server knows the socket from before

    def do_GET(self) -> None:
        name = self.path.rstrip("/").rpartition("/")[2]
        wheel = f"{name}-1.0-py3-none-any.whl"
        if name in self.server.wheels:
            kind, body = "application/zip", self.server.wheels[name]
        else:
            kind, body = "text/html", f'<!DOCTYPE html><a href="/files/{wheel}">{wheel}</a>'.encode()
        found = name in self.server.wheels or wheel in self.server.wheels
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of our Makefile and two packages, the first installed by pip, the second by uv."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "Makefile", root)
    (root / "setup.py").touch()
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "project"\nversion = "1.0"\n'
    )
    (root / "requirements").mkdir()
    pins = [
        f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel_of(name, root).read_bytes()).hexdigest()}\n"
        for name in ("bypip", "byuv")
    ]
    (root / "requirements/bootstrap.txt").write_text(pins[0])
    (root / "requirements/dev.txt").write_text("".join(pins))
    subprocess.run([sys.executable, "-m", "venv", root / ".venv"], check=True)
    (root / ".venv/bin/uv").symlink_to(Path(sys.executable).with_name("uv"))  # bootstrap.txt's own package otherwise
    return root


@pytest.fixture
def proxy(project: Path) -> Iterator[InterceptingProxy]:
    with InterceptingProxy(sorted(project.glob("*.whl"))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def make_setup(project: Path, proxy: InterceptingProxy, **settings: str) -> "subprocess.CompletedProcess[str]":
    for found in (*(project / ".venv").rglob("by*.py"), *(project / ".venv").rglob("by*.dist-info/METADATA")):
        shutil.rmtree(found.parent) if found.name == "METADATA" else found.unlink()
    (project / ".venv/.installed").unlink(missing_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(project),
        "HTTPS_PROXY": proxy.url,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
        "UV_NO_CACHE": "1",
        "UV_HTTP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,  # not this machine's settings
        "PIP_USER": "1",  # which some machines set; a virtual environment refuses it
    }
    command = ["make", "setup", f"PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=project, env=environment | settings, capture_output=True, text=True)


def installed(project: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (project / ".venv").rglob("*.dist-info")} - {"pip", "setuptools"}


@pytest.mark.parametrize("where", ["PIP_CERT", "SSL_CERT_FILE", "pip.conf"])
def test_setup_trusts_the_authority_that_pip_is_told_of(
    project: Path, proxy: InterceptingProxy, tmp_path: Path, where: str
) -> None:
    certificate, index = tmp_path / "authority.pem", f"https://{INDEX_HOST}/simple"
    proxy.authority.cert_pem.write_to_path(str(certificate))
    if where == "pip.conf":
        (tmp_path / "pip.conf").write_text(f"[global]\ncert = {certificate}\nindex-url = {index}\n")
        settings = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    else:
        settings = {where: str(certificate), "PIP_INDEX_URL": index}
    done = make_setup(project, proxy, **settings)
    assert done.returncode == 0, done.stderr
    assert installed(project) == {"bypip", "byuv", "project"}


def test_setup_without_that_authority_says_where_it_is_set(project: Path, proxy: InterceptingProxy) -> None:
    done = make_setup(project, proxy, PIP_INDEX_URL=f"https://{INDEX_HOST}/simple")
    assert done.returncode == 2
    sentence = "make setup: the packages could not be installed; check the network and pip's settings"
    assert f"{sentence} (PIP_INDEX_URL; PIP_CERT behind a proxy that reads TLS)" in done.stderr
    assert installed(project) <= {"project"}
