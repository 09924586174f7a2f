"""Distinct traces among the last actions, against a list of all actions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.recent import SLOTS, RecentHits, distinct, hit

LAST, AGE = 10, 50


@given(
    actions=st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 20)), max_size=80),
)
def test_it_counts_the_traces_that_were_hit_lately(actions: list[tuple[int, bool, int]]) -> None:
    state, now = RecentHits.fresh(1), 0
    hits: list[tuple[int, int, int]] = []
    for number, (trace, bad, passed) in enumerate(actions, start=1):
        now += passed
        if bad:
            hits.append((trace, number, now))
            hit(state, np.array([trace], dtype=np.uint64), np.array([number]), np.array([now]))
        found = distinct(state, np.array([number]), np.array([now]), actions=LAST, max_age_us=AGE)[0]
        newest = {t: (n, at) for t, n, at in hits}
        lately = sum(n > number - LAST and at >= now - AGE for n, at in newest.values())
        assert found == min(lately, SLOTS)


def test_keys_do_not_touch_each_other() -> None:
    state = RecentHits.fresh(3)
    for number in (1, 2):
        hit(state, np.array([7, 7, number], dtype=np.uint64), np.full(3, number), np.full(3, number))
    found = distinct(state, np.full(3, 2), np.full(3, 2), actions=100, max_age_us=10)
    assert found.tolist() == [1, 1, 2]
