"""Which rules a target has, in which variant, and which of its state a changed rule may go on with."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fuseboard_streams.core.ruleset import (
    BurnTest,
    CapTest,
    DistinctTest,
    ExceedTest,
    FailureTest,
    FirstUseTest,
    LostTest,
    ObjectiveTest,
    RunsTest,
    SignalTest,
    SilenceTest,
    UngatedTest,
)
from fuseboard_streams.rules.patterns import fits

if TYPE_CHECKING:
    from fuseboard_streams.core.ruleset import Match, Rule, Test, Variant

LEVELS: Final[dict[type, frozenset[str]]] = {
    FailureTest: frozenset({"params.trip", "params.warn", "params.explained"}),
    DistinctTest: frozenset({"traces"}),
    BurnTest: frozenset({"budget_micro_usd", "pairs"}),
    CapTest: frozenset({"micro_usd"}),
    RunsTest: frozenset({"failures", "identical"}),
    ExceedTest: frozenset({"params.trip", "params.warn", "params.explained"}),
    FirstUseTest: frozenset({"after"}),
    SilenceTest: frozenset({"requests", "lasting_us"}),
    LostTest: frozenset({"share", "minimum"}),
    UngatedTest: frozenset({"after_us"}),
    SignalTest: frozenset({"trip_only"}),
    ObjectiveTest: frozenset({"shares", "minimum", "error"}),
}
"""What of each test is only compared with its state: it may change while the state goes on."""


def matches(match: Match, tenant: str, actor: str | None, tool: str | None) -> bool:
    """Whether a target's names fit; a name that it has not fits only ``*``."""
    given = ((match.tenant, tenant), (match.actor, actor), (match.tool, tool))
    return all(pattern == "*" or (name is not None and fits(pattern, name)) for pattern, name in given)


def variant_number(rule: Rule, tenant: str, actor: str | None, tool: str | None) -> int | None:
    """Which variant of a rule a target has: 0 for the rule as it is written, i for the i-th of ``changed``.

    Args:
        rule: A compiled rule.
        tenant: The target's tenant.
        actor: Its actor; None for TOOL and TENANT.
        tool: Its tool; None for ACTOR, TENANT and SESSION.

    Returns:
        None if the rule is not for this target.
    """
    if not matches(rule.match, tenant, actor, tool):
        return None
    for i in range(len(rule.changed), 0, -1):
        if all(matches(each, tenant, actor, tool) for each in rule.changed[i - 1][0]):
            return i
    return 0


def variant_of(rule: Rule, tenant: str, actor: str | None, tool: str | None) -> Variant | None:
    """A rule as it is for one target; None if it is not for it. Arguments as of `variant_number`."""
    number = variant_number(rule, tenant, actor, tool)
    if number is None:
        return None
    return rule.changed[number - 1][1] if number else rule.base


def state_id(rule: Rule, test: Test) -> str:
    """Names the state of a rule's targets, 16 hex digits: with another name it starts cold.

    It depends on the rule's id, metric, scope and match and on the test without its levels. Mode, actions, levels,
    severity, recovery and runbook may change and the state goes on; so may overrides, but for the targets whose test
    they change in more than its levels.

    Args:
        rule: A compiled rule.
        test: Its own, or that of one of its variants.
    """
    levels = LEVELS[type(test)]
    shown = sorted(f"{name}={value!r}" for name, value in _flat(asdict(test)).items() if name not in levels)
    match = rule.match
    named = (rule.rule, rule.metric, rule.scope.value, match.tenant, match.actor, match.tool, type(test).__name__)
    return hashlib.sha256("\x00".join((*named, *shown)).encode()).hexdigest()[:16]


def _flat(fields: dict[str, Any], before: str = "") -> dict[str, Any]:
    """The fields of nested tables by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = sorted(value) if isinstance(value, frozenset) else value
    return found
