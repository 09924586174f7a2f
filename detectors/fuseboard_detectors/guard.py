"""The guard: automatic trips of actors may not take down a tenant.

A statistical trip of an actor is a request. Requests are granted in the order of event time, then actor, as long as

* the actors that the guard holds open are no more than a number (a stock), and
* the actors granted within the last minute are no more than the same number (a rate),

the number being a tenth of the tenant's active actors, at least one. An actor that was granted within the minute counts
once, with its newest grant: that it trips again widens no radius. From the first request that is not granted on the
rest are one incident: whatever hits so many at once is the platform's fault or an attack on the guard's owner, and a
person decides. Nothing more is granted until the incident is cleared or acknowledged.

Exempt trips (critical denials, hard caps, sessions, people) do not come here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fuseboard_detectors import rings
from fuseboard_detectors.segments import I64, Bools, Places, ordinals, owners, running_sum, sizes
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
    """Actors, by the time of the request that was granted last."""
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
    state: GuardState,
    tenant: Places,
    at_us: I64,
    actor: NDArray[Any],
    limit: I64,
    params: GuardParams,
    granted_us: I64 | None = None,
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
        granted_us: the time of the request of this actor that was granted last, microseconds, shape (n,), below 0
            where none was; None: of nobody. What the caller does not know of counts as another actor.
    """
    n = len(tenant)
    last = np.full(n, -1, dtype=np.int64) if granted_us is None else granted_us
    order = np.lexsort((actor, at_us, tenant))
    by_tenant, by_time, by_actor = tenant[order], at_us[order], actor[order]
    new = np.ones(n, dtype=np.bool_)
    new[1:] = (by_tenant[1:] != by_tenant[:-1]) | (by_time[1:] != by_time[:-1]) | (by_actor[1:] != by_actor[:-1])
    before = state.incident.copy()
    granted = _grant(state, by_tenant[new], by_time[new], last[order][new], limit, params)
    decisions = Decisions(np.zeros(n, np.bool_), np.zeros(n, np.bool_), (before == 0) & (state.incident > 0))
    decisions.granted[order] = granted[np.cumsum(new) - 1]
    decisions.repeated[order] = ~new
    return decisions


def _grant(state: GuardState, tenant: Places, at_us: I64, last_us: I64, limit: I64, params: GuardParams) -> Bools:
    """Decide sorted requests without repeats: all of one tenant and cell of the ring at a time."""
    n, width = len(tenant), params.window_us // 60
    granted = np.zeros(n, dtype=np.bool_)
    if n == 0:
        return granted
    cell = at_us // width
    begins = np.ones(n, dtype=np.bool_)
    begins[1:] = (tenant[1:] != tenant[:-1]) | (cell[1:] != cell[:-1])
    starts = np.flatnonzero(begins)
    count = sizes(starts, n)
    # One group of each tenant at a time, in order: what is granted in one counts in the next.
    turn = ordinals(np.flatnonzero(np.diff(tenant[starts], prepend=-1)), len(starts))
    for number in range(int(turn.max()) + 1):
        now = np.flatnonzero(turn == number)
        rows, begin = tenant[starts[now]], at_us[starts[now]]
        ring = state.grants[rows]
        newest = rings.roll((ring,), state.newest[rows], begin, width)
        begin_at, asked = np.cumsum(count[now]) - count[now], int(count[now].sum())
        which, place = owners(begin_at, asked), ordinals(begin_at, asked)
        mine = starts[now][which] + place
        last = last_us[mine]
        again = (last >= 0) & (newest[which] // width - last // width < CELLS)
        blocked = state.incident[rows] > 0
        stock = np.where(blocked, 0, limit[rows] - state.open[rows])
        given = _fitting(begin_at, again, stock, limit[rows] - ring.sum(axis=1))
        taken = place < given[which]
        granted[mine] = taken
        # An actor counts where it was granted last.
        moved = taken & again & (last // width < cell[mine])
        rings.add(ring, newest, which[moved], last[moved], np.full(int(moved.sum()), -1), width)
        added = taken & (~again | moved)
        rings.add(ring, newest, which[added], at_us[mine][added], np.ones(int(added.sum()), dtype=np.int64), width)
        state.grants[rows], state.newest[rows] = ring, newest
        state.open[rows] += given
        short = np.flatnonzero(given < count[now])
        first = at_us[(starts[now] + given)[short]]
        state.incident[rows[short]] = np.where(blocked[short], state.incident[rows[short]], first)
        state.withheld[rows[short]] += (count[now] - given)[short]
    return granted


def _fitting(starts: Places, again: Bools, stock: I64, rate: I64) -> I64:
    """How many of each group's requests are granted before the first that is not, shape (k,).

    Args:
        starts: where each group begins, shape (k,).
        again: whether a request's actor counts in the rate already, shape (n,).
        stock: how many more may be held, shape (k,).
        rate: how many more may be counted, shape (k,).
    """
    n = len(again)
    place, group = ordinals(starts, n), owners(starts, n)
    new = (~again).astype(np.int64)
    counted = running_sum(starts, new) - new
    fits = (place < stock[group]) & (again | (counted < rate[group]))
    given = sizes(starts, n)
    np.minimum.at(given, group[~fits], place[~fits])
    return given


def release(state: GuardState, tenant: Places, actors: I64) -> None:
    """So many of the actors that the guard held are free again, in place; shape (m,) each, tenants may repeat."""
    np.subtract.at(state.open, tenant, actors)
    state.open = np.maximum(state.open, 0)


def clear(state: GuardState, tenant: Places) -> None:
    """The incidents of these tenants are cleared or acknowledged: requests are granted again, in place."""
    state.incident[tenant] = 0
    state.withheld[tenant] = 0
