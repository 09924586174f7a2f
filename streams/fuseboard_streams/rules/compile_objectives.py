"""From the objectives of a rules file to what the core measures."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING, Final

from fuseboard_schemas.records import Mode, Scope
from fuseboard_streams.core import ruleset
from fuseboard_streams.rules import model
from fuseboard_streams.rules.catalogue import OBJECTIVE_METRICS
from fuseboard_streams.rules.load import frozen
from fuseboard_streams.rules.overrides import combinations, layers_of, merged, reaches, written
from fuseboard_streams.rules.quantities import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_streams.rules.document import Document
    from fuseboard_streams.rules.overrides import Layer

GRACE_US: Final = 600_000_000
"""How long a session has to show itself, where the file does not say."""
_ABOVE: Final = {"p50": Fraction(1, 2), "p95": Fraction(1, 20)}
"""Which share of the tasks may lie above a percentile's limit."""


def compiled_objectives(file: model.RulesFile, document: Document, version: str) -> tuple[ruleset.Rule, ...]:
    """The objectives that the stream can measure, in the order of the file: evaluations are tested run by run.

    Args:
        file: A file that has been checked.
        document: The same, as it is written.
        version: Of its text.
    """
    return tuple(
        _objective(file, document, name, objective, version)
        for name, objective in file.objectives.items()
        if OBJECTIVE_METRICS[objective.metric].windowed
    )


def _objective(
    file: model.RulesFile, document: Document, name: str, objective: model.Objective, version: str
) -> ruleset.Rule:
    # Nothing follows but what is said: there is no rung, and the signal says how urgent it is.
    response = ruleset.Response(
        name, (), Mode.WARN, runbook=file.defaults.runbook.replace("{id}", name), rules_version=version
    )
    raw, per = written(document, "objectives", name), objective.per
    layers = [each for each in layers_of(file, document, name) if reaches(each.names, per)]
    sets: Sequence[tuple[Layer, ...]] = combinations(layers) or ()
    changed = tuple(
        (
            tuple(ruleset.Match(*layer.names) for layer in members),
            ruleset.Variant(test_of(model.Objective.model_validate(frozen(merged(raw, members)))), response),
        )
        for members in sets
    )
    base = ruleset.Variant(test_of(objective), response)
    return ruleset.Rule(name, objective.metric, Scope(per), ruleset.Match(), base, changed)


def test_of(objective: model.Objective) -> ruleset.ObjectiveTest:
    """The compiled form of an objective with a window that has been checked."""
    assert objective.window is not None, "an objective that has been checked has a window"
    assert objective.min is not None, "and a minimum"
    target = objective.target
    limits: tuple[int, ...] = ()
    if isinstance(target, Target):
        # What is counted are the bad ones: of a success rate above 99.5%, a share of failures below 0.5%.
        shares: tuple[Fraction, ...] = (1 - target.value if target.upwards else target.value,)
    else:
        shares = tuple(_ABOVE[name] for name in target)
        limits = tuple(_least(each) for each in target.values())
    grace = 0 if objective.metric != ruleset.TRACED else GRACE_US if objective.grace is None else objective.grace
    return ruleset.ObjectiveTest(
        shares=tuple((share.numerator, share.denominator) for share in shares),
        window_us=objective.window,
        minimum=objective.min,
        least=limits,
        grace_us=grace,
        error=float(1 - objective.confidence),
    )


def _least(target: Target) -> int:
    """The fewest micro-dollars at which a task counts against a limit that costs stay below, or do not exceed."""
    micros = target.value * 1_000_000
    return ceil(micros) if target.relation == "<" else floor(micros) + 1
