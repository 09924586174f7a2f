"""An abort after every step of a transaction leaves no trace in what is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fuseboard_streams.worker.errors import TransactionAborted
from fuseboard_streams.worker.transaction import STEPS
from tests.support.brokers import new_prefix
from tests.support.first_stage import ALONE
from tests.support.workers import calls, decisions, produce, run, with_bad

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuseboard_schemas.topics import TopicNames

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

SMALL: dict[str, Any] = {
    **ALONE,
    "batch_records": 150,
    "catch_up_records": 150,
    "checkpoint_min_bytes": 300,
    "checkpoint_slice_bytes": 1,
    "checkpoint_bytes_per_event": 1.0,
}


class Every:
    """Aborts at every ``period``-th time of a step."""

    def __init__(self, step: str, period: int) -> None:
        self.step = step
        self.period = period
        self.seen = 0
        self.aborted = 0

    def __call__(self, name: str) -> None:
        if name == self.step:
            self.seen += 1
            if self.seen % self.period == 0:
                self.aborted += 1
                raise TransactionAborted(f"injected after {name!r}")


@pytest.mark.parametrize("step", [step for step in STEPS if step != "after_commit"])
def test_an_abort_after_any_step_changes_nothing(
    apache_kafka: str, topics: Callable[..., TopicNames], unique_prefix: str, step: str
) -> None:
    mixed = with_bad(calls(1500, actors=4))
    whole, torn = unique_prefix, new_prefix("torn")
    produce(apache_kafka, topics(apache_kafka, whole).tool_calls, mixed)
    produce(apache_kafka, topics(apache_kafka, torn).tool_calls, mixed)
    run(apache_kafka, whole, **ALONE)
    fault = Every(step, 3)

    run(apache_kafka, torn, fault, **SMALL)

    assert fault.aborted >= 3
    expected, found = decisions(apache_kafka, whole), decisions(apache_kafka, torn)
    assert found == expected
    assert len(expected["breaker-commands"]) > 8
    assert len(expected["dead-letters"]) > 30


def test_a_worker_whose_transactions_always_abort_stops(
    apache_kafka: str, topics: Callable[..., TopicNames], unique_prefix: str
) -> None:
    produce(apache_kafka, topics(apache_kafka, unique_prefix).tool_calls, calls(10))
    with pytest.raises(Exception, match="transactions in a row were aborted"):
        run(apache_kafka, unique_prefix, Every("outputs", 1))
