"""Guarded functions and blocks: what passes through, and the one event per attempt."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fuseboard import ConfigurationError, Effect, Outcome, ToolBlocked, current_call
from fuseboard.view import every_tool, interest
from fuseboard_schemas.records import Scope
from tests.unit.sdk.support import World, command, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

READ = Effect.READ


@pytest.fixture
def there() -> World:
    return world()


class HttpTimeout(Exception):
    """A client library's own timeout class."""


# ----------------------------------------------------------------- functions


def test_a_guarded_function_keeps_its_face(there: World) -> None:
    @there.fuse.tool(effect=READ)
    def look(order_id: str, *, deep: bool = False) -> dict[str, bool]:
        """Look something up."""
        return {order_id: deep}

    assert look("42", deep=True) == {"42": True}
    assert look.__name__ == "look"
    assert look.__doc__ == "Look something up."
    assert str(inspect.signature(look)) == "(order_id: 'str', *, deep: 'bool' = False) -> 'dict[str, bool]'"


def test_a_decorator_without_its_effect_says_what_to_write(there: World) -> None:
    wrong: Any = there.fuse.tool

    with pytest.raises(ConfigurationError, match=r"was given look; .* @fuse\.tool\(effect=Effect\.READ\)"):

        @wrong
        def look() -> None: ...

    with pytest.raises(ConfigurationError, match="was given WRITE; settings by name"):
        wrong(Effect.WRITE)
    with pytest.raises(ConfigurationError, match=r"was given no effect; .* @fuse\.tool\(effect=Effect\.READ\)"):
        wrong()


@pytest.mark.parametrize("timeout", ["5s", 0, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused_where_it_is_written(there: World, timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"The timeout of the tool look is .*; seconds above 0 were expected"):
        there.fuse.tool(effect=READ, name="look", timeout=timeout)(lambda: None)
    with pytest.raises(ConfigurationError, match="The timeout of the tool look"):
        there.fuse.call("look", effect=READ, timeout=timeout)


def test_a_class_is_no_tool(there: World) -> None:
    with pytest.raises(ConfigurationError, match="Of a class, guard the methods"):

        @there.fuse.tool(effect=READ)
        class Tools: ...


def test_after_close_nobody_counts_as_alive(there: World, caplog: pytest.LogCaptureFixture) -> None:
    look = there.fuse.tool(effect=READ, name="look")(lambda: 1)
    pay = there.fuse.tool(effect=Effect.IRREVERSIBLE, name="pay")(lambda: 2)
    there.alive()
    there.view.reached_end(0, frozenset({every_tool(interest(Scope.TENANT, "default"))}))
    assert (pay(), there.fuse.ready()) == (2, True)
    there.deliver()
    there.fuse.close()
    assert not there.fuse.ready()
    assert [look(), look()] == [1, 1]
    with pytest.raises(ToolBlocked):
        pay()
    assert [record.getMessage() for record in caplog.records] == [
        "look was called after close(): from then on calls are not recorded."
    ]


@pytest.mark.parametrize(("settings", "says"), [({"effect": "write"}, "'write'"), ({"on_stale": "no"}, "'no'")])
def test_what_is_possible_is_said(there: World, settings: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"effect": READ, "name": "look", **settings}
    with pytest.raises(ConfigurationError, match=rf"{says}.* READ, WRITE, IRREVERSIBLE; .* allow, warn, deny\."):
        there.fuse.tool(**given)(lambda: None)


def test_what_cannot_be_called_cannot_be_guarded(there: World) -> None:
    wrong: Any = 3
    with pytest.raises(ConfigurationError, match="was put on 3; a function was expected"):
        there.fuse.tool(effect=READ, name="look")(wrong)


def test_methods_of_every_kind_are_guarded_in_either_order(there: World) -> None:
    class Shop:
        @there.fuse.tool(effect=READ)
        def usual(self, number: int) -> int:
            return number

        @there.fuse.tool(effect=READ)
        @staticmethod
        def outer(number: int) -> int:
            return number

        @staticmethod
        @there.fuse.tool(effect=READ)
        def inner(number: int) -> int:
            return number

        @there.fuse.tool(effect=READ)
        @classmethod
        def of_class(cls, number: int) -> tuple[type, int]:
            return cls, number

        @there.fuse.tool(effect=READ)
        @staticmethod
        async def later(number: int) -> int:
            return number

    shop = Shop()
    assert (shop.usual(1), shop.outer(2), Shop.outer(3), shop.inner(4)) == (1, 2, 3, 4)
    assert (shop.of_class(5), Shop.of_class(6)) == ((Shop, 5), (Shop, 6))
    assert asyncio.run(shop.later(7)) == 7
    assert [call.tool for call in there.calls()] == [
        *("usual", "outer", "outer", "inner"),
        *("of_class", "of_class", "later"),
    ]


def test_an_object_with_an_asynchronous_call_ends_when_it_ends(there: World) -> None:
    class Fails:
        async def __call__(self) -> None:
            raise ValueError

    look = there.fuse.tool(effect=READ, name="look")(Fails())
    with pytest.raises(ValueError):  # noqa: PT011 - there is nothing to match
        asyncio.run(look())
    assert [call.outcome for call in there.calls()] == [Outcome.ERROR]


def test_the_same_exception_object_passes_with_its_traceback(there: World) -> None:
    original = ValueError("no such order")

    @there.fuse.tool(effect=READ)
    def look() -> None:
        raise original

    with pytest.raises(ValueError, match="no such order") as caught:
        look()
    assert caught.value is original
    assert original.__cause__ is None
    assert original.__context__ is None
    assert caught.traceback[-1].name == "look"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("x"), Outcome.ERROR),
        (TimeoutError(), Outcome.TIMEOUT),
        (HttpTimeout(), Outcome.TIMEOUT),
        (asyncio.CancelledError(), Outcome.CANCELLED),
        (KeyboardInterrupt(), Outcome.CANCELLED),
        (GeneratorExit(), Outcome.CANCELLED),
        (SystemExit(1), Outcome.ERROR),
    ],
)
def test_outcomes(there: World, error: BaseException, outcome: Outcome) -> None:
    @there.fuse.tool(effect=READ)
    def look() -> None:
        raise error

    with pytest.raises(type(error)):
        look()
    (call,) = there.calls()
    assert call.outcome is outcome
    assert call.error_type == type(error).__name__


def test_one_event_per_attempt_with_the_facts(there: World) -> None:
    @there.fuse.tool(name="billing.refund", effect=Effect.WRITE)
    def refund(order_id: str) -> None:
        there.clock.sleep(0.25)
        call = current_call()
        assert call is not None
        call.cost_usd, call.amount_usd, call.compensates = 0.002, 19.99, "earlier"

    refund("order-42")
    (event,) = there.calls()
    assert event.tool == "billing.refund"
    assert event.effect is Effect.WRITE
    assert event.outcome is Outcome.OK
    assert event.duration_ms == 250
    assert event.ts == there.clock.wall_us()
    assert event.cost_usd_micros == 2000
    assert event.amount_usd_micros == 19_990_000
    assert event.compensates == "earlier"
    assert event.attempt == 1
    assert event.client_id == there.fuse.client_id
    assert event.seq == 0
    assert event.args_hash is not None
    assert "order-42" not in repr(event)


def test_a_tool_that_reports_its_error_as_a_result_can_say_so(there: World) -> None:
    @there.fuse.tool(effect=READ)
    def look() -> str:
        call = current_call()
        assert call is not None
        call.fail("http_503")
        return "sorry"

    assert look() == "sorry"
    (event,) = there.calls()
    assert (event.outcome, event.error_type) == (Outcome.ERROR, "http_503")


def test_methods_are_guarded_like_functions(there: World) -> None:
    class Shop:
        @there.fuse.tool(effect=READ)
        def look(self, order_id: str) -> str:
            return order_id

    assert Shop().look("42") == "42"
    Shop().look("42")
    first, second = there.calls()
    assert first.args_hash == second.args_hash


def test_no_call_runs_outside_of_one(there: World) -> None:
    assert current_call() is None

    @there.fuse.tool(effect=READ)
    def look() -> None:
        assert current_call() is not None

    look()
    assert current_call() is None


def test_an_inner_call_shares_the_trace_of_the_outer(there: World) -> None:
    inner = there.fuse.tool(effect=READ, name="inner")(lambda: None)
    outer = there.fuse.tool(effect=READ, name="outer")(inner)
    outer()
    calls = {call.tool: call for call in there.calls()}
    assert calls["inner"].trace_id == calls["outer"].trace_id
    assert calls["inner"].span_id != calls["outer"].span_id


def test_a_refused_function_does_not_run(there: World) -> None:
    ran = []
    tool = there.fuse.tool(effect=READ, name="refund")(lambda: ran.append(1))
    there.command(command())
    with pytest.raises(ToolBlocked):
        tool()
    assert ran == []


def test_the_deadline_is_shown_to_a_synchronous_tool(there: World) -> None:
    @there.fuse.tool(effect=READ, timeout=2.0)
    def look() -> None:
        call = current_call()
        assert call is not None
        assert call.remaining() == pytest.approx(2.0)
        there.clock.sleep(1.5)
        assert call.remaining() == pytest.approx(0.5)
        there.clock.sleep(1.5)
        assert call.remaining() == 0.0
        raise TimeoutError

    with pytest.raises(TimeoutError):
        look()
    (event,) = there.calls()
    assert (event.outcome, event.duration_ms) == (Outcome.TIMEOUT, 3000)


def test_a_tool_needs_a_name_and_a_known_effect(there: World) -> None:
    with pytest.raises(ConfigurationError, match="name of the tool"):
        there.fuse.call(" ", effect=READ)
    with pytest.raises(ConfigurationError, match="cannot be guarded"):
        there.fuse.call("x", effect="DESTROY")  # type: ignore[arg-type]


# ---------------------------------------------------------------- generators


def test_a_generator_is_one_call_until_it_ends(there: World) -> None:
    @there.fuse.tool(effect=READ)
    def stream(count: int) -> Iterator[int]:
        for number in range(count):
            there.clock.sleep(1.0)
            yield number

    assert list(stream(3)) == [0, 1, 2]
    (event,) = there.calls()
    assert (event.outcome, event.duration_ms) == (Outcome.OK, 3000)


def test_a_generator_left_early_was_cancelled(there: World) -> None:
    @there.fuse.tool(effect=READ)
    def stream() -> Iterator[int]:
        yield from range(10)

    items = stream()
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert [call.outcome for call in there.calls()] == [Outcome.CANCELLED]


def test_an_asynchronous_generator_is_one_call(there: World) -> None:
    closed = []

    @there.fuse.tool(effect=READ)
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def main() -> list[int]:
        return [item async for item in stream()]

    assert asyncio.run(main()) == [1, 2]
    assert closed == [True]
    assert [call.outcome for call in there.calls()] == [Outcome.OK]


# --------------------------------------------------------------------- async


def test_coroutines_are_guarded(there: World) -> None:
    @there.fuse.tool(effect=READ)
    async def look(order_id: str) -> str:
        await asyncio.sleep(0)
        assert current_call() is not None
        return order_id

    assert inspect.iscoroutinefunction(look)
    assert asyncio.run(look("42")) == "42"
    assert [call.outcome for call in there.calls()] == [Outcome.OK]


def test_an_asynchronous_call_is_cut_off_at_its_budget(there: World) -> None:
    @there.fuse.tool(effect=READ, timeout=0.01)
    async def look() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(look())
    (event,) = there.calls()
    assert event.outcome is Outcome.TIMEOUT


def test_a_cancelled_task_is_cancelled_not_failed(there: World) -> None:
    started = asyncio.Event()

    @there.fuse.tool(effect=READ, timeout=60)
    async def look() -> None:
        started.set()
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.create_task(look())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert [call.outcome for call in there.calls()] == [Outcome.CANCELLED]


def test_concurrent_calls_do_not_see_each_other(there: World) -> None:
    @there.fuse.tool(effect=READ)
    async def look(number: int) -> tuple[str, str]:
        before = current_call()
        await asyncio.sleep(0)
        after = current_call()
        assert before is after
        assert before is not None
        return before.idempotency_key, before.span_id

    async def main() -> list[tuple[str, str]]:
        return await asyncio.gather(*(look(number) for number in range(50)))

    assert len(set(asyncio.run(main()))) == 50


def test_an_asynchronous_approval_is_awaited(there: World) -> None:
    from fuseboard import Action, Scope

    async def approve(call: Any) -> bool:
        await asyncio.sleep(0)
        return True

    @there.fuse.tool(effect=Effect.WRITE, approve=approve)
    async def refund() -> str:
        return "done"

    there.command(command(Scope.ACTOR, Action.REQUIRE_APPROVAL))
    assert asyncio.run(refund()) == "done"


def test_waiting_for_the_first_catch_up_does_not_block_the_loop() -> None:
    there = world(ready_timeout_s=2.0)

    @there.fuse.tool(effect=Effect.IRREVERSIBLE)
    async def destroy() -> str:
        return "done"

    async def main() -> str:
        task = asyncio.create_task(destroy())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
        there.alive()
        return await task

    assert asyncio.run(main()) == "done"


# -------------------------------------------------------------------- blocks


def test_a_block_is_one_call(there: World) -> None:
    with there.fuse.call("billing.refund", effect=Effect.WRITE, args={"order": "42"}, idempotency_key="k") as call:
        there.clock.sleep(0.1)
        assert current_call() is call
        assert call.idempotency_key == "k"
    assert current_call() is None
    (event,) = there.calls()
    assert (event.tool, event.outcome, event.duration_ms) == ("billing.refund", Outcome.OK, 100)
    assert event.idempotency_key == "k"


def test_a_block_that_raises_failed(there: World) -> None:
    with pytest.raises(KeyError), there.fuse.call("x", effect=READ):
        raise KeyError
    assert [call.error_type for call in there.calls()] == ["KeyError"]


def test_a_refused_block_is_not_entered(there: World) -> None:
    there.fuse.call("refund", effect=READ)
    there.command(command())
    with pytest.raises(ToolBlocked), there.fuse.call("refund", effect=READ):
        pytest.fail("the block ran")
    assert [call.outcome for call in there.calls()] == [Outcome.DENIED]


def test_an_asynchronous_block_is_cut_off_at_its_budget(there: World) -> None:
    async def main() -> None:
        async with there.fuse.call("x", effect=READ, timeout=0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert [call.outcome for call in there.calls()] == [Outcome.TIMEOUT]


def test_another_actor_can_act_in_one_call(there: World) -> None:
    with there.fuse.call("x", effect=READ, actor="helper"):
        pass
    assert [call.actor for call in there.calls()] == ["helper"]


# ------------------------------------------------------------------- retries


def test_attempts_of_one_logical_call_share_a_key(there: World) -> None:
    failures = [True, True, False]

    @there.fuse.tool(effect=Effect.WRITE)
    def refund(order_id: str) -> str:
        if failures.pop(0):
            raise ConnectionError
        return order_id

    with there.fuse.retrying():
        for _ in range(3):
            try:
                refund("42")
            except ConnectionError:
                continue
    calls = there.calls()
    assert [call.attempt for call in calls] == [1, 2, 3]
    assert len({call.idempotency_key for call in calls}) == 1


def test_a_call_after_a_success_is_a_new_one(there: World) -> None:
    refund = there.fuse.tool(effect=Effect.WRITE, name="refund")(lambda order_id: order_id)
    with there.fuse.retrying():
        refund("42")
        refund("42")
        refund("43")
    calls = there.calls()
    assert [call.attempt for call in calls] == [1, 1, 1]
    assert len({call.idempotency_key for call in calls}) == 3


def test_without_a_block_every_call_is_its_own(there: World) -> None:
    refund = there.fuse.tool(effect=Effect.WRITE, name="refund")(lambda order_id: order_id)
    refund("42")
    refund("42")
    assert len({call.idempotency_key for call in there.calls()}) == 2


def test_a_key_made_from_the_arguments_is_stable_everywhere(there: World) -> None:
    tool = there.fuse.tool(effect=Effect.WRITE, name="refund", idempotency_key=lambda order_id: f"refund-{order_id}")

    @tool
    def refund(order_id: str) -> str | None:
        call = current_call()
        return None if call is None else call.idempotency_key

    assert refund("42") == "refund-42"
    assert refund(order_id="42") == "refund-42"
    with there.fuse.retrying():
        assert refund("42") == "refund-42"


def test_a_refused_attempt_counts_as_an_attempt(there: World) -> None:
    refund = there.fuse.tool(effect=Effect.WRITE, name="refund")(lambda: None)
    there.command(command())
    with there.fuse.retrying():
        for _ in range(2):
            with pytest.raises(ToolBlocked):
                refund()
    assert [call.attempt for call in there.calls()] == [1, 2]


# ------------------------------------------------------------------- threads


def test_every_call_of_every_thread_arrives_once_and_numbered(there: World) -> None:
    look = there.fuse.tool(effect=READ, name="look")(lambda: None)
    threads = [threading.Thread(target=lambda: [look() for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there.deliver(20)
    calls = there.calls()
    assert [call.seq for call in calls] == list(range(4000))
    assert len({call.event_id for call in calls}) == 4000
    assert len({call.span_id for call in calls}) == 4000


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_a_cost_that_is_no_amount_does_not_cost_the_event(there: World, cost: float) -> None:
    with there.fuse.session("s"), there.fuse.task() as task:
        task.cost_usd = cost
        with there.fuse.call("look", effect=READ) as call:
            call.cost_usd = call.amount_usd = cost
    (made,) = there.calls()
    assert (made.outcome, made.cost_usd_micros, made.amount_usd_micros) == (Outcome.OK, None, None)
