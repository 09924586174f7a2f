"""One actor for people: what holds it, what was found, what it did, which rules it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuseboard_streams.cli.objective_state import UNKNOWN, of_objectives, state_of, words
from fuseboard_streams.cli.render.breakers import breakers_table
from fuseboard_streams.cli.render.lines import who
from fuseboard_streams.cli.render.portrait import portrait_lines
from fuseboard_streams.cli.render.text import PLAIN, Cell, Paint, Style, ago, money, percent, plural, printable, table
from fuseboard_streams.core.ruleset import MEASURED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fuseboard_schemas.records import Signal
    from fuseboard_streams.cli.actor_state import ActorState, Known, RuleFor

_STATE_STYLE: Final[dict[str, Style]] = {"violated": "red bold", "met": "green"}
_OLD_US: Final = 3_600_000_000
_LEVELS = {"TRIP": "trip", "WARN": "warning", "INFO": "note"}


def actor_lines(
    state: ActorState,
    now: int,
    paint: Paint = PLAIN,
    columns: int | None = None,
    probed: Mapping[str, bool | None] | None = None,
    known: Known | None = None,
) -> list[str]:
    """Return what is known of an actor, one line per element.

    Args:
        state: What the topics tell.
        now: Wall clock in µs since the epoch.
        paint: Adds the colours.
        columns: The terminal's width.
        probed: By the breaker's id, whether calls of its tool can be probes, where that is known.
        known: What its shard knows of it, where that was asked for.
    """
    name = paint(printable(who(state.tenant, state.actor)), "bold")
    lines = [f"{name}  shard {state.shard}", ""]
    if state.breakers:
        lines += breakers_table(state.breakers, now, paint, columns, probed)
    else:
        lines.append(paint("no breaker on its way has ever tripped", "green"))
    if known is not None:
        lines += ["", *_known(known, now, paint, columns)]
    findings = [each for each in state.signals if state_of(each) is None]
    lines += ["", *_signals(findings, now, paint, columns)]
    if objectives := _objectives(state, now, paint, columns):
        lines += ["", *objectives]
    lines += ["", *_calls(state, now, paint, columns)]
    return [*lines, "", *_rules(state, paint, columns)]


def _known(known: Known, now: int, paint: Paint, columns: int | None) -> list[str]:
    if known.portrait is None:
        return [paint(f"what its shard has learned of it is not shown: {printable(known.problem)}", "dim")]
    lines = portrait_lines(known.portrait, now, paint, columns)
    if known.written_us is None or now - known.written_us < _OLD_US:
        return lines
    return [*lines, paint(f"its shard's state was last written {ago(known.written_us, now)}", "yellow")]


def _signals(signals: Sequence[Signal], now: int, paint: Paint, columns: int | None) -> list[str]:
    if not signals:
        return ["nothing was found about it within 24 h"]
    rows = [
        (
            ago(each.ts, now),
            Cell(_LEVELS.get(str(each.level), str(each.level)), "red bold" if str(each.level) == "TRIP" else "yellow"),
            each.rule or f"{each.source} {each.metric}",
            each.tool or each.trace_id or "",
            "" if each.evidence_log10 is None else f"10^{each.evidence_log10:.2f}",
            "" if each.calls is None or each.failures is None else f"{each.failures:,}/{each.calls:,}",
            "" if each.null_p0 is None else percent(each.null_p0),
            each.reason or ("" if each.value is None else f"{each.metric} {each.value:g}"),
        )
        for each in signals
    ]
    header = ("found", "as", "rule", "about", "evidence", "failed", "normal", "words")
    title = paint("latest findings, the newest of each rule and target", "bold")
    return [title, *table(header, rows, paint=paint, right=frozenset({4, 5, 6}), columns=columns)]


def _objectives(state: ActorState, now: int, paint: Paint, columns: int | None) -> list[str]:
    """Return the objectives of an actor and of its tools, those of which nothing was said among them."""
    said = of_objectives([*state.signals, *state.shared])
    rows = [
        (
            each.rule or "",
            (each.tool or "") + (", all actors" if each.actor is None else ""),
            Cell(state_of(each) or "", _STATE_STYLE.get(state_of(each) or "", "")),
            ago(each.ts, now),
            words(each),
        )
        for each in said
    ]
    known = {each.rule for each in said}
    unsaid = [each for each in state.rules or () if each.section == "objective" and each.rule not in known]
    rows += [(each.rule, "", Cell(UNKNOWN, ""), "", _why_unknown(each)) for each in unsaid]
    if not rows:
        return []
    header = ("objective", "tool", "state", "said", "measured")
    return [
        paint("objectives, as they were said last within 24 h", "bold"),
        *table(header, rows, paint=paint, columns=columns),
    ]


def _why_unknown(rule: RuleFor) -> str:
    if rule.metric not in MEASURED:
        return "tested once per run, not in the stream"
    if rule.scope == "TOOL":
        return "nothing was said of a tool that it called: too few calls of all actors, or neither state is certain"
    return "nothing was said: too few events, or neither state is certain"


def _calls(state: ActorState, now: int, paint: Paint, columns: int | None) -> list[str]:
    if not state.tools:
        return [f"no call within {state.minutes:g} min"]
    rows = [
        (
            Cell(each.tool, "bold"),
            each.effect,
            f"{each.calls:,}",
            Cell(f"{each.failed:,}", "red" if each.failed else ""),
            f"{each.refused:,}",
            money(each.cost_usd_micros),
            ago(each.last, now),
        )
        for each in sorted(state.tools.values(), key=lambda each: (-each.calls, each.tool))
    ]
    calls = sum(each.calls for each in state.tools.values())
    cost = money(sum(each.cost_usd_micros for each in state.tools.values()))
    clients = plural(len(state.clients), "client")
    title = f"{plural(calls, 'call')} within {state.minutes:g} min from {clients}, {cost}"
    header = ("tool", "effect", "calls", "failed", "refused", "cost", "last")
    shown = table(header, rows, paint=paint, right=frozenset({2, 3, 4, 5}), columns=columns)
    return [paint(title, "bold"), *shown]


def _rules(state: ActorState, paint: Paint, columns: int | None) -> list[str]:
    if state.rules is None:
        return ["which rules it has is not known here: that takes the extra `worker` and the topic `rules`"]
    if not state.rules:
        return ["no rule is for it"]
    rows = [
        (each.rule, each.scope, each.mode or each.section, each.metric, each.recovery, ", ".join(each.tools))
        for each in state.rules
    ]
    title = paint(f"rules, version {state.rules_version}; `fuseboard rules explain` has their values", "bold")
    header = ("rule", "per", "mode", "metric", "released by", "tools")
    return [title, *table(header, rows, paint=paint, columns=columns)]
