"""Calls that were executed although the breaker of their tool or actor had been open for long enough to know.

A call is judged in its turn, by the breakers as they are before it and by when it began. Only calls of tools and actors
with an open breaker are looked at: each row of their tables says what its breaker refuses. A row that was made, or
restored, since says nothing; it is looked up by its names. A tool's own breaker lives in another shard: what passed
that is a doubt (`doubts.py`) until it is certain that it was still shut.

A breaker that opens within a run of calls is not in those rows yet. That never shows: `short` cuts runs to less stream
time than any rule gives enforcers to hear of it, so that none of their later calls can be too late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fuseboard_detectors import ungated
from fuseboard_detectors.segments import different
from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import BreakerState, Effect, Mode, Recovery, Scope
from fuseboard_streams.core.breaker import id_of
from fuseboard_streams.core.doubts import Doubt
from fuseboard_streams.core.firing import Facts, Firing
from fuseboard_streams.core.holds import Condition
from fuseboard_streams.core.piece import TIMEOUT
from fuseboard_streams.core.rulebook import NONE
from fuseboard_streams.core.ruleset import UngatedTest
from fuseboard_streams.core.runs import places
from fuseboard_streams.core.settings import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fuseboard_streams.core.breaker import Breaker
    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.piece import Piece
    from fuseboard_streams.core.rulebook import Rulebook, RuleView
    from fuseboard_streams.core.tables import Table

Bools: TypeAlias = NDArray[np.bool_]
Index: TypeAlias = NDArray[np.intp]
I64: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.int64]

_EFFECTS: Final = tuple(Effect)
_KNOWN: Final = 1
"""Set in a row that says what its breaker refuses; the bits above it stand for the effects refused."""
_OPEN: Final = (BreakerState.OPEN, BreakerState.FORCED_OPEN)
_NO_CALLS: Final = np.empty(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call as it is judged."""

    tenant: str
    actor: str
    tool: str
    effect: Effect
    began: int

    @property
    def targets(self) -> tuple[Target, Target]:
        """Of the breakers that it passes, in this shard."""
        return (
            Target(Scope.ACTOR_TOOL, self.tenant, self.actor, self.tool),
            Target(Scope.ACTOR, self.tenant, self.actor),
        )


class Gates:
    """Finds calls that passed an open breaker, for the rules on ``calls.ungated``."""

    def __init__(
        self, tools: Table, actors: Table, book: Rulebook, breakers: Breakers, tool_names: Sequence[str]
    ) -> None:
        self._tools = tools
        self._actors = actors
        self._breakers = breakers
        self._tool_names = tool_names
        self._views = (*book.asking(UngatedTest, Scope.ACTOR), *book.asking(UngatedTest, Scope.ACTOR_TOOL))
        after = [_after(view, number) for view in self._views for number in range(len(view.variants))]
        self._least = min(after, default=0)
        self.wanted = bool(self._views)
        """Whether any rule asks."""

    def short(self, piece: Piece) -> Iterator[slice]:
        """Runs of calls that are short enough to be judged by what was open when they began."""
        stream, begin = piece.stream, 0
        while self.wanted and begin < len(stream) and stream[-1] - stream[begin] >= self._least:
            end = int(np.searchsorted(stream, stream[begin] + self._least, side="left"))
            yield slice(begin, end)
            begin = end
        yield slice(begin, len(stream))

    def note(self, table: Table, row: int, breaker: Breaker) -> None:
        """The breaker of a row has changed."""
        # While no rule asks, rows say nothing rather than what was true once.
        said = _refused(breaker) if self.wanted else 0
        if said != table["gate"][row]:
            table.touch("gate", np.array([row]))
            table["gate"][row] = said

    def candidates(self, piece: Piece, on_time: Bools) -> Index:
        """The executed calls of a run whose tool or actor has a breaker that refuses them, ascending."""
        if not self.wanted or self._breakers.all_closed:
            return _NO_CALLS
        calls = piece.calls
        self._learn(self._tools, piece.tool)
        self._learn(self._actors, piece.actor)
        refused = self._tools["gate"][piece.tool] | self._actors["gate"][piece.actor]
        passed = (refused >> (calls.effect + np.uint8(1))) & 1 == 1
        return places(passed & on_time & (calls.outcome <= TIMEOUT) & ~calls.probe)

    def judge(self, piece: Piece, at: int) -> list[Firing]:
        """What the rules say of a candidate when it is its turn."""
        call = self._call(piece, at)
        since = [self._refusing_since(target, call.effect) for target in call.targets]
        whose = "its tool" if since[0] <= since[1] else "its actor"
        facts = _facts(call, int(piece.calls.client[at]), min(since), whose)
        now = int(piece.stream[at])
        return [
            Firing(at, now, view, number, target, facts, decided=at)
            for view, number, target in self._breaches(call, min(since), now)
        ]

    def doubtful(self, piece: Piece, on_time: Bools, since: I64) -> Index:
        """The executed calls of a run that began too long after their tool was shut for everybody, ascending.

        Args:
            piece: n calls.
            on_time: Which of them may decide anything, shape (n,).
            since: When the tool was shut for everybody, as `Blame.refusing` has it, shape (n,).
        """
        if not self.wanted:
            return _NO_CALLS
        calls = piece.calls
        executed = on_time & (calls.outcome <= TIMEOUT)
        return places(ungated.ungated(piece.start, since, executed, calls.probe, after_us=self._least))

    def doubts(self, piece: Piece, at: int, since: int) -> list[Doubt]:
        """What the rules say of such a call when it is its turn, if the tool was still shut when it began."""
        call = self._call(piece, at)
        facts = _facts(call, int(piece.calls.client[at]), since, "the tool as a whole")
        event_id = piece.calls.strings("event_id", np.array([at]))[0]
        arrival, offset = int(piece.calls.arrival[at]), int(piece.calls.offset[at])
        return [
            Doubt(
                view.rule.rule, view.rule.scope.value, call.tenant, call.actor, call.tool, arrival, since,
                facts.value or 0.0, facts.reason, event_id, offset,
            )
            for view, _, _ in self._breaches(call, since, int(piece.stream[at]))
        ]  # fmt: skip

    def _breaches(self, call: _Call, since: int, now_us: int) -> Iterator[tuple[RuleView, int, Target]]:
        """The rules for which a call is a breach that they do not know of."""
        began, opened = np.array([call.began]), np.array([since])
        yes, no = np.array([True]), np.array([False])
        for view in self._views:
            tool = call.tool if view.rule.scope is Scope.ACTOR_TOOL else ""
            number = view.number(call.tenant, call.actor, tool)
            target = call.targets[view.rule.scope is Scope.ACTOR]
            if number == NONE or self._known(view, number, target, now_us):
                continue
            if ungated.ungated(began, opened, yes, no, after_us=_after(view, number))[0]:
                yield view, number, target

    # --- rows

    def _learn(self, table: Table, rows: Rows) -> None:
        """Look up the breakers of rows that say nothing."""
        unknown = rows[table["gate"][rows] == 0]
        if len(unknown) == 0:
            return
        unique = different(unknown)
        table.touch("gate", unique)
        for row in unique.tolist():
            breaker = self._breakers.get(id_of(self._target(table, row)))
            table["gate"][row] = _KNOWN if breaker is None else _refused(breaker)

    def _target(self, table: Table, row: int) -> Target:
        actors, owner = self._actors, row if table is self._actors else int(self._tools["actor"][row])
        tenant, actor = str(actors["tenant"][owner]), str(actors["actor"][owner])
        if table is self._actors:
            return Target(Scope.ACTOR, tenant, actor)
        return Target(Scope.ACTOR_TOOL, tenant, actor, self._tool_names[int(self._tools["tool"][row])])

    def _call(self, piece: Piece, at: int) -> _Call:
        target = self._target(self._tools, int(piece.tool[at]))
        began = int(piece.ts[at]) - max(int(piece.calls.duration[at]), 0)
        effect = _EFFECTS[piece.calls.effect[at]]
        return _Call(target.tenant, target.actor or "", target.tool or "", effect, began)

    # --- breakers

    def _refusing_since(self, target: Target, effect: Effect) -> int:
        """The time of the command in force, if it refuses calls of this effect."""
        breaker = self._breakers.get(id_of(target))
        if breaker is None or not _refuses(breaker, effect):
            return ungated.NOT_OPEN
        return breaker.decided_at

    def _known(self, view: RuleView, number: int, target: Target, now_us: int) -> bool:
        """Whether firing again would change nothing: an agent without a gate does it at every call."""
        response, key = view.variants[number].response, id_of(target)
        if response.recovery.by is not Recovery.PERSON:
            return False
        if response.mode is not Mode.ENFORCE:
            virtual = self._breakers.virtual.get(key, response.rule)
            return virtual is not None and virtual.quiet_us is None and virtual.is_open(now_us)
        breaker = self._breakers.get(key)
        held = None if breaker is None else breaker.hold_of(response.rule)
        return (
            held is not None
            and not held.listens
            and held.recovery is Recovery.PERSON
            and held.condition is not Condition.CLEARED
        )


def _facts(call: _Call, client: int, since: int, whose: str) -> Facts:
    late = (call.began - since) / SECOND
    reason = (
        f"client {client} executed {call.tool} ({call.effect}) {late:.3g} s after the breaker of {whose} had opened"
    )
    return Facts(reason, value=late, since_us=since)


def _after(view: RuleView, number: int) -> int:
    # Shorter would mean runs of single calls.
    return max(view.test(number, UngatedTest).after_us, SECOND)


def _refuses(breaker: Breaker, effect: Effect) -> bool:
    """Whether it keeps calls of this effect from being executed, approved or not."""
    axes = breaker.axes
    return breaker.state in _OPEN and axes.refuses(effect) and not axes.wants_approval(effect)


def _refused(breaker: Breaker) -> int:
    return _KNOWN | sum(2 << code for code, effect in enumerate(_EFFECTS) if _refuses(breaker, effect))
