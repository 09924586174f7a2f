"""What actors spend: hard caps event by event (`hard_caps`), budgets that burn at ticks of stream time.

A tick is a whole second. An actor is asked at the first tick after it has spent something: between two spendings its
windows only empty, so that no other tick could find it burning. Who is being held for burning is asked by `clearing`
as well, because only time can show that it has stopped.

The windows of an actor are shared by all rules: a rule that comes into force notes since when it counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import burn
from fuseboard_detectors.segments import different, stable_order
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.hard_caps import Costs, HardCaps, usd
from fuseboard_streams.core.per_actor import NONE, PerActor
from fuseboard_streams.core.ruleset import BurnTest
from fuseboard_streams.core.runs import places, run_starts
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuseboard_streams.core.firing import Settled
    from fuseboard_streams.core.objects import Objects
    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.int64]

SECOND: Final = 1_000_000
CELL_US: Final = burn.RINGS[0][0]
_NOBODY: Final = np.empty(0, dtype=np.int64)
SLOT: Final = "spend"
"""The actors' column that points at their row here."""
_SINCE: Final = "since"
"""Objects of the state: from when on a rule counts, microseconds, by what names its state."""


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
        ),
    )
    rings = Family("rings", (Column("cells", "i8", width=burn.CELLS), Column("newest", "i8")))
    due = Family("due", (Column("due", "i8"),), volatile=True)
    return Table("spends", (key, now, rings, due), limit=settings.max_actors)


class Spending:
    """Follows what actors spend, for the rules on ``spend.usd``."""

    def __init__(
        self, table: Table, actors: Table, book: Rulebook, hard_caps: HardCaps, objects: Objects, settled: Settled
    ) -> None:
        self._table = table
        self._settled = settled
        self._actors = actors
        self._objects = objects
        self.caps = hard_caps
        self._rules = tuple(PerActor(actors, view) for view in book.asking(BurnTest, Scope.ACTOR))
        self.burns = tuple(rule.view for rule in self._rules)
        self.wanted = bool(self._rules or hard_caps.wanted)
        """Whether any rule asks what is spent."""
        self._waiting: Rows = _NOBODY

    # --- events

    def fold(self, costs: Costs) -> list[Firing]:
        """Take in what a run of events costs, and run the ticks up to its last event."""
        found: list[Firing] = []
        paid = places(costs.counted & (costs.micro_usd > 0))
        if len(paid):
            found += self.caps.fold(costs, paid)
            if self._rules:
                slots = self._slots(costs.actor[paid])
                self._table.touch("now", slots)
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

    def still_on(self, view: RuleView, actor: Rows, now_us: int) -> tuple[Bools, I64]:
        """Whether actors burn their budgets at a time, and until when that cannot change by itself, shape (n,) each."""
        rule = next(each for each in self._rules if each.view is view)
        number, slots = rule.numbers(actor), self._actors[SLOT][actor].astype(np.int64)
        on, until = np.zeros(len(actor), dtype=np.bool_), np.full(len(actor), burn.NEVER, dtype=np.int64)
        have = places((slots >= 0) & (number != NONE))
        state = self._at(slots[have], np.full(len(have), now_us))
        for variant, some, part in _by_variant(number[have], state):
            test, since = view.test(variant, BurnTest), self.since(view.bases[0])
            on[have[some]] = burn.burning(part, test.budget_micro_usd, test.pairs, since)
            until[have[some]] = burn.lasts_until(part, test.budget_micro_usd, test.pairs, since)
        return on, until

    # --- since when a rule counts

    @property
    def bases(self) -> frozenset[int]:
        """What names the state of the rules in force."""
        return frozenset(view.bases[0] for view in self.burns)

    def change(self, before: frozenset[int], now_us: int) -> None:
        """Other rules come into force: new ones begin to count. What no rule asks for any more is dropped.

        Args:
            before: `bases` of the rules that were in force.
            now_us: stream time.
        """
        for basis in sorted(before - self.bases):
            self._objects.delete(_SINCE, f"{basis:016x}")
        for basis in sorted(self.bases - before):
            self._objects.put(_SINCE, f"{basis:016x}", str(now_us).encode())
        self.caps.forget_unasked()
        if not self._rules:
            actors = places(self._actors[SLOT] >= 0)
            self._actors.touch("slots", actors)
            self._actors[SLOT][actors] = -1
            self._table.free(places(self._table.live))
            self._waiting = _NOBODY

    def since(self, basis: int) -> int:
        """From when on a rule counts, microseconds of stream time; 0: from the beginning.

        Args:
            basis: What names its state. Budget and windows are levels: all variants of a rule have the same.
        """
        value = self._objects.get(_SINCE, f"{basis:016x}")
        return 0 if value is None else int(value)

    # --- undo and restore

    def rebuild(self, stream_time: int) -> None:
        """Find who is to be asked at the next tick, after a restore or a rollback."""
        waiting = places(self._table["waiting"][: self._table.high_water] > 0)
        self._waiting = waiting.astype(np.int64)
        self._table["due"][waiting] = tick_after(stream_time)
        self._table.restore_used("due", waiting)

    # --- burn rates

    def _fold_burns(self, costs: Costs, paid: NDArray[np.intp], slots: Rows) -> list[Firing]:
        """Add what was spent tick by tick, asking each actor before its next tick begins."""
        order = stable_order(slots)
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
        position = np.searchsorted(stream, due)
        found = []
        for rule in self._rules:
            view, since = rule.view, self.since(rule.view.bases[0])
            actors = table["actor"][rows].astype(np.int64)
            number = rule.numbers(actors)
            for variant, some, part in _by_variant(number, state):
                test = view.test(variant, BurnTest)
                for i, pair, spent in _who_burns(test, part, since):
                    now = int(due[some[i]])
                    target = Target(Scope.ACTOR, *rule.names(int(actors[some[i]])))
                    # Whoever is known to burn is not looked at second by second; `clearing` asks when that is over. It
                    # does so since the condition was found on: budgets recover by quiet or a person, never by probes.
                    if self._settled(view, variant, target, now, None):
                        continue
                    facts = _burn_facts(test, pair, spent, now)
                    found.append(Firing(int(position[some[i]]), now, view, variant, target, facts))
        return found

    # --- rows

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


def tick_after(time_us: Any) -> Any:  # noqa: ANN401 - a time, or an array of them
    """The tick at which what happens at a time is asked about: the next whole second after it."""
    return (time_us // SECOND + 1) * SECOND


def _by_variant(number: I64, state: burn.Spending) -> Iterator[tuple[int, NDArray[np.intp], burn.Spending]]:
    """The keys of each variant: its number, their places, and their part of the state."""
    for variant in different(number[number != NONE]).tolist():
        some = places(number == variant)
        yield variant, some, burn.Spending(state.cells[some], state.newest[some])


def _who_burns(test: BurnTest, state: burn.Spending, since: int) -> list[tuple[int, burn.BurnPair, int]]:
    """The keys that burn their budget, each with the first pair of windows that says so, and what was spent in it."""
    found: list[tuple[int, burn.BurnPair, int]] = []
    left = np.arange(len(state.newest))
    for pair in test.pairs:
        some = burn.Spending(state.cells[left], state.newest[left])
        burns = burn.burning(some, test.budget_micro_usd, (pair,), since)
        spent = burn.within(some, pair.long_us, since)
        found += [(int(left[i]), pair, int(spent[i])) for i in places(burns).tolist()]
        left = left[~burns]
    return sorted(found, key=lambda each: each[0])


def _burn_facts(test: BurnTest, pair: burn.BurnPair, spent: int, now: int) -> Facts:
    share = 100 * spent / test.budget_micro_usd
    reason = (
        f"spent {usd(spent)} within {pair.long_us // SECOND} s, {share:.3g}% of a budget of "
        f"{usd(test.budget_micro_usd)}"
    )
    return Facts(reason, value=spent / 1e6, since_us=now - pair.long_us)


__all__ = ["Costs", "Spending", "spends_table"]
