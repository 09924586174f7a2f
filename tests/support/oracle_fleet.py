"""Worker processes that are killed, frozen, thawed and replaced."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.oracle_input import SETTINGS
from tests.support.oracle_progress import Progress
from tests.support.oracle_worker import WIDTH
from tests.support.workers import settings_for

_SHUT_OUT = "The broker has shut out this worker"
_ALONE = "although other clients reach"
_NO_SERVER = 3
_END_S = 60.0
_AFTERMATH_S = 60.0
"""So long after the broker was away a worker may still find out that the group has given up on it."""


@dataclass(slots=True)
class Member:
    """One worker process."""

    process: subprocess.Popen[bytes]
    log: Path
    steps: Path
    thaw_at: float | None = None
    """Monotonic time at which a frozen one is to go on."""
    transactional_id: str | None = None

    def writer(self) -> str | None:
        """Its transactional id, once it has started."""
        if self.transactional_id is None:
            started = [line for line in self.log.read_text().splitlines() if '"worker_started"' in line]
            if started:
                self.transactional_id = json.loads(started[0])["transactional_id"]
        return self.transactional_id

    def step(self) -> str:
        """The step of a transaction that it reached last."""
        content = self.steps.read_bytes()[:WIDTH].decode().strip() if self.steps.exists() else ""
        return content or "none yet"


class Fleet:
    """Several workers of one group, always so many of them.

    Args:
        bootstrap: The cluster.
        prefix: Of the topics.
        size: How many run at a time.
        folder: For logs.
        progress: Follows what they commit.
        seed: Of what differs from worker to worker.
        pause_ms: See `oracle_worker`.
        settings: Of every worker.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        size: int,
        folder: Path,
        progress: Progress,
        seed: int,
        pause_ms: float,
        settings: dict[str, Any],
    ) -> None:
        self.members: list[Member] = []
        self.started = 0
        self.shut_out = 0
        """Workers that ended because another had taken over their shards."""
        self.shut_out_quietly = 0
        """Those of them that the broker's absence does not explain."""
        self.broker_away_at = float("-inf")
        """Monotonic time at which the broker came back last."""
        self.unreachable = 0
        """Workers that found no broker when they started."""
        self.alone = 0
        """Workers one of whose clients did not find the restarted broker again."""
        self.last_ones = 0
        """Those of all these that ended only when all were stopped, so that nobody took their place."""
        self._size = size
        self._folder = folder
        self._progress = progress
        self._rng = random.Random(f"{seed}/fleet")
        self._seed = seed
        self._pause_ms = pause_ms
        self._settings = {
            "core": asdict(SETTINGS),
            # Nobody may advance stream time by the clock: the other run does not either.
            "idle_after_s": 1e9,
            "checkpoint_min_bytes": 500,
            "checkpoint_bytes_per_event": 4.0,
            # With a slice in most entries, and none in some.
            "checkpoint_slice_bytes": 600,
            "trim_interval_s": 5.0,
            **settings_for(bootstrap, prefix, **settings),
        }
        self._folder.mkdir(parents=True, exist_ok=True)

    def tend(self) -> None:
        """Thaw who is due, and replace who has ended.

        Raises:
            AssertionError: One ended by itself, and not because it was shut out, because it started while there was
                no broker, or because it did not find a restarted one again.
        """
        now = time.monotonic()
        for member in list(self.members):
            if member.thaw_at is not None and now >= member.thaw_at:
                self._thaw(member)
            if member.process.poll() is not None:
                self.members.remove(member)
                self._expect_reason(member)
        while len(self.members) < self._size:
            self._start()

    def eligible(self) -> list[Member]:
        """Running members that have committed a batch since they started."""
        running = [each for each in self.members if each.thaw_at is None and each.process.poll() is None]
        return [each for each in running if (writer := each.writer()) and self._progress.batches(writer)]

    def youngest(self) -> Member:
        """The member that was started last."""
        return self.members[-1]

    def kill(self, member: Member) -> str:
        """SIGKILL; the step of a transaction it was at."""
        member.process.kill()
        member.process.wait(_END_S)
        self.members.remove(member)
        return member.step()

    def freeze(self, member: Member, seconds: float) -> str:
        """SIGSTOP for so long; the step of a transaction it is at."""
        member.process.send_signal(signal.SIGSTOP)
        member.thaw_at = time.monotonic() + seconds
        return member.step()

    def frozen(self) -> bool:
        """Whether a member is frozen."""
        return any(each.thaw_at is not None for each in self.members)

    def stop(self) -> None:
        """Thaw everybody and end them in order.

        Raises:
            AssertionError: One did not end well.
        """
        for member in self.members:
            self._thaw(member)
            member.process.terminate()
        for member in self.members:
            if member.process.wait(_END_S) != 0:
                self._expect_reason(member)
                self.last_ones += 1
        self.members.clear()

    def told(self) -> Counter[str]:
        """How often each event stands in the logs."""
        counted: Counter[str] = Counter()
        for log in self._folder.glob("*.log"):
            for line in log.read_text().splitlines():
                if line.startswith("{") and '"event": "' in line:
                    counted[line.partition('"event": "')[2].partition('"')[0]] += 1
        return counted

    def _start(self) -> None:
        name = f"worker-{self.started}"
        self.started += 1
        settings = {
            **self._settings,
            "worker_id": name,
            # Transactions of all sizes, with the next batch decoded ahead or not.
            "batch_records": (records := self._rng.choice((5, 30, 100))),
            "catch_up_records": records,
            "lookahead": self._rng.random() < 0.5,
        }
        log, steps = self._folder / f"{name}.log", self._folder / f"{name}.steps"
        arguments = [json.dumps(settings), str(steps), f"{self._seed}/{self.started}", str(self._pause_ms)]
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.oracle_worker", *arguments],
                stdout=stream,
                stderr=stream,
                # Many processes share few cores: threads of their own would only take turns.
                env={**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self.members.append(Member(process, log, steps))

    def _thaw(self, member: Member) -> None:
        if member.thaw_at is not None and member.process.poll() is None:
            member.process.send_signal(signal.SIGCONT)
        member.thaw_at = None

    def _expect_reason(self, member: Member) -> None:
        text = member.log.read_text()
        end = "\n".join(text.splitlines()[-30:])
        code = member.process.returncode
        if code == _NO_SERVER and member.writer() is None:
            self.unreachable += 1
            return
        if code == 1 and _ALONE in text:
            self.alone += 1
            return
        assert (code, _SHUT_OUT in text) == (1, True), f"{member.log.stem} ended by itself with code {code}:\n{end}"
        self.shut_out += 1
        self.shut_out_quietly += time.monotonic() - self.broker_away_at > _AFTERMATH_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            if member.process.poll() is None:
                member.process.kill()
                member.process.wait(_END_S)
