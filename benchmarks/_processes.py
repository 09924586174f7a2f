"""Processes a benchmark starts: their CPU seconds and memory with all their children, and their end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psutil

from benchmarks._harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class ProcessFailed(click.ClickException):
    """A process that a benchmark started ended with an error, or did not end in time."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group of processes has used so far.

    Attributes:
        cpu_s: CPU seconds, user and system, children included.
        rss_peak_bytes: the largest peak of resident memory (`VmHWM`) of any of the started processes, each with its
            children.
    """

    cpu_s: float
    rss_peak_bytes: int


class Started:
    """A process we started, in a session of its own so that its children end with it.

    It ends with us too, however we end: a benchmark that is killed leaves nothing running behind.
    """

    def __init__(self, name: str, argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self._cpu_s = 0.0
        self._rss_peak = 0
        self._family: list[psutil.Process] = []
        self._family_until = 0.0

    @property
    def pid(self) -> int:
        """The process id."""
        return self.popen.pid

    def ended(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.popen.poll()

    def usage(self) -> Usage:
        """CPU and memory of the process and its children; after its end, as last seen."""
        cpu, peak = 0.0, 0
        for process in self._members():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu += times.user + times.system + times.children_user + times.children_system
                peak += _resident_peak(process.pid)
        self._cpu_s, self._rss_peak = max(self._cpu_s, cpu), max(self._rss_peak, peak)
        return Usage(self._cpu_s, self._rss_peak)

    def _members(self) -> list[psutil.Process]:
        # Finding children reads every process of the machine: too dear for each of twenty samples a second.
        if time.monotonic() >= self._family_until:
            with suppress(psutil.NoSuchProcess):
                own = psutil.Process(self.pid)
                self._family = [own, *own.children(recursive=True)]
            self._family_until = time.monotonic() + 2.0
        return self._family

    def wait(self, timeout_s: float) -> int:
        """Wait for the end.

        Raises:
            ProcessFailed: it ran longer than `timeout_s`, or ended with another code than 0.
        """
        try:
            code = self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{self.name} did not end within {timeout_s:g} s; its log: {self.tail()}") from None
        if code != 0:
            raise ProcessFailed(f"{self.name} ended with exit code {code}; its log: {self.tail()}")
        return code

    def stop(self, grace_s: float = 20.0) -> None:
        """Ask the process and its children to end, and end them if they do not within `grace_s`."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(grace_s)
                break
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process at once with SIGKILL, as a crash would."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()

    def tail(self, lines: int = 30) -> str:
        """The last lines of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or "(empty)"


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Ask Linux, in the new process, for SIGKILL when the process that started it dies (`man 2 prctl`)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _resident_peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def usage_of(processes: Sequence[Started]) -> Usage:
    """CPU of all `processes` together, and the largest memory peak among them."""
    used = [process.usage() for process in processes]
    return Usage(sum(each.cpu_s for each in used), max((each.rss_peak_bytes for each in used), default=0))


@contextmanager
def running(processes: Sequence[Started]) -> Iterator[Sequence[Started]]:
    """`processes`, all of which have ended when the block is left."""
    try:
        yield processes
    finally:
        for process in processes:
            if process.ended() is None:
                process.stop()
