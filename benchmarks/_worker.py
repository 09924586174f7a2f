"""The worker as a contender: the real command, everything on, and where its time goes."""

from __future__ import annotations

import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from benchmarks._contenders import Contender, Input
from benchmarks._input import remove_outputs
from benchmarks._processes import ProcessFailed, Started
from fuseboard_streams.embedded import free_ports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks._harness import Measured

SCRAPE_INTERVAL_S = 1.0
"""How often a worker's metrics are read; reading them costs it a few milliseconds."""

Samples = dict[tuple[str, str], float]
"""Metric name and label values to value."""


def command(name: str, log: Path, group: str, settings: Mapping[str, str], arguments: Sequence[str] = ()) -> Started:
    """Start `fuseboard worker`.

    Args:
        name: its worker id.
        log: where its output goes.
        group: its consumer group.
        settings: further settings, by name as in the environment without the prefix.
        arguments: further options.
    """
    environment = {
        "FUSEBOARD_GROUP": group,
        "FUSEBOARD_WORKER_ID": name,
        "FUSEBOARD_LOG_FORMAT": "json",
        **{f"FUSEBOARD_{key}": value for key, value in settings.items()},
    }
    program = [str(Path(sys.executable).parent / "fuseboard"), "worker", *arguments]
    return Started(name, program, log, environment)


@dataclass(slots=True)
class Scraper:
    """Reads the metrics of running workers now and then, and keeps the last answers.

    Attributes:
        ports: where they serve them.
    """

    ports: Sequence[int] = ()
    _last: dict[int, Samples] = field(default_factory=dict)
    _first: dict[int, Samples] = field(default_factory=dict)
    _next: float = 0.0

    def watch(self, ports: Sequence[int]) -> None:
        """Start anew with other workers."""
        self.ports, self._last, self._first, self._next = ports, {}, {}, 0.0

    def __call__(self) -> None:
        """Read them if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SCRAPE_INTERVAL_S
        for port in self.ports:
            with suppress(OSError):
                read = scrape(port)
                self._last[port] = read
                if read.get(("fuseboard_records_total", "tool-calls"), 0.0) > 0:
                    self._first.setdefault(port, read)

    def grown(self, name: str) -> dict[str, float]:
        """How much each of a metric's series grew between the first reading with records and the last, summed."""
        total: dict[str, float] = {}
        for port, last in self._last.items():
            first = self._first.get(port, {})
            for (metric, label), value in last.items():
                if metric == name:
                    total[label] = total.get(label, 0.0) + value - first.get((metric, label), 0.0)
        return total


def scrape(port: int, timeout_s: float = 2.0) -> Samples:
    """A worker's metrics now.

    Raises:
        OSError: it does not answer.
    """
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout_s) as answer:
        text = answer.read().decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, ",".join(sample.labels.values())): sample.value for sample in samples}


def worker(
    source: Input, processes: int = 1, settings: Mapping[str, str] | None = None, name: str = "worker"
) -> Contender:
    """`processes` workers that drain the topic and stop at its end, all outputs on, from empty state."""
    scraper = Scraper()

    def start(group: str, folder: Path) -> list[Started]:
        ports = free_ports(processes)
        scraper.watch(ports)
        return [
            command(
                f"{group}-{number}",
                folder / f"worker-{number}.log",
                group,
                {
                    "BOOTSTRAP": source.cluster.bootstrap,
                    "PREFIX": source.prefix,
                    "HTTP_PORT": str(port),
                    **(settings or {}),
                },
                ["--until-end"],
            )
            for number, port in enumerate(ports)
        ]

    def extra() -> Measured:
        return {**stages(scraper), **state_bytes(scraper)}

    return Contender(
        name if processes == 1 else f"{name}_x{processes}",
        start,
        source.events,
        lambda group: remove_outputs(source.cluster, source.prefix, source.partitions),
        watch=scraper,
        extra=extra,
    )


def stages(scraper: Scraper) -> Measured:
    """Microseconds per event in each stage of the loop."""
    records = sum(scraper.grown("fuseboard_records_total").values())
    spent = scraper.grown("fuseboard_stage_seconds_total")
    return {f"us_per_event_{stage}": seconds / records * 1e6 for stage, seconds in spent.items()} if records else {}


def state_bytes(scraper: Scraper) -> Measured:
    """Bytes of the state log per event."""
    records = sum(scraper.grown("fuseboard_records_total").values())
    written = sum(scraper.grown("fuseboard_state_written_bytes_total").values())
    return {"state_bytes_per_event": written / records} if records else {}


def await_ready(process: Started, port: int, timeout_s: float = 120.0) -> float:
    """Wait until a worker says that it is ready.

    Returns:
        How many seconds that took.

    Raises:
        ProcessFailed: it ends, or is not ready within `timeout_s`.
    """
    start = time.monotonic()
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2.0) as answer:
            if answer.status == HTTPStatus.OK:
                return time.monotonic() - start
        if process.ended() is not None:
            raise ProcessFailed(f"{process.name} ended with {process.ended()}; its log: {process.tail()}")
        if time.monotonic() - start > timeout_s:
            raise ProcessFailed(f"{process.name} was not ready after {timeout_s:g} s; its log: {process.tail()}")
        time.sleep(0.02)
