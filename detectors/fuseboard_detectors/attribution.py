"""Taking one tool's failures out of an actor's evidence.

R is a sum of products, so a tool's share cannot be subtracted. The last failures are therefore kept one by one, with
R as it was before the first of them, and R is computed again without the tool that is to blame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from fuseboard_detectors.failure import (
    Bools,
    FailureParams,
    FailureState,
    fold_successes,
    learn_successes,
    likelihoods,
    mean_r,
    successes_until_below,
)

if TYPE_CHECKING:
    from fuseboard_detectors.arithmetic import Floats, Ints

RING = 32
"""Counted failures remembered for each actor."""


@dataclass(slots=True)
class FailureRing:
    """The last counted failures of k actors, oldest first: shape (k, RING) for the entries, (k,) for the rest."""

    base_r: Floats
    """R right after the failure before the oldest entry, shape (k, odds)."""
    base_p0: Floats
    """The null in force then."""
    size: Ints
    tool: Ints
    gap: Ints
    """Successes before the failure, since the one before it."""
    p0: Floats
    """The null from this failure on."""
    ordinal: Ints
    """How many calls the null had been given before this failure; -1 where it was not given this one."""
    at: Ints
    """When it happened, microseconds."""

    @classmethod
    def fresh(cls, k: int, odds: int, p0: Floats) -> FailureRing:
        """Empty rings of k actors with these nulls in force."""
        entries = (k, RING)
        return cls(
            base_r=np.zeros((k, odds)),
            base_p0=p0.copy(),
            size=np.zeros(k, dtype=np.int64),
            tool=np.full(entries, -1, dtype=np.int64),
            gap=np.zeros(entries, dtype=np.int64),
            p0=np.zeros(entries),
            ordinal=np.full(entries, -1, dtype=np.int64),
            at=np.zeros(entries, dtype=np.int64),
        )


def given_calls(state: FailureState) -> Ints:
    """How many calls the null has been given so far: learned, parked and pending."""
    return state.learned_calls + state.parked_calls + state.pending_calls


def remember(
    ring: FailureRing,
    tool: Ints,
    gap: Ints,
    p0: Floats,
    ordinal: Ints,
    params: FailureParams,
    at: Ints | None = None,
) -> None:
    """Append one failure to each ring, folding the oldest entry into the base where a ring is full."""
    at = np.zeros_like(tool) if at is None else at
    full = np.flatnonzero(ring.size == RING)
    if len(full):
        before = fold_successes(ring.base_r[full], ring.base_p0[full], ring.gap[full, 0], params.odds)
        ring.base_p0[full] = ring.p0[full, 0]
        ring.base_r[full] = (before + 1.0) * likelihoods(ring.base_p0[full], params.odds)[1]
        for column in (ring.tool, ring.gap, ring.p0, ring.ordinal, ring.at):
            column[full, :-1] = column[full, 1:]
        ring.size[full] -= 1
    rows = np.arange(len(ring.size))
    entries = ((ring.tool, tool), (ring.gap, gap), (ring.p0, p0), (ring.ordinal, ordinal), (ring.at, at))
    for column, values in entries:
        column[rows, ring.size] = values
    ring.size += 1


def take_out(
    ring: FailureRing, state: FailureState, tool: Ints, params: FailureParams, since: Ints | None = None
) -> None:
    """Remove every remembered failure of ``tool[i]`` from actor i, in place: from R, from the null, from the ring.

    With ``since``, shape (k,), microseconds, only those that happened then or later.

    The successes before a removed failure join those before the next one. What the null was given of the removed
    failures is taken back from the block it now lies in.
    """
    k = len(tool)
    slots = np.arange(RING)
    present = slots[None, :] < ring.size[:, None]
    removed = present & (ring.tool == tool[:, None])
    if since is not None:
        removed &= ring.at >= since[:, None]
    if not removed.any():
        return
    # Nothing is settled late: the blocks must stand as if every success had been learned when it was made.
    learn_successes(state, params)
    _forget_learned(ring, state, removed)
    r, p0 = ring.base_r.copy(), ring.base_p0.copy()
    gap = np.zeros(k, dtype=np.int64)
    kept = FailureRing.fresh(k, r.shape[1], ring.base_p0)
    for slot in range(int(ring.size.max())):
        gap = gap + np.where(present[:, slot], ring.gap[:, slot], 0)
        stays = np.flatnonzero(present[:, slot] & ~removed[:, slot])
        if len(stays) == 0:
            continue
        before = fold_successes(r[stays], p0[stays], gap[stays], params.odds)
        p0[stays] = ring.p0[stays, slot]
        r[stays] = (before + 1.0) * likelihoods(p0[stays], params.odds)[1]
        place = kept.size[stays]
        kept.tool[stays, place] = ring.tool[stays, slot]
        kept.gap[stays, place] = gap[stays]
        kept.p0[stays, place] = p0[stays]
        kept.ordinal[stays, place] = ring.ordinal[stays, slot]
        kept.at[stays, place] = ring.at[stays, slot]
        kept.size[stays] += 1
        gap[stays] = 0
    state.r, state.p0 = r, p0
    state.successes = state.successes + gap
    state.settled = state.successes.copy()
    state.suspect_left = successes_until_below(state, mean_r(r) >= params.warn, params)
    state.run_failures = np.minimum(state.run_failures, kept.size)
    for name in ("size", "tool", "gap", "p0", "ordinal", "at"):
        setattr(ring, name, getattr(kept, name))


def _forget_learned(ring: FailureRing, state: FailureState, removed: Bools) -> None:
    given = removed & (ring.ordinal >= 0)
    parked_from = state.learned_calls[:, None]
    pending_from = (state.learned_calls + state.parked_calls)[:, None]
    learned = (given & (ring.ordinal < parked_from)).sum(axis=1)
    pending = (given & (ring.ordinal >= pending_from)).sum(axis=1)
    parked = given.sum(axis=1) - learned - pending
    before: Ints = np.cumsum(given, axis=1) - given
    ring.ordinal = np.where(ring.ordinal >= 0, ring.ordinal - before, -1)
    for calls, failures, count in (
        ("learned_calls", "learned_failures", learned),
        ("parked_calls", "parked_failures", parked),
        ("pending_calls", "pending_failures", pending),
    ):
        setattr(state, calls, getattr(state, calls) - count)
        setattr(state, failures, getattr(state, failures) - count)


def least_without_a_tool(ring: FailureRing, state: FailureState, params: FailureParams) -> tuple[Floats, Ints]:
    """The smallest mean of R that taking out one tool would leave, and that tool, shape (k,) each; nothing is changed.

    An actor's evidence that falls to nothing without one of its tools is evidence against that tool. Every ring has an
    entry.
    """
    slots = np.arange(RING)
    same = ring.tool[:, :, None] == ring.tool[:, None, :]
    repeated = (same & (slots[None, None, :] < slots[None, :, None])).any(axis=2)
    actor, slot = np.nonzero((slots[None, :] < ring.size[:, None]) & ~repeated)
    tool = ring.tool[actor, slot]
    without = FailureRing(*(getattr(ring, f.name)[actor] for f in fields(FailureRing)))
    left = FailureState(*(getattr(state, f.name)[actor] for f in fields(FailureState)))
    take_out(without, left, tool, params)
    mean = mean_r(fold_successes(left.r, left.p0, left.successes, params.odds))
    order = np.lexsort((mean, actor))
    best = order[np.flatnonzero(np.diff(actor[order], prepend=-1))]
    return mean[best], tool[best]
