"""The events of a benchmark: full ToolCall records of many actors, the same ones for the same parameters every time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

Int64s = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

CHUNK = 50_000
"""Events per chunk: what is generated at once."""

CALLS_PER_TASK = 8
"""Tool calls of one task, which is one trace."""

TASKS_PER_SESSION = 5
"""Tasks of one session."""

MAX_DISORDER_US = 20_000
"""How much later than its end a call may be published: events of different actors are out of order by up to this."""

EFFECTS = ("READ", "READ", "READ", "WRITE", "READ", "WRITE", "READ", "READ", "READ", "IRREVERSIBLE")
"""Effects of the tools, going round."""

OUTCOMES = ("OK", "ERROR", "TIMEOUT")
"""Outcomes by code."""

ERROR_TYPES = (None, "ConnectionError", "UpstreamTimeout", "ValidationError", "HTTPStatusError")
"""Error types by code; 0 is no error."""

# Purposes of the hash: each draws its own sequence of identifiers from the same seed.
_EVENT, _SPAN, _TRACE, _TASK, _SESSION, _CLIENT, _ARGS, _KEY = range(1, 9)


@dataclass(frozen=True, slots=True)
class Workload:
    """What to generate.

    Attributes:
        events: how many events.
        actors: how many actors, drawn independently and evenly.
        tools: how many tools, drawn independently of the actor.
        failure_rate: share of the calls that fail, spread evenly over everything.
        events_per_s: events per second of event time.
        start_us: event time of the first one, microseconds since 1970.
        seed: chooses everything that is drawn.
        tenant: the tenant of all actors.
        name: what the actors' names begin with.
        sweep: let the first events visit every tool of every actor once, in a scattered order, before any is drawn.
    """

    events: int
    actors: int = 1_000
    tools: int = 20
    failure_rate: float = 0.01
    events_per_s: float = 50_000.0
    start_us: int = 1_700_000_000_000_000
    seed: int = 1
    tenant: str = "default"
    name: str = "agent"
    sweep: bool = False

    def actor_name(self, number: int) -> str:
        """The name of actor `number`."""
        return f"{self.name}_{number:07d}"

    def tool_name(self, number: int) -> str:
        """The name of tool `number`."""
        return f"{_TOOL_FAMILIES[number % len(_TOOL_FAMILIES)]}.operation_{number:02d}"

    def intent(self, number: int) -> str:
        """The intent behind calls of tool `number`."""
        return f"handle_{_TOOL_FAMILIES[number % len(_TOOL_FAMILIES)]}"

    def effect(self, number: int) -> str:
        """The effect of tool `number`."""
        return EFFECTS[number % len(EFFECTS)]

    @property
    def sweep_events(self) -> int:
        """How many of the first events are the sweep."""
        return self.actors * self.tools if self.sweep else 0

    def swept(self, index: Int64s) -> tuple[Int64s, Int64s]:
        """Actor and tool of the sweep's events number `index`: a permutation of all pairs."""
        pairs = self.actors * self.tools
        step = next(each for each in range(int(pairs * 0.618) | 1, 2 * pairs + 3) if gcd(each, pairs) == 1)
        pair = index * step % pairs
        return pair % self.actors, pair // self.actors

    def client_ids(self) -> Int64s:
        """The client id of each actor: one process per actor."""
        return _hash(self.seed, _CLIENT, np.arange(self.actors, dtype=np.int64)).view(np.int64)


_TOOL_FAMILIES = ("billing", "orders", "search", "crm", "calendar", "files", "email", "inventory", "shipping", "sql")


@dataclass(frozen=True, slots=True)
class Events:
    """A run of events as columns, all of one length.

    Attributes:
        index: number of the event in the workload, from 0.
        actor: number of the actor.
        tool: number of the tool.
        seq: counter per actor, from 1.
        ts: end of the call, microseconds since 1970.
        outcome: index into `OUTCOMES`.
        error: index into `ERROR_TYPES`.
        duration_ms: duration of the call.
        cost_usd_micros: what it cost.
        amount_usd_micros: money it moved, or -1 for a call that moves none.
    """

    index: Int64s
    actor: Int64s
    tool: Int64s
    seq: Int64s
    ts: Int64s
    outcome: Int64s
    error: Int64s
    duration_ms: Int64s
    cost_usd_micros: Int64s
    amount_usd_micros: Int64s

    def __len__(self) -> int:
        """How many events these are."""
        return len(self.index)

    def take(self, which: npt.NDArray[Any]) -> Events:
        """The events at the positions, or under the mask, `which`."""
        return Events(**{each.name: getattr(self, each.name)[which] for each in fields(self)})

    def at(self, ts: Int64s) -> Events:
        """The same events, ending at `ts`."""
        return replace(self, ts=ts)

    @property
    def task(self) -> Int64s:
        """Number of the actor's task, from 0."""
        return (self.seq - 1) // CALLS_PER_TASK

    @property
    def session(self) -> Int64s:
        """Number of the actor's session, from 0."""
        return self.task // TASKS_PER_SESSION


def generate(workload: Workload, chunk: int = CHUNK) -> Iterator[Events]:
    """The events of `workload`, in order of arrival, in chunks.

    Args:
        workload: what to generate.
        chunk: events per chunk; chunks of another size are other events.

    Yields:
        Columns of at most `chunk` events.
    """
    published = np.zeros(workload.actors, dtype=np.int64)
    for first in range(0, workload.events, chunk):
        size = min(chunk, workload.events - first)
        rng = np.random.default_rng((workload.seed, first))
        index = np.arange(first, first + size, dtype=np.int64)
        actor = rng.integers(workload.actors, size=size)
        tool = rng.integers(workload.tools, size=size)
        in_sweep = index < workload.sweep_events
        if in_sweep.any():
            actor[in_sweep], tool[in_sweep] = workload.swept(index[in_sweep])
        failed = rng.random(size) < workload.failure_rate
        ended = workload.start_us + (index * (1e6 / workload.events_per_s)).astype(np.int64)
        outcome = np.where(failed, 1 + (rng.random(size) < 0.2), 0)
        writes = np.array([workload.effect(number) != "READ" for number in range(workload.tools)])
        yield Events(
            index=index,
            actor=actor,
            tool=tool,
            seq=_numbered(actor, published),
            ts=ended - rng.integers(MAX_DISORDER_US, size=size),
            outcome=outcome.astype(np.int64),
            error=np.where(failed, rng.integers(1, len(ERROR_TYPES), size=size), 0),
            duration_ms=np.minimum(rng.lognormal(4.8, 1.0, size), 30_000).astype(np.int64),
            cost_usd_micros=rng.integers(50, 5_000, size=size),
            amount_usd_micros=np.where(writes[tool], rng.integers(1, 500, size=size) * 1_000_000, -1),
        )


def _numbered(actor: Int64s, published: Int64s) -> Int64s:
    """The running number of each event among its actor's, from 1; `published` is brought up to date."""
    order = np.argsort(actor, kind="stable")
    ordered = actor[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(ordered)])
    rank = np.arange(len(ordered)) - np.repeat(starts, counts)
    seq = np.empty(len(ordered), dtype=np.int64)
    seq[order] = published[ordered] + rank + 1
    published[ordered[starts]] += counts
    return seq


def _hash(seed: int, purpose: int, *parts: Int64s) -> Words:
    """64 well-mixed bits per row (the finaliser of splitmix64, Steele et al. 2014, over each part in turn)."""
    with np.errstate(over="ignore"):
        state = np.full(len(parts[0]), (seed * 0x9E3779B97F4A7C15 + purpose) % 2**64, dtype=np.uint64)
        for part in parts:
            state += part.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state ^= state >> np.uint64(30)
            state *= np.uint64(0xBF58476D1CE4E5B9)
            state ^= state >> np.uint64(27)
            state *= np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return state


@dataclass(frozen=True, slots=True)
class Identities:
    """The identifiers of a run of events, in lower-case hex.

    Attributes:
        event: 32 digits, unique per event.
        trace: 32 digits, one per task.
        span: 16 digits, unique per event.
        session: 32 digits, one per session.
        task: 32 digits, one per task.
        idempotency: 32 digits, one per logical call.
        args: 32 digits, few per tool: agents repeat themselves.
    """

    event: list[str]
    trace: list[str]
    span: list[str]
    session: list[str]
    task: list[str]
    idempotency: list[str]
    args: list[str]


def identities(workload: Workload, events: Events) -> Identities:
    """The identifiers of `events`: functions of the seed, the actor and the running numbers."""
    seed, task, session = workload.seed, events.task, events.session
    none, one = np.zeros_like(task), np.ones_like(task)
    variant = events.index % 50
    return Identities(
        event=_hex(_hash(seed, _EVENT, events.index, none), _hash(seed, _EVENT, events.index, one)),
        trace=_hex(_hash(seed, _TRACE, events.actor, task, none), _hash(seed, _TRACE, events.actor, task, one)),
        span=_hex(_hash(seed, _SPAN, events.index)),
        session=_hex(
            _hash(seed, _SESSION, events.actor, session, none), _hash(seed, _SESSION, events.actor, session, one)
        ),
        task=_hex(_hash(seed, _TASK, events.actor, task, none), _hash(seed, _TASK, events.actor, task, one)),
        idempotency=_hex(_hash(seed, _KEY, events.index, none), _hash(seed, _KEY, events.index, one)),
        args=_hex(_hash(seed, _ARGS, events.tool, variant, none), _hash(seed, _ARGS, events.tool, variant, one)),
    )


def _hex(*words: Words) -> list[str]:
    """One string per row: the digits of its words."""
    text = np.stack(words, axis=1).astype(">u8").tobytes().hex()
    width = 16 * len(words)
    return [text[start : start + width] for start in range(0, len(text), width)]


def records(workload: Workload, events: Events) -> list[dict[str, Any]]:
    """The events as ToolCall fields, one dict each: the slow, plain form that the fast encoder is compared with."""
    ids = identities(workload, events)
    clients = workload.client_ids()
    found = []
    for row in range(len(events)):
        tool, error, amount = int(events.tool[row]), int(events.error[row]), int(events.amount_usd_micros[row])
        actor = int(events.actor[row])
        found.append(
            {
                "event_id": ids.event[row],
                "ts": int(events.ts[row]),
                "tenant": workload.tenant,
                "actor": workload.actor_name(actor),
                "client_id": int(clients[actor]),
                "seq": int(events.seq[row]),
                "trace_id": ids.trace[row],
                "span_id": ids.span[row],
                "session_id": ids.session[row],
                "task_id": ids.task[row],
                "intent": workload.intent(tool),
                "tool": workload.tool_name(tool),
                "effect": workload.effect(tool),
                "outcome": OUTCOMES[int(events.outcome[row])],
                "denied_by": "NONE",
                "error_type": ERROR_TYPES[error],
                "duration_ms": int(events.duration_ms[row]),
                "cost_usd_micros": int(events.cost_usd_micros[row]),
                "amount_usd_micros": None if amount < 0 else amount,
                "attempt": 1,
                "idempotency_key": ids.idempotency[row],
                "compensates": None,
                "probe": False,
                "args_hash": ids.args[row],
                "gate_breaker": None,
                "gate_epoch": None,
            }
        )
    return found
