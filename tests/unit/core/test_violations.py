"""Violations in distinct traces against a plain list of them, whatever the cuts."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from fuseboard_schemas.records import Scope, Severity
from fuseboard_streams.core.ruleset import DistinctTest, Match
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.core.violations import SEVERITIES, Hits, Violations, faded, mask_of, violators_table
from tests.unit.core.rules_support import actors, book_of, opened, rule

HOUR = 3_600 * SECOND
T0 = 1_767_225_600 * SECOND
LOW, HIGH, CRITICAL = (SEVERITIES.index(each) for each in (Severity.TICKET, Severity.PAGE, Severity.CRITICAL))
TESTS = {
    "critical": DistinctTest(1, 1, HOUR, frozenset({Severity.CRITICAL})),
    "high": DistinctTest(2, 40, HOUR, frozenset({Severity.PAGE, Severity.CRITICAL})),
    "any": DistinctTest(3, 25, 2 * HOUR),
}
FOR_AGENT_1 = DistinctTest(2, 25, 2 * HOUR)
RULES = tuple(
    rule(name, "policy.denied", Scope.ACTOR, test, *([(Match(actor="agent-1"), FOR_AGENT_1)] if name == "any" else []))
    for name, test in TESTS.items()
)


@dataclass(frozen=True)
class Event:
    """A call of an actor, denied or not; or a decision that denies its next one."""

    actor: int
    trace: int
    severity: int | None
    time: int
    is_call: bool


def events(seed: int, n: int = 1_200) -> list[Event]:
    """Calls and denials of three actors, in bursts of few traces."""
    rng = random.Random(seed)
    now, made = T0, []
    for _ in range(n):
        now += int(rng.choice((0.1, 1, 30, 900)) * rng.random() * SECOND)
        denied = rng.random() < 0.12
        severity = rng.choice((LOW, LOW, HIGH, HIGH, CRITICAL)) if denied else None
        made.append(Event(rng.randrange(3), rng.randrange(1, 9), severity, now, not denied or rng.random() < 0.5))
    return made


def subject() -> Violations:
    book = book_of(*RULES)
    return Violations(
        opened(violators_table(CoreSettings())), actors(book, 3), book, CoreSettings(), lambda rows, change: None
    )


def fold(violations: Violations, part: list[Event]) -> list[tuple[str, int, int]]:
    """A stretch of events of one kind."""
    calls = [event for event in part if event.is_call]
    hits = [(i, event) for i, event in enumerate(part) if event.severity is not None]
    columns = Hits(
        np.array([i for i, _ in hits], dtype=np.intp),
        np.array([event.actor for _, event in hits], dtype=np.int64),
        np.array([event.trace for _, event in hits], dtype=np.uint64),
        np.array([event.severity for _, event in hits], dtype=np.uint8),
        np.array([event.time for _, event in hits], dtype=np.int64),
        np.array([event.time for _, event in hits], dtype=np.int64),
    )
    found = violations.fold(columns, np.array([event.actor for event in calls], dtype=np.int64))
    return [(f.view.rule.rule, int((f.target.actor or "")[-1]), f.time_us) for f in found]


def model(made: list[Event]) -> list[tuple[str, int, int]]:
    found = []
    actions = dict.fromkeys(range(3), 0)
    # Counting begins with an actor's first hit of a kind; only differences matter.
    hits: list[tuple[int, int, int, int, int]] = []
    for event in made:
        number = actions[event.actor] + 1
        if event.severity is not None:
            hits.append((event.actor, event.trace, event.severity, number, event.time))
            for name, test in TESTS.items():
                test = FOR_AGENT_1 if name == "any" and event.actor == 1 else test
                counts = test.severities or frozenset(Severity)
                if SEVERITIES[event.severity] not in counts:
                    continue
                traces = {
                    trace
                    for actor, trace, severity, at, time in hits
                    if actor == event.actor and SEVERITIES[severity] in counts
                    and at > number - test.of_last and time >= event.time - test.within_us
                }  # fmt: skip
                if len(traces) >= test.traces:
                    found.append((name, event.actor, event.time))
        actions[event.actor] += event.is_call
    return found


@pytest.mark.parametrize("seed", range(5))
def test_what_is_found_is_what_a_plain_model_finds_whatever_the_cuts(seed: int) -> None:
    made = events(seed)
    expected = sorted(model(made))
    assert {name for name, _, _ in expected} == set(TESTS)
    rng = random.Random(seed)
    for chance in (0.0, 0.05, 1.0):
        violations, found = subject(), []
        part: list[Event] = []
        for event in made:
            # Calls and decisions come in runs of their own.
            if part and (part[-1].is_call != event.is_call or rng.random() < chance):
                found += fold(violations, part)
                part = []
            part.append(event)
        found += fold(violations, part)
        assert sorted(found) == expected


def test_actions_are_counted_only_for_those_who_were_denied_something() -> None:
    violations = subject()
    quiet = [Event(i % 3, 1, None, 0, is_call=True) for i in range(30)]
    assert fold(violations, quiet) == []
    assert violations._table.size == 0


def test_no_severities_stand_for_all() -> None:
    assert mask_of(frozenset()) == mask_of(frozenset(Severity)) == 0b1111
    assert mask_of(frozenset({Severity.CRITICAL})) == 1 << CRITICAL


def denied(violations: Violations, trace: int, time: int, actor: int = 0) -> list[tuple[str, int, int]]:
    return fold(violations, [Event(actor, trace, LOW, time, is_call=True)])


def of(*tests: tuple[str, DistinctTest], limit: int = 100) -> Violations:
    book = book_of(*(rule(name, "policy.denied", Scope.ACTOR, test) for name, test in tests))
    table = opened(violators_table(CoreSettings(max_actors=limit)))
    return Violations(table, actors(book, 3), book, CoreSettings(), lambda rows, change: None)


def test_actors_beyond_the_limit_are_not_followed_and_are_counted_whatever_the_cuts() -> None:
    part = [Event(actor, 1 + actor, LOW, 5, is_call=True) for actor in (2, 0, 1)]
    for whole in (True, False):
        violations = of(("one", DistinctTest(1, 5, HOUR)), ("other", DistinctTest(2, 9, HOUR)), limit=3)
        parts = [part] if whole else [[event] for event in part]
        found = [each for some in parts for each in fold(violations, some)]
        assert found == [("one", 2, 5), ("one", 0, 5)]
        assert violations.untracked == 3


def test_a_row_that_a_checkpoint_frees_would_have_begun_anew() -> None:
    """How old a hit may be is the rule's own, however long others are remembered."""
    month = 30 * 24 * HOUR
    for gap, expected in ((month - 1, 1), (month + HOUR, 0)):
        violations = of(("long", DistinctTest(2, 100, month)))
        assert denied(violations, 1, T0) == []
        assert len(denied(violations, 2, T0 + gap)) == expected
    table = violations._table
    now = T0 + month + HOUR
    keep = month + CoreSettings().forget_after_us
    assert not faded(table, np.array([0]), now + keep)[0]
    assert faded(table, np.array([0]), now + keep + 1)[0]
    # An event that lags far behind stream time finds what it would have found in time, or nothing.
    late = Event(0, 3, LOW, now + 5, is_call=True)
    for lag, found in ((keep, 1), (keep + 1, 0)):
        violations = of(("long", DistinctTest(2, 100, month)))
        denied(violations, 1, now)
        hits = Hits(
            np.array([0]), np.array([0]), np.array([3], np.uint64), np.array([LOW], np.uint8), np.array([late.time]),
            np.array([now + lag]),
        )  # fmt: skip
        assert len(violations.fold(hits, np.array([0]))) == found


def test_a_person_s_reset_forgets_the_hits_for_that_rule_alone() -> None:
    violations = of(("one", DistinctTest(2, 9, HOUR)), ("other", DistinctTest(2, 8, HOUR)))
    denied(violations, 1, T0)
    violations.forget("one", 0)
    violations.forget("one", 1)
    assert denied(violations, 2, T0 + 1) == [("other", 0, T0 + 1)]
    assert sorted(denied(violations, 3, T0 + 2)) == [("one", 0, T0 + 2), ("other", 0, T0 + 2)]
