"""Failure statistics of single rules: one for each target and rule, on events of the rule's own making.

A trip begins the statistic anew, and what began before it belongs to it: such events do not count any more. What was
learned stays. A change of the rules is noticed at a target's next event, as with failing tools, and so is that a target
was idle for so long that it is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors.arithmetic import log10
from fuseboard_detectors.segments import different, firsts
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.layout import hot_family, in_force, statistic_columns
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.ruleset import ExceedTest, FailureTest
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.statistics import FAILURE, SUCCESS, Entries, Finding, Statistic
from fuseboard_streams.core.tables import Column, Family, Table
from fuseboard_streams.core.variants import state_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuseboard_detectors.failure import FailureParams
    from fuseboard_schemas.keys import Target
    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.settings import CoreSettings

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Bools: TypeAlias = NDArray[np.bool_]
Rows: TypeAlias = NDArray[np.int64]
Words: TypeAlias = "Callable[[Finding, Target], str]"
"""What a finding on a target is called, in one line."""


def rates_table(name: str, settings: CoreSettings, limit: int, *more: Family) -> Table:
    """One row per owner, a row of another table, and rule; ``salt`` is a hash of the names of both.

    Events that began at ``since`` or before do not count.
    """
    key = Family("key", (Column("owner", "u8"), Column("rule_id", "u8"), Column("salt", "u8"), *in_force()))
    columns = statistic_columns(len(settings.failure.odds))
    stat = Family("stat", (*columns, Column("since", "i8")))
    return Table(name, (key, hot_family(), stat, *more), limit=limit, key=("owner", "rule_id"))


@dataclass(frozen=True, slots=True)
class Trials:
    """n Bernoulli events in order; every array has shape (n,)."""

    position: NDArray[np.intp]
    """In the run of events that they come from."""
    row: Rows
    failed: Bools
    at: I64
    """Event time in microseconds."""
    began: I64
    """When what it is about began."""
    stream: I64

    def take(self, chosen: NDArray[np.intp] | Bools) -> Trials:
        """Some of them."""
        return Trials(
            self.position[chosen], self.row[chosen], self.failed[chosen], self.at[chosen], self.began[chosen],
            self.stream[chosen],
        )  # fmt: skip


class _Level:
    """The settings of every variant of every rule, by its number."""

    general = False

    def __init__(self, params: Sequence[FailureParams]) -> None:
        self._params = params

    def params(self, number: int) -> FailureParams:
        return self._params[number]


class Rates:
    """The statistics of the rules of one kind.

    Args:
        table: Of `rates_table`.
        views: The rules.
        book: Theirs.
        names: Tenant, actor and tool of an owner's row.
        refer: Notes that so many rows more, or fewer, point at these owners.
        forget_after_us: An owner's row without an event for longer begins anew.
        emptied: Told of the rows that begin anew, or are about to be freed.
    """

    def __init__(
        self,
        table: Table,
        views: Sequence[RuleView],
        book: Rulebook,
        names: Callable[[int], tuple[str, str, str]],
        refer: Callable[[Rows, int], None],
        forget_after_us: int,
        emptied: Callable[[Rows], None] = lambda rows: None,
    ) -> None:
        self.table = table
        self._views = views
        self._book = book
        self._names = names
        self._refer = refer
        self._emptied = emptied
        self._idle_s = forget_after_us // SECOND
        self._ids = tuple(np.uint64(_hash(view.rule.rule)) for view in views)
        self.variants = tuple((view, number) for view in views for number in range(len(view.variants)))
        """By the number in a row's column ``rule``."""
        self._first = {view.order: self.variants.index((view, 0)) for view in views}
        self._bases = tuple(int(state_id(view.rule, view.variants[i].test)[:7], 16) for view, i in self.variants)
        self._statistic = Statistic(table, _Level([_params(view, number) for view, number in self.variants]))
        self.untracked = 0
        """Events of targets beyond the limit, which are not followed."""

    # --- rows

    def find(self, which: int, owner: int) -> int:
        """The row of one rule's target, -1 if there is none."""
        return int(self._find(which, np.array([owner]))[0])

    def rows(self, which: int, owner: Rows, seconds: NDArray[np.int32]) -> Rows:
        """The rows of targets of one rule that have events now, made where they are missing.

        Args:
            which: The rule's place among the views.
            owner: Rows of the owners' table, one for each event in order, shape (n,).
            seconds: Stream time at each as the tables keep it.

        Returns:
            Rows; -1 where the rule is not for the target, or there is no room.
        """
        rows = self._find(which, owner)
        missing = places(rows < 0)
        if len(missing):
            self._make(which, different(owner[missing]))
            rows[missing] = self._find(which, owner[missing])
        known = places(rows >= 0)
        mine = rows[known]
        table = self.table
        self._renew(mine[table["stamp"][mine] != self._book.stamp])
        self._age(mine, seconds[known])
        rows[known] = np.where(table["rule"][mine] == NONE, -1, mine)
        return rows

    def _find(self, which: int, owner: Rows) -> Rows:
        ids = np.full(len(owner), self._ids[which], dtype=np.uint64)
        return self.table.find(owner.astype(np.uint64), ids).astype(np.int64)

    def _make(self, which: int, owners: Rows) -> None:
        view, table = self._views[which], self.table
        if not view.rule.match.everything:
            owners = owners[[view.number(*self._names(owner)) != NONE for owner in owners.tolist()]]
        self.untracked += max(len(owners) - table.room, 0)
        owners = owners[: table.room]
        if len(owners) == 0:
            return
        rows = table.add(owners.astype(np.uint64), np.full(len(owners), self._ids[which], dtype=np.uint64))
        self._refer(owners, 1)
        names = [self._names(owner) for owner in owners.tolist()]
        table["salt"][rows] = [_hash(view.rule.rule, *each) for each in names]
        self._note(rows.astype(np.int64), [self._number(view, each) for each in names])

    def _renew(self, rows: Rows) -> None:
        """Note the variants of rows that were last seen under other rules; what cannot go on begins anew."""
        if len(rows) == 0:
            return
        rows = different(rows)
        table = self.table
        views = {int(each): view for each, view in zip(self._ids, self._views, strict=True)}
        before = table["basis"][rows].copy()
        table.touch("key", rows)
        numbers = [
            self._number(views[rule], self._names(owner))
            for owner, rule in zip(table["owner"][rows].tolist(), table["rule_id"][rows].tolist(), strict=True)
        ]
        self._note(rows, numbers)
        self._begin_anew(rows[table["basis"][rows] != before])

    def _number(self, view: RuleView, names: tuple[str, str, str]) -> int:
        variant = view.number(*names)
        return NONE if variant == NONE else self._first[view.order] + variant

    def _note(self, rows: Rows, numbers: list[int]) -> None:
        table = self.table
        table["rule"][rows] = numbers
        table["basis"][rows] = [0 if number == NONE else self._bases[number] for number in numbers]
        table["stamp"][rows] = self._book.stamp

    def _age(self, rows: Rows, seconds: NDArray[np.int32]) -> None:
        if len(rows) == 0:
            return
        table = self.table
        last = table["last_seen"][rows]
        old = (seconds - last > self._idle_s) & (last != 0)
        if old.any():
            # Only a row's first event of the run comes after ``last``.
            unique, first = firsts(rows)
            self._begin_anew(unique[old[first]])
        table.touch("hot", rows)
        table["last_seen"][rows] = seconds

    def _begin_anew(self, rows: Rows) -> None:
        if len(rows) == 0:
            return
        table = self.table
        self._emptied(rows)
        for family in ("hot", "stat"):
            table.touch(family, rows)
        for column in ("successes", *_columns_of(table, "stat")):
            table[column][rows] = 0

    def forget(self) -> None:
        """Drop the rows of rules that are in force no more."""
        table = self.table
        rows = places(table.live)
        gone = rows[~np.isin(table["rule_id"][rows], np.array(self._ids, dtype=np.uint64))]
        if len(gone):
            self._emptied(gone)
            self._refer(table["owner"][gone].astype(np.int64), -1)
            table.free(gone)

    # --- events

    def fold(self, trials: Trials, target: Callable[[int], Target], words: Words) -> list[Firing]:
        """Take in events.

        Args:
            trials: In order; those that began too early are left out.
            target: Of a row.
            words: What is said of a finding.
        """
        found: list[Firing] = []
        left = trials.take(trials.began > self.table["since"][trials.row])
        while len(left.row):
            kind = np.where(left.failed, FAILURE, SUCCESS).astype(np.uint8)
            no_tool = np.zeros(len(kind), dtype=np.int32)
            findings, _ = self._statistic.run(
                Entries(left.row.astype(np.int32), kind, left.at, no_tool), want_included=False
            )
            found += [self._fired(each, left, target, words) for each in findings]
            left = self._after(left, [each for each in findings if each.tripped])
        return found

    def _after(self, trials: Trials, tripped: list[Finding]) -> Trials:
        """The events of these rows after their trips, but for those that began before."""
        if not tripped:
            return trials.take(np.empty(0, dtype=np.intp))
        tripped = sorted(tripped, key=lambda each: each.row)
        rows = np.array([each.row for each in tripped], dtype=np.int64)
        entry = np.array([each.entry for each in tripped], dtype=np.intp)
        self.table.touch("stat", rows)
        self.table["since"][rows] = trials.stream[entry]
        mine = np.minimum(np.searchsorted(rows, trials.row), len(rows) - 1)
        later = (rows[mine] == trials.row) & (np.arange(len(trials.row)) > entry[mine])
        return trials.take(later & (trials.began > trials.stream[entry[mine]]))

    def _fired(self, finding: Finding, trials: Trials, target: Callable[[int], Target], words: Words) -> Firing:
        view, variant = self.variants[int(self.table["rule"][finding.row])]
        position, now = int(trials.position[finding.entry]), int(trials.stream[finding.entry])
        of = target(finding.row)
        facts = Facts(
            words(finding, of), finding.failures / finding.calls, finding.calls, finding.failures, finding.since,
            round(float(log10(np.array([finding.mean]))[0]), 6), finding.p0,
        )  # fmt: skip
        return Firing(position, now, view, variant, of, facts, decided=position, warning=not finding.tripped)


def _params(view: RuleView, number: int) -> FailureParams:
    test = view.variants[number].test
    if isinstance(test, ExceedTest):
        # The null is that of each key's reference, written where it is frozen.
        return replace(test.params, known_null=test.params.floor)
    return view.test(number, FailureTest).params


def _columns_of(table: Table, family: str) -> list[str]:
    return [column.name for each in table.families if each.name == family for column in each.columns]


def _hash(*names: str) -> int:
    """64 bits for names, the same on every machine; not 0."""
    return int.from_bytes(blake2b("\x00".join(names).encode(), digest_size=8).digest(), "little") or 1
