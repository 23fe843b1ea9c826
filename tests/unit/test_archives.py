import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_yolo.errors import ArchiveError, StorageError
from emotion_yolo.sources.archives import inspect, is_archive, safe_relative, sha256, unpack
from tests.pull_builders import RecordedProgress, files_of


def archive_of(path: Path, entries: dict[str, bytes | str], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as zipped:
        for name, content in entries.items():
            zipped.writestr(name, content)
    return path


def tar_of(path: Path, entries: dict[str, bytes], *, mode: str) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def unpack_all(archive: Path, folder: Path) -> dict[str, bytes]:
    unpack(archive, inspect(archive), folder, progress=RecordedProgress())
    return files_of(folder)


def test_unpacks_every_file_and_counts_its_bytes(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"a/b.txt": "12345", "c.txt": "678", "empty/": ""})
    progress = RecordedProgress()
    contents = inspect(archive)
    unpack(archive, contents, tmp_path / "out", progress=progress)
    assert files_of(tmp_path / "out") == {"a/b.txt": b"12345", "c.txt": b"678"}
    assert (contents.unpacked_bytes, progress.total, progress.done) == (8, 8, 8)


def test_leaves_out_what_macos_adds(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"__MACOSX/._a": "x", "set/.DS_Store": "x", "set/a.txt": "a"})
    assert unpack_all(archive, tmp_path / "out") == {"set/a.txt": b"a"}


@pytest.mark.parametrize(
    "name",
    ["../escaped.txt", "a/../../escaped.txt", "/escaped.txt", "C:/escaped.txt", "./C:/escaped.txt", "..\\escaped.txt"],
)
def test_refuses_an_entry_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    archive = archive_of(tmp_path / "a.zip", {"fine.txt": "x", name: "x"})
    with pytest.raises(ArchiveError, match="leaves the folder"):
        unpack_all(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refuses_a_name_with_a_hidden_end(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"a.txtXb": "x"})
    archive.write_bytes(archive.read_bytes().replace(b"a.txtXb", b"a.txt\0b"))
    with pytest.raises(ArchiveError, match="leaves the folder"):
        inspect(archive)


@pytest.mark.parametrize(("kind", "word"), [(stat.S_IFLNK, "symbolic link"), (stat.S_IFCHR, "special file")])
def test_refuses_entries_that_are_no_plain_files(tmp_path: Path, kind: int, word: str) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match=f"'link' is a {word}"):
        inspect(tmp_path / "a.zip")


def test_refuses_an_entry_that_is_a_decompression_bomb(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "bomb.zip", {"zeros.bin": bytes(20_000_000)})
    with pytest.raises(ArchiveError, match=r"'zeros\.bin' would unpack from .* to 20000000 bytes"):
        inspect(archive)


def test_refuses_many_small_entries_that_are_a_bomb_together(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "bomb.zip", {f"{i}.bin": bytes(990_000) for i in range(30)})
    with pytest.raises(ArchiveError, match=r"would unpack to \d+ or more, over 100 times as much"):
        inspect(archive)


def test_takes_small_entries_that_pack_well(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"label.txt": "0 0.5 0.5 1 1\n" * 10_000})
    assert unpack_all(archive, tmp_path / "out")["label.txt"].count(b"\n") == 10_000


def test_refuses_more_entries_than_any_set_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_yolo.sources.archives.MAX_ENTRIES", 2)
    archive = archive_of(tmp_path / "a.zip", {"a": "", "b": "", "c": ""})
    with pytest.raises(ArchiveError, match="3 entries, expected at most 2"):
        inspect(archive)


def test_refuses_a_name_that_comes_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a.txt", "1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            zipped.writestr("a.txt", "2")
    with pytest.raises(ArchiveError, match=r"'a\.txt' comes twice"):
        inspect(tmp_path / "a.zip")


def test_refuses_an_encrypted_entry(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"a.txt": "1"}, compression=zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="is encrypted"):
        inspect(archive)


@pytest.mark.parametrize("entries", [{}, {"only/folders/": ""}, {"__MACOSX/a": "x"}])
def test_refuses_an_empty_archive(tmp_path: Path, entries: dict[str, str]) -> None:
    with pytest.raises(ArchiveError, match="the archive is empty"):
        inspect(archive_of(tmp_path / "a.zip", dict(entries)))


@pytest.mark.parametrize("content", [b"", b"<html>sign in</html>", b"PK\x03\x04 and nothing else"])
def test_refuses_what_is_no_zip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged or no zip archive"):
        inspect(tmp_path / "a.zip")


def test_refuses_a_truncated_archive(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"a.txt": "x" * 5000})
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(ArchiveError, match="damaged or no zip archive"):
        inspect(archive)


def test_verifies_the_checksum_of_each_entry(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"a.txt": "precious"}, compression=zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"precious", b"damaged!"))
    with pytest.raises(ArchiveError, match="Bad CRC-32"):
        unpack_all(archive, tmp_path / "out")


def test_refuses_an_unknown_way_of_packing(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"a.txt": "1"}, compression=zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 99
    content[8] = 99
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="packed in an unknown way"):
        unpack_all(archive, tmp_path / "out")


def test_says_when_the_archive_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone\.zip"):
        inspect(tmp_path / "gone.zip")


def test_says_when_a_file_is_where_a_folder_has_to_be(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"folder/a.txt": "1"})
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(StorageError, match="move what is in the way"):
        unpack_all(archive, tmp_path / "out")


@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_is_an_archive_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: float, value: int
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    original = {"a/one.txt": b"one " * 50, "a/two.txt": b"two"}
    archive = archive_of(folder / "a.zip", dict(original))
    content = bytearray(archive.read_bytes())
    content[int(position * len(content))] = value
    archive.write_bytes(content)
    try:
        unpacked = unpack_all(archive, folder / "out")
    except ArchiveError:
        return
    assert set(unpacked.values()) <= set(original.values())


@given(st.text(alphabet="ab./\\:", min_size=1, max_size=12))
def test_a_safe_name_stays_below_its_folder(name: str) -> None:
    path = safe_relative(name)
    if path is not None:
        assert (Path("/some/folder") / path).resolve().is_relative_to("/some/folder")
        assert not path.is_absolute()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_unpacks_tar_archives(tmp_path: Path, mode: str) -> None:
    archive = tar_of(tmp_path / f"a.tar{mode[1:].replace(':', '.')}", {"set/a.txt": b"12345", "b.txt": b"6"}, mode=mode)
    assert is_archive(archive.name)
    progress = RecordedProgress()
    contents = inspect(archive)
    unpack(archive, contents, tmp_path / "out", progress=progress)
    assert files_of(tmp_path / "out") == {"set/a.txt": b"12345", "b.txt": b"6"}
    assert (contents.unpacked_bytes, progress.done) == (6, 6)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("../evil.txt", tarfile.REGTYPE, "leaves the folder"),
        ("/evil.txt", tarfile.REGTYPE, "leaves the folder"),
        ("link", tarfile.SYMTYPE, "'link' is a link"),
        ("hard", tarfile.LNKTYPE, "'hard' is a link"),
        ("pipe", tarfile.FIFOTYPE, "'pipe' is a special file"),
    ],
)
def test_refuses_entries_of_a_tar_that_are_no_plain_files_below_it(
    tmp_path: Path, name: str, kind: bytes, words: str
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(ArchiveError, match=words):
        inspect(tmp_path / "a.tar")


def test_refuses_a_tar_that_is_a_bomb_before_it_is_read_to_the_end(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", {"zeros.bin": bytes(20_000_000)}, mode="w:gz")
    with pytest.raises(ArchiveError, match="as a decompression bomb does"):
        inspect(archive)


@pytest.mark.parametrize("cut", [10, 200])
def test_refuses_a_damaged_tar(tmp_path: Path, cut: int) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", {"a.bin": bytes(range(256)) * 400}, mode="w:gz")
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(ArchiveError, match="damaged or no tar archive"):
        unpack_all(archive, tmp_path / "out")


def test_takes_backslashes_for_slashes(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"set\\empty\\": "", "set\\a.txt": "a"})
    assert unpack_all(archive, tmp_path / "out") == {"set/a.txt": b"a"}


def test_takes_backslashes_of_a_tar_for_slashes(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", {"set\\a.txt": b"a"}, mode="w")
    assert unpack_all(archive, tmp_path / "out") == {"set/a.txt": b"a"}


def test_takes_times_of_day_in_names(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", {"2024-01-01T10:20:30/a.jpg": "a"})
    assert unpack_all(archive, tmp_path / "out") == {"2024-01-01T10:20:30/a.jpg": b"a"}


def test_hashes_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
