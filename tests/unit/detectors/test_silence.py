"""Silence against a list of requests and events."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.silence import Unanswered, fold, silent

SECOND = 1_000_000
LASTING = 300 * SECOND
START = np.zeros(1, dtype=np.intp)


def given_things(*things: tuple[int, str]) -> Unanswered:
    """One actor; ``r`` is a request, ``e`` an event; times in seconds."""
    state = Unanswered.fresh(1)
    for at, kind in things:
        fold(state, START, np.array([at * SECOND]), np.array([kind == "r"]))
    return state


def is_silent(state: Unanswered, now_s: int) -> bool:
    return bool(silent(state, now_s * SECOND, requests=5, lasting_us=LASTING)[0])


def test_five_requests_and_five_minutes() -> None:
    state = given_things((10, "e"), *((100 + i, "r") for i in range(5)))
    assert not is_silent(state, 399)
    assert is_silent(state, 400), "five minutes after the first"
    assert not is_silent(given_things((10, "e"), *((100 + i, "r") for i in range(4))), 4_000)


def test_an_actor_that_nobody_asks_is_idle() -> None:
    assert not is_silent(given_things((10, "e")), 10**6)


def test_one_that_was_idle_for_hours_is_given_its_time() -> None:
    state = given_things((10, "e"), *((9_000 + i, "r") for i in range(5)))
    assert not is_silent(state, 9_010)
    assert is_silent(state, 9_300)


def test_one_that_was_never_heard_is_silent_too() -> None:
    assert is_silent(given_things(*((100 + i, "r") for i in range(5))), 400)


def test_any_event_ends_it() -> None:
    state = given_things(*((100 + i, "r") for i in range(9)), (401, "e"))
    assert not is_silent(state, 500)
    assert state.requests.tolist() == [0]


def test_a_request_from_before_the_last_event_is_answered() -> None:
    """The router's log arrives after the actor's events."""
    assert given_things((500, "e"), *((100 + i, "r") for i in range(9))).requests.tolist() == [0]


@given(things=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50), st.booleans()), max_size=40))
def test_it_is_what_lists_say(things: list[tuple[int, int, bool]]) -> None:
    """Three actors in one piece, in any order of time."""
    if not things:
        return
    keys = sorted({key for key, _, _ in things})
    ordered = sorted(things, key=lambda thing: thing[0])
    key = np.array([k for k, _, _ in ordered])
    state = Unanswered.fresh(len(keys))
    starts = np.searchsorted(key, keys)
    fold(state, starts, np.array([at for _, at, _ in ordered]), np.array([r for _, _, r in ordered]))
    for row, actor in enumerate(keys):
        heard, waiting = 0, list[int]()
        for at, request in [(at, r) for k, at, r in things if k == actor]:
            if not request:
                heard, waiting = max(heard, at), []
            elif at > heard:
                waiting.append(at)
        assert (state.heard[row], state.requests[row]) == (heard, len(waiting))
        assert state.since[row] == min(waiting, default=0)


def test_nothing_changes_nothing() -> None:
    state = Unanswered.fresh(0)
    fold(state, np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_))
    assert silent(state, 5, requests=1, lasting_us=1).tolist() == []
