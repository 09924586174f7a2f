"""Events that are no tool calls, as a shard is given them, and a follower that remembers what it was told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fuseboard_schemas import columnar
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.records import Decision, PolicyDecision, SessionRequest, Signal, StepKind, TraceStep
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_schemas.topics import by_name
from fuseboard_streams.core.events import COLUMNS, DECISIONS, REQUESTS, TRACES, ActorEvents, prepare_events
from fuseboard_streams.core.hooks import Follower, Heard
from fuseboard_streams.core.inputs import Inputs, Received
from fuseboard_streams.core.settings import SECOND
from fuseboard_streams.core.shard import Shard
from tests.support.calls import SEEDS, T0

Record = PolicyDecision | SessionRequest | TraceStep
_MAKERS: dict[str, Any] = {
    TRACES: lambda **fields: TraceStep(**{"kind": StepKind.LLM_CALL, **fields}),
    DECISIONS: lambda **fields: PolicyDecision(**{"decision": Decision.ALLOW, "rule": "r", **fields}),
    REQUESTS: lambda **fields: SessionRequest(**{"session_id": "s", "accepted": True, **fields}),
}
TOPICS = tuple(_MAKERS)


def made(topic: str, at: float, **fields: Any) -> Record:
    """A record of a topic; ``at`` is its time in seconds after T0."""
    given = {"event_id": f"e{at}", "actor": "a", "ts": T0 + round(at * SECOND), **fields}
    record: Record = _MAKERS[topic](**given)
    return record


def prepared(topic: str, records: Sequence[Record], first_offset: int = 0, arrival_s: float | None = None) -> Inputs:
    """Records as the next inputs of shard 0; they arrive when they happen, or all at ``arrival_s`` after T0."""
    declared = by_name(topic)
    assert declared is not None
    encode, n = Encoder(declared.record).encode, len(records)
    decoded = columnar.decode(
        declared.record, [encode(each) for each in records], PackagedResolver(), only=COLUMNS[topic]
    )
    assert not decoded.bad
    ts = np.array([each.ts for each in records], dtype=np.int64)
    arrival = ts if arrival_s is None else np.full(n, T0 + round(arrival_s * SECOND))
    offset = np.arange(first_offset, first_offset + n, dtype=np.int64)
    batch = prepare_events(topic, decoded.frame, np.zeros(n, np.int32), offset, arrival, SEEDS)
    return Inputs(events={topic: batch[0]})


def signals(*several: Signal, first_offset: int = 0, arrival_s: float | None = None) -> Inputs:
    """Signals as the next inputs of shard 0; they arrive when they happen, or all at ``arrival_s`` after T0."""
    arrivals = [each.ts if arrival_s is None else T0 + round(arrival_s * SECOND) for each in several]
    return Inputs(
        signals=[
            Received(first_offset + i, arrival, each)
            for i, (each, arrival) in enumerate(zip(several, arrivals, strict=True))
        ]
    )


class Remembering(Follower):
    """Remembers every event that it is told, one by one, so that where runs were cut does not show."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.signals: list[Heard] = []

    def on_requests(self, events: ActorEvents, stream: Any, actor_rows: Any) -> None:
        """Remember them."""
        self._take(REQUESTS, events, stream, actor_rows)

    def on_decisions(self, events: ActorEvents, stream: Any, actor_rows: Any) -> None:
        """Remember them."""
        self._take(DECISIONS, events, stream, actor_rows)

    def on_steps(self, events: ActorEvents, stream: Any, actor_rows: Any) -> None:
        """Remember them."""
        self._take(TRACES, events, stream, actor_rows)

    def on_signals(self, several: Sequence[Heard]) -> None:
        """Remember them."""
        self.signals += several

    @property
    def ids(self) -> list[str]:
        """The ids of the events, in order."""
        return [each["event_id"] for each in self.events]

    def _take(self, topic: str, events: ActorEvents, stream: Any, actor_rows: Any) -> None:
        assert topic == events.topic
        assert len(events) == len(stream) == len(actor_rows) > 0
        everything = np.arange(len(events))
        names = events.strings("event_id", everything)
        for i, name in enumerate(names):
            self.events.append(
                {
                    "topic": topic,
                    "event_id": name,
                    "offset": int(events.offset[i]),
                    "ts": int(events.ts[i]),
                    "stream": int(stream[i]),
                    "actor": int(actor_rows[i]),
                    "late": bool(events.late[i]),
                    **{key: values[i].item() for key, values in events.columns.items()},
                }
            )


def give(shard: Shard, inputs: Inputs) -> None:
    """Fold inputs in a transaction."""
    shard.begin()
    shard.fold(inputs)
    shard.encode_changes(256)
    shard.commit()
