"""From raw batches to each shard's work."""

from __future__ import annotations

import numpy as np

from fuseboard_schemas.columnar import Values
from fuseboard_schemas.records import DeadLetterReason
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_streams.worker.decoding import TOOL_CALLS, Decoding
from fuseboard_streams.worker.source import Arrived, RawBatch
from tests.support.calls import SEEDS


def raw(values: list[bytes | None]) -> RawBatch:
    n = len(values)
    arrived = Arrived(
        topic=TOOL_CALLS,
        keys=[b"t/a"] * n,
        values=Values.of(values),
        partition=np.full(n, 2, np.int32),
        offset=np.arange(5, 5 + n),
        arrival=np.full(n, 9, np.int64),
        runs=[(2, 0, n)],
    )
    return RawBatch(1, [arrived])


def test_a_batch_of_nothing_but_bad_records_gives_dead_letters() -> None:
    batch = Decoding(PackagedResolver(), SEEDS).decode(raw([b"no record", None]))
    work = batch.work[2]
    assert work.calls is None
    assert work.next == {TOOL_CALLS: 7}
    assert [(bad.offset, bad.reason) for bad in work.bad] == [
        (5, DeadLetterReason.NOT_WIRE_FORMAT),
        (6, DeadLetterReason.TOMBSTONE),
    ]
