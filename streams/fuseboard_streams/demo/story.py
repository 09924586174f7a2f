"""The story: moments in, lines and a summary out. Pure; it knows no clock, no terminal and no broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from fuseboard_schemas.keys import breaker_id
from fuseboard_schemas.records import BreakerState, Cause, Scope, SignalLevel
from fuseboard_streams.demo.moments import (
    Acknowledged,
    Applied,
    Attempt,
    Committed,
    Decided,
    Moment,
    Refused,
    Signalled,
)

if TYPE_CHECKING:
    from fuseboard_schemas.records import BreakerCommand

Style = Literal["", "dim", "bold", "red", "yellow", "green", "cyan", "bold red", "bold green"]
TENANT: Final = "default"


@dataclass(frozen=True, slots=True)
class Act:
    """One line of the story."""

    at_us: int
    label: str
    text: str
    style: Style = ""


@dataclass(slots=True)
class Story:
    """What has happened so far between one actor and the tool that breaks under it.

    Attributes:
        actor: The actor that the outage hits.
        tool: The tool that goes down.
        began_us: When the tool went down, None before.
    """

    actor: str
    tool: str
    began_us: int | None = None
    calls: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """Calls and failures by actor and tool."""
    trip: Committed | None = None
    decided: Decided | None = None
    closed: Committed | None = None
    commands: list[Committed] = field(default_factory=list)
    """All commands about the broken tool, in order."""
    strangers: list[BreakerCommand] = field(default_factory=list)
    """Trips that should not have been."""
    warnings: list[Signalled] = field(default_factory=list)
    """Warnings about anything but the broken tool."""
    applied: dict[int, int] = field(default_factory=dict)
    """When the gate had each epoch in force."""
    acknowledged: dict[int, int] = field(default_factory=dict)
    refusals: list[Refused] = field(default_factory=list)
    own: list[Attempt] = field(default_factory=list)
    """The actor's calls of the tool since it broke."""
    bystanders: int = 0
    """Calls of the broken tool that other actors made since it broke."""
    bystander_failures: int = 0
    refused_elsewhere: int = 0
    """Refused calls of other actors or tools: there should be none."""
    probes: list[bool] = field(default_factory=list)
    passed_after: int = 0
    """Calls that passed once the breaker was closed again."""
    _told: set[str] = field(default_factory=set)

    @property
    def breaker(self) -> str:
        """Id of the breaker that is to trip."""
        return breaker_id(Scope.ACTOR_TOOL, TENANT, actor=self.actor, tool=self.tool)

    @property
    def latency_ms(self) -> dict[str, float | None]:
        """From the end of the deciding call until command, gate and acknowledgement; None where not seen."""
        ends: dict[str, int | None] = {"event_to_command": None, "event_to_gate": None, "event_to_ack": None}
        if self.trip is not None:
            epoch = self.trip.command.epoch
            ends = {
                "event_to_command": self.trip.at_us,
                "event_to_gate": self.applied.get(epoch),
                "event_to_ack": self.acknowledged.get(epoch),
            }
        start = None if self.decided is None else self.decided.ended_us
        return {
            name: None if end is None or start is None else round((end - start) / 1000, 1) for name, end in ends.items()
        }

    @property
    def enforced(self) -> bool:
        """Whether the trip is in force, acknowledged, and has refused a call."""
        return bool(self.refusals) and None not in self.latency_ms.values()

    @property
    def slipped(self) -> int:
        """Calls that ran after the deciding one, before the gate knew."""
        if self.decided is None or self.trip is None:
            return 0
        gate = self.applied.get(self.trip.command.epoch)
        return sum(each.at_us > self.decided.ended_us and (gate is None or each.at_us <= gate) for each in self.own)

    @property
    def recovered(self) -> bool:
        """Whether the breaker has closed and a call has passed since."""
        return self.closed is not None and self.passed_after > 0

    @property
    def succeeded(self) -> bool:
        """Whether all went as it should, and nothing else happened."""
        return self.enforced and self.recovered and not self.strangers and not self.refused_elsewhere

    def begin_outage(self, at_us: int) -> None:
        """The tool has gone down."""
        self.began_us = at_us

    def take(self, moment: Moment) -> list[Act]:
        """Take in what happened, and tell it if it is worth a line."""
        match moment:
            case Attempt():
                return self._attempt(moment)
            case Refused():
                return self._refused(moment)
            case Committed():
                return self._committed(moment)
            case Signalled():
                return self._signalled(moment)
            case Decided():
                self.decided = moment
                return self._measured()
            case Applied():
                return self._applied(moment)
            case Acknowledged():
                if moment.breaker_id == self.breaker:
                    self.acknowledged.setdefault(moment.epoch, moment.at_us)
                return self._measured()

    def _attempt(self, moment: Attempt) -> list[Act]:
        counts = self.calls.setdefault((moment.actor, moment.tool), [0, 0])
        counts[0] += 1
        counts[1] += not moment.ok
        if moment.tool != self.tool or self.began_us is None:
            return []
        if moment.actor != self.actor:
            self.bystanders += 1
            self.bystander_failures += not moment.ok
            return []
        self.own.append(moment)
        if moment.probe:
            self.probes.append(moment.ok)
            said = "succeeded" if moment.ok else "failed"
            return [Act(moment.at_us, "probe", f"call {len(self.probes)} let through to try: {said}", "cyan")]
        if self.closed is None or not self._in_force(self.closed):
            return []
        self.passed_after += moment.ok
        if self.passed_after == 1 and moment.ok:
            return [Act(moment.at_us, "recovered", f"{self.tool} answers {short(self.actor)} again", "bold green")]
        return []

    def _in_force(self, command: Committed) -> bool:
        return command.command.epoch in self.applied

    def _refused(self, moment: Refused) -> list[Act]:
        if (moment.actor, moment.tool) != (self.actor, self.tool):
            self.refused_elsewhere += 1
            return []
        self.refusals.append(moment)
        if len(self.refusals) > 1:
            return []
        again = "" if moment.retry_after is None else f", retry_after={moment.retry_after:.1f}"
        text = (
            f"ToolBlocked(tool={moment.tool!r}, action={moment.action}, scope={moment.scope}{again}): "
            "the tool was not called"
        )
        return [Act(moment.at_us, "refused", text, "red")]

    def _signalled(self, moment: Signalled) -> list[Act]:
        signal = moment.signal
        if signal.level is not SignalLevel.WARN:
            return []
        if (signal.actor, signal.tool) != (self.actor, self.tool):
            self.warnings.append(moment)
            return [Act(moment.at_us, "warning", f"about something else: {signal.reason}", "yellow")]
        if "warn" in self._told:
            return []
        self._told.add("warn")
        text = f"{signal.failures} of {signal.calls} calls failed: evidence {power(signal.evidence_log10)}"
        return [Act(moment.at_us, "warn", text, "yellow")]

    def _committed(self, moment: Committed) -> list[Act]:
        command = moment.command
        expected = command.breaker_id == self.breaker and self.began_us is not None
        if command.cause is Cause.TRIP and (not expected or self.trip is not None):
            self.strangers.append(command)
            return [Act(moment.at_us, "FALSE TRIP", f"{command.breaker_id}: {command.reason}", "bold red")]
        if not expected:
            return []
        self.commands.append(moment)
        match command.cause:
            case Cause.TRIP:
                self.trip = moment
                return [Act(command.ts, "TRIP", self._trip_text(command), "bold red")]
            case Cause.COOLDOWN_OVER | Cause.NEXT_WAVE:
                refused = f"{len(self.refusals)} calls refused meanwhile; " if command.wave == 1 else ""
                text = f"{refused}half open: wave {command.wave}, up to {command.probe_quota} probes"
                return [Act(moment.at_us, "cooled down" if command.wave == 1 else "next wave", text, "cyan")]
            case Cause.PROBES_PASSED:
                self.closed = moment
                text = f"{command.probes_ok} of {command.probes_ok + command.probes_failed} probes succeeded: closed"
                return [Act(moment.at_us, "closed", text, "green")]
            case _:
                return [Act(moment.at_us, "reopened", command.reason, "red")]

    def _trip_text(self, command: BreakerCommand) -> str:
        return (
            f"{command.action}: {command.failures_seen} of {command.calls_seen} calls failed, evidence "
            f"{power(command.evidence_log10)} against a normal of at most {percent(command.null_p0)}; "
            f"cooldown {(command.cooldown_ms or 0) / 1000:.1f} s"
        )

    def _applied(self, moment: Applied) -> list[Act]:
        if moment.breaker_id != self.breaker:
            return []
        self.applied.setdefault(moment.epoch, moment.at_us)
        return self._measured()

    def _measured(self) -> list[Act]:
        """Tell each latency once, when both its ends are known."""
        acts: list[Act] = []
        if self.trip is None:
            return acts
        epoch, latency = self.trip.command.epoch, self.latency_ms
        gate, ack = latency["event_to_gate"], latency["event_to_ack"]
        if gate is not None and "gate" not in self._told:
            self._told.add("gate")
            text = f"in force in the agent's gate {gate:.0f} ms after the call that decided had ended"
            acts.append(Act(self.applied[epoch], "enforced", text))
        if ack is not None and "ack" not in self._told:
            self._told.add("ack")
            text = f"the worker has read the agent's acknowledgement after {ack:.0f} ms"
            acts.append(Act(self.acknowledged[epoch], "confirmed", text))
        return acts

    def summary(self) -> dict[str, Any]:
        """The facts, ready for JSON."""
        command = None if self.trip is None else self.trip.command
        trip = command and {
            "actor": command.actor,
            "tool": command.tool,
            "action": str(command.action),
            "calls_seen": command.calls_seen,
            "failures_seen": command.failures_seen,
            "evidence": None if command.evidence_log10 is None else float(f"{10**command.evidence_log10:.4g}"),
            "evidence_log10": command.evidence_log10,
            "null_p0": command.null_p0,
            "event_id": command.event_id,
            "breaker_id": command.breaker_id,
        }
        return {
            "trip": trip,
            "latency_ms": self.latency_ms,
            "refused_calls": len(self.refusals),
            "recovered": self.recovered,
            "false_trips": [
                {"breaker_id": each.breaker_id, "action": str(each.action), "reason": each.reason}
                for each in self.strangers
            ],
            "warnings_elsewhere": len(self.warnings),
            "calls_before_gate": self.slipped,
            "probes": {"ok": sum(self.probes), "failed": len(self.probes) - sum(self.probes)},
            "reopenings": sum(
                each.command.state is BreakerState.OPEN and each is not self.trip for each in self.commands
            ),
            "other_actors": {
                "calls": self.bystanders,
                "failures": self.bystander_failures,
                "refused": self.refused_elsewhere,
            },
        }


def short(actor: str) -> str:
    """The last part of an actor's name."""
    return actor.rsplit("/", 1)[-1]


def power(log10: float | None) -> str:
    """Evidence as a power of ten."""
    return "unknown" if log10 is None else f"10^{log10:.1f}"


def percent(probability: float | None) -> str:
    """A probability as a percentage."""
    return "unknown" if probability is None else f"{100 * probability:.3g}%"
