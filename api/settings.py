"""Settings of a deployment, from `EMOTION_…` variables. Invalid values are refused before anything starts."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from emotion_yolo.errors import SettingsError
from emotion_yolo.inference.packaged import default_model

PREFIX = "EMOTION_"
MIN_KEY_LENGTH = 16

Seconds = Annotated[float, Field(gt=0, le=600)]


class Settings(BaseSettings):
    """All settings with their defaults; each field `x` is read from the variable `EMOTION_X`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    model: Path = Field(
        default_factory=default_model,
        description="Folder of the exported model; without it, `models/release` here, else the package's own.",
    )
    backend: Literal["auto", "openvino", "onnx"] = Field(
        default="auto", description="`auto`: OpenVINO, else ONNX Runtime."
    )
    precision: Literal["auto", "f32", "bf16"] = Field(
        default="auto", description="Arithmetic of OpenVINO; `auto`: bf16 where the CPU computes in it, else f32."
    )
    imgsz: Annotated[int, Field(ge=32, le=1920, multiple_of=32)] | None = Field(
        default=None, description="Input side in px; default: the model's own."
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="Port to listen on; 0 picks a free one."
    )
    threads: Annotated[int, Field(ge=0, le=256)] = Field(
        default=0, description="Cores of one inference; 0: all. With fewer, several inferences run at once."
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(default=2, description="Pictures processed at once.")
    connections: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=512, description="Connections held at once; beyond that, the longest idle one is closed."
    )
    queue: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=32, description="Pictures that may wait; further ones get a 503."
    )

    max_bytes: Annotated[int, Field(ge=1_000, le=100_000_000)] = Field(
        default=10_000_000, description="Maximum bytes of a picture."
    )
    max_pixels: Annotated[int, Field(ge=1_000, le=200_000_000)] = Field(
        default=25_000_000, description="Maximum pixels of a picture."
    )
    memory_bytes: Annotated[int, Field(ge=1_000_000, le=64_000_000_000)] | None = Field(
        default=None,
        description="Bytes of decoded pictures and drawn answers held at once; a picture may take three quarters of "
        "it. Default: 8 for each of `EMOTION_MAX_PIXELS`.",
    )
    decode_s: Seconds = Field(
        default=0.75, description="Seconds of CPU time for decoding a picture in a separate process."
    )
    min_side: Annotated[int, Field(ge=1, le=1_000)] = Field(default=8, description="Minimum width and height in px.")
    max_side: Annotated[int, Field(ge=1_000, le=65_535)] = Field(
        default=16_384, description="Maximum width and height in px."
    )
    max_faces: Annotated[int, Field(ge=1, le=1_000)] = Field(
        default=300, description="Maximum of `max_faces` in a request."
    )
    batch_files: Annotated[int, Field(ge=1, le=256)] = Field(default=16, description="Maximum files of a batch.")
    batch_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = Field(
        default=40_000_000, description="Maximum bytes of a batch."
    )
    buffer_bytes: Annotated[int, Field(ge=1_000, le=64_000_000_000)] = Field(
        default=120_000_000, description="Bytes of all request bodies held at once; further ones get a 503."
    )

    streams: Annotated[int, Field(ge=0, le=1_000)] = Field(
        default=16, description="Streams (`/v1/stream`) held at once; 0: the path does not exist."
    )
    stream_bytes: Annotated[int, Field(ge=1_000, le=100_000_000)] = Field(
        default=2_000_000, description="Maximum bytes of a stream's frame."
    )
    stream_idle_s: Seconds = Field(default=30, description="Maximum seconds between two frames of a stream.")

    web: Path | None = Field(
        default=None,
        description="Folder written by `emotion-yolo export-web`: lets the page find faces in the browser alone.",
    )

    head_s: Seconds = Field(default=10, description="Seconds a client has for a request's head.")
    stall_s: Seconds = Field(
        default=5, description="Seconds a client may pause while it sends a body or reads an answer."
    )
    upload_s: Seconds = Field(
        default=30, description="Seconds a body may take; an answer too, unless it is read at 10 kB/s or more."
    )
    deadline_s: Seconds = Field(default=10, description="Seconds from a body's end to its answer, for each picture.")
    drain_s: Annotated[float, Field(ge=0, le=600)] = Field(
        default=0, description="Seconds between SIGTERM (`/readyz` turns 503) and closing the port."
    )
    shutdown_s: Seconds = Field(
        default=30, description="Seconds that requests in flight have after the port is closed."
    )

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="API keys, comma-separated; none: no authentication."
    )
    api_keys_file: Path | None = Field(default=None, description="File of further keys, one per line.")
    admin_key: SecretStr | None = Field(
        default=None, description="Key of `POST /admin/reload`; without it the path does not exist."
    )
    rate_per_minute: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="Pictures per minute for a key, or for an address if there are no keys; 0: no limit."
    )
    rate_burst: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=20, description="Burst of pictures within the rate."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Allowed origins, comma-separated; none: CORS off."
    )
    trusted_proxies: str = Field(
        default="", description="Proxy addresses, comma-separated, whose X-Forwarded-For is trusted; none: ignored."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum level of the logs."
    )

    log_db: Path | None = Field(
        default=None, description="SQLite file to which answers are logged, as numbers; default: no log."
    )
    log_rows: Annotated[int, Field(ge=10, le=100_000_000)] = Field(
        default=100_000, description="Pictures in that file; older ones move to Parquet files beside it."
    )
    log_bytes: Annotated[int, Field(ge=10_000_000, le=1_000_000_000_000)] = Field(
        default=500_000_000, description="Bytes of the prediction log, Parquet files included; the oldest are deleted."
    )
    log_days: Annotated[float, Field(gt=0, le=3_650)] = Field(
        default=30, description="Days after which rows of the prediction log are deleted."
    )

    shadow_model: Path | None = Field(
        default=None,
        description="Folder of a candidate model that scores answered pictures in the background; default: none.",
    )
    shadow_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="Share of the pictures that it scores, while it is idle."
    )

    keep_pictures: Path | None = Field(
        default=None, description="Folder in which pictures are kept for labelling; default: none are kept."
    )
    keep_below: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Probability of a face's emotion below which its picture is kept."
    )
    keep_days: Annotated[float, Field(gt=0, le=3_650)] = Field(
        default=7, description="Days after which kept pictures are deleted."
    )
    keep_bytes: Annotated[int, Field(ge=1_000_000, le=1_000_000_000_000)] = Field(
        default=1_000_000_000, description="Bytes of kept pictures; the oldest are deleted."
    )

    @field_validator("api_keys", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query:
                raise ValueError(f"{origin!r} is no origin; expected scheme://host[:port], such as https://example.org")
        return origins

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.batch_bytes < self.max_bytes:
            raise ValueError(f"batch_bytes ({self.batch_bytes}) is less than max_bytes ({self.max_bytes})")
        if self.buffer_bytes < self.batch_bytes:
            raise ValueError(f"buffer_bytes ({self.buffer_bytes}) is less than batch_bytes ({self.batch_bytes})")
        if self.batch_files > self.workers + self.queue:
            raise ValueError(f"a batch of {self.batch_files} files never fits into workers + queue; enlarge the queue")
        if self.min_side >= self.max_side:
            raise ValueError(f"min_side ({self.min_side}) is not below max_side ({self.max_side})")
        if self.stall_s > self.upload_s:
            raise ValueError(f"stall_s ({self.stall_s}) is more than upload_s ({self.upload_s})")
        if self.rate_per_minute > 0 and self.rate_burst < self.batch_files:
            raise ValueError(
                f"rate_burst ({self.rate_burst}) is less than batch_files ({self.batch_files}): "
                "a full batch could never pass"
            )
        return self

    @property
    def memory_budget(self) -> int:
        """Return the bytes of decoded pictures and drawn answers that may be held at once."""
        return self.memory_bytes or 8 * self.max_pixels

    @property
    def picture_memory(self) -> int:
        """Return the bytes that one picture may take."""
        return self.memory_budget * 3 // 4

    def keys(self) -> tuple[str, ...]:
        """Return the API keys of the variable and of the file.

        Raises:
            SettingsError: an unreadable or empty file, or a key too short to be one. No message holds a key.
        """
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            try:
                if not self.api_keys_file.is_file():  # reading a pipe could wait forever
                    raise OSError("it is no regular file")
                lines = self.api_keys_file.read_text("utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise SettingsError(f"{PREFIX}API_KEYS_FILE: {self.api_keys_file} cannot be read ({error})") from error
            found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
            if not found:
                raise SettingsError(
                    f"{PREFIX}API_KEYS_FILE: {self.api_keys_file} holds no key; add one, or unset the variable"
                )
            keys += found
        for number, key in enumerate(keys, start=1):
            _check_key(key, f"API key {number} of {len(keys)}")
        return tuple(keys)

    def admin_keys(self) -> tuple[str, ...]:
        """Return the administrator's key, if there is one.

        Raises:
            SettingsError: it is too short to be one.
        """
        if self.admin_key is None:
            return ()
        _check_key(self.admin_key.get_secret_value(), f"{PREFIX}ADMIN_KEY")
        return (self.admin_key.get_secret_value(),)


def _check_key(key: str, name: str) -> None:
    if len(key) < MIN_KEY_LENGTH or not all("!" <= char <= "~" for char in key):
        raise SettingsError(
            f"{name}: expected at least {MIN_KEY_LENGTH} printable ASCII characters without spaces; make one with "
            "`openssl rand -hex 24`"
        )


def load_settings(given: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings from the environment; those in `given` win.

    Raises:
        SettingsError: one line for each variable that cannot be used.
    """
    try:
        settings = Settings(**(given or {}))
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False, include_input=False):
            name = f"{PREFIX}{str(item['loc'][0]).upper()}" if item["loc"] else "settings"
            lines.append(f"{name}: {item['msg'].removeprefix('Value error, ')}; correct or unset it")
        raise SettingsError("\n".join(lines)) from error
    if not settings.keys():
        for name in (f"{PREFIX}API_KEYS", f"{PREFIX}API_KEYS_FILE"):
            if name in os.environ:
                raise SettingsError(f"{name} is set, but holds no key; unset it to serve without keys")
    return settings


def unknown_variables() -> list[str]:
    """Return a sentence for each `EMOTION_…` variable that is no setting.

    They are not refused: orchestrators add variables named after the service.
    """
    known = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    sentences = []
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.8)
            sentences.append(f"{name} is no setting" + (f"; did you mean {close[0]}?" if close else ""))
    return sentences
