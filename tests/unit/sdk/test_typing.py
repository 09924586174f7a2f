"""Guarded functions keep their types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_guarded_functions_keep_their_types() -> None:
    """A strict type checker finds what typing_cases.py says, and every wrong call in it."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(here / "typing_cases.py")],
        cwd=here.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
