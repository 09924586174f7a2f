"""One record, one line: what ``tap`` shows for each kind of record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fuseboard_streams.cli.render.text import PLAIN, Paint, Style, clock, duration, money, percent, printable, size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuseboard_schemas.records import (
        BreakerCommand,
        DeadLetter,
        EnforcementAck,
        Heartbeat,
        Signal,
        StateRecord,
        ToolCall,
        TraceStep,
    )

STATE_STYLE: Final[dict[str, Style]] = {
    "CLOSED": "green bold",
    "OPEN": "red bold",
    "HALF_OPEN": "yellow",
    "FORCED_OPEN": "red bold",
    "FORCED_CLOSED": "green",
}
_OUTCOME_STYLE: Final[dict[str, Style]] = {
    "OK": "green",
    "ERROR": "red",
    "TIMEOUT": "red",
    "DENIED": "yellow",
    "CANCELLED": "dim",
}
_LEVEL_STYLE: Final[dict[str, Style]] = {"TRIP": "red bold", "WARN": "yellow", "INFO": "dim"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies and when it arrived (µs since the epoch)."""

    partition: int
    offset: int
    arrival: int

    def __str__(self) -> str:
        """Return ``partition@offset``."""
        return f"{self.partition}@{self.offset}"


def who(tenant: str, actor: str | None, tool: str | None = None) -> str:
    """Return a target for people: the tenant only when it is not ``default``."""
    parts = [part for part in (None if tenant == "default" else tenant, actor) if part]
    name = "/".join(parts) or (tenant if tool is None else "any actor")
    return f"{name} · {tool}" if tool is not None else name


def record_line(record: Any, place: Place, paint: Paint = PLAIN) -> str:  # noqa: ANN401 - any of our records
    """Return one record as one line of text, without a line end."""
    render = _RENDERERS.get(type(record).__name__, _other)
    moment = getattr(record, "ts", None)
    head = [paint(clock(place.arrival if moment is None else moment), "dim"), paint(f"{place!s:<8}", "dim")]
    return "  ".join(part for part in [*head, *render(record, paint)] if part).rstrip()


def tombstone_line(key: str, place: Place, paint: Paint = PLAIN) -> str:
    """Return the line for a record without a value."""
    head = f"{clock(place.arrival)}  {place!s:<8}"
    return f"{paint(head, 'dim')}  {paint('TOMBSTONE', 'magenta')}  {printable(key)}"


def undecodable_line(key: str, reason: str, detail: str, length: int, place: Place, paint: Paint = PLAIN) -> str:
    """Return the line for a record that cannot be decoded."""
    head = f"{clock(place.arrival)}  {place!s:<8}"
    what = f"{paint(reason, 'red bold')}  {printable(detail)}  {paint(size(length), 'dim')}"
    return f"{paint(head, 'dim')}  {what}  {paint('key ' + printable(key), 'dim')}"


def header_line(headers: Sequence[tuple[str, str | None]], paint: Paint = PLAIN) -> str:
    """Return a record's headers as one indented line."""
    parts = [f"{printable(name)}={printable(value or '')}" for name, value in headers]
    return paint("    " + "  ".join(parts), "dim")


def _tool_call(call: ToolCall, paint: Paint) -> list[str]:
    outcome = str(call.outcome)
    if call.error_type:
        outcome += f" {call.error_type}"
    elif outcome == "DENIED":
        outcome += f" by {call.denied_by}"
    return [
        printable(who(call.tenant, call.actor)),
        paint(printable(call.tool), "bold"),
        paint(f"{call.effect!s}", "dim"),
        paint(printable(outcome), _OUTCOME_STYLE.get(str(call.outcome), "")),
        "" if call.duration_ms is None else duration(call.duration_ms * 1_000),
        "" if not call.cost_usd_micros else money(call.cost_usd_micros),
        paint(f"attempt {call.attempt}", "yellow") if call.attempt > 1 else "",
        paint("probe", "cyan") if call.probe else "",
        paint(f"trace {printable(call.trace_id[:8])}", "dim") if call.trace_id else "",
    ]


def _command(command: BreakerCommand, paint: Paint) -> list[str]:
    state = str(command.state)
    return [
        paint(state, STATE_STYLE.get(state, "")),
        "" if str(command.action) == "NONE" else str(command.action),
        paint(printable(who(command.tenant, command.actor, command.tool)), "bold"),
        # The reason has the figures in it.
        printable(command.reason)
        or probes(command)
        or evidence(command.evidence_log10, command.calls_seen, command.failures_seen, command.null_p0),
        paint(f"epoch {command.epoch}", "dim"),
        paint("SHADOW", "magenta") if str(command.mode) == "SHADOW" else "",
    ]


def evidence(log10: float | None, calls: int | None, failures: int | None, null: float | None) -> str:
    """Return a statistic for people: ``10^6.31 from 13 failures in 21 calls (normal 0.5%)``."""
    parts = []
    if log10 is not None:
        parts.append(f"10^{log10:.2f}")
    if calls is not None and failures is not None:
        parts.append(f"from {failures:,} failures in {calls:,} calls")
    if null is not None and parts:
        parts.append(f"(normal {percent(null)})")
    return " ".join(parts)


def probes(command: BreakerCommand) -> str:
    """Return how far the probes of a half-open breaker are, empty for others."""
    if str(command.state) != "HALF_OPEN":
        return ""
    return f"wave {command.wave}: {command.probes_ok} ok, {command.probes_failed} failed"


def _ack(ack: EnforcementAck, paint: Paint) -> list[str]:
    state = str(ack.state)
    return [
        paint(state, STATE_STYLE.get(state, "")),
        paint(printable(ack.breaker_id), "bold"),
        f"applied by {printable(ack.enforcer)}",
        f"{duration(ack.ts - ack.command_ts)} after the transition",
        paint(f"epoch {ack.epoch}", "dim"),
    ]


def _signal(signal: Signal, paint: Paint) -> list[str]:
    level = str(signal.level)
    return [
        paint(level, _LEVEL_STYLE.get(level, "")),
        paint(printable(who(signal.tenant, signal.actor, signal.tool)), "bold"),
        printable(signal.metric),
        *_finding(signal),
        paint(f"from {printable(signal.source)}", "dim"),
    ]


def _finding(signal: Signal) -> list[str]:
    """Return what a signal says: its own words, else its figures."""
    if signal.reason:
        return [printable(signal.reason)]
    figures = evidence(signal.evidence_log10, signal.calls, signal.failures, signal.null_p0)
    return ["" if signal.value is None else f"{signal.value:g}", figures]


def _heartbeat(beat: Heartbeat, paint: Paint) -> list[str]:
    lag: Style = "green" if beat.lag_s < 1 else "yellow" if beat.lag_s < 10 else "red"
    return [
        f"shard {beat.shard}",
        f"worker {printable(beat.worker_id)}",
        f"stream time {clock(beat.stream_time)}" if beat.stream_time else "nothing seen yet",
        paint(f"lag {duration(int(beat.lag_s * 1_000_000))}", lag),
    ]


def _dead_letter(letter: DeadLetter, paint: Paint) -> list[str]:
    key = (letter.key or b"").decode("utf-8", "backslashreplace")
    return [
        paint(str(letter.reason), "red bold"),
        printable(letter.detail),
        f"from {printable(letter.topic)} {letter.partition}@{letter.offset}",
        paint(size(letter.payload_length), "dim"),
        paint(f"key {printable(key)}", "dim") if key else "",
    ]


def _state(state: StateRecord, paint: Paint) -> list[str]:
    inputs = " ".join(f"{printable(i.topic)}:{i.from_offset}..{i.next_offset}" for i in state.inputs)
    return [
        f"shard {state.shard}",
        f"{state.kind!s} {state.sequence}",
        f"chunk {state.chunk + 1}/{state.chunks}" if state.chunks > 1 else "",
        size(len(state.block)),
        "starts a round" if state.starts_round else "",
        "ends a round" if state.ends_round else "",
        inputs,
        paint(f"by {printable(state.writer)}", "dim"),
    ]


def _trace_step(step: TraceStep, paint: Paint) -> list[str]:
    tokens = (
        ""
        if step.tokens_in is None and step.tokens_out is None
        else f"{step.tokens_in or 0}→{step.tokens_out or 0} tokens"
    )
    return [
        printable(who(step.tenant, step.actor)),
        paint(str(step.kind), "bold"),
        printable(step.model or step.source or ""),
        paint(str(step.outcome), _OUTCOME_STYLE.get(str(step.outcome), "")),
        tokens,
        "" if step.duration_ms is None else duration(step.duration_ms * 1_000),
        "" if not step.cost_usd_micros else money(step.cost_usd_micros),
        paint(printable(step.error_type or ""), "red"),
        paint(f"trace {printable(step.trace_id[:8])}", "dim") if step.trace_id else "",
    ]


def _other(record: Any, paint: Paint) -> list[str]:  # noqa: ANN401 - any of our records
    """Return the fields that say something, as ``name=value``."""
    parts = []
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if value is None or value == "" or field.name == "ts":
            continue
        text = f"<{size(len(value))}>" if isinstance(value, bytes) else printable(str(value))
        parts.append(f"{paint(field.name + '=', 'dim')}{text}")
    return parts


_RENDERERS: Final[dict[str, Callable[[Any, Paint], list[str]]]] = {
    "ToolCall": _tool_call,
    "TraceStep": _trace_step,
    "BreakerCommand": _command,
    "EnforcementAck": _ack,
    "Signal": _signal,
    "Heartbeat": _heartbeat,
    "DeadLetter": _dead_letter,
    "StateRecord": _state,
}
