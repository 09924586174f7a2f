"""One breaker: its state as plain, immutable data, and the bytes it is kept as in the state log."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from fuseboard_detectors.probes import ProbeTest
from fuseboard_schemas.errors import FuseboardError
from fuseboard_schemas.records import Action, BreakerState, Cause, Mode, Recovery, Scope, Severity

__all__ = ["Breaker", "BreakerStateError", "Evidence", "Moment", "decode", "encode"]


class BreakerStateError(FuseboardError):
    """The bytes of a breaker in the state log cannot be read."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When and by which event something is decided."""

    time_us: int
    """Stream time of the shard, microseconds since 1970-01-01 UTC."""
    event_id: str | None = None
    """Id of the deciding event."""
    offset: int | None = None
    """Offset of that event in its topic's partition."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a trip rests on."""

    log10: float
    """log10 of the deciding statistic, rounded to 6 digits; for people, decides nothing."""
    null_p0: float
    """Failure probability that the statistic took for normal, strictly between 0 and 1."""
    calls: int
    """Calls counted."""
    failures: int
    """Failures among them."""
    since_us: int
    """Start of the evidence, microseconds."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """The whole state of one target's breaker. Times are microseconds of stream time."""

    breaker_id: str
    scope: Scope
    tenant: str
    actor: str | None
    tool: str | None
    trace_id: str | None
    state: BreakerState
    action: Action
    """What the one hold asks for; kept after closing."""
    epoch: int
    """Grows with every published change."""
    rule: str
    rules_version: str
    mode: Mode
    severity: Severity
    recovery: Recovery
    """What lets it in again; only ``PROBE`` runs on timers."""
    cause: Cause
    """Why it is in this state."""
    reason: str
    """The trip in one line; empty: made from the evidence."""
    since: int
    """When it last left CLOSED."""
    decided_at: int
    """When it came into this state or wave."""
    evidence: Evidence
    """What the trip rested on; its baseline is what probes are held against."""
    due: int | None = None
    """When its timer runs, a whole second; None: waits for a person."""
    reopenings: int = 0
    """How often it opened again since it left CLOSED."""
    cooldown_us: int = 0
    """Length of the last cooldown, jitter included; 0 when closed."""
    wave: int = 0
    """Number of the wave of probes, from 1; 0 outside HALF_OPEN."""
    waves_without_result: int = 0
    """Waves that ended without a result, in a row."""
    wave_results: int = 0
    """Results counted during this wave."""
    quota: int = 0
    """Probes that each enforcer may admit in this wave."""
    clients_in_wave: int = 0
    """Clients among which the wave's probes are shared; at least 1 in a wave."""
    period: int = 0
    """Epoch of the first wave of this half-open period; 0 outside HALF_OPEN."""
    test: ProbeTest | None = None
    """The probe test of this, or else of the last, half-open period."""
    event_id: str | None = None
    """The event that decided; None when a timer did."""
    offset: int | None = None
    """That event's offset."""
    forgotten: bool = False
    """True only on what is handed out when the breaker is removed: publish a tombstone."""

    @property
    def subject(self) -> str:
        """The most particular name of the target: its trace, tool, actor or tenant."""
        return self.trace_id or self.tool or self.actor or self.tenant


_ENUMS: dict[str, type[Any]] = {
    "scope": Scope,
    "state": BreakerState,
    "action": Action,
    "mode": Mode,
    "severity": Severity,
    "recovery": Recovery,
    "cause": Cause,
}
_NAMES = frozenset(field.name for field in fields(Breaker))


def encode(breaker: Breaker) -> bytes:
    """The breaker as UTF-8 JSON: one object, the same bytes for the same state, floats exact."""
    return json.dumps(asdict(breaker), separators=(",", ":"), sort_keys=True).encode()


def decode(data: bytes) -> Breaker:
    """The breaker that :func:`encode` wrote; fields added since then take their defaults.

    Raises:
        BreakerStateError: The bytes are not a breaker of this or an older version.
    """
    try:
        row = json.loads(data)
        unknown = row.keys() - _NAMES
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        for name, kind in _ENUMS.items():
            row[name] = kind(row[name])
        row["evidence"] = Evidence(**row["evidence"])
        if row.get("test") is not None:
            row["test"] = ProbeTest(**row["test"])
        return Breaker(**row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BreakerStateError(
            f"a breaker in the state log cannot be read ({error!r}): expected the JSON object that this or an older "
            f"version wrote, found {data[:120]!r}. Run the version that wrote it, or a newer one."
        ) from error
