"""What actions mean: four independent restrictions, and their join. Workers publish them and enforcers obey them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from fuseboard_schemas.records import Action, Effect, ModelAccess, RunAccess, Scope, ToolAccess, WriteAccess

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_schemas.records import BreakerCommand

__all__ = ["ACTIONS_OF", "Axes", "axes_of", "hardest", "join", "plain_action"]

_MODELS: Final = (ModelAccess.ANY, ModelAccess.FAST_ONLY)
_WRITES: Final = (WriteAccess.FREE, WriteAccess.APPROVAL, WriteAccess.REFUSED)
_TOOLS: Final = (ToolAccess.ON, ToolAccess.OFF)
_RUNS: Final = (RunAccess.ON, RunAccess.HALT)
_HARDNESS: Final = (
    Action.NONE,
    Action.FAST_MODEL_ONLY,
    Action.REQUIRE_APPROVAL,
    Action.READ_ONLY,
    Action.DISABLE_TOOL,
    Action.HALT,
)

_OF_A_TOOL: Final = frozenset({Action.REQUIRE_APPROVAL, Action.DISABLE_TOOL})
_OF_AN_AGENT: Final = frozenset({Action.FAST_MODEL_ONLY, Action.REQUIRE_APPROVAL, Action.READ_ONLY, Action.HALT})
ACTIONS_OF: Final = {
    Scope.ACTOR_TOOL: _OF_A_TOOL,
    Scope.TOOL: _OF_A_TOOL,
    Scope.ACTOR: _OF_AN_AGENT,
    Scope.TENANT: _OF_AN_AGENT,
    Scope.SESSION: _OF_AN_AGENT,
}
"""The actions that fit each scope."""


@dataclass(frozen=True, slots=True)
class Axes:
    """What enforcers obey."""

    model: ModelAccess = ModelAccess.ANY
    writes: WriteAccess = WriteAccess.FREE
    tool_access: ToolAccess = ToolAccess.ON
    run: RunAccess = RunAccess.ON

    @classmethod
    def of(cls, command: BreakerCommand) -> Axes:
        """The axes that a command carries, whatever its state and mode."""
        return cls(command.model, command.writes, command.tool_access, command.run)

    @property
    def stops(self) -> bool:
        """Whether no call passes, whatever its effect."""
        # An actor's or a tenant's breaker names no tool: switched off there means all of them.
        return self.run is RunAccess.HALT or self.tool_access is ToolAccess.OFF

    def refuses(self, effect: Effect) -> bool:
        """Whether a call with this effect is held back, be it for approval or altogether."""
        return self.stops or (self.writes is not WriteAccess.FREE and effect is not Effect.READ)

    def wants_approval(self, effect: Effect) -> bool:
        """Whether an approval would be enough for a call with this effect."""
        return not self.stops and self.writes is WriteAccess.APPROVAL and effect is not Effect.READ

    def contains(self, other: Axes) -> bool:
        """Whether everything that the other axes hold back is held back here too: a halt contains all."""
        if self.run is RunAccess.HALT:
            return True
        writes = WriteAccess.REFUSED if self.tool_access is ToolAccess.OFF else self.writes
        return (
            other.run is RunAccess.ON
            and _MODELS.index(self.model) >= _MODELS.index(other.model)
            and _WRITES.index(writes) >= _WRITES.index(other.writes)
            and _TOOLS.index(self.tool_access) >= _TOOLS.index(other.tool_access)
        )


def join(several: Iterable[Axes]) -> Axes:
    """On each axis the hardest of several; nothing restricts nothing."""
    known = (Axes(), *several)
    return Axes(
        model=max((axes.model for axes in known), key=_MODELS.index),
        writes=max((axes.writes for axes in known), key=_WRITES.index),
        tool_access=max((axes.tool_access for axes in known), key=_TOOLS.index),
        run=max((axes.run for axes in known), key=_RUNS.index),
    )


_ALONE: Final = {
    Action.NONE: Axes(),
    Action.FAST_MODEL_ONLY: Axes(model=ModelAccess.FAST_ONLY),
    Action.REQUIRE_APPROVAL: Axes(writes=WriteAccess.APPROVAL),
    Action.READ_ONLY: Axes(writes=WriteAccess.REFUSED),
    Action.DISABLE_TOOL: Axes(tool_access=ToolAccess.OFF),
    Action.HALT: Axes(run=RunAccess.HALT),
}


def axes_of(actions: Iterable[Action]) -> Axes:
    """The join of what several actions ask for: on each axis the hardest.

    "The hardest action" would be no order: READ_ONLY does not contain FAST_MODEL_ONLY.
    """
    return _axes_of(frozenset(actions))


@cache  # There are 64 sets of actions.
def _axes_of(actions: frozenset[Action]) -> Axes:
    return join(_ALONE[action] for action in actions)


def hardest(actions: Iterable[Action]) -> Action:
    """The hardest of some actions as people take it; NONE of none."""
    return max(actions, key=_HARDNESS.index, default=Action.NONE)


@cache
def plain_action(axes: Axes) -> Action:
    """One action that stands for axes: the one that alone gives them if there is one, else the hardest in them."""
    for action, alone in _ALONE.items():
        if alone == axes:
            return action
    return hardest(action for action, alone in _ALONE.items() if join((axes, alone)) == axes)
