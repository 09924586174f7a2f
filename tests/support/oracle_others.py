"""Records of the other inputs for the kill test's history: good ones, and bad, repeated, late and misplaced ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import Effect, Outcome, Override, OverrideKind, Scope, Signal, SignalLevel, ToolCall
from fuseboard_schemas.topics import by_name
from fuseboard_streams.core.inputs import OVERRIDES, SIGNALS
from fuseboard_streams.core.settings import SECOND
from tests.support.calls import T0
from tests.support.events import TOPICS as EVENTS
from tests.support.events import made
from tests.support.oracle_input import InputRecord

_PER_CHUNK = {"traces": 40, "policy-decisions": 25, "session-requests": 10, SIGNALS: 6, OVERRIDES: 1}
"""Records of each topic for every partition beside a chunk of some eighty calls."""
TOPICS = tuple(_PER_CHUNK)
SHARED = "shared"
"""A tool that actors of all partitions call, and that is down for all of them in some chunks."""
_SHARED_PER_CHUNK = 24
_OUTAGES = range(6, 9), 12
"""Which chunks, of how many."""
_WRONG: dict[str, tuple[dict[str, Any], ...]] = {
    "traces": ({"cost_usd_micros": -1}, {"cost_usd_micros": 10**13}, {"actor": ""}, {"ts": 5}),
    "policy-decisions": ({"tenant": "nul\0"}, {"ts": 7}),
    "session-requests": ({"actor": "long" * 100},),
    SIGNALS: ({"value": float("nan")}, {"scope": Scope.OTHER}, {"scope": Scope.ACTOR_TOOL}, {"ts": 5}),
    OVERRIDES: (),
}
"""Fields that the field rules refuse."""


def mixed(chunks: Iterable[list[InputRecord]], seed: int, partitions: int) -> Iterator[list[InputRecord]]:
    """The chunks of a history of calls, each with records of the other inputs from the same minutes."""
    makers = [_Others(number, partitions, seed) for number in range(partitions)]
    for index, chunk in enumerate(chunks):
        more, calls = [], []
        for number, maker in enumerate(makers):
            times = [each.timestamp_ms for each in chunk if each.partition == number and each.topic == "tool-calls"]
            more += maker.between(min(times), max(times))
            phase = index % _OUTAGES[1]
            # For one actor it is down before: its breaker trips first, and the tool takes the blame over.
            first = number == 0 and phase == _OUTAGES[0][0] - 1
            calls += maker.shared(min(times), max(times), first=first, down=phase in _OUTAGES[0])
        yield sorted(chunk + calls, key=lambda each: each.timestamp_ms) + more


class _Others:
    """Makes the records of one partition."""

    def __init__(self, number: int, partitions: int, seed: int) -> None:
        self._number = number
        self._rng = random.Random(f"{seed}/{number}/others")
        names = [f"agent-{i}" for i in range(400)]
        self._here = [name for name in names if partition_for(actor_key("default", name), partitions) == number][:5]
        self._elsewhere = [name for name in names if partition_for(actor_key("default", name), partitions) != number]
        self._seq: Counter[tuple[str, str, int]] = Counter()
        self._encode_call = Encoder("ToolCall").encode
        self._recent: dict[str, list[InputRecord]] = {topic: [] for topic in _PER_CHUNK}
        records = {topic: by_name(topic) for topic in _PER_CHUNK}
        self._encode: dict[str, Callable[[Any], bytes]] = {
            topic: Encoder(declared.record).encode for topic, declared in records.items() if declared is not None
        }

    def shared(self, begin_ms: int, end_ms: int, *, first: bool, down: bool) -> list[InputRecord]:
        """Calls of a tool that everybody uses."""
        made = []
        for at_ms in sorted(self._rng.uniform(begin_ms, end_ms) for _ in range(_SHARED_PER_CHUNK)):
            actor = self._rng.choice([*self._here, *self._here[:1] * 5])
            fails = down or (first and actor == self._here[0])
            self._seq[SHARED, actor, 9] += 1
            call = ToolCall(
                event_id=f"shared-{self._number}-{actor}-{self._seq[SHARED, actor, 9]}",
                ts=round(at_ms) * 1_000,
                actor=actor,
                tool=SHARED,
                effect=Effect.WRITE,
                outcome=Outcome.ERROR if fails else Outcome.OK,
                error_type="Outage" if fails else None,
                duration_ms=20,
            )
            key = actor_key("default", actor).encode()
            made.append(InputRecord("tool-calls", self._number, key, self._encode_call(call), round(at_ms)))
        return made

    def between(self, begin_ms: int, end_ms: int) -> list[InputRecord]:
        """The records of some minutes, topic by topic."""
        made: list[InputRecord] = []
        for topic, count in _PER_CHUNK.items():
            made += [self._next(topic, at) for at in sorted(self._rng.uniform(begin_ms, end_ms) for _ in range(count))]
        return made

    def _next(self, topic: str, at_ms: float) -> InputRecord:
        rng, recent = self._rng, self._recent[topic]
        draw = rng.random()
        if draw < 0.03 and recent:
            return rng.choice(recent)
        key = actor_key("default", self._here[0]).encode()
        if draw < 0.05:
            value = rng.choice((None, b"", b"plain text", b"\x00\x00\x00\x00\x07unknown id"))
            return InputRecord(topic, self._number, key, value, round(at_ms))
        fields = dict(rng.choice(_WRONG[topic])) if draw < 0.08 and _WRONG[topic] else {}
        if 0.08 <= draw < 0.09:
            fields["actor"] = rng.choice(self._elsewhere)
        if 0.09 <= draw < 0.11:
            fields["ts"] = round(at_ms * 1_000) - 400 * SECOND
        if 0.11 <= draw < 0.12:
            fields["ts"] = round(at_ms * 1_000) + round(rng.uniform(6, 90) * SECOND)
        value = self._encode[topic](self._record(topic, at_ms, fields))
        record = InputRecord(topic, self._number, key, value, round(at_ms))
        self._recent[topic] = [*recent[-20:], record]
        return record

    def _record(self, topic: str, at_ms: float, fields: dict[str, Any]) -> Any:
        rng = self._rng
        actor, client = rng.choice(self._here), rng.randrange(3)
        seq = self._seq[topic, actor if topic in EVENTS else "", client]
        self._seq[topic, actor if topic in EVENTS else "", client] += 1
        given = {"ts": round(at_ms * 1_000), "actor": actor, "client_id": client, "seq": seq, **fields}
        if topic in EVENTS:
            return made(topic, (given.pop("ts") - T0) / SECOND, **given)
        target = {"tenant": "default", "scope": Scope.ACTOR, **given}
        if topic == SIGNALS:
            return Signal(signal_id=f"s{seq}", source="judge", level=SignalLevel.WARN, metric="tone", **target)
        return Override(override_id=f"o{seq}", kind=OverrideKind.RESET, person="somebody", reason="because", **target)
