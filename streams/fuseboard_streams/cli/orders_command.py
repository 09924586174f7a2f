"""``fuseboard breakers trip|reset|hold|bypass|ack``: what a person can order."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import click

from fuseboard_streams.cli.one_record import person_of, person_option
from fuseboard_streams.cli.options import connection_options, json_option, paint

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.records import Override
    from fuseboard_streams.cli.config import Connection
    from fuseboard_streams.cli.orders import Answer

_KINDS: Final = {"trip": "TRIP", "reset": "RESET", "hold": "HOLD", "bypass": "BYPASS", "ack": "ACKNOWLEDGE"}
_ACTIONS: Final = ("FAST_MODEL_ONLY", "REQUIRE_APPROVAL", "READ_ONLY", "DISABLE_TOOL", "HALT")

_action_option = click.option(
    "--action",
    type=click.Choice(_ACTIONS, case_sensitive=False),
    help="What is restricted; without it a tool is disabled, and an agent halted.",
)
_more_option = click.option(
    "--action", type=click.Choice(_ACTIONS, case_sensitive=False), help="What is restricted besides what is now."
)
_for_option = click.option("--for", "lasting", metavar="DURATION", help="How long, such as 30m; without it for good.")


def _order(name: str, help_: str, *options: Callable[[Any], Any]) -> click.Command:
    """Return the command that gives one kind of order, with what all of them have in common."""

    @connection_options
    def give(connection: Connection, **given: Any) -> None:  # noqa: ANN401 - whatever the options are
        _give(_KINDS[name], connection, **given)

    function: Any = give
    for option in (
        json_option,
        click.option(
            "--wait", "wait_s", type=click.FloatRange(min=0), default=10.0, show_default=True, metavar="SECONDS",
            help="How long to wait for the worker's answer.",
        ),
        click.option("--request-id", metavar="ID", help="Id of this order: one that was seen before does nothing."),
        click.option("--epoch", type=int, help="Only if the breaker is still at the epoch that you saw."),
        click.option("--tenant", default="default", show_default=True, help="Tenant of the actor."),
        person_option,
        click.option("--reason", required=True, metavar="TEXT", help="Why, in one line; agents see it."),
        *reversed(options),
        click.argument("tool", required=False),
        click.argument("target"),
    ):  # fmt: skip
        function = option(function)
    text = f"{help_}\n\nTARGET is a breaker's id, or an actor; with an actor, TOOL names one of its tools."
    return click.command(name, help=text, short_help=help_.partition("\n")[0])(function)


COMMANDS: Final = (
    _order("trip", "Open a breaker by hand, until it is reset.", _action_option, _for_option),
    _order(
        "reset",
        "Close a breaker, and end whatever was ordered for it.",
        click.option("--rule", metavar="ID", help="Only release the hold of this rule."),
    ),
    _order("hold", "Keep an open breaker open, whatever its rules say.", _more_option, _for_option),
    _order(
        "bypass",
        "Let calls through for a time, whatever holds the breaker.",
        click.option("--for", "lasting", metavar="DURATION", required=True, help="How long, such as 30m."),
    ),
    _order("ack", "Note that a person has seen an open breaker."),
)
"""The commands, in the order in which ``--help`` shows them."""


def _give(
    kind: str,
    connection: Connection,
    target: str,
    tool: str | None,
    tenant: str,
    reason: str,
    person: str | None,
    request_id: str | None,
    epoch: int | None,
    wait_s: float,
    as_json: bool,
    action: str | None = None,
    lasting: str | None = None,
    rule: str | None = None,
) -> None:
    """Make an order, send it, and say what became of it; exit 1 if it was not carried out."""
    from fuseboard_schemas.errors import ConfigurationError
    from fuseboard_schemas.records import Action, Override, OverrideKind
    from fuseboard_schemas.rules import check_override
    from fuseboard_streams.cli import orders
    from fuseboard_streams.cli.kafka import Reader

    about, now = orders.target_of(target, tool, tenant), time.time_ns() // 1_000
    asked = Action(action.upper()) if action else Action.NONE
    order = Override(
        override_id=uuid.uuid4().hex if request_id is None else request_id,
        ts=now,
        tenant=about.tenant,
        scope=about.scope,
        actor=about.actor,
        tool=about.tool,
        trace_id=about.trace_id,
        kind=OverrideKind(kind),
        action=orders.usual_action(about) if kind == "TRIP" and not action else asked,
        rule=rule,
        epoch=epoch,
        person=person_of(person),
        reason=reason,
        expires_at=orders.expires_at(lasting, now),
    )
    wrong = check_override(order, now)
    if wrong is not None:
        raise ConfigurationError(f"Nothing was sent: {wrong}.")
    with Reader(connection) as reader:
        answer = orders.give(reader, connection, order, wait_s)
    _show(order, answer, wait_s, as_json=as_json)
    # An acknowledgement of a breaker changes no state, so that only a refusal is ever heard of it.
    silent = answer.command is None and answer.ended is None and wait_s > 0 and kind != "ACKNOWLEDGE"
    if answer.refused is not None or silent:
        raise click.exceptions.Exit(1)


def _show(order: Override, answer: Answer, wait_s: float, *, as_json: bool) -> None:
    from fuseboard_streams.cli.render.orders import answer_lines

    if not as_json:
        click.echo("\n".join(answer_lines(order, answer, wait_s, paint())))
        return
    from fuseboard_schemas.jsonform import to_json

    command = None if answer.command is None else to_json(answer.command)
    ended = None if answer.ended is None else to_json(answer.ended)
    out = {"order": to_json(order), "command": command, "ended": ended, "refused": answer.refused}
    click.echo(json.dumps(out, ensure_ascii=False))
