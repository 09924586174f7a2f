"""Calls that were executed although their target had been open for long enough to know: a breach of the gate.

A call is judged by when it began, since a call that runs for minutes may well have begun before its target was opened.
Refusals, cancellations and probes are no breach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from fuseboard_detectors.segments import I64, Bools, Places

NOT_OPEN: Final = int(np.iinfo(np.int64).max)
"""The open-since time of a target that is not open."""


@dataclass(slots=True)
class Breaches:
    """k clients, shape (k,) each."""

    calls: I64
    """Ungated calls."""
    last: I64
    """When the last of them began, microseconds; 0: none."""

    @classmethod
    def fresh(cls, k: int) -> Breaches:
        """Clients that have obeyed."""
        return cls(np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64))


def ungated(began_us: I64, open_since_us: I64, executed: Bools, probe: Bools, *, after_us: int) -> Bools:
    """Which calls were executed later than so long after their target was opened, shape (n,).

    Args:
        began_us: when each call began, microseconds, shape (n,).
        open_since_us: the time of the OPEN command in force on its target, `NOT_OPEN` where there is none, shape (n,).
        executed: whether its outcome is OK, ERROR or TIMEOUT, shape (n,).
        probe: whether it is marked as a probe, shape (n,).
        after_us: what an enforcer is given to hear of a command, microseconds.
    """
    return executed & ~probe & (began_us - after_us > open_since_us)


def count(state: Breaches, client: Places, began_us: I64, found: Bools) -> None:
    """Add the ungated calls to their clients, in place.

    Args:
        state: k clients.
        client: whose call each is, shape (n,); clients may repeat.
        began_us: when each began, microseconds, shape (n,).
        found: of `ungated`, shape (n,).
    """
    np.add.at(state.calls, client[found], 1)
    np.maximum.at(state.last, client[found], began_us[found])
