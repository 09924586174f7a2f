"""The packaged rules as far as every shard decides by itself, for tests that compare two runs.

When a shard hears from others is each run's own, and so is what follows from that.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from pathlib import Path

from fuseboard_streams.rules.compile import PACKAGED

FIRST_STAGE = (
    PACKAGED.read_text(encoding="utf-8")
    .replace("scope: [ACTOR_TOOL, TOOL]", "scope: ACTOR_TOOL")
    .replace("    breadth: {actors: 3, share: 20%, max_per_actor: 3}\n", "")
    .replace("tenant_actors: 10%", "tenant_actors: 100%")
    .replace("per: TOOL", "per: ACTOR_TOOL")
)
assert not re.search(r"(scope|per): (TOOL|TENANT|\[.*, TOOL)", FIRST_STAGE)


def _written() -> str:
    folder = tempfile.mkdtemp(prefix="fuseboard-rules-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder) / "rules.yaml"
    file.write_text(FIRST_STAGE, encoding="utf-8")
    return str(file)


ALONE = {"rules": _written()}
"""Settings of workers that run them."""
