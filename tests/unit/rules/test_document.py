"""A rules file as YAML 1.2: what is read, where it stands, and what is refused with its place."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_streams.rules.document import MAX_BYTES, Document, RulesError, dotted, plain_scalar, read


def refusal(text: str | bytes) -> str:
    with pytest.raises(RulesError) as caught:
        read(text.encode() if isinstance(text, str) else text, "f.yaml")
    return str(caught.value)


def test_values_are_those_of_yaml_1_2_and_know_their_lines() -> None:
    text = (
        "version: 1\nbreakers:\n  on:\n    trip: 1e4\n    windows: [5%/5m/30s,\n      no]\n  'null': {a: null, b: 0x1F}"
    )
    found = read(text.encode(), "f.yaml")
    assert found.content == {
        "version": 1,
        "breakers": {"on": {"trip": 1e4, "windows": ["5%/5m/30s", "no"]}, "null": {"a": None, "b": 31}},
    }
    assert found.line_of(("breakers", "on", "windows", 1)) == 6
    assert found.line_of(("breakers", "on", "missing")) == 3
    assert str(found.problem(("breakers", "on", "windows", 1), "is no window.")) == (
        "f.yaml:6: breakers.on.windows[1]: is no window."
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e4", 1e4), (".5", 0.5), ("-3", -3), ("0o17", 15), ("017", 17), ("yes", "yes"), ("off", "off"), ("~", None),
        ("1_000", "1_000"), ("12:30", "12:30"), ("2026-11-23", "2026-11-23"), ("TRUE", True), ("tRue", "tRue"),
        ("9" * 31, float("9" * 31)),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    assert plain_scalar(text) == value
    assert type(plain_scalar(text)) is type(value)


def test_quoted_scalars_stay_text() -> None:
    assert read(b"a: '1'\nb: \"true\"\nc: |\n  5\n", "f").content == {"a": "1", "b": "true", "c": "5\n"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "f.yaml: the file is empty; expected `version: 1`"),
        ("- 1", "f.yaml: the file is no table"),
        ("a: &x 1\nb: *x", "f.yaml:1: anchors (&) and aliases (*) are not read"),
        ("a: 1\nb: {c: 1,\n c: 2}", "f.yaml:3: b.c: the key stands twice, on line 2 too"),
        ("a:\n  b: !!python/object:os.system x", "f.yaml:2: the tag tag:yaml.org,2002:python/object:os.system is not"),
        ("a: !mine 1", "f.yaml:1: the tag !mine is not read"),
        ("a: 1\nb: .inf", "f.yaml:2: b: .inf is no finite number"),
        ("a: 1\n---\nb: 2", "f.yaml:2: this is no YAML: expected a single document"),
        ("a: [1", "f.yaml:1: this is no YAML: while parsing a flow sequence"),
        ("? [1]\n: 2", "f.yaml:1: a key is no text"),
        ("a: \x00", "f.yaml: this is no YAML: unacceptable character"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    assert refusal(text).startswith(says)


def test_bytes_that_are_no_text_and_files_that_are_too_long() -> None:
    assert refusal(b"a: 1\nb: \xff") == "f.yaml:2: this is no UTF-8; save the file as UTF-8."
    assert (
        refusal(b"#" * (MAX_BYTES + 1)) == f"f.yaml: the file has {MAX_BYTES + 1} bytes; at most {MAX_BYTES} are read."
    )


@pytest.mark.parametrize("opening", ["a: [", "{a: ", "[", "- "])
def test_depth_is_bounded(opening: str) -> None:
    closing = {"a: [": "]", "{a: ": "}", "[": "]"}.get(opening, "")
    body = "a: " + "[" * 400 + "]" * 400 if opening == "a: [" else opening * 400 + "1" + closing * 400
    assert "f.yaml" in refusal(body)


def test_the_number_of_values_is_bounded() -> None:
    assert "too many values" in refusal("a: [" + "1," * 60_000 + "]")


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(RulesError):
        assert isinstance(read(data, "f"), Document)


def test_paths_as_people_write_them() -> None:
    assert dotted(("breakers", "x", "ladder", 1, "action")) == "breakers.x.ladder[1].action"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "a:\n  b: ["])
def test_deep_nesting_is_refused_where_it_begins_to_be_deep(opening: str) -> None:
    """Before anything is built: building fifty thousand levels would take minutes."""
    depth = 50_000 if opening == "[" else 100
    text = "version: 1\nbreakers:\n  " + opening * depth
    if opening.startswith("a"):
        text = "\n".join("  " * level + "a:" for level in range(100))
    assert "nested too deeply" in refusal(text)
    assert "f.yaml:" in refusal(text)
