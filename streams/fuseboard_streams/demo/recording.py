"""The recorded traces that the demo's agents follow."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from fuseboard_schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

_FILE: Final = "tau_airline_gpt4o.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded step of an agent.

    Attributes:
        tool: The tool that was called; None for a call of the model.
        error: What the tool answered if it failed, else None.
        seconds: How long after the step before it this one ended.
    """

    tool: str | None
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Trace:
    """One recorded task: its steps in order, and whether the agent solved it."""

    task: str
    steps: tuple[Step, ...]
    solved: bool

    @property
    def tool_calls(self) -> int:
        """How many of the steps are tool calls."""
        return sum(step.tool is not None for step in self.steps)


@dataclass(frozen=True, slots=True)
class Recording:
    """What each actor did: its traces in order."""

    traces: dict[str, tuple[Trace, ...]]
    pause_s: float
    """Time between two traces."""

    @property
    def tool_calls(self) -> int:
        """How many tool calls there are."""
        return sum(trace.tool_calls for traces in self.traces.values() for trace in traces)

    def calls_of(self, tool: str, actor: str | None = None) -> tuple[int, int]:
        """How often a tool was called, and how often it failed, by all actors or by one."""
        chosen = [self.traces[actor]] if actor is not None else list(self.traces.values())
        steps = [step for traces in chosen for trace in traces for step in trace.steps if step.tool == tool]
        return len(steps), sum(step.error is not None for step in steps)


def load_recording() -> Recording:
    """The recording in the package.

    Raises:
        ConfigurationError: The package is incomplete.
    """
    path = files("fuseboard_streams.demo") / "data" / _FILE
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError) as error:
        raise ConfigurationError(
            f"{path}: the recorded traces that the demo plays cannot be read ({error}). They are part of the package: "
            "install fuseboard again."
        ) from error
    return read_recording(json.loads(line) for line in text.splitlines())


def read_recording(rows: Iterable[dict[str, Any]], pause_s: float = 5.0) -> Recording:
    """Read flat rows with ``actor``, ``trace_id``, ``task``, ``ts`` (ms), ``kind``, ``tool``, ``ok`` and ``error``.

    Args:
        rows: Each actor's rows in the order of its steps; a trace ends with a row of kind ``final``.
        pause_s: Time between two traces, which the first step of a trace follows.
    """
    traces: dict[str, list[Trace]] = {}
    for (actor, _), group in groupby(rows, key=lambda row: (row["actor"], row["trace_id"])):
        traces.setdefault(actor, []).append(_trace(list(group)))
    return Recording({actor: tuple(made) for actor, made in traces.items()}, pause_s)


def _trace(rows: list[dict[str, Any]]) -> Trace:
    steps: list[Step] = []
    before = None
    for row in rows:
        if row["kind"] == "final":
            continue
        seconds = 0.0 if before is None else (row["ts"] - before) / 1000
        before = row["ts"]
        error = None if row["ok"] else row["error"] or "no answer was recorded"
        steps.append(Step(row["tool"] if row["kind"] == "tool_call" else None, error, seconds))
    final = rows[-1]
    return Trace(final["task"], tuple(steps), final["kind"] == "final" and bool(final["ok"]))
