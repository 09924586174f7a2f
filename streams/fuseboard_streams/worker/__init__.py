"""The worker process: Kafka in, Kafka out, exactly once.

``run_worker(load_settings(...))`` is all that others need; it is imported from here lazily because it is heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuseboard_streams.worker.loop import run_worker
    from fuseboard_streams.worker.settings import WorkerSettings, load_settings

__all__ = ["WorkerSettings", "load_settings", "run_worker"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - one of the names in __all__
    if name == "run_worker":
        from fuseboard_streams.worker import loop

        return loop.run_worker
    if name in __all__:
        from fuseboard_streams.worker import settings

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
