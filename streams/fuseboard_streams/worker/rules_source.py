"""Which rules the shards are to run: of a file that is watched, else the newest in the topic, else the packaged."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from fuseboard_schemas.codec import DecodeError, Decoder
from fuseboard_schemas.errors import ConfigurationError, UnreachableError
from fuseboard_schemas.keys import tenant_key
from fuseboard_streams.core.rulebook import needs_of, unfollowed
from fuseboard_streams.rules.compile import PACKAGED, compile_rules, version_of
from fuseboard_streams.rules.document import RulesError
from fuseboard_streams.worker.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer, Message
    from structlog.typing import FilteringBoundLogger

    from fuseboard_detectors.failure import FailureParams
    from fuseboard_schemas.records import Rules
    from fuseboard_schemas.registry import Resolver
    from fuseboard_streams.core.ruleset import RuleSet
    from fuseboard_streams.worker.clients import Clients

RULES_KEY: Final = tenant_key("default")
"""The key of the one rules file of a deployment; its patterns say which tenants its rules are for."""
_LOOK_S: Final = 0.25
"""How often a file is looked at, and the topic."""
_REGISTRY_S: Final = 30.0
"""How long a registry is left alone that did not answer: asking it holds up the worker."""


@dataclass(frozen=True, slots=True)
class RulesText:
    """A rules file that can be used."""

    text: bytes
    source: str
    """Where it comes from, for people."""
    rules: RuleSet
    needs: frozenset[str]
    """The columns of tool calls that they ask for beyond those that are always read."""
    offset: int | None = None
    """Of its record in the topic; None for what is not from there."""


def compiled(text: bytes, source: str, base: FailureParams) -> RulesText:
    """The rules that a text says.

    Args:
        text: of a rules file.
        source: where it comes from, for messages.
        base: what the failure detector is told and no rules file names.

    Raises:
        RulesError: it is no usable rules file; every problem is named.
    """
    rules = compile_rules(text, source, base).rules
    return RulesText(text, source, rules, needs_of(rules))


def noted(log: FilteringBoundLogger, base: FailureParams) -> Callable[[bytes], RuleSet | None]:
    """Finds the rules that a text in a shard's state says; None, and a warning, for those that this version refuses.

    Args:
        log: For that warning.
        base: See `compiled`.
    """

    @lru_cache(maxsize=4)
    def rules_of(text: bytes) -> RuleSet | None:
        try:
            return compile_rules(text, "the rules noted in the state", base).rules
        except RulesError as error:
            log.warning("rules_of_state_refused", problem=str(error))
            return None

    return rules_of


def packaged(base: FailureParams) -> RulesText:
    """The rules that hold where nobody gives others."""
    return compiled(PACKAGED.read_bytes(), "the packaged rules", base)


class RulesSource:
    """Finds the rules that are to be in force; whatever cannot be used leaves those before in force, and is told.

    Args:
        clients: Makes the reader of the topic.
        topic: Full name of ``rules``.
        file: A rules file that is used instead of the topic; it is watched.
        base: What the failure detector is told and no rules file names.
        resolver: Finds the schemas that values were written with.
        log: For what is taken over and what is refused.
        refused: Called for each text that cannot be used.
    """

    def __init__(
        self,
        clients: Clients,
        topic: str,
        file: str | None,
        base: FailureParams,
        resolver: Resolver,
        log: FilteringBoundLogger,
        refused: Callable[[], None],
    ) -> None:
        self._topic = topic
        self._file = file
        self._base = base
        self._clients = clients
        self._decoder = Decoder(resolver)
        self._log = log
        self._refused = refused
        self._consumer: Consumer | None = None
        self._seen: tuple[int, int, int] | None = None
        self._looked = self._retry_at = float("-inf")
        self._read = -1
        self._waiting: list[Message] = []
        """Records that have been read and not decided on, newest first."""
        self.wanted = packaged(base)
        """What every shard is to run."""

    def start(self, timeout_s: float) -> None:
        """Find the rules that are there now.

        Raises:
            ConfigurationError: The file cannot be used: a worker does not start with rules nobody asked for.
            WorkerError: The topic could not be read to its end in time.
            UnreachableError: The newest record has a schema that the registry has to be asked for, and it is away.
        """
        if self._file is not None:
            self._seen = _stamp(self._file)
            self.wanted = compiled(_read(self._file), self._file, self._base)
            self._tell_unfollowed()
            return
        self._tell_unfollowed()
        consumer = self._consumer = self._clients.reader(committed=True)
        try:
            topic = consumer.list_topics(self._topic, timeout=timeout_s).topics.get(self._topic)
            if topic is None or not topic.partitions:
                self._tell_missing()
                return
            consumer.assign([TopicPartition(self._topic, each, OFFSET_BEGINNING) for each in topic.partitions])
            self._add(self._read_to_end(consumer, set(topic.partitions), timeout_s))
        except KafkaException as error:
            raise self._clients.explain(error, "while reading the rules") from error
        self._decide()

    def look(self, now: float) -> None:
        """See whether there is something new.

        Args:
            now: The monotonic clock, in seconds.
        """
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        if self._file is not None:
            self._look_at_file(self._file)
        elif self._consumer is not None:
            fresh = [message for message in self._consumer.consume(100, 0) if message.error() is None]
            self._add(fresh)
            if fresh or (self._waiting and now >= self._retry_at):
                self._decide_later(now)

    def catch_up(self, offset: int, timeout_s: float) -> bool:
        """Read on to a record that a shard runs already: another worker has read further than this one.

        Args:
            offset: Of the record.
            timeout_s: How long that may take. If it is not there, the topic is another one by now, and nobody asks
                again.

        Returns:
            Whether there was anything to read.
        """
        if self._consumer is None or offset <= self._read:
            return False
        left = timeout_s
        while self._read < offset and left > 0:
            self._add([each for each in self._consumer.consume(100, 0.1) if each.error() is None])
            left -= 0.1
        if self._read < offset:
            self._log.warning("rules_behind_shards", topic=self._topic, expected=offset, found=self._read)
            self._read = offset
        self._decide_later(self._looked)
        return True

    def close(self) -> None:
        """Close the reader."""
        if self._consumer is not None:
            self._consumer.close()

    # --- the topic

    def _read_to_end(self, consumer: Consumer, left: set[int], timeout_s: float) -> list[Message]:
        quiet = 0.0
        found: list[Message] = []
        while left:
            message = consumer.poll(0.1)
            if message is None:
                quiet += 0.1
                if quiet >= timeout_s:
                    raise WorkerError(
                        f"The topic {self._topic} could not be read to its end within {timeout_s:.0f} s of silence; is "
                        "the broker well? Start the worker again, or give it a file with --rules."
                    )
                continue
            quiet = 0.0
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                number = message.partition()
                assert number is not None
                left.discard(number)
            elif not error.retriable():
                raise KafkaException(error)
        return found

    def _add(self, messages: list[Message]) -> None:
        self._read = max([self._read, *(each.offset() or 0 for each in messages if each.key() == RULES_KEY.encode())])
        self._waiting = sorted([*self._waiting, *messages], key=_age, reverse=True)

    def _decide(self) -> None:
        """Take over the newest record that can be used; what is older is not even compiled."""
        while self._waiting:
            if self._taken(self._waiting[0]):
                self._waiting.clear()
            else:
                del self._waiting[0]

    def _decide_later(self, now: float) -> None:
        """The same, while the shards go on with the rules they have if the registry is away."""
        try:
            self._decide()
        except UnreachableError as error:
            self._retry_at = now + _REGISTRY_S
            self._log.warning(
                "rules_wait_for_registry", problem=str(error), running=self.wanted.rules.version, again_in_s=_REGISTRY_S
            )

    def _taken(self, message: Message) -> bool:
        value, key = message.value(), message.key()
        where = f"{self._topic}/{message.partition()}@{message.offset()}"
        if key != RULES_KEY.encode():
            self._refuse(
                where, f"its key is {key!r}, expected {RULES_KEY!r}; apply rules with `fuseboard rules apply`."
            )
            return False
        if value is None:
            self._use(replace(packaged(self._base), offset=message.offset()))
            return True
        try:
            record: Rules = self._decoder.decode(value, "Rules")
        except DecodeError as error:
            self._refuse(where, error.detail)
            return False
        text = record.text.encode()
        if version_of(text) != record.version:
            self._refuse(where, f"its text has the version {version_of(text)} and not {record.version}: tampered with?")
            return False
        return self._try(text, f"{where}, applied by {record.applied_by}", message.offset())

    def _tell_missing(self) -> None:
        self._log.warning(
            "rules_topic_missing",
            topic=self._topic,
            running=self.wanted.rules.version,
            hint="the packaged rules hold, and none can be applied: run `fuseboard topics apply`, then start the "
            "workers again",
        )

    # --- a file

    def _look_at_file(self, file: str) -> None:
        try:
            stamp = _stamp(file)
            if stamp == self._seen:
                return
            self._seen = stamp
            text = _read(file)
        except ConfigurationError as error:
            if self._seen is not None:
                self._refuse(file, str(error))
            self._seen = None
            return
        self._try(text, file)

    # --- either

    def _try(self, text: bytes, source: str, offset: int | None = None) -> bool:
        try:
            found = compiled(text, source, self._base)
        except RulesError as error:
            self._refuse(source, str(error))
            return False
        self._use(replace(found, offset=offset))
        return True

    def _use(self, found: RulesText) -> None:
        if found.rules.version != self.wanted.rules.version:
            self._log.info("rules_wanted", version=found.rules.version, source=found.source)
            self.wanted = found
            self._tell_unfollowed()
        self.wanted = found

    def _tell_unfollowed(self) -> None:
        """A rule that is not followed must not be counted on: say so wherever it is taken over."""
        for each in unfollowed(self.wanted.rules):
            self._log.warning("rule_not_followed", rule=each, version=self.wanted.rules.version)

    def _refuse(self, source: str, problem: str) -> None:
        self._refused()
        self._log.error("rules_refused", source=source, problem=problem, running=self.wanted.rules.version)


def _age(message: Message) -> tuple[int, int]:
    return message.timestamp()[1], message.offset() or 0


def _stamp(file: str) -> tuple[int, int, int]:
    try:
        found = os.stat(file)
    except OSError as error:
        raise ConfigurationError(f"{file}: the rules file cannot be read ({error.strerror}); check --rules.") from None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        raise ConfigurationError(f"{file}: the rules file cannot be read ({error.strerror}); check --rules.") from None
