"""Runs of failures and of identical calls, against one call at a time, however the calls are cut."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.loops import LoopState, fold

Event = tuple[int, bool, int, bool]
"""Trace, whether it failed, which call, whether its tool polls."""


def one_by_one(events: list[Event]) -> list[tuple[int, int]]:
    failures: dict[int, int] = {}
    last: dict[int, tuple[int, int]] = {}
    found = []
    for trace, failed, call, polling in events:
        failures[trace] = failures.get(trace, 0) + 1 if failed else 0
        previous, count = last.get(trace, (0, 0))
        if not polling:
            last[trace] = (call, count + 1 if call == previous else 1)
        found.append((failures[trace], last.get(trace, (0, 0))[1]))
    return found


def in_batches(events: list[Event], cuts: list[int]) -> list[tuple[int, int]]:
    states: dict[int, LoopState] = {}
    found: list[tuple[int, int]] = [(0, 0)] * len(events)
    bounds = sorted({0, len(events), *(min(cut, len(events)) for cut in cuts)})
    for begin, end in itertools.pairwise(bounds):
        order = sorted(range(begin, end), key=lambda i: events[i][0])
        traces = [events[i][0] for i in order]
        starts = [i for i, trace in enumerate(traces) if i == 0 or traces[i - 1] != trace]
        keys = [traces[i] for i in starts]
        parts = [states.get(key) or LoopState.fresh(1) for key in keys]
        state = LoopState(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("failures", "last", "identical")))
        counts = fold(
            state,
            np.array(starts),
            np.array([events[i][1] for i in order]),
            np.array([events[i][2] for i in order], dtype=np.uint64),
            np.array([events[i][3] for i in order]),
        )
        for at, i in enumerate(order):
            found[i] = int(counts.failures[at]), int(counts.identical[at])
        for at, key in enumerate(keys):
            states[key] = LoopState(*(getattr(state, f)[at : at + 1] for f in ("failures", "last", "identical")))
    return found


@given(
    events=st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(1, 2), st.booleans()), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
)
def test_runs_are_those_of_one_call_at_a_time(events: list[Event], cuts: list[int]) -> None:
    assert in_batches(events, cuts) == one_by_one(events)


def test_eight_failures_and_five_identical_calls() -> None:
    failing = [(0, True, i + 1, False) for i in range(8)]
    assert in_batches(failing, [3])[-1] == (8, 1)
    same = [(0, False, 7, False), (0, False, 9, True)] * 5
    assert in_batches(same, [4])[-1] == (0, 5), "polling in between neither counts nor breaks"
