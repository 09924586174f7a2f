"""One breaker: its state as plain, immutable data, and the bytes it is kept as in the state log."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from fuseboard_detectors.probes import ProbeTest
from fuseboard_schemas.axes import Axes, axes_of, plain_action
from fuseboard_schemas.errors import FuseboardError
from fuseboard_schemas.keys import Target, breaker_id
from fuseboard_schemas.records import Action, BreakerState, Cause, Recovery, Scope, Severity
from fuseboard_streams.core.holds import Condition, Evidence, Moment, RuleHold, ceil_second
from fuseboard_streams.core.ruleset import RecoveryPlan, Rung

__all__ = ["Breaker", "BreakerStateError", "Evidence", "Forced", "Moment", "decode", "encode", "id_of"]


class BreakerStateError(FuseboardError):
    """The bytes of a breaker in the state log cannot be read."""


def id_of(target: Target) -> str:
    """The id of a target's breaker.

    Raises:
        KeyFormatError: The target lacks a part that its scope needs.
    """
    return breaker_id(target.scope, target.tenant, target.actor, target.tool, target.trace_id)


@dataclass(frozen=True, slots=True)
class Forced:
    """A person's order that beats the holds."""

    opens: bool
    """Held open; else held closed."""
    actions: tuple[Action, ...]
    """What it enforces besides the holds; nothing if it closes."""
    person: str
    reason: str
    since: int
    """When it came into force, microseconds of stream time."""
    expires_at: int | None
    """When it ends by itself, microseconds; None: at a reset only."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """The whole state of one target's breaker. Times are microseconds of stream time.

    The fields about the last transition stay as they are until the next one, also after closing.
    """

    breaker_id: str
    scope: Scope
    tenant: str
    actor: str | None
    tool: str | None
    trace_id: str | None
    state: BreakerState = BreakerState.CLOSED
    epoch: int = 0
    """Grows with every published change."""
    holds: tuple[RuleHold, ...] = ()
    """In the order in which they came, one per rule."""
    forced: Forced | None = None
    """The order of a person that is in force."""
    cause: Cause = Cause.OTHER
    """Of the last transition."""
    rule: str = ""
    """The rule that the last transition was about."""
    rules_version: str = ""
    runbook: str | None = None
    severity: Severity = Severity.TICKET
    """The hardest of the holds'."""
    reason: str = ""
    """The last transition in one line; empty: made from the evidence."""
    evidence: Evidence = field(default_factory=Evidence)
    """What that rule's hold rested on."""
    since: int = 0
    """When it last left CLOSED."""
    decided_at: int = 0
    """When it came into this state or wave."""
    event_id: str | None = None
    """The event that decided; None when a timer did."""
    offset: int | None = None
    """That event's offset."""
    person: str | None = None
    """Who ordered the last transition, or the state in force."""
    expires_at: int | None = None
    """When that order ends by itself."""
    acknowledged_by: str | None = None
    """Who has last said to know about it since it left CLOSED."""
    acknowledged_at: int | None = None
    """When that was."""
    due: int | None = None
    """When its next timer runs, a whole second; None: waits for an event or a person."""
    reopenings: int = 0
    """How often it opened again since it left CLOSED."""
    backoff: int = 0
    """How often the cooldown is doubled if it trips again before ``calm_at``."""
    calm_at: int = 0
    """Until when another trip counts as flapping."""
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
    forgotten: bool = False
    """True only on what is handed out when the breaker is removed: publish a tombstone."""

    @classmethod
    def of(cls, target: Target) -> Breaker:
        """A breaker that has never tripped.

        Raises:
            KeyFormatError: The target lacks a part that its scope needs.
        """
        return cls(id_of(target), target.scope, target.tenant, target.actor, target.tool, target.trace_id)

    @property
    def subject(self) -> str:
        """The most particular name of the target: its trace, tool, actor or tenant."""
        return self.trace_id or self.tool or self.actor or self.tenant

    @property
    def axes(self) -> Axes:
        """What is enforced: the join of all holds and of the order in force, nothing if it is closed."""
        if self.state in (BreakerState.CLOSED, BreakerState.FORCED_CLOSED):
            return Axes()
        asked = [action for hold in self.holds for action in hold.actions]
        return axes_of([*asked, *(self.forced.actions if self.forced else ())])

    @property
    def action(self) -> Action:
        """One action that stands for what is enforced."""
        return plain_action(self.axes)

    @property
    def bypassed(self) -> bool:
        """Whether a person holds it closed."""
        return self.forced is not None and not self.forced.opens

    @property
    def probing(self) -> bool:
        """Whether it has holds and probes would release them all."""
        return bool(self.holds) and all(hold.probes for hold in self.holds)

    @property
    def retry_at(self) -> int | None:
        """When the next probes are admitted; None if that is not known, or they are already."""
        if self.state is not BreakerState.OPEN or not self.probing:
            return None
        # Probes that waited for a hold of another kind begin as soon as that is released.
        return max(ceil_second(self.decided_at), *(hold.probe_at or 0 for hold in self.holds))

    @property
    def cooldown_us(self) -> int:
        """Length of the cooldown that ends last, jitter included; 0 if it is not OPEN or waits for something else."""
        if self.retry_at is None:
            return 0
        return max(self.holds, key=lambda hold: hold.probe_at or 0).cooldown_us

    def hold_of(self, rule: str) -> RuleHold | None:
        """The hold of a rule."""
        return next((hold for hold in self.holds if hold.rule == rule), None)


_ENUMS: dict[str, type[Any]] = {"scope": Scope, "state": BreakerState, "severity": Severity, "cause": Cause}
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
        row["holds"] = tuple(_hold(each) for each in row["holds"])
        if row.get("forced") is not None:
            actions = tuple(Action(each) for each in row["forced"]["actions"])
            row["forced"] = Forced(**(row["forced"] | {"actions": actions}))
        if row.get("test") is not None:
            row["test"] = ProbeTest(**row["test"])
        return Breaker(**row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BreakerStateError(
            f"a breaker in the state log cannot be read ({error!r}): expected the JSON object that this or an older "
            f"version wrote, found {data[:120]!r}. Run the version that wrote it, or a newer one."
        ) from error


def _hold(row: dict[str, Any]) -> RuleHold:
    return RuleHold(
        **row
        | {
            "ladder": tuple(
                Rung(Action(each["action"]), Severity(each["severity"]), each["after_us"]) for each in row["ladder"]
            ),
            "plan": RecoveryPlan(**row["plan"] | {"by": Recovery(row["plan"]["by"])}),
            "evidence": Evidence(**row["evidence"]),
            "condition": Condition(row["condition"]),
        }
    )
