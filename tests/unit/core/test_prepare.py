"""Splitting a decoded frame by partition."""

from __future__ import annotations

import numpy as np

from fuseboard_schemas import columnar
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_streams.core.prepare import prepare
from tests.support.calls import SEEDS, Call, frame_of


def test_a_batch_of_nothing_but_bad_records_holds_no_calls() -> None:
    decoded = columnar.decode("ToolCall", [None, b"", b"plain text"], PackagedResolver())
    nothing = np.empty(0, np.int64)
    assert len(decoded.bad) == 3
    assert prepare(decoded.frame, nothing.astype(np.int32), nothing, nothing, SEEDS) == {}


def test_the_calls_of_each_partition_stay_in_order() -> None:
    frame = frame_of([Call(float(number)) for number in range(5)])
    offset = np.array([7, 3, 8, 4, 9])
    batch = prepare(frame, np.array([1, 0, 1, 0, 1], np.int32), offset, offset, SEEDS)
    assert {number: calls.offset.tolist() for number, calls in batch.items()} == {0: [3, 4], 1: [7, 8, 9]}
