"""Which rules a target has, from which line each of their values comes, and what that means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fuseboard_detectors.failure import FailureParams, initial_null
from fuseboard_streams.core.ruleset import ExceedTest, FailureTest, Match
from fuseboard_streams.core.variants import matches, variant_of
from fuseboard_streams.rules.catalogue import OBJECTIVE_METRICS, TARGET_PARTS, breaker_metric
from fuseboard_streams.rules.document import dotted
from fuseboard_streams.rules.levels import straight_failures
from fuseboard_streams.rules.load import frozen
from fuseboard_streams.rules.model import BreakerRule, Objective
from fuseboard_streams.rules.overrides import layers_of, merged, written
from fuseboard_streams.rules.values import breaker_values, level_text, objective_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.core.ruleset import Test
    from fuseboard_streams.rules.compile import Compiled
    from fuseboard_streams.rules.document import Document, Path, Plain
    from fuseboard_streams.rules.overrides import Layer


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a rule."""

    path: str
    """Within the rule: ``test.trip``."""
    value: str
    origin: Literal["rule", "override", "defaults", "built in"]
    line: int | None
    """None for what is built in."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A rule as it is for one target."""

    section: Literal["breaker", "objective"]
    rule: str
    scope: str
    line: int | None
    about: str
    """What its metric is."""
    values: tuple[Value, ...]
    overrides: tuple[int, ...]
    """Lines of the overrides that fit the target."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a rule's values can come from."""

    document: Document
    section: str
    name: str
    raw: dict[str, Plain]
    layers: Sequence[Layer]

    def values(self, found: dict[Path, str]) -> tuple[Value, ...]:
        return tuple(self._value(path, text) for path, text in found.items())

    def _value(self, path: Path, text: str) -> Value:
        lines = self.document.lines
        for layer in reversed(self.layers):
            if _inside(layer.fields, path):
                place: Path = ("overrides", layer.index, "set", self.name, *path)
                return Value(dotted(path), text, "override", self.document.line_of(place))
        if _inside(self.raw, path):
            return Value(dotted(path), text, "rule", self.document.line_of((self.section, self.name, *path)))
        if (default := ("defaults", *path)) in lines:
            return Value(dotted(path), text, "defaults", lines[default])
        return Value(dotted(path), text, "built in", None)


def _inside(fields: Plain, path: Path) -> bool:
    for part in path:
        if isinstance(fields, dict) and part in fields:
            fields = fields[str(part)]
        elif isinstance(fields, list) and isinstance(part, int) and part < len(fields):
            fields = fields[part]
        else:
            return False
    return fields is not None


def explain(compiled: Compiled, tenant: str, actor: str, tool: str) -> list[Explanation]:
    """Every rule that is for an actor's use of a tool: breakers of all scopes, then objectives, as in the file."""
    found = []
    names = {"tenant": tenant, "actor": actor, "tool": tool}
    for rule in compiled.rules.rules:
        scope = rule.scope.value
        target = _target(scope, names)
        variant = variant_of(rule, *target)
        if variant is None:
            continue
        source = _source(compiled, "breakers", rule.rule, target)
        model = BreakerRule.model_validate(frozen(merged(source.raw, source.layers)))
        metric = breaker_metric(rule.metric)
        values = breaker_values(model, scope, compiled.file.defaults, rule.rule)
        found.append(
            Explanation(
                "breaker",
                rule.rule,
                scope,
                compiled.document.line_of(("breakers", rule.rule)),
                "" if metric is None else metric.about,
                source.values(values),
                _lines(source),
                tuple(_notes(compiled, variant.test, source)),
            )
        )
    return found + [
        _objective(compiled, name, objective, _target(objective.per, names))
        for name, objective in compiled.file.objectives.items()
    ]


def _objective(
    compiled: Compiled, name: str, objective: Objective, target: tuple[str, str | None, str | None]
) -> Explanation:
    source = _source(compiled, "objectives", name, target)
    model = Objective.model_validate(frozen(merged(source.raw, source.layers)))
    line = compiled.document.line_of(("objectives", name))
    about, values = OBJECTIVE_METRICS[objective.metric].about, source.values(objective_values(model))
    return Explanation("objective", name, objective.per, line, about, values, _lines(source), ())


def _target(scope: str, names: dict[str, str]) -> tuple[str, str | None, str | None]:
    parts = TARGET_PARTS[scope]
    return (
        names["tenant"],
        names["actor"] if "actor" in parts else None,
        names["tool"] if "tool" in parts else None,
    )


def _source(compiled: Compiled, section: str, name: str, target: tuple[str, str | None, str | None]) -> _Source:
    layers = [
        layer
        for layer in layers_of(compiled.file, compiled.document, name)
        if matches(Match(layer.match.tenant, layer.match.actor, layer.match.tool), *target)
    ]
    return _Source(compiled.document, section, name, written(compiled.document, section, name), layers)


def _lines(source: _Source) -> tuple[int, ...]:
    lines = (source.document.line_of(("overrides", layer.index)) for layer in source.layers)
    return tuple(line for line in lines if line is not None)


def _notes(compiled: Compiled, test: Test, source: _Source) -> list[str]:
    if not isinstance(test, FailureTest | ExceedTest):
        return []
    notes = [_delay(test.params)]
    named = any(_inside(each, ("test", "trip")) for each in (source.raw, *(layer.fields for layer in source.layers)))
    budget = compiled.file.false_trips
    if budget is not None:
        per_day = f"false_trips: {budget.per_day:g} a day"
        notes.append(
            f"trip is named, so it wins over {per_day}"
            if named
            else f"{per_day} changes nothing yet: without calibration data trip stays {level_text(test.params.trip)}"
        )
    return notes


def _delay(params: FailureParams) -> str:
    count = straight_failures(params)
    shown = "more than 1,000" if count is None else str(count)
    return f"without history {shown} in a row trip it (normal is then up to {100 * initial_null(params):.3g}%)"
