"""Arrays out of messages, without asking each message where it need not be asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_streams.worker.errors import WorkerError
from fuseboard_streams.worker.source import Arrived, arrived, offsets_of, runs_of


def messages(offsets: list[tuple[int, int]]) -> list[Message]:
    return [Message(topic="t", partition=partition, offset=offset) for partition, offset in offsets]


RUNS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(1, 4), min_size=1, max_size=6)), min_size=1, max_size=12
)


@given(RUNS)
def test_runs_and_offsets_are_those_of_the_messages(runs: list[tuple[int, list[int]]]) -> None:
    position = dict.fromkeys(range(4), 0)
    expected: list[tuple[int, int]] = []
    for partition, steps in runs:
        for step in steps:
            # A step above one is a gap: a transaction's marker, or a record that was compacted away.
            position[partition] += step
            expected.append((partition, position[partition]))
    partition = np.array([each for each, _ in expected], np.int32)

    found = runs_of(partition)
    offsets = offsets_of(messages(expected), found)

    assert offsets.tolist() == [offset for _, offset in expected]
    assert [each for p, begin, end in found for each in [p] * (end - begin)] == partition.tolist()
    assert all(a[0] != b[0] for a, b in itertools.pairwise(found))


def test_pieces_are_joined_in_their_order() -> None:
    pieces = [arrived("t", messages(each)) for each in ([(0, 1), (0, 2), (1, 7)], [(1, 8), (0, 3)])]
    joined = Arrived.joined(pieces)
    assert joined.runs == [(0, 0, 2), (1, 2, 4), (0, 4, 5)]
    assert joined.offset.tolist() == [1, 2, 7, 8, 3]
    assert joined.values.unpacked() == [None] * 5
    assert joined.keys == [None] * 5
    with pytest.raises(WorkerError, match="out of order"):
        Arrived.joined([arrived("t", messages([(0, 5)])), arrived("t", messages([(0, 5)]))])


def test_messages_out_of_order_are_refused() -> None:
    with pytest.raises(WorkerError, match="out of order"):
        offsets_of(messages([(0, 5), (0, 4), (0, 9)]), [(0, 0, 3)])
