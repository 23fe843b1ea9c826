"""The page as a folder that works in the browser alone, on any web host: `emotion-yolo export-web`.

ONNX Runtime for browsers (onnxruntime-web, MIT) comes from npm, at a pinned version whose files have to have known
digests. It is 14 MB, so neither git nor the wheel holds it.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from emotion_yolo.errors import ModelError, SourceError, StorageError
from emotion_yolo.inference.artefact import SPEC_NAME, checked_file, read_spec
from emotion_yolo.page import DEVICE, DEVICE_META_CSP, MARK, NETWORK, PAGE_FILES, RUNTIME, RUNTIME_FILES


def export_web(out: Path, model: Path, *, runtime: Path | None = None, overwrite: bool = False) -> list[Path]:
    """Write page, runtime and model into `out`; returns the files.

    `runtime` is npm's archive of the runtime, or the folder of the package; without it, npm fetches it from the
    registry that it is configured with.

    Raises:
        ModelError: the model is missing, damaged, or of two stages.
        SourceError: the runtime cannot be had, or is another version.
        StorageError: `out` holds something and may not be replaced.
    """
    spec = read_spec(model)
    if spec.classifier:
        raise ModelError(f"{model}: a two-stage model, which the page cannot run; name the detector it was made from")
    network = checked_file(model, spec.files["onnx"])
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise StorageError(f"{out}: is not empty; add --overwrite to replace its files, or name another folder")
    (out / "static").mkdir(parents=True, exist_ok=True)
    (out / DEVICE).mkdir(exist_ok=True)
    with _runtime_folder(runtime) as folder:
        for name, digest in RUNTIME_FILES.items():
            data = _runtime_file(folder, name)
            if sha256(data).hexdigest() != digest:
                raise SourceError(f"{folder / name}: not the file of {RUNTIME}; give --runtime that version")
            (out / DEVICE / name).write_bytes(data)
    shutil.copyfile(model / SPEC_NAME, out / DEVICE / SPEC_NAME)
    shutil.copyfile(network, out / DEVICE / NETWORK)
    static = _static_folder()
    for name in PAGE_FILES:
        shutil.copyfile(static / name, out / "static" / name)
    page = (static / "index.html").read_text("utf-8")
    page = page.replace(MARK, f"{MARK} data-device data-serverless", 1)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{DEVICE_META_CSP}">'
    page = page.replace("<head>", f"<head>\n  {policy}", 1)
    (out / "index.html").write_text(page, "utf-8")
    return sorted(path for path in out.rglob("*") if path.is_file())


def _static_folder() -> Path:
    # The service is not imported: its packages need not be installed. A checkout has it beside src/.
    package = find_spec("emotion_yolo.api")
    places = list(package.submodule_search_locations or ()) if package else []
    return Path(places[0]) / "static" if places else Path(__file__).parents[2] / "api" / "static"


@contextmanager
def _runtime_folder(given: Path | None) -> Iterator[Path]:
    """Yield a folder, or npm's archive, that should hold the runtime."""
    if given is not None:
        yield given
        return
    with TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, RUNTIME]
        advice = f"install npm and check its registry (npm ping), or fetch {RUNTIME} elsewhere and give --runtime PATH"
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise SourceError(f"npm is not installed, which fetches {RUNTIME}; {advice}") from error
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["no reason given"]
            raise SourceError(f"npm cannot fetch {RUNTIME} ({lines[0][:200]}); {advice}") from error
        yield next(Path(folder).glob("*.tgz"))


def _runtime_file(place: Path, name: str) -> bytes:
    """Return a file of the runtime from a package's folder or archive.

    Raises:
        SourceError: it is not there.
    """
    try:
        if place.is_dir():
            return (place / "dist" / name).read_bytes()
        with tarfile.open(place) as archive:
            member = archive.extractfile(f"package/dist/{name}")
            if member is None:
                raise KeyError(name)
            return member.read()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise SourceError(f"{place}: holds no dist/{name}; expected the package {RUNTIME} or its archive") from error
