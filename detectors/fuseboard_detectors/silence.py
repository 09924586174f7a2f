"""Is an actor silent? Sessions are requested of it, and nothing is heard.

The router's own request log says that sessions were handed to the actor. An actor is silent while at least so many
requests have come since its last event and the first of them has gone unanswered for so long. An actor that nobody
asks for anything is idle, not silent, however long it has been quiet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fuseboard_detectors.segments import I64, Bools, Places, owners

_NEVER = np.iinfo(np.int64).max


@dataclass(slots=True)
class Unanswered:
    """k actors, shape (k,) each."""

    heard: I64
    """The time of the last event, microseconds; 0: none yet."""
    requests: I64
    """Requests made after it."""
    since: I64
    """The time of the first of them, microseconds; 0 where there is none."""

    @classmethod
    def fresh(cls, k: int) -> Unanswered:
        """Actors that nobody has asked for anything."""
        return cls(np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64))


def fold(state: Unanswered, starts: Places, at_us: I64, request: Bools) -> None:
    """Count the next events and requests of every actor, in place.

    Any event answers all requests before it, and a request made before the last event had its answer.

    Args:
        state: k actors, each with at least one event or request.
        starts: where each actor's begin, shape (k,), ascending from 0; an actor's are in their order.
        at_us: their times, microseconds, above 0, shape (n,).
        request: which of them are requests, shape (n,).
    """
    n = len(at_us)
    if n == 0:
        return
    key = owners(starts, n)
    heard = np.maximum.reduceat(np.where(request, 0, at_us), starts)
    answered = np.maximum.reduceat(np.where(request, -1, np.arange(n)), starts)
    state.heard = np.maximum(state.heard, heard)
    open_request = request & (np.arange(n) > answered[key]) & (at_us > state.heard[key])
    first = np.minimum.reduceat(np.where(open_request, at_us, _NEVER), starts)
    more = np.add.reduceat(open_request.astype(np.int64), starts)
    carried = np.where(answered < 0, state.requests, 0)
    since = np.minimum(np.where(carried > 0, state.since, _NEVER), first)
    state.requests = carried + more
    state.since = np.where(state.requests > 0, since, 0)


def silent(state: Unanswered, now_us: int, *, requests: int, lasting_us: int) -> Bools:
    """Which actors are silent at a time of stream time, shape (k,).

    Args:
        state: k actors.
        now_us: stream time, microseconds.
        requests: as many unanswered requests at least.
        lasting_us: the first of them as long ago at least, microseconds.
    """
    return (state.requests >= requests) & (now_us - state.since >= lasting_us)
