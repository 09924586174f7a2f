"""The one declaration of Fuseboard's topics: code, commands, ``ops/kafka/topics.yaml`` and tests are made from it."""

from __future__ import annotations

from dataclasses import dataclass

from fuseboard_schemas.errors import ConfigurationError

PREFIX = "fuseboard."
"""Default prefix of every topic name."""

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
UNLIMITED = -1
MEGABYTE = 1_048_576
_OVERHEAD = 4_096
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_LONGEST_TOPIC_NAME = 249


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is to be created; every topic has the same number of partitions."""

    name: str
    """Name without the prefix."""
    record: str
    """Record that its values are."""
    key: str
    """What its keys are, for people."""
    cleanup: str
    """Kafka's ``cleanup.policy``."""
    retention_ms: int
    """Kafka's ``retention.ms``; -1 is unlimited. Without effect on a topic that is only compacted."""
    is_input: bool = False
    """Whether a shard consists of it: the worker reads it and resumes at its offsets."""
    is_output: bool = False
    """Whether the worker writes it, in its transactions: their markers take up offsets between the records."""
    max_message_bytes: int = MEGABYTE
    """Kafka's ``max.message.bytes``."""
    extra: tuple[tuple[str, str], ...] = ()
    """Further settings of this topic."""

    @property
    def attribute(self) -> str:
        """Name of its attribute in :class:`TopicNames`."""
        return self.name.replace("-", "_")

    @property
    def config(self) -> dict[str, str]:
        """Kafka's topic configuration, all values as strings."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            # The broker's clock is the arrival time; a producer's clock may be hours off.
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(self.max_message_bytes),
            **dict(self.extra),
        }


_COMPACT_SOON = (("min.cleanable.dirty.ratio", "0.1"), ("segment.ms", str(HOUR_MS)))
_KEEP_ALL = (("retention.bytes", "-1"),)

TOPICS: tuple[Topic, ...] = (
    Topic("tool-calls", "ToolCall", "tenant/actor", "delete", 7 * DAY_MS, is_input=True),
    Topic("traces", "TraceStep", "tenant/actor", "delete", 7 * DAY_MS, is_input=True),
    Topic("policy-decisions", "PolicyDecision", "tenant/actor", "delete", 7 * DAY_MS, is_input=True),
    Topic("tasks", "TaskOutcome", "tenant/actor", "delete", 30 * DAY_MS),
    Topic("session-requests", "SessionRequest", "tenant/actor", "delete", 7 * DAY_MS, is_input=True),
    Topic("eval-results", "EvalResult", "tenant/actor", "delete", 90 * DAY_MS),
    Topic("signals", "Signal", "target key", "delete", 30 * DAY_MS, is_input=True, is_output=True),
    Topic("rules", "Rules", "tenant", "compact", UNLIMITED, extra=_COMPACT_SOON),
    Topic("overrides", "Override", "target key", "delete", 90 * DAY_MS, is_input=True),
    Topic("panes", "Pane", "tenant/tool or tenant", "delete", 7 * DAY_MS, is_input=True, is_output=True),
    Topic(
        "breaker-commands", "BreakerCommand", "breaker id", "compact", UNLIMITED, is_output=True, extra=_COMPACT_SOON
    ),
    Topic("enforcement-acks", "EnforcementAck", "breaker id", "delete", 30 * DAY_MS, is_input=True),
    Topic("alerts", "Alert", "dedup key", "compact,delete", 90 * DAY_MS, extra=_COMPACT_SOON),
    Topic("aggregates", "Aggregate", "tenant/actor", "delete", 30 * DAY_MS),
    Topic("audit", "AuditRecord", "tenant/actor", "delete", 400 * DAY_MS),
    Topic("heartbeats", "Heartbeat", "worker id", "compact", UNLIMITED, is_output=True, extra=_COMPACT_SOON),
    Topic(
        "dead-letters",
        "DeadLetter",
        "source key",
        "delete",
        30 * DAY_MS,
        is_output=True,
        max_message_bytes=4 * MEGABYTE + _OVERHEAD,
    ),
    # The worker deletes what a newer checkpoint round replaces; retention must never delete a quiet shard's state.
    Topic("state", "StateRecord", "shard", "delete", UNLIMITED, is_output=True, extra=_KEEP_ALL),
)
"""All topics."""


class TopicNames:
    """Full names of all topics under one prefix."""

    tool_calls: str
    traces: str
    policy_decisions: str
    tasks: str
    session_requests: str
    eval_results: str
    signals: str
    rules: str
    overrides: str
    panes: str
    breaker_commands: str
    enforcement_acks: str
    alerts: str
    aggregates: str
    audit: str
    heartbeats: str
    dead_letters: str
    state: str

    def __init__(self, prefix: str = PREFIX) -> None:
        longest = _LONGEST_TOPIC_NAME - max(len(topic.name) for topic in TOPICS)
        if not set(prefix) <= _NAME_CHARACTERS or len(prefix) > longest:
            raise ConfigurationError(
                f"The topic prefix {prefix!r} cannot be used: Kafka allows letters, digits, dots, underscores and "
                f"hyphens, and here at most {longest} characters. Set another with --prefix or FUSEBOARD_PREFIX."
            )
        self.prefix = prefix
        self._topics = {prefix + topic.name: topic for topic in TOPICS}
        for topic in TOPICS:
            setattr(self, topic.attribute, prefix + topic.name)

    def of(self, topic: Topic) -> str:
        """The full name of a topic."""
        return self.prefix + topic.name

    def find(self, full_name: str) -> Topic | None:
        """The declaration of a full name, or None if it is none of ours."""
        return self._topics.get(full_name)

    def subject(self, topic: Topic) -> str:
        """The subject of a topic's values in a schema registry."""
        return f"{self.of(topic)}-value"

    def __repr__(self) -> str:
        return f"TopicNames({self.prefix!r})"


def by_name(name: str) -> Topic | None:
    """The declaration of a topic by its name without the prefix, or None."""
    return next((topic for topic in TOPICS if topic.name == name), None)


def for_record(record: str) -> Topic:
    """The topic whose values are a record.

    Raises:
        KeyError: No topic carries such a record.
    """
    for topic in TOPICS:
        if topic.record == record:
            return topic
    raise KeyError(record)


def declaration() -> str:
    """The declaration of all topics as YAML, for operators who create topics with tools of their own."""
    lines = [
        "# Generated from fuseboard_schemas.topics by",
        "# `python -m fuseboard_schemas.generate --topics ops/kafka/topics.yaml`; do not edit.",
        "# All topics need the same number of partitions, and it must never change once the worker has state.",
        f'prefix: "{PREFIX}"',
        "topics:",
    ]
    for topic in TOPICS:
        lines += [f"  - name: {topic.name}", f"    record: {topic.record}", f"    key: {topic.key}"]
        lines += [f"    is_input: {str(topic.is_input).lower()}", "    config:"]
        lines += [f'      {name}: "{value}"' for name, value in topic.config.items()]
    return "\n".join(lines) + "\n"
