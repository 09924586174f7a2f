"""The kill test's input: a long history of agents whose tools break, with probes that obey the commands it causes.

The input is written before it is processed, so nobody can answer the commands then. Instead the pure core folds the
history while it is made, and each stretch of calls obeys the commands that the stretches before it caused. The core's
decisions are kept: an uninterrupted worker must publish the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from fuseboard_schemas import columnar
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import actor_key, breaker_id, partition_for
from fuseboard_schemas.records import (
    BreakerCommand,
    BreakerState,
    DeadLetterReason,
    DeniedBy,
    Effect,
    EnforcementAck,
    Outcome,
    Scope,
    ToolCall,
)
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.prepare import prepare
from fuseboard_streams.core.settings import LEAST_FORGET_US, SECOND, CoreSettings, HashSeeds
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.worker.outgoing import Outbox
from fuseboard_streams.worker.rules_source import compiled
from tests.support.first_stage import FIRST_STAGE

SETTINGS = CoreSettings(
    breaker=BreakerParams(forget_after_us=900 * SECOND),
    forget_after_us=LEAST_FORGET_US,
    client_idle_us=1_800 * SECOND,
    max_traces=90,
)
"""Short memories, so that breakers, actors, clients and traces are also forgotten within the history."""
RULES = compiled(FIRST_STAGE.encode(), "test", SETTINGS.failure)
"""What the workers run whose outputs are compared with the core's."""
_T0_US = 1_767_225_600 * SECOND
_TOOLS = ("search", "book", "pay")
_ROAMED = tuple(f"lookup-{number}" for number in range(24))
_CHUNK = 80
"""Records of a partition between two looks at the commands."""
_OTHER = Encoder("Heartbeat").encode(
    {"worker_id": "w", "group": "g", "shard": 0, "ts": 0, "stream_time": 0, "lag_s": 0.0, "version": "1",
     "rules_version": "1"}
)  # fmt: skip

Row = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
"""Key, value and headers of an output record."""


@dataclass(frozen=True, slots=True)
class InputRecord:
    """A record to write to an input topic."""

    topic: str
    """Without the prefix."""
    partition: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    """When it arrives: the broker is told to keep it."""


@dataclass(slots=True)
class History:
    """What was made so far, and what must come of it."""

    decisions: dict[str, list[list[Row]]]
    """The core's signals and commands: topic to partition to records."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Calls that cannot be used, by reason."""
    tool_calls: int = 0
    acks: int = 0


def make(seed: int, chunks: int, partitions: int) -> tuple[History, Iterator[list[InputRecord]]]:
    """A history and the chunks of its input; the history is complete when the chunks are exhausted.

    Args:
        seed: Two histories of one seed are the same.
        chunks: How many there are; each has some eighty calls for every partition.
        partitions: Of each topic.
    """
    history = History({name: [[] for _ in range(partitions)] for name in ("signals", "breaker-commands")})
    makers = [_Partition(number, partitions, seed, history) for number in range(partitions)]

    def made() -> Iterator[list[InputRecord]]:
        for _ in range(chunks):
            yield [record for maker in makers for record in maker.chunk()]

    return history, made()


_ENCODE = Encoder("ToolCall").encode


def _misplaced(call: ToolCall) -> ToolCall:
    """A call in a partition that is not its actor's; whoever uses this chooses the actor."""
    return call


def _flipped(call: ToolCall) -> bytes:
    """A text that is not UTF-8."""
    value = _ENCODE(call)
    at = value.index(call.event_id.encode())
    return value[:at] + b"\xff" + value[at + 1 :]


_BAD: tuple[Callable[[ToolCall], ToolCall | bytes | None], ...] = (
    lambda _: None,
    lambda _: b"",
    lambda _: b"plain text",
    lambda _: b"\x00\x00\x00\x00\x07unknown id",
    lambda _: _OTHER,
    lambda call: _ENCODE(call)[:-3],
    lambda call: _ENCODE(call) + b"\x00",
    _flipped,
    lambda call: replace(call, tool=""),
    lambda call: replace(call, tool="nul\x00byte"),
    lambda call: replace(call, tool="long" * 10_000),
    lambda call: replace(call, ts=5),
    _misplaced,
)
"""Ways of being no tool call."""


@dataclass(slots=True)
class _Condition:
    """How a tool, or a whole actor, is doing."""

    failing: float = 0.01
    until: float = 0.0


@dataclass(slots=True)
class _Client:
    """A process of an actor, which numbers its calls."""

    client_id: int
    seq: int = -1


@dataclass(slots=True)
class _Gate:
    """What an actor's enforcers know of a breaker."""

    command: BreakerCommand
    before: int | None
    """The epoch before this one."""
    silent: bool
    """Whether nobody makes probes this time."""


class _Partition:
    """Makes the history of one partition."""

    def __init__(self, number: int, partitions: int, seed: int, history: History) -> None:
        self._number = number
        self._rng = random.Random(f"{seed}/{number}")
        self._history = history
        self._seeds = HashSeeds(seed, number)
        self._shard = Shard(number, partitions, SETTINGS, self._seeds, RULES.rules)
        self._offset = 0
        self._outbox = Outbox(TopicNames(), partitions)
        self._encode = Encoder("ToolCall").encode
        self._encode_ack = Encoder("EnforcementAck").encode
        homes = [f"agent-{i}" for i in range(400)]
        self._actors = [name for name in homes if partition_for(actor_key("default", name), partitions) == number][:4]
        self._elsewhere = [name for name in homes if partition_for(actor_key("default", name), partitions) != number]
        self._clients = {name: [self._new_client(), self._new_client()] for name in self._actors}
        self._tools: dict[tuple[str, str], _Condition] = {}
        self._roamer = _Condition()
        self._gates: dict[str, _Gate] = {}
        self._at = self._rng.uniform(0, 60)
        self._calls = 0
        self._recent: list[InputRecord] = []

    def chunk(self) -> list[InputRecord]:
        """The next calls of this partition, and the acknowledgements of the commands that they cause."""
        calls = [self._next() for _ in range(_CHUNK)]
        self._history.tool_calls += len(calls)
        acks = self._fold(calls)
        self._history.acks += len(acks)
        return calls + acks

    # --- one record

    def _next(self) -> InputRecord:
        self._at += self._step()
        draw = self._rng.random()
        if draw < 0.015 and self._recent:
            return self._rng.choice(self._recent)
        if draw < 0.035:
            return self._bad()
        record = self._as_input(self._call())
        self._recent = [*self._recent[-30:], record]
        return record

    def _step(self) -> float:
        """Seconds to the next call; sometimes everybody is away, once in a while for so long that all is forgotten."""
        draw = self._rng.random()
        if draw < 0.0003:
            return self._rng.uniform(1_000, 4_000)
        if draw < 0.002:
            return self._rng.uniform(10, 300)
        return self._rng.expovariate(4.0)

    def _call(self) -> ToolCall:
        rng = self._rng
        roams = rng.random() < 0.25
        actor = self._actors[-1] if roams else rng.choice(self._actors[:-1])
        tool = rng.choice(_ROAMED if roams else _TOOLS)
        condition = self._roamer if roams else self._tools.setdefault((actor, tool), _Condition())
        self._go_on(condition, unwell=roams)
        failed = rng.random() < condition.failing
        outcome = rng.choice((Outcome.ERROR, Outcome.TIMEOUT)) if failed else Outcome.OK
        if rng.random() < 0.01:
            outcome = Outcome.CANCELLED
        client = self._client(actor)
        call = ToolCall(
            event_id=f"e{self._number}-{self._calls}",
            ts=self._us() - (int(rng.uniform(0, 3) * SECOND) if rng.random() < 0.1 else 0),
            actor=actor,
            client_id=client.client_id,
            seq=self._seq(client),
            trace_id=self._trace(),
            tool=tool,
            effect=rng.choices(list(Effect), [0.45, 0.45, 0.1])[0],
            outcome=outcome,
            error_type="Outage" if failed else None,
            duration_ms=rng.choice((None, 5, 800, 20_000)),
        )
        self._calls += 1
        return self._odd(self._gated(call))

    def _go_on(self, condition: _Condition, *, unwell: bool) -> None:
        """Let a tool or an actor break and mend."""
        if self._at < condition.until:
            return
        if condition.failing > 0.3 and self._rng.random() < 0.3:
            # Half mended: probes take long to decide.
            condition.failing = 0.14
            condition.until = self._at + self._rng.uniform(60, 200)
        elif condition.failing > 0.05:
            condition.failing = 0.01
            condition.until = self._at + self._rng.uniform(100, 400)
        else:
            condition.failing = 0.5 if unwell else self._rng.choice((0.85, 0.85, 0.25))
            condition.until = self._at + self._rng.uniform(60, 300)

    def _odd(self, call: ToolCall) -> ToolCall:
        """Some calls come late, some from a clock that is ahead."""
        draw = self._rng.random()
        if draw < 0.005:
            return replace(call, ts=call.ts - 400 * SECOND)
        if draw < 0.01:
            return replace(call, ts=call.ts + int(self._rng.uniform(6, 90) * SECOND))
        return call

    def _gated(self, call: ToolCall) -> ToolCall:
        """The call as it goes under the commands that are known."""
        for scope, tool in ((Scope.ACTOR_TOOL, call.tool), (Scope.ACTOR, None)):
            gate = self._gates.get(breaker_id(scope, "default", call.actor, tool))
            if gate is not None and (scope is Scope.ACTOR_TOOL or call.effect is not Effect.READ):
                return self._under(gate, call)
        return call

    def _under(self, gate: _Gate, call: ToolCall) -> ToolCall:
        command, rng = gate.command, self._rng
        named = replace(call, gate_breaker=command.breaker_id, gate_epoch=command.epoch)
        if command.state is BreakerState.HALF_OPEN and not gate.silent and rng.random() < 0.85:
            late = gate.before is not None and rng.random() < 0.1
            return replace(named, probe=True, gate_epoch=gate.before if late else command.epoch)
        if command.state in (BreakerState.OPEN, BreakerState.HALF_OPEN) and rng.random() < 0.7:
            return replace(named, outcome=Outcome.DENIED, denied_by=DeniedBy.BREAKER, error_type=None)
        return call

    def _trace(self) -> str | None:
        rng = self._rng
        draw = rng.random()
        if draw < 0.3:
            return None
        return f"trace-{rng.randrange(30)}-{int(self._at / 600)}" if draw < 0.45 else f"{rng.getrandbits(128):032x}"

    def _client(self, actor: str) -> _Client:
        clients = self._clients[actor]
        which = self._rng.randrange(len(clients))
        if self._rng.random() < 0.0005:
            clients[which] = self._new_client()
        return clients[which]

    def _new_client(self) -> _Client:
        return _Client(self._rng.getrandbits(63))

    def _seq(self, client: _Client) -> int | None:
        client.seq += 1 + (self._rng.random() < 0.005)
        return client.seq if self._rng.random() < 0.95 else None

    # --- records that cannot be used

    def _bad(self) -> InputRecord:
        good = replace(self._call(), seq=None)
        choice = self._rng.choice(_BAD)
        if choice is _misplaced:
            good = replace(good, actor=self._rng.choice(self._elsewhere))
        made = choice(good)
        record = self._as_input(made) if isinstance(made, ToolCall) else self._as_input(good)
        return record if isinstance(made, ToolCall) else replace(record, value=made)

    def _as_input(self, call: ToolCall) -> InputRecord:
        key = actor_key(call.tenant, call.actor).encode() if call.actor else None
        return InputRecord("tool-calls", self._number, key, self._encode(call), self._us() // 1000)

    def _us(self) -> int:
        return _T0_US + int(self._at * SECOND)

    # --- what comes of it

    def _fold(self, calls: list[InputRecord]) -> list[InputRecord]:
        """Fold the calls as a worker does; follow the commands and acknowledge them."""
        n = len(calls)
        decoded = columnar.decode("ToolCall", [each.value for each in calls], PackagedResolver())
        at = np.arange(n) if decoded.positions is None else decoded.positions
        offset = self._offset + np.arange(n, dtype=np.int64)
        self._offset += n
        arrival = np.array([each.timestamp_ms * 1_000 for each in calls], dtype=np.int64)
        home = np.full(len(at), self._number, dtype=np.int32)
        batch = prepare(decoded.frame, home, offset[at], arrival[at], self._seeds)
        self._shard.begin()
        if self._number in batch:
            self._shard.fold_tool_calls(batch[self._number])
        outputs, rejected = self._shard.take_outputs(), self._shard.take_rejected()
        self._shard.encode_changes(256)
        self._shard.commit()
        reasons: list[DeadLetterReason] = [*(bad.reason for bad in decoded.bad), *(each.reason for each in rejected)]
        self._history.dead_letters.update(reason.value for reason in reasons)
        acks: list[InputRecord] = []
        for output in outputs:
            out = self._outbox.decision(self._number, output)
            headers = tuple((name, value) for name, value in out.headers if isinstance(value, bytes))
            topic = output.topic.replace("_", "-")
            self._history.decisions[topic][self._number].append((out.key, out.value, headers))
            if isinstance(output.record, BreakerCommand):
                acks += self._follow(output.record)
            elif output.record is None:
                self._gates.pop(output.key.decode(), None)
        return acks

    def _follow(self, command: BreakerCommand) -> list[InputRecord]:
        known = self._gates.get(command.breaker_id)
        again = known is not None and command.wave > 1
        silent = known.silent if known is not None and again else self._rng.random() < 0.15
        before = known.command.epoch if known is not None else None
        self._gates[command.breaker_id] = _Gate(command, before, silent)
        acks = []
        for client in self._clients.get(command.actor or "", [])[: self._rng.randrange(3)]:
            ack = EnforcementAck(
                breaker_id=command.breaker_id,
                epoch=command.epoch,
                state=command.state,
                tenant=command.tenant,
                actor=command.actor,
                client_id=client.client_id,
                enforcer="oracle",
                ts=self._us(),
                command_ts=command.ts,
            )
            value = self._encode_ack(ack)
            key = command.breaker_id.encode()
            acks.append(InputRecord("enforcement-acks", self._number, key, value, self._us() // 1000))
        return acks
