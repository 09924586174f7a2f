"""Everything that a rule says, in the form in which a file says it, with what the file leaves out filled in."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from fuseboard_streams.rules.catalogue import breaker_metric, recoveries
from fuseboard_streams.rules.levels import DEFAULT_TRIP
from fuseboard_streams.rules.model import FirstUse, RecoveryRule
from fuseboard_streams.rules.quantities import Target, duration_text, share_text, usd_text

if TYPE_CHECKING:
    from fuseboard_streams.rules.document import Path
    from fuseboard_streams.rules.model import BreakerRule, Defaults, Objective, Rung

_DURATIONS: Final = frozenset(
    {"within", "per", "after", "lasting", "cooldown", "max_cooldown", "quiet", "window", "grace"}
)
_SCIENTIFIC: Final = 10_000.0
_OF_RECOVERY: Final = {"probe": ("cooldown", "max_cooldown", "probes"), "clear": ("quiet",)}


def breaker_values(rule: BreakerRule, scope: str, defaults: Defaults, name: str) -> dict[Path, str]:
    """What a breaker says, by place in the rule.

    Args:
        rule: As it is in a file that has been checked, or as overrides make it.
        scope: One of its scopes.
        defaults: The file's.
        name: The rule's id.
    """
    values: dict[Path, str] = {("metric",): rule.metric}
    for part in ("tenant", "actor", "tool"):
        if getattr(rule.match, part) != "*":
            values["match", part] = getattr(rule.match, part)
    values |= part_values(rule.test, ("test",))
    if values.get(("test", "trip")) == "none":
        values["test", "trip"] = level_text(DEFAULT_TRIP)
    if scope == "TOOL" and rule.breadth is not None:
        values |= part_values(rule.breadth, ("breadth",))
    values["mode",] = rule.mode or defaults.mode
    severity = rule.severity or defaults.severity
    values["severity",] = severity
    if rule.ladder is None:
        values["action",] = str(rule.action)
    else:
        values |= {("ladder", i): _rung(rung) for i, rung in enumerate(rule.ladder)}
    values |= _recovery(rule, scope, critical=severity == "critical")
    values["runbook",] = (rule.runbook or defaults.runbook).replace("{id}", name)
    return values


def objective_values(objective: Objective) -> dict[Path, str]:
    """What an objective says, by place in it."""
    values: dict[Path, str] = {}
    for name in type(objective).model_fields:
        value = getattr(objective, name)
        if isinstance(value, dict):
            values |= {(name, str(quantile)): str(target) for quantile, target in value.items()}
        elif value not in (None, ()):
            values[name,] = _shown(name, value)
    return values


def usual_recovery(rule: BreakerRule, scope: str, *, critical: bool) -> str:
    """What releases a hold where a rule does not say: what is critical waits for a person."""
    metric = breaker_metric(rule.metric)
    assert metric is not None, "a rule that has been checked has a metric"
    return "person" if critical else recoveries(metric, rule.test.kind, scope)[0]


def _recovery(rule: BreakerRule, scope: str, *, critical: bool) -> dict[Path, str]:
    given = rule.recovery
    if given is None:
        given = RecoveryRule.model_validate({"by": usual_recovery(rule, scope, critical=critical)})
    values: dict[Path, str] = {("recovery", "by"): given.by}
    return values | {("recovery", each): _shown(each, getattr(given, each)) for each in _OF_RECOVERY.get(given.by, ())}


def part_values(part: BaseModel, before: Path) -> dict[Path, str]:
    """What a part of a file says, by its place in what is around it."""
    values: dict[Path, str] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            values |= part_values(value, (*before, name))
        elif value is not None or name == "trip":
            # Here alone `after` counts calls.
            values[(*before, name)] = str(value) if isinstance(part, FirstUse) else _shown(name, value)
    return values


def _shown(name: str, value: object) -> str:
    match value:
        case Fraction():
            return share_text(value)
        case tuple():
            return ", ".join(map(str, value)) or ("all" if name == "severities" else "none")
        case int() if name == "usd":
            return usd_text(value)
        case int() if name in _DURATIONS:
            return duration_text(value)
        case float():
            return level_text(value)
        case Target() | str() | int():
            return str(value)
        case _:
            return "none"


def level_text(level: float) -> str:
    """An evidence level as people write it: ``500``, ``1e6``."""
    if level < _SCIENTIFIC:
        return f"{level:g}"
    digits, _, power = f"{level:.5e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _rung(rung: Rung) -> str:
    after = "" if rung.after is None else f" after {duration_text(rung.after)}"
    return f"{rung.action}{after}{'' if rung.severity is None else f', {rung.severity}'}"
