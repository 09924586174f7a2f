"""From words on the command line to a person's order. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.keys import KeyFormatError, Target, decode_part, parse_breaker_id
from fuseboard_schemas.records import Action, Override, OverrideKind, Scope
from fuseboard_schemas.rules import check_override
from fuseboard_streams.rules.quantities import duration_us

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TENANT: Final = "default"


def parse_target(text: str, tenant: str | None) -> Target:
    """Return what TARGET means: ``actor``, ``actor/tool`` or a breaker's id.

    Args:
        text: As it was typed; ``%`` and ``/`` inside a name are written ``%25`` and ``%2F``.
        tenant: As it was given; ``None`` where it was not.

    Raises:
        ConfigurationError: It means nothing, or names another tenant.
    """
    try:
        if text.partition(":")[0] in Scope.__members__ and ":" in text:
            target = parse_breaker_id(text)
            if tenant not in (None, target.tenant):
                raise ConfigurationError(
                    f"{text!r} is a breaker of tenant {target.tenant!r}, but --tenant is {tenant!r}: leave it out."
                )
            return target
        parts = [decode_part(part) for part in text.split("/")]
    except KeyFormatError as error:
        raise ConfigurationError(f"TARGET {text!r}: {error}") from error
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise ConfigurationError(
            f"TARGET {text!r}: expected an actor (support_v4), an actor and its tool (support_v4/billing.refund), or a "
            "breaker's id (TOOL:default/billing.refund); a / inside a name is written %2F."
        )
    where = tenant or DEFAULT_TENANT
    if len(parts) == 1:
        return Target(Scope.ACTOR, where, actor=parts[0])
    return Target(Scope.ACTOR_TOOL, where, actor=parts[0], tool=parts[1])


def make_order(
    kind: OverrideKind,
    target: Target,
    *,
    request_id: str,
    person: str,
    reason: str,
    now_us: int,
    options: Mapping[str, str | int | None],
) -> Override:
    """Return the order that a command line means.

    Args:
        kind: What is ordered.
        target: About which breaker.
        request_id: What makes a repetition of the order known.
        person: Who gives it.
        reason: Why.
        now_us: The wall clock, microseconds.
        options: ``action``, ``expires`` (a duration), ``rule`` and ``epoch``, where they were given.

    Raises:
        ConfigurationError: It could not be carried out whatever the state of the breaker.
    """
    action = options.get("action")
    if action is None and kind is OverrideKind.TRIP:
        of_a_tool = target.scope in (Scope.ACTOR_TOOL, Scope.TOOL)
        action = Action.DISABLE_TOOL if of_a_tool else Action.HALT
    expires, rule, epoch = options.get("expires"), options.get("rule"), options.get("epoch")
    try:
        lasts = None if expires is None else duration_us(expires)
    except ValueError as error:
        raise ConfigurationError(f"--expires: {error}") from error
    order = Override(
        override_id=request_id,
        ts=now_us,
        tenant=target.tenant,
        scope=target.scope,
        actor=target.actor,
        tool=target.tool,
        trace_id=target.trace_id,
        kind=kind,
        action=Action.NONE if action is None else Action(str(action)),
        rule=None if rule is None else str(rule),
        epoch=None if epoch is None else int(epoch),
        person=person,
        reason=reason,
        expires_at=None if lasts is None else now_us + lasts,
    )
    problem = check_override(order, now_us)
    if problem is not None:
        raise ConfigurationError(f"this order cannot be carried out: {problem}.")
    return order
