"""Who is held for a condition that may last: asked whether it is still on, when that can have changed.

Everybody who is held is asked together, on a grid of `GRID_US` of stream time: after a rule has fired, after an event
of an actor whose condition was on, and when time alone may have changed the answer. In between, however long that is,
nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.segments import different
from fuseboard_schemas.keys import parse_breaker_id
from fuseboard_streams.core.breaker import Moment, id_of
from fuseboard_streams.core.holds import Condition
from fuseboard_streams.core.rulebook import RuleView
from fuseboard_streams.core.waiting import NEVER, SECOND

if TYPE_CHECKING:
    from fuseboard_schemas.keys import Target
    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.firing import Firing
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.tables import Table

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]
StillOn: TypeAlias = Callable[[RuleView, Rows, int], tuple[NDArray[np.bool_], I64]]
"""Rule, rows of actors and stream time to whether the rule's condition is on, and until when, microseconds, that cannot
change without an event; shape (n,) each."""
GRID_US: Final = 5 * SECOND
ASKED_AT: Final = "burning_asked_at"
"""Name of `Clearing.at` in the state log."""


@dataclass(slots=True)
class _Held:
    """One rule's hold on one actor, real or virtual, that is asked about."""

    key: str
    """The breaker's id."""
    target: Target
    row: int = -1
    """Of the actor, when it was last looked up; -1: it had none."""

    @property
    def names(self) -> tuple[str, str]:
        """The actor's tenant and name."""
        return self.target.tenant, self.target.actor or ""


class Clearing:
    """Keeps asking about the holds, real and virtual, of rules whose condition lasts. Derived state but for `at`."""

    def __init__(
        self,
        settings: CoreSettings,
        conditions: Sequence[tuple[RuleView, StillOn]],
        identities: Identities,
        breakers: Breakers,
        actors: Table,
    ) -> None:
        self._ahead_us = settings.piece_us
        self._identities = identities
        self._breakers = breakers
        self._actors = actors
        self._conditions = {view.rule.rule: (view, still_on) for view, still_on in conditions}
        self._held: dict[str, dict[str, _Held]] = {rule: {} for rule in self._conditions}
        # Rows of actors whose condition was on: their events may change that.
        self._lasting = np.empty(0, dtype=np.int64)
        self.at: int | None = None
        """When to ask next, a whole second; None while only an event can change anything."""

    def __len__(self) -> int:
        """How many holds are asked about."""
        return sum(map(len, self._held.values()))

    def restore(self, at: int | None) -> None:
        """Find who is held, after a restore or a rollback."""
        self.at = at
        self._held = {rule: {} for rule in self._conditions}
        for key in self._breakers.open_ids():
            row = self._breakers.get(key)
            for hold in () if row is None else row.holds:
                self._add(key, hold.rule)
        for key, rule in self._breakers.virtual.open_keys():
            self._add(key, rule)
        lasting = [each for rule, held in self._held.items() for each in held.values() if self._known(each.key, rule)]
        rows = self._rows(lasting)
        self._lasting = different(rows[rows >= 0])

    def rules_changed(self, now_us: int) -> None:
        """Other limits may hold from now on: ask again."""
        if len(self):
            self._ask_after(now_us)

    def note(self, firing: Firing) -> None:
        """A rule has fired: if its condition may last, its target is asked about from now on."""
        self.hold(id_of(firing.target), firing.view.rule.rule, firing.time_us)

    def hold(self, key: str, rule: str, now_us: int) -> None:
        """A breaker is held by a rule: if that rule's condition may last, it is asked about from now on."""
        if rule in self._conditions:
            self._add(key, rule)
            self._ask_after(now_us)

    def touched(self, actor: Rows, stream: I64) -> None:
        """Take in a run of events: their actors' rows, and stream time at each, shape (n,)."""
        if len(self._lasting) == 0 or (self.at is not None and self.at <= self._grid(int(stream[0]) + self._ahead_us)):
            return
        mine = np.isin(actor, self._lasting)
        if mine.any():
            lasting = self._rows_lasting(set(different(actor[mine]).tolist()))
            first = np.isin(actor, lasting).nonzero()[0][:1]
            if len(first):
                self._ask_after(int(stream[first[0]]))

    def run(self, now_us: int) -> None:
        """Ask about everybody who is held."""
        until, lasting = NEVER, [np.empty(0, dtype=np.int64)]
        for rule, held in self._held.items():
            view, still_on = self._conditions[rule]
            for key in [key for key in held if not self._open(key, rule, now_us)]:
                del held[key]
            asked = list(held.values())
            rows = self._rows(asked)
            there = rows >= 0
            on = np.zeros(len(rows), dtype=np.bool_)
            on[there], changes = still_on(view, rows[there], now_us)
            for each, yes in zip(asked, on.tolist(), strict=True):
                self._tell(each, rule, now_us, on=yes)
            until = min(until, int(changes.min(initial=NEVER)))
            lasting.append(rows[on])
        self._lasting = different(np.concatenate(lasting))
        self.at = None if until == NEVER else max(self._grid(until), now_us + GRID_US)

    def leave(self, conditions: Clearing, now_us: int) -> None:
        """Other rules are in force: what they do not ask about any more counts as gone, or it would hold for ever.

        Args:
            conditions: what is asked from now on.
            now_us: stream time.
        """
        for rule, held in self._held.items():
            for each in held.values() if rule not in conditions._conditions else ():
                self._breakers.cleared(each.target, rule, Moment(now_us))

    # --- who is asked

    def _add(self, key: str, rule: str) -> None:
        if rule in self._conditions and key not in self._held[rule]:
            target = parse_breaker_id(key)
            if target.actor is not None:
                self._held[rule][key] = _Held(key, target)

    def _rows(self, asked: Sequence[_Held]) -> Rows:
        """The rows of these actors; looked up where that is not done yet, or another actor has the row by now."""
        rows = np.array([each.row for each in asked], dtype=np.int64)
        there = zip(self._actors["tenant"][rows].tolist(), self._actors["actor"][rows].tolist(), strict=True)
        stale = [
            i for i, (each, names) in enumerate(zip(asked, there, strict=True)) if each.row < 0 or each.names != names
        ]
        if stale:
            rows[stale] = self._identities.find_actors([asked[i].names for i in stale])
            for i in stale:
                asked[i].row = int(rows[i])
        return rows

    def _rows_lasting(self, rows: set[int]) -> list[int]:
        """Which of these rows are of actors whose condition is on by what their breakers say."""
        asked = [(rule, each) for rule, held in self._held.items() for each in held.values() if each.row in rows]
        return [each.row for rule, each in asked if self._known(each.key, rule)]

    # --- when

    def _ask_after(self, now_us: int) -> None:
        # Not within the piece that is being folded, wherever it was cut.
        due = self._grid(now_us + self._ahead_us)
        self.at = due if self.at is None else min(self.at, due)

    @staticmethod
    def _grid(time_us: int) -> int:
        return -(-time_us // GRID_US) * GRID_US

    # --- what breakers know

    def _open(self, key: str, rule: str, now_us: int) -> bool:
        row, virtual = self._breakers.get(key), self._breakers.virtual.get(key, rule)
        held = row is not None and row.hold_of(rule) is not None
        return held or (virtual is not None and virtual.is_open(now_us))

    def _known(self, key: str, rule: str) -> bool:
        """Whether a hold's condition is on already."""
        row, virtual = self._breakers.get(key), self._breakers.virtual.get(key, rule)
        held = None if row is None else row.hold_of(rule)
        return (held is not None and held.condition is Condition.ON) or (virtual is not None and virtual.on)

    def _tell(self, each: _Held, rule: str, now_us: int, *, on: bool) -> None:
        if not on:
            self._breakers.cleared(each.target, rule, Moment(now_us))
        elif not self._known(each.key, rule):
            self._breakers.burning(each.target, rule, Moment(now_us))
