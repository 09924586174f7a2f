"""Which runbooks are ours: named by their path in the repository, printed by the package."""

from __future__ import annotations

import re

_OURS = re.compile(r"docs/runbooks/([a-z0-9-]+)\.md")


def packaged_name(runbook: str) -> str | None:
    """The name by which ``fuseboard runbook`` prints a runbook; None for somebody else's."""
    found = _OURS.fullmatch(runbook)
    return None if found is None else found[1]
