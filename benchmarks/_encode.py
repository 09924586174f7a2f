"""The events of a benchmark as bytes: values, keys, headers, partitions, a column at a time.

An event's Avro body is the concatenation of its fields' encodings. Each field's encodings are made for a whole chunk
at once, as constants, look-ups or slices of one buffer, and joined: several times faster than a record at a time, and
the same bytes (a test compares them with the codec's and the SDK's, field by field and header by header).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from benchmarks._events import ERROR_TYPES, OUTCOMES, Events, Identities, Int64s, Workload, identities
from fuseboard_schemas import catalogue
from fuseboard_schemas.keys import actor_key, partition_for

Pieces = Iterable[bytes]
Headers = list[tuple[str, str | bytes | None]]
_FIXED_HEADERS = (
    ("ce_type", b"fuseboard.v1.ToolCall"),
    ("ce_specversion", b"1.0"),
    ("content-type", b"application/avro"),
)


@dataclass(frozen=True, slots=True)
class Messages:
    """A run of events ready to be produced, in order.

    Attributes:
        partitions: partition of each.
        keys: key of each, `tenant/actor`.
        values: value of each, in the Confluent wire format.
        headers: header list of each.
    """

    partitions: list[int]
    keys: list[bytes]
    values: list[bytes]
    headers: list[Headers]


class MessageEncoder:
    """Encodes the events of one workload.

    Args:
        workload: whose events.
        partitions: of the topic.
    """

    def __init__(self, workload: Workload, partitions: int) -> None:
        self._workload = workload
        names = [workload.actor_name(number) for number in range(workload.actors)]
        self._keys = [actor_key(workload.tenant, name).encode() for name in names]
        self.partition_of = np.array([partition_for(key, partitions) for key in self._keys], dtype=np.int64)
        self._actors = [_string(name) for name in names]
        self._clients = _longs(workload.client_ids())
        tools = range(workload.tools)
        self._tools = [_string(workload.tool_name(number)) for number in tools]
        self._intents = [b"\x02" + _string(workload.intent(number)) for number in tools]
        schema = catalogue.schema("ToolCall")
        self._fields: list[str] = [field["name"] for field in schema["fields"]]
        self._effects = [_symbol(schema, "effect", workload.effect(number)) for number in tools]
        self._outcomes = [_symbol(schema, "outcome", outcome) for outcome in OUTCOMES]
        self._denied_by = _symbol(schema, "denied_by", "NONE")
        self._errors = [b"\x00" if name is None else b"\x02" + _string(name) for name in ERROR_TYPES]
        self._sources = [("ce_source", b"/fuseboard/" + key) for key in self._keys]
        self._header = b"\x00" + catalogue.packaged_id("ToolCall").to_bytes(4, "big")

    def encode(self, events: Events) -> Messages:
        """`events` as messages."""
        ids = identities(self._workload, events)
        actors = events.actor.tolist()
        pieces = self._pieces(events, ids)
        values = list(map(b"".join, zip(repeat(self._header), *(pieces[name] for name in self._fields), strict=False)))
        return Messages(
            partitions=self.partition_of[events.actor].tolist(),
            keys=list(map(self._keys.__getitem__, actors)),
            values=values,
            headers=self._headers(events, ids),
        )

    def _pieces(self, events: Events, ids: Identities) -> dict[str, Pieces]:
        actors, tools = events.actor.tolist(), events.tool.tolist()
        null = repeat(b"\x00")
        return {
            "event_id": _hex_strings(ids.event),
            "ts": _longs(events.ts),
            "tenant": repeat(_string(self._workload.tenant)),
            "actor": map(self._actors.__getitem__, actors),
            "client_id": map(self._clients.__getitem__, actors),
            "seq": _longs(events.seq, b"\x02"),
            "trace_id": _hex_strings(ids.trace, b"\x02"),
            "span_id": _hex_strings(ids.span, b"\x02"),
            "session_id": _hex_strings(ids.session, b"\x02"),
            "task_id": _hex_strings(ids.task, b"\x02"),
            "intent": map(self._intents.__getitem__, tools),
            "tool": map(self._tools.__getitem__, tools),
            "effect": map(self._effects.__getitem__, tools),
            "outcome": map(self._outcomes.__getitem__, events.outcome.tolist()),
            "denied_by": repeat(self._denied_by),
            "error_type": map(self._errors.__getitem__, events.error.tolist()),
            "duration_ms": _longs(events.duration_ms, b"\x02"),
            "cost_usd_micros": _longs(events.cost_usd_micros, b"\x02"),
            "amount_usd_micros": _amounts(events.amount_usd_micros),
            "attempt": repeat(_long(1)),
            "idempotency_key": _hex_strings(ids.idempotency, b"\x02"),
            "compensates": null,
            "probe": null,
            "args_hash": _hex_strings(ids.args, b"\x02"),
            "gate_breaker": null,
            "gate_epoch": null,
        }

    def _headers(self, events: Events, ids: Identities) -> list[Headers]:
        kind, version, content = _FIXED_HEADERS
        sources = map(self._sources.__getitem__, events.actor.tolist())
        times = np.datetime_as_string(events.ts.astype("M8[us]"), timezone="UTC").tolist()
        rows = zip(ids.event, sources, times, ids.trace, ids.span, strict=True)
        return [
            [
                ("ce_id", event.encode()),
                kind,
                source,
                version,
                ("ce_time", time.encode()),
                content,
                ("traceparent", f"00-{trace}-{span}-01".encode()),
            ]
            for event, source, time, trace, span in rows
        ]


def _symbol(schema: dict[str, Any], field: str, symbol: str) -> bytes:
    """The encoding of an enum's symbol: its number."""
    (found,) = (each["type"]["symbols"] for each in schema["fields"] if each["name"] == field)
    return _long(found.index(symbol))


def _string(text: str) -> bytes:
    data = text.encode()
    return _long(len(data)) + data


def _long(value: int) -> bytes:
    """Avro's long: zigzag, then seven bits a byte, the smallest first."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _hex_strings(texts: Sequence[str], before: bytes = b"") -> Pieces:
    """Equally long ASCII strings, each behind its length and `before`."""
    if not texts:
        return []
    head = before + _long(len(texts[0]))
    return [head + text.encode("ascii") for text in texts]


def _longs(values: Int64s, before: bytes = b"") -> list[bytes]:
    """The encodings of `values`, each behind `before`."""
    lead = len(before)
    zigzag = ((values << 1) ^ (values >> 63)).view(np.uint64)
    rows = np.zeros((len(values), lead + 10), dtype=np.uint8)
    rows[:, :lead] = np.frombuffer(before, dtype=np.uint8)
    length = np.full(len(values), lead + 1)
    for place in range(10):
        rest = zigzag >> np.uint64(7 * place)
        more = rest > 0x7F
        rows[:, lead + place] = (rest & np.uint64(0x7F)) | (more * np.uint64(0x80))
        length += more
        if not more.any():
            break
    width, data = lead + 10, rows.tobytes()
    return [data[row * width : row * width + size] for row, size in enumerate(length.tolist())]


def _amounts(values: Int64s) -> list[bytes]:
    return [
        b"\x00" if value < 0 else piece for value, piece in zip(values.tolist(), _longs(values, b"\x02"), strict=True)
    ]
