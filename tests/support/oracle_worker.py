"""A worker for the kill test: the real one, but it tarries between the steps of a transaction and notes each step.

``python -m tests.support.oracle_worker SETTINGS STEPS SEED PAUSE_MS``: settings as JSON; a file whose content is the
step that the worker has reached; a seed and the mean length of its pauses. The pauses make every step long enough to
be hit by a kill; the file tells afterwards which one was.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

from fuseboard_schemas.errors import FuseboardError
from fuseboard_streams.worker import load_settings, run_worker

WIDTH = 16
"""Bytes of a step's name in the file, filled up with blanks."""


class Tarry:
    """Notes the step that was reached, and often pauses there while a transaction is open."""

    def __init__(self, steps: str, seed: str, pause_ms: float) -> None:
        self._file = os.open(steps, os.O_WRONLY | os.O_CREAT)
        self._rng = random.Random(seed)
        self._mean_s = pause_ms / 1_000

    def __call__(self, step: str) -> None:
        """Called after each step of a transaction."""
        os.pwrite(self._file, step.ljust(WIDTH).encode(), 0)
        if self._mean_s and step != "after_commit" and self._rng.random() < 0.5:
            time.sleep(self._rng.expovariate(1 / self._mean_s))


def main(given: str, steps: str, seed: str, pause_ms: str) -> int:
    """Run it; the exit code."""
    try:
        return run_worker(load_settings(overrides=json.loads(given)), fault=Tarry(steps, seed, float(pause_ms)))
    except FuseboardError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
