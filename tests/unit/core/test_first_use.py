"""First uses of tools against one call at a time, whatever the cuts."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from fuseboard_schemas.records import Scope
from fuseboard_streams.core.first_use import FirstUses, Uses
from fuseboard_streams.core.layout import tools_table
from fuseboard_streams.core.ruleset import FirstUseTest, Match
from fuseboard_streams.core.settings import SECOND, CoreSettings
from tests.unit.core.rules_support import actors, book_of, opened, rule

ACTORS, TOOLS = 4, 12
AFTER, AFTER_OF_AGENT_1 = 30, 8
RULES = (
    rule(
        "new-tool",
        "tools.first_use",
        Scope.ACTOR_TOOL,
        FirstUseTest(AFTER),
        (Match(actor="agent-1"), FirstUseTest(AFTER_OF_AGENT_1)),
    ),
)
Call = tuple[int, int, int]
"""Actor, tool, seconds."""


def subject() -> FirstUses:
    book = book_of(*RULES)
    tools = opened(tools_table(CoreSettings(), book.tools))
    keys = np.arange(1, ACTORS * TOOLS + 1, dtype=np.uint64)
    rows = tools.add(keys, keys)
    tools.touch("key", rows)
    tools["actor"][rows], tools["tool"][rows] = np.divmod(np.arange(ACTORS * TOOLS), TOOLS)
    return FirstUses(tools, actors(book, ACTORS), book)


def calls(seed: int, n: int = 400) -> list[Call]:
    """Calls of tools of which each next one is called half as often."""
    rng = random.Random(seed)
    return [(rng.randrange(ACTORS), min(int(-np.log2(1 - rng.random())), TOOLS - 1), i) for i in range(n)]


def fold(uses: FirstUses, part: list[Call]) -> list[tuple[int, str, str]]:
    actor, tool, at = (np.array(each, dtype=np.int64) for each in zip(*part, strict=True))
    found = uses.fold(Uses(np.arange(len(part)), actor, actor * TOOLS + tool, at * SECOND), lambda i: f"tool-{i}")
    assert all(part[f.position][2] * SECOND == f.time_us and f.decided == f.position for f in found)
    return [(f.time_us // SECOND, f.target.actor or "", f.target.tool or "") for f in found]


def model(made: list[Call]) -> list[tuple[int, str, str]]:
    found = []
    known: dict[int, set[int]] = {actor: set() for actor in range(ACTORS)}
    count = dict.fromkeys(range(ACTORS), 0)
    for actor, tool, at in made:
        if tool not in known[actor] and count[actor] >= (AFTER_OF_AGENT_1 if actor == 1 else AFTER):
            found.append((at, f"agent-{actor}", f"tool-{tool}"))
        known[actor].add(tool)
        count[actor] += 1
    return found


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_is_what_a_plain_model_finds_whatever_the_cuts(seed: int) -> None:
    made = calls(seed)
    expected = sorted(model(made))
    assert len(expected) > 2
    rng = random.Random(seed)
    for pieces in (0, 20, len(made) - 1):
        cuts = [0, *sorted(rng.sample(range(1, len(made)), pieces)), len(made)]
        uses = subject()
        assert sorted(each for a, b in pairwise(cuts) for each in fold(uses, made[a:b])) == expected


def test_an_actor_with_many_calls_of_tools_it_knows_changes_nothing() -> None:
    uses = subject()
    fold(uses, [(0, i % 2, i) for i in range(AFTER)])
    for table in (uses._tools, uses._actors):
        table.commit()
        table.begin()
    assert fold(uses, [(0, i % 2, i) for i in range(AFTER, 2 * AFTER)]) == []
    assert len(uses._actors.changed("experience")) == len(uses._tools.changed("used")) == 0
    assert fold(uses, [(0, 5, 100)]) == [(100, "agent-0", "tool-5")]
