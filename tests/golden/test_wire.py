"""What was released stays what it was: ids, schemas and bytes."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fuseboard_schemas import catalogue
from fuseboard_schemas.codec import Decoder, Encoder
from tests.golden import samples


def test_ids_and_schemas_of_releases_never_change() -> None:
    assert samples.pins() == json.loads(samples.SCHEMAS.read_text(encoding="ascii"))


@pytest.mark.parametrize("record", catalogue.record_names())
def test_bytes_are_the_same_as_ever(record: str) -> None:
    pinned = (samples.HERE / f"{record}.hex").read_text(encoding="ascii").split()
    assert samples.lines(record) == pinned
    decoded = [Decoder().decode(bytes.fromhex(line), record) for line in pinned]
    assert decoded == [samples.full(record), samples.minimal(record)]


def test_a_tool_call_byte_by_byte() -> None:
    value = Encoder("ToolCall").encode(
        {"event_id": "e1", "ts": 1, "actor": "a", "seq": 5, "tool": "t", "effect": "WRITE", "outcome": "ERROR"}
    )
    assert value.hex(" ") == (
        "00 46 42 00 01 "  # zero byte and schema id
        "04 65 31 02 "  # event_id "e1", ts 1
        "0e 64 65 66 61 75 6c 74 02 61 "  # tenant "default", actor "a"
        "00 02 0a "  # client_id 0, seq present 5
        "00 00 00 00 00 "  # trace_id, span_id, session_id, task_id, intent
        "02 74 02 02 00 "  # tool "t", effect WRITE, outcome ERROR, denied_by NONE
        "00 00 00 00 02 "  # error_type, duration_ms, cost, amount; attempt 1
        "00 00 00 00 00 00"  # idempotency_key, compensates, probe, args_hash, gate_breaker, gate_epoch
    )


ADDED = {
    "Pane": {
        "sequence": 0, "breaker_epoch": None, "open": False, "since": None, "results": 0, "results_bad": 0,
        "actors_failing": (),
        "refuses": False,
    },
    "Heartbeat": {"nearest": ()},
}  # fmt: skip
"""What later versions of a record have beyond the first, and what stands for it in older bytes."""


def test_bytes_of_older_versions_are_still_read() -> None:
    paths = sorted(samples.HERE.glob("*.v*.hex"))
    assert {path.name.partition(".")[0] for path in paths} == set(ADDED)
    for path in paths:
        record = path.name.partition(".")[0]
        for line, new in zip(
            path.read_text(encoding="ascii").split(), (samples.full(record), samples.minimal(record)), strict=True
        ):
            old = Decoder().decode(bytes.fromhex(line), record)
            if record == "Pane":
                # Its kinds are more as well, and the full sample's is one of those.
                old = dataclasses.replace(old, kind=new.kind)
            assert old == dataclasses.replace(new, **ADDED[record])
