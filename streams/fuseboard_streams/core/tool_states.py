"""What a tool's owner tells all shards about the tool's own breaker."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from fuseboard_schemas.records import PaneKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_streams.core.breaker import Breaker
    from fuseboard_streams.core.holds import RuleHold
    from fuseboard_streams.core.mail import Mail

Name: TypeAlias = tuple[str, str]
"""Tenant and tool."""
State: TypeAlias = tuple[bool, bool]
"""Whether it owns the blame, and whether it refuses all calls."""


class ToolStates:
    """Tells every shard, once for each change.

    Args:
        mail: Takes the panes.
    """

    def __init__(self, mail: Mail) -> None:
        self._mail = mail
        self._said: dict[Name, State] = {}
        """Of the tools that a rule holds or that are shut."""
        self.changed: set[Name] = set()
        """Those that differ from what was saved last."""

    def tell(self, breaker: Breaker, held: RuleHold | None, *, begins: bool, followed: bool) -> None:
        """A tool's breaker has changed.

        It owns the blame while the rule about failures holds it, but not while a person bypasses it: calls are let
        through then, and each actor's own breaker has to look after them.

        Args:
            breaker: Of the tool.
            held: The hold of the rule about failures.
            begins: Whether it has none before.
            followed: Whether any rule makes the others listen.
        """
        name = breaker.tenant, breaker.tool or ""
        state = held is not None and not breaker.bypassed, breaker.axes.stops
        before = self._said.get(name, (not begins, False))
        if not followed and name not in self._said and state[0] == before[0]:
            return
        self._keep(name, state if held is not None or any(state) else None)
        if state == before:
            return
        since = None
        if held is not None and begins and state[0]:
            since = held.evidence.since_us or held.first_since
        pane = self._mail.pane(PaneKind.TOOL_STATE, *name, breaker.decided_at)
        rule = breaker.rule if held is None else held.rule
        self._mail.broadcast(
            replace(pane, rule=rule or None, breaker_epoch=breaker.epoch, open=state[0], since=since, refuses=state[1])
        )

    def _keep(self, name: Name, state: State | None) -> None:
        if self._said.get(name) == state:
            return
        self.changed.add(name)
        if state is None:
            del self._said[name]
        else:
            self._said[name] = state

    # --- state

    def saved(self, name: Name) -> State | None:
        """What was said of one tool, as JSON holds it; None if nothing is the matter with it."""
        return self._said.get(name)

    def restore(self, saved: Iterable[tuple[Name, State]]) -> None:
        """Put back what was saved, and nothing else."""
        self._said = {name: (owns, refuses) for name, (owns, refuses) in saved}
        self.changed.clear()
