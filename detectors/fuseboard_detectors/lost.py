"""Are an actor's events missing? The share of its sequence numbers that never came, within a window.

Producers number their events, so a gap shows how many are missing. The caller counts gaps where it reads the numbers
(how many were expected since the last one, how many of them are missing) and gives the counts with their times. A
number that comes in late after all is given as a missing count of -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fuseboard_detectors import rings

if TYPE_CHECKING:
    from fuseboard_detectors.segments import I64, Bools, Places

CELLS: Final = 30
"""Of a window: one of an hour covers between 58 and 60 minutes."""


@dataclass(slots=True)
class LostCounts:
    """What k keys should have sent lately, shape (k, CELLS) for the rings."""

    expected: I64
    missing: I64
    newest: I64
    """Stream time up to which the cells have been rolled, microseconds, shape (k,)."""

    @classmethod
    def fresh(cls, k: int) -> LostCounts:
        """Keys of which nothing was expected."""
        return cls(
            np.zeros((k, CELLS), dtype=np.int64), np.zeros((k, CELLS), dtype=np.int64), np.zeros(k, dtype=np.int64)
        )


def roll(state: LostCounts, now_us: int | I64, within_us: int) -> None:
    """Drop what is older than the window, before anything is added or read at a time; see `rings.roll`."""
    state.newest = rings.roll((state.expected, state.missing), state.newest, now_us, within_us // CELLS)


def count(state: LostCounts, rows: Places, at_us: I64, expected: I64, missing: I64, within_us: int) -> None:
    """Add counts of expected and missing numbers, in place.

    Args:
        state: k keys, rolled to a time not before any of these.
        rows: which key each count belongs to, shape (n,); keys may repeat.
        at_us: its time, microseconds, shape (n,).
        expected: how many numbers were due, the missing ones among them, shape (n,).
        missing: how many of them did not come; below 0 for those that came in late, shape (n,).
        within_us: the window, a multiple of `CELLS` microseconds.
    """
    rings.add(state.expected, state.newest, rows, at_us, expected, within_us // CELLS)
    rings.add(state.missing, state.newest, rows, at_us, missing, within_us // CELLS)


def losing(state: LostCounts, share: tuple[int, int], minimum: int) -> Bools:
    """Which keys have lost at least this share of at least so many numbers, shape (k,). Exact.

    Args:
        state: k keys, rolled to now.
        share: as a ratio of whole numbers.
        minimum: fewer expected numbers say nothing; at least 1.
    """
    top, bottom = share
    expected, missing = state.expected.sum(axis=1), state.missing.sum(axis=1)
    found: Bools = (expected >= minimum) & (missing * bottom >= expected * top)
    return found
