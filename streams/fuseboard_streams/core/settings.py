"""What the core can be told: detection, breakers, time and limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.errors import ConfigurationError
from fuseboard_streams.core.breaker_params import BreakerParams

SECOND = 1_000_000
"""Microseconds in a second; every time in the core is in microseconds."""
DOLLAR = 1_000_000
"""Micro-dollars in a dollar; all money in the core is in micro-dollars."""
MOST_PRIORS = 50
"""A row says in two bytes which overrides and which prior its key has: 564 sets of overrides, times these."""


LEAST_FORGET_US = 3_660 * SECOND
"""Who was active in the last hour, and who called a tool in the last ten minutes, is counted at whole minutes."""


@dataclass(frozen=True, slots=True)
class Prior:
    """The prior failure rate Beta(alpha, beta) of the tools that match both patterns."""

    alpha: float
    beta: float
    tenant: str = "*"
    tool: str = "*"


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Settings of a shard. All times are in microseconds of stream time."""

    failure: FailureParams = field(default_factory=FailureParams)
    breaker: BreakerParams = field(default_factory=BreakerParams)
    priors: tuple[Prior, ...] = ()
    """Priors for particular tools; the last that matches wins, and ``failure`` has the default."""
    future_tolerance_us: int = 5 * SECOND
    """A time further than this after its arrival is set back to the arrival."""
    oldest_us: int = 946_684_800 * SECOND
    """Times before 2000-01-01T00:00:00Z are no times of an agent's call."""
    late_after_us: int = 300 * SECOND
    """Events further than this behind the newest of their topic do not enter trip statistics."""
    max_event_usd: int = 10_000
    """Dollars that one event may cost; more is a wrong unit, and dead-lettered like a cost below zero."""
    forget_after_us: int = 7 * 86_400 * SECOND
    """An actor or tool idle for longer starts from the prior when it returns.

    A worker takes no less than `LEAST_FORGET_US`: below it a checkpoint would free rows that are still counted.
    """
    client_idle_us: int = 3_600 * SECOND
    """A client idle for longer is a new client."""
    max_actors: int = 4_000_000
    """Keys of each kind in one shard; a new key over the limit is dead-lettered."""
    max_tools: int = 12_000_000
    max_tool_names: int = 100_000
    """Different names of tools in one shard, which are never forgotten; likewise."""
    max_clients: int = 4_000_000
    session_idle_us: int = 3_600 * SECOND
    """A session idle for longer begins anew."""
    max_sessions: int = 1_000_000
    """Traces followed at a time for rules about sessions, each once for every such rule."""
    max_session_breakers: int = 100_000
    """Sessions of one tenant that may be held at a time; each of n shards holds at most the n-th part of them."""
    max_shared_breakers: int = 10_000
    """Breakers of a tenant's tools, and of tenants, that may be open in one shard when a signal asks for another."""
    max_traces: int = 1_000_000
    """Traces with counted failures remembered at a time, for each of the two statistics."""
    rule: str = "tool-failing"
    rules_version: str = "builtin-1"
    runbook: str = "docs/runbooks/tool-failing.md"

    def __post_init__(self) -> None:
        if len(self.priors) > MOST_PRIORS:
            raise ConfigurationError(
                f"core.priors has {len(self.priors)} priors, expected at most {MOST_PRIORS}: let patterns take several "
                "tools together."
            )

    def prior_for(self, tenant: str, tool: str) -> int:
        """The number of the prior that applies: 0 is the default, i the i-th of ``priors``."""
        for i in range(len(self.priors), 0, -1):
            prior = self.priors[i - 1]
            if fnmatchcase(tenant, prior.tenant) and fnmatchcase(tool, prior.tool):
                return i
        return 0

    @property
    def max_cost(self) -> int:
        """The most that one event may cost, in micro-dollars."""
        return self.max_event_usd * DOLLAR

    @property
    def piece_us(self) -> int:
        """How much stream time may be folded at once: no timer made inside a piece falls due inside it."""
        return max(self.breaker.min_cooldown_us // 2, 1)


@dataclass(frozen=True, slots=True)
class HashSeeds:
    """Secret random seeds of one process, so that nobody can craft colliding keys. They never show in results."""

    first: int
    second: int
