"""A controlled world for the SDK: a clock that is moved by hand, a broker in memory, commands made to order."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fuseboard import Fuseboard, Settings
from fuseboard.context import Ids
from fuseboard.runtime import Runtime
from fuseboard.transport import Message, Verdict
from fuseboard.view import View
from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.keys import breaker_id, parse_breaker_id
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Cause,
    Mode,
    ModelAccess,
    RunAccess,
    Scope,
    Severity,
    ToolAccess,
    WriteAccess,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.records import ToolCall

NOW_US = 1_790_000_000_000_000
TENANT = "default"
ACTOR = "support_agent"
_SEEDS = itertools.count(7)


class Clock:
    """A monotonic clock and a wall clock that move together, by hand or while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall_us(self) -> int:
        return NOW_US + round((self.now - 1000.0) * 1e6)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class MemoryBroker:
    """What has arrived, in order; and how the broker behaves."""

    up: bool = True
    log: list[Message] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """A verdict other than DELIVERED for all messages of a topic."""
    confirms: bool = True
    """False: what is sent arrives, but its report gets lost."""
    connections: int = 0
    waits: list[float] = field(default_factory=list)
    """How long each poll was ready to wait."""

    def connect(self) -> MemoryTransport:
        self.connections += 1
        return MemoryTransport(self)


class MemoryTransport:
    """Keeps the order, as a producer does, and loses everything when it is closed."""

    def __init__(self, broker: MemoryBroker, capacity: int = 1_000_000) -> None:
        self._broker = broker
        self._capacity = capacity
        self._queue: list[tuple[Message, Callable[[Verdict, str], None]]] = []

    def send(self, message: Message, report: Callable[[Verdict, str], None]) -> bool:
        if len(self._queue) >= self._capacity:
            return False
        self._queue.append((message, report))
        return True

    def poll(self, timeout: float) -> None:
        self._broker.waits.append(timeout)
        if not self._broker.up:
            return
        queue, self._queue = self._queue, []
        for message, report in queue:
            verdict = self._broker.verdicts.get(message.topic, Verdict.DELIVERED)
            if verdict is Verdict.DELIVERED:
                self._broker.log.append(message)
                if not self._broker.confirms:
                    continue
            report(verdict, "because the test says so")

    def close(self) -> None:
        self._queue = []

    def abandon(self) -> None:
        self._queue = []


@dataclass
class World:
    """A client with everything around it under the test's control; the publisher has no thread."""

    clock: Clock
    broker: MemoryBroker
    runtime: Runtime
    fuse: Fuseboard

    @property
    def view(self) -> View:
        return self.runtime.view

    def deliver(self, steps: int = 5) -> None:
        for _ in range(steps):
            self.runtime.publisher.step()

    def calls(self) -> list[ToolCall]:
        self.deliver()
        return decode(self.broker, "ToolCall")

    def alive(self, seconds: float = 1e9) -> None:
        """The control plane is known and gives signs of life."""
        self.view.reached_end(0, self.view.interests)
        for actor in self.view.actors:
            self.view.freshness(*actor.split("/")).until = self.clock() + seconds

    def command(self, command: BreakerCommand) -> None:
        self.view.apply(command.breaker_id, command, 0, catching_up=False)
        self.view.publish()


def world(**settings: Any) -> World:
    clock, broker = Clock(), MemoryBroker()
    loaded = Settings(**{"actor": ACTOR, "spool_dir": "", **settings})
    runtime = Runtime(
        loaded,
        clock=clock,
        wall_us=clock.wall_us,
        ids=Ids(random.Random(next(_SEEDS))),
        sleep=clock.sleep,
        transport=broker.connect,
        follow=False,
    )
    # Without a thread every step is the test's; the runtime is not closed at exit either.
    runtime.publisher._start = lambda: None  # type: ignore[method-assign]
    made = World(clock, broker, runtime, Fuseboard.of(runtime))
    from fuseboard import runtime as module

    module._runtimes.discard(runtime)
    return made


_RECORDS = {
    "tool-calls": "ToolCall",
    "traces": "TraceStep",
    "tasks": "TaskOutcome",
    "session-requests": "SessionRequest",
    "policy-decisions": "PolicyDecision",
    "enforcement-acks": "EnforcementAck",
}


def decode(broker: MemoryBroker, record: str) -> list[Any]:
    """The records of one kind that have arrived."""
    decoder = Decoder()
    return [
        decoder.decode(message.value, record)
        for message in broker.log
        if _RECORDS[message.topic.rpartition(".")[2]] == record
    ]


def command(
    scope: Scope = Scope.ACTOR_TOOL,
    action: Action = Action.DISABLE_TOOL,
    state: BreakerState = BreakerState.OPEN,
    *,
    epoch: int = 1,
    actor: str = ACTOR,
    tool: str = "refund",
    trace_id: str = "a" * 32,
    **changes: Any,
) -> BreakerCommand:
    """A breaker command as a worker would write it."""
    key = breaker_id(scope, TENANT, actor=actor, tool=tool, trace_id=trace_id)
    target = parse_breaker_id(key)
    closed = state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED)
    axes: dict[Action, dict[str, Any]] = {
        Action.FAST_MODEL_ONLY: {"model": ModelAccess.FAST_ONLY},
        Action.REQUIRE_APPROVAL: {"writes": WriteAccess.APPROVAL},
        Action.READ_ONLY: {"writes": WriteAccess.REFUSED},
        Action.DISABLE_TOOL: {"tool_access": ToolAccess.OFF},
        Action.HALT: {"run": RunAccess.HALT},
    }
    made = BreakerCommand(
        breaker_id=key,
        epoch=epoch,
        ts=NOW_US,
        tenant=TENANT,
        scope=scope,
        actor=target.actor,
        tool=target.tool,
        trace_id=target.trace_id,
        state=state,
        action=Action.NONE if closed else action,
        model=ModelAccess.ANY,
        writes=WriteAccess.FREE,
        tool_access=ToolAccess.ON,
        run=RunAccess.ON,
        mode=Mode.ENFORCE,
        severity=Severity.PAGE,
        cause=Cause.TRIP,
        reason="12 of the last 20 calls failed",
        rule="tool-failing",
        rules_version="0" * 64,
        runbook="docs/runbooks/tool-failing.md",
        since=NOW_US,
        retry_at=NOW_US + 30_000_000 if state is BreakerState.OPEN else None,
        probe_quota=3 if state is BreakerState.HALF_OPEN else 0,
        wave=1 if state is BreakerState.HALF_OPEN else 0,
    )
    return replace(made, **({} if closed else axes[action]), **changes)
