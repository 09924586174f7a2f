"""Cost burn: is a budget being spent so fast that it will be gone long before its time is over?

A window pair (share s, long L, short S) of a budget B per period fires while both

    spend(L) >= s B        and        spend(S) >= s B S / L

hold: the first says that a share of the budget that matters is gone, the second that it is still going (Google SRE
Workbook, chapter 5, "multiwindow, multi-burn-rate alerts"). With the shipped pairs and a budget of one and a half times
what is normally spent, spending at a hundred times the normal rate is found after 65 s, at twenty times after 648 s, at
five times after 6,480 s.

Spending is kept as whole micro-dollars in rings of cells aligned to their width, so that sums are exact, do not depend
on the order of events, and a cell is dropped whole. A window's last cell is the one under way: a window of n cells
covers between n - 1 and n cells of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_schemas.errors import ConfigurationError

I64: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

SECOND: Final = 1_000_000
RINGS: Final = (
    (5 * SECOND, 6),
    (30 * SECOND, 10),
    (180 * SECOND, 12),
    (900 * SECOND, 12),
    (3_600 * SECOND, 24),
)
"""Width of a cell in microseconds and number of cells, finest first: 64 numbers for each key."""
CELLS: Final = sum(cells for _, cells in RINGS)
NEVER: Final = int(np.iinfo(np.int64).max)
"""A time that does not come."""
_FIRST: Final = tuple(int(start) for start in np.cumsum([0, *(cells for _, cells in RINGS)])[:-1])


@dataclass(frozen=True, slots=True)
class BurnPair:
    """One pair of windows. Lengths are in microseconds; the share is of the budget, as a ratio of whole numbers."""

    share: tuple[int, int]
    long_us: int
    short_us: int

    def __post_init__(self) -> None:
        top, bottom = self.share
        if not 0 < top <= bottom:
            raise ConfigurationError(
                f"a burn window has the share {top}/{bottom}, expected more than nothing and at most the whole budget."
            )
        if not 0 < self.short_us < self.long_us:
            raise ConfigurationError(
                f"a burn window has a short window of {self.short_us} microseconds and a long one of {self.long_us}; "
                "expected the short one to be shorter."
            )
        for length in (self.long_us, self.short_us):
            ring_of(length)


@dataclass(slots=True)
class Spending:
    """What k keys have spent lately."""

    cells: I64
    """Micro-dollars, shape (k, CELLS): the rings one after the other; a cell lies at its number modulo its ring."""
    newest: I64
    """Stream time up to which the cells have been rolled, microseconds, shape (k,)."""

    @classmethod
    def fresh(cls, k: int) -> Spending:
        """Keys that have spent nothing."""
        return cls(np.zeros((k, CELLS), dtype=np.int64), np.zeros(k, dtype=np.int64))


def ring_of(length_us: int) -> tuple[int, int]:
    """The finest ring that covers a window, and how many of its cells do.

    Raises:
        ConfigurationError: No ring has cells that add up to it.
    """
    for ring, (width, cells) in enumerate(RINGS):
        if length_us % width == 0 and length_us // width <= cells:
            return ring, length_us // width
    known = ", ".join(f"up to {width * cells // SECOND} s in steps of {width // SECOND} s" for width, cells in RINGS)
    raise ConfigurationError(f"no window of {length_us / SECOND:g} s is kept; possible are {known}.")


def roll(state: Spending, now_us: int | I64) -> None:
    """Drop the cells that are older than their ring, before anything is added or read at a time.

    Args:
        state: k keys, changed in place.
        now_us: stream time, one for all keys or shape (k,); a key's time never falls.
    """
    now = np.maximum(state.newest, now_us)
    for (width, count), first in zip(RINGS, _FIRST, strict=True):
        passed = now // width - state.newest // width
        if not passed.any():
            # Cells of the wider rings are longer still.
            break
        # The cells after the newest one, as far as time has passed, go.
        step = (np.arange(count) - state.newest[:, None] // width - 1) % count
        state.cells[:, first : first + count][step < passed[:, None]] = 0
    state.newest = now


def spend(state: Spending, rows: NDArray[np.intp], at_us: I64, micro_usd: I64) -> None:
    """Add what was spent; the keys have been rolled to a time not before any of these.

    Args:
        state: k keys, changed in place.
        rows: which key each spending belongs to, shape (n,).
        at_us: its time, microseconds, shape (n,); what is older than a ring has no place in it.
        micro_usd: how much, shape (n,).
    """
    newest = state.newest[rows]
    for (width, count), first in zip(RINGS, _FIRST, strict=True):
        cell = at_us // width
        fits = newest // width - cell < count
        np.add.at(state.cells, (rows[fits], first + cell[fits] % count), micro_usd[fits])


def within(state: Spending, length_us: int, since_us: int = 0) -> I64:
    """Micro-dollars that each key has spent within a window that ends at the time it was rolled to, shape (k,).

    Cells that begin before ``since_us`` do not count.
    """
    ring, cells = ring_of(length_us)
    (width, count), first = RINGS[ring], _FIRST[ring]
    number = (state.newest // width)[:, None] - np.arange(cells)
    spent = np.take_along_axis(state.cells, first + number % count, axis=1)
    if since_us > 0:
        spent[number * width < since_us] = 0
    found: I64 = spent.sum(axis=1)
    return found


def burning(state: Spending, budget_micro_usd: int, pairs: tuple[BurnPair, ...], since_us: int = 0) -> Bools:
    """Which keys burn their budget by any of the pairs, shape (k,). Exact: whole numbers are compared.

    Args:
        state: k keys, rolled to now.
        budget_micro_usd: what may be spent in the budget's period; below 10^9 dollars.
        pairs: pairs of windows.
        since_us: from when on spending counts, microseconds; of the cells under way then nothing does.
    """
    found = np.zeros(len(state.newest), dtype=np.bool_)
    for pair in pairs:
        found |= _burns(state, budget_micro_usd, pair, since_us)
    return found


def lasts_until(state: Spending, budget_micro_usd: int, pairs: tuple[BurnPair, ...], since_us: int = 0) -> I64:
    """Until when what `burning` says cannot change while nothing is spent, microseconds, shape (k,).

    `NEVER` where it says no: windows only empty. Arguments as of `burning`.
    """
    found = np.zeros(len(state.newest), dtype=np.int64)
    for pair in pairs:
        # Nothing leaves a window before the next cell of its ring begins; one pair that holds on is enough.
        widths = [RINGS[ring_of(length)[0]][0] for length in (pair.long_us, pair.short_us)]
        until = np.minimum(*((state.newest // width + 1) * width for width in widths))
        found = np.maximum(found, np.where(_burns(state, budget_micro_usd, pair, since_us), until, 0))
    lasting: I64 = np.where(found > 0, found, NEVER)
    return lasting


def _burns(state: Spending, budget_micro_usd: int, pair: BurnPair, since_us: int) -> Bools:
    top, bottom = pair.share
    # Rounded up, so that "at least this share" stays exact for whole micro-dollars.
    enough = -(-budget_micro_usd * top // bottom)
    recent = -(-budget_micro_usd * top * pair.short_us // (bottom * pair.long_us))
    long, short = (within(state, length, since_us) for length in (pair.long_us, pair.short_us))
    found: Bools = (long >= enough) & (short >= recent)
    return found
