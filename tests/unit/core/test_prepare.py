"""Splitting a decoded frame by partition."""

from __future__ import annotations

import numpy as np
import polars as pl

from fuseboard_schemas import columnar
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_streams.core.prepare import hashed, prepare, stable_hash
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


def test_hashes_of_texts_are_the_same_one_by_one_and_together() -> None:
    """They are kept in the state: how many texts a batch has, and how often each, must not show."""
    texts = ["a", None, "b", f"{7:032x}", "a", "a", "", "b", f"{7:032x}", "a"]
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    rows = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], dtype=np.uint32)
    together = hashed(frame, "text", rows)
    one_by_one = [int(hashed(frame, "text", np.array([row], dtype=np.uint32))[0]) for row in rows.tolist()]
    assert together.tolist() == one_by_one == stable_hash(frame.get_column("text"))[rows].tolist()
    assert [bool(each) for each in together] == [texts[row] is not None for row in rows.tolist()]
    assert hashed(frame, "unread", rows).tolist() == [0] * 10
    assert hashed(frame.with_columns(pl.lit(None, pl.String).alias("none")), "none", rows).tolist() == [0] * 10


def test_ids_that_differ_in_one_digit_differ_in_both_halves_of_their_hash() -> None:
    """Either half alone is used as a name: ids that count, or are mostly zeros, are common."""
    ids = [f"{digit << 4 * place:032x}" for place in range(32) for digit in range(1, 16)]
    ids += [f"{number:032x}" for number in range(1 << 14, 1 << 15)]
    ids = sorted(set(ids))
    found = stable_hash(pl.Series(ids))
    for half in (found >> np.uint64(32), found & np.uint64(0xFFFF_FFFF)):
        assert len(np.unique(half)) >= len(ids) - 1


def test_a_hash_is_the_same_in_every_version() -> None:
    """The state log keeps it."""
    found = stable_hash(pl.Series(["0af7651916cd43dd8448eb211c80319c", "run-1", None]))
    assert found.tolist() == [1240634774247509181, 9778205038060943398, 0]


def test_nothing_but_no_id_hashes_to_nothing() -> None:
    """A trace of zeros is none by W3C Trace Context; whatever else a client makes up is one."""
    texts = ["0" * 32, None, "\0" * 32, "", "\0", "0" * 31, "0" * 33, "\u00e9" * 16, "\u00e9" * 32, "0" * 31 + "1"]
    found = stable_hash(pl.Series(texts, dtype=pl.String)).tolist()
    assert [each == 0 for each in found] == [True, True, *[False] * 8]
    assert len(set(found)) == 9
    one_by_one = [int(stable_hash(pl.Series([text], dtype=pl.String))[0]) for text in texts]
    assert one_by_one == found
    assert stable_hash(pl.Series([], dtype=pl.String)).tolist() == []
