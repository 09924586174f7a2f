"""Packed values, and what is known of text that is not read."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fuseboard_schemas import wire
from fuseboard_schemas.codec import writer_of
from fuseboard_schemas.columnar import Values, _container
from fuseboard_schemas.layouts import layout_of
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_schemas.screening import Screen, high_bytes
from tests.support.damage import ENCODERS, call


def test_joined_values_are_those_of_their_parts_one_after_the_other() -> None:
    several: list[list[bytes | None]] = [[b"a", b"", b"bcd"], [None], [b"", b""], [], [b"e" * 300, None, b"f"]]
    joined = Values.joined([Values.of(each) for each in several])
    flat = [value for each in several for value in each]
    assert len(joined) == len(flat)
    assert joined.unpacked() == flat
    assert joined.some(range(len(flat))) == flat
    assert joined.some([8, 0, 3]) == [b"f", b"a", None]
    assert Values.joined([Values.of([b"a"]), Values.of([b"b"])]).missing is None


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 64, 300_000])
def test_bytes_above_127_are_counted(length: int) -> None:
    data = np.random.default_rng(length).integers(0, 256, length + 3, dtype=np.uint8)
    assert high_bytes(data, 1, 1 + length) == int((data[1 : 1 + length] > 127).sum())


def screened(values: list[bytes]) -> bool:
    layout = layout_of(writer_of(wire.schema_id(values[0]), "ToolCall", PackagedResolver()), "ToolCall")
    assert layout is not None
    blob, starts, ends = _container(layout, Values.of(values))
    screen = Screen(blob, starts + wire.HEADER_LENGTH, ends)
    assert screen.plain(layout.steps).all()
    return screen.ascii_only(layout.header, layout.steps)


def test_text_is_known_to_be_ascii_whatever_the_numbers_are() -> None:
    rng = random.Random(1)
    every = [call(rng) for _ in range(3_000)]
    plain = [value for value in every if "é".encode() not in value]
    assert 300 < len(plain) < len(every)
    assert screened(plain)
    assert not screened([*plain, next(value for value in every if "é".encode() in value)])


def test_one_byte_in_a_field_that_is_not_read_is_enough() -> None:
    fields = {"event_id": "e", "ts": 1_767_225_600_000_000, "tenant": "t", "actor": "a", "client_id": -(1 << 63),
              "tool": "x", "effect": "READ", "outcome": "OK", "denied_by": "NONE"}  # fmt: skip
    values = [ENCODERS["ToolCall"].encode({**fields, "intent": "plain"}) for _ in range(100)]
    assert screened(values)
    assert not screened([*values[:-1], values[-1].replace(b"plain", b"pl\xffin")])
