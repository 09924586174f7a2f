"""Plain functions that return something to await, as an ordinary decorator around an async function makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fuseboard import Effect, Outcome, current_call
from tests.unit.sdk.support import World, decode, world

READ = Effect.READ


@pytest.fixture
def there() -> World:
    return world()


def outcomes(there: World) -> list[tuple[Outcome, str | None]]:
    there.deliver()
    return [(call.outcome, call.error_type) for call in decode(there.broker, "ToolCall")]


def test_a_coroutine_is_recorded_when_it_ends(there: World) -> None:
    async def down() -> None:
        there.clock.sleep(0.25)
        assert current_call() is not None
        raise RuntimeError("down")

    look = there.fuse.tool(effect=READ, name="look")(lambda: down())

    async def main() -> None:
        coroutine = look()
        assert outcomes(there) == []
        with pytest.raises(RuntimeError):
            await coroutine
        assert current_call() is None

    asyncio.run(main())
    assert outcomes(there) == [(Outcome.ERROR, "RuntimeError")]
    (call,) = decode(there.broker, "ToolCall")
    assert call.duration_ms == 250


def test_a_coroutine_of_another_event_loop_is_awaited_there(there: World) -> None:
    """Without a timeout nothing of asyncio is needed: as trio and curio do it, by hand."""

    async def look() -> int:
        return 7

    for guarded in (look, lambda: look()):
        coroutine = there.fuse.tool(effect=READ, name="look")(guarded)()
        with pytest.raises(StopIteration) as ended:
            coroutine.send(None)
        assert ended.value.value == 7
    assert outcomes(there) == [(Outcome.OK, None)] * 2


def test_its_timeout_cancels_it(there: World) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    look = there.fuse.tool(effect=READ, name="look", timeout=0.001)(lambda: hangs())

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await look()

    asyncio.run(main())
    assert outcomes(there) == [(Outcome.TIMEOUT, "TimeoutError")]


def test_a_future_stays_what_it_is(there: World) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        good, bad, cancelled = loop.create_future(), loop.create_future(), loop.create_future()
        look = there.fuse.tool(effect=READ, name="look")(lambda future: future)
        assert look(good) is good
        look(bad)
        look(cancelled)
        assert outcomes(there) == []
        good.set_result(1)
        bad.set_exception(RuntimeError())
        cancelled.cancel()
        await asyncio.wait([good, bad, cancelled])
        bad.exception()

    asyncio.run(main())
    assert outcomes(there) == [
        (Outcome.OK, None), (Outcome.ERROR, "RuntimeError"), (Outcome.CANCELLED, "CancelledError"),
    ]  # fmt: skip


def test_anything_else_is_recorded_when_it_is_there(there: World) -> None:
    class Awaitable:
        def __await__(self) -> Any:
            yield

    made = Awaitable()
    assert there.fuse.tool(effect=READ, name="look")(lambda: made)() is made
    assert outcomes(there) == [(Outcome.OK, None)]


def test_an_object_that_has_every_attribute_is_left_in_peace(there: World) -> None:
    class Proxy:
        """As a client for remote calls: whatever is asked for is called somewhere else."""

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    made = Proxy()
    assert there.fuse.tool(effect=READ, name="look")(lambda: made)() is made
    assert outcomes(there) == [(Outcome.OK, None)]
