"""Breakers for people: a table of many, or one of them in words."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fuseboard_schemas.runbooks import packaged_name
from fuseboard_streams.cli.render.holds import hold_line, hold_rows, open_waits, order_waits
from fuseboard_streams.cli.render.lines import STATE_STYLE, evidence, who
from fuseboard_streams.cli.render.text import (
    PLAIN,
    Cell,
    Paint,
    ago,
    clock,
    duration,
    percent,
    plural,
    printable,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fuseboard_schemas.records import BreakerCommand, EnforcementAck

_ORDER: Final = {"FORCED_OPEN": 0, "OPEN": 1, "HALF_OPEN": 2, "FORCED_CLOSED": 3, "CLOSED": 4}
_CAUSES: Final = {
    "TRIP": "the evidence crossed the trip level",
    "COOLDOWN_OVER": "the cooldown is over",
    "NEXT_WAVE": "the next wave of probes began",
    "PROBES_PASSED": "the probes came back clean",
    "PROBES_FAILED": "the probes failed again",
    "PROBES_UNDECIDED": "the probes decided nothing",
    "NO_PROBES": "nobody sent a probe",
    "OVERRIDE": "a person ordered it",
    "EXPIRED": "a person's order ran out",
    "ATTRIBUTED": "another breaker took over the blame",
    "RULE_REMOVED": "its rule is gone",
    "CONDITION_CLEARED": "the condition is gone",
}
_NEVER: Final = "stays shut: IRREVERSIBLE, never probed"
_LABEL: Final = 12


@dataclass(frozen=True, slots=True)
class Settings:
    """The detection and recovery settings in force, each as (name, value) for people, and where they come from."""

    origin: str
    pairs: Sequence[tuple[str, str]]


def is_open(command: BreakerCommand) -> bool:
    """Return whether a breaker is anything but closed."""
    return str(command.state) not in ("CLOSED", "FORCED_CLOSED")


def ordered(commands: Sequence[BreakerCommand]) -> list[BreakerCommand]:
    """Return breakers the way an engineer wants them: the open first, within a state the newest first."""
    return sorted(commands, key=lambda c: (_ORDER.get(str(c.state), 9), -c.ts, c.breaker_id))


def breakers_table(
    commands: Sequence[BreakerCommand],
    now: int,
    paint: Paint = PLAIN,
    columns: int | None = None,
    probed: Mapping[str, bool | None] | None = None,
) -> list[str]:
    """Return a table of breakers, the open ones first.

    Args:
        commands: The newest command of each breaker.
        now: Wall clock in µs since the epoch, for the relative times.
        paint: Adds the colours.
        columns: The terminal's width.
        probed: By the breaker's id, whether calls of its tool can be probes, where that is known.
    """
    probed = probed or {}
    rows: list[Sequence[Cell | str]] = []
    for each in ordered(commands):
        rows += [_row(each, now, probed.get(each.breaker_id)), *hold_rows(each, now)]
    header = ("state", "action", "target", "since", "evidence", "failed", "normal", "next")
    return table(header, rows, paint=paint, right=frozenset({4, 5, 6}), columns=columns)


def _row(command: BreakerCommand, now: int, probed: bool | None) -> Sequence[Cell | str]:
    """Return the row of one breaker."""
    state = str(command.state)
    return (
        Cell(state, STATE_STYLE.get(state, "")),
        "" if str(command.action) == "NONE" else str(command.action),
        Cell(who(command.tenant, command.actor, command.tool), "bold" if is_open(command) else ""),
        ago(command.since, now),
        "" if command.evidence_log10 is None else f"10^{command.evidence_log10:.2f}",
        _counts(command),
        "" if command.null_p0 is None else percent(command.null_p0),
        Cell(next_step(command, now, probed), "yellow" if state == "HALF_OPEN" else ""),
    )


def _counts(command: BreakerCommand) -> str:
    """Return ``13/21`` failures out of calls."""
    if command.calls_seen is None or command.failures_seen is None:
        return ""
    return f"{command.failures_seen:,}/{command.calls_seen:,}"


def next_step(command: BreakerCommand, now: int, probed: bool | None = None) -> str:
    """Return what a breaker is waiting for.

    Args:
        command: Its newest command.
        now: Wall clock in µs since the epoch.
        probed: Whether calls of its tool can be probes; ``None`` if that is not known.
    """
    state = str(command.state)
    waits_for_probes = state == "HALF_OPEN" or (state == "OPEN" and command.retry_at is not None)
    if waits_for_probes and probed is False:
        return _NEVER
    unless = ", unless IRREVERSIBLE" if _may_be_irreversible(command, probed) else ""
    if state == "HALF_OPEN":
        ended = f"{command.probes_ok} ok, {command.probes_failed} failed"
        return f"probing, wave {command.wave} ({ended} when it began){unless}"
    if state == "OPEN" and command.retry_at is not None:
        when = ago(command.retry_at, now)
        # Stream time opens the probes; on a quiet shard the wall clock may be past it.
        due = f"probes {when}" if command.retry_at > now else "probes due, waits for stream time"
        return due + unless
    if state == "OPEN":
        return open_waits(command, now)
    return order_waits(command, now) if state.startswith("FORCED") else ""


def _may_be_irreversible(command: BreakerCommand, probed: bool | None) -> bool:
    """Return whether it is unknown if a tool's calls can be probes; those that were counted are none of the kind."""
    return probed is None and str(command.scope) == "ACTOR_TOOL" and not command.probes_ok + command.probes_failed


def breaker_words(
    command: BreakerCommand,
    acks: Sequence[EnforcementAck],
    settings: Settings | None,
    now: int,
    paint: Paint = PLAIN,
    shard: int | None = None,
    probed: bool | None = None,
    quiets: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Return the whole state of one breaker in words, one line per element.

    Args:
        command: Its newest command.
        acks: What enforcers said about it, in any order.
        settings: The settings in force, when they are known.
        now: Wall clock in µs since the epoch.
        paint: Adds the colours.
        shard: Its home partition, when it is known.
        probed: Whether calls of its tool can be probes, when that is known.
        quiets: How long the condition of a rule must be gone, by rule, where the rules in force say so.
    """
    sections = [
        ("State", _state(command, now, paint)),
        ("Enforced", _enforced(command)),
        ("Why", _why(command, probed)),
        ("Decided by", _decided(command, shard)),
        ("Rule", _rule(command)),
        ("Next", _next(command, now, probed)),
        ("Holds", [hold_line(hold, command, now, probed, quiets.get(hold.rule)) for hold in command.holds]),
        ("Applied by", _acks(command, acks, now, paint)),
    ]
    lines = [paint(printable(command.breaker_id), "bold"), ""]
    for label, values in sections:
        lines += _section(label, values, paint)
    if settings is not None:
        lines += ["", paint(f"  Settings ({settings.origin})", "dim")]
        wide = max((len(name) for name, _ in settings.pairs), default=0)
        lines += [f"    {name:<{wide}}  {value}" for name, value in settings.pairs]
    return lines


def _section(label: str, values: Sequence[str], paint: Paint) -> list[str]:
    """Return one labelled block of lines; nothing for an empty one."""
    blank = " " * _LABEL
    shown = [value for value in values if value]
    return [f"  {blank if i else paint(f'{label:<{_LABEL}}', 'dim')}{value}" for i, value in enumerate(shown)]


def _state(command: BreakerCommand, now: int, paint: Paint) -> list[str]:
    state = str(command.state)
    text = f"{paint(state, STATE_STYLE.get(state, ''))} since {clock(command.since, date=True)} UTC"
    text += f" ({ago(command.since, now)})"
    if command.ts != command.since:
        text += f", last change {ago(command.ts, now)}"
    if command.reopenings:
        text += f", reopened {command.reopenings} times" if command.reopenings > 1 else ", reopened once"
    person = ""
    if command.person:
        until = ""
        if state.startswith("FORCED"):
            end = command.expires_at
            until = ", until it is reset" if end is None else f", until {clock(end, date=True)} UTC ({ago(end, now)})"
        person = f"ordered by {printable(command.person)}{until}"
    return [text, f"epoch {command.epoch}", person]


def _enforced(command: BreakerCommand) -> list[str]:
    """Return what enforcers refuse, read from the four axes that they obey."""
    rules = []
    if str(command.run) == "HALT":
        rules.append("nothing may run")
    if str(command.tool_access) == "OFF":
        rules.append("the tool may not be called")
    if str(command.writes) == "REFUSED":
        rules.append("only READ calls are admitted")
    if str(command.writes) == "APPROVAL":
        rules.append("calls that are not READ need a person's approval")
    if str(command.model) == "FAST_ONLY":
        rules.append("only fast models may be called")
    text = "; ".join(rules) or "nothing"
    if rules and str(command.action) != "NONE":
        text += f" ({command.action})"
    if str(command.mode) != "ENFORCE":
        text = f"nothing: the rule is in {str(command.mode).lower()} mode; it would be: {text}"
    return [text]


def _why(command: BreakerCommand, probed: bool | None) -> list[str]:
    cause = _CAUSES.get(str(command.cause), str(command.cause))
    # A half-open breaker's reason is how its probes are doing, as if there could be some.
    reason = "" if probed is False and str(command.state) == "HALF_OPEN" else printable(command.reason)
    lines = [f"{cause}: {reason}" if reason else cause]
    if command.evidence_log10 is not None:
        shown = evidence(command.evidence_log10, command.calls_seen, command.failures_seen, command.null_p0)
        start = f", since {clock(command.evidence_since)}" if command.evidence_since is not None else ""
        lines.append(f"evidence {shown}{start}")
    if command.null_p0 is not None:
        lines.append(f"baseline: up to {percent(command.null_p0)} of the calls failing counts as normal")
    return lines


def _decided(command: BreakerCommand, shard: int | None) -> list[str]:
    if command.event_id is None:
        return []
    ordered_by_hand = str(command.cause) == "OVERRIDE"
    place = ""
    if command.source_offset is not None:
        topic = "overrides" if ordered_by_hand else "tool-calls"
        place = f", {topic} {'' if shard is None else shard}@{command.source_offset}"
    return [f"{'order' if ordered_by_hand else 'event'} {printable(command.event_id)}{place}"]


def _rule(command: BreakerCommand) -> list[str]:
    rule = printable(command.rule)
    version = f", version {printable(command.rules_version)}" if command.rules_version else ", an order of a person"
    lines = [f"{rule} ({str(command.mode).lower()}, {str(command.severity).lower()}){version}"]
    if not command.runbook:
        return lines
    # A path in the project's repository: of use to whoever has that, and to others the command that prints it.
    ours = packaged_name(command.runbook)
    hint = "" if ours is None else f": `fuseboard runbook {ours}` prints it"
    return [*lines, f"runbook {printable(command.runbook)}{hint}"]


def _next(command: BreakerCommand, now: int, probed: bool | None) -> list[str]:
    step = next_step(command, now, probed)
    if step == _NEVER:
        # The state machine does not know what a tool does and goes on by its timers; no call gets through.
        return [step, "it goes on between OPEN and HALF_OPEN and admits no call: the runbook says what a person can do"]
    lines = [step] if step else []
    if str(command.state) == "HALF_OPEN":
        lines.append(f"{plural(command.probe_quota, 'probe')} per enforcer in this wave")
        if command.retry_at is not None:
            lines.append(f"next wave {ago(command.retry_at, now)} at the latest")
    if str(command.scope) == "ACTOR" and str(command.state) in ("OPEN", "HALF_OPEN"):
        lines.append("only WRITE calls of the actor can be probes")
    if command.cooldown_ms is not None:
        lines.append(f"cooldown {duration(command.cooldown_ms * 1_000)}")
    return lines


def _acks(command: BreakerCommand, acks: Sequence[EnforcementAck], now: int, paint: Paint) -> list[str]:
    """Return one line per enforcer: the newest epoch it applied, and whether that is the present one."""
    newest: dict[tuple[str, int], EnforcementAck] = {}
    for ack in acks:
        key = (ack.enforcer, ack.client_id)
        if key not in newest or ack.epoch >= newest[key].epoch:
            newest[key] = ack
    if not newest:
        return [paint("no enforcer has acknowledged it", "yellow")]
    lines = []
    for (enforcer, client), ack in sorted(newest.items(), key=lambda item: (-item[1].epoch, item[0])):
        name = f"{printable(enforcer)} (client {client & 0xFFFF_FFFF_FFFF_FFFF:016x})"
        if ack.epoch >= command.epoch:
            took = duration(ack.ts - ack.command_ts)
            lines.append(f"{paint('✓', 'green')} {name}, {took} after the transition, {ago(ack.ts, now)}")
        else:
            lines.append(f"{paint('…', 'yellow')} {name} is at epoch {ack.epoch} ({ack.state}), {ago(ack.ts, now)}")
    return lines
