"""Who is told, and when, that calls pass although nothing is known about their breakers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from fuseboard import Effect
from tests.unit.sdk.support import World, decode, world

if TYPE_CHECKING:
    from collections.abc import Callable

STALE = "control plane stale: {} was let through without its breakers being known (actor support_agent)"


@pytest.fixture
def there(caplog: pytest.LogCaptureFixture) -> World:
    caplog.set_level(logging.DEBUG, "fuseboard")
    return world()


def write(there: World, name: str = "refund") -> Callable[[], None]:
    return there.fuse.tool(effect=Effect.WRITE, name=name)(lambda: None)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def published(there: World) -> list[str | None]:
    there.deliver()
    return [step.summary for step in decode(there.broker, "TraceStep")]


def end(there: World, timeout: float) -> None:
    there.deliver()
    assert there.runtime.close(timeout) == 0


def test_a_call_right_after_the_start_is_published_and_no_reason_to_warn(
    there: World, caplog: pytest.LogCaptureFixture
) -> None:
    refund = write(there)
    for _ in range(3):
        refund()
    assert warnings(caplog) == []
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert published(there) == ["just started: refund was let through before its breakers were known"]
    there.alive()
    there.clock.sleep(60.0)
    refund()
    end(there, 5.0)
    assert warnings(caplog) == []
    assert len(published(there)) == 1


def test_the_next_call_warns_when_the_grace_is_over(there: World, caplog: pytest.LogCaptureFixture) -> None:
    refund = write(there)
    refund()
    there.clock.sleep(2.0)
    refund()
    refund()
    assert warnings(caplog) == [STALE.format("refund")]
    assert published(there)[1:] == ["control plane stale: refund was let through without its breakers being known"]
    end(there, 5.0)
    assert warnings(caplog) == [STALE.format("refund")], "it is not said twice"


def test_without_another_call_the_warning_comes_by_itself(there: World, caplog: pytest.LogCaptureFixture) -> None:
    unguarded = there.runtime._unguarded
    write(there)()
    write(there, "pay")()
    there.clock.sleep(1.9)
    assert unguarded.settle()
    assert warnings(caplog) == []
    there.clock.sleep(0.2)
    assert not unguarded.settle()
    assert not unguarded.settle()
    assert warnings(caplog) == [STALE.format("refund"), STALE.format("pay")]


def test_a_process_that_ends_at_once_waits_for_what_it_cannot_know_yet(
    there: World, caplog: pytest.LogCaptureFixture
) -> None:
    write(there)()
    slept = there.clock.sleep

    def sleep(seconds: float) -> None:
        slept(seconds)
        if there.clock() > 1000.7:
            there.alive()

    there.runtime.sleep = sleep
    end(there, 5.0)
    assert 1000.7 < there.clock() < 1000.8
    assert warnings(caplog) == []


EARLY = "just started: {} was let through before its breakers were known (actor support_agent)"


@pytest.mark.parametrize(("timeout", "waits", "says"), [(5.0, 2.0, STALE), (0.5, 0.25, EARLY), (0.0, 0.0, EARLY)])
def test_a_process_that_ends_without_a_worker_warns_of_what_it_knows(
    there: World, caplog: pytest.LogCaptureFixture, timeout: float, waits: float, says: str
) -> None:
    write(there)()
    end(there, timeout)
    assert there.clock() == pytest.approx(1000.0 + waits, abs=0.02)
    assert warnings(caplog) == [says.format("refund")]


def test_a_tool_that_an_old_actor_meets_has_no_grace(there: World, caplog: pytest.LogCaptureFixture) -> None:
    write(there)
    there.clock.sleep(3600.0)
    write(there, "pay")()
    assert warnings(caplog) == [STALE.format("pay")]


def test_a_process_that_made_no_such_call_ends_at_once(there: World) -> None:
    there.fuse.tool(effect=Effect.READ, name="look")(lambda: None)()
    write(there)
    end(there, 5.0)
    assert there.clock() == 1000.0


def test_silence_after_signs_of_life_is_no_beginning(there: World, caplog: pytest.LogCaptureFixture) -> None:
    refund = write(there)
    there.alive(0.5)
    there.clock.sleep(1.0)
    refund()
    assert warnings(caplog) == [STALE.format("refund")]


def test_an_actor_that_turns_up_later_begins_then(there: World, caplog: pytest.LogCaptureFixture) -> None:
    there.clock.sleep(3600.0)
    late = there.fuse.as_actor("late").tool(effect=Effect.WRITE, name="refund")(lambda: None)
    late()
    assert warnings(caplog) == []
    there.clock.sleep(2.0)
    late()
    (warning,) = warnings(caplog)
    assert warning.endswith("(actor late)")


def test_following_that_begins_later_counts_from_then(there: World, caplog: pytest.LogCaptureFixture) -> None:
    """As in a forked child, whose tools are as old as the parent's."""
    refund = write(there)
    there.clock.sleep(3600.0)
    there.runtime._unguarded.begin()
    refund()
    assert warnings(caplog) == []
    there.runtime._unguarded.after_fork()
    assert not there.runtime._unguarded.settle(), "the parent will tell"
    refund()
    assert warnings(caplog) == [STALE.format("refund")]


def test_without_grace_the_first_call_warns(caplog: pytest.LogCaptureFixture) -> None:
    write(world(ready_timeout_s=0.0))()
    assert warnings(caplog) == [STALE.format("refund")]
