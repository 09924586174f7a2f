"""What a type checker must make of guarded functions; checked by test_typing.py, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type

from fuseboard import Call, Effect, Fuseboard, ModelAccess, current_call

fuse = Fuseboard(actor="a", enabled=False)


@fuse.tool(effect=Effect.READ)
def plain(order_id: str, deep: bool = False) -> dict[str, bool]:
    return {order_id: deep}


@fuse.tool(effect=Effect.READ, timeout=1.0, on_stale="allow", idempotency_key=lambda number: f"k-{number}")
async def coroutine(number: int) -> str:
    return str(number)


@fuse.tool(effect=Effect.READ)
def generator() -> Iterator[int]:
    yield 1


@fuse.tool(effect=Effect.READ)
async def async_generator() -> AsyncIterator[int]:
    yield 1


class Shop:
    """A tool that is a method."""

    @fuse.tool(effect=Effect.WRITE)
    def refund(self, order_id: str) -> float:
        return 1.0


async def cases() -> None:
    assert_type(plain("42", deep=True), dict[str, bool])
    assert_type(await coroutine(1), str)
    assert_type(generator(), Iterator[int])
    assert_type(async_generator(), AsyncIterator[int])
    assert_type(Shop().refund("42"), float)
    assert_type(current_call(), Call | None)
    assert_type(fuse.model_tier(), ModelAccess)
    callback: Callable[[int], Coroutine[Any, Any, str]] = coroutine
    assert_type(await callback(1), str)
    with fuse.call("x", effect=Effect.READ) as call:
        assert_type(call, Call)
    async with fuse.call("x", effect=Effect.READ) as call:
        assert_type(call.remaining(), float | None)
    plain(42)  # type: ignore[arg-type]
    plain()  # type: ignore[call-arg]
    fuse.tool(name="x")  # type: ignore[call-arg]
    fuse.tool(plain)  # type: ignore[call-arg, arg-type]
