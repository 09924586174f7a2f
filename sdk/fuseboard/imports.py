"""Imports on our own threads, kept apart from forks.

CPython locks a module while it is imported, and a fork copies the lock but not the thread that would open it: in the
child that module could never be imported. So our threads import what they need before anything else, and a fork waits
for that.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODULES = (
    "confluent_kafka",
    "confluent_kafka.admin",
    "fastavro",
    "fcntl",
    "fuseboard.backlog",
    "fuseboard.kafka",
    "fuseboard_schemas.codec",
    "hashlib",
    "tempfile",
)
_LONGEST_S = 10.0
_lock = threading.Lock()
_held = False


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Keep forks on other threads waiting while this one imports; not to be nested."""
    with _lock:
        yield


def load() -> None:
    """Import everything that a thread of ours will ever need."""
    with importing():
        for name in _MODULES:
            # Whatever is missing is reported where it is used.
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _before_fork() -> None:
    global _held
    _held = _lock.acquire(timeout=_LONGEST_S)


def _after_in_parent() -> None:
    global _held
    if _held:
        _held = False
        _lock.release()


def _after_in_child() -> None:
    global _held, _lock
    _held, _lock = False, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
