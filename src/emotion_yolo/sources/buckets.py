"""Objects on S3 and compatible servers (set AWS_ENDPOINT_URL for another server)."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError

from emotion_yolo.errors import ArchiveError, SourceError
from emotion_yolo.progress import Progress, show_progress
from emotion_yolo.sources.archives import is_archive, safe_relative
from emotion_yolo.sources.downloads import CHUNK_BYTES, PartialFile
from emotion_yolo.sources.storage import FreeSpace, free_bytes, require_free, storage_errors

_WORKERS = 16
_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 4},
    connect_timeout=10,
    read_timeout=60,
    max_pool_connections=_WORKERS,
)


def fetch_s3(uri: str, folder: Path, *, progress: Progress = show_progress, free: FreeSpace = free_bytes) -> Path:
    """Download `s3://bucket/key.zip` to a file, or everything below `s3://bucket/prefix` to a folder; return which.

    Resumes an earlier try if the objects are still the same.

    Raises:
        SourceError: no such bucket, key or right, no credentials, or no server.
        ArchiveError: a key that leaves the folder.
        StorageError: there is no room, or the disk may not be written.
    """
    parts = urlsplit(uri, allow_fragments=False)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    if not bucket or not key:
        raise SourceError(f"{uri}: got no bucket or no key, expected s3://bucket/archive.zip or s3://bucket/folder/")
    with _s3_errors(uri), storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A session of our own: boto3's default one remembers the credentials it first found.
        client = boto3.session.Session().client("s3", config=_CONFIG)
        if is_archive(key) or key.lower().endswith(".csv"):
            return _fetch_object(client, bucket, key, folder, progress=progress, free=free)
        return _fetch_prefix(client, bucket, key.rstrip("/") + "/", folder, progress=progress, free=free)


def _fetch_object(client: Any, bucket: str, key: str, folder: Path, *, progress: Progress, free: FreeSpace) -> Path:
    part = PartialFile.of(folder, f"s3://{bucket}/{key}")
    head = client.head_object(Bucket=bucket, Key=key)
    size, etag = int(head["ContentLength"]), str(head["ETag"])
    if part.validator != etag or part.size > size:
        part.restart(etag)
    begin = part.size
    require_free([(part.path, size - begin)], free=free)
    with progress(f"Downloading {key}", total=size, unit="B", initial=begin) as bar:
        if begin < size:
            body = client.get_object(Bucket=bucket, Key=key, IfMatch=etag, Range=f"bytes={begin}-")["Body"]
            with part.path.open("ab") as out:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    out.write(chunk)
                    bar.update(len(chunk))
    return part.path


def _fetch_prefix(client: Any, bucket: str, prefix: str, folder: Path, *, progress: Progress, free: FreeSpace) -> Path:
    listing: list[tuple[str, str, int]] = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        listing += [(o["Key"], o["ETag"], int(o["Size"])) for o in page.get("Contents", ()) if o["Key"][-1] != "/"]
    if not listing:
        raise SourceError(
            f"s3://{bucket}/{prefix}: no objects there; check the address (an archive's ends in .zip or .tar.gz)"
        )
    # One folder for each state of the listing: files already there are complete and of this state.
    target = folder / hashlib.sha256(repr(sorted(listing)).encode()).hexdigest()[:12]
    missing = []
    for key, _, size in listing:
        name = safe_relative(key.removeprefix(prefix))
        if name is None:
            raise ArchiveError(f"s3://{bucket}/{key}: this key leaves the folder; do not trust this bucket")
        if not (target / name).exists():
            missing.append((key, target / name, size))
    total = sum(size for _, _, size in listing)
    absent = sum(size for _, _, size in missing)
    require_free([(target, absent)], free=free)
    title = f"Downloading {len(listing)} objects"
    with (
        progress(title, total=total, unit="B", initial=total - absent) as bar,
        ThreadPoolExecutor(_WORKERS) as pool,
    ):
        futures = [pool.submit(_fetch_whole, client, bucket, key, path) for key, path, _ in missing]
        try:
            for future, (_, _, size) in zip(futures, missing, strict=True):
                future.result()
                bar.update(size)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return target


def _fetch_whole(client: Any, bucket: str, key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    part.rename(path)


@contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        hint = {
            "403": "check the rights of your credentials",
            "AccessDenied": "check the rights of your credentials",
            "404": "check bucket and key",
            "NoSuchBucket": "check the bucket's name",
            "412": "the object changed meanwhile: repeat the command",
            "PreconditionFailed": "the object changed meanwhile: repeat the command",
        }.get(code, "check bucket, key, region and credentials")
        raise SourceError(f"{uri}: the server answered {code}; {hint}") from error
    except NoCredentialsError as error:
        raise SourceError(
            f"{uri}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run: aws configure"
        ) from error
    except EndpointConnectionError as error:
        raise SourceError(f"{uri}: {error}; check the network and AWS_ENDPOINT_URL") from error
    except BotoCoreError as error:
        raise SourceError(f"{uri}: {error}; repeat the command to resume") from error
