"""Which rules apply to a target, and as which variant: names against patterns, each name once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeVar

from fuseboard_schemas.keys import parse_breaker_id
from fuseboard_schemas.records import Action, Mode, Scope
from fuseboard_streams.core.prepare import (
    FOR_COVERAGE,
    FOR_FIRST_USES,
    FOR_SESSIONS,
    FOR_SHARES_OF_VIOLATIONS,
    FOR_TASKS,
    FOR_VIOLATIONS,
)
from fuseboard_streams.core.ruleset import (
    COST,
    TRACED,
    VIOLATING,
    Breadth,
    DistinctTest,
    FailureTest,
    FirstUseTest,
    Match,
    RecoveryPlan,
    Response,
    Rule,
    RuleSet,
    Rung,
    RunsTest,
    Test,
    Variant,
)
from fuseboard_streams.core.variants import state_id, variant_number

if TYPE_CHECKING:
    from fuseboard_detectors.failure import FailureParams
    from fuseboard_schemas.keys import Target
    from fuseboard_streams.core.settings import CoreSettings

_T = TypeVar("_T", bound=Test)
_REMEMBERED: Final = 1_000_000
"""Names whose variant is remembered; beyond it all are asked anew."""
NONE: Final = -1
"""Stands for the variant of a target that a rule is not for."""
_FOR_OBJECTIVES: Final = {
    TRACED: FOR_COVERAGE, VIOLATING: FOR_SHARES_OF_VIOLATIONS, COST: FOR_TASKS,
}  # fmt: skip


_PLAIN: Final = Breadth(3, (1, 5), 3)
"""What holds for a rule that says nothing about breadth."""


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

    @cached_property
    def bases(self) -> tuple[int, ...]:
        """64 bits that name the state of the targets of each variant, never 0: with another name it starts cold."""
        return tuple(int(state_id(self.rule, variant.test), 16) | 1 for variant in self.variants)

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

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._priors = len(settings.priors) + 1
        self.adopt(None)

    def adopt(self, view: RuleView | None) -> None:
        """Run on another rule from now on; None: on none."""
        self.view = view
        self.name = None if view is None else view.rule.rule
        self.general = view is not None and view.plain and not self._settings.priors
        """Whether every key has number 0."""
        self.partial = view is None or not view.rule.match.everything
        """Whether there are keys without the rule."""
        self._params: dict[int, FailureParams] = {}
        self._bases: dict[int, int] = {}

    @property
    def breadth(self) -> Breadth:
        """For how many actors a tool must fail, where the rule is about tools."""
        breadth = None if self.view is None else self.view.rule.breadth
        return breadth or _PLAIN

    def basis(self, number: int) -> int:
        """Names what the state of a key with this number was made under: with another one it begins anew."""
        if self.view is None or number == NONE:
            return 0
        found = self._bases.get(number)
        if found is None:
            test = self.view.variants[number // self._priors].test
            found = self._bases[number] = int(state_id(self.view.rule, test)[:7], 16)
        return found

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
        self._settings = settings
        self.tools = FailureLevel(settings)
        self.actors = FailureLevel(settings)
        self.pooled = FailureLevel(settings)
        self.adopt(rules if rules is not None else built_in(settings))

    def adopt(self, rules: RuleSet) -> None:
        """Put other rules in force."""
        self.rules = rules
        self.version = rules.version
        self.stamp = int.from_bytes(blake2b(rules.version.encode(), digest_size=4).digest(), "little") >> 1
        """A number for the version, kept beside what was made under it."""
        self._views = tuple(RuleView(rule, order) for order, rule in enumerate(rules.rules))
        self._objectives = tuple(RuleView(rule, len(self._views) + i) for i, rule in enumerate(rules.objectives))
        self.tools.adopt(self._failure(Scope.ACTOR_TOOL))
        self.actors.adopt(self._failure(Scope.ACTOR))
        self.pooled.adopt(self._failure(Scope.TOOL))

    def asking(self, kind: type[Test], scope: Scope | None = None) -> tuple[RuleView, ...]:
        """The rules with a kind of test, in order."""
        return tuple(
            view
            for view in self._views
            if isinstance(view.rule.base.test, kind) and (scope is None or view.rule.scope is scope)
        )

    def measuring(self, metric: str, *scopes: Scope) -> tuple[RuleView, ...]:
        """The objectives about a metric, in order; with scopes, those per one of them."""
        return tuple(
            view
            for view in self._objectives
            if view.rule.metric == metric and (not scopes or view.rule.scope in scopes)
        )

    def rule_for(self, rule: str, target: Target) -> tuple[RuleView, int] | None:
        """A rule by its name, and which of its variants a target has; None if it is not for it."""
        for view in self._views:
            if view.rule.rule == rule and view.rule.scope is target.scope:
                number = view.number(target.tenant, target.actor or "", target.tool or "")
                return None if number == NONE else (view, number)
        return None

    def gone(self, identity: str, rule: str, mode: Mode) -> bool:
        """Whether a rule can have no hold on a breaker: it is not for its target, or not in that mode.

        Args:
            identity: The breaker's id.
            rule: The rule's name.
            mode: ENFORCE for holds, any other for virtual ones.
        """
        found = self.rule_for(rule, parse_breaker_id(identity))
        if found is None:
            return True
        view, number = found
        return (view.variants[number].response.mode is Mode.ENFORCE) != (mode is Mode.ENFORCE)

    def _failure(self, scope: Scope) -> RuleView | None:
        found = [view for view in self.asking(FailureTest, scope) if view.rule.metric == "calls.failed"]
        return found[0] if found else None


def needs_of(rules: RuleSet) -> frozenset[str]:
    """The columns of tool calls that rules ask for beyond those that are always read."""
    found: frozenset[str] = frozenset()
    for rule in rules.rules:
        denials = isinstance(rule.base.test, FailureTest) and rule.metric == "actions.violating"
        if isinstance(rule.base.test, DistinctTest) or denials:
            found |= FOR_VIOLATIONS
        elif isinstance(rule.base.test, RunsTest):
            found |= FOR_SESSIONS
        elif isinstance(rule.base.test, FirstUseTest):
            found |= FOR_FIRST_USES
    return found.union(*(_FOR_OBJECTIVES.get(each.metric, frozenset()) for each in rules.objectives))


def unfollowed(rules: RuleSet) -> list[str]:
    """What rules ask for that no shard does yet, each as ``rule on SCOPE``: nobody may count on it."""
    return [
        f"{rule.rule} on {rule.scope}"
        for rule in rules.rules
        if isinstance(rule.base.test, FailureTest) and rule.scope is Scope.TOOL and rule.metric != "calls.failed"
    ]


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
    )
