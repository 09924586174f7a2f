"""Running the command line inside a test, and putting records on a broker."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from click.testing import CliRunner, Result
from confluent_kafka import Producer

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.records import EnforcementAck, Heartbeat, ToolCall
from fuseboard_streams.cli.app import cli
from tests.cli import samples


def run(*arguments: str, stdin: bytes | None = None, env: dict[str, str | None] | None = None) -> Result:
    """Run `fuseboard` with arguments; only usage, errors and output count, exceptions never come through."""
    clean: dict[str, str | None] = {"NO_COLOR": "1", "FORCE_COLOR": None, "FUSEBOARD_DEBUG": None, **(env or {})}
    result = CliRunner(env=clean).invoke(cli, list(arguments), input=stdin, prog_name="fuseboard")
    assert "Traceback" not in result.output
    return result


class Board:
    """Puts records on the topics of one prefix, each on the partition it belongs to."""

    def __init__(self, bootstrap: str, prefix: str, partitions: int) -> None:
        self.options = ("--bootstrap", bootstrap, "--prefix", prefix)
        self.prefix = prefix
        self.partitions = partitions
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})

    def raw(self, topic: str, value: bytes | None, key: bytes = b"key", partition: int = 0) -> None:
        """Put any bytes on a topic."""
        self._producer.produce(self.prefix + topic, value, key, partition, headers=[("ce_id", b"x1"), ("none", None)])

    def put(self, topic: str, record: Any, key: str, partition: int) -> None:
        """Put a record on a topic."""
        self.raw(topic, Encoder(type(record).__name__).encode(record), key.encode(), partition)

    def flush(self) -> None:
        """Wait until everything is there."""
        assert self._producer.flush(30) == 0

    def breakers(self, *commands: Any) -> None:
        """Put breaker commands on their home partitions."""
        from fuseboard_schemas.keys import home_partition

        for c in commands:
            home = home_partition(c.scope, c.tenant, c.actor, c.tool, self.partitions)
            self.put("breaker-commands", c, c.breaker_id, home)
        self.flush()

    def acks(self, acks: Sequence[EnforcementAck]) -> None:
        """Put acknowledgements of the sample breaker on its home partition."""
        from fuseboard_schemas.keys import actor_key, partition_for

        home = partition_for(actor_key("default", "support_agent_v4"), self.partitions)
        for ack in acks:
            self.put("enforcement-acks", ack, ack.breaker_id, home)
        self.flush()

    def calls(self, count: int, **changes: Any) -> None:
        """Put tool calls on partition 0."""
        for i in range(count):
            self.put("tool-calls", samples.call(event_id=f"e{i}", seq=i, **changes), "default/a", 0)
        self.flush()

    def heartbeat(
        self, shard: int, worker: str = "worker-a", lag_s: float = 0.25, rules_version: str = "builtin-1"
    ) -> None:
        """Put one heartbeat on its partition."""
        beat = Heartbeat(
            worker_id=worker,
            group="fuseboard",
            shard=shard,
            ts=samples.NOW,
            stream_time=samples.NOW,
            lag_s=lag_s,
            version="0.1.0",
            rules_version=rules_version,
        )
        self.put("heartbeats", beat, worker, shard)
        self.flush()


def as_line(record: ToolCall, **extra: object) -> dict[str, object]:
    """Return the JSON form that a user would write by hand: only what says something."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    defaults = {f.name: f.default for f in dataclasses.fields(record)}
    return {**{k: v for k, v in fields.items() if v != defaults[k]}, **extra}
