"""The terminal: one line per act, a table at the end; colours only on a terminal, nothing with ``--json``."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from fuseboard_streams.demo.story import percent, power, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.status import Status

    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.demo.servers import Servers
    from fuseboard_streams.demo.story import Act, Story

_LATENCIES: Final = {
    "event_to_command": "until the command can be read committed from Kafka",
    "event_to_gate": "until the agent's own gate has it in force",
    "event_to_ack": "until the worker has read the acknowledgement",
}
_NEXT: Final = (
    ("fuseboard demo --keep", "left running, to look around in"),
    ("fuseboard demo --bootstrap HOST:9092", "on your own Kafka"),
    ("python examples/six_lines.py", "a tool of yours, in six lines"),
    ("docker compose up", "Kafka, a registry and a worker"),
)
_PLAIN_WIDTH: Final = 100
_INDENT: Final = 21
_NARROWEST: Final = 30
_ROWS: Final = 5


class Screen:
    """Where the story is told.

    Args:
        quiet: Tell nothing.
        console: Where to write; standard output by default.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(quiet=quiet, highlight=False)
        if console is None and not self._console.is_terminal:
            self._console.width = _PLAIN_WIDTH
        self._status: Status | None = None
        self._began_us = 0

    def title(self) -> None:
        """What this is."""
        self._console.print()
        self._console.print(Text("Fuseboard: circuit breakers for AI agents, end to end", "bold"))
        self._console.print()

    def begin(self, at_us: int) -> None:
        """From here on times count."""
        self._began_us = at_us

    def act(self, act: Act) -> None:
        """Tell one act."""
        self.line(act.label, act.text, act.style, at_us=act.at_us)

    def line(self, label: str, text: str, style: str = "", *, at_us: int | None = None) -> None:
        """Print one line of the story, wrapped under itself."""
        clock = "" if at_us is None else f"{max(0, at_us - self._began_us) / 1e6:.2f} s"
        lines = textwrap.wrap(text, max(_NARROWEST, self._console.width - _INDENT), break_on_hyphens=False)
        shown = Text(f"{clock:>7}  ", "dim") + Text(f"{label:<12}", style or "bold")
        self._print(shown + Text(lines[0], style))
        for line in lines[1:]:
            self._print(Text(" " * _INDENT) + Text(line, style))

    def _print(self, text: Text) -> None:
        # What is wrapped already must not be cut: a name that is too long for the line goes over its end.
        self._console.print(text, soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A line that moves while something is under way, on a terminal only."""
        if not self._console.is_terminal or self._console.quiet:
            yield
            return
        with self._console.status(Text(text, "dim"), spinner="dots") as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def update(self, text: str) -> None:
        """Change the moving line."""
        if self._status is not None:
            self._status.update(Text(text, "dim"))

    def summary(self, story: Story, facts: dict[str, Any], core: CoreSettings) -> None:
        """The figures, why nothing else tripped, and the verdict."""
        self._heading("Measured from the end of the deciding call")
        for name, value in story.latency_ms.items():
            shown = "not seen" if value is None else f"{value:.0f} ms"
            self._print(Text(f"  {shown:>9}", "bold") + Text(f"  {_LATENCIES[name]}"))
        self._healthy(facts, core)
        self._heading("In short")
        if not story.succeeded:
            self._paragraph(f"This did not go as it should: {failing(story)}.", "bold red")
            return
        others = facts["other_actors"]["calls"]
        self._paragraph(
            f"One trip, the right one. {len(story.refusals)} calls were refused at once instead of failing, "
            f"{story.slipped} slipped through before the gate knew, {len(story.probes)} probes brought the tool back. "
            f"The other agents called it {others} times meanwhile, unhindered. {facts['events']:,} events delivered, "
            f"{facts['events_lost']} lost; {facts['duration_s']:.0f} s after {facts['setup_s']:.1f} s of set-up.",
            "green",
        )

    def _healthy(self, facts: dict[str, Any], core: CoreSettings) -> None:
        failure, others = core.failure, sorted(facts["healthy"], key=lambda each: -each["log10"])
        self._heading("Why nothing else tripped")
        row = "  {:<27} {:<7} {:>6} {:>11} {:>10} {:>10}"
        self._print(Text(row.format("tool", "agent", "calls", "failed", "normal to", "evidence"), "dim"))
        for each in others[:_ROWS]:
            failed = f"{each['failures']} = {each['failures'] / each['calls']:.0%}"
            figures = (str(each["calls"]), failed, percent(each["null_p0"]), power(each["log10"]))
            self._print(Text(row.format(each["tool"], short(each["actor"]), *figures)))
        normal = percent(max((each["null_p0"] for each in others), default=0.0))
        same = " and trips at the same call" if facts["same_trip"] else ""
        self._paragraph(
            f"They fail by the agents' own mistakes, and did from the start. With so few calls known, normal may be "
            f"anything up to {normal}, and against that this is no proof: a warning takes {_level(failure.warn)}, a "
            f"trip {_level(failure.trip)}. (Highest values; the worker's core, run again over all "
            f"{facts['tool_calls']:,} calls in Kafka, gives them{same}.)",
            "dim",
        )

    def _heading(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, "bold"))

    def _paragraph(self, text: str, style: str) -> None:
        for line in textwrap.wrap(text, self._console.width - 2, break_on_hyphens=False):
            self._print(Text(f"  {line}", style))

    def next_steps(self, servers: Servers | None, story: Story) -> None:
        """What to try next; with servers, those that keep running."""
        if servers is None:
            heading, rows = "Next", _NEXT
        else:
            where = f"--bootstrap {servers.connection.bootstrap}"
            if not servers.embedded:
                where += f" --prefix {servers.connection.prefix}"
            heading = "Still running; try in another terminal (Ctrl-C here ends it)"
            rows = (
                (f"fuseboard top {where}", "rates, lag, breakers, live"),
                (f"fuseboard tap breaker-commands {where}", "every command"),
                (f"fuseboard breakers show {shlex.quote(story.breaker)} {where}", "what became of it"),
                (f"fuseboard doctor {where}", "is all well?"),
            )
        shown = [*_activation(), *rows]
        self._heading(heading)
        longest = max(len(command) for command, _ in shown) if servers is None else 0
        for command, meaning in shown:
            # One line each, however long, so that it can be copied.
            self._print(Text(f"  {command:<{longest}}", "cyan") + Text(f"  # {meaning}", "dim"))
        self._console.print()


def _level(level: float) -> str:
    return f"10^{math.log10(level):g}"


def failing(story: Story) -> str:
    """What did not go as it should, in words."""
    problems = []
    if story.trip is None:
        problems.append("the breaker of the broken tool did not trip in time")
    elif not story.refusals:
        problems.append("no call was refused after the trip")
    elif not story.enforced:
        missing = [name for name, value in story.latency_ms.items() if value is None]
        problems.append(f"not measured: {', '.join(missing)}")
    if story.trip is not None and not story.recovered:
        problems.append("the tool did not come back in time")
    problems += [f"{each.breaker_id} tripped without a cause" for each in story.strangers]
    return "; ".join(problems) or "nothing"


def _activation() -> list[tuple[str, str]]:
    """How to make the commands known to the shell, where it would not find them."""
    activate = Path(sys.executable).with_name("activate")
    if shutil.which("fuseboard") is not None or not activate.exists():
        return []
    return [(f". {os.path.relpath(activate)}", "first, or the shell finds nothing")]
