"""What became of a person's order, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_streams.cli.render.lines import STATE_STYLE, who
from fuseboard_streams.cli.render.text import PLAIN, Paint, clock, printable

if TYPE_CHECKING:
    from fuseboard_schemas.records import BreakerCommand, Override
    from fuseboard_streams.cli.orders import Answer


def answer_lines(order: Override, answer: Answer, wait_s: float, paint: Paint = PLAIN) -> list[str]:
    """Return what the worker made of an order.

    Args:
        order: What was ordered.
        answer: What was heard of it.
        wait_s: How long an answer was waited for, in seconds.
        paint: Adds the colours.
    """
    target = printable(who(order.tenant, order.actor, order.tool))
    if answer.refused is not None:
        return [paint("refused: ", "red bold") + printable(answer.refused)]
    if answer.command is not None:
        return [_done(answer.command, target, paint)]
    if answer.ended is not None:
        return [printable(answer.ended.reason or "the incident has ended")]
    name = f"order {printable(order.override_id)} for {target} is sent"
    if str(order.kind) == "ACKNOWLEDGE":
        seen = f"; no refusal within {wait_s:g} s" if wait_s else ""
        return [f"{name}{seen}"]
    if not wait_s:
        return [f"{name}; `fuseboard breakers show` says what became of it"]
    return [
        paint(f"{name}, and no answer came within {wait_s:g} s", "yellow"),
        "either no worker has its shard (`fuseboard doctor`), or there was nothing to do: the breaker is closed, or an "
        "order with this id was carried out before",
    ]


def _done(command: BreakerCommand, target: str, paint: Paint) -> str:
    state = str(command.state)
    parts = [paint(state, STATE_STYLE.get(state, "")), "" if str(command.action) == "NONE" else str(command.action)]
    parts += [paint(target, "bold"), f"by {printable(command.person or '')}"]
    if command.expires_at is not None:
        parts.append(f"until {clock(command.expires_at, date=True)} UTC")
    return "  ".join(part for part in [*parts, f"epoch {command.epoch}"] if part)
