"""The demo as a person runs it: real broker, worker process and agents."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from fuseboard_streams.demo.run import ACTOR, TOOL

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.broker, pytest.mark.slow]

COMMAND = [sys.executable, "-c", "from fuseboard_streams.cli import main; main()", "demo"]


def run_demo(*options: str) -> dict[str, Any]:
    done = subprocess.run([*COMMAND, "--json", *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without its breakers being known" not in done.stderr
    (line,) = done.stdout.splitlines()
    facts: dict[str, Any] = json.loads(line)
    return facts


def check(facts: dict[str, Any]) -> None:
    trip = facts["trip"]
    assert (trip["actor"], trip["tool"], trip["action"]) == (ACTOR, TOOL, "DISABLE_TOOL")
    assert trip["evidence"] >= 1e6
    assert 0 < trip["failures_seen"] <= trip["calls_seen"]
    latency = facts["latency_ms"]
    assert list(latency) == ["event_to_command", "event_to_gate", "event_to_ack"]
    assert all(value > 0 for value in latency.values())
    assert latency["event_to_gate"] < latency["event_to_ack"]
    assert facts["refused_calls"] > 0
    assert facts["recovered"] is True
    assert facts["false_trips"] == []
    assert facts["other_actors"]["refused"] == 0
    assert facts["same_trip"] is True
    assert facts["events_lost"] == 0
    assert facts["events"] > facts["tool_calls"] > 1_164
    assert {each["tool"] for each in facts["healthy"]} >= {"book_reservation", "update_reservation_flights"}
    assert facts["duration_s"] < 60


def test_one_trip_the_right_one_refused_and_recovered() -> None:
    facts = run_demo()

    assert facts["broker"] == "embedded"
    check(facts)


@pytest.mark.kafka
def test_the_same_on_a_broker_of_ones_own_which_it_leaves_as_it_was(apache_kafka: str) -> None:
    client = AdminClient({"bootstrap.servers": apache_kafka})

    facts = run_demo("--bootstrap", apache_kafka)

    assert facts["broker"] == apache_kafka
    check(facts)
    assert [name for name in client.list_topics(timeout=10).topics if name.startswith("fuseboard.demo-")] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_it_takes_everything_with_it(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**psutil.Process().environ(), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stdout is not None
        next(line for line in demo.stdout if " play " in line)
        children = psutil.Process(demo.pid).children(recursive=True)

        demo.send_signal(number)
        _, said = demo.communicate(timeout=60)

    assert len(children) >= 2
    assert demo.returncode == 130, said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert list(tmp_path.iterdir()) == []
