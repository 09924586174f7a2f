"""What is wrong with one breaker: whether its metric, test, targets, actions and recovery go together."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from fuseboard_detectors.burn import ring_of
from fuseboard_detectors.failure import FailureParams, initial_null
from fuseboard_schemas.axes import axes_of
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_schemas.records import Action
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.rules.catalogue import (
    ACTIONS,
    BREAKER_METRICS,
    OBJECTIVE_METRICS,
    SIGNALS,
    Metric,
    breaker_metric,
    recoveries,
)
from fuseboard_streams.rules.levels import DEFAULT_TRIP, HIGHEST, MANY, straight_failures
from fuseboard_streams.rules.model import (
    BreakerRule,
    Burn,
    Defaults,
    Distinct,
    EDetector,
    Exceed,
    Lost,
    RecoveryRule,
    Silence,
)
from fuseboard_streams.rules.overrides import reaches
from fuseboard_streams.rules.params import exceed_params, failure_params
from fuseboard_streams.rules.quantities import duration_text
from fuseboard_streams.rules.values import level_text, usual_recovery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fuseboard_schemas.axes import Axes
    from fuseboard_streams.rules.document import Path
    from fuseboard_streams.rules.model import Match, Rung

_SECOND: Final = 1_000_000
_OF_RECOVERY: Final = {"cooldown": "probe", "max_cooldown": "probe", "probes": "probe", "quiet": "clear"}
_QUANTILES: Final = (Fraction(1, 2), Fraction(9_999, 10_000))
_FORGOTTEN: Final = CoreSettings().forget_after_us
_TOP: Final = frozenset({"DISABLE_TOOL", "HALT"})
"""Actions with nothing above them: they contain every other that fits the same target."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a part of the file, at a place within that part."""

    path: Path
    text: str
    warning: bool = False


def check_breaker(rule: BreakerRule, base: FailureParams, defaults: Defaults) -> Iterator[Finding]:
    """Everything that is wrong with a breaker by itself.

    Args:
        rule: As it is in the file, or as overrides make it.
        base: The detector's settings that no file names: prior, learning.
        defaults: The file's.
    """
    metric = breaker_metric(rule.metric)
    kind = rule.test.kind
    if metric is None:
        yield Finding(("metric",), _unknown(rule.metric))
    elif kind not in metric.tests:
        yield Finding(("test", "kind"), f"{kind} does not fit {rule.metric}; expected {' or '.join(metric.tests)}.")
    yield from _scopes(rule, metric)
    yield from check_match(rule.match, rule.scope)
    yield from _test(rule, base)
    yield from _response(rule)
    if metric is not None and kind in metric.tests:
        yield from _recovery(rule, metric)
        yield from _probed(rule, metric, critical=(rule.severity or defaults.severity) == "critical")
    yield from _breadth(rule)
    if rule.runbook is not None:
        yield from check_runbook(rule.runbook, ("runbook",))


def _unknown(name: str) -> str:
    known = [*BREAKER_METRICS, f"{SIGNALS}NAME"]
    close = difflib.get_close_matches(name, BREAKER_METRICS, 1)
    if name in OBJECTIVE_METRICS:
        return f"{name} is a metric of objectives, which never trip; those of breakers: {', '.join(known)}."
    if close:
        return f"there is no metric {name!r}; did you mean {close[0]}?"
    return f"there is no metric {name!r}; those there are: {', '.join(known)}."


def check_runbook(text: str, path: Path) -> Iterator[Finding]:
    """What is wrong with the name of a runbook."""
    for field in re.findall(r"\{[^{}]*\}?", text.replace("{id}", "")):
        yield Finding(path, f"{field} is not filled in; only {{id}} is, with the rule's name.")


# --- targets


def _scopes(rule: BreakerRule, metric: Metric | None) -> Iterator[Finding]:
    for i, scope in enumerate(rule.scope):
        if scope in rule.scope[:i]:
            yield Finding(("scope", i), f"{scope} stands twice; remove one.")
        elif metric is not None and scope not in metric.scopes:
            reason = metric.refused.get(scope, f"expected {' or '.join(metric.scopes)}")
            yield Finding(("scope", i), f"{rule.metric} cannot be had per {scope}: {reason}.")


def check_match(match: Match, scopes: tuple[str, ...]) -> Iterator[Finding]:
    """Patterns for a name that targets do not have."""
    for scope in scopes:
        for part in ("actor", "tool"):
            pattern = getattr(match, part)
            one = {"actor": "*", "tool": "*"} | {part: pattern}
            if not reaches(("*", one["actor"], one["tool"]), scope):
                text = f"a target of scope {scope} has no {part}, so nothing fits {pattern!r}; remove the pattern"
                more = " or give that scope a rule of its own." if len(scopes) > 1 else "."
                yield Finding(("match", part), text + more)


def _breadth(rule: BreakerRule) -> Iterator[Finding]:
    counts = rule.test.kind == "e-detector" and "TOOL" in rule.scope
    if counts and rule.breadth is None:
        text = (
            "scope TOOL needs `breadth`, or one actor with many calls could take the tool from all others; add "
            "`breadth: {actors: 3, share: 20%, max_per_actor: 3}`."
        )
        yield Finding(("scope", rule.scope.index("TOOL")), text)
    if rule.breadth is not None and not counts:
        yield Finding(("breadth",), "it is for an e-detector of scope TOOL; remove it, or add that scope.")


# --- tests


def _test(rule: BreakerRule, base: FailureParams) -> Iterator[Finding]:
    test = rule.test
    match test:
        case EDetector():
            found = list(_e_detector(test))
            yield from found
            if not found:
                yield from _delay(failure_params(test, base))
        case Exceed():
            found = list(_exceed(test, base))
            yield from found
            if not found:
                yield from _delay(exceed_params(test, base))
        case Distinct():
            yield from _distinct(test)
        case Silence():
            yield from _remembered(test.lasting, "lasting")
        case Burn():
            yield from _burn(test)
        case Lost() if not 0 < test.share < 1:
            text = f"expected a share above 0% and below 100%, found {_percent(test.share)}."
            yield Finding(("test", "share"), text)
        case _:
            pass


def _distinct(test: Distinct) -> Iterator[Finding]:
    if test.traces > test.of_last:
        text = f"{test.traces} traces never fit into the last {test.of_last} actions; expected at most {test.of_last}."
        yield Finding(("test", "traces"), text)
    yield from _remembered(test.within, "within")


def _remembered(length_us: int, name: str) -> Iterator[Finding]:
    if length_us > _FORGOTTEN:
        text = f"what is {duration_text(_FORGOTTEN)} old is forgotten; expected at most {duration_text(_FORGOTTEN)}."
        yield Finding(("test", name), text)


def _e_detector(test: EDetector) -> Iterator[Finding]:
    baseline = test.baseline
    for name in ("floor", "known"):
        value = getattr(baseline, name)
        if value is not None and not 0 < float(value) < 1:
            text = f"expected a share above 0% and below 100%, found {_percent(value)}."
            yield Finding(("test", "baseline", name), text)
            return
    if not _QUANTILES[0] <= baseline.quantile <= _QUANTILES[1]:
        yield Finding(("test", "baseline", "quantile"), _wrong_quantile(baseline.quantile))
        return
    lowest = baseline.floor if baseline.known is None else baseline.known
    yield from _levels(test, float(lowest), "floor" if baseline.known is None else "known rate")


def _exceed(test: Exceed, base: FailureParams) -> Iterator[Finding]:
    if not _QUANTILES[0] <= test.quantile <= _QUANTILES[1]:
        yield Finding(("test", "quantile"), _wrong_quantile(test.quantile))
        return
    yield from _levels(test, base.floor, "floor")


def _wrong_quantile(found: Fraction) -> str:
    low, high = map(_percent, _QUANTILES)
    return f"expected a quantile from {low} to {high}, found {_percent(found)}."


def _levels(test: EDetector | Exceed, null: float, what: str) -> Iterator[Finding]:
    trip = DEFAULT_TRIP if test.trip is None else test.trip
    if trip > HIGHEST:
        yield Finding(
            ("test", "trip"),
            f"no evidence ever reaches {level_text(trip)}; expected at most {level_text(HIGHEST)}, usual is 1e6.",
        )
    if test.warn > trip:
        levels = f"{level_text(test.warn)} > {level_text(trip)}"
        yield Finding(("test", "warn"), f"warn is above trip ({levels}); lower it, or raise trip.")
    if not 1.0 / null <= test.warn:
        text = (
            f"warn {level_text(test.warn)} times the {what} of the baseline ({_percent(null)}) is below 1: successes "
            f"alone would alarm; expected warn from {level_text(1 / null)} on, or a higher {what}."
        )
        yield Finding(("test", "warn"), text)


def _delay(params: FailureParams) -> Iterator[Finding]:
    count = straight_failures(params)
    if count is None or count > MANY:
        shown = "more than 1,000" if count is None else str(count)
        text = (
            f"at the initial baseline of {_percent(initial_null(params))} a trip takes {shown} failures in a row; if "
            "that is too many, lower trip or the baseline."
        )
        yield Finding(("test",), text, warning=True)


def _burn(test: Burn) -> Iterator[Finding]:
    per = test.budget.per
    for i, window in enumerate(test.windows):
        path: Path = ("test", "windows", i)
        for length in (window.long_us, window.short_us):
            try:
                ring_of(length)
            except ConfigurationError as error:
                yield Finding(path, str(error))
        if window.long_us > per:
            yield Finding(path, "the long window is longer than the budget's `per`; shorten it.")
        elif window.share * per <= window.long_us:
            text = (
                f"whoever spends the budget evenly spends {_percent(Fraction(window.long_us, per))} of it in the long "
                f"window, and would trip at {_percent(window.share)}; expected a larger share or a shorter window."
            )
            yield Finding(path, text)


# --- what follows


def _response(rule: BreakerRule) -> Iterator[Finding]:
    if rule.action is not None and rule.ladder is not None:
        yield Finding(("ladder",), "there is an `action` too; remove one of the two.")
    elif rule.action is not None:
        yield from _action(rule.action, rule.scope, ("action",))
    elif rule.ladder is None:
        fitting = ", ".join(ACTIONS[rule.scope[0]])
        yield Finding((), f"`action` or `ladder` is missing: what it does when enforced; add an action of {fitting}.")
    else:
        yield from _ladder(rule.ladder, rule.scope)


def _action(action: str, scopes: tuple[str, ...], path: Path) -> Iterator[Finding]:
    for scope in scopes:
        if action not in ACTIONS[scope]:
            yield Finding(path, f"{action} does not fit scope {scope}; expected {' or '.join(ACTIONS[scope])}.")


def _ladder(ladder: tuple[Rung, ...], scopes: tuple[str, ...]) -> Iterator[Finding]:
    for i, rung in enumerate(ladder):
        yield from _action(rung.action, scopes, ("ladder", i, "action"))
        if i == 0:
            if rung.after is not None:
                yield Finding(("ladder", 0, "after"), "the first step is taken at once; remove `after`.")
            continue
        if rung.after is not None:
            yield from _soonest(rung.after, ("ladder", i, "after"))
        before = ladder[i - 1].action
        if before in _TOP:
            yield Finding(("ladder", i), f"there is nothing above {before}; remove this step.")
        elif rung.action == before or not _contains(rung.action, before):
            text = (
                f"{rung.action} does not contain what {before} restricts, and a ladder only goes up; expected "
                f"{' or '.join(_above(before, scopes[0]))}."
            )
            yield Finding(("ladder", i, "action"), text)


def _contains(action: str, before: str) -> bool:
    """Whether an action restricts at least what another does, on every axis."""
    return action in _TOP or _join(action, before) == _join(action)


def _join(*actions: str) -> Axes:
    return axes_of(Action(each) for each in actions)


def _above(before: str, scope: str) -> list[str]:
    return [each for each in ACTIONS[scope] if each != before and _contains(each, before)]


def _recovery(rule: BreakerRule, metric: Metric) -> Iterator[Finding]:
    recovery = rule.recovery
    if recovery is None:
        return
    for scope in rule.scope:
        fitting = recoveries(metric, rule.test.kind, scope)
        if recovery.by not in fitting:
            why = "; a session ends by itself" if scope == "SESSION" else ""
            text = (
                f"{recovery.by} cannot release what {rule.test.kind} on {rule.metric} holds per {scope}{why}; expected "
                f"{' or '.join(fitting)}."
            )
            yield Finding(("recovery", "by"), text)
    yield from _recovery_values(recovery)


def _probed(rule: BreakerRule, metric: Metric, *, critical: bool) -> Iterator[Finding]:
    """A hold that refuses no call is never probed, and would last for ever."""
    given, kind = rule.recovery, rule.test.kind
    fitting = [scope for scope in rule.scope if "probe" in recoveries(metric, kind, scope)]
    released = {usual_recovery(rule, each, critical=critical) if given is None else given.by for each in fitting}
    if "probe" not in released:
        return
    rungs = [rule.action] if rule.ladder is None else [rung.action for rung in rule.ladder]
    for i, action in enumerate(rungs):
        if action == "FAST_MODEL_ONLY":
            path: Path = ("action",) if rule.ladder is None else ("ladder", i, "action")
            text = (
                "FAST_MODEL_ONLY refuses no call, so there is none to probe with, and nothing would ever release it; "
                "add `recovery: {by: person}`, or take another action."
            )
            yield Finding(path, text)


def _recovery_values(recovery: RecoveryRule) -> Iterator[Finding]:
    for name, by in _OF_RECOVERY.items():
        if name in recovery.model_fields_set and recovery.by != by:
            text = f"it means nothing for `by: {recovery.by}`, only for `by: {by}`; remove it."
            yield Finding(("recovery", name), text, warning=True)
    if recovery.by == "probe" and recovery.cooldown < _SECOND:
        yield Finding(("recovery", "cooldown"), "timers are due on whole seconds; expected a cooldown from 1s on.")
    if recovery.by == "probe" and recovery.max_cooldown < recovery.cooldown:
        path = "max_cooldown" if "max_cooldown" in recovery.model_fields_set else "cooldown"
        text = "max_cooldown, where the doubling ends, is shorter than cooldown; raise it, or lower cooldown."
        yield Finding(("recovery", path), text)
    if recovery.by == "clear" and recovery.quiet < _SECOND:
        yield Finding(("recovery", "quiet"), "conditions are looked at once a second; expected 1s or more.")
    for name, by in (("cooldown", "probe"), ("quiet", "clear")):
        if recovery.by == by and getattr(recovery, name) >= _SECOND:
            yield from _soonest(getattr(recovery, name), ("recovery", name))


def _soonest(wait_us: int, path: Path) -> Iterator[Finding]:
    """A wait that no worker keeps: from a breaker's change to the timer that it starts is never less than this."""
    least = BreakerParams().min_cooldown_us
    if wait_us < least:
        text = (
            f"a worker waits at least {least // _SECOND} s after each change of a breaker, and so long here; expected "
            f"{least // _SECOND}s or more."
        )
        yield Finding(path, text, warning=True)


def _percent(value: Fraction | float) -> str:
    return f"{float(value) * 100:.6g}%"
