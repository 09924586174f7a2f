"""Reading JSONL: every bad line is named and skipped, every good one is kept, whatever lies between them."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_streams.records_io import Line, Problem, read_lines

GOOD = b'{"tool": "billing.refund", "seq": 1}\n'


def read(data: bytes, **options: int) -> list[Line | Problem]:
    return list(read_lines(io.BytesIO(data), "calls.jsonl", **options))


def test_objects_come_with_their_line_numbers_and_blank_lines_are_skipped() -> None:
    lines = read(b"\xef\xbb\xbf" + GOOD + b"\n   \r\n" + b'{"a": "\xc3\xa9"}')
    assert [(line.number, line.value) for line in lines if isinstance(line, Line)] == [
        (1, {"tool": "billing.refund", "seq": 1}),
        (4, {"a": "é"}),
    ]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("bad", "field", "found", "expected"),
    [
        (b'{"a": 1', None, "not JSON at column 8", "one JSON object per line"),
        (b"[", None, "JSON over several lines", "one JSON object per line; `jq -c '.[]' FILE`"),
        (b"{", None, "JSON over several lines", "one JSON object per line; `jq -c . FILE`"),
        (b"\x1f\x8b\x08\x00", None, "compressed data", "text: unpack it first"),
        (b"[1, 2]", None, "a JSON array", "one JSON object per line"),
        (b"null", None, "a JSON null", "one JSON object per line"),
        (b"true", None, "a JSON boolean", "one JSON object per line"),
        (b"12", None, "a JSON number", "one JSON object per line"),
        (b'"x"', None, "a JSON string", "one JSON object per line"),
        (b'{"a": 1}{"b": 2}', None, "not JSON at column 9: Extra data", "one JSON object per line"),
        (b'{"a": "\0"}', None, "a NUL byte at byte 8", "JSON text"),
        (b'{"a": "\xff"}', None, "byte 8 (0xff) is not UTF-8", "UTF-8 text"),
        (b'{"a": 1, "a": 2}', "a", "field `a` is there twice", "each field once"),
        (b'{"cost_usd": NaN}', None, "NaN is not a JSON number", "a finite number"),
        (b'{"ts": -Infinity}', None, "-Infinity is not a JSON number", "a finite number"),
        (b'{"ts": ' + b"9" * 5000 + b"}", None, "not a usable number", "at most 64 bits"),
        (b'{"a": ' + b"[" * 100_000, None, "nested too deeply", "a flat JSON object"),
    ],
)
def test_a_bad_line_is_named_and_its_neighbours_are_kept(
    bad: bytes, field: str | None, found: str, expected: str
) -> None:
    before, problem, after = read(GOOD + bad + b"\n" + GOOD)
    assert isinstance(before, Line)
    assert isinstance(after, Line)
    assert (before.number, after.number) == (1, 3)
    assert before.value == after.value == json.loads(GOOD)
    assert isinstance(problem, Problem)
    assert (problem.source, problem.line, problem.field) == ("calls.jsonl", 2, field)
    assert found in problem.detail
    assert expected in problem.detail.split("; expected ")[1]
    assert str(problem).startswith("calls.jsonl:2:")


def test_a_line_over_the_limit_is_skipped_and_measured() -> None:
    huge = b'{"a": "' + b"x" * 300_000 + b'"}\n'
    before, problem, after = read(GOOD + huge + GOOD, max_bytes=1_000)
    assert isinstance(before, Line)
    assert isinstance(after, Line)
    assert after.number == 3
    assert isinstance(problem, Problem)
    assert problem.detail == f"a line of {len(huge):,} bytes; expected at most 1,000 per record."


def test_a_line_of_exactly_the_limit_is_read() -> None:
    line = b'{"a": "' + b"x" * 91 + b'"}\n'
    assert len(line) == 101
    assert isinstance(read(line, max_bytes=100)[0], Line)
    assert isinstance(read(line.rstrip(), max_bytes=100)[0], Line)
    assert isinstance(read(line.rstrip() + b" ", max_bytes=100)[0], Problem)


def test_a_huge_last_line_without_an_end_is_measured_too() -> None:
    (problem,) = read(b"x" * 200_000, max_bytes=100)
    assert isinstance(problem, Problem)
    assert problem.detail == "a line of 200,000 bytes; expected at most 100 per record."


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b" ")), max_size=12))
def test_no_bytes_can_stop_the_reader_or_reach_other_lines(parts: list[bytes]) -> None:
    data = b"".join(GOOD + part + b"\n" for part in parts) + GOOD
    found = read(data)
    good = [line for line in found if isinstance(line, Line) and line.value == json.loads(GOOD)]
    assert len(good) >= len(parts) + 1
    assert [line.number for line in good][-1] == 2 * len(parts) + 1
    numbers = [item.number if isinstance(item, Line) else item.line for item in found]
    assert numbers == sorted(set(numbers))
