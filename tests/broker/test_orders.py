"""People's orders, from the command line through a running worker to the command, on every broker there is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fuseboard_schemas.records import DeadLetterReason
from tests.cli.support import run as command_line
from tests.support.workers import WorkerThread, calls, produce, read, run, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fuseboard_schemas.topics import TopicNames

    Topics = Callable[..., TopicNames]

pytestmark = pytest.mark.broker

ACTOR = "agent-1"
TOOL = "tool-2"


class Desk:
    """Somebody who gives orders, with a worker that carries them out."""

    def __init__(self, broker: str, names: TopicNames) -> None:
        self.broker = broker
        self.names = names
        self.options = ("--bootstrap", broker, "--prefix", names.prefix)

    def order(self, *arguments: str, code: int = 0, wait: str = "30") -> dict[str, Any]:
        result = command_line(
            "breakers", *arguments, "--reason", "a test", "--person", "anna", "--wait", wait, "--json", *self.options
        )
        assert result.exit_code == code, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def commands(self) -> list[Any]:
        return [each.decoded("BreakerCommand") for each in read(self.broker, self.names.breaker_commands) if each.value]

    def letters(self) -> list[Any]:
        return [each.decoded("DeadLetter") for each in read(self.broker, self.names.dead_letters)]


@pytest.fixture
def desk(broker: str, topics: Topics, unique_prefix: str) -> Iterator[Desk]:
    names = topics(broker, unique_prefix)
    produce(broker, names.tool_calls, calls(60))
    with WorkerThread(broker, unique_prefix) as worker:
        yield Desk(broker, names)
    assert worker.failure is None


def test_the_life_of_a_breaker_in_a_persons_hands(desk: Desk) -> None:
    tripped = desk.order("trip", ACTOR, TOOL, "--for", "30m")["command"]
    assert (tripped["state"], tripped["action"], tripped["tool_access"]) == ("FORCED_OPEN", "DISABLE_TOOL", "OFF")
    assert (tripped["person"], tripped["reason"], tripped["cause"]) == ("anna", "a test", "OVERRIDE")
    assert "expires_at" in tripped
    held = desk.order("hold", ACTOR, TOOL, "--epoch", str(tripped["epoch"]))["command"]
    assert (held["state"], held["action"], "expires_at" in held) == ("FORCED_OPEN", "DISABLE_TOOL", False)
    assert desk.order("ack", tripped["breaker_id"], wait="0.1") | {"order": None} == {
        "order": None,
        "command": None,
        "ended": None,
        "refused": None,
    }
    bypassed = desk.order("bypass", ACTOR, TOOL, "--for", "5m")["command"]
    assert (bypassed["state"], bypassed["tool_access"]) == ("FORCED_CLOSED", "ON")
    closed = desk.order("reset", ACTOR, TOOL)["command"]
    assert (closed["state"], closed["person"]) == ("CLOSED", "anna")
    assert [each.state for each in desk.commands()] == ["FORCED_OPEN", "FORCED_OPEN", "FORCED_CLOSED", "CLOSED"]
    assert desk.letters() == []


def test_an_agent_is_halted_unless_something_milder_is_asked_for(desk: Desk) -> None:
    halted = desk.order("trip", ACTOR)["command"]
    assert (halted["breaker_id"], halted["action"], halted["run"]) == (f"ACTOR:default/{ACTOR}", "HALT", "HALT")
    milder = desk.order("trip", ACTOR, "--action", "read_only")["command"]
    assert (milder["action"], milder["run"], milder["writes"]) == ("READ_ONLY", "ON", "REFUSED")


def test_a_breaker_that_has_moved_on_is_left_alone(desk: Desk) -> None:
    epoch = desk.order("trip", ACTOR, TOOL)["command"]["epoch"]
    refused = desk.order("bypass", ACTOR, TOOL, "--for", "5m", "--epoch", str(epoch - 1), code=1)
    assert "is stale" in refused["refused"]
    assert len(desk.commands()) == 1


def test_what_is_refused_by_the_worker_says_why(desk: Desk) -> None:
    refused = desk.order("hold", ACTOR, TOOL, code=1)["refused"]
    assert "is CLOSED: there is no restriction to hold; trip it instead" in refused
    text = command_line("breakers", "hold", ACTOR, TOOL, "--reason", "r", "--person", "anna", *desk.options)
    assert (text.exit_code, text.stdout.partition(":")[0]) == (1, "refused")


def test_the_same_request_twice_does_nothing_twice(desk: Desk) -> None:
    desk.order("trip", ACTOR, TOOL, "--request-id", "incident-7")
    desk.order("reset", ACTOR, TOOL)
    again = desk.order("trip", ACTOR, TOOL, "--request-id", "incident-7", code=1, wait="3")
    assert (again["command"], again["refused"]) == (None, None)
    assert [each.state for each in desk.commands()] == ["FORCED_OPEN", "CLOSED"]
    assert desk.letters() == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"person": " "}, "person is empty: expected 1 to 256 bytes"),
        ({"kind": "BYPASS", "action": "NONE"}, "expires_at is missing: a bypass must end"),
    ],
)
def test_an_order_by_nobody_or_a_bypass_without_an_end_is_a_dead_letter(
    desk: Desk, changes: dict[str, str], problem: str
) -> None:
    # The commands refuse to make such orders; any program may publish one.
    order = {
        "record": "overrides", "ts": "2026-01-01T00:00:00Z", "tenant": "default", "scope": "ACTOR_TOOL",
        "actor": ACTOR, "tool": TOOL, "kind": "TRIP", "action": "DISABLE_TOOL", "person": "anna", "reason": "why not",
    } | changes  # fmt: skip
    result = command_line("publish", "-", *desk.options, stdin=json.dumps(order).encode())
    assert result.exit_code == 0, result.output
    until(lambda: len(desk.letters()) == 1, "the order is a dead letter")
    (letter,) = desk.letters()
    assert (letter.reason, letter.detail) == (DeadLetterReason.INVALID_FIELD, problem)
    assert desk.commands() == []


def test_without_a_worker_there_is_no_answer(broker: str, topics: Topics, unique_prefix: str) -> None:
    desk = Desk(broker, topics(broker, unique_prefix))
    produce(broker, desk.names.tool_calls, calls(60))
    arguments = ("breakers", "trip", ACTOR, TOOL, "--reason", "r", "--person", "anna", "--wait", "0.2")
    result = command_line(*arguments, *desk.options)
    assert result.exit_code == 1
    assert "no answer came within 0.2 s" in result.stdout
    # Nothing is lost: whoever comes carries it out.
    run(broker, unique_prefix)
    assert [each.state for each in desk.commands()] == ["FORCED_OPEN"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("bypass", ACTOR, TOOL), "Missing option '--for'"),
        (("bypass", ACTOR, TOOL, "--for", "soon"), "expected a duration with its unit"),
        (("trip", ACTOR, "--action", "DISABLE_TOOL"), "action DISABLE_TOOL does not fit scope ACTOR"),
        (("trip", ACTOR, TOOL, "--person", " "), "--person: expected a name"),
        (("trip", ACTOR, "t" * 300), "tool"),
        (("ack", ACTOR, "--for", "5m"), "No such option"),
    ],
)
def test_what_cannot_be_an_order_is_not_sent(arguments: tuple[str, ...], problem: str) -> None:
    # There is no broker here: whatever tried to send would end with 3.
    result = command_line("breakers", *arguments, "--reason", "r", "--bootstrap", "localhost:1")
    assert result.exit_code == 2, result.output
    assert problem in " ".join(result.stderr.split())
