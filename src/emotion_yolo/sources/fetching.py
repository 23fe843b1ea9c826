"""Fetches a source of any kind to a local folder in which its sets can be found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from emotion_yolo.data.cards import DatasetCard
from emotion_yolo.errors import ArchiveError, SourceError
from emotion_yolo.paths import DOWNLOADS, SAMPLE
from emotion_yolo.progress import Progress
from emotion_yolo.sources.archives import inspect, is_archive, sha256, unpack
from emotion_yolo.sources.buckets import fetch_s3
from emotion_yolo.sources.downloads import PartialFile, fetch_url, public_url
from emotion_yolo.sources.kaggle import fetch_kaggle
from emotion_yolo.sources.storage import FreeSpace, require_free

SAMPLE_NAME = "sample"


@dataclass(frozen=True)
class Fetched:
    """A fetched source: a folder to search for sets, or one file that is a set."""

    path: Path
    where: str
    """For messages."""
    record: Mapping[str, str]
    """For data.dvc: no secrets, no absolute paths."""
    card: DatasetCard | None = None
    owned: bool = False
    """It is in `.downloads`, and may be moved instead of copied."""
    leftovers: tuple[Path, ...] = ()
    """To be removed once the data are landed."""
    beside: Path | None = None
    """The source's parent folder, in which FER+'s votes may be as well."""

    @property
    def origin(self) -> str:
        """Return its origin in a word or two."""
        return next(value for key, value in self.record.items() if key not in ("kind", "sha256"))


@dataclass(frozen=True)
class Session:
    """The context shared by all steps of one pull."""

    root: Path
    staging: Path
    cache: Path
    cards: Mapping[str, DatasetCard]
    progress: Progress
    free: FreeSpace

    @property
    def downloads(self) -> Path:
        """Return where downloads are kept until they are landed."""
        return self.root / DOWNLOADS


def fetch(source: str, session: Session) -> Fetched:
    """Fetch a source to a local folder or file; archives are unpacked in staging.

    Raises:
        SourceError: no such source, or one that cannot be fetched.
        ArchiveError: a file of another kind, or an archive that must not be unpacked.
    """
    named = session.cards.get(source)
    scheme = _scheme_of(source)
    path = Path(source).expanduser()
    if source == SAMPLE_NAME:
        if not (session.root / SAMPLE).is_dir():
            raise SourceError(f"{SAMPLE}/: the bundled sample is missing; write it with: emotion-yolo sample {SAMPLE}")
        record = {"kind": "sample", "folder": SAMPLE.as_posix()}
        return Fetched(session.root / SAMPLE, SAMPLE.as_posix(), record, named)
    if named is not None and named.kaggle is not None:
        cache = session.downloads / "kaggle"
        folder = fetch_kaggle(named, cache, free=session.free)
        record = {"kind": "kaggle", "handle": named.kaggle}
        return Fetched(folder, named.kaggle, record, named, owned=True, leftovers=(cache,))
    if scheme == "s3":
        fetched = fetch_s3(source, session.downloads, progress=session.progress, free=session.free)
        if fetched.is_dir():
            return Fetched(fetched, source, {"kind": "s3", "uri": source}, owned=True, leftovers=(fetched,))
        return _download(fetched, source, {"kind": "s3", "uri": source}, session)
    if scheme in ("http", "https"):
        fetched = fetch_url(source, session.downloads, progress=session.progress, free=session.free)
        record = {"kind": "https", "url": public_url(source)}
        return _download(fetched, public_url(source), record, session)
    if path.is_dir():
        return Fetched(path, source, {"kind": "folder", "name": path.resolve().name}, beside=path.resolve().parent)
    if path.is_file() and path.suffix.lower() in {".yaml", ".yml"}:
        return Fetched(path, source, {"kind": "folder", "name": path.resolve().stem}, beside=path.parent)
    if path.is_file() and path.suffix.lower() == ".csv":
        record = {"kind": "csv", "name": path.name, "sha256": sha256(path)}
        return Fetched(path, source, record, beside=path.parent)
    if path.is_file():
        if not is_archive(path.name):
            raise ArchiveError(
                f"{source}: got a {path.suffix or 'file without a suffix'}, expected a folder, .zip, .tar, .tar.gz, "
                ".tar.bz2, .tar.xz, .csv or a data.yaml; unpack it yourself and pull the folder"
            )
        record = {"kind": "archive", "name": path.name, "sha256": sha256(path)}
        return Fetched(_unpacked(path, session), source, record, owned=True, beside=path.parent)
    names = [SAMPLE_NAME, *(name for name, known in session.cards.items() if known.kaggle)]
    raise SourceError(
        f"{source}: no such source; expected {', '.join(names)}, a folder, an archive, a CSV, s3://bucket/key.zip, "
        "s3://bucket/folder/ or https://….zip"
    )


def _scheme_of(source: str) -> str:
    """Return the scheme of an address, in lower case; empty for a name of a file, such as `http:clip.zip`.

    Raises:
        SourceError: an address that cannot be one.
    """
    if "://" not in source:
        return ""
    try:
        parts = urlsplit(source)
        parts.port  # noqa: B018 - is parsed when it is asked for
    except ValueError as error:
        raise SourceError(f"the address cannot be read ({error}); check its host and port") from error
    return parts.scheme


def _download(file: Path, where: str, record: Mapping[str, str], session: Session) -> Fetched:
    part = PartialFile(file)
    record = {**record, "sha256": sha256(file)}
    if file.suffix.lower() == ".csv":
        return Fetched(file, where, record, leftovers=part.files)
    try:
        folder = _unpacked(file, session)
    except ArchiveError:
        part.discard()  # or the next pull would take it for a complete download
        raise
    return Fetched(folder, where, record, owned=True, leftovers=part.files)


def _unpacked(archive: Path, session: Session) -> Path:
    contents = inspect(archive)
    size = contents.unpacked_bytes
    require_free([(session.staging, size), (session.cache, size)], free=session.free)
    folder = session.staging / "unpacked"
    unpack(archive, contents, folder, progress=session.progress)
    return folder
