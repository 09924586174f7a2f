"""Silent actors: sessions are requested of them, and nothing is heard.

Everything that comes from an actor answers, late events too: they show that it can be heard. Only requests that the
router accepted, and that are in time, count as questions. An actor is asked about at the tick at which its first
unanswered request has waited for long enough, though not within `CoreSettings.piece_us` of the request that makes them
enough; and again after each further request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import silence
from fuseboard_detectors.segments import different, owners, running_sum, stable_order
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.layout import EPOCH_S
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.ruleset import SilenceTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table
from fuseboard_streams.core.waiting import NEVER, SECOND, Waiting, due_family, whole_second

if TYPE_CHECKING:
    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

_NOBODY: Final = np.empty(0, dtype=np.int64)
SLOT: Final = "asked"
"""The actors' column that points at their row here."""


def requests_table(settings: CoreSettings) -> Table:
    """One row per actor of which a session has ever been requested."""
    key = Family("key", (Column("actor", "i4"),))
    heard = Family("heard", (Column("heard", "i8"),))
    # `ShardState` clears these when an actor begins anew.
    unanswered = Family("unanswered", (Column("requests", "i4"), Column("since", "i8")))
    return Table("requests", (key, heard, unanswered, due_family()), limit=settings.max_actors)


class Silence:
    """Follows who answers, for the rules on ``events.silent``."""

    def __init__(self, table: Table, actors: Table, book: Rulebook, settings: CoreSettings) -> None:
        self._table = table
        self._actors = actors
        self._ahead_us = settings.piece_us
        self._forget_us = settings.forget_after_us
        self._waiting = Waiting(table)
        self.views = book.asking(SilenceTest, Scope.ACTOR)
        self.wanted = bool(self.views)
        """Whether any rule asks."""

    # --- events

    def heard(self, actor: Rows, ts: I64) -> None:
        """Take in a run of events: their actors' rows and times, shape (n,)."""
        if not self.wanted or self._table.size == 0:
            return
        slots = self._actors[SLOT][actor].astype(np.int64)
        asked = places(slots >= 0)
        if len(asked) == 0:
            return
        rows, owner = np.unique(slots[asked], return_inverse=True)
        newest = self._table["heard"][rows]
        np.maximum.at(newest, owner, ts[asked])
        self._table.touch("heard", rows)
        self._table["heard"][rows] = newest
        self._answer(rows)

    def requested(self, actor: Rows, ts: I64, stream: I64, counted: Bools) -> None:
        """Take in a run of session requests.

        Args:
            actor: rows of the actors' table, shape (n,).
            ts: event times, shape (n,).
            stream: stream time at each, shape (n,).
            counted: whether it was accepted and is in time, shape (n,).
        """
        at = places(counted)
        if not self.wanted or len(at) == 0:
            return
        slots = self._slots(actor[at])
        order = stable_order(slots)
        at, starts = at[order], run_starts(slots[order])
        rows = slots[order][starts]
        table, owner = self._table, owners(starts, len(at))
        before = self._load(rows)
        state = self._load(rows)
        silence.fold(state, starts, ts[at], np.ones(len(at), dtype=np.bool_))
        changed = state.requests != before.requests
        table.touch("unanswered", rows[changed])
        table["requests"][rows[changed]] = state.requests[changed]
        table["since"][rows[changed]] = state.since[changed]
        unanswered = ts[at] > before.heard[owner]
        count = before.requests[owner] + running_sum(starts, unanswered.astype(np.int64))
        since = _lowest(starts, np.where(unanswered, ts[at], NEVER), np.where(before.requests > 0, before.since, NEVER))
        due = np.full(len(rows), NEVER, dtype=np.int64)
        enough, lasting = self._limits(rows)
        for requests, wait in zip(enough, lasting, strict=True):
            asking = places(unanswered & (count >= requests[owner]))
            when = np.maximum(since[asking] + wait[owner[asking]], stream[at[asking]] + self._ahead_us)
            np.minimum.at(due, owner[asking], whole_second(when))
        self._waiting.ask(rows, due)

    # --- ticks

    @property
    def next_tick(self) -> int | None:
        """When somebody is to be asked about; None if nobody is."""
        return self._waiting.next if self.wanted else None

    def advance(self, to_us: int) -> list[Firing]:
        """Run the tick at a time."""
        rows = self._waiting.take(to_us) if self.wanted else _NOBODY
        if len(rows) == 0:
            return []
        found: list[Firing] = []
        state = self._load(rows)
        later = np.full(len(rows), NEVER, dtype=np.int64)
        for view, requests, wait in zip(self.views, *self._limits(rows), strict=True):
            enough = state.requests >= requests
            silent = places(enough & (state.since + wait <= to_us))
            found += [
                self._fired(view, int(rows[i]), int(state.requests[i]), int(state.since[i]), to_us) for i in silent
            ]
            # A rule that waits for longer is asked when its own time has come.
            ahead = enough & (state.since + wait > to_us)
            later[ahead] = np.minimum(later[ahead], whole_second(state.since + wait)[ahead])
        self._waiting.ask(rows, later)
        return found

    def still_on(self, view: RuleView, actor: Rows, now_us: int) -> tuple[Bools, I64]:
        """Whether actors are silent at a time, and until when that cannot change by itself, shape (n,) each."""
        on, until = np.zeros(len(actor), dtype=np.bool_), np.full(len(actor), NEVER, dtype=np.int64)
        number = np.array([self._variant(view, row) for row in actor.tolist()], dtype=np.int64)
        slots = self._actors[SLOT][actor].astype(np.int64)
        for variant in different(number[number != NONE]).tolist():
            test = view.test(variant, SilenceTest)
            mine = places((number == variant) & (slots >= 0))
            state = self._load(slots[mine])
            # Whoever has been idle for so long is forgotten, be its row still there or not.
            seen = self._actors["last_seen"][actor[mine]].astype(np.int64) + EPOCH_S
            known = now_us // SECOND - seen <= self._forget_us // SECOND
            on[mine] = known & silence.silent(state, now_us, requests=test.requests, lasting_us=test.lasting_us)
            until[mine] = np.where(on[mine], (seen + self._forget_us // SECOND + 1) * SECOND, NEVER)
        return on, until

    def forget(self) -> None:
        """Begin anew with every actor."""
        self._answer(places(self._table["requests"] > 0))

    def rebuild(self) -> None:
        """Find who is to be asked about, after a restore or a rollback."""
        self._waiting.rebuild()

    # --- rows

    def _answer(self, rows: Rows) -> None:
        some = rows[self._table["requests"][rows] > 0]
        if len(some):
            self._table.touch("unanswered", some)
            self._table["requests"][some] = 0
            self._table["since"][some] = 0
            self._waiting.forget(some)

    def _load(self, rows: Rows) -> silence.Unanswered:
        table = self._table
        return silence.Unanswered(table["heard"][rows], table["requests"][rows].astype(np.int64), table["since"][rows])

    def _slots(self, actor: Rows) -> Rows:
        """The rows of these actors, made where they are missing."""
        slots = self._actors[SLOT][actor].astype(np.int64)
        new = different(actor[slots < 0])
        if len(new):
            made = self._table.allocate(len(new))
            self._table.touch("key", made)
            self._table["actor"][made] = new
            self._actors.touch("slots", new)
            self._actors[SLOT][new] = made
            slots = self._actors[SLOT][actor].astype(np.int64)
        return slots

    def _limits(self, rows: Rows) -> tuple[list[I64], list[I64]]:
        """For each rule how many requests, and how long a wait, are too many for each of these rows."""
        enough, lasting = [], []
        for view in self.views:
            tests = [view.test(number, SilenceTest) for number in range(len(view.variants))]
            # Whom a rule is not for is never asked too often; it is the last place, which is that of `NONE`.
            least = np.array([*(test.requests for test in tests), NEVER], dtype=np.int64)
            wait = np.array([*(test.lasting_us for test in tests), 0], dtype=np.int64)
            number = np.array([self._variant(view, actor) for actor in self._table["actor"][rows].tolist()])
            enough.append(least[number])
            lasting.append(wait[number])
        return enough, lasting

    def _variant(self, view: RuleView, actor: int) -> int:
        if view.plain:
            return 0
        return view.number(str(self._actors["tenant"][actor]), str(self._actors["actor"][actor]))

    def _fired(self, view: RuleView, row: int, requests: int, since: int, now_us: int) -> Firing:
        actor = int(self._table["actor"][row])
        waited = (now_us - since) // SECOND
        facts = Facts(
            f"nothing was heard for {waited} s after {requests} sessions were requested", value=float(waited),
            since_us=since,
        )  # fmt: skip
        target = Target(Scope.ACTOR, str(self._actors["tenant"][actor]), str(self._actors["actor"][actor]))
        return Firing(0, now_us, view, self._variant(view, actor), target, facts)


def _lowest(starts: NDArray[np.intp], values: I64, before: I64) -> I64:
    """The lowest value of each segment up to and with each element, and before it."""
    values = values.copy()
    values[starts] = np.minimum(values[starts], before)
    known = values[values < NEVER]
    if len(known) == 0:
        return values
    # Each segment in a range of its own, below that of the one before it: one pass that begins anew in each.
    low = int(known.min())
    span = int(known.max()) - low + 2
    shift = (len(starts) - 1 - owners(starts, len(values))) * span
    found: I64 = np.minimum.accumulate(np.where(values < NEVER, values - low, span - 1) + shift) - shift
    return np.where(found == span - 1, NEVER, found + low)
