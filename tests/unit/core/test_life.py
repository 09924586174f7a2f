"""The shard's part in a breaker's life: what freezes a statistic, which calls are probes, epochs, acknowledgements."""

from __future__ import annotations

import itertools

import pytest

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    BreakerState,
    Effect,
    EnforcementAck,
    Outcome,
    Scope,
    Signal,
    SignalLevel,
)
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.shard import Output, Shard
from tests.support.calls import T0, Call, fold, make_shard

# With this null five failures in a row trip a tool.
SETTINGS = CoreSettings(failure=FailureParams(known_null=0.005))
TOOL_ID = "ACTOR_TOOL:default/a/t"
ACTOR_ID = "ACTOR:default/a"


class Line:
    """A shard on a time line: calls are folded one after another, each in a transaction."""

    def __init__(self, settings: CoreSettings = SETTINGS) -> None:
        self.shard: Shard = make_shard(settings)
        self.outputs: list[Output] = []
        self.offset = 0

    def call(self, call: Call) -> list[Output]:
        outputs = fold(self.shard, [call], first_offset=self.offset)
        self.offset += 1
        self.outputs += outputs
        return outputs

    def wait(self, until: float) -> None:
        """Let time pass with another actor's call."""
        self.call(Call(until, actor="other"))

    def commands(self, breaker_id: str) -> list[BreakerCommand]:
        return [
            o.record for o in self.outputs if isinstance(o.record, BreakerCommand) and o.record.breaker_id == breaker_id
        ]

    def trip_tool(self, at: float = 0.0) -> None:
        for i in range(5):
            self.call(Call(at + i, Outcome.ERROR))
        assert self.commands(TOOL_ID)[-1].state is BreakerState.OPEN

    def trip_actor(self, at: float = 0.0) -> None:
        for i in range(8):
            self.call(Call(at + i, Outcome.ERROR, tool=f"t{i}"))
        assert self.commands(ACTOR_ID)[-1].state is BreakerState.OPEN

    def half_open(self, breaker_id: str, at: float = 40.0) -> BreakerCommand:
        self.wait(at)
        command = self.commands(breaker_id)[-1]
        assert command.state is BreakerState.HALF_OPEN
        return command

    def probe(
        self, command: BreakerCommand, at: float, effect: Effect, outcome: Outcome = Outcome.OK, tool: str = "t"
    ) -> None:
        gate = command.breaker_id, command.epoch
        self.call(Call(at, outcome, tool=tool, effect=effect, probe=True, gate=gate))


def test_a_tool_is_disabled_and_an_actor_read_only() -> None:
    tool, actor = Line(), Line()
    tool.trip_tool()
    actor.trip_actor()
    (command,) = tool.commands(TOOL_ID)
    assert (command.action, command.scope, command.actor, command.tool) == (
        Action.DISABLE_TOOL, Scope.ACTOR_TOOL, "a", "t",
    )  # fmt: skip
    (command,) = actor.commands(ACTOR_ID)
    assert (command.action, command.scope, command.actor, command.tool) == (Action.READ_ONLY, Scope.ACTOR, "a", None)


def test_while_it_is_open_nothing_counts() -> None:
    line = Line()
    line.trip_tool()
    counted = line.shard.counters.counted
    for i in range(50):
        line.call(Call(5 + i / 10, Outcome.ERROR))
        line.call(Call(5 + i / 10, Outcome.OK))
    assert line.shard.counters.counted == counted
    assert len(line.commands(TOOL_ID)) == 1
    assert not line.commands(ACTOR_ID), "nor does it count for the actor"


def test_calls_that_began_before_the_close_do_not_count() -> None:
    line = Line()
    line.trip_tool()
    command = line.half_open(TOOL_ID)
    for i in range(14):
        line.probe(command, 41 + i, Effect.READ)
    assert line.commands(TOOL_ID)[-1].state is BreakerState.CLOSED
    closed_at = 41 + 13
    counted = line.shard.counters.counted
    for end, duration_ms in ((closed_at + 1, 5000), (closed_at + 2, 2000), (closed_at + 2, 2001)):
        line.call(Call(end, Outcome.ERROR, duration_ms=duration_ms))
    assert line.shard.counters.counted == counted, "one began at the very moment of the close"
    line.call(Call(closed_at + 3, Outcome.ERROR, duration_ms=2999))
    assert line.shard.counters.counted == counted + 1
    line.trip_tool(closed_at + 4)
    assert [c.state for c in line.commands(TOOL_ID)][-2:] == [BreakerState.CLOSED, BreakerState.OPEN]


@pytest.mark.parametrize(
    ("breaker_id", "effect", "counts"),
    [
        (TOOL_ID, Effect.READ, True),
        (TOOL_ID, Effect.WRITE, True),
        (TOOL_ID, Effect.IRREVERSIBLE, False),
        (ACTOR_ID, Effect.READ, False),
        (ACTOR_ID, Effect.WRITE, True),
        (ACTOR_ID, Effect.IRREVERSIBLE, False),
    ],
)
def test_which_calls_are_probes(breaker_id: str, effect: Effect, counts: bool) -> None:
    """An irreversible call never; of an actor that may only read, only what it may not do otherwise."""
    line = Line()
    (line.trip_tool if breaker_id == TOOL_ID else line.trip_actor)()
    command = line.half_open(breaker_id)
    for i in range(14):
        line.probe(command, 41 + i / 10, effect)
    expected = BreakerState.CLOSED if counts else BreakerState.HALF_OPEN
    assert line.commands(breaker_id)[-1].state is expected


def test_a_probe_speaks_for_its_own_breaker_only() -> None:
    """Not for another tool's, not under an epoch that never was; failures as little as successes."""
    line = Line()
    line.trip_tool()
    command = line.half_open(TOOL_ID)
    for i in range(20):
        line.probe(command, 41 + i / 10, Effect.READ, Outcome.ERROR, tool="other")
        line.call(Call(41 + i / 10, Outcome.ERROR, probe=True, gate=(TOOL_ID, command.epoch + 1)))
        line.call(Call(41 + i / 10, Outcome.ERROR, probe=True, gate=(TOOL_ID, command.epoch - 1)))
        line.call(Call(41 + i / 10, Outcome.DENIED, probe=True, gate=(TOOL_ID, command.epoch)))
    assert line.commands(TOOL_ID)[-1] == command
    line.probe(command, 44, Effect.READ, Outcome.ERROR)
    line.probe(command, 44, Effect.READ, Outcome.TIMEOUT)
    assert line.commands(TOOL_ID)[-1].state is BreakerState.OPEN


def test_epochs_only_grow() -> None:
    """And are at least the stream time in milliseconds, so they grow even over lost state."""
    line, at = Line(), 0.0
    for _ in range(4):
        line.trip_tool(at)
        command = line.half_open(TOOL_ID, at + 40)
        for i in range(14):
            line.probe(command, at + 41 + i / 1000, Effect.READ)
        at += 200  # later than flapping
    commands = line.commands(TOOL_ID)
    assert len(commands) >= 12
    assert all(a.epoch < b.epoch for a, b in itertools.pairwise(commands))
    assert all(command.epoch >= command.ts // 1000 for command in commands)
    anew = Line()
    anew.trip_tool(at)
    assert anew.commands(TOOL_ID)[0].epoch > commands[-1].epoch


def test_idle_time_runs_the_timers() -> None:
    """Without an event; a shard that has seen none has no time to move on."""
    line = Line()
    line.shard.advance(T0)
    assert line.shard.stream_time == 0
    line.trip_tool()
    line.shard.begin()
    line.shard.advance(T0 + 40_000_000)
    states = [o.record.state for o in line.shard.take_outputs() if isinstance(o.record, BreakerCommand)]
    line.shard.encode_changes(100)
    line.shard.commit()
    assert states == [BreakerState.HALF_OPEN]
    assert line.shard.stream_time == T0 + 40_000_000


def test_one_call_decides_for_its_tool_before_its_actor() -> None:
    """The signal before the command; the calls of a batch in the order of the log, whatever their rows."""
    calls = [Call(i / 10, Outcome.ERROR, actor=actor) for i, actor in enumerate("ab" * 3)]
    calls += [Call(1 + i / 10, Outcome.ERROR, actor=actor) for i, actor in enumerate("ba" * 3)]
    outputs = fold(make_shard(SETTINGS), calls)
    told = [
        (o.topic, o.record.actor, o.record.level if isinstance(o.record, Signal) else o.record.state)
        for o in outputs
        if isinstance(o.record, Signal | BreakerCommand) and o.record.scope is Scope.ACTOR_TOOL
    ]
    trips = [entry for entry in told if entry[2] in (SignalLevel.TRIP, BreakerState.OPEN)]
    first, second = trips[0][1], trips[2][1]
    assert trips == [
        ("signals", first, SignalLevel.TRIP),
        ("breaker_commands", first, BreakerState.OPEN),
        ("signals", second, SignalLevel.TRIP),
        ("breaker_commands", second, BreakerState.OPEN),
    ]
    moments = [int((o.record.event_id or "e-1")[1:]) for o in outputs if isinstance(o.record, Signal)]
    assert moments == sorted(moments)
    at_once = [o for o in outputs if isinstance(o.record, Signal)]
    for a, b in itertools.pairwise(at_once):
        if a.record.event_id == b.record.event_id:  # type: ignore[union-attr]
            assert (a.record.scope, b.record.scope) == (Scope.ACTOR_TOOL, Scope.ACTOR)  # type: ignore[union-attr]


def test_outputs_name_their_keys_and_repeat_exactly() -> None:
    first, second = Line(), Line()
    first.trip_tool()
    second.trip_tool()
    assert first.outputs == second.outputs
    signal, command = first.outputs[-2:]
    assert (signal.key, command.key) == (b"default/a", TOOL_ID.encode())
    assert isinstance(signal.record, Signal)
    assert (signal.record.event_id, signal.record.null_p0) == ("e3", 0.005)
    ids = [o.record.signal_id for o in first.outputs if isinstance(o.record, Signal)]
    assert len(set(ids)) == len(ids)


def ack(breaker_id: str, epoch: int, client: int = 1) -> EnforcementAck:
    return EnforcementAck(
        breaker_id=breaker_id,
        epoch=epoch,
        state=BreakerState.OPEN,
        tenant="default",
        client_id=client,
        enforcer="sdk",
        ts=T0,
        command_ts=T0,
    )


def test_acknowledgements_are_counted_by_epoch() -> None:
    """Of the newest epoch acknowledged; those of older epochs and unknown breakers only in total."""
    line = Line()
    line.trip_tool()
    epoch = line.commands(TOOL_ID)[0].epoch
    line.shard.begin()
    line.shard.fold_acks([ack(TOOL_ID, epoch, 1), ack(TOOL_ID, epoch, 2), ack("ACTOR:default/nobody", 5)])
    assert line.shard.acknowledged(TOOL_ID) == (epoch, 2)
    assert line.shard.acknowledged("ACTOR:default/nobody") == (0, 0)
    line.shard.fold_acks([ack(TOOL_ID, epoch + 7), ack(TOOL_ID, epoch)])
    assert line.shard.acknowledged(TOOL_ID) == (epoch + 7, 1)
    assert line.shard.counters.acks == 5
    assert line.shard.take_outputs() == []
    line.shard.rollback()
    assert line.shard.acknowledged(TOOL_ID) == (0, 0)
    assert line.shard.counters.acks == 0
