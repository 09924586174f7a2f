"""The guard: a stock and a rate, in event order, and then one incident."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseboard_detectors.guard import Decisions, GuardParams, GuardState, clear, decide, limits, release
from fuseboard_schemas.errors import ConfigurationError

SECOND = 1_000_000
PARAMS = GuardParams()
ONE = np.zeros(1, dtype=np.intp)


def ask(
    state: GuardState, *requests: tuple[int, float, str], active: int = 40, granted: dict[str, float] | None = None
) -> Decisions:
    """Requests: tenant, time in seconds, actor; when actors were granted last."""
    tenant, at, actor = zip(*requests, strict=True)
    times = np.array([round(second * SECOND) for second in at], dtype=np.int64)
    limit = limits(np.full(len(state.open), active), PARAMS)
    last = None
    if granted is not None:
        last = np.array([round(granted.get(each, -1) * SECOND) for each in actor], dtype=np.int64)
    return decide(state, np.array(tenant, dtype=np.intp), times, np.array(actor), limit, PARAMS, last)


def test_a_tenth_of_the_active_actors_and_at_least_one() -> None:
    assert limits(np.array([0, 9, 10, 19, 20, 1_000]), PARAMS).tolist() == [1, 1, 1, 1, 2, 100]


def test_requests_are_granted_in_order_until_the_number_is_reached() -> None:
    state = GuardState.fresh(1)
    found = ask(state, (0, 9, "f"), (0, 3, "b"), (0, 3, "a"), (0, 5, "c"), (0, 7, "d"), (0, 8, "e"))
    assert found.granted.tolist() == [False, True, True, True, True, False]
    assert (state.open[0], state.incident[0], state.withheld[0]) == (4, 8 * SECOND, 2)
    assert found.began.tolist() == [True]


def test_actors_of_one_instant_are_granted_by_name() -> None:
    found = ask(GuardState.fresh(1), (0, 3, "b"), (0, 3, "c"), (0, 3, "a"), active=20)
    assert found.granted.tolist() == [True, False, True]


def test_nothing_more_is_granted_until_the_incident_is_cleared() -> None:
    state = GuardState.fresh(1)
    ask(state, *((0, 1, f"a{i}") for i in range(5)))
    release(state, ONE, np.array([4]))
    again = ask(state, (0, 200, "x"))
    assert (again.granted.tolist(), again.began.tolist(), state.withheld[0]) == ([False], [False], 2)
    clear(state, ONE)
    assert ask(state, (0, 300, "y")).granted.tolist() == [True]
    assert (state.open[0], state.incident[0], state.withheld[0]) == (1, 0, 0)


def test_the_rate_holds_although_the_stock_has_room() -> None:
    """Four a minute, each released at once: the fifth within the minute is one too many, after it none is."""
    state = GuardState.fresh(1)
    for second, actor in enumerate("abcd"):
        assert ask(state, (0, second, actor)).granted.all()
        release(state, ONE, np.array([1]))
    assert state.open.tolist() == [0]
    assert not ask(state, (0, 59.9, "e")).granted[0]
    clear(state, ONE)
    assert ask(state, (0, 62, "e")).granted[0]


def test_who_trips_again_within_the_minute_widens_no_radius() -> None:
    state, granted = GuardState.fresh(1), dict[str, float]()
    for second, actor in enumerate("abcdadaba"):
        assert ask(state, (0, second, actor), granted=granted).granted.all()
        release(state, ONE, np.array([1]))
        granted[actor] = second
    assert state.grants.sum() == 4
    # It counts with its newest grant: of the four, only the third's is over a minute after the last but one.
    assert ask(state, (0, 63, "x"), granted=granted).granted.all()
    release(state, ONE, np.array([1]))
    assert not ask(state, (0, 64.5, "y"), granted=granted).granted.any()


def test_who_trips_again_is_held_only_if_there_is_room() -> None:
    state = GuardState.fresh(1)
    ask(state, *((0, 1, actor) for actor in "abcd"))
    assert not ask(state, (0, 2, "a"), granted={"a": 1}).granted[0]


def test_the_stock_holds_although_nothing_was_granted_lately() -> None:
    state = GuardState.fresh(1)
    for second in range(0, 400, 100):
        assert ask(state, (0, second, "a")).granted[0]
    assert not ask(state, (0, 5_000, "b")).granted[0]


def test_a_repeat_is_counted_once() -> None:
    state = GuardState.fresh(1)
    found = ask(state, (0, 1, "a"), (0, 1, "a"), (0, 1, "b"), (0, 1, "a"))
    assert found.granted.tolist() == [True] * 4
    assert found.repeated.sum() == 2
    assert state.open[0] == 2


def test_tenants_do_not_touch_each_other() -> None:
    state = GuardState.fresh(2)
    ask(state, *((0, 1, f"a{i}") for i in range(9)))
    assert ask(state, (1, 2, "a"), (0, 2, "x")).granted.tolist() == [True, False]


requests = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 120), st.sampled_from("abcdefgh")), min_size=1, max_size=40
)


@given(
    given_requests=requests, repeats=st.lists(st.integers(0, 39), max_size=8), order=st.randoms(use_true_random=False)
)
def test_order_and_repeats_make_no_difference(
    given_requests: list[tuple[int, int, str]], repeats: list[int], order: object
) -> None:
    """Nor does it matter in how many ticks the seconds are handed over."""
    once, shuffled, by_second = GuardState.fresh(2), GuardState.fresh(2), GuardState.fresh(2)
    found = ask(once, *given_requests)
    expected = dict(zip(given_requests, found.granted.tolist(), strict=True))
    mixed = given_requests + [given_requests[i] for i in repeats if i < len(given_requests)]
    order.shuffle(mixed)  # type: ignore[attr-defined]
    assert dict(zip(mixed, ask(shuffled, *mixed).granted.tolist(), strict=True)) == expected
    for second in sorted({at for _, at, _ in given_requests}):
        some = [request for request in mixed if request[1] == second]
        assert dict(zip(some, ask(by_second, *some).granted.tolist(), strict=True)) == {r: expected[r] for r in some}
    for name in ("open", "incident", "withheld"):
        assert getattr(once, name).tolist() == getattr(shuffled, name).tolist() == getattr(by_second, name).tolist()


@given(given_requests=requests)
def test_it_is_what_lists_say(given_requests: list[tuple[int, int, str]]) -> None:
    """Second by second: the ring's cells are whole seconds."""
    state = GuardState.fresh(2)
    found = ask(state, *given_requests)
    expected = {}
    for tenant in (0, 1):
        grants, blocked = list[int](), False
        for request in sorted({r for r in given_requests if r[0] == tenant}):
            lately = [at for at in grants if at > request[1] - 61]
            blocked = blocked or len(grants) >= 4 or len(lately) >= 4
            expected[request] = not blocked
            if not blocked:
                grants.append(request[1])
    assert [expected[request] for request in given_requests] == found.granted.tolist()


@given(given_requests=requests)
def test_an_actor_counts_once_as_lists_say(given_requests: list[tuple[int, int, str]]) -> None:
    """Second by second, everybody released at its end, so that the rate alone decides beyond it."""
    state, last, blocked = GuardState.fresh(1), dict[str, float](), False
    for second in sorted({at for _, at, _ in given_requests}):
        actors = sorted({actor for _, at, actor in given_requests if at == second})
        expected, before = list[bool](), dict(last)
        for actor in actors:
            counted = {each for each, at in last.items() if at > second - 61}
            fits = sum(expected) < 4 and (actor in counted or len(counted) < 4)
            blocked = blocked or not fits
            expected.append(not blocked)
            if not blocked:
                last[actor] = second
        found = ask(state, *((0, second, actor) for actor in actors), granted=before)
        assert found.granted.tolist() == expected
        release(state, ONE, state.open.copy())


def test_a_guard_may_forbid_everything() -> None:
    state, params = GuardState.fresh(1), GuardParams(at_least=0)
    limit = limits(np.array([5]), params)
    assert not decide(state, ONE, np.array([SECOND]), np.array(["a"]), limit, params).granted[0]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"share": (2, 1)}, "2/1"),
        ({"share": (1, 0)}, "1/0"),
        ({"at_least": -1}, "at least -1"),
        ({"window_us": 61}, "61"),
    ],
    ids=str,
)
def test_an_impossible_guard_is_refused(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        GuardParams(**wrong)  # type: ignore[arg-type]
