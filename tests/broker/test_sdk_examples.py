"""The SDK's examples, run as a user runs them, and what they leave in Kafka."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fuseboard import Outcome
from tests.broker.test_sdk import PARTITIONS, PATIENCE_S, Worker, read_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.topics import TopicNames

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, bootstrap: str, prefix: str, tmp_path: Path, ready_timeout_s: float) -> tuple[str, str]:
    environment = {
        **os.environ,
        "FUSEBOARD_BOOTSTRAP": bootstrap,
        "FUSEBOARD_PREFIX": prefix,
        "FUSEBOARD_SPOOL_DIR": str(tmp_path),
        "FUSEBOARD_READY_TIMEOUT_S": str(ready_timeout_s),
        "FUSEBOARD_CLOSE_TIMEOUT_S": "60",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("script", "says", "calls"),
    [
        ("six_lines.py", "refunded 42", [("refund", Outcome.OK, 1)]),
        (
            "async_agent.py",
            "refunded 42 under",
            [
                ("orders.find", Outcome.OK, 1),
                ("billing.refund", Outcome.ERROR, 1),
                ("billing.refund", Outcome.OK, 2),
            ],
        ),
        (
            "tool_loop.py",
            "not available now: control plane stale",
            [
                ("find_order", Outcome.OK, 1),
                ("refund", Outcome.ERROR, 1),
                ("refund", Outcome.OK, 1),
                ("close_account", Outcome.DENIED, 1),
            ],
        ),
    ],
)
def test_an_example(
    broker: str,
    unique_prefix: str,
    topics: Callable[..., TopicNames],
    tmp_path: Path,
    script: str,
    says: str,
    calls: list[tuple[str, Outcome, int]],
) -> None:
    names = topics(broker, unique_prefix, PARTITIONS)
    said, complained = run(script, broker, unique_prefix, tmp_path, 0.5)
    assert says in said
    # No worker runs here: an agent is told once that its calls go unguarded, and of nothing else.
    (warning,) = complained.splitlines()
    assert warning.startswith("control plane stale: ")
    assert "was let through without its breakers being known" in warning
    found = read_all(broker, names.tool_calls, "ToolCall", lambda records: len(records) >= len(calls))
    assert [(call.tool, call.outcome, call.attempt) for call in found] == calls
    assert {call.actor for call in found} == {"support_agent"}
    assert len({call.session_id for call in found}) == 1


@pytest.mark.parametrize("script", ["six_lines.py", "async_agent.py", "tool_loop.py"])
def test_an_example_with_a_worker_has_nothing_to_complain_about(
    broker: str, unique_prefix: str, topics: Callable[..., TopicNames], tmp_path: Path, script: str
) -> None:
    worker = Worker(broker, topics(broker, unique_prefix, PARTITIONS))
    worker.live()
    try:
        said, complained = run(script, broker, unique_prefix, tmp_path, PATIENCE_S)
    finally:
        worker.stop()
    assert said
    assert complained == ""
