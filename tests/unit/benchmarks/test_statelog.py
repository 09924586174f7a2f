"""Checkpoint rounds are counted only when they begin and end in the measured part."""

from __future__ import annotations

import pytest

from benchmarks._statelog import _complete
from fuseboard_schemas.records import InputRange, StateKind, StateRecord


def entry(*, starts: bool, ends: bool, chunk: int = 0) -> StateRecord:
    return StateRecord(
        format=1,
        shard=0,
        writer="w",
        sequence=1,
        chunk=chunk,
        chunks=1,
        kind=StateKind.DELTA,
        restore_from=0,
        starts_round=starts,
        ends_round=ends,
        stream_time=0,
        advanced_us=0,
        rules_version="r",
        inputs=(InputRange(topic="tool-calls", from_offset=0, next_offset=1),),
        block=b"",
    )


START, END, BOTH, NEITHER = (
    {"starts": True, "ends": False},
    {"starts": False, "ends": True},
    {"starts": True, "ends": True},
    {"starts": False, "ends": False},
)


@pytest.mark.parametrize(
    ("flags", "rounds"),
    [
        ([], 0),
        ([NEITHER, END], 0),
        ([START, NEITHER, END], 1),
        ([END, START, END, START, END, START], 2),
        ([NEITHER, BOTH, BOTH], 2),
    ],
)
def test_rounds(flags: list[dict[str, bool]], rounds: int) -> None:
    assert _complete([entry(**each) for each in flags]) == rounds


def test_the_chunks_of_one_entry_count_once() -> None:
    assert _complete([entry(**BOTH), entry(**BOTH, chunk=1)]) == 1
