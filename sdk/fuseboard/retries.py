"""Which attempts belong to one logical call, so that its idempotency key stays the same over retries."""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fuseboard_schemas.records import Outcome

if TYPE_CHECKING:
    from types import TracebackType

    from fuseboard.calls import Call


@dataclass(slots=True)
class _Logical:
    idempotency_key: str
    attempts: int


class Retrying:
    """A block in which a repeated call of the same tool with the same arguments is a retry, until it succeeds.

    Works as ``with`` and as ``async with``; use it around a retry loop or a retrying decorator.
    """

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str | None], _Logical] = {}
        self._token: Token[Retrying | None] | None = None

    def number(self, call: Call, explicit_key: str | None) -> None:
        """Give a new attempt the key and the count of the logical call that it belongs to."""
        identity = (call.tool, explicit_key or call.args_hash)
        logical = self._calls.get(identity)
        if logical is None:
            logical = self._calls[identity] = _Logical(call.idempotency_key, 0)
        logical.attempts += 1
        call.attempt = logical.attempts
        call.idempotency_key = logical.idempotency_key

    def ended(self, call: Call) -> None:
        """After a success the same call made again is a new one."""
        if call.outcome is Outcome.OK:
            key = call.idempotency_key
            for identity in [i for i, logical in self._calls.items() if logical.idempotency_key == key]:
                del self._calls[identity]

    def __enter__(self) -> Self:
        self._token = retrying.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            retrying.reset(self._token)
            self._token = None

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


retrying: ContextVar[Retrying | None] = ContextVar("fuseboard_retrying", default=None)
