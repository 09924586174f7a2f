"""The replay window: a client's event that has been seen is dropped, without a table of event ids.

Each client numbers its events (RFC 6479 keeps the same kind of window for packets). Per client and actor the highest
number and a 64-bit window behind it are kept: an event is a duplicate if its bit is set, or if it lies 63 or more
behind, where nothing is remembered any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_streams.core.runs import places, run_starts

if TYPE_CHECKING:
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]

_BITS = 64
_MASK = (1 << _BITS) - 1


@dataclass(slots=True)
class Deduplicated:
    """What the window says of a piece."""

    fresh: NDArray[np.bool_]
    """Which events have not been seen, shape (n,)."""
    duplicates: int
    missing: int
    """Numbers skipped."""
    recovered: int
    """Numbers behind the highest that have come in now."""
    expected: I64 | None = None
    """How many numbers each event showed to be due, its own among them and those skipped before it; shape (n,)."""
    gaps: I64 | None = None
    """How many it skipped; -1 where it had been skipped and has come in now; shape (n,)."""


def deduplicate(clients: Table, row: Rows, seq: I64, *, each: bool = False) -> Deduplicated:
    """Drop repeats and remember what is new. The rows have been touched.

    Args:
        clients: with columns ``last_seq`` (-1: nothing seen) and ``window`` (bit j: last_seq - j was seen).
        row: each event's client, shape (n,), in event order.
        seq: its number, shape (n,), not negative.
        each: whether to say of each event what it shows to be missing.
    """
    n = len(row)
    keys = (row.astype(np.uint64) << np.uint64(32)) | np.arange(n, dtype=np.uint64)
    keys.sort()
    index = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    rows = (keys >> np.uint64(32)).astype(np.int64)
    ordered = seq[index]
    starts = run_starts(rows)
    heads = rows[starts]
    before = np.empty(n, dtype=np.int64)
    before[1:] = ordered[:-1]
    before[starts] = clients["last_seq"][heads]
    rising = np.logical_and.reduceat(ordered > before, starts)
    fresh = np.ones(n, dtype=np.bool_)
    shown = _Shown(n, index, np.where(before >= 0, ordered - before, 1)) if each else None
    ends = np.append(starts[1:], n) - 1
    missing = _advance(clients, heads, rising, starts, ends, ordered)
    recovered = 0
    if not rising.all():
        skipped, recovered = _one_by_one(clients, places(~rising), heads, starts, ends, ordered, index, fresh, shown)
        missing += skipped
    kept = int(np.count_nonzero(fresh))
    result = Deduplicated(fresh, n - kept, missing, recovered)
    if shown is not None:
        result.expected, result.gaps = shown.expected, shown.gaps
    return result


class _Shown:
    """What each event shows to be due and to be missing."""

    def __init__(self, n: int, index: Rows, steps: I64) -> None:
        self.expected = np.empty(n, dtype=np.int64)
        # Right where numbers only rise; elsewhere it is written over.
        self.expected[index] = steps
        self.gaps = self.expected - 1

    def put(self, at: int, expected: int, gap: int) -> None:
        self.expected[at], self.gaps[at] = expected, gap


def _advance(
    clients: Table, heads: Rows, rising: NDArray[np.bool_], starts: NDArray[np.intp], ends: NDArray[np.intp], seq: I64
) -> int:
    """Clients whose numbers only rise: all are new, and the windows move at once."""
    last = seq[ends]
    count = ends - starts + 1
    behind = np.repeat(last, count) - seq
    near = behind < _BITS
    bits = np.where(near, np.uint64(1) << np.minimum(behind, _BITS - 1).astype(np.uint64), np.uint64(0))
    window = np.bitwise_or.reduceat(bits, starts)
    old = clients["last_seq"][heads]
    shift = last - old
    kept = clients["window"][heads] << np.clip(shift, 0, _BITS - 1).astype(np.uint64)
    window |= np.where((shift < _BITS) & (old >= 0), kept, np.uint64(0))
    chosen = heads[rising]
    clients["window"][chosen] = window[rising]
    clients["last_seq"][chosen] = last[rising]
    # Of a client's first event nobody knows what went before.
    skipped = np.where(old >= 0, shift, last - seq[starts] + 1) - count
    return int(skipped[rising].sum())


def _one_by_one(
    clients: Table,
    segments: NDArray[np.intp],
    heads: Rows,
    starts: NDArray[np.intp],
    ends: NDArray[np.intp],
    seq: I64,
    index: Rows,
    fresh: NDArray[np.bool_],
    shown: _Shown | None,
) -> tuple[int, int]:
    """Numbers skipped, and skipped ones that have come in."""
    missing = recovered = 0
    for segment in segments.tolist():
        row = int(heads[segment])
        last, window = int(clients["last_seq"][row]), int(clients["window"][row])
        for i in range(int(starts[segment]), int(ends[segment]) + 1):
            number = int(seq[i])
            expected = gap = 0
            if last < 0 or number > last:
                step = number - last
                gap = 0 if last < 0 else step - 1
                expected = gap + 1
                missing += gap
                window = ((window << step) & _MASK if last >= 0 and step < _BITS else 0) | 1
                last = number
            elif last - number >= _BITS - 1 or window >> (last - number) & 1:
                fresh[index[i]] = False
            else:
                window |= 1 << (last - number)
                gap = -1
                recovered += 1
            if shown is not None:
                shown.put(int(index[i]), expected, gap)
        clients["last_seq"][row] = last
        clients["window"][row] = np.uint64(window)
    return missing, recovered
