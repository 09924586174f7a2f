"""Guarding a tool: decide, run, record, as a decorator and as a ``with`` block."""

from __future__ import annotations

import functools
import inspect
import logging
import time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from fuseboard.calls import Call, running
from fuseboard.context import current
from fuseboard.gate import DEFAULT_ON_STALE, FREE, Admission, OnStale, Slot, Wait
from fuseboard.retries import retrying
from fuseboard_schemas.records import DeniedBy, Effect

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator
    from contextvars import Token
    from types import TracebackType

    from fuseboard.errors import ToolBlocked
    from fuseboard.runtime import Runtime

P = ParamSpec("P")
R = TypeVar("R")
Approve = "Callable[[Call], bool | Awaitable[bool]]"

log = logging.getLogger("fuseboard.gate")

_WAIT_STEP_S = 0.01


class Tool:
    """A tool as this process guards it, for any number of actors.

    Args:
        runtime: The process's gate and publisher.
        name: Name of the tool.
        effect: What it does to the world.
        actor: Who acts where no session says otherwise.
        timeout: Seconds that a call may take; None for any time.
        on_stale: What becomes of calls while the control plane is stale; by default what fits the effect.
        approve: Asked when a breaker lets a call pass only with a person's approval.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        effect: Effect,
        actor: str,
        *,
        timeout: float | None = None,
        on_stale: OnStale | str | None = None,
        approve: Callable[[Call], bool | Awaitable[bool]] | None = None,
    ) -> None:
        self.name = name
        self.effect = Effect(effect)
        self.timeout = timeout
        self._on_stale = DEFAULT_ON_STALE[self.effect] if on_stale is None else OnStale(on_stale)
        self._approve = approve
        self._actor = actor
        self._runtime = runtime
        self._enabled = runtime.settings.enabled
        self._gate = runtime.gate
        self._decide = runtime.gate.decide
        self._clock = runtime.clock
        self._bits = runtime.ids.bits
        self._slots: dict[str, Slot] = {}
        self._slot(actor)

    def _slot(self, actor: str) -> Slot:
        slot = self._runtime.slot(actor, self.name, self.effect, self._on_stale)
        self._slots[actor] = slot
        return slot

    def start(self, args_hash: str | None, key: str | None = None, actor: str | None = None) -> Call:
        """Begin an attempt: who acts, in which trace, under which idempotency key."""
        context = current.get()
        if actor is None:
            if context is not None and context.actor is not None and context.owner is self._runtime:
                actor = context.actor
            else:
                actor = self._actor
        slot = self._slots.get(actor) or self._slot(actor)
        if context is not None and context.shared:
            trace_id = context.trace_id
        else:
            outer = running.get()
            trace_id = f"{self._bits(128) or 1:032x}" if outer is None else outer.trace_id
        call = Call(slot, context, trace_id, f"{self._bits(64) or 1:016x}", args_hash, self.timeout, self._clock)
        if key is not None:
            call.idempotency_key = key
        block = retrying.get()
        if block is not None:
            block.number(call, key)
        return call

    def admit(self, call: Call) -> None:
        """Let the call pass or refuse it.

        Raises:
            ToolBlocked: The call was refused; its event is published.
        """
        if not self._enabled:
            return
        decision = self._decide(call.slot, call.trace_id, call.started)
        if decision is FREE:
            return
        self._runtime.start_following()
        if isinstance(decision, Wait):
            deadline = self._clock() + self._runtime.settings.ready_timeout_s
            while isinstance(decision, Wait) and self._clock() < deadline:
                self._runtime.sleep(_WAIT_STEP_S)
                decision = self._decide(call.slot, call.trace_id, self._clock())
            decision = self._waited(call, decision)
        if isinstance(decision, Admission):
            call.admit(decision)
            if decision.needs_approval:
                self._judge(call, decision, self._ask(call))
            if decision.warn:
                self._runtime.warn_stale(call)
            return
        self._refuse(call, decision, DeniedBy.BREAKER)

    async def admit_async(self, call: Call) -> None:
        """The same without blocking the event loop.

        Raises:
            ToolBlocked: The call was refused; its event is published.
        """
        if not self._enabled:
            return
        decision = self._decide(call.slot, call.trace_id, call.started)
        if decision is FREE:
            return
        self._runtime.start_following()
        if isinstance(decision, Wait):
            import asyncio

            deadline = self._clock() + self._runtime.settings.ready_timeout_s
            while isinstance(decision, Wait) and self._clock() < deadline:
                await asyncio.sleep(_WAIT_STEP_S)
                decision = self._decide(call.slot, call.trace_id, self._clock())
            decision = self._waited(call, decision)
        if isinstance(decision, Admission):
            call.admit(decision)
            if decision.needs_approval:
                self._judge(call, decision, await self._ask_async(call))
            if decision.warn:
                self._runtime.warn_stale(call)
            return
        self._refuse(call, decision, DeniedBy.BREAKER)

    def _waited(self, call: Call, decision: Admission | ToolBlocked | Wait) -> Admission | ToolBlocked:
        call.restart()
        if isinstance(decision, Wait):
            # One wait per tool: a control plane that is not there must not slow every call.
            call.slot.waited = self._runtime.gate.life
            return decision.blocked
        return decision

    def _ask(self, call: Call) -> bool | Awaitable[bool]:
        if self._approve is None:
            return False
        try:
            return self._approve(call)
        except Exception:
            log.exception("The approve hook of %s failed: the call is not approved.", self.name)
            return False

    async def _ask_async(self, call: Call) -> bool:
        answer = self._ask(call)
        if not inspect.isawaitable(answer):
            return bool(answer)
        try:
            return await answer
        except Exception:
            log.exception("The approve hook of %s failed: the call is not approved.", self.name)
            return False

    def _judge(self, call: Call, admission: Admission, approved: bool | Awaitable[bool]) -> None:
        if inspect.isawaitable(approved):
            log.error("The approve hook of %s is asynchronous, but the call is not: it is not approved.", self.name)
            if inspect.iscoroutine(approved):
                approved.close()
            approved = False
        if not approved and admission.breaker is not None:
            by = DeniedBy.BREAKER if self._approve is None else DeniedBy.APPROVAL
            self._refuse(call, self._gate.refusal(call.slot, admission.breaker), by)
        call.restart()

    def _refuse(self, call: Call, blocked: ToolBlocked, by: DeniedBy) -> None:
        call.gate_breaker, call.gate_epoch = blocked.breaker_id, blocked.epoch
        call.deny(self._runtime.wall_us(), by)
        self._runtime.record_call(call)
        raise blocked

    def finish(self, call: Call, error: BaseException | None) -> None:
        """End an attempt and publish its event."""
        call.end(self._runtime.wall_us(), error)
        block = retrying.get()
        if block is not None:
            block.ended(call)
        self._runtime.record_call(call)

    def finish_later(self, call: Call, result: Any) -> Any:  # noqa: ANN401 - whatever the tool returned
        """End the attempt of a plain function when what it returned has been awaited, if that can be seen."""
        if inspect.iscoroutine(result):
            return self.run(call, lambda: result)
        if hasattr(type(result), "_asyncio_future_blocking"):  # The mark of asyncio's futures and tasks.
            result.add_done_callback(lambda future: self.finish(call, _error_of(future)))
        else:
            self.finish(call, None)
        return result

    async def run(self, call: Call, start: Callable[[], Awaitable[R]]) -> R:
        """Make the attempt and await it within the timeout; without one any event loop will do."""
        token = running.set(call)
        try:
            if self.timeout is None:
                result = await start()
            else:
                import asyncio

                async with asyncio.timeout(self.timeout):
                    result = await start()
        except BaseException as error:
            _leave(token)
            self.finish(call, error)
            raise
        _leave(token)
        self.finish(call, None)
        return result


class CallScope:
    """One attempt as a ``with`` or ``async with`` block; made by :meth:`fuseboard.Fuseboard.call`."""

    def __init__(self, tool: Tool, args_hash: str | None, key: str | None, actor: str | None) -> None:
        self._tool = tool
        self._args_hash = args_hash
        self._key = key
        self._actor = actor
        self._call: Call | None = None
        self._token: Token[Call | None] | None = None
        self._timeout: Any = None

    def __enter__(self) -> Call:
        call = self._tool.start(self._args_hash, self._key, self._actor)
        self._tool.admit(call)
        return self._begin(call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    async def __aenter__(self) -> Call:
        call = self._tool.start(self._args_hash, self._key, self._actor)
        await self._tool.admit_async(call)
        if self._tool.timeout is not None:
            import asyncio

            self._timeout = asyncio.timeout(self._tool.timeout)
            await self._timeout.__aenter__()
        return self._begin(call)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timeout is not None:
            try:
                await self._timeout.__aexit__(kind, error, trace)
            except TimeoutError as expired:
                self._end(expired)
                raise
        self._end(error)

    def _begin(self, call: Call) -> Call:
        self._call = call
        self._token = running.set(call)
        return call

    def _end(self, error: BaseException | None) -> None:
        token, call = self._token, self._call
        self._token = self._call = None
        if token is not None and call is not None:
            _leave(token)
            self._tool.finish(call, error)


def _error_of(future: Future[Any]) -> BaseException | None:
    from asyncio import CancelledError

    return CancelledError() if future.cancelled() else future.exception()


def _leave(token: Token[Call | None]) -> None:
    try:
        running.reset(token)
    except ValueError:
        # A generator that is closed by the garbage collector ends in another context than it began in.
        return


class Wrapper:
    """Makes guarded functions out of plain ones.

    Args:
        tool: What to guard.
        hasher: Hashes the arguments: parameter names, positional and keyword arguments.
        key: Computes the idempotency key from the arguments; None makes one per call.
    """

    def __init__(
        self,
        tool: Tool,
        hasher: Callable[[tuple[str, ...], tuple[Any, ...], dict[str, Any]], str | None],
        key: Callable[..., str] | None,
    ) -> None:
        self._tool = tool
        self._hash = hasher
        self._key = key

    def wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard a function, coroutine function, generator function or asynchronous generator function."""
        # An object that can be called is of the kind that its class says.
        bodies = (function, type(function).__call__)
        if any(map(inspect.isasyncgenfunction, bodies)):
            wrapped: Any = self._async_generator(cast("Any", function))
        elif any(map(inspect.iscoroutinefunction, bodies)):
            wrapped = self._coroutine(cast("Any", function))
        elif any(map(inspect.isgeneratorfunction, bodies)):
            wrapped = self._generator(cast("Any", function))
        else:
            wrapped = self._plain(function)
        return cast("Callable[P, R]", functools.wraps(function)(wrapped))

    def _starter(self, function: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], Call]:
        names, digest, key, start = positional_names(function), self._hash, self._key, self._tool.start

        def begin(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
            return start(digest(names, args, kwargs), None if key is None else key(*args, **kwargs))

        return begin

    def _plain(self, function: Callable[P, R]) -> Callable[P, R]:
        start, admit, finish = self._starter(function), self._tool.admit, self._tool.finish
        enter, leave = running.set, running.reset

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            call = start(args, kwargs)
            admit(call)
            token = enter(call)
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                leave(token)
                finish(call, error)
                raise
            leave(token)
            if hasattr(type(result), "__await__"):
                return cast("R", self._tool.finish_later(call, result))
            finish(call, None)
            return result

        return guarded

    def _coroutine(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        start, admit, run = self._starter(function), self._tool.admit_async, self._tool.run

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            call = start(args, kwargs)
            await admit(call)
            return await run(call, lambda: function(*args, **kwargs))

        return guarded

    def _generator(self, function: Callable[P, Generator[Any, Any, Any]]) -> Callable[P, Generator[Any, Any, Any]]:
        start, tool = self._starter(function), self._tool

        def guarded(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
            call = start(args, kwargs)
            tool.admit(call)
            try:
                result = yield from function(*args, **kwargs)
            except BaseException as error:
                tool.finish(call, error)
                raise
            tool.finish(call, None)
            return result

        return guarded

    def _async_generator(self, function: Callable[P, AsyncIterator[Any]]) -> Callable[P, AsyncIterator[Any]]:
        start, tool = self._starter(function), self._tool

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Any]:
            import contextlib

            call = start(args, kwargs)
            await tool.admit_async(call)
            try:
                async with contextlib.aclosing(cast("Any", function(*args, **kwargs))) as items:
                    async for item in items:
                        yield item
            except BaseException as error:
                tool.finish(call, error)
                raise
            tool.finish(call, None)

        return guarded


def positional_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters that may be passed by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # Some builtins have no signature.
        return ()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in positional)


def blocking_sleep(seconds: float) -> None:
    """Wait on the calling thread."""
    time.sleep(seconds)
