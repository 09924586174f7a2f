"""``fuseboard breakers trip|reset|hold|bypass|ack``: from words to an order, and from answers to words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fuseboard_schemas.codec import Decoder, Encoder
from fuseboard_schemas.errors import ConfigurationError, FuseboardError
from fuseboard_schemas.keys import Target, actor_key, partition_for, tool_key
from fuseboard_schemas.records import (
    Action,
    BreakerCommand,
    DeadLetter,
    DeadLetterReason,
    Override,
    OverrideKind,
    Scope,
)
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_schemas.topics import TopicNames, for_record
from fuseboard_streams.cli import order_commands
from fuseboard_streams.cli.ordering import make_order, parse_target
from fuseboard_streams.cli.publishing import Addresser, Prepared
from fuseboard_streams.records_io import Line
from tests.cli.samples import NOW, SECOND, command
from tests.cli.support import run

TOOL = Target(Scope.ACTOR_TOOL, "default", "support_v4", "billing.refund")


def order(kind: str = "TRIP", target: Target = TOOL, **options: Any) -> Override:
    return make_order(
        OverrideKind(kind), target, request_id="r1", person="alice", reason="incident", now_us=NOW, options=options
    )


# ------------------------------------------------------------- from words


@pytest.mark.parametrize(
    ("text", "tenant", "target"),
    [
        ("support_v4", None, Target(Scope.ACTOR, "default", "support_v4")),
        ("support_v4", "acme", Target(Scope.ACTOR, "acme", "support_v4")),
        ("support_v4/billing.refund", None, TOOL),
        ("a%2Fb/c%25", None, Target(Scope.ACTOR_TOOL, "default", "a/b", "c%")),
        ("odd:name", None, Target(Scope.ACTOR, "default", "odd:name")),
        ("ACTOR_TOOL:default/support_v4/billing.refund", None, TOOL),
        ("TOOL:acme/refund", None, Target(Scope.TOOL, "acme", tool="refund")),
        ("TENANT:acme", "acme", Target(Scope.TENANT, "acme")),
        ("SESSION:acme/a/0af7", None, Target(Scope.SESSION, "acme", "a", trace_id="0af7")),
    ],
)
def test_forms_of_a_target(text: str, tenant: str | None, target: Target) -> None:
    assert parse_target(text, tenant) == target


@pytest.mark.parametrize(
    ("text", "tenant", "words"),
    [
        ("a/b/c", None, "expected an actor"),
        ("", None, "expected an actor"),
        ("a/", None, "expected an actor"),
        ("50%", None, "%25"),
        ("TOOL:acme", None, "TOOL has 2 parts"),
        ("OTHER:acme", None, "no breaker id"),
        ("TENANT:acme", "other", "--tenant is 'other'"),
    ],
)
def test_what_is_no_target(text: str, tenant: str | None, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_target(text, tenant)


@pytest.mark.parametrize(
    ("target", "action"),
    [
        (TOOL, Action.DISABLE_TOOL),
        (Target(Scope.TOOL, "t", tool="x"), Action.DISABLE_TOOL),
        (Target(Scope.ACTOR, "t", "a"), Action.HALT),
        (Target(Scope.TENANT, "t"), Action.HALT),
        (Target(Scope.SESSION, "t", "a", trace_id="0af7"), Action.HALT),
    ],
)
def test_a_trip_without_an_action_stops_its_target(target: Target, action: Action) -> None:
    assert order(target=target).action is action


def test_an_order_has_what_was_given() -> None:
    made = order("TRIP", action="REQUIRE_APPROVAL", expires="1h30m", epoch=7)
    assert made == Override(
        override_id="r1", ts=NOW, tenant="default", scope=Scope.ACTOR_TOOL, actor="support_v4", tool="billing.refund",
        kind=OverrideKind.TRIP, action=Action.REQUIRE_APPROVAL, epoch=7, person="alice", reason="incident",
        expires_at=NOW + 5400 * SECOND,
    )  # fmt: skip
    assert order("RESET", rule="tool-failing").rule == "tool-failing"
    assert order("HOLD").action is Action.NONE


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("TRIP", {"expires": "soon"}, "--expires"),
        ("TRIP", {"action": "HALT"}, "does not fit scope ACTOR_TOOL"),
        ("BYPASS", {}, "a bypass must end"),
    ],
)
def test_what_cannot_be_carried_out_is_not_sent(kind: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        order(kind, **options)


@pytest.mark.parametrize(
    ("target", "home"),
    [
        (TOOL, actor_key("default", "support_v4")),
        (Target(Scope.TOOL, "t", tool="x"), tool_key("t", "x")),
        (Target(Scope.TENANT, "t"), "t"),
    ],
)
def test_an_order_goes_to_its_targets_home(target: Target, home: str) -> None:
    """Whatever its key hashes to."""
    addresser = Addresser(TopicNames("x."), lambda topic: 64)
    made = order(target=target)
    message = addresser.address(Prepared(Line(1, 0, {}), made, for_record("Override"), NOW))
    assert (message.topic, message.partition) == ("x.overrides", partition_for(home, 64))
    assert Decoder().decode(message.value, "Override") == made


# ------------------------------------------------------------ the commands


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Override]:
    """What the commands send, instead of sending it."""
    orders: list[Override] = []
    monkeypatch.setattr(order_commands, "_send", lambda connection, order: orders.append(order))
    return orders


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("trip", "a/t"), "TRIP"),
        (("reset", "a/t", "--rule", "r"), "RESET"),
        (("hold", "a/t", "--expires", "5m"), "HOLD"),
        (("bypass", "a/t", "--expires", "5m"), "BYPASS"),
        (("ack", "a/t"), "ACKNOWLEDGE"),
    ],
)
def test_each_command_sends_its_order(sent: list[Override], arguments: tuple[str, ...], kind: str) -> None:
    result = run("breakers", *arguments, "--reason", "why", "--person", "alice")
    assert result.exit_code == 0, result.output
    (made,) = sent
    assert (made.kind, made.person, made.reason, len(made.override_id)) == (kind, "alice", "why", 32)
    assert result.stdout.startswith(f"sent: {kind.lower()}")
    assert f"request id: {made.override_id}" in result.stdout


def test_a_repetition_has_the_same_id_and_another_order_another(sent: list[Override]) -> None:
    for extra in (("--request-id", "x"), ("--request-id", "x"), (), ()):
        run("breakers", "trip", "a", "--reason", "r", "--person", "p", *extra)
    ids = [made.override_id for made in sent]
    assert ids[:2] == ["x", "x"]
    assert len(set(ids)) == 3


def test_the_person_is_the_one_given_else_the_environments_else_the_machines(sent: list[Override]) -> None:
    run("breakers", "ack", "a", "--reason", "r", "--person", "p", env={"FUSEBOARD_PERSON": "q"})
    run("breakers", "ack", "a", "--reason", "r", env={"FUSEBOARD_PERSON": "q"})
    run("breakers", "ack", "a", "--reason", "r", env={"FUSEBOARD_PERSON": None, "LOGNAME": "machine"})
    assert [made.person for made in sent] == ["p", "q", "machine"]


def test_json(sent: list[Override]) -> None:
    result = run("breakers", "trip", "a/t", "--action", "require_approval", "--reason", "r", "--person", "p", "--json")
    shown = json.loads(result.stdout)
    assert (shown["kind"], shown["action"], shown["tool"], shown["answer"]) == ("TRIP", "REQUIRE_APPROVAL", "t", None)
    assert shown["override_id"] == sent[0].override_id


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trip", "a"), "Missing option '--reason'"),
        (("bypass", "a", "--reason", "r"), "Missing option '--expires'"),
        (("trip", "a", "--reason", " "), "reason is empty"),
        (("trip", "a", "--reason", "r", "--action", "explode"), "explode"),
        (("ack", "a", "--reason", "r", "--wait", "1"), "there is no answer"),
    ],
)
def test_wrong_usage_sends_nothing(sent: list[Override], arguments: tuple[str, ...], words: str) -> None:
    result = run("breakers", *arguments)
    assert (result.exit_code, sent) == (2, [])
    assert words in " ".join(result.stderr.split())


def test_without_an_answer_in_time_the_command_fails_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_commands, "_send_and_wait", lambda connection, order, wait: None)
    result = run("breakers", "reset", "a", "--reason", "r", "--person", "p", "--request-id", "r7", "--wait", "3")
    assert result.exit_code == 1
    assert "No answer within 3 s" in " ".join(result.stderr.split())
    assert "--request-id r7" in " ".join(result.stderr.split())


def test_the_answer_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_commands, "_send_and_wait", lambda connection, order, wait: command(epoch=42))
    result = run("breakers", "trip", "a", "--reason", "r", "--person", "p", "--wait", "3")
    assert result.exit_code == 0
    assert "answered: OPEN, enforces DISABLE_TOOL (epoch 42)" in result.stdout


# ------------------------------------------------------------ from answers


@dataclass
class FakeMessage:
    name: str
    record: Any

    def topic(self) -> str:
        return f"x.{self.name}"

    def value(self) -> bytes:
        return Encoder(type(self.record).__name__).encode(self.record)


class FakeReader:
    resolver = PackagedResolver()


def answer(*messages: FakeMessage) -> BreakerCommand | None:
    return order_commands.answer_in(list(messages), order(), FakeReader())  # type: ignore[arg-type]


def letter(of: Override) -> DeadLetter:
    payload = Encoder("Override").encode(of)
    digest = hashlib.sha256(payload).hexdigest()
    return DeadLetter(
        topic="x.overrides", partition=0, offset=3, arrival=NOW, reason=DeadLetterReason.INVALID_FIELD,
        detail="epoch 7 is stale", payload=payload, payload_length=len(payload), payload_sha256=digest,
    )  # fmt: skip


def test_the_answer_is_the_command_that_names_the_order() -> None:
    mine, other = command(event_id="r1"), command(event_id="e9")
    assert answer(FakeMessage("breaker-commands", other)) is None
    assert answer(FakeMessage("breaker-commands", other), FakeMessage("breaker-commands", mine)) == mine


def test_a_refusal_is_an_error_with_the_workers_words() -> None:
    assert answer(FakeMessage("dead-letters", letter(replace(order(), override_id="other-7")))) is None
    with pytest.raises(FuseboardError, match="epoch 7 is stale"):
        answer(FakeMessage("dead-letters", letter(order())))
