"""A target on its way to a trip, as heartbeats tell of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Nearing:
    """A target whose evidence is above rest."""

    tenant: str
    actor: str | None
    """None for a tool as a whole."""
    tool: str | None
    """None for an actor as a whole."""
    evidence_log10: float
    """Rounded to 6 digits."""
    trip_log10: float
    """Of the level at which it trips."""
    calls: int
    """Counted since the evidence last rested."""
    failures: int
    """Among them."""

    @property
    def order(self) -> tuple[float, str, str, bool, str]:
        """The nearest comes first: what is missing to a trip, as a factor; then by name, an actor after its tools."""
        missing = round(self.trip_log10 - self.evidence_log10, 6)
        return missing, self.tenant, self.actor or "", self.tool is None, self.tool or ""
