"""``fuseboard top``: the live view."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from fuseboard_streams.cli.options import connection_options, json_option, paint, terminal_columns

if TYPE_CHECKING:
    from confluent_kafka import Message

    from fuseboard_schemas.records import BreakerCommand
    from fuseboard_schemas.registry import Resolver
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.render.top import ShardView, Snapshot

WINDOW_S: Final = 10
"""Seconds over which the event rate is taken."""

_KEPT_TRANSITIONS: Final = 50
_SECOND: Final = 1_000_000


class Board:
    """What has been read of breakers and heartbeats so far; bounded by what is open, not by what ever tripped."""

    def __init__(self, prefix: str, resolver: Resolver) -> None:
        from fuseboard_streams.cli.decode import TopicDecoder
        from fuseboard_streams.cli.probeable import Probeable

        self._names = {prefix + name: name for name in ("breaker-commands", "heartbeats")}
        self._commands = TopicDecoder("BreakerCommand", resolver)
        self._heartbeats = TopicDecoder("Heartbeat", resolver)
        self.open: dict[str, BreakerCommand] = {}
        self.transitions: list[BreakerCommand] = []
        self.shards: dict[int, ShardView] = {}
        self.probeable = Probeable(prefix)

    def take(self, message: Message) -> None:
        """Fold one record of either topic into the board."""
        if self._names.get(message.topic() or "") == "heartbeats":
            self._take_heartbeat(message)
        else:
            self._take_command(message)

    def _take_command(self, message: Message) -> None:
        """Keep a breaker while it is not closed, and the latest transitions of all."""
        from fuseboard_streams.cli import decode
        from fuseboard_streams.cli.render.breakers import is_open

        record = self._commands.decode(message.value())
        if isinstance(record, decode.Undecodable):
            return
        if isinstance(record, decode.Tombstone):
            self._close(decode.key_text(message))
            return
        if is_open(record):
            self.open[record.breaker_id] = record
            self.probeable.note(record)
        else:
            self._close(record.breaker_id)
        self.transitions.append(record)
        if len(self.transitions) > 2 * _KEPT_TRANSITIONS:
            self.transitions = self.latest()

    def _close(self, breaker_id: str) -> None:
        """Drop a breaker that holds nothing back any more."""
        self.open.pop(breaker_id, None)
        self.probeable.forget(breaker_id)

    def latest(self) -> list[BreakerCommand]:
        """Return the latest transitions, the newest first."""
        return sorted(self.transitions, key=lambda c: (-c.ts, -c.epoch, c.breaker_id))[:_KEPT_TRANSITIONS]

    def _take_heartbeat(self, message: Message) -> None:
        """Keep the last sign of life of each shard."""
        from fuseboard_streams.cli import decode
        from fuseboard_streams.cli.render.top import ShardView

        record = self._heartbeats.decode(message.value())
        if isinstance(record, decode.Tombstone | decode.Undecodable):
            return
        arrival = decode.place(message).arrival
        known = self.shards.get(record.shard)
        # A compacted topic keeps one record per worker: the newest of all workers that had the shard counts.
        if known is None or arrival >= known.heard:
            self.shards[record.shard] = ShardView(
                record.shard, record.worker_id, record.lag_s, record.stream_time, arrival
            )


class Monitor:
    """Reads the topics of ``top`` and takes snapshots."""

    def __init__(self, connection: Connection) -> None:
        from confluent_kafka import OFFSET_BEGINNING, TopicPartition

        from fuseboard_streams.cli.kafka import Reader

        self._connection = connection
        self._reader = Reader(connection)
        self.board = Board(connection.prefix, self._reader.resolver)
        self._watch = Reader(connection)
        names = [connection.prefix + "breaker-commands", connection.prefix + "heartbeats"]
        positions = [TopicPartition(n, p, OFFSET_BEGINNING) for n in names for p in self._reader.partitions(n)]
        self._reader.assign_all(positions)
        self._behind = {(p.topic, p.partition) for p in positions}

    def close(self) -> None:
        """Close the clients."""
        self._reader.close()
        self._watch.close()

    def catch_up(self) -> None:
        """Read both topics up to their ends."""
        while self._behind:
            self.follow(0.5)

    def follow(self, seconds: float) -> None:
        """Read what arrives within a time."""
        messages, ended = self._reader.poll(seconds)
        for message in messages:
            self.board.take(message)
        self._behind -= set(ended)

    def snapshot(self) -> Snapshot:
        """Return the present state of everything."""
        from fuseboard_streams.cli.render.top import Snapshot

        now = time.time_ns() // 1_000
        prefix = self._connection.prefix
        events, partitions = self._arrived(prefix + "tool-calls", now - WINDOW_S * _SECOND)
        dead, _ = self._arrived(prefix + "dead-letters", now - 60 * _SECOND)
        return Snapshot(
            at=now,
            bootstrap=self._connection.bootstrap,
            prefix=prefix,
            partitions=partitions,
            events_per_s=events / WINDOW_S,
            window_s=WINDOW_S,
            dead_letters=dead,
            shards=[self.board.shards[number] for number in sorted(self.board.shards)],
            open_breakers=list(self.board.open.values()),
            transitions=self.board.latest(),
            probed=self.board.probeable.of(self.board.open.values(), self._watch),
        )

    def _arrived(self, topic: str, since: int) -> tuple[int, int]:
        """Return how many offsets a topic has handed out since a time (µs), and its number of partitions."""
        numbers = self._watch.partitions(topic)
        starts = self._watch.offsets_at(topic, numbers, since)
        return sum(self._watch.watermarks(topic, n).high - starts[n] for n in numbers), len(numbers)


@click.command("top")
@click.option("--once", is_flag=True, help="Print one snapshot and stop.")
@click.option(
    "--interval", type=click.FloatRange(min=0.2), default=1.0, show_default=True, help="Seconds between views."
)
@json_option
@connection_options
def command(once: bool, interval: float, as_json: bool, connection: Connection) -> None:
    """Watch event rate, lag, workers, open breakers and transitions live; Ctrl-C ends it.

    Reads the topics only: it needs no worker's address. With --json, one object per view.
    """
    live = not (once or as_json)
    if live:
        if not sys.stdout.isatty():
            raise click.UsageError("Standard output is no terminal: use `fuseboard top --once`, or --json.")
        # Before anything is read: without the package there is no view.
        import rich.live  # noqa: F401
    monitor = Monitor(connection)
    try:
        monitor.catch_up()
        if live:
            _live(monitor, interval)
        else:
            _print(monitor, once, interval, as_json)
    finally:
        monitor.close()


def _print(monitor: Monitor, once: bool, interval: float, as_json: bool) -> None:
    """Print one snapshot, or one JSON object per interval."""
    from fuseboard_streams.cli.render.top import top_lines

    while True:
        snapshot = monitor.snapshot()
        if as_json:
            click.echo(json.dumps(snapshot_json(snapshot), ensure_ascii=False))
        else:
            click.echo("\n".join(top_lines(snapshot, paint(), terminal_columns())))
        if once:
            return
        _wait(monitor, interval)


def snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON, breakers and transitions in their JSON form."""
    from fuseboard_schemas.jsonform import to_json

    return {
        **snapshot.as_json(),
        "open_breakers": [
            {**to_json(c), "can_be_probed": snapshot.probed.get(c.breaker_id)} for c in snapshot.open_breakers
        ],
        "transitions": [to_json(c) for c in snapshot.transitions],
    }


def _live(monitor: Monitor, interval: float) -> None:
    """Redraw the terminal until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from fuseboard_streams.cli.render.top import top_lines

    colours = paint()

    def draw() -> Text:
        size = shutil.get_terminal_size()
        lines = top_lines(monitor.snapshot(), colours, size.columns, size.lines - 1)
        return Text.from_ansi("\n".join(lines), no_wrap=True)

    with Live(draw(), console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            _wait(monitor, interval)
            live.update(draw(), refresh=True)


def _wait(monitor: Monitor, interval: float) -> None:
    """Go on reading for one interval."""
    until = time.monotonic() + interval
    while (left := until - time.monotonic()) > 0:
        monitor.follow(min(left, 0.2))
