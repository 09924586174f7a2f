"""What is said about calls that were let through although nothing was known about their breakers."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard.calls import Call
    from fuseboard.gate import Gate, Slot

log = logging.getLogger("fuseboard")

_NEVER = float("-inf")


class Unguarded:
    """Keeps apart who has only just begun to follow its breakers from who hears nothing of a control plane.

    Right after the start, and after an actor has turned up, nothing can be known yet. Calls that pass meanwhile are
    worth a warning only if the time of grace ends without a sign of life.

    Args:
        gate: Knows what is known.
        clock: Monotonic clock in seconds.
        grace_s: How long a process or an actor may be new.
        interval_s: Least seconds between two warnings about one tool of an actor.
        publish: Publishes a warning about a call.
    """

    def __init__(
        self,
        gate: Gate,
        clock: Callable[[], float],
        *,
        grace_s: float,
        interval_s: float,
        publish: Callable[[Call, str], None],
    ) -> None:
        self._gate = gate
        self._clock = clock
        self._grace_s = grace_s
        self._interval_s = interval_s
        self._publish = publish
        # A signal handler may come in between on the same thread.
        self._lock = threading.RLock()
        self._began = _NEVER
        self._warned: dict[tuple[str, str], float] = {}
        self._early: dict[tuple[str, str], Slot] = {}

    def begin(self) -> None:
        """The process begins to follow its breakers."""
        self._began = self._clock()

    def let_through(self, call: Call) -> None:
        """Publish that a call was let through, and warn of it, at once or when the grace is over; never in a row."""
        slot, now = call.slot, self._clock()
        key = (call.actor, call.tool)
        if now - self._warned.get(key, _NEVER) < self._interval_s:
            return
        early = not self._gate.knows(slot) and now < self._ends(slot)
        with self._lock:
            if early and key in self._early:
                return
            if early:
                self._early[key] = slot
            else:
                self._early.pop(key, None)
                self._warned[key] = now
        self._publish(call, _EARLY.format(call.tool) if early else _STALE.format(call.tool))
        if early:
            log.info("%s (actor %s)", _EARLY.format(call.tool), call.actor)
        else:
            _warn(slot)

    def settle(self) -> bool:
        """Warn of early calls whose grace is over; True while there are others that nothing is known about."""
        if not self._early:
            return False
        now = self._clock()
        with self._lock:
            known = [key for key, slot in self._early.items() if self._gate.knows(slot)]
            for key in known:
                del self._early[key]
            overdue = {key: slot for key, slot in self._early.items() if now >= self._ends(slot)}
            for key in overdue:
                del self._early[key]
                self._warned[key] = now
            waiting = bool(self._early)
        for slot in overdue.values():
            _warn(slot)
        return waiting

    def give_up(self) -> None:
        """Say of which calls there is no more time to find out whether they should have been guarded."""
        self.settle()
        with self._lock:
            early, self._early = self._early, {}
        for slot in early.values():
            log.warning("%s (actor %s)", _EARLY.format(slot.tool), slot.actor)

    def after_fork(self) -> None:
        """Forget in a forked child what the parent will tell."""
        self._lock = threading.RLock()
        self._began = _NEVER
        self._early = {}

    def _ends(self, slot: Slot) -> float:
        return max(slot.since, self._began) + self._grace_s


_STALE = "control plane stale: {} was let through without its breakers being known"
_EARLY = "just started: {} was let through before its breakers were known"


def _warn(slot: Slot) -> None:
    log.warning("%s (actor %s)", _STALE.format(slot.tool), slot.actor)
