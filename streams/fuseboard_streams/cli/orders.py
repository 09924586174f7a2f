"""A person's order on its way: made, sent to its breaker's home, and answered by the worker."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.keys import KeyFormatError, Target, breaker_id, home_partition, parse_breaker_id
from fuseboard_schemas.records import Action, BreakerCommand, DeadLetter, Scope, Signal
from fuseboard_schemas.topics import TopicNames, for_record
from fuseboard_streams.cli.decode import TopicDecoder
from fuseboard_streams.cli.one_record import send_one
from fuseboard_streams.cli.publishing import order_message

if TYPE_CHECKING:
    from fuseboard_schemas.records import Override
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Reader

_TOPIC: Final = for_record("Override").name
"""As dead letters name it: without the prefix."""
_GUARD: Final = "fuseboard/blast-radius"
"""Source of what the guard says."""
_TOOLS: Final = (Scope.ACTOR_TOOL, Scope.TOOL)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the worker made of an order; neither if nothing was heard in time."""

    command: BreakerCommand | None = None
    """The transition that it caused."""
    ended: Signal | None = None
    """The guard's last word about the incident of a tenant that it ended."""
    refused: str | None = None
    """Why it was not carried out."""


def target_of(text: str, tool: str | None, tenant: str) -> Target:
    """Return what an order is about.

    Args:
        text: A breaker's id, or an actor.
        tool: A tool of that actor; None for the actor itself.
        tenant: The actor's.
    """
    if tool is None:
        try:
            return parse_breaker_id(text)
        except KeyFormatError:
            return Target(Scope.ACTOR, tenant, actor=text)
    return Target(Scope.ACTOR_TOOL, tenant, actor=text, tool=tool)


def id_of(target: Target) -> str:
    """Return the id of a target's breaker."""
    return breaker_id(target.scope, target.tenant, target.actor, target.tool, target.trace_id)


def usual_action(target: Target) -> Action:
    """Return what a trip by hand restricts where nobody says: all that there is."""
    return Action.DISABLE_TOOL if target.scope in _TOOLS else Action.HALT


def give(reader: Reader, connection: Connection, order: Override, wait_s: float) -> Answer:
    """Send an order, and wait for what becomes of it.

    Args:
        reader: A client.
        connection: How to reach Kafka.
        order: One that ``check_override`` accepts.
        wait_s: How long to wait for an answer.

    Raises:
        FuseboardError: It was not confirmed, or the topics cannot be read.
    """
    names = TopicNames(connection.prefix)
    count = len(reader.partitions(names.overrides))
    home = home_partition(order.scope, order.tenant, order.actor, order.tool, count)
    outputs = {names.breaker_commands: "BreakerCommand", names.dead_letters: "DeadLetter"}
    if order.scope is Scope.TENANT:
        outputs[names.signals] = "Signal"
    starts = {topic: reader.watermarks(topic, home).high for topic in outputs}
    offset = send_one(connection, order_message(order, names, count))
    if wait_s <= 0:
        return Answer()
    return _Answers(reader, outputs, starts, home).wait(order, offset, wait_s)


class _Answers:
    """Reads what a shard publishes from some point on."""

    def __init__(self, reader: Reader, outputs: dict[str, str], starts: dict[str, int], home: int) -> None:
        from confluent_kafka import TopicPartition

        self._reader = reader
        self._decoders = {topic: TopicDecoder(record, reader.resolver) for topic, record in outputs.items()}
        reader.assign_all([TopicPartition(topic, home, offset) for topic, offset in starts.items()])

    def wait(self, order: Override, offset: int, seconds: float) -> Answer:
        """Return the answer to the order that lies at an offset."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for message in self._reader.poll(min(left, 0.5))[0]:
                record = self._decoders[message.topic() or ""].decode(message.value())
                if isinstance(record, BreakerCommand) and record.event_id == order.override_id:
                    return Answer(command=record)
                if isinstance(record, Signal) and record.event_id == order.override_id and record.source == _GUARD:
                    return Answer(ended=record)
                if isinstance(record, DeadLetter) and (record.topic, record.offset) == (_TOPIC, offset):
                    return Answer(refused=record.detail)
        return Answer()


def expires_at(given: str | None, now: int) -> int | None:
    """Return when an order ends that is to last for a duration such as ``30m`` (µs since the epoch).

    Raises:
        ConfigurationError: It is no duration.
    """
    from fuseboard_streams.rules.quantities import duration_us

    if given is None:
        return None
    try:
        return now + duration_us(given)
    except ValueError as error:
        raise ConfigurationError(f"--for {given!r}: {error}.") from None
