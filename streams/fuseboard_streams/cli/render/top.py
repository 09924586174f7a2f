"""The live view as lines of text: what ``top`` shows, computed from one snapshot."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fuseboard_streams.cli.render.breakers import breakers_table, is_open
from fuseboard_streams.cli.render.lines import STATE_STYLE, evidence, probes, who
from fuseboard_streams.cli.render.text import (
    PLAIN,
    Cell,
    Paint,
    Style,
    ago,
    clip,
    clock,
    duration,
    plural,
    printable,
    rate,
    table,
)
from fuseboard_streams.cli.render.watching import nearest_table, objectives_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fuseboard_schemas.records import BreakerCommand, NearTrip, Signal

SILENT_AFTER_US: Final = 10_000_000
"""A shard beats every second; after this long without one its owner counts as gone."""

MOST_NEAREST: Final = 8
"""Targets on their way to a trip that are shown."""

_SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ShardView:
    """The last sign of life of one shard (times in µs since the epoch, ``heard`` is the broker's arrival time)."""

    number: int
    worker: str
    lag_s: float
    stream_time: int
    heard: int
    nearest: tuple[NearTrip, ...] = ()
    """Its targets that are nearest to a trip."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that ``top`` shows, at one moment.

    Attributes:
        at: Wall clock, µs since the epoch.
        bootstrap: The brokers.
        prefix: The topics' prefix.
        partitions: How many shards there should be.
        events_per_s: Tool calls that arrived per second over ``window_s``.
        dead_letters: Dead letters that arrived in the last minute.
        shards: The last heartbeat of each shard.
        open_breakers: The newest command of every breaker that is not closed.
        transitions: The latest commands, the newest first.
        probed: By the breaker's id, whether calls of its tool can be probes, where that is known.
        watched: The latest trips of rules that hold nothing back, the newest first.
        objectives: The newest state of each objective and target, those violated first.
        silent_since: When the broker was last heard, µs since the epoch; ``None`` while it answers.
        problem: Why nothing is heard, for people.
    """

    at: int
    bootstrap: str
    prefix: str
    partitions: int
    events_per_s: float
    window_s: int
    dead_letters: int
    shards: Sequence[ShardView]
    open_breakers: Sequence[BreakerCommand]
    transitions: Sequence[BreakerCommand]
    probed: Mapping[str, bool | None] = field(default_factory=dict)
    watched: Sequence[Signal] = ()
    objectives: Sequence[Signal] = ()
    silent_since: int | None = None
    problem: str = ""

    def live(self) -> list[ShardView]:
        """Return the shards whose owner has been heard lately."""
        return [s for s in self.shards if self.at - s.heard < SILENT_AFTER_US]

    def lag_s(self) -> float | None:
        """Return the worst lag of all live shards, ``None`` when no worker is alive."""
        return max((s.lag_s for s in self.live()), default=None)

    def nearest(self) -> list[NearTrip]:
        """Return the targets of all live shards that are nearest to a trip, the nearest first."""
        found = [each for shard in self.live() for each in shard.nearest]
        # Where a shard's tools are all alike its own order stays.
        return sorted(found, key=lambda each: round(each.trip_log10 - each.evidence_log10, 6))[:MOST_NEAREST]

    def as_json(self) -> dict[str, Any]:
        """Return the snapshot's own figures as JSON; the caller adds the breakers in their JSON form."""
        return {
            "at": self.at,
            "bootstrap": self.bootstrap,
            "prefix": self.prefix,
            "partitions": self.partitions,
            "silent_since": self.silent_since,
            "problem": self.problem or None,
            "events_per_s": None if self.silent_since is not None else round(self.events_per_s, 3),
            "window_s": self.window_s,
            "dead_letters_last_minute": None if self.silent_since is not None else self.dead_letters,
            "lag_s": self.lag_s(),
            "shards_alive": len(self.live()),
            "nearest": [dataclasses.asdict(each) for each in self.nearest()],
            "workers": sorted({s.worker for s in self.live()}),
            "shards": [
                {
                    "shard": s.number,
                    "worker": s.worker,
                    "lag_s": s.lag_s,
                    "stream_time": s.stream_time,
                    "heard": s.heard,
                    "alive": self.at - s.heard < SILENT_AFTER_US,
                }
                for s in self.shards
            ],
        }


def top_lines(
    snapshot: Snapshot, paint: Paint = PLAIN, columns: int | None = None, rows: int | None = None
) -> list[str]:
    """Return the view, one line per element.

    Args:
        snapshot: What to show.
        paint: Adds the colours.
        columns: The terminal's width; ``None`` cuts nothing.
        rows: The terminal's height: transitions that do not fit are left out; ``None`` shows all.
    """
    title = f"fuseboard top · {snapshot.bootstrap} · {snapshot.prefix}*"
    lines = [f"{paint(title, 'bold')}  {paint(clock(snapshot.at) + ' UTC', 'dim')}"]
    if snapshot.silent_since is None:
        lines += ["", _summary(snapshot, paint), ""]
    else:
        lines += ["", *_silence(snapshot, snapshot.silent_since, paint, columns), ""]
    lines += [*_workers(snapshot, paint, columns), "", *_breakers(snapshot, paint, columns)]
    objectives = objectives_table(snapshot.objectives, snapshot.at, paint, columns)
    for part in (nearest_table(snapshot.nearest(), paint, columns), objectives):
        lines += ["", *part] if part else []
    latest = _latest(snapshot, paint, columns)
    if latest:
        room = None if rows is None else max(0, rows - len(lines) - 2)
        if shown := latest[:room]:
            lines += ["", paint("latest transitions", "bold"), *shown]
    return lines if rows is None else lines[:rows]


def _silence(snapshot: Snapshot, since: int, paint: Paint, columns: int | None) -> list[str]:
    """Return what to say instead of figures while the broker does not answer."""
    gap = ago(since, snapshot.at)
    said = f"nothing heard from {snapshot.bootstrap} since {clock(since)} UTC ({gap}); trying again"
    lines = [said, "what follows was so then: breakers may have changed, agents follow what they know"]
    lines += [printable(snapshot.problem)] if snapshot.problem else []
    styles: tuple[Style, ...] = ("red bold", "yellow", "dim")
    return [
        paint(line if columns is None else clip(line, columns), style)
        for line, style in zip(lines, styles, strict=False)
    ]


def _summary(snapshot: Snapshot, paint: Paint) -> str:
    """Return the line of figures at the top."""
    lag = snapshot.lag_s()
    lag_text = paint("lag unknown", "red bold") if lag is None else paint(f"lag {_seconds(lag)}", _lag_style(lag))
    dead = f"{plural(snapshot.dead_letters, 'dead letter')} in 1 min"
    alive = len(snapshot.live())
    workers = len({s.worker for s in snapshot.live()})
    shards = f"{plural(workers, 'worker')}, {alive} of {plural(snapshot.partitions, 'shard')}"
    return "   ".join(
        [
            f"{paint(rate(snapshot.events_per_s), 'bold')} tool calls",
            lag_text,
            paint(shards, "red bold" if alive < snapshot.partitions else ""),
            paint(dead, "red" if snapshot.dead_letters else "dim"),
        ]
    )


def _seconds(lag: float) -> str:
    """Return a lag in seconds for people."""
    return f"{lag:.1f} s" if lag < 10 else duration(int(lag * _SECOND))


def _lag_style(lag: float) -> Style:
    """Return the colour of a lag."""
    return "green" if lag < 1 else "yellow" if lag < 10 else "red bold"


def _workers(snapshot: Snapshot, paint: Paint, columns: int | None) -> list[str]:
    """Return one row per worker: its shards, worst lag, stream time and last sign of life."""
    if not snapshot.shards:
        return [paint("no worker has ever reported here: start one with `fuseboard worker`", "yellow")]
    by_worker: dict[str, list[ShardView]] = {}
    for shard in snapshot.shards:
        by_worker.setdefault(shard.worker, []).append(shard)
    rows = []
    for worker, shards in sorted(by_worker.items()):
        heard = max(s.heard for s in shards)
        silent = snapshot.at - heard >= SILENT_AFTER_US
        lag = max(s.lag_s for s in shards)
        newest = max(s.stream_time for s in shards)
        rows.append(
            (
                Cell(worker, "dim" if silent else "bold"),
                ranges([s.number for s in shards]),
                Cell("" if silent else _seconds(lag), _lag_style(lag)),
                clock(newest) if newest else "nothing yet",
                Cell(("silent, " if silent else "") + ago(heard, snapshot.at), "red bold" if silent else "dim"),
            )
        )
    return table(("worker", "shards", "lag", "stream time", "heard"), rows, paint=paint, columns=columns)


def ranges(numbers: Sequence[int]) -> str:
    """Return shard numbers in short: ``0-3, 7``."""
    parts: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][1] == number - 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def _breakers(snapshot: Snapshot, paint: Paint, columns: int | None) -> list[str]:
    """Return the table of the breakers that are not closed."""
    shown = [c for c in snapshot.open_breakers if is_open(c)]
    if not shown:
        return [paint("no breaker is open", "green")]
    title = paint(f"{plural(len(shown), 'breaker')} open", "red bold")
    return [title, *breakers_table(shown, snapshot.at, paint, columns, snapshot.probed)]


def _latest(snapshot: Snapshot, paint: Paint, columns: int | None) -> list[str]:
    """Return the latest transitions, and trips of rules that hold nothing back, in one list, the newest first."""
    lines = [(c.ts, _transition(c, paint, columns)) for c in snapshot.transitions]
    lines += [(signal.ts, _watched(signal, paint, columns)) for signal in snapshot.watched]
    return [line for _, line in sorted(lines, key=lambda each: -each[0])]


def _watched(signal: Signal, paint: Paint, columns: int | None) -> str:
    """Return the trip of a rule in shadow, or of one that only warns, as one line."""
    state = "in shadow" if str(signal.level) == "INFO" else "warning"
    target = printable(who(signal.tenant, signal.actor, signal.tool))
    text = f"{state:<9}  {target}  {printable(signal.rule or signal.metric)}: {printable(signal.reason or '')}"
    text = text if columns is None else clip(text, columns - 14)
    return f"{paint(clock(signal.ts), 'dim')}  {paint(text[:9], 'magenta')}{text[9:]}"


def _transition(command: BreakerCommand, paint: Paint, columns: int | None) -> str:
    """Return one transition as one line; the colours go when the line has to be cut."""
    state = f"{command.state!s:<9}"
    tail = evidence(command.evidence_log10, command.calls_seen, command.failures_seen, command.null_p0)
    if str(command.cause) == "OVERRIDE":
        tail = f"{printable(command.person or '')}: {printable(command.reason)}"
    target = printable(who(command.tenant, command.actor, command.tool))
    text = "  ".join(word for word in (state, target, probes(command) or tail) if word)
    text = text if columns is None else clip(text, columns - 14)
    style = STATE_STYLE.get(str(command.state), "")
    return f"{paint(clock(command.ts), 'dim')}  {paint(text[: len(state)], style)}{text[len(state) :]}"
