"""Counts of the last so much time, in rings of cells aligned to their width.

Whole numbers are added to cells and a cell is dropped whole, so sums are exact and do not depend on the order of
events. A window of n cells covers between n - 1 and n cells of time: the newest cell is the one under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fuseboard_detectors.segments import I64, Places


def roll(cells: tuple[I64, ...], newest: I64, now_us: int | I64, width_us: int) -> I64:
    """Drop what is older than the rings, in place.

    Args:
        cells: rings of k keys, shape (k, cells) each.
        newest: the time up to which each key has been rolled, microseconds, shape (k,).
        now_us: stream time, one for all keys or shape (k,); a key's time never falls.
        width_us: of a cell.

    Returns:
        The new ``newest``.
    """
    now: I64 = np.maximum(newest, now_us)
    passed = now // width_us - newest // width_us
    rows = np.flatnonzero(passed)
    if len(rows):
        for ring in cells:
            count = ring.shape[1]
            # The cells after the newest one, as far as time has passed, go.
            step = (np.arange(count) - newest[rows, None] // width_us - 1) % count
            ring[rows] = np.where(step < passed[rows, None], 0, ring[rows])
    return now


def add(ring: I64, newest: I64, rows: Places, at_us: I64, amount: I64, width_us: int) -> None:
    """Add to the cells of some times, in place; what is older than the ring has no place in it.

    Args:
        ring: of k keys, rolled to a time not before any of these, shape (k, cells).
        newest: the time to which each has been rolled, shape (k,).
        rows: which key each amount belongs to, shape (n,); keys may repeat.
        at_us: the time of each, microseconds, shape (n,).
        amount: shape (n,).
        width_us: of a cell.
    """
    count = ring.shape[1]
    cell = at_us // width_us
    fits = newest[rows] // width_us - cell < count
    np.add.at(ring, (rows[fits], cell[fits] % count), amount[fits])


def ages(newest: I64, count: int, width_us: int) -> I64:
    """How many cells before the newest one each cell of a ring lies, from 0, shape (k, count)."""
    found: I64 = (newest[:, None] // width_us - np.arange(count)) % count
    return found
