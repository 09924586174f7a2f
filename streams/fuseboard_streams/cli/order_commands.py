"""``fuseboard breakers trip``, ``reset``, ``hold``, ``bypass``, ``ack``: orders of people, through the log."""

from __future__ import annotations

import functools
import getpass
import hashlib
import json
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fuseboard_streams.cli.options import connection_options, json_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from fuseboard_schemas.records import BreakerCommand, DeadLetter, Override
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.kafka import Reader

F = TypeVar("F", bound="Callable[..., Any]")

_ACTIONS = ("FAST_MODEL_ONLY", "REQUIRE_APPROVAL", "READ_ONLY", "DISABLE_TOOL", "HALT")
_TARGET = """

    TARGET is an actor (support_v4), an actor and its tool (support_v4/billing.refund), or a breaker's id
    (TOOL:default/billing.refund)."""


def _ordering(function: F) -> F:
    """Add what every order has; the command receives it as ``given``, to be passed on."""

    @click.argument("target")
    @click.option("--reason", required=True, metavar="TEXT", help="Why, for everybody who reads it later.")
    @click.option(
        "--person",
        metavar="NAME",
        envvar="FUSEBOARD_PERSON",
        show_envvar=True,
        help="Who gives the order.  [default: the user of this machine]",
    )
    @click.option("--tenant", metavar="NAME", help="Tenant of the actor.  [default: default]")
    @click.option(
        "--epoch", type=int, metavar="N", help="Refuse the order if the breaker has changed since this epoch."
    )
    @click.option("--request-id", metavar="ID", help="Give it again to repeat an order safely.  [default: a new one]")
    @click.option("--wait", type=click.FloatRange(min=0.0), metavar="SECONDS", help="Wait so long for the answer.")
    @json_option
    @connection_options
    @functools.wraps(function)
    def wrapper(connection: Connection, **given: Any) -> None:  # noqa: ANN401 - whatever the command's options are
        function()
        _carry(_KINDS[function.__name__], connection, given)

    wrapper.__doc__ = (function.__doc__ or "").rstrip() + _TARGET
    return wrapper  # type: ignore[return-value]  # click's decorators keep no signature


_expires = click.option("--expires", metavar="DURATION", help="End it by itself, e.g. after 30m.")
_action = click.option("--action", type=click.Choice(_ACTIONS, case_sensitive=False), help="What to enforce.")


@click.command("trip", short_help="Hold a breaker open by hand.")
@_action
@_expires
@_ordering
def trip_command() -> None:
    """Hold a breaker open by hand, until it expires or is reset.

    Without --action a tool is switched off and an agent, tenant or session is halted.
    """


@click.command("reset", short_help="Close a breaker and take orders back.")
@click.option("--rule", metavar="NAME", help="Only this rule's hold.")
@_ordering
def reset_command() -> None:
    """Close a breaker: remove every hold and any order of a person."""


@click.command("hold", short_help="Keep an open breaker as it is.")
@click.option("--action", type=click.Choice(_ACTIONS, case_sensitive=False), help="What to enforce besides.")
@_expires
@_ordering
def hold_command() -> None:
    """Keep what a breaker enforces now from being released."""


@click.command("bypass", short_help="Let calls pass, whatever holds.")
@click.option("--expires", metavar="DURATION", required=True, help="When it ends by itself, e.g. 30m.")
@_ordering
def bypass_command() -> None:
    """Let calls pass for a while, whatever holds the breaker; what still holds it then applies again."""


@click.command("ack", short_help="Say that somebody knows.")
@_ordering
def ack_command() -> None:
    """Say that you know about an open breaker; nothing about it changes."""


ORDER_COMMANDS = (trip_command, reset_command, hold_command, bypass_command, ack_command)
_KINDS = {
    "trip_command": "TRIP",
    "reset_command": "RESET",
    "hold_command": "HOLD",
    "bypass_command": "BYPASS",
    "ack_command": "ACKNOWLEDGE",
}


def _carry(name: str, connection: Connection, given: dict[str, Any]) -> None:
    """Make the order, send it, and wait for the answer if that is wanted.

    Raises:
        FuseboardError: It cannot be carried out, was not confirmed or was refused, or there was no answer in time.
    """
    from fuseboard_schemas.errors import ConfigurationError, FuseboardError
    from fuseboard_schemas.jsonform import to_json
    from fuseboard_schemas.records import OverrideKind
    from fuseboard_streams.cli.ordering import make_order, parse_target

    kind, wait_s = OverrideKind(name), given["wait"]
    if wait_s is not None and kind is OverrideKind.ACKNOWLEDGE:
        raise ConfigurationError("--wait: nothing is published when somebody acknowledges, so there is no answer.")
    order = make_order(
        kind,
        parse_target(given["target"], given["tenant"]),
        request_id=given["request_id"] or uuid.uuid4().hex,
        person=given["person"] or _user(),
        reason=given["reason"],
        now_us=time.time_ns() // 1_000,
        options=given,
    )
    answer = None
    if wait_s is None:
        _send(connection, order)
    else:
        answer = _send_and_wait(connection, order, wait_s)
    if given["as_json"]:
        said = None if answer is None else to_json(answer)
        click.echo(json.dumps({**to_json(order), "answer": said}, ensure_ascii=False))
    else:
        click.echo("\n".join(order_words(order, answer)))
    if answer is None and wait_s is not None:
        raise FuseboardError(
            f"No answer within {wait_s:g} s. Is a worker running (`fuseboard doctor`)? An order that has been answered "
            f"before is not answered again: `fuseboard breakers show` says what holds. To repeat it safely: "
            f"--request-id {order.override_id}"
        )


def _user() -> str:
    """Return the name of the machine's user.

    Raises:
        ConfigurationError: It has none.
    """
    from fuseboard_schemas.errors import ConfigurationError

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        raise ConfigurationError("who gives the order is not known: say so with --person.") from error


def order_words(order: Override, answer: BreakerCommand | None) -> list[str]:
    """Return what has been ordered, and what came of it, in words."""
    from fuseboard_schemas.records import Action
    from fuseboard_streams.cli.render.text import printable

    what = order.kind.lower() if order.action is Action.NONE else f"{order.kind.lower()} ({order.action})"
    about = f" of rule {order.rule}" if order.rule else ""
    end = "" if order.expires_at is None else f", ends {_clock(order.expires_at)}"
    lines = [f"sent: {what}{about} of {_id(order)}, by {order.person}{end}", f"request id: {order.override_id}"]
    if answer is not None:
        lines.append(f"answered: {answer.state}, enforces {answer.action} (epoch {answer.epoch}): {answer.reason}")
    return [printable(line) for line in lines]


def _id(order: Override) -> str:
    from fuseboard_schemas.keys import breaker_id

    return breaker_id(order.scope, order.tenant, order.actor, order.tool, order.trace_id)


def _clock(time_us: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(time_us // 1_000_000))


# --- Kafka


def _send(connection: Connection, order: Override) -> None:
    """Write the order to its target's home partition of ``overrides`` and wait until Kafka has confirmed it.

    Raises:
        FuseboardError: It was not confirmed.
    """
    from fuseboard_schemas.errors import FuseboardError
    from fuseboard_schemas.topics import for_record
    from fuseboard_streams.cli.publish_outcome import Outcome
    from fuseboard_streams.cli.publishing import Prepared
    from fuseboard_streams.cli.sending import Sender
    from fuseboard_streams.records_io import Line

    outcome = Outcome(quiet=True)
    with Sender(connection, outcome) as sender:
        sender.send(Prepared(Line(1, 0, {}), order, for_record("Override"), order.ts), "the order")
    if outcome.skipped:
        raise FuseboardError(f"The order cannot be sent: {outcome.problems[0]}")


def _send_and_wait(connection: Connection, order: Override, wait_s: float) -> BreakerCommand | None:
    """Send the order and return the command that answers it, None if there is none in time.

    Raises:
        FuseboardError: The worker refused the order.
    """
    from confluent_kafka import TopicPartition

    from fuseboard_schemas.keys import home_partition
    from fuseboard_streams.cli.kafka import Reader

    topics = [connection.prefix + name for name in ("breaker-commands", "dead-letters")]
    with Reader(connection) as reader:
        count = len(reader.partitions(topics[0]))
        home = home_partition(order.scope, order.tenant, order.actor, order.tool, count)
        ends = [TopicPartition(topic, home, reader.watermarks(topic, home).high) for topic in topics]
        _send(connection, order)
        reader.assign_all(ends)
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0:
            messages, _ = reader.poll(min(left, 0.5))
            found = answer_in(messages, order, reader)
            if found is not None:
                return found
    return None


def answer_in(messages: list[Message], order: Override, reader: Reader) -> BreakerCommand | None:
    """Return the command among some messages that answers an order.

    Raises:
        FuseboardError: The worker refused the order.
    """
    from fuseboard_schemas.errors import FuseboardError
    from fuseboard_schemas.records import BreakerCommand, DeadLetter
    from fuseboard_streams.cli.decode import TopicDecoder

    commands, letters = (TopicDecoder(kind, reader.resolver) for kind in ("BreakerCommand", "DeadLetter"))
    for message in messages:
        letter = (message.topic() or "").endswith("dead-letters")
        record = (letters if letter else commands).decode(message.value())
        if isinstance(record, BreakerCommand) and record.event_id == order.override_id:
            return record
        if isinstance(record, DeadLetter) and _is_about(record, order):
            raise FuseboardError(f"The order is refused: {record.detail}")
    return None


def _is_about(letter: DeadLetter, order: Override) -> bool:
    from fuseboard_schemas.codec import Encoder

    return letter.payload_sha256 == hashlib.sha256(Encoder("Override").encode(order)).hexdigest()
