"""Which rows of a table are to be asked about at which tick, a whole second of stream time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_streams.core.runs import places
from fuseboard_streams.core.tables import Column, Family

if TYPE_CHECKING:
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]

SECOND: Final = 1_000_000
NEVER: Final = int(np.iinfo(np.int64).max)
_NOBODY: Final = np.empty(0, dtype=np.int64)


def due_family() -> Family:
    """What a table needs for it: the row's tick, microseconds, 0 for none."""
    return Family("due", (Column("due", "i8"),))


def whole_second(time_us: Any) -> Any:  # noqa: ANN401 - a time, or an array of them
    """The first whole second not before a time."""
    return -(-time_us // SECOND) * SECOND


class Waiting:
    """The rows of one table that wait for their tick.

    Runs of events end where a tick is due, and no tick that is set within a run may be due within it: whoever sets one
    while events are folded keeps to ``CoreSettings.piece_us``.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows: Rows = _NOBODY

    @property
    def next(self) -> int | None:
        """The next tick; None if nobody waits."""
        due = self._table["due"][self._rows]
        due = due[due > 0]
        return int(due.min()) if len(due) else None

    def ask(self, rows: Rows, due: I64) -> None:
        """Ask about rows, which do not repeat, at these ticks or where they wait already; `NEVER` leaves them alone."""
        before = self._table["due"][rows]
        sooner = (due < NEVER) & ((before == 0) | (due < before))
        if sooner.any():
            chosen = rows[sooner]
            self._table.touch("due", chosen)
            self._table["due"][chosen] = due[sooner]
            self._rows = np.union1d(self._rows, chosen)

    def forget(self, rows: Rows) -> None:
        """Do not ask about these rows."""
        some = rows[self._table["due"][rows] > 0]
        if len(some):
            self._table.touch("due", some)
            self._table["due"][some] = 0

    def take(self, now_us: int) -> Rows:
        """The rows whose tick has come, ascending; they wait no more."""
        due = self._table["due"][self._rows]
        rows = self._rows[(due > 0) & (due <= now_us)]
        self.forget(rows)
        self._rows = self._rows[due > now_us]
        return rows

    def rebuild(self) -> None:
        """Find who waits, after a restore or a rollback."""
        self._rows = places(self._table["due"][: self._table.high_water] > 0).astype(np.int64)
