"""Calls and failures per actor and tool in Quix Streams: state in RocksDB behind a changelog topic, exactly once.

Run by Quix's own Python as `python quix_app.py`; its settings come from the environment.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_reader
from quixstreams import Application, State
from quixstreams.models import Deserializer, SerializationContext

HEADER = 5
SETTINGS: dict[str, Any] = json.loads(os.environ["PEER_SETTINGS"])
SCHEMA: dict[str, Any] = json.loads(Path(SETTINGS["schema"]).read_text(encoding="utf-8"))
WRITER = parse_schema(SCHEMA)
READER = parse_schema(
    {**SCHEMA, "fields": [field for field in SCHEMA["fields"] if field["name"] in ("tool", "outcome")]}, _force=True
)


class ToolCalls(Deserializer):  # type: ignore[misc]
    """Decodes what the job needs of a ToolCall in the Confluent wire format."""

    def __call__(self, value: bytes, ctx: SerializationContext) -> Any:  # noqa: ANN401
        """The call as a dict."""
        return schemaless_reader(io.BytesIO(value[HEADER:]), WRITER, READER)


def count(call: dict[str, Any], state: State) -> None:
    """The state is the actor's: messages are keyed by it; each tool is one entry."""
    tool = call["tool"]
    before = state.get(tool) or (0, 0)
    state.set(tool, (before[0] + 1, before[1] + (call["outcome"] in ("ERROR", "TIMEOUT"))))


def main() -> None:
    """Run until asked to stop."""
    app = Application(
        broker_address=SETTINGS["bootstrap"],
        consumer_group=SETTINGS["group"],
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=SETTINGS["commit_interval_s"],
        state_dir=SETTINGS["state"],
        consumer_extra_config=SETTINGS["consumer"],
        producer_extra_config={"compression.type": "lz4"},
        loglevel="WARNING",
    )
    topic = app.topic(SETTINGS["topic"], value_deserializer=ToolCalls(), key_deserializer="bytes")
    app.dataframe(topic).update(count, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
