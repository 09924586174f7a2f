"""Traced sessions: of which of an actor's requested sessions is any event heard?

A session counts once, at its request; requested again within the grace, it is still the same. It has shown itself when
an event of its actor names it within the grace of the request, before or after: router and agent have clocks of their
own. Late events show it too. What is heard of actors of which no session was requested within the window is not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.segments import firsts, stable_order
from fuseboard_streams.core.measured import owner_of
from fuseboard_streams.core.ruleset import TRACED, ObjectiveTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_streams.core.measured import Measured
    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Rows: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


def coverage_table(settings: CoreSettings) -> Table:
    """One row per session of an actor, and objective, that was requested or heard lately."""
    key = Family("key", (Column("session", "u8"), Column("owner", "u8"), Column("measure", "u8")))
    # Times of 0 stand for none; ``until`` is the stream time from which on nothing here is true any more.
    known = Family(
        "known",
        (
            Column("heard", "i8"),
            Column("requested", "i8"),
            Column("counted", "i8"),
            Column("shown", "u1"),
            Column("until", "i8"),
        ),
    )
    return Table("coverage", (key, known), limit=settings.max_sessions, key=("session", "owner"))


@dataclass(frozen=True, slots=True)
class Named:
    """n events in order that name a session; every array has shape (n,)."""

    actor: Rows
    session: U64
    """A hash, not 0."""
    ts: I64
    stream: I64

    def take(self, at: NDArray[np.intp] | Bools) -> Named:
        """Some of the events."""
        return Named(self.actor[at], self.session[at], self.ts[at], self.stream[at])


class Coverage:
    """Follows which sessions show themselves, for the objectives on ``sessions.traced``."""

    def __init__(
        self,
        table: Table,
        measured: Measured,
        book: Rulebook,
        settings: CoreSettings,
        refer: Callable[[Rows, int], None],
    ) -> None:
        self._table = table
        self._measured = measured
        self._refer = refer
        self._late_us = settings.late_after_us
        self.views = book.measuring(TRACED)
        self.untracked = 0
        """Requests and events of sessions beyond the limit, which are not followed."""

    def requested(self, requests: Named) -> None:
        """Take in session requests that were accepted and are in time."""
        for view in self.views:
            grace = self._grace(view, requests.actor)
            rows = self._rows(view, requests)
            known = rows >= 0
            if known.any():
                self._requested(view, requests.take(known), rows[known], grace[known])

    def heard(self, actor: Rows, ts: I64, stream: I64, sessions: Callable[[NDArray[np.intp]], U64]) -> None:
        """Take in any other events, late ones too; every array has shape (n,).

        Args:
            actor: Rows of the actors' table.
            ts: When each happened.
            stream: Stream time at each.
            sessions: Hashes of the sessions that the events at some places name, 0 for none.
        """
        for view in self.views:
            asked = places(self._measured.has(view, owner_of(actor), stream))
            if len(asked) == 0:
                continue
            session = sessions(asked)
            named = session != 0
            at = asked[named]
            events = Named(actor[at], session[named], ts[at], stream[at])
            rows = self._rows(view, events)
            known = rows >= 0
            if known.any():
                events = events.take(known)
                self._heard(view, events, rows[known], self._grace(view, events.actor))

    def _requested(self, view: RuleView, requests: Named, rows: Rows, grace: I64) -> None:
        table = self._table
        self._begin(rows, requests.stream)
        order = stable_order(rows)
        first = run_starts(rows[order])
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
        new, shown = np.zeros(len(rows), dtype=np.bool_), np.zeros(len(rows), dtype=np.bool_)
        for turn in range(int(rank.max()) + 1):
            at = places(rank == turn)
            row, ts = rows[at], requests.ts[at]
            before, heard = table["requested"][row], table["heard"][row]
            new[at] = (before == 0) | (np.abs(ts - before) > grace[at])
            shown[at] = (heard != 0) & (np.abs(heard - ts) <= grace[at])
            fresh = at[new[at]]
            table["requested"][rows[fresh]] = requests.ts[fresh]
            table["counted"][rows[fresh]] = requests.stream[fresh]
            table["shown"][rows[fresh]] = shown[fresh]
        table["until"][rows] = requests.stream + 2 * grace + self._late_us
        self._measured.fold(view, owner_of(requests.actor[new]), requests.stream[new], ~shown[new])

    def _heard(self, view: RuleView, events: Named, rows: Rows, grace: I64) -> None:
        table = self._table
        self._begin(rows, events.stream)
        requested = table["requested"][rows]
        shows = (requested != 0) & (table["shown"][rows] == 0) & (np.abs(events.ts - requested) <= grace)
        np.maximum.at(table["heard"], rows, events.ts)
        table["until"][rows] = events.stream + 2 * grace + self._late_us
        at = places(shows)
        if len(at) == 0:
            return
        unique, first = firsts(rows[at])
        table["shown"][unique] = 1
        at = at[first]
        self._measured.take_back(view, owner_of(events.actor[at]), table["counted"][unique], events.stream[at])

    def _begin(self, rows: Rows, stream: I64) -> None:
        """Note that rows change, and begin those anew of which nothing is true any more; rows may repeat."""
        table = self._table
        table.touch("known", rows)
        # Only a row's first event of the run can find it so.
        unique, first = firsts(rows)
        old = unique[table["until"][unique] <= stream[first]]
        for name in ("heard", "requested", "counted", "shown"):
            table[name][old] = 0

    # --- rows

    def _grace(self, view: RuleView, actor: Rows) -> I64:
        """How long each of these actors' sessions have to show themselves, shape (n,)."""
        graces = np.array([view.test(i, ObjectiveTest).grace_us for i in range(len(view.variants))], dtype=np.int64)
        if (graces == graces[0]).all():
            return np.full(len(actor), graces[0])
        unique, inverse = np.unique(actor, return_inverse=True)
        found: I64 = graces[self._measured.variants(view, owner_of(unique))][inverse]
        return found

    def _rows(self, view: RuleView, events: Named) -> Rows:
        """The rows of the sessions that events name, made where they are missing; -1 where there is no room."""
        table = self._table
        unique, inverse = np.unique(events.actor, return_inverse=True)
        numbers = self._measured.numbers(view, owner_of(unique))[inverse]
        session = events.session ^ numbers
        owner = events.actor.astype(np.uint64)
        rows = table.find(session, owner).astype(np.int64)
        missing = places(rows < 0)
        if len(missing):
            rows[missing], new = table.add_missing(session[missing], owner[missing])
            made = missing[new]
            self._refer(owner[made].astype(np.int64), 1)
            table["measure"][rows[made]] = numbers[made]
        self.untracked += int(np.count_nonzero(rows < 0))
        return rows

    def forget(self) -> None:
        """Drop what is followed for no objective in force, in a transaction."""
        table = self._table
        rows = places(table.live)
        rows = rows[~self._measured.in_force(table["measure"][rows])]
        if len(rows):
            self._refer(table["owner"][rows].astype(np.int64), -1)
            table.free(rows)


def outdated(table: Table, rows: NDArray[np.int32], now_us: int) -> Bools:
    """Which rows of a table with the column ``until`` say nothing any more."""
    found: Bools = table["until"][rows] < now_us
    return found
