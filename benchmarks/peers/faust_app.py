"""Calls and failures per actor and tool in Faust: a table in memory behind a compacted changelog topic.

Run by Faust's own Python as `python faust_app.py worker`; its settings come from the environment.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import faust
from fastavro import parse_schema, schemaless_reader

HEADER = 5
SETTINGS: dict[str, Any] = json.loads(os.environ["PEER_SETTINGS"])
SCHEMA: dict[str, Any] = json.loads(Path(SETTINGS["schema"]).read_text(encoding="utf-8"))
WRITER = parse_schema(SCHEMA)
READER = parse_schema(
    {**SCHEMA, "fields": [field for field in SCHEMA["fields"] if field["name"] in ("actor", "tool", "outcome")]},
    _force=True,
)

app = faust.App(
    SETTINGS["group"],
    broker=f"kafka://{SETTINGS['bootstrap']}",
    store="memory://",
    datadir=SETTINGS["state"],
    key_serializer="raw",
    value_serializer="raw",
    topic_partitions=SETTINGS["partitions"],
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    processing_guarantee=SETTINGS["guarantee"],
    broker_commit_interval=1.0,
    broker_max_poll_records=SETTINGS["max_poll_records"],
    stream_buffer_maxsize=SETTINGS["buffer"],
    # The agent neither joins nor repartitions, so it need not wait for its buffers at a rebalance.
    stream_wait_empty=False,
    producer_linger=0.05,
    producer_max_batch_size=1_000_000,
    producer_compression_type="lz4",
    web_enabled=False,
)
calls = app.topic(SETTINGS["topic"], key_serializer="raw", value_serializer="raw", partitions=SETTINGS["partitions"])
counts = app.Table("counts", default=lambda: [0, 0], partitions=SETTINGS["partitions"])


async def count(stream: Any) -> None:  # noqa: ANN401
    """One call at a time: the table is keyed by actor and tool, in the partition of the actor."""
    async for value in stream:
        call: Any = schemaless_reader(io.BytesIO(value[HEADER:]), WRITER, READER)
        key = f"{call['actor']}/{call['tool']}"
        before = counts[key]
        counts[key] = [before[0] + 1, before[1] + (call["outcome"] in ("ERROR", "TIMEOUT"))]


app.agent(calls)(count)

if __name__ == "__main__":
    app.main()
