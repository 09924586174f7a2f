"""The follower without a broker."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

from fuseboard.follower import Follower
from fuseboard_schemas.topics import TopicNames
from tests.unit.sdk.support import ACTOR, NOW_US, TENANT, world

if TYPE_CHECKING:
    import pytest


def test_a_consumer_that_finds_no_broker_is_replaced() -> None:
    there = world(bootstrap="127.0.0.1:9")
    seconds = itertools.count(0.0, 20.0)
    replaced = threading.Event()

    class Watched(Follower):
        def _disconnect(self) -> None:
            if self._consumer is not None and not self._stop.is_set():
                replaced.set()
            super()._disconnect()

    follower = Watched(
        there.runtime.settings,
        TopicNames("fuseboard."),
        there.view,
        there.runtime.publisher,
        clock=lambda: next(seconds),
        wall_us=lambda: NOW_US,
    )
    assert follower.start()
    assert replaced.wait(30.0)
    follower.stop()


def test_what_is_read_again_when_something_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    there = world()
    follower = Follower(
        there.runtime.settings,
        TopicNames("fuseboard."),
        there.view,
        there.runtime.publisher,
        clock=there.clock,
        wall_us=there.clock.wall_us,
    )
    assigned: list[int] = []

    class Consumer:
        def incremental_assign(self, partitions: list[Any]) -> None:
            assigned.extend(each.partition for each in partitions if each.topic.endswith("breaker-commands"))

        def incremental_unassign(self, partitions: list[Any]) -> None: ...

    monkeypatch.setattr(follower, "_consumer", Consumer())
    monkeypatch.setattr(follower, "_partitions", 3)

    def placed(tenant: str, actor: str, tool: str | None) -> list[int]:
        assigned.clear()
        there.view.register(tenant, actor, tool)
        follower._place()
        return sorted(assigned)

    for number in range(20):
        placed(TENANT, ACTOR, f"tool_{number}")
    assert follower._reading.keys() == {0, 1, 2}
    assert placed(TENANT, ACTOR, "new") == [], "a tool"
    assert len(placed(TENANT, "another", None)) == 1, "an actor"
    assert placed("elsewhere", "x", "y") == [0, 1, 2], "a tenant, of whose tools nothing was kept"
