"""What importing the SDK costs and shows."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

import fuseboard
from fuseboard import Action, Scope, ToolBlocked


def test_every_public_name_is_exported() -> None:
    public = {
        name
        for name, value in vars(fuseboard).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith(("fuseboard.", "fuseboard_schemas."))
    }
    assert public == set(fuseboard.__all__)
    assert list(fuseboard.__all__) == sorted(fuseboard.__all__)


def test_importing_is_light() -> None:
    heavy = ["confluent_kafka", "fastavro", "asyncio", "numpy", "polars", "pydantic", "fuseboard_streams", "hashlib"]
    program = f"import sys, fuseboard; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_warning_is_seen_where_nobody_has_set_up_logging() -> None:
    """An agent that nothing guards must not look like one that is guarded."""
    program = "import fuseboard, logging; logging.getLogger('fuseboard.follower').warning('nobody is there')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "nobody is there"


def test_a_refusal_can_be_pickled_to_another_process() -> None:
    refusal = ToolBlocked("refund", "bad", action=Action.HALT, scope=Scope.ACTOR, epoch=3, retry_after=1.5)
    copy = pickle.loads(pickle.dumps(refusal))
    assert str(copy) == str(refusal)
    assert (copy.action, copy.epoch, copy.retry_after) == (Action.HALT, 3, 1.5)


@pytest.mark.parametrize("enabled", ["True", "False"])
def test_a_process_that_never_calls_anything_ends_at_once(enabled: str) -> None:
    program = (
        f"import fuseboard; fuseboard.Fuseboard('a', bootstrap='127.0.0.1:1', enabled={enabled}, close_timeout_s=60)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)
