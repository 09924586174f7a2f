"""From what rules find to what is published: signals, and the transitions of breakers."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from fuseboard_schemas.keys import breaker_id, home_key
from fuseboard_schemas.records import BreakerCommand, Mode, Signal, SignalLevel
from fuseboard_streams.core.breaker import Evidence, Moment
from fuseboard_streams.core.breakers import Outcome
from fuseboard_streams.core.commands import describe_evidence, shown, to_command
from fuseboard_streams.core.requests import Trip
from fuseboard_streams.core.ruleset import CapTest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuseboard_schemas.keys import Target
    from fuseboard_streams.core.breaker import Breaker
    from fuseboard_streams.core.breaker_params import BreakerParams
    from fuseboard_streams.core.breakers import Breakers, Fired
    from fuseboard_streams.core.counters import ShardCounters
    from fuseboard_streams.core.firing import Firing
    from fuseboard_streams.core.ruleset import Response

_LEVELS: Final = {Mode.ENFORCE: SignalLevel.TRIP, Mode.WARN: SignalLevel.WARN, Mode.SHADOW: SignalLevel.INFO}
"""What a trip is called in a signal: only that of a rule in force held something back."""
_ONLY = {
    Mode.WARN: " (the rule warns: nothing is held back)",
    Mode.SHADOW: " (the rule is in shadow: nothing is held back)",
}


@dataclass(frozen=True, slots=True)
class Output:
    """A record to publish, to the partition of its shard."""

    topic: str
    """``signals`` or ``breaker_commands``."""
    key: bytes
    record: Signal | BreakerCommand | None
    """None is a tombstone."""


class Rulings:
    """Lets breakers know what rules found, and collects what is to be published.

    Args:
        breakers: The shard's.
        params: Of probes.
        counters: The shard's.
        changed: Called with every breaker that has changed, before it is published.
    """

    def __init__(
        self,
        breakers: Breakers,
        params: BreakerParams,
        counters: ShardCounters,
        changed: Callable[[Breaker], None],
    ) -> None:
        self._breakers = breakers
        self._params = params
        self._counters = counters
        self._changed = changed
        self._outputs: list[Output] = []

    def take(self) -> list[Output]:
        """What has been decided since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def publish(self, changed: Sequence[Breaker]) -> None:
        """Publish transitions, a tombstone for a breaker that is forgotten."""
        for breaker in changed:
            self._changed(breaker)
            command = to_command(breaker, self._params)
            self._outputs.append(Output("breaker_commands", breaker.breaker_id.encode(), command))

    def fire(self, trip: Trip) -> Fired:
        """A rule's test came true: trip its target, and say so if that changes anything."""
        moment, response, evidence = trip.moment, trip.response, trip.evidence
        fired = self._breakers.fire(trip.target, moment, response, evidence, trip.reason, trip.until_us)
        reason = trip.reason or words_of(trip.target, evidence, moment.time_us)
        self.told(fired, trip.target, moment, response, trip.metric, trip.value, evidence, reason)
        return fired

    def say(self, trip: Trip) -> None:
        """Say what trips nothing: an objective's state, or evidence at the warn level of a rule that does not hold."""
        response, moment = trip.response, trip.moment
        if trip.level is not None:
            self.signal(trip.level, trip.target, moment, response, trip.metric, trip.value, trip.evidence, trip.reason)
            return
        if self._breakers.holds(trip.target, response.rule, moment.time_us):
            return
        self._counters.warnings += 1
        # What only watches in silence does not become louder by being less sure.
        level = SignalLevel.INFO if response.mode is Mode.SHADOW else SignalLevel.WARN
        said = trip.reason + _ONLY.get(response.mode, "")
        self.signal(level, trip.target, moment, response, trip.metric, trip.value, trip.evidence, said)

    def told(
        self,
        fired: Fired,
        target: Target,
        moment: Moment,
        response: Response,
        metric: str,
        value: float | None,
        evidence: Evidence,
        reason: str,
    ) -> None:
        """Publish what came of a firing."""
        if fired.outcome is Outcome.REFUSED:
            self._counters.sessions_refused += 1
            return
        if fired.outcome is not Outcome.NOTHING:
            self._counters.trips += response.mode is Mode.ENFORCE
            self._counters.watched += response.mode is not Mode.ENFORCE
            said = reason + _ONLY.get(response.mode, "")
            self.signal(_LEVELS[response.mode], target, moment, response, metric, value, evidence, said)
        self.publish(fired.changed)

    def signal(
        self,
        level: SignalLevel,
        target: Target,
        moment: Moment,
        response: Response,
        metric: str,
        value: float | None,
        evidence: Evidence,
        reason: str,
        *,
        first: tuple[SignalLevel, int] | None = None,
    ) -> None:
        """Publish a finding; its id is a function of what it says.

        With the level and the time of what was said `first` of the same it has that one's id: the last word counts.
        """
        identity = breaker_id(target.scope, target.tenant, target.actor, target.tool, target.trace_id)
        at = moment.time_us if moment.offset is None else moment.offset
        named, at = first or (level, at)
        digest = blake2b(f"{identity} {response.rule} {named} {at}".encode(), digest_size=16).hexdigest()
        signal = Signal(
            signal_id=digest,
            ts=moment.time_us,
            source=f"fuseboard/{response.rule}",
            tenant=target.tenant,
            scope=target.scope,
            actor=target.actor,
            tool=target.tool,
            trace_id=target.trace_id,
            rule=response.rule,
            level=level,
            metric=metric,
            value=value,
            evidence_log10=evidence.log10,
            null_p0=evidence.null_p0,
            calls=evidence.calls,
            failures=evidence.failures,
            since=evidence.since_us,
            event_id=moment.event_id,
            reason=reason,
            rules_version=response.rules_version,
        )
        key = home_key(target.scope, target.tenant, target.actor, target.tool)
        self._outputs.append(Output("signals", key.encode(), signal))


def trip_of(firing: Firing, event_id: str | None, offset: int | None, made_us: int | None) -> Trip:
    """What a rule found in one record that was made at a time, or at a tick."""
    variant, facts = firing.view.variants[firing.variant], firing.facts
    evidence = Evidence(facts.log10, facts.null_p0, facts.calls, facts.failures, facts.since_us)
    return Trip(
        firing.target, variant.response, firing.view.rule.metric,
        Moment(firing.time_us, event_id, offset, made_us), evidence,
        facts.value, shown(facts.reason), firing.until_us, hard=isinstance(variant.test, CapTest),
        warning=firing.warning, level=firing.level,
    )  # fmt: skip


def words_of(target: Target, evidence: Evidence, at_us: int) -> str:
    """What the failure statistic found, in one line."""
    return describe_evidence(target.tool or target.actor or "", evidence, at_us)


__all__ = ["BreakerCommand", "Output", "Rulings", "trip_of", "words_of"]
