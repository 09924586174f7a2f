"""Calls that seem to have passed a tool's own breaker: said once it is certain that it was still shut.

A tool's owner says in the topic `panes` that it is open, and that it is not any more. Enforcers may hear the latter
first, and a call of theirs may be here before the pane is. So a call waits until a pane has been heard that arrived
after it: since the panes of a partition are in order, whatever was decided before the call arrived has then been heard,
too. The clock is the broker's, as it stands in the log: a replay repeats it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Final

from fuseboard_schemas.keys import Target
from fuseboard_schemas.records import Scope
from fuseboard_streams.core.breaker import Evidence, Moment, id_of
from fuseboard_streams.core.commands import shown
from fuseboard_streams.core.requests import Trip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuseboard_streams.core.blame import Blame
    from fuseboard_streams.core.rulebook import Rulebook

MOST: Final = 1_000
"""Of those that wait at a time: whoever does not obey does it again."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A call that passed, as far as is known, and the rule that asks about it."""

    rule: str
    scope: str
    """Of the rule: ACTOR or ACTOR_TOOL."""
    tenant: str
    actor: str
    tool: str
    arrival: int
    """When the broker appended the call, microseconds."""
    since: int
    """When the tool was shut, as `Blame.refusing` has it, microseconds."""
    late: float
    """How long after that the call began, seconds."""
    reason: str
    event_id: str | None
    offset: int

    @property
    def target(self) -> Target:
        """What the rule is about."""
        if self.scope == Scope.ACTOR:
            return Target(Scope.ACTOR, self.tenant, self.actor)
        return Target(Scope.ACTOR_TOOL, self.tenant, self.actor, self.tool)


class Doubts:
    """Keeps at most one call for each rule and target.

    Args:
        book: The rules in force.
        blame: Knows what is shut.
    """

    def __init__(self, book: Rulebook, blame: Blame) -> None:
        self._book = book
        self._blame = blame
        self._waiting: dict[tuple[str, str], Doubt] = {}

    def note(self, several: Iterable[Doubt]) -> None:
        """Calls have passed, in their order."""
        for each in several:
            if len(self._waiting) < MOST:
                self._waiting.setdefault((each.rule, id_of(each.target)), each)

    def settle(self, arrival: int, now_us: int) -> list[Trip]:
        """A pane has been taken in.

        Args:
            arrival: When the broker appended it, microseconds.
            now_us: Stream time of this shard.

        Returns:
            What the rules find in the calls that are certain now; those whose tool has been let in are forgotten.
        """
        known = [(key, each) for key, each in self._waiting.items() if each.arrival < arrival]
        found = []
        for key, each in known:
            del self._waiting[key]
            told = self._blame.told.get((each.tenant, each.tool))
            rule = self._book.rule_for(each.rule, each.target)
            if told is None or told.refuses_since != each.since or rule is None:
                continue
            view, number = rule
            found.append(
                Trip(
                    each.target, view.variants[number].response, view.rule.metric,
                    Moment(now_us, each.event_id, each.offset), Evidence(since_us=each.since), each.late,
                    shown(each.reason),
                )
            )  # fmt: skip
        return found

    # --- state

    def saved(self) -> list[list[Any]]:
        """Everything, as JSON holds it."""
        return [list(astuple(each)) for each in self._waiting.values()]

    def restore(self, saved: Iterable[list[Any]]) -> None:
        """Put back what was saved, and nothing else."""
        self._waiting = {}
        for row in saved:
            each = Doubt(*row)
            self._waiting[each.rule, id_of(each.target)] = each
