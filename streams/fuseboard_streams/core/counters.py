"""What a shard has seen, for whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ShardCounters:
    """What a shard has seen since it was loaded, as running totals."""

    events: int = 0
    rejected: int = 0
    duplicates: int = 0
    missing: int = 0
    """Sequence numbers skipped: events that were lost before they reached the log, or are late."""
    recovered: int = 0
    """Sequence numbers behind a client's highest that came in after all."""
    late: int = 0
    clamped: int = 0
    counted: int = 0
    """Calls that entered the tools' statistics."""
    capped: int = 0
    """Failures beyond the cap of their trace."""
    probes: int = 0
    warnings: int = 0
    trips: int = 0
    watched: int = 0
    """Trips of rules that only watch, in shadow or to warn."""
    traces_evicted: int = 0
    clients_unknown: int = 0
    """Events of new clients beyond the limit, which could not be deduplicated."""
    acks: int = 0
    signals: int = 0
    """Signals that others published."""
    overrides: int = 0
    """Orders of people, repeated and refused ones included."""
    panes: int = 0
    """Panes from all shards, markers and repeated ones included."""
    panes_repeated: int = 0
    """Panes that had come before."""
    panes_missing: int = 0
    """Numbers of panes that were skipped: some have been lost."""
    panes_late: int = 0
    """Panes that came after their second had been decided: they count in the next one, for objectives in their own."""
    sessions_refused: int = 0
    """Trips of sessions that held nothing, because as many of their tenant are held as may be."""
    withheld: int = 0
    """Automatic trips of actors that the guard did not grant."""


@dataclass(frozen=True, slots=True)
class ToolEvidence:
    """What the failure statistic of one tool of one actor says at a moment."""

    tenant: str
    actor: str
    tool: str
    null_p0: float
    """The failure probability taken for normal."""
    mean: float
    """The e-value: how much better "it fails more often" explains the calls."""
