"""Rules and actors for tests of what the rules find."""

from __future__ import annotations

import numpy as np

from fuseboard_schemas.records import Action, Scope
from fuseboard_streams.core.layout import actors_table
from fuseboard_streams.core.rulebook import Rulebook
from fuseboard_streams.core.ruleset import Match, Response, Rule, RuleSet, Rung, Test, Variant
from fuseboard_streams.core.settings import CoreSettings
from fuseboard_streams.core.tables import Table


def rule(name: str, metric: str, scope: Scope, test: Test, *changed: tuple[Match, Test]) -> Rule:
    """A rule that halts, with other tests for some targets."""
    response = Response(name, (Rung(Action.HALT),))
    variants = tuple(((match,), Variant(other, response)) for match, other in changed)
    return Rule(name, metric, scope, Match(), Variant(test, response), variants)


def book_of(*rules: Rule) -> Rulebook:
    """Nothing but these rules."""
    return Rulebook(CoreSettings(), RuleSet("test", rules))


def opened(table: Table) -> Table:
    """A table in a transaction."""
    table.begin()
    return table


def actors(book: Rulebook, count: int) -> Table:
    """``agent-0`` and so on, in the rows 0 and so on."""
    table = opened(actors_table(CoreSettings(), book.actors))
    keys = np.arange(1, count + 1, dtype=np.uint64)
    rows = table.add(keys, keys)
    table.touch("key", rows)
    table["tenant"][rows] = "default"
    table["actor"][rows] = [f"agent-{i}" for i in range(count)]
    return table
