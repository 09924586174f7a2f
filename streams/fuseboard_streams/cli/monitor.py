"""What ``top`` knows: breakers and heartbeats as they are read, and how to go on when the broker goes away."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from fuseboard_schemas.errors import ConfigurationError, FuseboardError
from fuseboard_streams.cli import decode, kafka
from fuseboard_streams.cli.kafka import MissingTopicError, Reader
from fuseboard_streams.cli.objective_states import MARK, ObjectiveStates, is_objective
from fuseboard_streams.cli.probeable import Probeable
from fuseboard_streams.cli.render.breakers import is_open
from fuseboard_streams.cli.render.top import ShardView, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from fuseboard_schemas.records import BreakerCommand, Signal
    from fuseboard_schemas.registry import Resolver
    from fuseboard_streams.cli.config import Connection

WINDOW_S: Final = 10
"""Seconds over which the event rate is taken."""

CATCH_UP_S: Final = 30.0
"""How long the end of a topic may take to come nearer."""

ANSWER_TIMEOUT_S: Final = 5.0
"""How long a broker that has answered before may take."""

RETRY_TIMEOUT_S: Final = 2.0
"""How long a broker that was away may take to answer, so that the view goes on meanwhile."""

LOOK_UP_S: Final = 0.3
"""How long a view may take to find out which breakers can be probed; the next one goes on."""

TRIES_PER_CLIENT: Final = 10

WATCHED_SINCE_S: Final = 3_600
"""How far back trips of rules that hold nothing back are looked for at the start."""

STATES_SINCE_S: Final = 13 * 3_600
"""How far back states of objectives are looked for: they are said again every twelve hours."""

MOST_SIGNALS: Final = 20_000
"""Of so many offsets of each partition, the last ones: others may publish any number of signals."""

NOTHING_HELD_BACK: Final = "nothing is held back"
"""What the worker writes into the reason of such a trip."""

_KEPT_TRANSITIONS: Final = 50
_SECOND: Final = 1_000_000


def now_us() -> int:
    """Return the wall clock in µs since the epoch."""
    return time.time_ns() // 1_000


def held_nothing_back(signal: Signal) -> bool:
    """Return whether a signal is the trip of one of our rules that is in shadow or only warns."""
    # A rule that enforces says WARN too, when it begins to suspect; only the words tell these apart.
    ours = signal.source.startswith("fuseboard/") and str(signal.level) != "TRIP"
    return ours and NOTHING_HELD_BACK in (signal.reason or "")


class Board:
    """What has been read of breakers and heartbeats so far; bounded by what is open, not by what ever tripped."""

    def __init__(self, prefix: str, resolver: Resolver) -> None:
        self._names = {prefix + name: name for name in ("breaker-commands", "heartbeats", "signals")}
        self._commands = decode.TopicDecoder("BreakerCommand", resolver)
        self._heartbeats = decode.TopicDecoder("Heartbeat", resolver)
        self._signals = decode.TopicDecoder("Signal", resolver)
        self.watched: list[Signal] = []
        self.watched_since = 0
        """What arrived before is passed over, µs since the epoch."""
        self.objectives = ObjectiveStates()
        self.open: dict[str, BreakerCommand] = {}
        self.transitions: list[BreakerCommand] = []
        self.shards: dict[int, ShardView] = {}
        self.probeable = Probeable(prefix)

    def take(self, message: Message) -> None:
        """Fold one record of any of the topics into the board."""
        match self._names.get(message.topic() or ""):
            case "heartbeats":
                self._take_heartbeat(message)
            case "signals":
                self._take_signal(message)
            case _:
                self._take_command(message)

    def _take_command(self, message: Message) -> None:
        """Keep a breaker while it is not closed, and the latest transitions of all."""
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

    def _take_signal(self, message: Message) -> None:
        """Keep states of objectives, and the latest trips that hold nothing back; others show as transitions."""
        value = message.value()
        if value is None or MARK not in value:
            return
        record = self._signals.decode(value)
        if isinstance(record, decode.Tombstone | decode.Undecodable):
            return
        arrival = decode.place(message).arrival
        if is_objective(record):
            self.objectives.take(record, arrival)
            return
        if not held_nothing_back(record) or arrival < self.watched_since:
            return
        self.watched.append(record)
        if len(self.watched) > 2 * _KEPT_TRANSITIONS:
            self.watched = self.latest_watched()

    def latest_watched(self) -> list[Signal]:
        """Return the latest trips of rules that hold nothing back, the newest first."""
        return sorted(self.watched, key=lambda s: (-s.ts, s.signal_id))[:_KEPT_TRANSITIONS]

    def _close(self, breaker_id: str) -> None:
        """Drop a breaker that holds nothing back any more."""
        self.open.pop(breaker_id, None)
        self.probeable.forget(breaker_id)

    def latest(self) -> list[BreakerCommand]:
        """Return the latest transitions, the newest first."""
        return sorted(self.transitions, key=lambda c: (-c.ts, -c.epoch, c.breaker_id))[:_KEPT_TRANSITIONS]

    def _take_heartbeat(self, message: Message) -> None:
        """Keep the last sign of life of each shard."""
        record = self._heartbeats.decode(message.value())
        if isinstance(record, decode.Tombstone | decode.Undecodable):
            return
        arrival = decode.place(message).arrival
        known = self.shards.get(record.shard)
        # A compacted topic keeps one record per worker: the newest of all workers that had the shard counts.
        if known is None or arrival >= known.heard:
            self.shards[record.shard] = ShardView(
                record.shard, record.worker_id, record.lag_s, record.stream_time, arrival, record.nearest
            )


class Monitor:
    """Reads the topics of ``top`` and takes snapshots."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reader = Reader(connection)
        self._watch = Reader(connection)
        self.board = Board(connection.prefix, self._reader.resolver)

    def open(self, timeout_s: float) -> None:
        """Read the topics up to their ends; may be tried again when it fails.

        Args:
            timeout_s: How long the broker may take to answer the first request.

        Raises:
            FuseboardError: It does not, a topic is missing, or it refuses.
        """
        self._reader.timeout_s = timeout_s
        prefix = self._connection.prefix
        self.board = Board(prefix, self._reader.resolver)
        names = [prefix + "breaker-commands", prefix + "heartbeats"]
        positions = [TopicPartition(n, p, OFFSET_BEGINNING) for n in names for p in self._reader.partitions(n)]
        positions += self._signals(prefix + "signals")
        self._reader.assign_all(positions)
        self._reader.timeout_s = self._watch.timeout_s = ANSWER_TIMEOUT_S
        self._catch_up({(p.topic, p.partition) for p in positions})

    def _signals(self, topic: str) -> list[TopicPartition]:
        """Return where to start with signals."""
        now = now_us()
        self.board.watched_since = now - WATCHED_SINCE_S * _SECOND
        starts = self._reader.offsets_at(topic, self._reader.partitions(topic), now - STATES_SINCE_S * _SECOND)
        ends = {p: self._reader.watermarks(topic, p).high for p in starts}
        return [TopicPartition(topic, p, max(offset, ends[p] - MOST_SIGNALS)) for p, offset in starts.items()]

    def close(self) -> None:
        """Close the clients."""
        self._reader.close()
        self._watch.close()

    def _catch_up(self, behind: set[tuple[str, int]]) -> None:
        """Read partitions up to their ends."""
        heard = time.monotonic()
        while behind:
            messages, ended = self._reader.poll(0.5)
            for message in messages:
                self.board.take(message)
            behind = behind - set(ended)
            if messages or ended:
                heard = time.monotonic()
            elif time.monotonic() - heard > CATCH_UP_S:
                raise self._reader.unanswered("while reading what is there")

    def follow(self, seconds: float) -> None:
        """Read what arrives within a time."""
        for message in self._reader.poll(seconds)[0]:
            self.board.take(message)

    def snapshot(self) -> Snapshot:
        """Return the present state of everything."""
        now = now_us()
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
            watched=self.board.latest_watched(),
            objectives=self.board.objectives.latest(now),
            probed=self.board.probeable.of(self.board.open.values(), self._watch, LOOK_UP_S),
        )

    def _arrived(self, topic: str, since: int) -> tuple[int, int]:
        """Return how many offsets a topic has handed out since a time (µs), and its number of partitions."""
        numbers = self._watch.partitions(topic)
        starts = self._watch.offsets_at(topic, numbers, since)
        return sum(self._watch.watermarks(topic, n).high - starts[n] for n in numbers), len(numbers)


class Watch:
    """A monitor that outlasts the broker: while it is away the last snapshot is shown, and a new client is tried.

    Args:
        make: Makes a monitor.
        clock: Wall clock in µs since the epoch.

    Raises:
        FuseboardError: The broker cannot be read from the beginning on.
    """

    def __init__(self, make: Callable[[], Monitor], clock: Callable[[], int] = now_us) -> None:
        self._make = make
        self._clock = clock
        self._tries = 0
        self._last: Snapshot | None = None
        self._problem: FuseboardError | None = None
        self._monitor = make()
        try:
            self._monitor.open(kafka.METADATA_TIMEOUT_S)
        except BaseException:
            self._monitor.close()
            raise

    def close(self) -> None:
        """Close the clients."""
        self._monitor.close()

    def snapshot(self) -> Snapshot:
        """Return the present state, or the last one known, which then says since when nothing was heard.

        Raises:
            FuseboardError: There is none yet.
            ConfigurationError: The broker refuses us, which does not mend itself.
        """
        try:
            if self._problem is not None:
                self._reconnect()
            self._last = self._monitor.snapshot()
        except FuseboardError as error:
            self._lost(error)
            if self._last is None:
                raise
            since = self._last.at
            return dataclasses.replace(self._last, at=self._clock(), silent_since=since, problem=str(error))
        self._problem = None
        return self._last

    def wait(self, seconds: float) -> None:
        """Go on reading for a time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._problem is not None:
                time.sleep(left)
                return
            try:
                self._monitor.follow(min(left, 0.2))
            except FuseboardError as error:
                self._lost(error)

    def _lost(self, error: FuseboardError) -> None:
        """Take an error as the broker's being away, unless waiting cannot help."""
        if isinstance(error, ConfigurationError) and not isinstance(error, MissingTopicError):
            raise error
        self._problem = error

    def _reconnect(self) -> None:
        """Try to read again."""
        # A client that was told of no brokers forgets the addresses that it had, for ever: so it is not kept for long.
        if self._tries % TRIES_PER_CLIENT == 0:
            fresh = self._make()
            self._monitor.close()
            self._monitor = fresh
        self._tries += 1
        self._monitor.open(RETRY_TIMEOUT_S)
        self._tries = 0
