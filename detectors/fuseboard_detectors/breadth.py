"""Does a tool fail for enough of its actors to be the tool's own fault?

Otherwise one actor with half the traffic, broken or malicious, would take the tool from everybody in about eight calls
(simulated). A tool trips only if at least so many of the actors that called it lately, and at least such a share of
them, are suspect themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuseboard_detectors.segments import I64, Bools


def suspect(warned: Bools, failures: I64, *, at_least: int = 2) -> Bools:
    """Which actors count against a tool, shape (n,).

    Args:
        warned: whether the actor's own evidence about the tool is at warn level, shape (n,).
        failures: its counted failures of the tool since the estimated onset, shape (n,).
        at_least: so many failures do as well.
    """
    return warned | (failures >= at_least)


def broad(suspects: I64, callers: I64, *, actors: int = 3, share: tuple[int, int] = (1, 5)) -> Bools:
    """Which tools fail for enough actors, shape (k,). Exact: whole numbers are compared.

    Args:
        suspects: how many actors are suspect with each tool, shape (k,).
        callers: how many actors called it in the last ten minutes, the suspects among them, shape (k,).
        actors: so many suspects at least.
        share: and at least this share of the callers, as a ratio of whole numbers.
    """
    top, bottom = share
    return (suspects >= actors) & (suspects * bottom >= callers * top)
