"""What Prometheus is told. One registry per worker, prefix ``fuseboard_``, base units, bounded labels."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fuseboard_streams.core.shard import ShardCounters

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STAGES: Final = ("consume", "decode", "wait", "fold", "encode", "transaction")


class ShardFacts:
    """What a scrape says about one shard, replaced as a whole so that another thread may read it at any time."""

    __slots__ = ("counters", "keys", "lag_s", "open_breakers", "state", "stream_time_us")

    def __init__(
        self,
        state: str,
        lag_s: float = 0.0,
        stream_time_us: int = 0,
        counters: Mapping[str, int] | None = None,
        keys: Mapping[str, int] | None = None,
        open_breakers: int = 0,
    ) -> None:
        self.state = state
        self.lag_s = lag_s
        self.stream_time_us = stream_time_us
        self.counters = dict(counters or {})
        self.keys = dict(keys or {})
        self.open_breakers = open_breakers


class _Shards(Collector):
    """Gauges and counters of the shards that are owned now."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        shards = self._metrics.shards
        lag = GaugeMetricFamily(
            "fuseboard_shard_lag_seconds", "Age of the last processed record; 0 at the end.", labels=["shard"]
        )
        clock = GaugeMetricFamily(
            "fuseboard_shard_stream_time_seconds", "Stream time as seconds since 1970.", labels=["shard"]
        )
        breakers = GaugeMetricFamily("fuseboard_shard_open_breakers", "Breakers that are not closed.", labels=["shard"])
        rows = GaugeMetricFamily("fuseboard_shard_rows", "Rows of the state, by table.", labels=["shard", "table"])
        states = dict.fromkeys(("ready", "restoring", "waiting", "stalled"), 0)
        for number, facts in sorted(shards.items()):
            states[facts.state] += 1
            if facts.state != "ready":
                continue
            label = str(number)
            lag.add_metric([label], facts.lag_s)
            clock.add_metric([label], facts.stream_time_us / 1e6)
            breakers.add_metric([label], facts.open_breakers)
            for table, size in facts.keys.items():
                rows.add_metric([label, table], size)
        owned = GaugeMetricFamily("fuseboard_shards", "Assigned shards by state.", labels=["state"])
        for state, count in states.items():
            owned.add_metric([state], count)
        yield from (lag, clock, breakers, rows, owned)
        yield from self._counters()

    def _counters(self) -> Iterator[Metric]:
        totals = self._metrics.core_totals()
        for name, value in totals.items():
            yield CounterMetricFamily(f"fuseboard_core_{name}", f"Events and decisions: {name}.", value=value)


class WorkerMetrics:
    """The metrics of one worker."""

    def __init__(self, version: str, worker_id: str, group: str) -> None:
        self.registry = CollectorRegistry()
        make = self.registry
        self.records = Counter("fuseboard_records", "Records processed.", ["topic"], registry=make)
        self.dead_letters = Counter(
            "fuseboard_dead_letters", "Records that could not be used.", ["topic", "reason"], registry=make
        )
        self.transactions = Counter("fuseboard_transactions", "Transactions by outcome.", ["outcome"], registry=make)
        self.transaction_seconds = Histogram(
            "fuseboard_transaction_seconds", "Duration of a transaction.", registry=make, buckets=_BUCKETS
        )
        self.stages = Counter("fuseboard_stage_seconds", "Where the loop's time goes.", ["stage"], registry=make)
        self.state_bytes = Counter("fuseboard_state_written_bytes", "Blocks written to the state log.", registry=make)
        self.restored_bytes = Counter("fuseboard_restored_bytes", "Blocks read from the state log.", registry=make)
        self.restore_seconds = Counter("fuseboard_restore_seconds", "Time spent restoring.", registry=make)
        self.rules_refused = Counter(
            "fuseboard_rules_refused", "Rules files that cannot be used; those before stay in force.", registry=make
        )
        self.fenced = Counter("fuseboard_fenced_writers", "Predecessors fenced.", registry=make)
        self.rebalances = Counter("fuseboard_rebalances", "Assignments received.", registry=make)
        self.transitions = Counter(
            "fuseboard_breaker_transitions", "Transitions of breakers.", ["scope", "state"], registry=make
        )
        self.acks = Counter("fuseboard_acks_received", "Acknowledgements by enforcers.", registry=make)
        info = Gauge("fuseboard_worker_info", "1.", ["version", "worker_id", "group"], registry=make)
        info.labels(version, worker_id, group).set(1)
        self.shards: dict[int, ShardFacts] = {}
        self._gone = dict.fromkeys(_COUNTERS, 0)
        self._seen: dict[int, dict[str, int]] = {}
        make.register(_Shards(self))
        ProcessCollector(registry=make)
        PlatformCollector(registry=make)

    def core_totals(self) -> dict[str, int]:
        """The shards' counters summed; what shards counted before they left stays in the sum."""
        seen = list(self._seen.values())
        return {name: self._gone[name] + sum(each.get(name, 0) for each in seen) for name in _COUNTERS}

    def saw_counters(self, shard: int, counters: ShardCounters) -> None:
        """Take over a shard's running totals, after a commit."""
        self._seen[shard] = {name: getattr(counters, name) for name in _COUNTERS}

    def shard_left(self, shard: int) -> None:
        """A shard's object goes away; its totals stay."""
        for name, value in self._seen.pop(shard, {}).items():
            self._gone[name] += value

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


_COUNTERS: Final = tuple(field.name for field in fields(ShardCounters))
