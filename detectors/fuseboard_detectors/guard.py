"""The guard: automatic trips of actors may not take down a tenant.

A statistical trip of an actor is a request. Requests are granted in the order of event time, then actor, as long as

* the actors that the guard holds open are no more than a number (a stock), and
* the grants of the last minute are no more than the same number (a rate),

the number being a tenth of the tenant's active actors, at least one. From the first request that is not granted on the
rest are one incident: whatever hits so many at once is the platform's fault or an attack on the guard's owner, and a
person decides. Nothing more is granted until the incident is cleared or acknowledged.

Exempt trips (critical denials, hard caps, sessions, people) do not come here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fuseboard_detectors import rings
from fuseboard_detectors.segments import I64, Bools, Places, ordinals, owners, sizes
from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS: Final = 61
"""Of the ring of grants: sixty make a window, and one is under way."""


@dataclass(frozen=True, slots=True)
class GuardParams:
    """Settings of the guard."""

    share: tuple[int, int] = (1, 10)
    """Of a tenant's active actors, as a ratio of whole numbers."""
    at_least: int = 1
    window_us: int = 60_000_000

    def __post_init__(self) -> None:
        top, bottom = self.share
        if not 0 <= top <= bottom or bottom == 0 or self.at_least < 0:
            raise ConfigurationError(
                f"the blast radius is {top}/{bottom} and at least {self.at_least}; expected a share of at most 1 and a "
                "number of actors: correct it."
            )
        if self.window_us < 60 or self.window_us % 60:
            raise ConfigurationError(
                f"the blast radius has a window of {self.window_us} microseconds, expected a multiple of 60."
            )


@dataclass(slots=True)
class GuardState:
    """k tenants: shape (k, CELLS) for the ring, (k,) for the rest."""

    open: I64
    """Actors that are held because of a grant."""
    grants: I64
    """By the time of the request."""
    newest: I64
    """The time up to which the ring has been rolled, microseconds."""
    incident: I64
    """The time of the first request that was not granted, microseconds; 0: no incident."""
    withheld: I64
    """Requests of the incident."""

    @classmethod
    def fresh(cls, k: int) -> GuardState:
        """Tenants without a grant."""
        zeros = [np.zeros(k, dtype=np.int64) for _ in range(4)]
        return cls(zeros[0], np.zeros((k, CELLS), dtype=np.int64), *zeros[1:])


@dataclass(slots=True)
class Decisions:
    """What becomes of n requests of k tenants."""

    granted: Bools
    """Shape (n,); the others belong to their tenant's incident."""
    repeated: Bools
    """The same tenant, actor and time as another of these: decided with it, counted once; shape (n,)."""
    began: Bools
    """Tenants whose incident began with one of these, shape (k,)."""


def limits(active: I64, params: GuardParams) -> I64:
    """How many actors the guard may hold for each tenant, given those with an event in the last hour; shape (k,)."""
    top, bottom = params.share
    found: I64 = np.maximum(params.at_least, active * top // bottom)
    return found


def decide(
    state: GuardState, tenant: Places, at_us: I64, actor: NDArray[Any], limit: I64, params: GuardParams
) -> Decisions:
    """Grant requests or withhold them, in place.

    Given are all requests of some whole seconds of stream time, later ones than those given before. In which order
    they come, and whether some come twice, makes no difference.

    Args:
        state: k tenants.
        tenant: of each request, shape (n,).
        at_us: its event time, microseconds, shape (n,).
        actor: numbers or names that sort as the actors do, shape (n,).
        limit: of `limits`, shape (k,).
        params: the settings.
    """
    n = len(tenant)
    order = np.lexsort((actor, at_us, tenant))
    by_tenant, by_time, by_actor = tenant[order], at_us[order], actor[order]
    new = np.ones(n, dtype=np.bool_)
    new[1:] = (by_tenant[1:] != by_tenant[:-1]) | (by_time[1:] != by_time[:-1]) | (by_actor[1:] != by_actor[:-1])
    before = state.incident.copy()
    granted = _grant(state, by_tenant[new], by_time[new], limit, params)
    decisions = Decisions(np.zeros(n, np.bool_), np.zeros(n, np.bool_), (before == 0) & (state.incident > 0))
    decisions.granted[order] = granted[np.cumsum(new) - 1]
    decisions.repeated[order] = ~new
    return decisions


def _grant(state: GuardState, tenant: Places, at_us: I64, limit: I64, params: GuardParams) -> Bools:
    """Decide sorted requests without repeats: all of one tenant and cell of the ring at a time."""
    n, width = len(tenant), params.window_us // 60
    granted = np.zeros(n, dtype=np.bool_)
    if n == 0:
        return granted
    cell = at_us // width
    begins = np.ones(n, dtype=np.bool_)
    begins[1:] = (tenant[1:] != tenant[:-1]) | (cell[1:] != cell[:-1])
    starts = np.flatnonzero(begins)
    count, place, group = sizes(starts, n), ordinals(starts, n), owners(starts, n)
    given = np.zeros(len(starts), dtype=np.int64)
    # One group of each tenant at a time, in order: what is granted in one counts in the next.
    turn = ordinals(np.flatnonzero(np.diff(tenant[starts], prepend=-1)), len(starts))
    for number in range(int(turn.max()) + 1):
        now = np.flatnonzero(turn == number)
        rows, begin = tenant[starts[now]], at_us[starts[now]]
        ring = state.grants[rows]
        newest = rings.roll((ring,), state.newest[rows], begin, width)
        free = np.maximum(limit[rows] - np.maximum(state.open[rows], ring.sum(axis=1)), 0)
        given[now] = np.minimum(np.where(state.incident[rows] > 0, 0, free), count[now])
        rings.add(ring, newest, np.arange(len(rows)), begin, given[now], width)
        state.grants[rows], state.newest[rows] = ring, newest
        state.open[rows] += given[now]
        short = now[given[now] < count[now]]
        some = tenant[starts[short]]
        first = at_us[starts[short] + given[short]]
        state.incident[some] = np.where(state.incident[some] > 0, state.incident[some], first)
        state.withheld[some] += (count - given)[short]
    granted[:] = place < given[group]
    return granted


def release(state: GuardState, tenant: Places, actors: I64) -> None:
    """So many of the actors that the guard held are free again, in place; shape (m,) each, tenants may repeat."""
    np.subtract.at(state.open, tenant, actors)
    state.open = np.maximum(state.open, 0)


def clear(state: GuardState, tenant: Places) -> None:
    """The incidents of these tenants are cleared or acknowledged: requests are granted again, in place."""
    state.incident[tenant] = 0
    state.withheld[tenant] = 0
