"""One violation of a call, and critical ones at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.failure import FailureState, count_failure
from fuseboard_detectors.seen import Seen
from fuseboard_detectors.violations import noisy_classifier, violations
from fuseboard_schemas.errors import ConfigurationError


def decide(state: Seen, *denials: tuple[int, bool]) -> list[tuple[bool, bool]]:
    span = np.array([span for span, _ in denials], dtype=np.uint64)
    found = violations(state, span, np.array([critical for _, critical in denials], dtype=np.bool_))
    return list(zip(found.counted.tolist(), found.critical.tolist(), strict=True))


def test_a_call_is_one_violation_whoever_denies_it() -> None:
    assert decide(Seen.fresh(8), (1, False), (1, False), (2, False)) == [(True, False), (False, False), (True, False)]


def test_a_critical_denial_acts_at_its_first_hit() -> None:
    assert decide(Seen.fresh(8), (1, True), (1, True)) == [(True, True), (False, False)]


def test_a_milder_rule_before_it_does_not_hide_a_critical_one() -> None:
    assert decide(Seen.fresh(8), (1, False), (1, True), (1, False)) == [(True, False), (False, True), (False, False)]


@given(denials=st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=100), cut=st.integers(0, 100))
def test_it_is_what_sets_say(denials: list[tuple[int, bool]], cut: int) -> None:
    state = Seen.fresh(4_096)
    calls, critical = set[int](), set[int]()
    expected = []
    for span, bad in denials:
        expected.append((span not in calls, bad and span not in critical))
        calls.add(span)
        critical |= {span} if bad else set()
    assert decide(state, *denials[:cut]) + decide(state, *denials[cut:]) == expected


def test_a_noisy_classifier_is_tested_against_twice_its_false_rate() -> None:
    params = noisy_classifier(0.01)
    assert (params.known_null, params.cap) == (0.02, 1)
    state = FailureState.fresh(1, params)
    hits = 0
    while not count_failure(state, np.zeros(1, dtype=np.int64), params).tripped[0]:
        hits += 1
    assert hits == 4, "five traces in a row"


@pytest.mark.parametrize("rate", [0.0, 0.00001, 0.051, 1.0])
def test_a_classifier_must_be_worth_acting_on(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="false rate"):
        noisy_classifier(rate)
