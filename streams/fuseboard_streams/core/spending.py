"""What actors spend: hard caps event by event, budgets that burn at ticks of stream time.

A tick is a whole second. An actor is asked at the first tick after it has spent something: between two spendings its
windows only empty, so that no other tick could find it burning. Who is being held for burning is also asked on a grid
of `GRID_US`, because only time can show that it has stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import burn
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.ruleset import BurnTest, CapTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]

SECOND: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND
GRID_US: Final = 5 * SECOND
CELL_US: Final = burn.RINGS[0][0]
_NOBODY: Final = np.empty(0, dtype=np.int64)
SLOT: Final = "spend"
"""The actors' column that points at their row here."""


def spends_table(settings: CoreSettings) -> Table:
    """One row per actor that has ever spent something.

    What is spent in the five seconds under way is a sum of its own, so that an ordinary spending changes some twenty
    bytes and not all the rings.
    """
    key = Family("key", (Column("actor", "i4"),))
    now = Family(
        "now",
        (
            Column("waiting", "u1"),
            Column("cell", "i4"),
            Column("sum", "i8"),
            Column("day", "i4"),
            Column("spent", "i8"),
        ),
    )
    rings = Family("rings", (Column("cells", "i8", width=burn.CELLS), Column("newest", "i8")))
    due = Family("due", (Column("due", "i8"),), volatile=True)
    return Table("spends", (key, now, rings, due), limit=settings.max_actors)


@dataclass(frozen=True, slots=True)
class Costs:
    """What n events cost, in order; every array has shape (n,)."""

    actor: Rows
    """Rows of the actors' table."""
    micro_usd: I64
    ts: I64
    stream: I64
    """Stream time once the event has been seen."""
    counted: NDArray[np.bool_]
    """Whether it is in time."""


class Spending:
    """Follows what actors spend, for the rules on ``spend.usd``."""

    def __init__(self, table: Table, actors: Table, book: Rulebook) -> None:
        self._table = table
        self._actors = actors
        self.burns = book.asking(BurnTest, Scope.ACTOR)
        caps = book.asking(CapTest, Scope.ACTOR)
        self._event_caps = tuple(view for view in caps if not view.test(0, CapTest).daily)
        self._day_caps = tuple(view for view in caps if view.test(0, CapTest).daily)
        self.wanted = bool(self.burns or caps)
        """Whether any rule asks what is spent."""
        self._waiting: Rows = _NOBODY

    # --- events

    def fold(self, costs: Costs) -> list[Firing]:
        """Take in what a run of events costs, and run the ticks up to its last event."""
        found: list[Firing] = []
        paid = places(costs.counted & (costs.micro_usd > 0))
        if len(paid):
            found += self._over_event_caps(costs, paid)
            slots = self._slots(costs.actor[paid])
            self._table.touch("now", slots)
            found += self._over_day_caps(costs, paid, slots)
            if self.burns:
                found += self._fold_burns(costs, paid, slots)
        return found + self._run_ticks(int(costs.stream[-1]), costs.stream)

    def pass_time(self, stream: I64) -> list[Firing]:
        """Run the ticks up to the last of a run of events in which nothing was spent; stream time at each."""
        return self._run_ticks(int(stream[-1]), stream)

    def advance(self, to_us: int) -> list[Firing]:
        """Run the tick that is still to come, if it lies at or before a time."""
        return self._run_ticks(to_us, np.empty(0, dtype=np.int64))

    @property
    def next_tick(self) -> int | None:
        """When somebody is to be asked next; None if nobody is."""
        return int(self._table["due"][self._waiting].min()) if len(self._waiting) else None

    # --- holds

    def still_burning(self, view: RuleView, actor: int, now_us: int) -> bool:
        """Whether an actor burns its budget at a time."""
        slot = int(self._actors[SLOT][actor])
        number = self._variant(view, actor)
        if slot < 0 or number == NONE:
            return False
        state = self._at(np.array([slot]), np.array([now_us]))
        test = view.test(number, BurnTest)
        return bool(burn.burning(state, test.budget_micro_usd, test.pairs)[0])

    # --- undo and restore

    def rebuild(self, stream_time: int) -> None:
        """Find who is to be asked at the next tick, after a restore or a rollback."""
        waiting = places(self._table["waiting"][: self._table.high_water] > 0)
        self._waiting = waiting.astype(np.int64)
        self._table["due"][waiting] = tick_after(stream_time)
        self._table.restore_used("due", waiting)

    # --- caps

    def _over_event_caps(self, costs: Costs, paid: NDArray[np.intp]) -> list[Firing]:
        found = []
        for view in self._event_caps:
            least = min(each.test.micro_usd for each in view.variants if isinstance(each.test, CapTest))
            for at in paid[costs.micro_usd[paid] > least].tolist():
                actor, cost = int(costs.actor[at]), int(costs.micro_usd[at])
                number = self._variant(view, actor)
                if number != NONE and cost > view.test(number, CapTest).micro_usd:
                    limit = view.test(number, CapTest).micro_usd
                    reason = f"one event cost {usd(cost)}, the limit is {usd(limit)}"
                    facts = Facts(reason, value=cost / 1e6, since_us=int(costs.stream[at]))
                    until = next_day(int(costs.stream[at]))
                    found.append(self._fired(view, number, actor, at, int(costs.stream[at]), facts, until))
        return found

    def _over_day_caps(self, costs: Costs, paid: NDArray[np.intp], slots: Rows) -> list[Firing]:
        """Whose sum of the day these events carry over a limit."""
        if not self._day_caps:
            return []
        order = np.argsort(slots, kind="stable")
        slot, at = slots[order], paid[order]
        day = costs.stream[at] // DAY_US
        starts = run_starts((slot << np.int64(24)) + day)
        heads = slot[starts]
        table = self._table
        cost = costs.micro_usd[at]
        total = np.cumsum(cost)
        carried = np.where(table["day"][heads] == day[starts], table["spent"][heads], 0)
        # An actor with events on both sides of midnight has two stretches: the second one begins at nothing.
        carried[1:][heads[1:] == heads[:-1]] = 0
        lengths = np.diff(np.append(starts, len(slot)))
        after = total - np.repeat(total[starts] - cost[starts] - carried, lengths)
        ends = starts + lengths - 1
        table["day"][heads] = day[ends]
        table["spent"][heads] = after[ends]
        found: list[Firing] = []
        for view in self._day_caps:
            least = min(each.test.micro_usd for each in view.variants if isinstance(each.test, CapTest))
            for i in places(after > least).tolist():
                found += self._crossed(view, costs, int(at[i]), int(after[i] - cost[i]), int(after[i]))
        return found

    def _crossed(self, view: RuleView, costs: Costs, at: int, before: int, after: int) -> Iterable[Firing]:
        actor, now = int(costs.actor[at]), int(costs.stream[at])
        number = self._variant(view, actor)
        if number == NONE:
            return
        limit = view.test(number, CapTest).micro_usd
        if before <= limit < after:
            reason = f"spent {usd(after)} since midnight UTC, the limit of a day is {usd(limit)}"
            facts = Facts(reason, value=after / 1e6, since_us=now // DAY_US * DAY_US)
            yield self._fired(view, number, actor, at, now, facts, next_day(now))

    # --- burn rates

    def _fold_burns(self, costs: Costs, paid: NDArray[np.intp], slots: Rows) -> list[Firing]:
        """Add what was spent tick by tick, asking each actor before its next tick begins."""
        order = np.argsort(slots, kind="stable")
        slot, at = slots[order], paid[order]
        tick = tick_after(costs.stream[at])
        begins = np.ones(len(slot), dtype=np.bool_)
        begins[1:] = (slot[1:] != slot[:-1]) | (tick[1:] != tick[:-1])
        group = np.cumsum(begins) - 1
        starts = places(begins)
        first = run_starts(slot[starts])
        rank = np.arange(len(starts)) - np.repeat(first, np.diff(np.append(first, len(starts))))
        found: list[Firing] = []
        for turn in range(int(rank.max()) + 1):
            chosen = places(rank == turn)
            rows, ticks = slot[starts[chosen]], tick[starts[chosen]]
            due = self._table["due"][rows]
            found += self._ask(rows[(due > 0) & (due < ticks)], costs.stream)
            mine = places(rank[group] == turn)
            self._add(rows, ticks, np.searchsorted(chosen, group[mine]), costs.ts[at[mine]], costs.micro_usd[at[mine]])
        self._waiting = np.union1d(self._waiting, slot)
        return found

    def _add(self, rows: Rows, ticks: I64, key: NDArray[np.intp], ts: I64, micro_usd: I64) -> None:
        """Add what some actors spent before their ticks: ``key`` says which of the rows each amount belongs to."""
        table = self._table
        table.touch("due", rows)
        cell = (ticks - 1) // CELL_US
        moved = places(table["cell"][rows] != cell)
        self._settle(rows[moved])
        table["cell"][rows] = cell
        table["waiting"][rows] = 1
        table["due"][rows] = ticks
        recent = ts // CELL_US == cell[key]
        np.add.at(table["sum"], rows[key[recent]], micro_usd[recent])
        earlier = places(~recent)
        if len(earlier):
            self._put(rows[key[earlier]], ticks[key[earlier]], ts[earlier], micro_usd[earlier])

    def _settle(self, rows: Rows) -> None:
        """Put the sums of cells that are over into the rings."""
        table = self._table
        some = rows[table["sum"][rows] > 0]
        if len(some):
            begun = table["cell"][some].astype(np.int64) * CELL_US
            self._put(some, begun, begun, table["sum"][some])
            table["sum"][some] = 0

    def _put(self, rows: Rows, now: I64, ts: I64, micro_usd: I64) -> None:
        """Add amounts to the rings; rows may repeat."""
        table = self._table
        unique, key = np.unique(rows, return_inverse=True)
        table.touch("rings", unique)
        latest = np.zeros(len(unique), dtype=np.int64)
        np.maximum.at(latest, key, now)
        state = burn.Spending(table["cells"][unique], table["newest"][unique])
        burn.roll(state, latest)
        burn.spend(state, key, ts, micro_usd)
        table["cells"][unique], table["newest"][unique] = state.cells, state.newest

    def _at(self, rows: Rows, now: I64) -> burn.Spending:
        """The rings of some rows at a time, with what has not been put into them yet."""
        table = self._table
        state = burn.Spending(table["cells"][rows], table["newest"][rows])
        burn.roll(state, now)
        burn.spend(state, np.arange(len(rows)), table["cell"][rows].astype(np.int64) * CELL_US, table["sum"][rows])
        return state

    def _run_ticks(self, end: int, stream: I64) -> list[Firing]:
        """Ask everybody whose tick has come."""
        if len(self._waiting) == 0:
            return []
        due = self._table["due"][self._waiting]
        found = self._ask(self._waiting[(due > 0) & (due <= end)], stream)
        self._waiting = self._waiting[due > end]
        return found

    def _ask(self, rows: Rows, stream: I64) -> list[Firing]:
        """Who of these burns, each at its own tick."""
        if len(rows) == 0:
            return []
        table = self._table
        due = table["due"][rows]
        table.touch("now", rows)
        table.touch("due", rows)
        table["waiting"][rows] = 0
        table["due"][rows] = 0
        state = self._at(rows, due)
        found = []
        for view in self.burns:
            for i in self._burning(view, rows, state).tolist():
                actor, now = int(table["actor"][rows[i]]), int(due[i])
                number = self._variant(view, actor)
                facts = _burn_facts(view.test(number, BurnTest), state, i, now)
                position = int(np.searchsorted(stream, now))
                found.append(Firing(position, now, view, number, self._target(actor), facts))
        return found

    def _burning(self, view: RuleView, rows: Rows, state: burn.Spending) -> NDArray[np.intp]:
        if view.plain:
            test = view.test(0, BurnTest)
            return places(burn.burning(state, test.budget_micro_usd, test.pairs))
        numbers = np.array([self._variant(view, actor) for actor in self._table["actor"][rows].tolist()])
        hit = np.zeros(len(rows), dtype=np.bool_)
        for number in np.unique(numbers[numbers != NONE]).tolist():
            some = places(numbers == number)
            test = view.test(number, BurnTest)
            part = burn.Spending(state.cells[some], state.newest[some])
            hit[some] = burn.burning(part, test.budget_micro_usd, test.pairs)
        return places(hit)

    # --- rows

    def _slots(self, actor: Rows) -> Rows:
        """The rows of these actors, made where they are missing."""
        slots = self._actors[SLOT][actor].astype(np.int64)
        new = np.unique(actor[slots < 0])
        if len(new):
            made = self._table.allocate(len(new))
            self._table.touch("key", made)
            self._table["actor"][made] = new
            self._actors.touch("slots", new)
            self._actors[SLOT][new] = made
            slots = self._actors[SLOT][actor].astype(np.int64)
        return slots

    def _variant(self, view: RuleView, actor: int) -> int:
        return view.number(str(self._actors["tenant"][actor]), str(self._actors["actor"][actor]))

    def _target(self, actor: int) -> Target:
        return Target(Scope.ACTOR, str(self._actors["tenant"][actor]), str(self._actors["actor"][actor]))

    def _fired(self, view: RuleView, number: int, actor: int, at: int, now: int, facts: Facts, until_us: int) -> Firing:
        return Firing(at, now, view, number, self._target(actor), facts, decided=at, until_us=until_us)


def usd(micro_usd: int) -> str:
    """An amount as people read it."""
    whole, rest = divmod(micro_usd, 1_000_000)
    return f"${whole}.{rest:06d}".rstrip("0").ljust(len(f"${whole}.00"), "0")


def next_day(time_us: int) -> int:
    """The next midnight by UTC after a time."""
    return (time_us // DAY_US + 1) * DAY_US


def tick_after(time_us: Any) -> Any:  # noqa: ANN401 - a time, or an array of them
    """The tick at which what happens at a time is asked about: the next whole second after it."""
    return (time_us // SECOND + 1) * SECOND


def _burn_facts(test: BurnTest, state: burn.Spending, i: int, now: int) -> Facts:
    one = burn.Spending(state.cells[i : i + 1], state.newest[i : i + 1])
    pair = next(each for each in test.pairs if burn.burning(one, test.budget_micro_usd, (each,))[0])
    spent = int(burn.within(one, pair.long_us)[0])
    share = 100 * spent / test.budget_micro_usd
    reason = (
        f"spent {usd(spent)} within {pair.long_us // SECOND} s, {share:.3g}% of a budget of "
        f"{usd(test.budget_micro_usd)}"
    )
    return Facts(reason, value=spent / 1e6, since_us=now - pair.long_us)
