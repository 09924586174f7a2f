"""What changes for whom between two rules files, and which state starts cold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from fuseboard_streams.core.variants import state_id
from fuseboard_streams.rules import compile_objectives
from fuseboard_streams.rules.compile import overridden, test_of
from fuseboard_streams.rules.document import dotted
from fuseboard_streams.rules.load import frozen
from fuseboard_streams.rules.model import Objective
from fuseboard_streams.rules.overrides import combinations, covers, layers_of, meet, merged, names, written
from fuseboard_streams.rules.values import breaker_values, objective_values, part_values

if TYPE_CHECKING:
    from fuseboard_streams.core.ruleset import Rule
    from fuseboard_streams.rules.compile import Compiled
    from fuseboard_streams.rules.document import Path
    from fuseboard_streams.rules.overrides import Names

Whom: TypeAlias = "frozenset[Names]"
"""The patterns of overrides that all fit; none for all targets of a rule."""
Values: TypeAlias = "dict[Path, str]"


@dataclass(frozen=True, slots=True)
class Field:
    """One value that differs; None where it is not there."""

    path: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """What is different about one rule for some of its targets."""

    section: Literal["breaker", "objective", "file"]
    kind: Literal["added", "removed", "changed"]
    rule: str
    scope: str
    whom: str
    """``everyone``, or the patterns that these targets fit."""
    fields: tuple[Field, ...]
    cold: bool | None
    """Whether what has been learned of these targets is lost; None where there is nothing to lose."""
    released: bool = False
    """Whether what the rule holds of these targets is released, but for what waits for a person: it is not for them any
    more, or enforces no more."""


def differences(old: Compiled, new: Compiled) -> list[Change]:
    """What is different, in the order of the new file, what is gone at the end.

    State goes on as long as its name stays (`fuseboard_streams.core.variants.state_id`): mode, actions, levels,
    severity, recovery and runbook may change, anything else starts cold. Targets that a rule is not for any more are a
    change of their own, ``removed``.
    """
    found = _breakers(old, new) + _objectives(old, new)
    for name in ("blast_radius", "false_trips"):
        parts = (getattr(each.file, name) for each in (old, new))
        one, other = ({} if part is None else part_values(part, ()) for part in parts)
        if fields := _fields(one, other):
            found.append(Change("file", "changed", name, "", "everyone", fields, None))
    return found


def _breakers(old: Compiled, new: Compiled) -> list[Change]:
    before = {(rule.rule, rule.scope): rule for rule in old.rules.rules}
    after = {(rule.rule, rule.scope): rule for rule in new.rules.rules}
    found: list[Change] = []
    for key, rule in after.items():
        if key in before:
            found += _changed(_sides(old, before[key]), _sides(new, rule), rule)
            found += _dropped(before[key], rule)
        else:
            found.append(_whole("added", rule))
    return found + [_whole("removed", rule) for key, rule in before.items() if key not in after]


def _whole(kind: Literal["added", "removed"], rule: Rule) -> Change:
    lost = kind == "removed"
    return Change("breaker", kind, rule.rule, rule.scope.value, _of_rule(rule), (), lost or None, released=lost)


def _dropped(old: Rule, new: Rule) -> list[Change]:
    """The targets that the rule was for and is not any more."""
    before, after = _names(old), _names(new)
    if covers(after, before):
        return []
    whom = _of_rule(old) + (f" but not {_of_rule(new)}" if meet(before, after) else "")
    return [Change("breaker", "removed", old.rule, old.scope.value, whom, (), cold=True, released=True)]


def _names(rule: Rule) -> Names:
    return rule.match.tenant, rule.match.actor, rule.match.tool


def _of_rule(rule: Rule) -> str:
    return _words(frozenset({_names(rule)}))


@dataclass(frozen=True, slots=True)
class _Side:
    """A rule of one file for some targets."""

    values: Values
    state: str
    """Empty where nothing is measured in the stream."""


def _sides(compiled: Compiled, rule: Rule) -> dict[Whom, _Side]:
    """A rule as it is for everyone, and where overrides fit."""
    file, scope = compiled.file, rule.scope.value
    models = {frozenset[tuple[str, str, str]](): file.breakers[rule.rule]}
    for layers, model in overridden(file, compiled.document, rule.rule, scope):
        models[frozenset(layer.names for layer in layers)] = model
    return {
        whom: _Side(
            breaker_values(model, scope, file.defaults, rule.rule), state_id(rule, test_of(model.test, compiled.base))
        )
        for whom, model in models.items()
    }


def _changed(old: dict[Whom, _Side], new: dict[Whom, _Side], rule: Rule) -> list[Change]:
    found: list[Change] = []
    everyone: tuple[Field, ...] = ()
    for whom in dict.fromkeys([*new, *old]):
        one, other = _for(old, whom), _for(new, whom)
        fields = _fields(one.values, other.values)
        cold = one.state != other.state
        if whom:
            fields = tuple(field for field in fields if field not in everyone) + _kept(everyone, one, other)
        else:
            everyone = fields
        if fields:
            shown = _words(whom) if whom else _of_rule(rule)
            released = any(field.path == "mode" and field.new != field.old == "enforce" for field in fields)
            found.append(Change("breaker", "changed", rule.rule, rule.scope.value, shown, fields, cold, released))
    return found


def _kept(everyone: tuple[Field, ...], one: _Side, other: _Side) -> tuple[Field, ...]:
    """The mode of targets that keep theirs while that of everyone changes: their holds stay."""
    mode = one.values["mode",]
    if mode != other.values["mode",] or not any(field.path == "mode" for field in everyone):
        return ()
    return (Field("mode", mode, mode),)


def _for(sides: dict[Whom, _Side], whom: Whom) -> _Side:
    """What a file says for the targets that fit some patterns: of the overrides known to fit, all."""
    return sides[max((each for each in sides if each <= whom), key=len)]


def _fields(old: Values, new: Values) -> tuple[Field, ...]:
    return tuple(
        Field(dotted(path), old.get(path), new.get(path))
        for path in dict.fromkeys([*old, *new])
        if old.get(path) != new.get(path)
    )


def _words(whom: Whom) -> str:
    shown = []
    for patterns in sorted(whom):
        parts = zip(("tenant", "actor", "tool"), patterns, strict=True)
        shown.append(" ".join(f"{name} {pattern}" for name, pattern in parts if pattern != "*") or "everyone")
    return " and ".join(shown) or "everyone"


def _objectives(old: Compiled, new: Compiled) -> list[Change]:
    found: list[Change] = []
    for name, objective in new.file.objectives.items():
        if name not in old.file.objectives:
            found.append(Change("objective", "added", name, objective.per, "everyone", (), None))
            continue
        before, after = _objective_sides(old, name), _objective_sides(new, name)
        everyone: tuple[Field, ...] = ()
        for whom in dict.fromkeys([*after, *before]):
            one, other = _for(before, whom), _for(after, whom)
            fields = _fields(one.values, other.values)
            if whom:
                fields = tuple(field for field in fields if field not in everyone)
            else:
                everyone = fields
            if fields:
                cold = one.state != other.state if one.state else None
                found.append(Change("objective", "changed", name, objective.per, _words(whom), fields, cold))
    gone = (each for each in old.file.objectives.items() if each[0] not in new.file.objectives)
    return found + [Change("objective", "removed", name, each.per, "everyone", (), None) for name, each in gone]


def _objective_sides(compiled: Compiled, name: str) -> dict[Whom, _Side]:
    """An objective as it is for everyone, and where overrides fit."""
    raw = written(compiled.document, "objectives", name)
    rule = next((each for each in compiled.rules.objectives if each.rule == name), None)
    models = {frozenset[tuple[str, str, str]](): compiled.file.objectives[name]}
    for layers in combinations(layers_of(compiled.file, compiled.document, name)) or ():
        model = Objective.model_validate(frozen(merged(raw, layers)))
        models[frozenset(names(layer.match) for layer in layers)] = model
    return {
        whom: _Side(objective_values(model), "" if rule is None else state_id(rule, compile_objectives.test_of(model)))
        for whom, model in models.items()
    }
