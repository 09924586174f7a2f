"""Keys, breaker ids and Kafka's partitioner."""

from __future__ import annotations

import pytest

from fuseboard_schemas import keys, wire
from fuseboard_schemas.records import Scope
from fuseboard_schemas.rules import check_identity


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(data: bytes, expected: int) -> None:
    assert keys.murmur2(data) == expected
    assert keys.partition_for(data, 12) == (expected & 0x7FFFFFFF) % 12


def test_keys_and_ids() -> None:
    assert keys.actor_key("default", "support/v4") == "default/support%2Fv4"
    assert keys.tool_key("a%b", "t") == "a%25b/t"
    assert (
        keys.breaker_id(Scope.ACTOR_TOOL, "default", "bot", "billing.refund") == "ACTOR_TOOL:default/bot/billing.refund"
    )
    assert keys.breaker_id(Scope.SESSION, "t", "a", trace_id="0af7") == "SESSION:t/a/0af7"
    assert keys.breaker_id(Scope.TENANT, "t", "ignored", "ignored") == "TENANT:t"
    assert keys.parse_breaker_id("TOOL:t/x%2Fy") == keys.Target(Scope.TOOL, "t", tool="x/y")


@pytest.mark.parametrize(
    "text", ["", "ACTOR", "ACTOR:", "ACTOR:a", "ACTOR:a/b/c", "OTHER:a", "actor:a/b", "ACTOR:a/%zz", "TENANT:a/b"]
)
def test_what_is_no_breaker_id(text: str) -> None:
    with pytest.raises(keys.KeyFormatError):
        keys.parse_breaker_id(text)


def test_missing_parts_are_refused() -> None:
    for call in (
        lambda: keys.breaker_id(Scope.ACTOR, "t"),
        lambda: keys.breaker_id(Scope.OTHER, "t"),
        lambda: keys.home_key(Scope.TOOL, "t", "a", None),
        lambda: keys.home_key(Scope.OTHER, "t", "a", "b"),
    ):
        with pytest.raises(keys.KeyFormatError):
            call()


def test_everything_about_an_actor_has_one_home() -> None:
    homes = {
        keys.home_partition(scope, "t", "a", tool, 64)
        for scope, tool in [
            (Scope.ACTOR, None),
            (Scope.ACTOR_TOOL, "x"),
            (Scope.ACTOR_TOOL, "y"),
            (Scope.SESSION, None),
        ]
    }
    assert homes == {keys.partition_for("t/a", 64)}
    assert keys.home_partition(Scope.TOOL, "t", "a", "x", 64) == keys.partition_for("t/x", 64)
    assert keys.home_partition(Scope.TENANT, "t/u", None, None, 64) == keys.partition_for("t%2Fu", 64)


def test_the_wire_header() -> None:
    assert wire.header(0x46420001) == b"\x00FB\x00\x01"
    assert wire.split(b"\x00\x00\x00\x00\x07xy") == (7, b"xy")
    for value in (b"", b"\x00\x00", b"\x01\x00\x00\x00\x07", b"{json}"):
        with pytest.raises(wire.WireFormatError):
            wire.schema_id(value)


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (("", "a", "t"), "tenant"),
        (("d", "", "t"), "actor"),
        (("d", "a", ""), "tool"),
        (("d", "a\x00", "t"), "actor"),
        (("d", "a", "é" * 129), "tool"),
        (("d", "a", "é" * 128), None),
        (("d", "a/b%", "t"), None),
    ],
)
def test_names_that_cannot_be_used(names: tuple[str, str, str], field: str | None) -> None:
    complaint = check_identity(*names)
    assert (complaint is None) if field is None else (complaint or "").startswith(field)
