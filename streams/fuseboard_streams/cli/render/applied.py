"""Rules in force, and which shards run them, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_streams.cli.render.text import PLAIN, Cell, Paint, ago, clock, plural, printable, table
from fuseboard_streams.cli.render.top import SILENT_AFTER_US, ranges

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fuseboard_schemas.records import Rules
    from fuseboard_streams.cli.rules_topic import InForce, ShardRules


def silent(shard: ShardRules, now: int) -> bool:
    """Return whether nothing has been heard of a shard's owner lately."""
    return shard.heard is None or now - shard.heard >= SILENT_AFTER_US


def differing(shards: Sequence[ShardRules], version: str, now: int) -> list[ShardRules]:
    """Return the shards that are alive and run another version."""
    return [each for each in shards if not silent(each, now) and each.version != version]


def refused_lines(refused: Sequence[str], paint: Paint = PLAIN) -> list[str]:
    """Return one line per record in the topic that is newer than what holds and cannot be used."""
    return [paint(f"cannot be used, so it does not hold: {printable(each)}", "red") for each in refused]


def applied_lines(
    file: str,
    version: str,
    replaced: str | None,
    record: Rules | None,
    missing: Sequence[ShardRules] | None,
    *,
    dry_run: bool = False,
    paint: Paint = PLAIN,
) -> list[str]:
    """Return what has become of a file that was to be applied.

    Args:
        file: Its name.
        version: Its version.
        replaced: The version before; None if those were the packaged rules.
        record: What was written, if anything was.
        missing: The shards that do not run it; None if nobody waited.
        dry_run: Whether nothing was to be written.
        paint: Adds the colours.
    """
    before = "the packaged rules" if replaced is None else replaced
    if dry_run:
        return [f"Nothing was applied: {printable(file)} would be version {version}, after {before}."]
    if record is None:
        lines = [paint(f"Version {version} holds already; nothing was written.", "green")]
    else:
        by = f"by {printable(record.applied_by)}"
        lines = [paint(f"Version {version} is applied {by}, after {before}.", "green")]
    if missing is None:
        hint = ["`fuseboard rules show` says which shards run it."]
    elif missing:
        hint = [paint(f"{plural(len(missing), 'shard')} did not show it in time:", "red bold")]
        hint += [f"  {_missing(each)}" for each in missing]
    else:
        hint = [paint("Every shard runs it.", "green")]
    return lines + hint


def _missing(shard: ShardRules) -> str:
    if not shard.live:
        return f"shard {shard.shard}: no heartbeat came; start a worker, and see `fuseboard doctor`"
    return f"shard {shard.shard}: worker {printable(shard.worker or '')} runs {printable(shard.version or '')}"


def in_force_lines(
    found: InForce,
    shards: Sequence[ShardRules],
    others: Mapping[str, int],
    now: int,
    paint: Paint = PLAIN,
    columns: int | None = None,
) -> list[str]:
    """Return which rules hold and who runs them.

    Args:
        found: The rules.
        shards: What each shard's last heartbeat names.
        others: How many breakers in force were decided under which other version.
        now: Wall clock in µs since the epoch.
        paint: Adds the colours.
        columns: The terminal's width.
    """
    lines = [*refused_lines(found.refused, paint), *_origin(found, now, paint), ""]
    lines += _shards(found.version, shards, now, paint, columns)
    count = sum(others.values())
    if count:
        named = ", ".join(f"{number:,} under {printable(version)}" for version, number in others.items())
        lines.append(f"{plural(count, 'breaker')} in force decided under other versions: {named}")
    return lines


def _origin(found: InForce, now: int, paint: Paint) -> list[str]:
    record, file = found.record, found.compiled.file
    made = f"{plural(len(file.breakers), 'breaker')}, {plural(len(file.objectives), 'objective')}"
    title = f"version {paint(found.version, 'bold')}: {made}"
    if record is None:
        return [title, "the packaged rules: nobody has applied others here, or they were taken back"]
    when = f"{clock(record.ts, date=True)} UTC ({ago(record.ts, now)})"
    lines = [title, f"applied by {printable(record.applied_by)} at {when}, after {record.previous_version or 'none'}"]
    return lines if record.reason is None else [*lines, f"reason: {printable(record.reason)}"]


def _shards(version: str, shards: Sequence[ShardRules], now: int, paint: Paint, columns: int | None) -> list[str]:
    """Return a row per worker and version, the worst first, and a summary."""
    groups: dict[tuple[str, str], list[ShardRules]] = {}
    for each in shards:
        groups.setdefault((each.worker or "", each.version or ""), []).append(each)
    rows = []
    for (worker, shown), members in sorted(groups.items(), key=lambda item: (item[0][1] == version, item[0])):
        gone = [each for each in members if silent(each, now)]
        heard = max((each.heard for each in members if each.heard is not None), default=None)
        last = "never" if heard is None else ago(heard, now)
        said = "runs it" if shown == version else "differs" if shown else ""
        state = Cell("silent" if len(gone) == len(members) else said, "green" if shown == version else "red bold")
        rows.append((ranges([each.shard for each in members]), worker or "none yet", shown, last, state))
    lines = table(("shards", "worker", "version", "heard", ""), rows, paint=paint, columns=columns)
    alive = [each for each in shards if not silent(each, now)]
    same = sum(each.version == version for each in alive)
    text = f"{same:,} of {plural(len(shards), 'shard')} run it"
    if len(alive) < len(shards):
        text += f"; {len(shards) - len(alive):,} silent: see `fuseboard doctor`"
    if same < len(alive):
        text += "; a worker takes a change over within seconds, and one with a rules file of its own never does"
    return [*lines, paint(text, "green" if same == len(shards) else "yellow")]
