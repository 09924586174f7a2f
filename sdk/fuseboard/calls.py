"""One attempt at one tool: what the tool may ask about it, and the event it becomes."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from fuseboard.transport import BY_KEY
from fuseboard_schemas.records import DeniedBy, Outcome, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard.context import TraceContext
    from fuseboard.envelope import Counter
    from fuseboard.gate import Admission, Slot

_INTENT_LENGTH = 200
_MOST_USD = 1e12
"""More than this is no amount; what fits into 64 bits as micro-dollars is nine times as much."""
_TIMEOUT_NAMES = ("Timeout", "TimeoutError", "TimeoutException", "DeadlineExceeded")


class Call:
    """An attempt under way, or ended. The tool reaches its own through :func:`current_call`.

    Attributes:
        trace_id: W3C trace id.
        span_id: W3C span id of this attempt.
        attempt: 1 for the first attempt of a logical call, 2 for its first retry.
        idempotency_key: The same for all attempts of one logical call; pass it on to whatever the tool calls.
        started: The monotonic clock at the start, in seconds.
        deadline: The monotonic clock at which the timeout budget is used up; None without a budget.
        probe: Whether a half-open breaker admitted the call to see if the tool has recovered.
        cost_usd: What the attempt cost; the tool sets it.
        amount_usd: The amount of money it moved; the tool sets it.
        compensates: Idempotency key of the call that this one undoes; the tool sets it.
        outcome: How the attempt ended, None while it runs.
    """

    __slots__ = (
        "_clock",
        "_error",
        "amount_usd",
        "args_hash",
        "attempt",
        "compensates",
        "context",
        "cost_usd",
        "deadline",
        "denied_by",
        "duration_s",
        "error_type",
        "gate_breaker",
        "gate_epoch",
        "idempotency_key",
        "intent",
        "outcome",
        "probe",
        "slot",
        "span_id",
        "started",
        "trace_id",
        "ts",
    )

    def __init__(
        self,
        slot: Slot,
        context: TraceContext | None,
        trace_id: str,
        span_id: str,
        args_hash: str | None,
        timeout: float | None,
        clock: Callable[[], float],
    ) -> None:
        self.slot = slot
        self.context = context
        self.trace_id = trace_id
        self.span_id = span_id
        self.args_hash = args_hash
        self.idempotency_key = f"{trace_id}-{span_id}"
        self.attempt = 1
        self.probe = False
        self.gate_breaker: str | None = None
        self.gate_epoch: int | None = None
        self.cost_usd: float | None = None
        self.amount_usd: float | None = None
        self.compensates: str | None = None
        self.intent: str | None = None
        self.outcome: Outcome | None = None
        self.error_type: str | None = None
        self.denied_by = DeniedBy.NONE
        self._error: str | None = None
        self._clock = clock
        self.started = clock()
        self.deadline = None if timeout is None else self.started + timeout
        self.duration_s = 0.0
        self.ts = 0

    @property
    def tool(self) -> str:
        """Name of the tool."""
        return self.slot.tool

    @property
    def actor(self) -> str:
        """Who acts."""
        return self.slot.actor

    @property
    def tenant(self) -> str:
        """The tenant of the actor."""
        return self.slot.tenant

    @property
    def traceparent(self) -> str:
        """W3C ``traceparent`` for requests that the tool makes."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.context is None else self.context.flags}"

    def remaining(self) -> float | None:
        """Seconds left of the timeout budget, at least 0; None without a budget. Pass it on as a client's timeout."""
        return None if self.deadline is None else max(0.0, self.deadline - self._clock())

    def fail(self, error_type: str) -> None:
        """Count the attempt as failed although nothing is raised, for tools that report errors as results.

        Args:
            error_type: Class of the error, for example ``http_503``; never a message with data in it.
        """
        self._error = error_type

    def admit(self, admission: Admission) -> None:
        """Note on which terms the gate let the call pass."""
        breaker = admission.breaker
        if breaker is not None:
            self.gate_breaker = breaker.command.breaker_id
            self.gate_epoch = breaker.command.epoch
            self.probe = breaker.half_open

    def restart(self) -> None:
        """Start the clock again after waiting for the gate, which is not the tool's time."""
        now = self._clock()
        if self.deadline is not None:
            self.deadline += now - self.started
        self.started = now

    def end(self, ts: int, error: BaseException | None) -> None:
        """Fix the outcome.

        Args:
            ts: Wall clock, microseconds since 1970-01-01 UTC.
            error: What the tool raised.
        """
        self.duration_s = self._clock() - self.started
        self.ts = ts
        if error is not None:
            self.outcome = outcome_of(error)
            self.error_type = type(error).__qualname__
        elif self._error is not None:
            self.outcome = Outcome.ERROR
            self.error_type = self._error
        else:
            self.outcome = Outcome.OK

    def deny(self, ts: int, by: DeniedBy) -> None:
        """Fix the outcome of a call that was refused."""
        self.duration_s = self._clock() - self.started
        self.ts = ts
        self.outcome = Outcome.DENIED
        self.denied_by = by
        self.probe = False

    # ------------------------------------------------------------- as an event

    @property
    def counter(self) -> Counter:
        """See :class:`fuseboard.envelope.Event`."""
        return (self.slot.tenant, self.slot.actor, "tool_calls")

    @property
    def partition(self) -> int:
        """See :class:`fuseboard.envelope.Event`."""
        return BY_KEY

    def build(self, client_id: int, seq: int, new_id: Callable[[], str]) -> ToolCall:
        """See :class:`fuseboard.envelope.Event`."""
        slot, context = self.slot, self.context
        intent = self.intent or (context.intent if context is not None else None)
        return ToolCall(
            event_id=new_id(),
            ts=self.ts,
            tenant=slot.tenant,
            actor=slot.actor,
            client_id=client_id,
            seq=seq,
            trace_id=self.trace_id,
            span_id=self.span_id,
            session_id=None if context is None else context.session_id,
            task_id=None if context is None else context.task_id,
            intent=None if intent is None else intent[:_INTENT_LENGTH],
            tool=slot.tool,
            effect=slot.effect,
            outcome=self.outcome or Outcome.CANCELLED,
            denied_by=self.denied_by,
            error_type=self.error_type,
            duration_ms=round(self.duration_s * 1000),
            cost_usd_micros=micros(self.cost_usd),
            amount_usd_micros=micros(self.amount_usd),
            attempt=self.attempt,
            idempotency_key=self.idempotency_key,
            compensates=self.compensates,
            probe=self.probe,
            args_hash=self.args_hash,
            gate_breaker=self.gate_breaker,
            gate_epoch=self.gate_epoch,
        )

    def __repr__(self) -> str:
        return f"<Call {self.tool} of {self.actor}, attempt {self.attempt}, {self.outcome or 'running'}>"


running: ContextVar[Call | None] = ContextVar("fuseboard_call", default=None)


def current_call() -> Call | None:
    """The call that the code now running is part of: its idempotency key, what is left of its time, its trace."""
    return running.get()


def outcome_of(error: BaseException) -> Outcome:
    """How a call that raised ``error`` ended: TIMEOUT, CANCELLED or ERROR."""
    if isinstance(error, TimeoutError):
        return Outcome.TIMEOUT
    if isinstance(error, Exception):
        # Clients have timeout classes of their own: requests.Timeout, httpx.TimeoutException, grpc's DeadlineExceeded.
        names = (kind.__name__ for kind in type(error).__mro__)
        return Outcome.TIMEOUT if any(name.endswith(_TIMEOUT_NAMES) for name in names) else Outcome.ERROR
    if isinstance(error, KeyboardInterrupt | GeneratorExit) or type(error).__name__ == "CancelledError":
        return Outcome.CANCELLED
    return Outcome.ERROR


def micros(usd: float | None) -> int | None:
    """Dollars as whole micro-dollars; None for what is no amount, which must not cost the event that it is in."""
    return round(usd * 1_000_000) if usd is not None and abs(usd) <= _MOST_USD else None
