"""Resumable downloads over HTTPS."""

import hashlib
import json
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

import requests

from emotion_yolo.errors import SourceError
from emotion_yolo.progress import Progress, show_progress
from emotion_yolo.sources.storage import FreeSpace, free_bytes, require_free, storage_errors

CHUNK_BYTES = 1 << 18
ATTEMPTS = 3
_PAUSE_SECONDS = 0.3
_TIMEOUT_SECONDS = (10, 60)  # to connect, between bytes


@dataclass(frozen=True)
class PartialFile:
    """A file on its way: what has arrived, and beside it which version of the original that belongs to."""

    path: Path

    @classmethod
    def of(cls, folder: Path, address: str) -> "PartialFile":
        """Return the partial file of an address; every address has its own."""
        digest = hashlib.sha256(address.encode()).hexdigest()[:12]
        return cls(folder / f"{digest}-{base_name(address)}")

    @property
    def size(self) -> int:
        """Return the bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """Return the ETag or date of the original that the bytes come from, or None if they are of no use."""
        try:
            value = json.loads(self._note.read_text("utf-8"))["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return value if isinstance(value, str) else None

    def restart(self, validator: str | None) -> None:
        """Forget what has arrived and remember the version that follows."""
        self.path.unlink(missing_ok=True)
        self._note.write_text(json.dumps({"validator": validator}), "utf-8")

    @property
    def files(self) -> tuple[Path, Path]:
        """Return all files on disk of this download."""
        return self.path, self._note

    def discard(self) -> None:
        """Remove what has arrived."""
        for file in self.files:
            file.unlink(missing_ok=True)

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")


def fetch_url(url: str, folder: Path, *, progress: Progress = show_progress, free: FreeSpace = free_bytes) -> Path:
    """Download `url` into `folder`, resuming an earlier try if the original is still the same.

    Raises:
        SourceError: the address is not secure, or the server cannot be reached or refuses.
        StorageError: there is no room, or the disk may not be written.
    """
    _require_secure(url)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = PartialFile.of(folder, url)
        failures = 0
        while True:
            before = part.size
            try:
                if _go_on(url, part, progress=progress, free=free):
                    return part.path
            except requests.RequestException as error:
                failures = 1 if part.size > before else failures + 1
                if failures >= ATTEMPTS:
                    raise SourceError(
                        f"{public_url(url)}: cannot be downloaded ({_reason(error)}) after {part.size} bytes; check "
                        "the network and repeat the command to resume; or download the file in a browser "
                        "and run: emotion-yolo pull path/to/file.zip"
                    ) from error
                time.sleep(_PAUSE_SECONDS * failures)


def _go_on(url: str, part: PartialFile, *, progress: Progress, free: FreeSpace) -> bool:
    """Request the missing bytes and write them; False if the server has another version: fetch all again."""
    headers = {"Accept-Encoding": "identity"}
    begin, validator = part.size, part.validator
    if begin and validator:
        headers |= {"Range": f"bytes={begin}-", "If-Range": validator}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
        _require_secure(response.url)
        content_range = response.headers.get("Content-Range", "")
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            # Nothing is left to send: the file is complete, unless its original has another length by now.
            if content_range == f"bytes */{begin}":
                return True
            part.restart(None)
            return False
        _require_success(url, response)
        if response.status_code == requests.codes.partial_content:
            if not content_range.startswith(f"bytes {begin}-") or _validator(response) not in (None, validator):
                part.restart(None)
                return False
        else:
            begin = 0
            part.restart(_validator(response))
        length = response.headers.get("Content-Length")
        missing = int(length) if length is not None else None
        require_free([(part.path, missing or 0)], free=free)
        total = begin + missing if missing is not None else None
        with (
            progress(f"Downloading {base_name(url)}", total=total, unit="B", initial=begin) as bar,
            part.path.open("ab") as out,
        ):
            for chunk in response.iter_content(CHUNK_BYTES):
                out.write(chunk)
                bar.update(len(chunk))
    return True


def base_name(address: str) -> str:
    """Return the last part of an address's path, fit for a file's name."""
    name = PurePosixPath(unquote(urlsplit(address).path)).name
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)[-80:] or "download"


def public_url(url: str) -> str:
    """Return `url` without what may be secret: user, password, query (signatures of pre-signed addresses)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return urlunsplit((parts.scheme, f"{host}:{parts.port}" if parts.port else host, parts.path, "", ""))


def _validator(response: requests.Response) -> str | None:
    """Return what If-Range may name: a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _require_success(url: str, response: requests.Response) -> None:
    code = response.status_code
    if code >= 500 or code == requests.codes.too_many_requests:
        response.raise_for_status()
    if code >= 400:
        hint = {401: "sign in", 403: "ask for access", 404: "check the address", 410: "look for its new address"}
        raise SourceError(
            f"{public_url(url)}: the server answered {code} {response.reason}; {hint.get(code, 'check the address')}, "
            "or download the file in a browser and run: emotion-yolo pull path/to/file.zip"
        )


def _require_secure(url: str) -> None:
    """Refuse plain HTTP beyond this machine: anyone on the way could change the archive."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        raise SourceError(f"{public_url(url)}: got a {parts.scheme} address, expected https")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(error: requests.RequestException) -> str:
    """Return the cause that the libraries below have wrapped, in a few words."""
    if isinstance(error, requests.HTTPError):
        return str(error).split(" for url:")[0]
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    return "no connection, or it was lost"
