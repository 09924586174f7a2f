"""The cap on how many failures of one trace are counted: one stuck trace is not an outage."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fuseboard_detectors.segments import stable_order
from fuseboard_streams.core.prepare import hash_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fuseboard_streams.core.tables import Table

_MASK = 0xFFFFFFFFFFFFFFFF
_ODD = 0x9E3779B97F4A7C15


def trace_digest(trace_id: str) -> int:
    """64 bits that stand for a trace. A collision would only share a cap of three."""
    return hash_of(trace_id)


def trace_key(row: int, digest: int) -> int:
    """A 64-bit key of a statistic's row and a trace."""
    return (digest + (row + 1) * _ODD) & _MASK


@dataclass(slots=True)
class _Overlay:
    start: int
    count: int


class TraceCap:
    """Counts failures by trace for one statistic, first in first out, in a table that travels with the state.

    An entry lives for ``window_us`` of stream time from the trace's first counted failure; after that the trace may
    be counted again. When the table is full the oldest entry goes, which only re-arms its trace's cap.
    """

    def __init__(self, table: Table, cap: int, window_us: int, limit: int) -> None:
        self._table = table
        self._cap = cap
        self._window = window_us
        self._limit = limit
        self._rows: dict[int, int] = {}
        self._queue: deque[tuple[int, int]] = deque()
        self._next = 0
        self.evicted = 0

    def adopt(self, cap: int, window_us: int) -> None:
        """Count with other limits from now on."""
        self._cap, self._window = cap, window_us

    def rebuild(self) -> None:
        """Make the index anew from the table, after a restore or a rollback."""
        live = np.flatnonzero(self._table.live[: self._table.high_water])
        order = self._table["order"][live]
        ranked = stable_order(order)
        self._queue = deque(zip(order[ranked].tolist(), live[ranked].tolist(), strict=True))
        self._rows = dict(zip(self._table["key"][live].tolist(), live.tolist(), strict=True))
        self._next = int(order.max()) + 1 if len(live) else 0

    def nearly_full(self, failures: int) -> bool:
        """Whether so many more failures might evict an entry."""
        return len(self._rows) + failures > self._limit

    def decide(self, keys: list[int | None], times: list[int]) -> NDArray[np.bool_]:
        """Which of these failures may be counted, if all before them that may be are.

        Args:
            keys: of `trace_key`, in event order; None for a call without a trace, which is a trace of its own.
            times: stream time at each, microseconds.
        """
        allowed = np.ones(len(keys), dtype=np.bool_)
        overlay: dict[int, _Overlay] = {}
        for i, key in enumerate(keys):
            if key is None:
                continue
            entry = overlay.get(key) or self._stored(key)
            if entry is None or times[i] - entry.start >= self._window:
                overlay[key] = _Overlay(times[i], 1)
            elif entry.count < self._cap:
                entry.count += 1
                overlay[key] = entry
            else:
                allowed[i] = False
        return allowed

    def _stored(self, key: int) -> _Overlay | None:
        row = self._rows.get(key)
        if row is None:
            return None
        return _Overlay(int(self._table["start"][row]), int(self._table["count"][row]))

    def count(self, keys: list[int | None], times: list[int]) -> None:
        """Count these failures, in event order."""
        table = self._table
        fresh: dict[int, _Overlay] = {}
        for key, now in zip(keys, times, strict=True):
            if key is None:
                continue
            entry = fresh.get(key)
            row = self._rows.get(key, -1)
            if entry is None and row >= 0:
                entry = _Overlay(int(table["start"][row]), int(table["count"][row]))
            if entry is None or now - entry.start >= self._window:
                # Popped and set again, so that the order is that of the windows' starts.
                fresh.pop(key, None)
                fresh[key] = _Overlay(now, 1)
            elif key in fresh:
                entry.count += 1
            else:
                table.touch("entry", np.array([row], dtype=np.int32))
                table["count"][row] = entry.count + 1
        if fresh:
            self._insert(fresh)

    def _insert(self, fresh: dict[int, _Overlay]) -> None:
        """Begin the windows of these traces, oldest first."""
        table = self._table
        self._make_room([key for key in fresh if key not in self._rows], next(reversed(fresh.values())).start)
        missing = [key for key in fresh if key not in self._rows]
        self._rows.update(zip(missing, table.allocate(len(missing)).tolist(), strict=True))
        rows = np.array([self._rows[key] for key in fresh], dtype=np.int32)
        table.touch("entry", rows)
        order = np.arange(self._next, self._next + len(rows))
        table["key"][rows] = np.array(list(fresh), dtype=np.uint64)
        table["start"][rows] = [entry.start for entry in fresh.values()]
        table["count"][rows] = [entry.count for entry in fresh.values()]
        table["order"][rows] = order
        self._queue.extend(zip(order.tolist(), rows.tolist(), strict=True))
        self._next += len(rows)

    def _make_room(self, coming: list[int], now: int) -> None:
        """Free the oldest entries: those whose time is over, and as many more as the limit asks for."""
        table = self._table
        gone: list[int] = []
        live, start, order_of = table.live, table["start"], table["order"]
        while self._queue:
            order, row = self._queue[0]
            if live[row] and int(order_of[row]) == order:
                expired = now - int(start[row]) >= self._window
                if not expired and len(self._rows) + len(coming) <= self._limit:
                    break
                self.evicted += not expired
                del self._rows[int(table["key"][row])]
                gone.append(row)
            self._queue.popleft()
        if gone:
            table.free(np.array(gone, dtype=np.int32))
