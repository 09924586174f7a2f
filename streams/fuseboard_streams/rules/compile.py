"""From a rules file to what the core runs on, with everything filled in that the file leaves out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuseboard_detectors import guard
from fuseboard_detectors.burn import BurnPair
from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.records import Action, Mode, Recovery, Scope, Severity
from fuseboard_streams.core import ruleset
from fuseboard_streams.rules import model
from fuseboard_streams.rules.check import check
from fuseboard_streams.rules.compile_objectives import compiled_objectives
from fuseboard_streams.rules.document import RulesError
from fuseboard_streams.rules.load import frozen, load
from fuseboard_streams.rules.overrides import combinations, layers_of, meet, merged, names, reaches, written
from fuseboard_streams.rules.params import exceed_params, failure_params
from fuseboard_streams.rules.values import usual_recovery

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from fuseboard_streams.rules.document import Document, Problem
    from fuseboard_streams.rules.overrides import Layer

PACKAGED: Final = Path(__file__).with_name("fuseboard.yaml")
"""The rules that hold where nobody gives others."""
_GUARD_PARTS: Final = guard.CELLS - 1


@dataclass(frozen=True, slots=True)
class Compiled:
    """A rules file in every form."""

    rules: ruleset.RuleSet
    """What the core runs on: the breakers, and the objectives that the stream can measure."""
    file: model.RulesFile
    """What the file says, objectives included."""
    document: Document
    """Where it says it."""
    base: FailureParams
    """The detector's settings that no file names."""
    warnings: tuple[Problem, ...] = ()


def version_of(data: bytes) -> str:
    """The version of a rules file: the first 16 hex digits of the SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def compile_rules(data: bytes, source: str, base: FailureParams | None = None) -> Compiled:
    """Read, check and compile a rules file.

    Args:
        data: Its bytes.
        source: Its name, for messages.
        base: The detector's settings that no file names: prior, learning, odds; None for the defaults.

    Raises:
        RulesError: It is no YAML, not of the form that is expected, or its parts do not go together; every problem is
            named.
    """
    base = FailureParams() if base is None else base
    file, document = load(data, source)
    problems = check(file, document, base)
    if errors := [problem for problem in problems if not problem.warning]:
        raise RulesError(errors)
    rules = _Compiler(file, document, version_of(data), base).rules()
    return Compiled(rules, file, document, base, tuple(problems))


class _Compiler:
    def __init__(self, file: model.RulesFile, document: Document, version: str, base: FailureParams) -> None:
        self._file = file
        self._document = document
        self._version = version
        self._base = base

    def rules(self) -> ruleset.RuleSet:
        made = tuple(
            self._rule(name, rule, scope) for name, rule in self._file.breakers.items() for scope in rule.scope
        )
        return ruleset.RuleSet(
            version=self._version,
            rules=made,
            blast_radius=self._radius(),
            objectives=compiled_objectives(self._file, self._document, self._version),
        )

    def _radius(self) -> ruleset.BlastRadius | None:
        radius = self._file.blast_radius
        if radius.tenant_actors == 1:
            # Nobody has to be asked about what is always granted.
            return None
        return ruleset.BlastRadius(
            share=_ratio(radius.tenant_actors),
            at_least=radius.at_least,
            # Grants are counted in sixty parts of a window.
            window_us=radius.window // _GUARD_PARTS * _GUARD_PARTS,
            exempt=frozenset(radius.exempt),
        )

    def _rule(self, name: str, rule: model.BreakerRule, scope: str) -> ruleset.Rule:
        breadth = rule.breadth if scope == "TOOL" else None
        return ruleset.Rule(
            rule=name,
            metric=rule.metric,
            scope=Scope(scope),
            match=_match(rule.match),
            base=self._variant(name, rule, scope),
            changed=tuple(
                (tuple(_match(layer.match) for layer in members), self._variant(name, changed, scope))
                for members, changed in overridden(self._file, self._document, name, scope)
            ),
            breadth=None if breadth is None else _breadth(breadth),
        )

    def _variant(self, name: str, rule: model.BreakerRule, scope: str) -> ruleset.Variant:
        defaults = self._file.defaults
        severity = Severity((rule.severity or defaults.severity).upper())
        response = ruleset.Response(
            rule=name,
            ladder=_ladder(rule, severity),
            mode=Mode((rule.mode or defaults.mode).upper()),
            recovery=_recovery(rule, scope, severity),
            runbook=(rule.runbook or defaults.runbook).replace("{id}", name),
            rules_version=self._version,
        )
        return ruleset.Variant(test_of(rule.test, self._base), response)


def overridden(
    file: model.RulesFile, document: Document, name: str, scope: str
) -> list[tuple[tuple[Layer, ...], model.BreakerRule]]:
    """What overrides make of a breaker, for the targets of one scope.

    Args:
        file: A file that has been checked.
        document: The same, as it is written.
        name: The breaker's id.
        scope: One of its scopes.

    Returns:
        The overrides that can be all those that fit a target, and the rule as it is there; of those that fit a target
        the last one holds.
    """
    raw, match = written(document, "breakers", name), names(file.breakers[name].match)
    layers = [
        each for each in layers_of(file, document, name) if reaches(each.names, scope) and meet(each.names, match)
    ]
    sets: Sequence[tuple[Layer, ...]] = combinations(layers) or ()
    return [(each, model.BreakerRule.model_validate(frozen(merged(raw, each)))) for each in sets]


def _match(match: model.Match) -> ruleset.Match:
    return ruleset.Match(match.tenant, match.actor, match.tool)


def _ratio(share: Fraction) -> tuple[int, int]:
    return share.numerator, share.denominator


def _breadth(breadth: model.Breadth) -> ruleset.Breadth:
    return ruleset.Breadth(breadth.actors, _ratio(breadth.share), breadth.max_per_actor)


def _ladder(rule: model.BreakerRule, severity: Severity) -> tuple[ruleset.Rung, ...]:
    if rule.ladder is None:
        assert rule.action is not None, "a rule that has been checked has one of the two"
        return (ruleset.Rung(Action(rule.action), severity),)
    return tuple(
        ruleset.Rung(Action(rung.action), Severity(rung.severity.upper()) if rung.severity else severity, rung.after)
        for rung in rule.ladder
    )


def _recovery(rule: model.BreakerRule, scope: str, severity: Severity) -> ruleset.RecoveryPlan:
    given = rule.recovery
    if given is None:
        usual = usual_recovery(rule, scope, critical=severity is Severity.CRITICAL)
        return ruleset.RecoveryPlan(Recovery(usual.upper()))
    return ruleset.RecoveryPlan(
        by=Recovery(given.by.upper()),
        cooldown_us=given.cooldown,
        max_cooldown_us=given.max_cooldown,
        probes=given.probes,
        quiet_us=given.quiet,
    )


def test_of(test: model.Test, base: FailureParams) -> ruleset.Test:
    """The compiled form of a test that has been checked."""
    match test:
        case model.EDetector():
            return ruleset.FailureTest(failure_params(test, base))
        case model.Distinct():
            severities = frozenset(Severity(each.upper()) for each in test.severities)
            return ruleset.DistinctTest(test.traces, test.of_last, test.within, severities)
        case model.Burn():
            pairs = (BurnPair(_ratio(each.share), each.long_us, each.short_us) for each in test.windows)
            return ruleset.BurnTest(test.budget.usd, tuple(pairs))
        case model.Cap():
            return ruleset.CapTest(test.usd, daily=test.per == "day")
        case model.Exceed():
            return ruleset.ExceedTest(float(test.quantile), test.reference, exceed_params(test, base))
        case model.Runs():
            return ruleset.RunsTest(test.failures, test.identical, test.polling)
        case _:
            return _rare_test(test)


def _rare_test(
    test: model.FirstUse | model.Silence | model.Lost | model.Ungated | model.FromSignal,
) -> ruleset.Test:
    match test:
        case model.FirstUse():
            return ruleset.FirstUseTest(test.after)
        case model.Silence():
            return ruleset.SilenceTest(test.requests, test.lasting)
        case model.Lost():
            return ruleset.LostTest(_ratio(test.share), test.within, test.min)
        case model.Ungated():
            return ruleset.UngatedTest(test.after)
        case model.FromSignal():
            return ruleset.SignalTest(test.source, trip_only=test.level == "trip")
