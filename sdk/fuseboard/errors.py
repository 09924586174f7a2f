"""What the SDK raises on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_schemas.errors import ConfigurationError, FuseboardError
from fuseboard_schemas.runbooks import packaged_name

if TYPE_CHECKING:
    from fuseboard_schemas.records import Action, Scope

__all__ = ["ConfigurationError", "FuseboardError", "ToolBlocked"]


class ToolBlocked(FuseboardError):
    """A call was refused before the tool ran; nothing has happened in the outside world.

    Attributes:
        tool: The tool that was not called.
        action: What the breaker asks for, for example ``DISABLE_TOOL``; ``NONE`` when no breaker refused but the
            control plane is stale.
        scope: What the breaker stands for, None when the control plane is stale.
        reason: Why, in one line, fit to be shown to a model or a person.
        breaker_id: The breaker that refused, None when the control plane is stale.
        epoch: The breaker's epoch as this process knew it.
        retry_after: Seconds after which a retry may be admitted; None when only a person or a new command can tell.
        runbook: What to read about it.
    """

    def __init__(
        self,
        tool: str,
        reason: str,
        *,
        action: Action,
        scope: Scope | None = None,
        breaker_id: str | None = None,
        epoch: int | None = None,
        retry_after: float | None = None,
        runbook: str | None = None,
    ) -> None:
        self.tool = tool
        self.reason = reason
        self.action = action
        self.scope = scope
        self.breaker_id = breaker_id
        self.epoch = epoch
        self.retry_after = retry_after
        self.runbook = runbook
        super().__init__(self._text())

    def _text(self) -> str:
        parts = [f"The call of {self.tool} was refused: {self.reason}."]
        if self.breaker_id is not None:
            parts.append(f"Breaker {self.breaker_id} asks for {self.action} (epoch {self.epoch}).")
        if self.retry_after is not None:
            parts.append(f"Retry after {self.retry_after:.0f} s.")
        if self.runbook:
            ours = packaged_name(self.runbook)
            parts.append(f"See {self.runbook}." if ours is None else f"See `fuseboard runbook {ours}`.")
        return " ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        keywords = ("action", "scope", "breaker_id", "epoch", "retry_after", "runbook")
        return _rebuild, (self.tool, self.reason, {name: getattr(self, name) for name in keywords})


def _rebuild(tool: str, reason: str, keywords: dict[str, object]) -> ToolBlocked:
    return ToolBlocked(tool, reason, **keywords)  # type: ignore[arg-type]
