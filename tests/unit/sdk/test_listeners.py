"""Listeners of commands: called once a command is in force, and unable to stop the thread that follows them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from fuseboard import Fuseboard, Settings
from fuseboard.follower import Follower
from fuseboard.runtime import Runtime
from fuseboard.view import Applied
from fuseboard_schemas.records import BreakerState, Cause
from tests.unit.demo.moments import command

if TYPE_CHECKING:
    from fuseboard_schemas.records import BreakerCommand


def follower(runtime: Runtime) -> Follower:
    return Follower(
        runtime.settings,
        runtime.topics,
        runtime.view,
        runtime.publisher,
        clock=runtime.clock,
        wall_us=runtime.wall_us,
        listeners=runtime.listeners,
    )


def test_a_listener_hears_each_command_in_order_and_one_that_fails_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime = Runtime(Settings(actor="a", spool_dir=""), follow=False)
    fuse = Fuseboard.of(runtime)
    heard: list[int] = []

    def broken(_command: BreakerCommand) -> None:
        raise RuntimeError("listener")

    following = follower(runtime)
    fuse.on_command(broken)
    fuse.on_command(lambda each: heard.append(each.epoch))

    with caplog.at_level(logging.ERROR, logger="fuseboard.follower"):
        following._announce([Applied(command(BreakerState.OPEN, Cause.TRIP, epoch), 0) for epoch in (1, 2)])

    assert heard == [1, 2]
    assert len([record for record in caplog.records if record.exc_info]) == 2
    runtime.close(0)
