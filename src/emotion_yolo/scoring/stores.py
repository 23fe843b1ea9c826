"""Where pictures are read from and results written to: local paths, and addresses that fsspec knows."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from emotion_yolo.errors import DependencyError, EmotionYoloError, SourceError, StorageError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "http": "score"}
WEB = ("http://", "https://")


def is_remote(address: str) -> bool:
    """Return whether it is an address, `scheme://…`, and no local path."""
    return "://" in address


def absolute(address: str) -> str:
    """Return an absolute path, or an address as it is: runs are resumed from other folders and processes."""
    return address if is_remote(address) else str(Path(address).absolute())


def file_system(address: str) -> Any:
    """Return fsspec's file system for an address; it is made once per process.

    Raises:
        SourceError: a scheme that fsspec does not know.
        DependencyError: its package is not installed.
    """
    import fsspec

    scheme = address.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False}
    if address.startswith(WEB):
        import aiohttp

        options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=60)}
    try:
        return fsspec.filesystem(scheme, **options)
    except ValueError as error:
        raise SourceError(f"{address}: {error}; expected a path, or s3://, gs://, az:// or https://") from error
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        advice = f"pip install 'emotion-yolo[{extra}]'" if extra else str(error)
        raise DependencyError(f"{address}: the package for {scheme}:// is not installed; {advice}") from error


@contextmanager
def source_errors(address: str) -> Iterator[None]:
    """Turn the exceptions of a store's library into a SourceError.

    Raises:
        SourceError: the store did not answer, or refused.
    """
    try:
        yield
    except EmotionYoloError:
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{address}: not found; check the address") from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise SourceError(f"{address}: cannot be read ({what}); check address, credentials and network") from error


class Folder:
    """A folder of results, local or remote, in which a file appears whole or not at all."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/") or "/"
        self._remote = file_system(address) if is_remote(address) else None

    def names(self) -> Iterator[str]:
        """Yield the names of the files in it; none if there is no such folder.

        Raises:
            StorageError: it cannot be listed.
        """
        with self._errors("listed"):
            if self._remote is not None:
                try:
                    listed = self._remote.ls(self.address, detail=False)
                except FileNotFoundError:
                    listed = []
                yield from (path.rstrip("/").rpartition("/")[2] for path in listed)
            elif os.path.isdir(self.address):  # noqa: PTH112  as scandir: names by the million
                with os.scandir(self.address) as entries:
                    yield from (entry.name for entry in entries)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, None if there is none.

        Raises:
            StorageError: it cannot be read.
        """
        with self._errors("read"):
            try:
                if self._remote is not None:
                    data: bytes = self._remote.cat_file(self._path(name))
                    return data
                return Path(self._path(name)).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically and durably; it replaces one of that name.

        Raises:
            StorageError: it cannot be written.
        """
        with self._errors("written"):
            if self._remote is not None:
                self._remote.pipe_file(self._path(name), data)  # an object appears when its upload has ended
                return
            with self._partial(name) as partial, partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def writing(self, name: str) -> Iterator[Any]:
        """Open a file for a stream of bytes; it appears under its name if the block ends without an error.

        Raises:
            StorageError: it cannot be written.
        """
        with self._errors("written"):
            if self._remote is not None:
                file = self._remote.open(self._path(name), "wb")
                try:
                    yield file
                except BaseException:
                    file.discard()
                    raise
                file.close()
                return
            with self._partial(name) as partial, partial.open("xb") as local:
                yield local
                local.flush()
                os.fsync(local.fileno())

    def open(self, name: str) -> Any:
        """Open a file for reading at any place.

        Raises:
            StorageError: it cannot be opened.
        """
        with self._errors("read"):
            return (
                self._remote.open(self._path(name), "rb") if self._remote is not None else open(self._path(name), "rb")
            )

    def sweep(self) -> None:
        """Delete what killed runs have left half-written."""
        if self._remote is None:
            for name in list(self.names()):
                if name.endswith(".partial"):
                    Path(self._path(name)).unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        return f"{self.address}/{name}"

    @contextmanager
    def _partial(self, name: str) -> Iterator[Path]:
        """Yield a unique path, since a worker that was taken for dead may still write the same file."""
        final = Path(self._path(name))
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{name}.{uuid4().hex}.partial")
        try:
            yield partial
            try:
                partial.replace(final)
            except FileNotFoundError:  # swept by a run that has finished, and so has this file
                if not final.exists():
                    raise
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (EmotionYoloError, GeneratorExit):
            raise
        except Exception as error:
            why = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
            message = f"{self.address}: cannot be {what} ({why}); check the address and the rights, free space"
            raise StorageError(message) from error
