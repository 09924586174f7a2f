"""Who is held for a condition that may last: asked on a grid of stream time whether it is still on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from fuseboard_schemas.keys import parse_breaker_id
from fuseboard_streams.core.breaker import Moment, id_of
from fuseboard_streams.core.rulebook import RuleView
from fuseboard_streams.core.spending import GRID_US

if TYPE_CHECKING:
    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.firing import Firing
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.settings import CoreSettings

StillOn: TypeAlias = Callable[[RuleView, int, int], bool]
"""Rule, row of the actor and stream time to whether the rule's condition is on."""
ASKED_AT: Final = "burning_asked_at"
"""Name of `Clearing.at` in the state log."""


class Clearing:
    """Keeps asking about the holds, real and virtual, of rules whose condition lasts. Derived state but for `at`."""

    def __init__(
        self,
        settings: CoreSettings,
        conditions: Sequence[tuple[RuleView, StillOn]],
        identities: Identities,
        breakers: Breakers,
    ) -> None:
        self._ahead_us = settings.piece_us
        self._identities = identities
        self._breakers = breakers
        self._held: set[tuple[str, str]] = set()
        self._conditions = {view.rule.rule: (view, still_on) for view, still_on in conditions}
        self._before: tuple[set[tuple[str, str]], int | None] = (set(), None)
        self.at: int | None = None
        """When to ask next, a whole second; None while nobody is held."""

    def begin(self) -> None:
        """Open a transaction."""
        self._before = (set(self._held), self.at)

    def rollback(self) -> None:
        """Take back everything since `begin`."""
        self._held, self.at = self._before

    def restore(self, at: int | None) -> None:
        """Find who is held, after a restore."""
        self.at = at
        for key in self._breakers.open_ids():
            row = self._breakers.get(key)
            if row is not None:
                self._held |= {(key, held.rule) for held in row.holds if held.rule in self._conditions}
        self._held |= {key for key in self._breakers.virtual.open_keys() if key[1] in self._conditions}

    def note(self, firing: Firing) -> None:
        """A rule has fired: if its condition may last, its target is asked about from now on."""
        self.hold(id_of(firing.target), firing.view.rule.rule, firing.time_us)

    def hold(self, key: str, rule: str, now_us: int) -> None:
        """A breaker is held by a rule: if that rule's condition may last, it is asked about from now on."""
        if rule in self._conditions:
            self._held.add((key, rule))
            if self.at is None:
                # Not within the piece that is being folded, wherever it was cut.
                self.at = -(-(now_us + self._ahead_us) // GRID_US) * GRID_US

    def run(self, now_us: int) -> None:
        """Ask about everybody who is held."""
        for key, rule in sorted(self._held):
            target = parse_breaker_id(key)
            view, still_on = self._conditions[rule]
            actor = self._identities.find_actor(target.tenant, target.actor or "")
            moment = Moment(now_us)
            if not self._open(key, rule, now_us):
                self._held.discard((key, rule))
            elif actor is not None and still_on(view, actor, now_us):
                self._breakers.burning(target, rule, moment)
            else:
                self._breakers.cleared(target, rule, moment)
        self.at = now_us + GRID_US if self._held else None

    def _open(self, key: str, rule: str, now_us: int) -> bool:
        row, virtual = self._breakers.get(key), self._breakers.virtual.get(key, rule)
        held = row is not None and row.hold_of(rule) is not None
        return held or (virtual is not None and virtual.is_open(now_us))
