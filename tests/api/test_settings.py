import os
from pathlib import Path

import pytest

from api.settings import Settings, load_settings, unknown_variables
from emotion_yolo.errors import SettingsError
from emotion_yolo.paths import RELEASE


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EMOTION_{name.upper()}", raising=False)


def test_the_defaults_serve_the_release_on_loopback_with_the_limits_of_the_contract() -> None:
    settings = load_settings()
    assert (settings.model, settings.host) == (RELEASE, "127.0.0.1")
    assert (settings.max_bytes, settings.max_pixels) == (10_000_000, 25_000_000)
    assert settings.cors_origins == ()
    assert settings.keys() == ()


def test_variables_set_every_kind_of_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MODEL": "models/export",
        "QUEUE": "99",
        "DEADLINE_S": "2.5",
        "API_KEYS": f"{'a' * 16}, {'b' * 16},",
        "CORS_ORIGINS": "https://example.org,http://localhost:3000",
        "IMGSZ": "320",
    }.items():
        monkeypatch.setenv(f"EMOTION_{name}", value)
    settings = load_settings()
    assert (settings.model, settings.queue, settings.deadline_s, settings.imgsz) == (
        Path("models/export"),
        99,
        2.5,
        320,
    )
    assert settings.keys() == ("a" * 16, "b" * 16)
    assert settings.cors_origins == ("https://example.org", "http://localhost:3000")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("WORKERS", "0"),
        ("QUEUE", "-1"),
        ("QUEUE", "many"),
        ("QUEUE", "2"),
        ("MAX_BYTES", "0"),
        ("MAX_BYTES", "99000000"),
        ("MAX_PIXELS", "999999999999"),
        ("MIN_SIDE", "1001"),
        ("DEADLINE_S", "0"),
        ("STALL_S", "31"),
        ("BUFFER_BYTES", "1000"),
        ("IMGSZ", "100"),
        ("BACKEND", "tensorrt"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://example.org/path"),
        ("API_KEYS", "short"),
        ("API_KEYS", "a key with spaces in it"),
        ("API_KEYS", "a-key-with-\x7f-in-it"),
        ("API_KEYS", ","),
        ("API_KEYS", "  "),
        ("API_KEYS", ""),
        ("API_KEYS_FILE", ""),
        ("API_KEYS_FILE", "/dev/zero"),
        ("API_KEYS_FILE", "/does/not/exist"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_refuses_absurd_values_and_names_the_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"EMOTION_{name}", value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    message = str(refused.value)
    assert name.lower() in message.lower() or "API key" in message
    if name == "API_KEYS":
        assert len(value) < 3 or value not in message


def test_refuses_sides_and_bursts_that_do_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_MIN_SIDE", "1000")
    monkeypatch.setenv("EMOTION_MAX_SIDE", "1000")
    with pytest.raises(SettingsError, match="min_side"):
        load_settings()
    monkeypatch.delenv("EMOTION_MIN_SIDE")
    monkeypatch.setenv("EMOTION_RATE_PER_MINUTE", "5")
    monkeypatch.setenv("EMOTION_RATE_BURST", "5")
    with pytest.raises(SettingsError, match="rate_burst"):
        load_settings()


def test_refuses_a_key_file_without_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    monkeypatch.setenv("EMOTION_API_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(SettingsError, match="holds no key"):
        load_settings()


def test_does_not_wait_for_a_key_file_that_is_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    monkeypatch.setenv("EMOTION_API_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(SettingsError, match="no regular file"):
        load_settings()


def test_refuses_a_nul_in_a_key_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"a" * 20 + b"\0\n")
    monkeypatch.setenv("EMOTION_API_KEYS_FILE", str(tmp_path / "keys"))
    with pytest.raises(SettingsError, match="API key 1 of 1"):
        load_settings()


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_PORT", "1")
    assert load_settings({"port": "2"}).port == 2
    with pytest.raises(SettingsError, match="EMOTION_PORT"):
        load_settings({"port": "many"})


def test_warns_of_a_misspelt_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION_WORKER", "3")
    assert any("EMOTION_WORKERS?" in sentence for sentence in unknown_variables())
    monkeypatch.setenv("EMOTION_ZZZZZZZZZ", "3")
    assert "EMOTION_ZZZZZZZZZ is no setting" in unknown_variables()
