"""Blocks: every value survives, no damage goes unnoticed."""

from __future__ import annotations

import random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from fuseboard_streams.core.blocks import (
    StateFormatError,
    decode,
    encode,
    pack_bytes,
    pack_text,
    unpack_bytes,
    unpack_text,
)

DTYPES = st.sampled_from(["?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f4", "<f8"])
SHAPES = st.one_of(st.tuples(st.integers(0, 12)), st.tuples(st.integers(0, 6), st.integers(1, 4)))
FEW = st.one_of(st.integers(0, 3), st.sampled_from([0, 127]))


@st.composite
def columns(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Anything; values close to each other or equal; ascending row numbers."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(hnp.arrays(draw(DTYPES), draw(SHAPES)))
    if kind == 1:
        dtype = np.dtype(draw(st.sampled_from(["<i2", "<i4", "<i8", "<u2", "<u4", "<u8"])))
        near = draw(
            hnp.arrays(np.uint64, draw(SHAPES), elements=st.integers(0, draw(st.sampled_from([0, 9, 999, 2**33]))))
        )
        base = draw(st.integers(0, 2**64 - 1))
        return (near + np.uint64(base)).astype(dtype)
    rows = draw(st.lists(st.integers(-(2**31), 2**31 - 1), unique=True, max_size=12))
    return np.array(sorted(rows), np.int32)


@given(
    arrays=st.lists(columns(), max_size=6),
    meta=st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3)),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_round_trip(arrays: list[np.ndarray[Any, Any]], meta: dict[str, Any]) -> None:
    named = [(f"t/{at}", array) for at, array in enumerate(arrays)]
    block = encode(named, meta)
    assert block == encode(named, meta)
    found, found_meta = decode(block)
    assert found_meta == meta
    assert list(found) == [name for name, _ in named]
    for name, array in named:
        got = found[name]
        assert got.dtype == array.dtype
        expected = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
        assert got.shape == expected.shape
        assert got.tobytes() == expected.tobytes()


@given(texts=st.lists(st.text(max_size=5) | st.just("\ud800")))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_texts(texts: list[str]) -> None:
    assert unpack_text(*pack_text(texts)) == texts


@given(values=st.lists(st.binary(max_size=5)))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_byte_strings(values: list[bytes]) -> None:
    assert unpack_bytes(*pack_bytes(values)) == values


def _block() -> bytes:
    rng = np.random.default_rng(1)
    named: list[tuple[str, np.ndarray[Any, Any]]] = [
        ("rows", np.array([3, 4, 9, 700], np.int32)),
        ("counts", np.array([1, 1, 2, 5], np.int64)),
        ("r", rng.random((4, 2))),
        ("same", np.full(4, 9, np.uint16)),
    ]
    return encode(named, {"tables": {"t": {"high": 4}}, "name": "ä"})


def test_every_flipped_byte_and_every_cut_is_refused() -> None:
    block = _block()
    decode(block)
    rng = random.Random(2)
    for at in range(len(block)):
        flipped = bytearray(block)
        flipped[at] ^= rng.randrange(1, 256)
        with pytest.raises(StateFormatError):
            decode(bytes(flipped))
    for length in range(len(block)):
        with pytest.raises(StateFormatError):
            decode(block[:length])
    with pytest.raises(StateFormatError):
        decode(block + b"\0")


def test_lengths_that_do_not_add_up() -> None:
    buffer, lengths = pack_text(["ab", "c"])
    for unpack in (unpack_text, unpack_bytes):
        with pytest.raises(StateFormatError, match="add up"):
            unpack(buffer, lengths[:1])
        with pytest.raises(StateFormatError, match="add up"):
            unpack(buffer[:1], lengths)
