"""The background thread that follows breaker commands and heartbeats, and acknowledges what it has applied."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from fuseboard.envelope import RecordEvent
from fuseboard.imports import load
from fuseboard.view import every_tool, home_of, is_tenant, is_tool
from fuseboard_schemas.keys import partition_for
from fuseboard_schemas.records import BreakerCommand, EnforcementAck, Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Consumer, Message, TopicPartition

    from fuseboard.publisher import Publisher
    from fuseboard.settings import Settings
    from fuseboard.view import Applied, View
    from fuseboard_schemas.codec import Decoder
    from fuseboard_schemas.topics import TopicNames

log = logging.getLogger("fuseboard.follower")

_POLL_S = 0.1
_BATCH = 500
_METADATA_TIMEOUT_S = 1.0
_RETRY_S = 0.5
_COMPLAIN_EVERY_S = 60.0
_RENEW_AFTER_S = 30.0


class Follower:
    """Keeps a view up to date from Kafka.

    It reads the whole breaker topic from the beginning, because agents meet new tools all the time and their first call
    is to be guarded too; of the heartbeats those of its actors' shards, from the end, because a retained heartbeat is
    no sign of life. An actor registered later makes it read that actor's partition again; a tool does not, because the
    view keeps what is said about any.

    Args:
        settings: Where Kafka is.
        topics: Topic names.
        view: What to keep up to date.
        publisher: Takes the acknowledgements.
        clock: Monotonic clock in seconds.
        wall_us: Wall clock in microseconds since 1970.
        listeners: Called with each command once it is in force; may grow.
        each_turn: Called about ten times a second, less often while there is no broker.
    """

    def __init__(
        self,
        settings: Settings,
        topics: TopicNames,
        view: View,
        publisher: Publisher,
        *,
        clock: Callable[[], float],
        wall_us: Callable[[], int],
        listeners: Sequence[Callable[[BreakerCommand], None]] = (),
        each_turn: Callable[[], object] = bool,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._each_turn = each_turn
        self._commands = topics.breaker_commands
        self._heartbeats = topics.heartbeats
        self._view = view
        self._publisher = publisher
        self._clock = clock
        self._wall_us = wall_us
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._consumer: Consumer | None = None
        self._decoder: Decoder | None = None
        self._partitions = 0
        self._heard_at = 0.0
        self._placed: frozenset[str] = frozenset()
        self._listened: frozenset[str] = frozenset()
        self._assigned: frozenset[int] = frozenset()
        self._reading: dict[int, frozenset[str]] = {}
        self._catching_up: set[int] = set()
        self._actors_of: dict[int, frozenset[str]] = {}
        self._complained_at = float("-inf")
        self._enforcer = f"sdk/{_version()}"

    def start(self) -> bool:
        """Start the thread; False when the interpreter is shutting down."""
        thread = threading.Thread(target=self._run, name="fuseboard-follower", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)

    def runs_here(self) -> bool:
        """Whether the caller is the follower's own thread."""
        return threading.current_thread() is self._thread

    def abandon(self) -> None:
        """Forget everything in a forked child."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            from fuseboard.kafka import leak

            leak(consumer)

    # -------------------------------------------------------------- the thread

    def _run(self) -> None:
        load()
        while not self._stop.is_set():
            try:
                self._each_turn()
                if self._consumer is None:
                    self._connect()
                self._renew()
                if self._partitions or self._find_partitions():
                    self._step()
                else:
                    self._stop.wait(_RETRY_S)
            except Exception as error:
                self._complain("The breaker topic cannot be followed: %s. Trying again.", _text(error))
                self._stop.wait(_RETRY_S)
        self._disconnect()

    def _renew(self) -> None:
        """Replace a consumer that hears nothing and finds no broker.

        After a broker's restart librdkafka may stay alone for ever, with no address left (confluentinc/librdkafka
        issue 5301).
        """
        if self._clock() - self._heard_at < _RENEW_AFTER_S:
            return
        from confluent_kafka import KafkaException

        assert self._consumer is not None
        self._heard_at = self._clock()
        try:
            self._consumer.list_topics(self._commands, timeout=_METADATA_TIMEOUT_S)
        except KafkaException:
            self._disconnect()
            self._connect()

    def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._partitions = 0
        self._placed = self._listened = frozenset()
        self._assigned = frozenset()
        self._reading, self._actors_of = {}, {}
        self._catching_up.clear()
        # What is said meanwhile is unknown until everything has been read again.
        self._view.uncover()
        if consumer is not None:
            consumer.close()

    def _connect(self) -> None:
        from confluent_kafka import Consumer

        from fuseboard.kafka import consumer_settings
        from fuseboard_schemas.codec import Decoder

        self._heard_at = self._clock()
        self._decoder = Decoder()
        self._decoder.prepare("BreakerCommand", "Heartbeat")
        self._consumer = Consumer(consumer_settings(self._settings, self._publisher.client_id))

    def _find_partitions(self) -> bool:
        """Ask how many partitions there are, which says where everything has its home."""
        assert self._consumer is not None
        found = self._consumer.list_topics(self._commands, timeout=_METADATA_TIMEOUT_S).topics.get(self._commands)
        if found is None or found.error is not None or not found.partitions:
            self._complain(
                "The topic %s does not exist yet: no breaker is known. `fuseboard topics apply` makes it.",
                self._commands,
            )
            return False
        self._partitions = len(found.partitions)
        return True

    def _step(self) -> None:
        assert self._consumer is not None
        self._place()
        message = self._consumer.poll(_POLL_S)
        seen = 0
        while message is not None:
            self._take(message)
            seen += 1
            message = self._consumer.poll(0) if seen < _BATCH else None
        self._view.publish()
        applied = self._view.take_applied()
        self._acknowledge(applied)
        self._announce(applied)

    def _place(self) -> None:
        """Assign what has to be read for whatever was registered since the last time."""
        interests, actors = self._view.interests, self._view.actors
        if interests == self._placed and actors == self._listened:
            return
        new = {each: self._home_of(each) for each in interests - self._placed}
        if any(is_tenant(each) for each in new):
            again = frozenset(range(self._partitions))
        else:
            again = frozenset(partition for each, partition in new.items() if not is_tool(each))
        shards = {actor: self._home(actor) for actor in actors - self._listened}
        self._assign(again, frozenset(shards.values()) - self._actors_of.keys())
        self._catching_up |= again
        for each, partition in new.items():
            self._reading[partition] = self._reading.get(partition, frozenset()) | {each}
            if partition not in self._catching_up:
                self._view.reached_end(partition, frozenset({each}))
        for actor, shard in shards.items():
            self._actors_of[shard] = self._actors_of.get(shard, frozenset()) | {actor}
        self._placed, self._listened = interests, actors

    def _assign(self, partitions: frozenset[int], shards: frozenset[int]) -> None:
        """Read partitions of the breaker topic from their beginning, if need be once more, and hear shards' workers."""
        from confluent_kafka import OFFSET_END, TopicPartition

        assert self._consumer is not None
        heartbeats = [TopicPartition(self._heartbeats, shard, OFFSET_END) for shard in sorted(shards)]
        if not self._assigned:
            heartbeats = self._located(heartbeats)
        known = partitions & self._assigned
        if known:
            self._consumer.incremental_unassign([TopicPartition(self._commands, each) for each in sorted(known)])
            self._assigned -= known
        # By number, because the broker would have to be asked first where the beginning is; if it lies higher up, the
        # client goes there by itself.
        commands = [TopicPartition(self._commands, partition, 0) for partition in sorted(partitions)]
        if heartbeats or commands:
            # All at once: what is assigned after a fetch has begun waits until the broker has answered that one.
            self._consumer.incremental_assign([*heartbeats, *commands])
        self._assigned |= partitions

    def _located(self, ends: list[TopicPartition]) -> list[TopicPartition]:
        """The same with the numbers of their ends.

        Before the first fetch the broker answers at once. Otherwise the question would wait behind a fetch, half a
        second in which heartbeats go unheard.
        """
        from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

        assert self._consumer is not None
        try:
            found = self._consumer.offsets_for_times(ends, timeout=_METADATA_TIMEOUT_S)
        except KafkaException:
            return ends
        return [TopicPartition(each.topic, each.partition, OFFSET_END if each.error else each.offset) for each in found]

    def _home_of(self, wanted: str) -> int:
        return self._home(home_of(wanted))

    def _home(self, key: str) -> int:
        return partition_for(key, self._partitions)

    def _take(self, message: Message) -> None:
        from confluent_kafka import KafkaError

        topic, partition = message.topic(), message.partition()
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            self._heard_at = self._clock()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                if topic == self._commands and partition is not None:
                    self._reached_end(partition)
                return
            self._complain("Reading %s: %s.", topic, error.str())
            return
        if partition is None:
            return
        if topic == self._commands:
            self._take_command(message, partition)
        elif (heartbeat := self._decode(message, "Heartbeat")) is not None:
            assert isinstance(heartbeat, Heartbeat)
            self._view.heartbeat(self._actors_of.get(partition, frozenset()), heartbeat.lag_s, self._clock())

    def _reached_end(self, partition: int) -> None:
        self._catching_up.discard(partition)
        interests = self._reading.get(partition, frozenset())
        if not self._catching_up:
            interests |= {every_tool(each) for each in self._placed if is_tenant(each)}
        self._view.reached_end(partition, interests)

    def _take_command(self, message: Message, partition: int) -> None:
        raw_key = message.key()
        key = raw_key.decode("utf-8", "replace") if isinstance(raw_key, bytes) else ""
        catching_up, offset = partition in self._catching_up, message.offset()
        if message.value() is None:
            self._view.apply(key, None, partition, catching_up=catching_up, offset=offset)
            return
        if not self._view.concerns(key):
            return
        command = self._decode(message, "BreakerCommand")
        if command is not None:
            assert isinstance(command, BreakerCommand)
            self._view.apply(key, command, partition, catching_up=catching_up, offset=offset)

    def _decode(self, message: Message, record: str) -> Any:  # noqa: ANN401 - the class that `record` names
        from fuseboard_schemas.codec import DecodeError

        assert self._decoder is not None
        try:
            return self._decoder.decode(message.value(), record)
        except DecodeError as error:
            log.error(
                "%s, partition %s, offset %s holds no %s: %s It is ignored.",
                message.topic(),
                message.partition(),
                message.offset(),
                record,
                error,
            )
            return None

    def _acknowledge(self, applied: list[Applied]) -> None:
        for item in applied:
            command = item.command
            self._publisher.submit(
                RecordEvent(
                    EnforcementAck(
                        breaker_id=command.breaker_id,
                        epoch=command.epoch,
                        state=command.state,
                        tenant=command.tenant,
                        actor=command.actor,
                        client_id=0,
                        enforcer=self._enforcer,
                        ts=self._wall_us(),
                        command_ts=command.ts,
                    ),
                    item.partition,
                )
            )

    def _announce(self, applied: list[Applied]) -> None:
        for item in applied:
            for listener in self._listeners:
                try:
                    listener(item.command)
                except Exception:
                    log.exception("A listener failed on the command about %s.", item.command.breaker_id)

    def _complain(self, message: str, *details: object) -> None:
        """Log a lasting trouble, but not in every round."""
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning(message, *details)


def _text(error: Exception) -> object:
    """What an error says; the client's own hold an object whose text is for programmers."""
    detail = error.args[0] if error.args else error
    return detail.str() if hasattr(detail, "str") else error


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fuseboard")
    except PackageNotFoundError:
        return "0"
