"""Random histories that make every kind of transition happen."""

from __future__ import annotations

import random
from collections.abc import Iterator

from fuseboard_schemas.records import BreakerCommand, BreakerState, Effect, Outcome
from fuseboard_streams.core.shard import Output, Shard
from tests.support.calls import Call, fold


def random_calls(seed: int, n: int, actors: int = 4, tools: int = 3, step: float = 0.4) -> list[Call]:
    """Calls of a few actors that break down now and then, or their tools, with repeats, disorder and stragglers."""
    rng = random.Random(seed)
    broken: dict[tuple[str, str], float] = {}
    unwell: dict[str, float] = {}
    seqs: dict[tuple[int, str], int] = {}
    made: list[Call] = []
    at = 0.0
    for _ in range(n):
        at += rng.expovariate(1 / step) if rng.random() < 0.98 else rng.uniform(5, 90)
        actor, tool = f"actor-{rng.randrange(actors)}", f"tool-{rng.randrange(tools)}"
        if rng.random() < 0.01:
            broken[actor, tool] = at + rng.uniform(5, 120)
        if rng.random() < 0.004:
            unwell[actor] = at + rng.uniform(20, 200)
        rate = 0.8 if broken.get((actor, tool), -1.0) > at else 0.4 if unwell.get(actor, -1.0) > at else 0.03
        if rng.random() < rate:
            outcome = rng.choice([Outcome.ERROR, Outcome.TIMEOUT])
        else:
            outcome = rng.choices([Outcome.OK, Outcome.DENIED, Outcome.CANCELLED], [0.96, 0.02, 0.02])[0]
        client = rng.randrange(2)
        seq = seqs[client, actor] = seqs.get((client, actor), -1) + 1 + (rng.random() < 0.01)
        made.append(
            Call(
                at - (rng.uniform(0, 3) if rng.random() < 0.1 else 0) - (400 if rng.random() < 0.005 else 0),
                outcome,
                actor,
                tool,
                trace=f"trace-{rng.randrange(40)}-{int(at / 60)}" if rng.random() < 0.7 else None,
                client=client,
                seq=seq if rng.random() < 0.95 else None,
                effect=rng.choice(list(Effect)),
                duration_ms=rng.choice([None, 5, 800, 20_000]),
                arrival=at + (0 if rng.random() < 0.98 else -30),
            )
        )
        if rng.random() < 0.02:
            made.append(rng.choice(made[-5:]))
    return made


def with_probes(shard: Shard, calls: list[Call], seed: int) -> list[Call]:
    """The calls, with probes that obey the commands which a shard publishes when it folds them."""
    rng = random.Random(seed)
    gates: dict[str, BreakerCommand] = {}
    told: list[Call] = []
    for call in calls:
        gated = call
        for name in (f"ACTOR_TOOL:default/{call.actor}/{call.tool}", f"ACTOR:default/{call.actor}"):
            command = gates.get(name)
            if command is not None and command.state is BreakerState.HALF_OPEN and rng.random() < 0.8:
                gated = Call(**{**call.__dict__, "probe": True, "gate": (name, command.epoch)})
        for output in fold(shard, [gated], first_offset=len(told)):
            _follow(gates, output)
        told.append(gated)
    return told


def _follow(gates: dict[str, BreakerCommand], output: Output) -> None:
    if output.topic == "breaker_commands" and isinstance(output.record, BreakerCommand):
        gates[output.record.breaker_id] = output.record


def cuts_of(rng: random.Random, n: int, parts: int) -> list[int]:
    """Random places to cut a sequence."""
    return sorted(rng.randrange(n + 1) for _ in range(parts))


def states(outputs: list[Output]) -> Iterator[BreakerState]:
    """The states that the commands among the outputs announce."""
    for output in outputs:
        if isinstance(output.record, BreakerCommand):
            yield output.record.state
