"""Data sets on Kaggle, through kagglehub, at the version their card pins."""

import contextlib
import io
import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import requests

from emotion_yolo.data.cards import DatasetCard
from emotion_yolo.errors import ArchiveError, SourceError
from emotion_yolo.sources.storage import FreeSpace, free_bytes, require_free, storage_errors

ATTEMPTS = 3


def fetch_kaggle(card: DatasetCard, folder: Path, *, free: FreeSpace = free_bytes) -> Path:
    """Download the set of a card into `folder` and return where it was unpacked.

    kagglehub keeps its cache in `folder`, resumes there after an interruption, and checks the MD5 that Kaggle sends.

    Raises:
        SourceError: Kaggle cannot be reached, or refuses; says how to get the file by hand.
        ArchiveError: what came is no archive.
        StorageError: there is no room, or the disk may not be written.
    """
    if card.kaggle is None:
        raise SourceError(f"{card.name}: its card names no Kaggle handle; pull a folder, a zip or an address instead")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # kagglehub keeps the archive until it is unpacked.
        require_free([(folder, 2 * (card.archive_bytes or 0))], free=free)
        failures = 0
        while True:
            try:
                return _download(card.kaggle, folder)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise _refusal(card, "Kaggle cannot be reached, or the connection was lost") from error
            except requests.HTTPError as error:
                code = error.response.status_code if error.response is not None else "an error"
                raise _refusal(card, f"Kaggle answered {code}") from error
            except (zipfile.BadZipFile, ValueError) as error:
                # kagglehub would take the damaged archive for a complete download the next time.
                shutil.rmtree(folder, ignore_errors=True)
                raise ArchiveError(f"{card.kaggle}: Kaggle sent no sound archive ({error}); pull again") from error
            except OSError:
                raise
            except Exception as error:
                # kagglehub's own errors share no base class (kagglehub.exceptions).
                raise _refusal(card, f"kagglehub says: {error}") from error


def _download(handle: str, folder: Path) -> Path:
    # Imported late: it reads the environment and configures logging when it is imported.
    with _environment("KAGGLEHUB_CACHE", str(folder.absolute())):
        import kagglehub

        logging.getLogger("kagglehub").setLevel(logging.ERROR)
        with contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO()):
            return Path(kagglehub.dataset_download(handle))


def _refusal(card: DatasetCard, reason: str) -> SourceError:
    return SourceError(
        f"{card.kaggle}: {reason}. By hand: open {card.origin} in a browser, sign in, press Download, and run: "
        "emotion-yolo pull path/to/archive.zip. With a Kaggle account: set KAGGLE_API_TOKEN (kaggle.com/settings) and "
        "repeat this command; what has arrived is kept"
    )


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
