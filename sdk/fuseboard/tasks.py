"""Sessions, tasks and traces as ``with`` blocks, and the steps recorded inside them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from fuseboard.calls import micros, outcome_of
from fuseboard.context import TraceContext, current, parse_traceparent
from fuseboard.totals import TaskTotals
from fuseboard_schemas.records import Outcome, RouteTier, StepKind, TaskOutcome, TaskResult, TraceStep

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from fuseboard.runtime import Runtime


class Scope:
    """A block that is one place in a trace; works as ``with`` and as ``async with``."""

    def __init__(self, runtime: Runtime, actor: str, traceparent: str | None) -> None:
        self._runtime = runtime
        self._default_actor = actor
        self._traceparent = traceparent
        self._token: Token[TraceContext | None] | None = None
        self._started = 0.0
        self._context: TraceContext | None = None

    @property
    def context(self) -> TraceContext:
        """The ids of this block.

        Raises:
            RuntimeError: The block has not been entered.
        """
        if self._context is None:
            raise RuntimeError(f"{type(self).__name__} has ids only inside its with block.")
        return self._context

    @property
    def trace_id(self) -> str:
        """W3C trace id."""
        return self.context.trace_id

    @property
    def session_id(self) -> str | None:
        """The session, if there is one."""
        return self.context.session_id

    @property
    def task_id(self) -> str | None:
        """The task, if there is one."""
        return self.context.task_id

    @property
    def traceparent(self) -> str:
        """W3C ``traceparent`` for requests made from inside the block."""
        return self.context.traceparent

    def _open(self, outer: TraceContext | None) -> TraceContext:
        """The place in the trace that this block is; ``outer`` is where it was opened."""
        return self._new_trace(outer)

    def _new_trace(self, outer: TraceContext | None) -> TraceContext:
        """A new trace, or the caller's; session, task and actor stay."""
        ids = self._runtime.ids
        remote = parse_traceparent(self._traceparent)
        own = outer if outer is not None and outer.owner is self._runtime else None
        return TraceContext(
            trace_id=ids.trace_id() if remote is None else remote.trace_id,
            span_id=ids.span_id() if remote is None else remote.span_id,
            flags="01" if remote is None else remote.flags,
            session_id=None if outer is None else outer.session_id,
            task_id=None if outer is None else outer.task_id,
            intent=None if outer is None else outer.intent,
            actor=self._default_actor if own is None or own.actor is None else own.actor,
            owner=self._runtime,
            task=None if outer is None else outer.task,
        )

    def _opened(self) -> None:
        """Record the beginning."""

    def _ended(self, error: BaseException | None) -> None:
        """Record the end."""

    def _elapsed_ms(self) -> int:
        return round((self._runtime.clock() - self._started) * 1000)

    def __enter__(self) -> Self:
        self._started = self._runtime.clock()
        self._context = self._open(current.get())
        self._token = current.set(self._context)
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended(error)
        if self._token is not None:
            with suppress(ValueError):  # Closed in another context than it was opened in: nothing to put back.
                current.reset(self._token)
            self._token = None

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class Trace(Scope):
    """A trace of its own, or the continuation of a caller's; records nothing by itself."""


class Actor(Scope):
    """A block in which another actor acts, in the same session, task and trace."""

    def _open(self, outer: TraceContext | None) -> TraceContext:
        if outer is None:
            return replace(self._new_trace(None), shared=False)
        return outer.with_actor(self._default_actor, self._runtime)


class Session(Scope):
    """A conversation or session of an actor; records its start and its end.

    Args:
        runtime: The process's publisher.
        actor: Who acts.
        session_id: The session's id; None makes one.
        traceparent: W3C trace context of the request that opened it.
    """

    def __init__(self, runtime: Runtime, actor: str, session_id: str | None, traceparent: str | None) -> None:
        super().__init__(runtime, actor, traceparent)
        self._session_id = session_id

    def _open(self, outer: TraceContext | None) -> TraceContext:
        session_id = self._session_id or self._runtime.ids.event_id()
        opened = self._new_trace(outer)
        shared = parse_traceparent(self._traceparent) is not None
        return replace(opened, session_id=session_id, task_id=None, task=None, actor=self._default_actor, shared=shared)

    def _opened(self) -> None:
        record_step(self._runtime, self.context, StepKind.SESSION_START)

    def _ended(self, error: BaseException | None) -> None:
        record_step(self._runtime, self.context, StepKind.SESSION_END, error=error, duration_ms=self._elapsed_ms())


class Task(Scope):
    """One task: a trace of its own, and a TaskOutcome at its end.

    Attributes:
        result: How the task ended. If the block does not set it: SUCCEEDED, FAILED after an error, ABANDONED when
            it was cancelled.
        score: Quality of the result from 0 to 1, if something measures it.
        cost_usd: Cost of the whole task, for tasks whose parts are not recorded.
    """

    def __init__(
        self,
        runtime: Runtime,
        actor: str,
        *,
        task_id: str | None,
        intent: str | None,
        task_type: str | None,
        traceparent: str | None,
    ) -> None:
        super().__init__(runtime, actor, traceparent)
        self._task_id = task_id
        self._intent = intent
        self._task_type = task_type
        self._overridden = False
        self._override_reason: str | None = None
        self._totals: TaskTotals | None = None
        self.result: TaskResult | None = None
        self.score: float | None = None
        self.cost_usd: float | None = None

    def override(self, reason: str | None = None) -> None:
        """Note that a person undid or redid what the agent had done."""
        self._overridden = True
        self._override_reason = reason

    def _open(self, outer: TraceContext | None) -> TraceContext:
        self._totals = TaskTotals(self._started)
        opened = self._new_trace(outer)
        task_id = self._task_id or self._runtime.ids.event_id()
        return replace(opened, task_id=task_id, intent=self._intent or opened.intent, task=self._totals)

    def _ended(self, error: BaseException | None) -> None:
        context, totals = self.context, self._totals
        if totals is None or context.actor is None:
            return
        self._runtime.record(
            TaskOutcome(
                event_id="",
                ts=self._runtime.wall_us(),
                tenant=self._runtime.settings.tenant,
                actor=context.actor,
                trace_id=context.trace_id,
                span_id=context.span_id,
                session_id=context.session_id,
                task_id=context.task_id,
                result=self.result or _result_of(error),
                user_override=self._overridden,
                override_reason=self._override_reason,
                task_type=self._task_type,
                score=self.score,
                cost_usd_micros=micros(self.cost_usd),
                tokens_in=totals.tokens_in if totals.model_calls else None,
                tokens_out=totals.tokens_out if totals.model_calls else None,
                time_to_first_action_ms=totals.time_to_first_action_ms,
                duration_ms=self._elapsed_ms(),
                tool_calls=totals.tool_calls,
                model_calls=totals.model_calls,
            )
        )


def _result_of(error: BaseException | None) -> TaskResult:
    if error is None:
        return TaskResult.SUCCEEDED
    return TaskResult.ABANDONED if outcome_of(error) is Outcome.CANCELLED else TaskResult.FAILED


class Step:
    """A model call or a retrieval as a block; set what it used before the block ends.

    Attributes:
        model: The model that answered.
        tokens_in: Tokens sent.
        tokens_out: Tokens received.
        cost_usd: What it cost.
        source: Where retrieved data came from.
        source_age_s: How old that data was, in seconds.
    """

    def __init__(
        self,
        runtime: Runtime,
        actor: str,
        kind: StepKind,
        *,
        provider: str | None = None,
        model: str | None = None,
        route_tier: RouteTier = RouteTier.NONE,
        source: str | None = None,
        source_age_s: float | None = None,
    ) -> None:
        self._runtime = runtime
        self._actor = actor
        self._kind = kind
        self._provider = provider
        self._route_tier = route_tier
        self._started = 0.0
        self.model = model
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.cost_usd: float | None = None
        self.source = source
        self.source_age_s = source_age_s

    def __enter__(self) -> Self:
        self._started = self._runtime.clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.record(error, round((self._runtime.clock() - self._started) * 1000))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def record(self, error: BaseException | None, duration_ms: int | None) -> None:
        """Publish the step."""
        record_step(
            self._runtime,
            place(self._runtime, self._actor),
            self._kind,
            error=error,
            duration_ms=duration_ms,
            step=self,
        )

    @property
    def provider(self) -> str | None:
        """Who runs the model."""
        return self._provider

    @property
    def route_tier(self) -> RouteTier:
        """The tier that the router chose."""
        return self._route_tier


def place(runtime: Runtime, actor: str) -> TraceContext:
    """Where the code now running is: the open block, or a trace of its own; with the one who acts."""
    context = current.get()
    if context is None:
        return TraceContext(runtime.ids.trace_id(), runtime.ids.span_id(), actor=actor, owner=runtime)
    if context.owner is runtime and context.actor is not None:
        return context
    return context.with_actor(actor, runtime)


def record_step(
    runtime: Runtime,
    context: TraceContext,
    kind: StepKind,
    *,
    error: BaseException | None = None,
    duration_ms: int | None = None,
    step: Step | None = None,
    summary: str | None = None,
) -> None:
    """Publish one TraceStep at a place in a trace."""
    if step is not None and kind is StepKind.LLM_CALL and context.task is not None:
        context.task.add_model(step.tokens_in, step.tokens_out)
    runtime.record(
        TraceStep(
            event_id="",
            ts=runtime.wall_us(),
            tenant=runtime.settings.tenant,
            actor=context.actor or runtime.settings.actor,
            trace_id=context.trace_id,
            span_id=runtime.ids.span_id(),
            session_id=context.session_id,
            task_id=context.task_id,
            kind=kind,
            provider=None if step is None else step.provider,
            model=None if step is None else step.model,
            route_tier=RouteTier.NONE if step is None else step.route_tier,
            tokens_in=None if step is None else step.tokens_in,
            tokens_out=None if step is None else step.tokens_out,
            cost_usd_micros=None if step is None else micros(step.cost_usd),
            duration_ms=duration_ms,
            outcome=Outcome.OK if error is None else outcome_of(error),
            error_type=None if error is None else type(error).__qualname__,
            source=None if step is None else step.source,
            source_age_s=None if step is None else step.source_age_s,
            summary=summary,
        )
    )
