"""What holds a breaker, and what each hold waits for, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fuseboard_streams.cli.render.text import Cell, ago, clock, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuseboard_schemas.records import BreakerCommand, Hold

_SECOND: Final = 1_000_000
_DAY_US: Final = 86_400 * _SECOND
_SESSION_US: Final = 3_600 * _SECOND
"""A hold on a session ends after so long at the latest, whatever its recovery."""


def window_end(hold: Hold, command: BreakerCommand) -> int:
    """Return when the window of a hold is over: the UTC day in which it began, or an hour of a session; in µs."""
    if str(command.scope) == "SESSION":
        return hold.since + _SESSION_US
    return (hold.since // _DAY_US + 1) * _DAY_US


def hold_waits(hold: Hold, command: BreakerCommand, now: int, probed: bool | None, quiet: str | None = None) -> str:
    """Return what releases a hold, and when that can be.

    Args:
        hold: One hold of the breaker.
        command: The breaker's newest command.
        now: Wall clock in µs since the epoch.
        probed: Whether calls of its tool can be probes, when that is known.
        quiet: How long its condition must be gone, such as ``5m``, where the rules in force say so.
    """
    match str(hold.recovery):
        case "PROBE" if probed is False:
            return "which nothing releases by itself"
        case "PROBE":
            waits = "; they wait until all other holds are released" if _probes_wait(command) else ""
            return f"until its probes come back clean{waits}"
        case "CLEAR":
            return "until the condition is gone" if quiet is None else f"until the condition has been gone for {quiet}"
        case "WINDOW":
            end = window_end(hold, command)
            return f"until its window is over at {clock(end, date=True)[:19]} UTC ({ago(end, now)})"
        case _:
            return "until a person releases it: `fuseboard breakers reset`"


def _probes_wait(command: BreakerCommand) -> bool:
    return str(command.state) == "OPEN" and any(str(hold.recovery) != "PROBE" for hold in command.holds)


def hold_line(hold: Hold, command: BreakerCommand, now: int, probed: bool | None, quiet: str | None = None) -> str:
    """Return one rule's grip and what releases it."""
    waits = hold_waits(hold, command, now, probed, quiet)
    return f"{printable(hold.rule)} asks for {hold.action} since {ago(hold.since, now)}, {waits}"


def open_waits(command: BreakerCommand, now: int) -> str:
    """Return what a breaker waits for that is open and not about to be probed."""
    found = list(dict.fromkeys(_short(hold, command, now) for hold in command.holds if str(hold.recovery) != "PROBE"))
    if not found:
        return "waits for a person"
    return ", ".join([*found, "then probes"] if _probes(command.holds) else found)


def _probes(holds: Sequence[Hold]) -> bool:
    return any(str(hold.recovery) == "PROBE" for hold in holds)


def _short(hold: Hold, command: BreakerCommand, now: int) -> str:
    match str(hold.recovery):
        case "PROBE":
            return "probes" if command.retry_at is None else f"probes {ago(command.retry_at, now)}"
        case "CLEAR":
            return "until the condition is gone"
        case "WINDOW":
            return f"window over {ago(window_end(hold, command), now)}"
        case _:
            return "waits for a person"


def hold_rows(command: BreakerCommand, now: int) -> list[Sequence[Cell | str]]:
    """Return what goes below a breaker in a table: its holds where there are several, or an order beats them."""
    forced = str(command.state).startswith("FORCED")
    rows = [_order_row(command)] if forced and command.person else []
    if forced or len(command.holds) > 1:
        rows += [
            _row(str(hold.action), f"└ {printable(hold.rule)}", ago(hold.since, now), _short(hold, command, now))
            for hold in command.holds
        ]
    return rows


def _order_row(command: BreakerCommand) -> Sequence[Cell | str]:
    return _row("", f"└ {printable(command.person or '')}: {printable(command.reason)}", "", "")


def _row(action: str, name: str, since: str, waits: str) -> Sequence[Cell | str]:
    return Cell(""), Cell(action, "dim"), Cell(name, "dim"), Cell(since, "dim"), "", "", "", Cell(waits, "dim")


def order_waits(command: BreakerCommand, now: int) -> str:
    """Return when an order of a person ends."""
    whose = f"order of {printable(command.person)}" if command.person else "order"
    if command.expires_at is not None:
        return f"{whose} ends {ago(command.expires_at, now)}"
    return f"{whose}, until it is reset" if command.person else "waits for a person"
