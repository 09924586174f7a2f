"""Several shards in virtual time, with the panes that they send each other, and enforcers that obey their commands."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.keys import breaker_id, home_partition
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    Effect,
    Outcome,
    Override,
    Pane,
    PaneKind,
    Scope,
    Severity,
    Signal,
)
from fuseboard_streams.core.inputs import Received
from fuseboard_streams.core.mail import PaneOutput
from fuseboard_streams.core.ruleset import (
    BlastRadius,
    Breadth,
    FailureTest,
    Match,
    RecoveryPlan,
    Response,
    Rule,
    RuleSet,
    Rung,
    Variant,
)
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from tests.support.calls import SEEDS, T0, Call, home, prepared

STEP_S = 0.5
"""Time goes on in steps; in each, the shards take their turns in random order."""
IDLE_S = 5.0
LAG_S = 1.0


def rules(
    params: FailureParams | None = None,
    radius: BlastRadius | None = None,
    version: str = "test",
    more: Sequence[Rule] = (),
) -> RuleSet:
    """Failures of tools of actors, of tools and of actors, as the packaged rules have them."""
    test = FailureTest(params or FailureParams())

    def rule(name: str, scope: Scope, action: Action, breadth: Breadth | None = None) -> Rule:
        plan = RecoveryPlan()
        response = Response(name, (Rung(action, Severity.TICKET),), recovery=plan, rules_version=version)
        return Rule(name, "calls.failed", scope, Match(), Variant(test, response), breadth=breadth)

    return RuleSet(
        version,
        (
            rule("tool-failing", Scope.ACTOR_TOOL, Action.DISABLE_TOOL),
            rule("tool-failing", Scope.TOOL, Action.DISABLE_TOOL, Breadth(3, (1, 5), 3)),
            rule("actor-failing", Scope.ACTOR, Action.READ_ONLY),
            *more,
        ),
        radius or BlastRadius(),
    )


@dataclass
class Decided:
    """A record that a shard published, and when it could be read, in seconds after T0."""

    at: float
    record: Signal | BreakerCommand


@dataclass
class Entry:
    """What one transaction folded: the panes, then the calls, then the clock."""

    panes: list[Received[Pane]]
    calls: list[Call]
    offset: int = 0
    advance: int | None = None
    orders: list[Received[Override]] = field(default_factory=list)
    signals: list[Received[Signal]] = field(default_factory=list)
    rules: RuleSet | None = None
    """Those in force from here on, where they are others."""


def fold(shard: Shard, entry: Entry) -> None:
    """Fold what an entry names, in a transaction that is open."""
    if entry.rules is not None and shard.rules_version != entry.rules.version:
        shard.change_rules(entry.rules, b"")
    shard.fold_overrides(entry.orders)
    shard.fold_signals(entry.signals)
    shard.fold_panes(entry.panes)
    if entry.calls:
        shard.fold_tool_calls(prepared(entry.calls, shard.number, entry.offset))
    if entry.advance is not None:
        shard.advance(entry.advance)


@dataclass
class Fleet:
    """Shards and their enforcers.

    ``calls`` says what agents try between two times; the fleet refuses what is off, and makes probes.
    """

    partitions: int
    calls: Callable[[float, float], Iterable[Call]]
    seed: int = 0
    ruleset: RuleSet = field(default_factory=rules)
    settings: CoreSettings = field(default_factory=CoreSettings)
    obeys: bool = True
    asleep: Callable[[int, float], bool] = lambda _number, _now: False
    """Whether a shard does nothing at a time."""
    now: float = 0.0
    decided: list[Decided] = field(default_factory=list)
    journals: list[list[Entry]] = field(default_factory=list)
    """By shard."""
    made: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        n = self.partitions
        self.random = random.Random(self.seed)
        self.shards = [Shard(i, n, self.settings, SEEDS, self.ruleset) for i in range(n)]
        self.inbox: list[list[Received[Pane]]] = [[] for _ in range(n)]
        self.sent: list[Pane] = []
        self.gates: dict[str, BreakerCommand] = {}
        self.journals = [[] for _ in range(n)]
        self.outputs: list[list[Output]] = [[] for _ in range(n)]
        self.panes: list[list[PaneOutput]] = [[] for _ in range(n)]
        self._turned = [0.0] * n
        self._news = dict.fromkeys(range(n), self.ruleset)
        self._read = [0] * n
        self._waiting: list[list[Call]] = [[] for _ in range(n)]
        self._offset = [0] * n
        self._heard = [0.0] * n
        self._quota: Counter[tuple[str, int, str]] = Counter()

    # --- running

    def run(self, until: float) -> None:
        """Let time pass."""
        while self.now < until:
            before, self.now = self.now, self.now + STEP_S
            for call in sorted(self.calls(before, self.now), key=lambda each: each.at):
                self._waiting[home(call.actor, self.partitions)].append(self._gated(call) if self.obeys else call)
            order = list(range(self.partitions))
            self.random.shuffle(order)
            for number in order:
                # Some shards are behind now and then, by less than the grace.
                turns = self.random.random() < 0.7 or self.now - self._turned[number] >= LAG_S
                if turns and not self.asleep(number, self.now):
                    self._turned[number] = self.now
                    self._turn(number)

    def _turn(self, number: int) -> None:
        waiting, self._waiting[number] = self._waiting[number], []
        cuts = sorted(self.random.randrange(len(waiting) + 1) for _ in range(self.random.randrange(3)))
        for a, b in zip([0, *cuts], [*cuts, len(waiting)], strict=True):
            self._transact(number, waiting[a:b])

    def _transact(self, number: int, calls: list[Call]) -> None:
        shard, inbox = self.shards[number], self.inbox[number]
        entry = Entry(inbox[self._read[number] :], calls, self._offset[number], rules=self._news.pop(number, None))
        self._read[number] = len(inbox)
        if calls:
            self._offset[number] += len(calls)
            self._heard[number] = self.now
        elif shard.clock and self.now - self._heard[number] >= IDLE_S:
            entry.advance = max(shard.clock, T0 + round((self.now - IDLE_S) * SECOND))
        self._run(number, entry)

    def order(self, order: Override) -> None:
        """Give the home of its target a person's order."""
        number = home_partition(order.scope, order.tenant, order.actor, order.tool, self.partitions)
        self._run(number, Entry([], [], orders=[Received(0, T0 + round(self.now * SECOND), order)]))

    def tell(self, signal: Signal) -> None:
        """Give the home of an actor somebody else's finding."""
        assert signal.actor is not None
        number = home(signal.actor, self.partitions)
        self._run(number, Entry([], [], signals=[Received(0, T0 + round(self.now * SECOND), signal)]))

    def change(self, ruleset: RuleSet) -> None:
        """Put other rules in force: each shard hears of them at its next turn."""
        self._news = dict.fromkeys(range(self.partitions), ruleset)

    def _run(self, number: int, entry: Entry) -> None:
        shard = self.shards[number]
        self.journals[number].append(entry)
        shard.begin()
        fold(shard, entry)
        rejected = shard.take_rejected()
        assert not rejected, rejected
        outputs, panes = shard.take_outputs(), shard.take_panes()
        shard.encode_changes(256)
        shard.commit()
        self.outputs[number] += outputs
        for output in outputs:
            self._keep(output)
        for pane in panes:
            inbox = self.inbox[pane.partition]
            inbox.append(Received(len(inbox), T0 + round(self.now * SECOND), pane.record))
            if pane.record.kind is not PaneKind.MARKER:
                self.panes[number].append(pane)
                self.sent.append(pane.record)

    def _keep(self, output: Output) -> None:
        record = output.record
        if record is None:
            return
        self.decided.append(Decided(self.now, record))
        if isinstance(record, BreakerCommand):
            self.gates[record.breaker_id] = record

    # --- enforcers

    def _gated(self, call: Call) -> Call:
        ids = (
            breaker_id(Scope.ACTOR_TOOL, call.tenant, call.actor, call.tool),
            breaker_id(Scope.ACTOR, call.tenant, call.actor),
            breaker_id(Scope.TOOL, call.tenant, tool=call.tool),
        )
        for identity in ids:
            command = self.gates.get(identity)
            if command is None or command.state is BreakerState.CLOSED:
                continue
            if command.scope is Scope.ACTOR and call.effect is Effect.READ:
                continue
            quota = command.epoch, call.actor
            if command.state is BreakerState.HALF_OPEN and self._quota[identity, *quota] < (command.probe_quota or 0):
                self._quota[identity, *quota] += 1
                self.made["probes"] += 1
                return replace(call, probe=True, gate=(identity, command.epoch))
            self.made["refused"] += 1
            return replace(call, outcome=Outcome.DENIED)
        self.made["admitted"] += 1
        return call

    # --- what came of it

    def commands(self, scope: Scope, state: BreakerState | None = None) -> list[Decided]:
        """The commands about targets of a scope."""
        return [
            each
            for each in self.decided
            if isinstance(each.record, BreakerCommand)
            and each.record.scope is scope
            and (state is None or each.record.state is state)
        ]

    def trips(self, scope: Scope) -> list[Decided]:
        """The commands that opened something for the first time."""
        return [
            each
            for each in self.commands(scope, BreakerState.OPEN)
            if isinstance(each.record, BreakerCommand) and each.record.cause is Cause.TRIP
        ]

    def signals(self, scope: Scope) -> list[Signal]:
        """The signals about targets of a scope."""
        return [each.record for each in self.decided if isinstance(each.record, Signal) and each.record.scope is scope]
