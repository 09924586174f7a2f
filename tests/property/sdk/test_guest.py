"""Whatever a guest says about whatever target: the worker would take it where it arrives, and nowhere else."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fuseboard.guest import content_id, signal_record, to_message
from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.keys import home_partition, parse_breaker_id, partition_for
from fuseboard_schemas.records import DeadLetterReason, Scope, SignalLevel
from fuseboard_schemas.rules import MAX_NAME_BYTES, check_identity
from tests.support.calls import Call, make_shard, prepared

NAMES = (
    (st.text(min_size=1, max_size=12) | st.sampled_from(["a/b", "a%2Fb", "%", "/", "é" * 128, "x" * 256, "ACTOR:a"]))
    .filter(lambda name: "\0" not in name)
    .filter(lambda name: 0 < len(name.encode()) <= MAX_NAME_BYTES)
)
PARTS = {
    Scope.ACTOR: ("actor",),
    Scope.ACTOR_TOOL: ("actor", "tool"),
    Scope.TOOL: ("tool",),
    Scope.TENANT: (),
    Scope.SESSION: ("actor", "trace_id"),
}


@st.composite
def findings(draw: st.DrawFn) -> dict[str, Any]:
    scope = draw(st.sampled_from(list(PARTS)))
    return {
        "scope": scope,
        "tenant": draw(NAMES),
        "level": draw(st.sampled_from(SignalLevel)),
        "metric": "signals." + draw(st.from_regex(r"[a-z][a-z_.]{0,20}", fullmatch=True)),
        "source": draw(NAMES.filter(lambda name: not name.startswith("fuseboard/"))),
        "ts": draw(st.integers(946_684_800_000_000, 253_402_300_799_999_999)),
        "value": draw(st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)),
        "reason": draw(st.none() | st.text(max_size=600)),
        "event_id": draw(st.none() | NAMES),
        **{part: draw(NAMES) for part in PARTS[scope]},
    }


PARTITIONS = st.integers(1, 64)


@given(findings(), PARTITIONS)
def test_a_message_says_what_was_found_and_arrives_at_its_home(finding: dict[str, Any], partitions: int) -> None:
    signal = signal_record(**finding)
    message = to_message(signal, partitions)
    read = Decoder().decode(message.value, "Signal")
    assert read == signal
    assert check_identity(read.tenant, read.actor or "-", read.tool or "-") is None
    assert content_id(read) == read.signal_id == dict(message.headers)["ce_id"].decode()
    for target in (read, parse_breaker_id(message.key.decode())):
        assert message.partition == home_partition(target.scope, target.tenant, target.actor, target.tool, partitions)
    assert all(name.isascii() and value.isascii() for name, value in message.headers if name != "ce_id")


@given(findings().filter(lambda finding: "actor" in finding), PARTITIONS, st.integers(0, 63))
def test_a_shard_accepts_the_actor_there_and_nowhere_else(finding: dict[str, Any], partitions: int, other: int) -> None:
    """By the check of the worker's core: a call of the same actor in that partition is not misplaced."""
    home = to_message(signal_record(**finding), partitions).partition
    for number in {home, other % partitions}:
        shard = make_shard(number=number, partitions=partitions)
        shard.begin()
        shard.fold_tool_calls(prepared([Call(0, actor=finding["actor"], tenant=finding["tenant"])], number, 0))
        shard.encode_changes(100)
        shard.commit()
        refused = [each.reason for each in shard.take_rejected()]
        assert refused == ([] if number == home else [DeadLetterReason.MISPLACED])


@given(findings().filter(lambda finding: "actor" not in finding), PARTITIONS)
def test_other_targets_are_at_home_where_kafka_puts_their_key(finding: dict[str, Any], partitions: int) -> None:
    parts = [finding[name].replace("%", "%25").replace("/", "%2F") for name in ("tenant", *PARTS[finding["scope"]])]
    message = to_message(signal_record(**finding), partitions)
    assert message.partition == partition_for("/".join(parts), partitions)
