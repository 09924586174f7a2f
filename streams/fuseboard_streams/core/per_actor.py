"""Which variant of a rule each actor has, by the rows of their table: a name is matched once, not at every event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.segments import different
from fuseboard_streams.core.rulebook import NONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_streams.core.rulebook import RuleView
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.int64]

_UNKNOWN: Final = -2


class PerActor:
    """One rule on actors, as it is for each row of their table. Derived: it follows names, and keeps nothing else."""

    def __init__(self, actors: Table, view: RuleView) -> None:
        self._actors = actors
        self.view = view
        self._number = np.empty(0, dtype=np.int32)
        self._seen = np.empty(0, dtype=np.uint64)
        self._bases = np.array([*view.bases, 0], dtype=np.uint64)

    def numbers(self, rows: Rows) -> I64:
        """The variant of each of these actors, `NONE` where the rule is not for it, shape (n,)."""
        if self.view.plain:
            return np.zeros(len(rows), dtype=np.int64)
        missing = self._actors.capacity - len(self._number)
        if missing > 0:
            self._number = np.append(self._number, np.full(missing, _UNKNOWN, dtype=np.int32))
            self._seen = np.append(self._seen, np.zeros(missing, dtype=np.uint64))
        # A row that was freed may be another actor's by now: its hash says so.
        stale = (self._number[rows] == _UNKNOWN) | (self._seen[rows] != self._actors["lo"][rows])
        if stale.any():
            new = different(rows[stale])
            self._number[new] = [self.view.number(*self.names(row)) for row in new.tolist()]
            self._seen[new] = self._actors["lo"][new]
        return self._number[rows].astype(np.int64)

    def bases(self, numbers: I64) -> U64:
        """What names the state of targets with these variants, shape (n,); 0 for `NONE`, which comes last."""
        found: U64 = self._bases[numbers]
        return found

    def names(self, row: int) -> tuple[str, str]:
        """The tenant and the name of an actor."""
        return str(self._actors["tenant"][row]), str(self._actors["actor"][row])


def going_on(rules: Iterable[PerActor], actor: Rows, basis: U64, shift: int = 0) -> Bools:
    """Which rows of state still are some rule's for their actor, shape (n,).

    Args:
        rules: those in force.
        actor: whose each row is, shape (n,).
        basis: what names its state, shape (n,).
        shift: how many of the lowest bits of a name are not kept in ``basis``.
    """
    found = np.zeros(len(actor), dtype=np.bool_)
    for each in rules:
        found |= each.bases(each.numbers(actor)) >> np.uint64(shift) == basis
    return found


__all__ = ["NONE", "PerActor", "going_on"]
