"""The benchmarks' bookkeeping: order of runs, medians, ratios within a round, rates from a group's commits."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks._harness import Report, Run, Target, interleave, median_of, percentile, ratio_of, rounded
from benchmarks._kafka import Curve, Point
from benchmarks._processes import ProcessFailed, Started, Usage, running


def run(contender: str, repetition: int, rate: float) -> Run:
    return Run(contender, repetition, {"events_per_s": rate})


def test_every_contender_runs_once_a_round_and_each_round_begins_with_another() -> None:
    order: list[tuple[str, int]] = []

    def contender(name: str, repetition: int) -> dict[str, float]:
        order.append((name, repetition))
        return {"events_per_s": 1.0}

    runs = interleave({name: lambda r, name=name: contender(name, r) for name in "abc"}, 4)
    assert [(each.contender, each.repetition) for each in runs] == order
    assert "".join(name for name, _ in order) == "abc" + "bca" + "cab" + "abc"


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_of_the_medians() -> None:
    runs = [run("a", 0, 10), run("b", 0, 5), run("a", 1, 1), run("b", 1, 1), run("a", 2, 30), run("b", 2, 10)]
    assert ratio_of(runs, "a", "b") == 2.0
    assert median_of(runs, "a", "events_per_s") == 10


def test_a_ratio_of_what_was_not_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="no round measured"):
        ratio_of([run("a", 0, 1)], "a", "b")


@pytest.mark.parametrize(("q", "expected"), [(1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)])
def test_a_percentile_is_one_of_the_values(q: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], q) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.123456, 0.1235), (12345.678, 12346.0), (0.0, 0.0), (-1.23456, -1.235)]
)
def test_figures_are_rounded_to_four_digits_and_large_ones_to_whole_numbers(value: float, expected: float) -> None:
    assert rounded(value) == expected


def test_a_report_names_the_metrics_that_miss_their_line_and_is_one_line_of_json() -> None:
    targets = {"fast": Target(at_least=2.0), "small": Target(at_most=3.0), "absent": Target(at_least=1.0)}
    report = Report("drain", {"fast": 1.5, "small": 3.0}, [run("a", 0, 5)], {"events": 1}, targets)
    assert report.missed() == ["fast"]
    text = report.as_json()
    assert "\n" not in text
    found = json.loads(text)
    assert found["metrics"] == {"fast": 1.5, "small": 3.0}
    assert found["runs"] == [{"contender": "a", "repetition": 0, "events_per_s": 5.0}]
    assert found["machine"]["cores"] >= 1


def curve(*points: tuple[float, int, float]) -> Curve:
    return Curve([Point(at, events, Usage(cpu_s, 2**20)) for at, events, cpu_s in points])


def test_a_rate_lies_between_the_first_commit_and_the_first_time_the_last_one_was_seen() -> None:
    measured = curve((0, 0, 5.0), (1, 0, 6.0), (2, 100, 7.0), (3, 300, 8.0), (4, 1100, 9.0), (5, 1100, 50.0)).between()
    assert measured["events"] == 1000
    assert measured["seconds"] == 2
    assert measured["events_per_s"] == 500
    assert measured["cpu_s_per_million"] == pytest.approx(2000)
    assert measured["rss_mb"] == 1


def test_the_second_half_begins_where_half_of_the_measured_events_are_committed() -> None:
    measured = curve((0, 100, 0), (10, 500, 0), (11, 600, 0), (12, 1100, 0)).between(0.5)
    assert (measured["events"], measured["seconds"]) == (500, 1)


def test_a_group_that_committed_once_has_no_rate() -> None:
    with pytest.raises(ProcessFailed, match="fewer than two positions"):
        curve((0, 0, 0), (1, 100, 0), (2, 100, 0)).between()


def test_a_process_that_fails_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    started = Started(
        "child", [sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"], tmp_path / "log"
    )
    with running([started]), pytest.raises(ProcessFailed, match=r"(?s)exit code 3.*what went wrong"):
        started.wait(30)


def test_leaving_the_block_ends_the_process_and_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read(); input()"
    )
    pipe = f"import os; os.dup2(os.pipe()[0], 0)\n{code}"
    started = Started("parent", [sys.executable, "-c", pipe], tmp_path / "log")
    with running([started]):
        while not started.tail().strip().isdigit():
            assert started.ended() is None
        child = int(started.tail())
    assert started.ended() is not None
    state = Path(f"/proc/{child}/stat")
    with suppress(FileNotFoundError, ProcessLookupError):
        # It was sent SIGKILL; when it is gone is the system's affair, and this test's time limit.
        while state.read_text().split()[2] != "Z":
            time.sleep(0.01)


def test_cpu_and_memory_of_an_ended_process_are_the_last_that_were_seen(tmp_path: Path) -> None:
    started = Started("child", [sys.executable, "-c", "sum(range(10**6)); input()"], tmp_path / "log")
    started.popen.wait(30)
    assert started.usage() == Usage(0.0, 0)
