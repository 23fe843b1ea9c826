"""FER2013's table: any damage is a row with a reason, and never an exception."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from emotion_yolo.sources.layouts.fer2013 import BadRow, Row, read_rows

GOOD = " ".join(["128"] * 2304)

counts = st.sampled_from([2303, 2305, 0, 1])
pixels = st.one_of(
    counts.map(lambda count: (" ".join(["7"] * count), f"pixels: got {count:,} numbers, expected 2,304")),
    st.integers(256, 10**30).map(lambda value: (f"{value} {GOOD[4:]}", "expected numbers from 0 to 255")),
    st.sampled_from(["-1", "x", "1.5", "nan", "1e2", "0x10", "--"]).map(
        lambda word: (f"{word} {GOOD[4:]}", "expected numbers from 0 to 255")
    ),
)
emotions = st.sampled_from(["7", "-1", "", "happy", "00", "1.0", "6 6"])
usages = st.sampled_from(["", "Test", "training", "Training Set"])
bad_rows = st.one_of(
    pixels.map(lambda pair: (f"0,{pair[0]},Training", pair[1])),
    emotions.map(lambda emotion: (f"{emotion},{GOOD},Training", "emotion: got")),
    usages.map(lambda usage: (f"0,{GOOD},{usage}", "Usage: got")),
    st.sampled_from(["0", f"0,{GOOD}", GOOD]).map(lambda line: (line, "fields, expected 3")),
    st.just((f"0,{'1' * 70_000},Training", "got over 65,536 bytes in a row")),
)
good_rows = st.integers(0, 6).map(lambda emotion: (f"{emotion},{GOOD},PublicTest", None))


@given(
    rows=st.lists(good_rows | bad_rows, max_size=5),
    header=st.sampled_from(["emotion,pixels,Usage", "\ufeffemotion,pixels,Usage", 'emotion, pixels," Usage"']),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_each_row_is_taken_or_refused_by_its_line_with_what_was_got(
    rows: list[tuple[str, str | None]], header: str, end: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_bytes(end.join([header, *(line for line, _ in rows), ""]).encode())
        read = list(read_rows(path))
    assert len(read) == len(rows)
    for number, (row, (_, reason)) in enumerate(zip(read, rows, strict=True), start=2):
        if reason is None:
            assert isinstance(row, Row)
            assert row.pixels == bytes([128]) * 2304
            assert row.split == "valid"
        else:
            assert isinstance(row, BadRow)
            assert row.line == number
            assert reason in row.reason


@given(st.binary(max_size=400))
def test_any_bytes_after_the_header_are_rows_and_never_an_exception(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_bytes(b"emotion,pixels,Usage\n" + content)
        assert all(isinstance(row, BadRow) for row in read_rows(path))
