"""The client that an agent holds: guards tools, opens sessions and tasks, records steps."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from fuseboard.context import current
from fuseboard.errors import ConfigurationError
from fuseboard.gate import OnStale
from fuseboard.retries import Retrying
from fuseboard.runtime import Runtime
from fuseboard.settings import Settings, check_name
from fuseboard.tasks import Actor, Session, Step, Task, Trace, place, record_step
from fuseboard.tools import CallScope, Tool, Wrapper
from fuseboard.view import every_tool, interest
from fuseboard_schemas.keys import breaker_id
from fuseboard_schemas.records import Effect, ModelAccess, RouteTier, Scope, SessionRequest, StepKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from fuseboard.calls import Call
    from fuseboard.envelope import ActorRecord
    from fuseboard.publisher import Counts
    from fuseboard.settings import KafkaSettings
    from fuseboard_schemas.records import BreakerCommand

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound="Callable[..., Any]")


def _by_name(method: F) -> F:
    """Tell what to write to those who wrote ``@fuse.tool`` alone, or gave the effect without its name."""

    @functools.wraps(method)
    def checked(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - has the signature of the method
        if len(given) > 1 or "effect" not in named:
            what = getattr(given[1], "__name__", str(given[1])) if len(given) > 1 else "no effect"
            raise ConfigurationError(
                f"@fuse.tool was given {what}; settings by name were expected. What a call does to the world must be "
                "said for every tool: write @fuse.tool(effect=Effect.READ), or WRITE, or IRREVERSIBLE; another name "
                "than the function's is name=..."
            )
        return method(*given, **named)

    return cast("F", checked)


class Fuseboard:
    """One actor's circuit breakers: every guarded call is decided locally, recorded once, and published.

    Nothing here waits for Kafka or raises because Kafka is away, except that a call which a stale control plane would
    refuse waits up to ``ready_timeout_s`` for the first catch-up. Threads start when they are needed. Safe to use from
    any number of threads and event loops, and across ``fork``.

    Every setting can also be given as an environment variable, for example ``FUSEBOARD_BOOTSTRAP``;
    :class:`fuseboard.settings.Settings` lists them all.

    Args:
        actor: The agent deployment on whose behalf this process acts; or ``FUSEBOARD_ACTOR``.
        tenant: The organisation or environment; ``default`` by default.
        bootstrap: Kafka bootstrap servers; ``localhost:9092`` by default.
        prefix: Prefix of the topic names; ``fuseboard.`` by default.
        kafka: librdkafka settings, for example ``{"security.protocol": "SSL"}``; from the environment
            ``FUSEBOARD_KAFKA__SECURITY_PROTOCOL``.
        enabled: False, or ``FUSEBOARD_DISABLED=1``, publishes nothing and admits every call; for tests.
        approve: Asked, with the call, when a breaker wants a person's approval; returns whether it is given. Without
            it such calls are refused.
        settings: Any other field of :class:`fuseboard.settings.Settings`.

    Raises:
        ConfigurationError: A setting has the wrong form, or no actor is named.
    """

    def __init__(
        self,
        actor: str | None = None,
        *,
        tenant: str | None = None,
        bootstrap: str | None = None,
        prefix: str | None = None,
        kafka: KafkaSettings | None = None,
        enabled: bool | None = None,
        approve: Callable[[Call], bool | Awaitable[bool]] | None = None,
        **settings: Any,  # noqa: ANN401 - checked against the fields of Settings
    ) -> None:
        unknown = sorted(set(settings) - set(Settings.__dataclass_fields__))
        if unknown:
            raise ConfigurationError(
                f"There is no setting {unknown[0]!r}. Known settings: {', '.join(Settings.__dataclass_fields__)}."
            )
        loaded = Settings.load(
            actor=actor, tenant=tenant, bootstrap=bootstrap, prefix=prefix, kafka=kafka, enabled=enabled, **settings
        )
        self._set_up(Runtime(loaded), loaded.actor, approve)

    @classmethod
    def of(
        cls,
        runtime: Runtime,
        actor: str | None = None,
        approve: Callable[[Call], bool | Awaitable[bool]] | None = None,
    ) -> Self:
        """A client on machinery that exists already, for tests and embedding."""
        client = cls.__new__(cls)
        client._set_up(runtime, actor or runtime.settings.actor, approve)
        return client

    def _set_up(self, runtime: Runtime, actor: str, approve: Callable[[Call], bool | Awaitable[bool]] | None) -> None:
        self._runtime = runtime
        self._actor = actor
        self._approve = approve
        runtime.register_actor(actor)

    @property
    def actor(self) -> str:
        """Who acts where no session says otherwise."""
        return self._actor

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._runtime.settings

    @property
    def counts(self) -> Counts:
        """What became of the events of this process so far."""
        return self._runtime.publisher.counts

    @property
    def client_id(self) -> int:
        """Identity of this process as a producer: 64 random bits, new after a fork."""
        return self._runtime.publisher.client_id

    def as_actor(self, actor: str) -> Fuseboard:
        """A client for another actor of the same tenant that shares all machinery with this one."""
        check_name("actor", actor)
        return Fuseboard.of(self._runtime, actor, self._approve)

    # --------------------------------------------------------------------- tools

    @_by_name
    def tool(
        self,
        *,
        effect: Effect,
        name: str | None = None,
        timeout: float | None = None,
        on_stale: OnStale | str | None = None,
        idempotency_key: Callable[..., str] | None = None,
        approve: Callable[[Call], bool | Awaitable[bool]] | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Guard a function: sync, async, or a generator of either kind; its signature and its exceptions stay.

        Args:
            effect: What it does to the world: READ, WRITE or IRREVERSIBLE.
            name: Name of the tool; the function's name by default.
            timeout: Seconds one attempt may take. An async function is cancelled and raises TimeoutError; a sync one
                cannot be interrupted: it must pass ``current_call().remaining()`` to what it calls, and counts as
                timed out only if it raises a timeout error. In a generator the budget is only shown.
            on_stale: ``allow``, ``warn`` or ``deny`` while the control plane is stale. By default READ is allowed,
                WRITE allowed with a warning event, IRREVERSIBLE denied.
            idempotency_key: Computes the key from the arguments; by default each logical call gets one of its own,
                and the attempts inside :meth:`retrying` share it.
            approve: As for the client.

        Raises:
            ConfigurationError: The effect is unknown, the name is empty, or what is decorated is no function.
        """

        def guard(function: Callable[..., Any]) -> Callable[..., Any]:
            if isinstance(function, type) or not callable(function):
                raise ConfigurationError(
                    f"@fuse.tool was put on {function!r}; a function was expected. Of a class, guard the methods."
                )
            label = name if name is not None else getattr(function, "__name__", "")
            tool = self._tool(label, effect, timeout, on_stale, approve)
            return Wrapper(tool, self._runtime.hasher.digest, idempotency_key).wrap(function)

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if isinstance(function, staticmethod | classmethod):
                return cast("Callable[P, R]", type(function)(guard(function.__func__)))
            return guard(function)

        return decorate

    def call(
        self,
        name: str,
        *,
        effect: Effect,
        args: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        on_stale: OnStale | str | None = None,
        idempotency_key: str | None = None,
        actor: str | None = None,
        approve: Callable[[Call], bool | Awaitable[bool]] | None = None,
    ) -> CallScope:
        """Guard a block of code as one attempt at a tool, with ``with`` or ``async with``.

        Args:
            name: Name of the tool.
            effect: What it does to the world.
            args: Its arguments, of which only a keyed hash is kept.
            timeout: Seconds; ``async with`` cancels the block, ``with`` shows what is left in ``call.remaining()``.
            on_stale: As for :meth:`tool`.
            idempotency_key: Key of the logical call.
            actor: Who acts in this call.
            approve: As for the client.

        Raises:
            ConfigurationError: The effect is unknown, or the name is empty.
        """
        tool = self._tool(name, effect, timeout, on_stale, approve)
        digest = None if args is None else self._runtime.hasher.digest((), (), dict(args))
        return CallScope(tool, digest, idempotency_key, actor)

    def _tool(
        self,
        name: str,
        effect: Effect,
        timeout: float | None,
        on_stale: OnStale | str | None,
        approve: Callable[[Call], bool | Awaitable[bool]] | None,
    ) -> Tool:
        check_name("name of the tool", name)
        given: object = timeout
        if given is not None and not (isinstance(given, int | float) and given > 0):
            raise ConfigurationError(
                f"The timeout of the tool {name} is {timeout!r}; seconds above 0 were expected, or None for any time."
            )
        try:
            return Tool(
                self._runtime,
                name,
                effect,
                self._actor,
                timeout=timeout,
                on_stale=on_stale,
                approve=approve or self._approve,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"The tool {name} cannot be guarded: {error}. An effect is one of {', '.join(Effect)}; on_stale is one "
                f"of {', '.join(OnStale)}."
            ) from None

    def retrying(self) -> Retrying:
        """A block in which calling the same tool with the same arguments again is a retry, until it succeeds."""
        return Retrying()

    # ----------------------------------------------------------- sessions and tasks

    def session(
        self, session_id: str | None = None, *, actor: str | None = None, traceparent: str | None = None
    ) -> Session:
        """A session, with ``with`` or ``async with``: records its start and end; calls inside belong to it."""
        return Session(self._runtime, self._known(actor), session_id, traceparent)

    def task(
        self,
        task_id: str | None = None,
        *,
        intent: str | None = None,
        task_type: str | None = None,
        traceparent: str | None = None,
    ) -> Task:
        """A task: a trace of its own, or the one of ``traceparent``, and a TaskOutcome at the end."""
        return Task(
            self._runtime,
            self._actor,
            task_id=task_id,
            intent=intent,
            task_type=task_type,
            traceparent=traceparent,
        )

    def trace(self, traceparent: str | None = None) -> Trace:
        """A trace of its own, or the continuation of a caller's."""
        return Trace(self._runtime, self._actor, traceparent)

    def acting_as(self, actor: str) -> Actor:
        """A block in which another actor acts, in the same session, task and trace."""
        return Actor(self._runtime, self._known(actor), None)

    def _known(self, actor: str | None) -> str:
        if actor is None:
            return self._actor
        check_name("actor", actor)
        self._runtime.register_actor(actor)
        return actor

    def traceparent(self) -> str | None:
        """W3C ``traceparent`` of the open block, for requests made from here; None outside of any."""
        context = current.get()
        return None if context is None else context.traceparent

    # ------------------------------------------------------------------------ steps

    def model_call(self, provider: str, model: str, *, route_tier: RouteTier = RouteTier.NONE) -> Step:
        """A model call as a block; set ``tokens_in``, ``tokens_out`` and ``cost_usd`` on it before it ends."""
        return Step(
            self._runtime, self._actor, StepKind.LLM_CALL, provider=provider, model=model, route_tier=route_tier
        )

    def record_model_call(
        self,
        provider: str,
        model: str,
        *,
        tokens_in: int | None = None,
        tokens_out: int | None = None,
        cost_usd: float | None = None,
        duration_ms: int | None = None,
        route_tier: RouteTier = RouteTier.NONE,
        error: BaseException | None = None,
    ) -> None:
        """Record a model call that has ended."""
        step = self.model_call(provider, model, route_tier=route_tier)
        step.tokens_in, step.tokens_out, step.cost_usd = tokens_in, tokens_out, cost_usd
        step.record(error, duration_ms)

    def retrieval(self, source: str, age_s: float | None = None) -> Step:
        """A retrieval as a block.

        Args:
            source: Where the data comes from.
            age_s: How old it is, in seconds; may also be set on the block.
        """
        return Step(self._runtime, self._actor, StepKind.RETRIEVAL, source=source, source_age_s=age_s)

    def record_retrieval(self, source: str, age_s: float | None = None, *, duration_ms: int | None = None) -> None:
        """Record a retrieval that has ended."""
        self.retrieval(source, age_s).record(None, duration_ms)

    def record_step(self, kind: StepKind, *, summary: str | None = None, duration_ms: int | None = None) -> None:
        """Record a plan, a hand-off or any other step; ``summary`` must hold no prompt and no result."""
        record_step(self._runtime, place(self._runtime, self._actor), kind, duration_ms=duration_ms, summary=summary)

    def record_session_request(
        self,
        session_id: str,
        *,
        request_id: str | None = None,
        router: str | None = None,
        route: str | None = None,
        channel: str | None = None,
        accepted: bool = True,
    ) -> None:
        """Record, at the router, that a session was requested: what trace coverage is measured against."""
        here = place(self._runtime, self._actor)
        self._runtime.record(
            SessionRequest(
                event_id="",
                ts=self._runtime.wall_us(),
                tenant=self.settings.tenant,
                actor=here.actor or self._actor,
                trace_id=here.trace_id,
                span_id=here.span_id,
                session_id=session_id,
                task_id=here.task_id,
                request_id=request_id,
                router=router,
                route=route,
                channel=channel,
                accepted=accepted,
            )
        )

    def publish(self, record: ActorRecord) -> None:
        """Publish any record of an actor, for example a PolicyDecision; client id and sequence number are filled in."""
        self._runtime.record(record)

    # ---------------------------------------------------------------------- control

    def model_tier(self) -> ModelAccess:
        """Which models the actor may call now: ANY, or FAST_ONLY while a breaker asks for it."""
        here = place(self._runtime, self._actor)
        actor, tenant = here.actor or self._actor, self.settings.tenant
        breakers = self._runtime.view.snapshot.breakers
        ids = [breaker_id(Scope.ACTOR, tenant, actor=actor), breaker_id(Scope.TENANT, tenant)]
        ids.append(breaker_id(Scope.SESSION, tenant, actor=actor, trace_id=here.trace_id))
        limited = any((breaker := breakers.get(key)) is not None and breaker.fast_model_only for key in ids)
        return ModelAccess.FAST_ONLY if limited else ModelAccess.ANY

    def ready(self) -> bool:
        """Whether every breaker has been read that any call of the actor may meet, and the worker is alive."""
        runtime = self._runtime
        whole = interest(Scope.TENANT, self.settings.tenant)
        wanted = {interest(Scope.ACTOR, self.settings.tenant, self._actor), whole, every_tool(whole)}
        fresh = runtime.view.freshness(self.settings.tenant, self._actor)
        return wanted <= runtime.view.snapshot.covered and runtime.clock() < fresh.until

    def on_command(self, listener: Callable[[BreakerCommand], None]) -> None:
        """Have a function called with each breaker command that concerns this process, as soon as it is in force.

        It runs on the thread that follows the commands and must return quickly: meanwhile no further command is
        applied. What it raises is logged. The state that was found at the start is announced too.
        """
        self._runtime.listeners.append(listener)

    def flush(self, timeout: float = 10.0) -> int:
        """Wait until everything recorded so far is confirmed by Kafka.

        Returns:
            How many events are not after ``timeout`` seconds; they are kept, not lost.
        """
        return self._runtime.publisher.flush(timeout)

    def close(self, timeout: float | None = None) -> int:
        """Flush and stop; called at the end of the process by itself. All actors sharing the machinery are closed.

        If calls have passed before their breakers were known, and ``ready_timeout_s`` is not over yet, this waits for
        the first catch-up too: only then it is clear whether to warn of a control plane that is not there.

        Returns:
            How many events Kafka had not confirmed; they are in the spool if there is one, else lost.
        """
        return self._runtime.close(self.settings.close_timeout_s if timeout is None else timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        settings = self.settings
        return f"<Fuseboard {settings.tenant}/{self._actor} at {settings.bootstrap}>"
