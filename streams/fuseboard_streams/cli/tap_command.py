"""``fuseboard tap``: decode a topic live."""

from __future__ import annotations

import collections
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from fuseboard_streams.cli.options import connection_options, json_option, paint
from fuseboard_streams.cli.render.text import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import Message

    from fuseboard_schemas.topics import Topic
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.cli.render.text import Paint
    from fuseboard_streams.cli.selection import Condition, Start


@dataclass(frozen=True, slots=True)
class View:
    """What to show of each record, and how."""

    conditions: Sequence[Condition]
    headers: bool
    as_json: bool
    paint: Paint


@click.command("tap")
@click.argument("topic")
@click.option(
    "--from",
    "start",
    default="end",
    show_default=True,
    metavar="WHERE",
    help="beginning, end, an offset, -N (the last N of each partition), or a time (2026-11-23T04:00:00Z).",
)
@click.option("--max", "limit", type=click.IntRange(min=1), help="Stop after this many records.")
@click.option("--until-end", is_flag=True, help="Stop at the end instead of waiting for more.")
@click.option("--tenant", metavar="PATTERN", help="Only this tenant; * and ? match as in file names.")
@click.option("--actor", metavar="PATTERN", help="Only this actor.")
@click.option("--tool", metavar="PATTERN", help="Only this tool.")
@click.option("--where", multiple=True, metavar="FIELD=VALUE", help="Only records like this; also !=; may be repeated.")
@click.option("--partition", type=click.IntRange(min=0), help="Only this partition.")
@click.option("--headers", is_flag=True, help="Show the record headers too.")
@click.option("--uncommitted", is_flag=True, help="Show records of open and aborted transactions too.")
@json_option
@connection_options
def command(
    topic: str,
    start: str,
    limit: int | None,
    until_end: bool,
    tenant: str | None,
    actor: str | None,
    tool: str | None,
    where: tuple[str, ...],
    partition: int | None,
    headers: bool,
    uncommitted: bool,
    as_json: bool,
    connection: Connection,
) -> None:
    """Decode TOPIC live, one line per record.

    TOPIC is a short name such as tool-calls, breaker-commands, enforcement-acks, signals, heartbeats or dead-letters.
    With --json each line is what `fuseboard publish` reads, with the record's place under "kafka".
    """
    from fuseboard_schemas import records
    from fuseboard_streams.cli.kafka import Reader
    from fuseboard_streams.cli.selection import find_topic, parse_conditions, parse_start

    declared = find_topic(topic, connection.prefix)
    begin = parse_start(start)
    conditions = parse_conditions(getattr(records, declared.record), where, tenant=tenant, actor=actor, tool=tool)
    view = View(conditions, headers, as_json, paint())
    with Reader(connection, uncommitted=uncommitted) as reader:
        _tap(reader, connection, declared, begin, view, partition, limit, until_end)


def _tap(
    reader: Reader,
    connection: Connection,
    topic: Topic,
    start: Start,
    view: View,
    partition: int | None,
    limit: int | None,
    until_end: bool,
) -> None:
    """Read from the start positions and print, until the end, the limit, or Ctrl-C."""
    from fuseboard_streams.cli.decode import TopicDecoder

    name = connection.prefix + topic.name
    offsets = _offsets(reader, name, start, partition)
    if start.kind == "last" and (topic.is_output or not topic.is_input):
        offsets = _newest(reader, name, start.value, offsets)
    decoder = TopicDecoder(topic.record, reader.resolver)
    left = {(name, number) for number in offsets}
    if sys.stderr.isatty() and not until_end:
        click.echo(f"{name}, {len(offsets)} partitions, from {start.kind}; Ctrl-C stops", err=True)
    reader.assign(name, offsets)
    shown = hidden = 0
    while left or not until_end:
        messages, ended = reader.poll(0.25)
        for message in messages:
            lines = message_lines(message, topic.record, decoder.decode(message.value()), view)
            hidden += lines is None
            if lines:
                click.echo("\n".join(lines))
                shown += 1
            if limit is not None and shown >= limit:
                return
        left -= set(ended)
    if hidden:
        what = f"{plural(hidden, 'record')} without a readable value"
        click.echo(f"{what} not shown because of the filter", err=True)


def _offsets(reader: Reader, topic: str, start: Start, partition: int | None) -> dict[int, int]:
    """Return the offset to start at for each partition.

    Raises:
        ConfigurationError: There is no such partition.
    """
    from fuseboard_schemas.errors import ConfigurationError

    numbers = reader.partitions(topic)
    if partition is not None and partition not in numbers:
        raise ConfigurationError(f"--partition {partition}: {topic} has the partitions 0 to {numbers[-1]}.")
    wanted = numbers if partition is None else [partition]
    if start.kind == "time":
        return reader.offsets_at(topic, wanted, start.value)
    return {number: start.offset(reader.watermarks(topic, number)) for number in wanted}


def _newest(reader: Reader, topic: str, count: int, offsets: dict[int, int]) -> dict[int, int]:
    """Return the offset of the last record but so many, for each partition of a topic that transactions write.

    Their markers have offsets of their own, so that one cannot simply count back from the end.
    """
    found = {}
    window = 4 * count + 8
    left = {number: reader.watermarks(topic, number) for number in offsets}
    while left:
        starts = {number: max(each.low, each.high - window) for number, each in left.items()}
        newest = {number: collections.deque[int](maxlen=count) for number in left}
        for message in reader.to_end(topic, starts):
            newest[message.partition() or 0].append(message.offset() or 0)
        for number, each in list(left.items()):
            if len(newest[number]) == count or starts[number] == each.low:
                found[number] = newest[number][0] if newest[number] else each.high
                del left[number]
        window *= 8
    return found


def message_lines(message: Message, record_name: str, decoded: Any, view: View) -> list[str] | None:  # noqa: ANN401
    """Return the lines to print for one message; none when a filter hides it.

    ``None`` instead of a list means that a filter was given which could not be applied: there is no record.
    """
    from fuseboard_streams.cli import decode
    from fuseboard_streams.cli.render import lines as render

    place, key = decode.place(message), decode.key_text(message)
    lost = isinstance(decoded, decode.Tombstone | decode.Undecodable)
    if lost and view.conditions:
        return None
    if not lost and not all(condition.holds(decoded) for condition in view.conditions):
        return []
    if view.as_json:
        return [json.dumps(message_json(message, record_name, decoded, view.headers), ensure_ascii=False)]
    if isinstance(decoded, decode.Tombstone):
        shown = render.tombstone_line(key, place, view.paint)
    elif isinstance(decoded, decode.Undecodable):
        shown = render.undecodable_line(key, decoded.reason, decoded.detail, decoded.length, place, view.paint)
    else:
        shown = render.record_line(decoded, place, view.paint)
    headers = decode.headers(message) if view.headers else []
    return [shown, render.header_line(headers, view.paint)] if headers else [shown]


def message_json(message: Message, record_name: str, decoded: Any, headers: bool) -> dict[str, Any]:  # noqa: ANN401
    """Return one message as a JSON object: the record's own form, and where it lies under ``kafka``."""
    from fuseboard_schemas.jsonform import to_json
    from fuseboard_streams.cli import decode

    place = decode.place(message)
    where: dict[str, Any] = {
        "topic": message.topic(),
        "partition": place.partition,
        "offset": place.offset,
        "timestamp": place.arrival,
        "key": decode.key_text(message),
    }
    if headers:
        where["headers"] = dict(decode.headers(message))
    if isinstance(decoded, decode.Tombstone):
        return {"record": record_name, "tombstone": True, "kafka": where}
    if isinstance(decoded, decode.Undecodable):
        problem = {"reason": decoded.reason, "detail": decoded.detail, "length": decoded.length}
        return {"record": record_name, "undecodable": problem, "kafka": where}
    return {"record": record_name, **to_json(decoded), "kafka": where}
