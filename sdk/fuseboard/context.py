"""Where a call belongs: session, task and W3C trace, carried by one context variable."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from fuseboard.totals import TaskTotals

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The session, task and trace that the code now running belongs to.

    Attributes:
        trace_id: W3C trace id, 32 lower-case hex digits.
        span_id: The parent span of what is called next, 16 lower-case hex digits.
        flags: W3C trace flags, two hex digits.
        session_id: The session, if one is open.
        task_id: The task, if one is open.
        intent: What the agent is trying to do, as a short label.
        actor: Who acts.
        owner: Identity of the client that opened it; another client in the process shares the ids, not the actor.
        task: Running totals of the open task.
        shared: Whether the calls made here belong to this trace. In a session, or as another actor, without a task or
            trace they do not: each is a trace of its own, or a session that lasts a day would count as one trace, of
            which only the first few failures are evidence.
    """

    trace_id: str
    span_id: str
    flags: str = "01"
    session_id: str | None = None
    task_id: str | None = None
    intent: str | None = None
    actor: str | None = None
    owner: object = None
    task: TaskTotals | None = None
    shared: bool = True

    @property
    def traceparent(self) -> str:
        """The W3C ``traceparent`` header for a request made from here."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def with_actor(self, actor: str, owner: object) -> TraceContext:
        """The same place, with somebody else acting."""
        return replace(self, actor=actor, owner=owner)


current: ContextVar[TraceContext | None] = ContextVar("fuseboard_context", default=None)


class Ids:
    """Random identifiers; seeded from the operating system and again after a fork.

    ``getrandbits`` of one generator is a single C call and therefore safe to share between threads.
    """

    def __init__(self, source: random.Random | None = None) -> None:
        import random

        self._source = source or random.Random(os.urandom(32))  # noqa: S311 - unique, not secret
        self.bits = self._source.getrandbits

    def reseed(self) -> None:
        """Break with the parent's sequence in a forked child."""
        self._source.seed(os.urandom(32))

    def trace_id(self) -> str:
        """A new W3C trace id; never all zeros."""
        return f"{self.bits(128) or 1:032x}"

    def span_id(self) -> str:
        """A new W3C span id; never all zeros."""
        return f"{self.bits(64) or 1:016x}"

    def event_id(self) -> str:
        """A new event id of 128 bits."""
        return f"{self.bits(128):032x}"

    def client_id(self) -> int:
        """A new client id: 64 bits as a signed integer, never 0."""
        value = self.bits(64) or 1
        return value - (1 << 64) if value >= 1 << 63 else value


@dataclass(frozen=True, slots=True)
class RemoteParent:
    """An incoming ``traceparent``: its trace id, the caller's span id, and the flags."""

    trace_id: str
    span_id: str
    flags: str


def parse_traceparent(header: str | None) -> RemoteParent | None:
    """Read a W3C ``traceparent``; None when there is none or it is invalid, as the specification asks."""
    match = _TRACEPARENT.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or set(trace_id) == {"0"} or set(span_id) == {"0"}:
        return None
    return RemoteParent(trace_id, span_id, flags)
