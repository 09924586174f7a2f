"""Does a tool fail for enough of its actors to be the tool's own fault?

Otherwise one actor with half the traffic, broken or malicious, would take the tool from everybody in about eight calls
(simulated). A tool trips only if at least so many of the actors that called it lately, and at least such a share of
them, had it fail for them more than once since it began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fuseboard_detectors.segments import I64, Bools


ENOUGH: Final = 2
"""So many counted failures of a tool since the estimated onset make an actor one for whom it fails."""


def broad(suspects: I64, callers: I64, *, actors: int = 3, share: tuple[int, int] = (1, 5)) -> Bools:
    """Which tools fail for enough actors, shape (k,). Exact: whole numbers are compared.

    Args:
        suspects: for how many actors each tool fails, shape (k,).
        callers: how many actors called it in the last ten minutes, the suspects among them, shape (k,).
        actors: so many suspects at least.
        share: and at least this share of the callers, as a ratio of whole numbers.
    """
    top, bottom = share
    return (suspects >= actors) & (suspects * bottom >= callers * top)
