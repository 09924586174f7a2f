"""One actor as its shard has it, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuseboard_streams.cli.render.text import (
    PLAIN,
    Cell,
    Paint,
    ago,
    clock,
    duration,
    money,
    percent,
    plural,
    printable,
    table,
)
from fuseboard_streams.cli.render.watching import bar, style_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fuseboard_streams.core.portrayed import ActorPortrait, FailurePortrait, HoldPortrait

_MOST_TOOLS: Final = 40


def portrait_lines(found: ActorPortrait, now: int, paint: Paint = PLAIN, columns: int | None = None) -> list[str]:
    """Return what a shard knows of an actor, one line per element.

    Args:
        found: What it knows.
        now: Wall clock in µs since the epoch.
        paint: Adds the colours.
        columns: The terminal's width.
    """
    lines = [paint(_head(found, now), "bold")]
    lines += _failures(found.failures, now, paint, columns)
    sections = (("what is spent", _money(found)), ("what else is followed", _others(found, now)))
    for title, section in (*sections, ("what holds it", _holds(found, now))):
        words = list(section)
        if words:
            lines += ["", paint(title, "bold"), *(printable(line) for line in words)]
    return lines


def _head(found: ActorPortrait, now: int) -> str:
    at = f"as its shard has it at {clock(found.stream_time_us, date=True)[:19]} UTC of stream time"
    if found.last_seen_us is None:
        return f"{at}: nothing but what holds it is remembered"
    clients = f", from {plural(found.clients, 'client')} within the last minute" if found.clients else ""
    return f"{at}: last seen {ago(found.last_seen_us, now)}{clients}"


# --- failures


def _failures(found: Sequence[FailurePortrait], now: int, paint: Paint, columns: int | None) -> list[str]:
    if not found:
        return []
    shown = sorted(found, key=lambda each: (each.tool is not None, -(each.evidence_log10 or -9.0), each.tool or ""))
    rows = [_failure_row(each, now) for each in shown[:_MOST_TOOLS]]
    header = ("failing?", "normal", "learned from", "evidence", "", "failed", "straight", "last call")
    lines = table(header, rows, paint=paint, right=frozenset({1}), columns=columns)
    more = len(shown) - len(rows)
    return [*lines, paint(f"and {plural(more, 'other tool')}; --json has all", "dim")] if more > 0 else lines


def _failure_row(each: FailurePortrait, now: int) -> Sequence[Cell | str]:
    evidence = each.evidence_log10
    colour = style_of(evidence, each.trip_log10) if evidence is not None else ""
    shown = Cell("", "") if evidence is None else Cell(bar(evidence, each.trip_log10, 10), colour)
    failed = f"{each.run_failures:,}/{each.run_calls:,}" if each.run_failures else ""
    return (
        Cell("the actor as a whole" if each.tool is None else each.tool, "bold"),
        f"up to {percent(each.null_p0)}",
        _history(each),
        shown,
        _standing(each),
        failed,
        "" if each.failures_to_trip is None else f"{each.failures_to_trip:,} more trip it",
        ago(each.last_seen_us, now),
    )


def _history(each: FailurePortrait) -> str:
    if each.begins_anew:
        return "begins anew at its next call"
    if not each.learned_calls:
        return f"nothing yet ({plural(each.waiting_calls, 'call')} waiting)" if each.waiting_calls else "nothing yet"
    return f"{plural(each.learned_calls, 'call')}, {each.learned_failures:,} failed"


def _standing(each: FailurePortrait) -> str:
    if each.resting:
        return "tripped, rests"
    if each.rule is None:
        return "no rule is for it"
    mode = "" if each.mode == "ENFORCE" else f" ({each.mode.lower()} only)" if each.mode else ""
    if each.evidence_log10 is None:
        return f"none{mode}"
    levels = f"10^{each.evidence_log10:.2f} of 10^{each.trip_log10:g}{mode}"
    return f"{levels}, suspect: learns nothing" if each.suspect else levels


# --- money


def _money(found: ActorPortrait) -> Iterator[str]:
    for cap in found.caps:
        limit = money(cap.limit_usd_micros)
        if cap.spent_usd_micros is None:
            yield f"one event may cost {limit} ({_rule(cap.rule, cap.mode)})"
        else:
            share = percent(cap.spent_usd_micros / cap.limit_usd_micros)
            spent = money(cap.spent_usd_micros)
            yield f"{spent} of {limit} since midnight UTC, {share} ({_rule(cap.rule, cap.mode)})"
    for each in found.budgets:
        yield f"budget of {money(each.budget_usd_micros)} ({_rule(each.rule, each.mode)}):"
        for window in each.windows:
            long, short = (
                f"{money(spent)} of {money(limit)} within {duration(length)}"
                for spent, limit, length in (
                    (window.spent_long_usd_micros, window.limit_long_usd_micros, window.long_us),
                    (window.spent_short_usd_micros, window.limit_short_usd_micros, window.short_us),
                )
            )
            yield f"  {long} and {short}{': it burns' if window.burning else ''}"


# --- the rest


def _others(found: ActorPortrait, now: int) -> Iterator[str]:
    for denied in found.violations:
        only = f" of severity {', '.join(each.lower() for each in denied.severities)}" if denied.severities else ""
        yield (
            f"denied{only} in {denied.traces} of {plural(denied.limit, 'trace')} among its last {denied.of_last} "
            f"actions ({_rule(denied.rule, denied.mode)})"
        )
    for each in found.sessions:
        yield (
            f"{each.near} of {plural(each.followed, 'session')} half way to the limit or further: at most "
            f"{each.most_failures} of {each.limit_failures} failures and {each.most_identical} of "
            f"{each.limit_identical} identical calls in a row ({_rule(each.rule, each.mode)})"
        )
    for silent in found.silences:
        since = "" if silent.since_us is None else f" since {ago(silent.since_us, now)}"
        yield (
            f"{silent.requests} of {plural(silent.limit_requests, 'session request')} unanswered{since} "
            f"({_rule(silent.rule, silent.mode)})"
        )
    for lost in found.losses:
        if not lost.expected:
            yield f"no numbered event within {duration(lost.within_us)} ({_rule(lost.rule, lost.mode)})"
            continue
        share = f"{percent(lost.missing / lost.expected)}, below {percent(lost.limit_share)} is well"
        yield (
            f"{lost.missing:,} of {lost.expected:,} numbered events of the last {duration(lost.within_us)} are "
            f"missing, {share} ({_rule(lost.rule, lost.mode)})"
        )
    if found.calls_made is not None:
        yield f"{plural(found.calls_made, 'call')} made, as far as rules about first uses count them"


def _rule(rule: str, mode: str) -> str:
    return rule if mode == "ENFORCE" else f"{rule}, {mode.lower()} only"


def _holds(found: ActorPortrait, now: int) -> Iterator[str]:
    for each in found.holds:
        yield _hold(each, now)
    for waiting in found.waiting:
        words = waiting.reason or waiting.metric
        yield f"{waiting.rule} has asked to hold it, and the guard has not granted it: {words}"


def _hold(each: HoldPortrait, now: int) -> str:
    target = printable(each.breaker_id)
    if each.watching:
        end = "while its condition is on" if each.until_us is None else f"until {ago(each.until_us, now)}"
        return f"{target}: {each.rule} would hold it since {ago(each.since_us, now)}, {end}"
    rung = f", rung {each.rung} of {each.rungs}" if each.rungs is not None and each.rungs > 1 else ""
    action = f" {each.action}" if each.action else ""
    return f"{target}: {each.rule}{action} since {ago(each.since_us, now)}{rung}, {_waits(each, now)}"


def _waits(each: HoldPortrait, now: int) -> str:
    match each.recovery:
        case "PROBE":
            ok, failed = each.probes_ok or 0, each.probes_failed or 0
            if each.state == "HALF_OPEN":
                return f"being probed: {ok} ok, {failed} failed"
            return "until probes come back clean" + (
                "" if each.probe_at_us is None else f", its cooldown is over {ago(each.probe_at_us, now)}"
            )
        case "CLEAR":
            quiet = "" if each.quiet_us is None else f" for {duration(each.quiet_us)}"
            last = "" if each.last_on_us is None else f", it was last on {ago(each.last_on_us, now)}"
            still = ": it is on" if each.condition == "ON" else last
            return f"until its condition has been gone{quiet}{still}"
        case "WINDOW":
            return "until its window is over" + ("" if each.until_us is None else f" {ago(each.until_us, now)}")
        case _:
            end = "" if each.until_us is None else f", or {ago(each.until_us, now)}"
            return f"until a person releases it{end}"
