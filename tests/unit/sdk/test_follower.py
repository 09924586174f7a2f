"""The follower without a broker."""

from __future__ import annotations

import itertools
import threading

from fuseboard.follower import Follower
from fuseboard_schemas.topics import TopicNames
from tests.unit.sdk.support import NOW_US, world


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
