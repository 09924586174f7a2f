"""Hypothesis strategies that make records from their schemas."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fuseboard_schemas import catalogue
from fuseboard_schemas.codec import build, class_of

FLAT = (
    "ToolCall",
    "TraceStep",
    "PolicyDecision",
    "TaskOutcome",
    "SessionRequest",
    "EvalResult",
    "Signal",
    "EnforcementAck",
)
TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
"""Years 1 to 9999."""


def records(name: str) -> st.SearchStrategy[Any]:
    """Any record of that name."""
    return st.builds(lambda values: build(class_of(name), values), values(catalogue.schema(name), {}))


def values(schema: catalogue.Schema, named: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({field["name"]: cell(field["type"], named) for field in schema["fields"]})


def cell(avro: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    if isinstance(avro, list):
        return st.none() | cell(avro[1], named)
    if isinstance(avro, str) and avro in named:
        avro = named[avro]
    if isinstance(avro, str):
        return PRIMITIVES[avro]
    if avro["type"] == "enum":
        named[avro["name"]] = avro
        return st.sampled_from(avro["symbols"])
    if avro["type"] == "array":
        return st.lists(cell(avro["items"], named), max_size=3).map(tuple)
    if avro["type"] == "record":
        return values(avro, named).map(lambda inner: build(class_of(avro["name"]), inner))
    return TIMES if avro.get("logicalType") else PRIMITIVES[avro["type"]]


PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=8) | st.sampled_from(["x" * 63, "x" * 64, "é" * 40, "y" * 9000]),
    "bytes": st.binary(max_size=70),
    "long": st.integers(-70, 70) | st.integers(-(1 << 63), (1 << 63) - 1),
    "int": st.integers(-70, 70) | st.integers(-(1 << 31), (1 << 31) - 1),
    "double": st.floats(allow_nan=False),
    "boolean": st.booleans(),
}
