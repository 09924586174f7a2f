"""What the topics tell about one actor; only the partitions in which that can lie are read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import OFFSET_BEGINNING

from fuseboard_schemas.keys import KeyFormatError, actor_key, breaker_id, home_partition, parse_breaker_id
from fuseboard_schemas.records import Scope
from fuseboard_streams.cli.breakers_command import newest_commands
from fuseboard_streams.cli.decode import TopicDecoder, key_text
from fuseboard_streams.cli.objective_state import state_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fuseboard_schemas.keys import Target
    from fuseboard_schemas.records import BreakerCommand, Signal, ToolCall
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.cli.probeable import Probeable
    from fuseboard_streams.core.portrayed import ActorPortrait
    from fuseboard_streams.rules.compile import Compiled

_MINUTE_US: Final = 60_000_000
SIGNALS_SINCE_MIN: Final = 24 * 60
"""How far back findings are looked for, in minutes."""


@dataclass(slots=True)
class ToolUse:
    """An actor's calls of one tool within some time."""

    tool: str
    effect: str = ""
    calls: int = 0
    failed: int = 0
    """ERROR or TIMEOUT."""
    refused: int = 0
    """DENIED, by whatever."""
    cost_usd_micros: int = 0
    last: int = 0
    """When the last one ended, µs since the epoch."""

    def add(self, call: ToolCall) -> None:
        """Count a call."""
        outcome = str(call.outcome)
        self.calls += 1
        self.failed += outcome in ("ERROR", "TIMEOUT")
        self.refused += outcome == "DENIED"
        self.cost_usd_micros += call.cost_usd_micros or 0
        if call.ts >= self.last:
            self.last, self.effect = call.ts, str(call.effect)


@dataclass(frozen=True, slots=True)
class RuleFor:
    """A rule that an actor has, for the tools for which its values are the same."""

    section: str
    rule: str
    scope: str
    mode: str
    """Empty for an objective."""
    metric: str
    recovery: str
    tools: tuple[str, ...]
    """Empty for a rule about the actor as a whole."""
    line: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """What the actor's shard knows of it, or why that is not known here."""

    portrait: ActorPortrait | None = None
    written_us: int | None = None
    """When the broker had the newest entry of the shard's state log, µs since the epoch."""
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object: ``known`` has every number with its unit in the name."""
        found = self.portrait
        return {
            "known": None if found is None else dataclasses.asdict(found),
            "written_us": self.written_us,
            "problem": self.problem or None,
        }


@dataclass(slots=True)
class ActorState:
    """One actor, as far as the topics tell."""

    tenant: str
    actor: str
    shard: int
    minutes: float
    """Over which calls were counted."""
    breakers: list[BreakerCommand] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    """The newest per rule and target, the newest first."""
    shared: list[Signal] = field(default_factory=list)
    """Likewise of objectives of the tools that it called, over all actors of the tenant."""
    tools: dict[str, ToolUse] = field(default_factory=dict)
    clients: dict[int, int] = field(default_factory=dict)
    """Client to the end of its last call."""
    rules: list[RuleFor] | None = None
    """None where they cannot be known."""
    rules_version: str | None = None

    @property
    def known(self) -> bool:
        """Whether anything at all was found."""
        return bool(self.breakers or self.signals or self.tools)

    def tool_names(self) -> list[str]:
        """The tools that are named anywhere."""
        held = {each.tool for each in self.breakers if each.tool is not None}
        found = {each.tool for each in self.signals if each.tool is not None}
        return sorted(held | found | set(self.tools))


def read_actor(reader: Reader, connection: Connection, tenant: str, actor: str, minutes: float, now: int) -> ActorState:
    """Read what the topics tell about an actor; its breakers and its rules are left out.

    Args:
        reader: A client.
        connection: How to reach Kafka.
        tenant: The actor's tenant.
        actor: Its name.
        minutes: How far back calls are counted.
        now: Wall clock in µs since the epoch.

    Raises:
        FuseboardError: A topic cannot be read.
    """
    topic = connection.prefix + "tool-calls"
    count = len(reader.partitions(topic))
    state = ActorState(tenant, actor, home_partition(Scope.ACTOR, tenant, actor, None, count), minutes)
    starts = reader.offsets_at(topic, [state.shard], now - int(minutes * _MINUTE_US))
    key = actor_key(tenant, actor).encode()
    mine = (message for message in reader.to_end(topic, starts) if message.key() == key)
    for call in TopicDecoder("ToolCall", reader.resolver).records(mine):
        state.tools.setdefault(call.tool, ToolUse(call.tool)).add(call)
        state.clients[call.client_id] = max(call.ts, state.clients.get(call.client_id, 0))
    found = _signals(reader, connection, state, count, now)
    state.signals = [each for each in found if each.actor is not None]
    state.shared = [each for each in found if each.actor is None]
    return state


def _signals(reader: Reader, connection: Connection, state: ActorState, count: int, now: int) -> list[Signal]:
    topic = connection.prefix + "signals"
    homes = {home_partition(Scope.TOOL, state.tenant, None, tool, count) for tool in state.tools} | {state.shard}
    starts = reader.offsets_at(topic, sorted(homes), now - SIGNALS_SINCE_MIN * _MINUTE_US)
    newest: dict[tuple[Any, ...], Signal] = {}
    for signal in TopicDecoder("Signal", reader.resolver).records(reader.to_end(topic, starts)):
        if _says_of(signal, state):
            about = (signal.rule or f"{signal.source} {signal.metric}", signal.scope, signal.tool, signal.trace_id)
            if about not in newest or signal.ts >= newest[about].ts:
                newest[about] = signal
    return sorted(newest.values(), key=lambda each: (-each.ts, each.signal_id))


def _says_of(signal: Signal, state: ActorState) -> bool:
    """Return whether a signal is about an actor, or an objective of one of its tools."""
    if signal.tenant != state.tenant:
        return False
    if signal.actor is not None:
        return signal.actor == state.actor
    return signal.scope is Scope.TOOL and signal.tool in state.tools and state_of(signal) is not None


def read_breakers(reader: Reader, connection: Connection, state: ActorState) -> tuple[list[BreakerCommand], Probeable]:
    """Return the newest command of each breaker on the way of an actor's calls, and what is known of their probes.

    Args:
        reader: A client.
        connection: How to reach Kafka.
        state: What was found of the actor before.

    Raises:
        FuseboardError: The topic cannot be read.
    """
    topic, tenant, tools = connection.prefix + "breaker-commands", state.tenant, state.tool_names()
    count = len(reader.partitions(topic))
    homes = {state.shard, home_partition(Scope.TENANT, tenant, None, None, count)}
    homes |= {home_partition(Scope.TOOL, tenant, None, tool, count) for tool in tools}
    shared = {breaker_id(Scope.TENANT, tenant)} | {breaker_id(Scope.TOOL, tenant, tool=tool) for tool in tools}
    messages = (
        message
        for message in reader.to_end(topic, dict.fromkeys(homes, OFFSET_BEGINNING))
        if (key := key_text(message)) in shared or _is_of(_target(key), state)
    )
    found, probeable = newest_commands(messages, reader, connection)
    return list(found.values()), probeable


def _target(key: str) -> Target | None:
    try:
        return parse_breaker_id(key)
    except KeyFormatError:
        return None


def _is_of(target: Target | None, state: ActorState) -> bool:
    return target is not None and (target.tenant, target.actor) == (state.tenant, state.actor)


def rules_for(compiled: Compiled, tenant: str, actor: str, tools: Sequence[str]) -> list[RuleFor]:
    """Return the rules that an actor has, in the order of the file, tools with the same values together."""
    from fuseboard_streams.rules.explain import explain

    found: dict[tuple[Any, ...], list[str]] = {}
    # A rule about the actor does not depend on the tool, and there may be none.
    for tool in tools or [""]:
        for each in explain(compiled, tenant, actor, tool):
            of_tool = each.scope in ("ACTOR_TOOL", "TOOL")
            if of_tool and not tool:
                continue
            values = tuple((value.path, value.value) for value in each.values)
            named = found.setdefault((each.section, each.rule, each.scope, each.line, values), [])
            named += [tool] if of_tool else []
    return [_rule(key, names) for key, names in found.items()]


def _rule(key: tuple[Any, ...], tools: Iterable[str]) -> RuleFor:
    section, rule, scope, line, pairs = key
    values = dict(pairs)
    return RuleFor(
        section,
        rule,
        scope,
        values.get("mode", ""),
        values["metric"],
        values.get("recovery.by", ""),
        tuple(tools),
        line,
    )
