"""Changes of the rules while workers are killed: the packaged ones and others, over and over."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.records import Rules
from fuseboard_streams.rules.compile import PACKAGED
from fuseboard_streams.worker.rules_source import RULES_KEY, RulesText, compiled
from tests.support.oracle_input import SETTINGS

_PACKAGED = PACKAGED.read_text(encoding="utf-8")
_MINIMAL = """
version: 1
breakers:
  tool-failing:
    metric: calls.failed
    scope: ACTOR_TOOL
    test: {kind: e-detector, baseline: {floor: 1%}, warn: 1e3, trip: 1e5}
    ladder: [{action: REQUIRE_APPROVAL}, {action: DISABLE_TOOL}]
    mode: enforce
"""
_TEXTS = (
    _PACKAGED,
    # Other levels, which what was learned outlives; a budget that is enforced.
    _PACKAGED.replace("trip: 1e6", "trip: 1e5").replace("usd: 5.00", "usd: 0.50"),
    # A null that need not be learned: what is learned over all actors does not outlive rules without that scope.
    _PACKAGED.replace("mode: warn", "mode: enforce").replace("{floor: 0.5%, quantile: 99%}", "{known: 2%}", 1),
    _MINIMAL,
)
RULES: tuple[RulesText, ...] = tuple(compiled(each.encode(), "test", SETTINGS.failure) for each in _TEXTS)
"""All that are ever in force, the packaged ones first."""
_EVERY_S = 0.3


class Changer:
    """Applies one rules file after the other, as `fuseboard rules apply` does."""

    def __init__(self, bootstrap: str, topic: str, times: int) -> None:
        self.applied = 0
        self._topic = topic
        self._times = times
        self._done = threading.Event()
        self._producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        encode = Encoder("Rules").encode
        for each in itertools.islice(itertools.cycle((*RULES[1:], RULES[0])), self._times):
            record = Rules(
                tenant="default", ts=0, version=each.rules.version, text=each.text.decode(), applied_by="oracle"
            )
            self._producer.produce(self._topic, key=RULES_KEY.encode(), value=encode(record))
            self._producer.flush(30)
            self.applied += 1
            if self._done.wait(_EVERY_S):
                return

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Apply rules meanwhile; at the end the rest is let be."""
        self._thread.start()
        try:
            yield
        finally:
            self._done.set()
            self._thread.join()
