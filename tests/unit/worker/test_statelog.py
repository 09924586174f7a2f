"""Entries of the state log: cut into records, joined again, and refused when they do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_schemas.records import StateKind, StateRecord
from fuseboard_streams.core.store import Delta
from fuseboard_streams.worker.errors import WorkerError
from fuseboard_streams.worker.statelog import EntryJoiner, Journal, ranges, to_records


def journal(sequence: int = 1) -> Journal:
    inputs = ranges({"tool-calls": 3, "enforcement-acks": 0}, {"tool-calls": 9, "enforcement-acks": 0})
    return Journal(2, "fuseboard-g-1", sequence, 0, 17, 0, "builtin", inputs)


def entry(sequence: int = 1, block: bytes = b"abcdefgh", chunk: int = 3) -> list[StateRecord]:
    return to_records(journal(sequence), Delta(block, True, False), chunk)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.integers(1, 12))
def test_entries_survive_cutting_and_joining(blocks: list[bytes], chunk: int) -> None:
    records = [
        each
        for number, block in enumerate(blocks, 5)
        for each in to_records(journal(number), Delta(block, number % 2 == 0, number % 3 == 0), chunk)
    ]
    assert all(len(each.block) <= chunk for each in records)
    joiner = EntryJoiner("state [2]")
    joined = [entry for offset, each in enumerate(records) if (entry := joiner.add(each, 2 * offset)) is not None]
    joiner.finish()
    assert [each.block for each in joined] == blocks
    assert [each.head.sequence for each in joined] == list(range(5, 5 + len(blocks)))
    assert joined[0].first_offset == 0
    assert joined[-1].last_offset == 2 * (len(records) - 1)
    assert joined[0].next_offsets == {"tool-calls": 9, "enforcement-acks": 0}


def test_a_claim_has_no_block() -> None:
    (claim,) = to_records(journal(), None)
    assert (claim.kind, claim.block, claim.starts_round) == (StateKind.CLAIM, b"", False)


@pytest.mark.parametrize(
    ("records", "match"),
    [
        (entry()[1:], "chunk 1 of entry 1 without the one before"),
        ([entry()[0], *entry(2)], "a new entry before the end"),
        ([*entry(1), *entry(3)], "entry 3 after entry 1"),
        ([entry()[0], replace(entry()[1], writer="other")], "without the one before"),
        ([replace(entry()[0], kind=StateKind.OTHER)], "kind OTHER"),
        ([replace(entry()[0], format=2)], "format 2"),
        (entry()[:2], "cut off"),
    ],
)
def test_records_that_do_not_fit_are_refused(records: list[StateRecord], match: str) -> None:
    joiner = EntryJoiner("state [2]")
    with pytest.raises(WorkerError, match=match):  # noqa: PT012 - the last step may be the one that raises
        for offset, record in enumerate(records):
            joiner.add(record, offset)
        joiner.finish()
