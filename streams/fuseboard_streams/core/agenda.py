"""Which rows of a table are to be asked about at which whole minute of stream time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.segments import different
from fuseboard_streams.core.runs import places

if TYPE_CHECKING:
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]

MINUTE: Final = 60_000_000


def whole_minute(time_us: Any) -> Any:  # noqa: ANN401 - a time, or an array of them
    """The first whole minute not before a time."""
    return -(-time_us // MINUTE) * MINUTE


class Agenda:
    """The rows of one table by the minute at which they are due, as its column ``due`` says (`waiting.due_family`).

    `waiting.Waiting` looks through all that wait whenever it is asked; here most rows of a table wait at most times.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._by_minute: dict[int, list[Rows]] = {}

    @property
    def next(self) -> int | None:
        """The first minute at which a row may be due; None if none is. Nobody need be due at it."""
        return min(self._by_minute, default=None)

    def ask(self, rows: Rows, minute: int) -> None:
        """Ask about rows, which do not repeat, at a minute, or where they are due sooner at that one."""
        before = self._table["due"][rows]
        chosen = rows[(before == 0) | (minute < before)]
        if len(chosen):
            self._table.touch("due", chosen)
            self._table["due"][chosen] = minute
            self._by_minute.setdefault(minute, []).append(chosen)

    def take(self, now_us: int) -> Rows:
        """The rows whose minute has come, ascending; they are due no more."""
        over = sorted(minute for minute in self._by_minute if minute <= now_us)
        if not over:
            return np.empty(0, dtype=np.int64)
        rows: Rows = different(np.concatenate([part for minute in over for part in self._by_minute.pop(minute)]))
        due = self._table["due"][rows]
        # Others were asked about sooner, or are gone.
        rows = rows[(due > 0) & (due <= now_us)]
        self._table.touch("due", rows)
        self._table["due"][rows] = 0
        return rows

    def rebuild(self) -> None:
        """Find who is due when, after a restore or a rollback."""
        due = self._table["due"][: self._table.high_water]
        rows = places(due > 0).astype(np.int64)
        self._by_minute = {minute: [rows[due[rows] == minute]] for minute in different(due[rows]).tolist()}
