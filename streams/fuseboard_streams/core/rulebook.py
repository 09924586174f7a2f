"""Which rules apply to a target, and as which variant: names against patterns, each name once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from fuseboard_schemas.records import Action, Scope
from fuseboard_streams.core.ruleset import (
    FailureTest,
    Match,
    RecoveryPlan,
    Response,
    Rule,
    RuleSet,
    Rung,
    Test,
    Variant,
)
from fuseboard_streams.core.variants import variant_number

if TYPE_CHECKING:
    from fuseboard_detectors.failure import FailureParams
    from fuseboard_streams.core.settings import CoreSettings

_T = TypeVar("_T", bound=Test)
_REMEMBERED: Final = 1_000_000
"""Names whose variant is remembered; beyond it all are asked anew."""
NONE: Final = -1
"""Stands for the variant of a target that a rule is not for."""


class RuleView:
    """One rule, and which of its variants is whose.

    Variant 0 is the rule as written, i the i-th of ``changed``.
    """

    def __init__(self, rule: Rule, order: int) -> None:
        self.rule = rule
        self.order = order
        """Its place among the rules."""
        self.variants = (rule.base, *(variant for _, variant in rule.changed))
        self.plain = rule.match.everything and not rule.changed
        """Whether every target has variant 0."""
        self._known: dict[tuple[str, str, str], int] = {}

    def number(self, tenant: str, actor: str = "", tool: str = "") -> int:
        """The variant of a target, `NONE` if the rule is not for it."""
        if self.plain:
            return 0
        key = (tenant, actor, tool)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._find(*key)
        return found

    def _find(self, tenant: str, actor: str, tool: str) -> int:
        found = variant_number(self.rule, tenant, actor, tool)
        return NONE if found is None else found

    def test(self, number: int, kind: type[_T]) -> _T:
        """The test of a variant, which is of this kind."""
        test = self.variants[number].test
        if not isinstance(test, kind):
            raise TypeError(f"rule {self.rule.rule} has a {type(test).__name__} where a {kind.__name__} was expected")
        return test


class FailureLevel:
    """The rule that the failure statistic of one scope runs on.

    A key's number says which variant of the rule it has and which prior; `NONE` stands for a key without the rule.
    """

    def __init__(self, view: RuleView | None, settings: CoreSettings) -> None:
        self.view = view
        self._settings = settings
        self.name = None if view is None else view.rule.rule
        self._priors = len(settings.priors) + 1
        self._params: dict[int, FailureParams] = {}
        self.general = view is not None and view.plain and not settings.priors
        """Whether every key has number 0."""
        self.partial = view is None or not view.rule.match.everything
        """Whether there are keys without the rule."""

    def number(self, tenant: str, actor: str, tool: str) -> int:
        """The number of a key's settings."""
        if self.view is None:
            return NONE
        variant = self.view.number(tenant, actor, tool)
        return NONE if variant == NONE else variant * self._priors + self._settings.prior_for(tenant, tool)

    def params(self, number: int) -> FailureParams:
        """The detector's settings of a number; those of a key without the rule are never used to decide."""
        if self.view is None or number == NONE:
            return self._settings.failure
        found = self._params.get(number)
        if found is None:
            variant, prior = divmod(number, self._priors)
            found = self.view.test(variant, FailureTest).params
            if prior:
                chosen = self._settings.priors[prior - 1]
                found = replace(found, prior_alpha=chosen.alpha, prior_beta=chosen.beta)
            self._params[number] = found
        return found

    def response(self, number: int) -> Response:
        """What follows a trip of a key with this number."""
        if self.view is None:
            raise LookupError("no rule is about this statistic")
        return self.view.variants[number // self._priors].response


class Rulebook:
    """All rules in force, by what they ask."""

    def __init__(self, settings: CoreSettings, rules: RuleSet | None = None) -> None:
        self.rules = rules if rules is not None else built_in(settings)
        self.version = self.rules.version
        self._views = tuple(RuleView(rule, order) for order, rule in enumerate(self.rules.rules))
        self.tools = FailureLevel(self._failure(Scope.ACTOR_TOOL), settings)
        self.actors = FailureLevel(self._failure(Scope.ACTOR), settings)
        self.pooled = FailureLevel(self._failure(Scope.TOOL), settings)

    def asking(self, kind: type[Test], scope: Scope | None = None) -> tuple[RuleView, ...]:
        """The rules with a kind of test, in order."""
        return tuple(
            view
            for view in self._views
            if isinstance(view.rule.base.test, kind) and (scope is None or view.rule.scope is scope)
        )

    def _failure(self, scope: Scope) -> RuleView | None:
        found = [view for view in self.asking(FailureTest, scope) if view.rule.metric == "calls.failed"]
        return found[0] if found else None


def built_in(settings: CoreSettings) -> RuleSet:
    """The rules of a core that is given no file: failing tools are switched off, failing actors may only read."""
    recovery = RecoveryPlan(
        cooldown_us=settings.breaker.base_cooldown_us,
        max_cooldown_us=settings.breaker.max_cooldown_us,
        probes=settings.breaker.probes,
    )

    def rule(scope: Scope, action: Action) -> Rule:
        response = Response(
            settings.rule, (Rung(action),), recovery=recovery, runbook=settings.runbook,
            rules_version=settings.rules_version,
        )  # fmt: skip
        return Rule(settings.rule, "calls.failed", scope, Match(), Variant(FailureTest(settings.failure), response))

    return RuleSet(
        settings.rules_version,
        (rule(Scope.ACTOR_TOOL, Action.DISABLE_TOOL), rule(Scope.ACTOR, Action.READ_ONLY)),
        blast_radius=None,
    )
