"""Undo, restore, and the bytes of a breaker."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from fuseboard_schemas.errors import ConfigurationError
from fuseboard_streams.core.breaker import Breaker, BreakerStateError, decode, encode
from fuseboard_streams.core.breaker_params import BreakerParams
from fuseboard_streams.core.breakers import Breakers
from tests.unit.breakers.scenes import ID, NOON, SECOND, TARGET, at, clients, half_open, now, probe, to_half_open, trip


def test_rollback_takes_back_a_trip() -> None:
    breakers = Breakers(BreakerParams())
    breakers.begin()
    trip(breakers)
    assert breakers.changed() == (ID,)
    breakers.rollback()
    assert (breakers.get(ID), breakers.open_ids(), breakers.next_due(), breakers.changed()) == (None, (), None, ())


def test_rollback_brings_back_the_very_state_and_its_timer() -> None:
    breakers = half_open()
    before, due = now(breakers), breakers.next_due()
    breakers.begin()
    assert due is not None
    assert len(breakers.tick(due + 120 * SECOND, clients(1))) > 3
    breakers.rollback()
    assert now(breakers) is before
    assert breakers.next_due() == due
    assert to_half_open(breakers).wave == 2


def test_rollback_brings_back_a_forgotten_breaker() -> None:
    breakers = half_open()
    for _ in range(14):
        probe(breakers, ok=True)
    closed, due = now(breakers), breakers.next_due()
    assert due is not None
    breakers.begin()
    (gone,) = breakers.tick(due, clients(1))
    assert (gone.forgotten, breakers.changed()) == (True, (ID,))
    breakers.rollback()
    assert now(breakers) is closed
    assert breakers.tick(due, clients(1)) == (gone,)


def test_commit_keeps_and_a_later_rollback_goes_back_to_it() -> None:
    breakers = Breakers(BreakerParams())
    breakers.begin()
    opened = trip(breakers)
    breakers.commit()
    assert breakers.changed() == ()
    breakers.begin()
    to_half_open(breakers)
    breakers.rollback()
    assert now(breakers) is opened


def test_transactions_do_not_nest() -> None:
    breakers = Breakers(BreakerParams())
    breakers.begin()
    with pytest.raises(RuntimeError, match="already"):
        breakers.begin()


def test_ignored_results_change_nothing() -> None:
    breakers = half_open()
    breakers.begin()
    breakers.probe(ID, 1, True, at(100))
    assert breakers.changed() == ()


def test_restored_breakers_go_on_alike() -> None:
    first, second = half_open(number_of_clients=3), Breakers(BreakerParams())
    probe(first, ok=True)
    for breaker_id in first.ids():
        second.put(decode(encode(now(first, breaker_id))))
    assert second.open_ids() == first.open_ids()
    for ok in [True] * 7 + [False, False]:
        assert probe(first, ok) == probe(second, ok)
        assert first.next_due() == second.next_due()


def test_discard_removes() -> None:
    breakers = half_open()
    breakers.discard(ID)
    breakers.discard("ACTOR:default/nobody")
    assert (breakers.ids(), breakers.open_ids(), breakers.next_due()) == ((), (), None)


def due_at(opened: Breaker, due: int) -> Breaker:
    return replace(opened, due=due, holds=(replace(opened.holds[0], probe_at=due),))


def test_timers_of_a_breaker_that_keeps_changing_do_not_pile_up() -> None:
    breakers = Breakers(BreakerParams())
    opened = trip(breakers)
    quiet = [due_at(replace(opened, breaker_id=f"ACTOR:default/a{i}"), NOON + (3000 - i) * SECOND) for i in range(30)]
    for breaker in quiet:
        breakers.put(breaker)
    sizes = [0, len(breakers._heap)]
    while sizes[-1] > sizes[-2]:
        breakers.put(due_at(opened, NOON + len(sizes) * SECOND))
        sizes.append(len(breakers._heap))
    assert sizes[-1] == len(breakers) == 31
    assert max(sizes) < 200
    ran = breakers.tick(NOON + 3000 * SECOND, clients(1))
    assert {b.breaker_id for b in ran} == {ID, *(b.breaker_id for b in quiet)}
    assert [b.decided_at for b in ran] == sorted(b.decided_at for b in ran)


def test_closed_breakers_cost_nothing_per_tick() -> None:
    """Counted in function calls, not in seconds."""
    breakers = Breakers(BreakerParams())
    closed = half_open()
    for _ in range(14):
        probe(closed, ok=True)
    for i in range(10_000):
        breakers.put(replace(now(closed), breaker_id=f"ACTOR_TOOL:default/a{i}/t"))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        for second in range(100):
            breakers.tick(NOON + second * SECOND, clients(1))
    finally:
        sys.setprofile(None)
    assert calls < 3000


def test_bytes_are_one_line_of_json_with_exact_floats() -> None:
    breaker = replace(now(half_open()), tenant="a\nb/ü")
    data = encode(breaker)
    assert b"\n" not in data
    assert json.loads(data)["evidence"]["null_p0"] == 0.005
    assert decode(data) == breaker


def test_bytes_of_an_older_version_take_defaults() -> None:
    opened = trip(Breakers(BreakerParams()))
    row = json.loads(encode(opened))
    for name in ("period", "forgotten", "offset", "forced"):
        row.pop(name, None)
    assert decode(json.dumps(row).encode()) == replace(opened, offset=None)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b'{"breaker_id":"x"}', b"null", encode(now(half_open()))[:-1]]
)
def test_unreadable_bytes_are_named(data: bytes) -> None:
    with pytest.raises(BreakerStateError, match="breaker in the state log"):
        decode(data)


def test_bytes_of_a_newer_version_are_refused() -> None:
    row = json.loads(encode(now(half_open()))) | {"invented": 1}
    with pytest.raises(BreakerStateError, match="invented"):
        decode(json.dumps(row).encode())


@pytest.mark.parametrize(
    ("options", "expected_s"),
    [({}, 15), ({"base_cooldown_us": 80 * SECOND}, 30), ({"max_cooldown_us": 4 * SECOND}, 2), ({"wave_us": SECOND}, 1)],
)
def test_no_timer_is_due_sooner_than_promised(options: dict[str, int], expected_s: int) -> None:
    params = BreakerParams(**options)  # type: ignore[arg-type]
    assert params.min_cooldown_us == expected_s * SECOND


@pytest.mark.parametrize("options", [{"probes": 0}, {"wave_us": -1}, {"error": 0.5}, {"odds": 1.0}, {"p1_floor": 1.0}])
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        BreakerParams(**options)  # type: ignore[arg-type]


def test_targets_have_breakers_of_their_own() -> None:
    breakers = Breakers(BreakerParams())
    trip(breakers)
    trip(breakers, target=replace(TARGET, tool="a/b%"))
    assert breakers.open_ids() == ("ACTOR_TOOL:default/support_agent_v4/a%2Fb%25", ID)
