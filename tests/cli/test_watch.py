"""``top`` goes on when the broker goes away, says since when it has heard nothing, and recovers by itself."""

import functools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuseboard_schemas.errors import ConfigurationError, FuseboardError, UnreachableError
from fuseboard_streams.cli import monitor
from fuseboard_streams.cli.config import Connection
from fuseboard_streams.cli.kafka import MissingTopicError
from fuseboard_streams.cli.monitor import TRIES_PER_CLIENT, Monitor, Watch
from fuseboard_streams.cli.render.top import Snapshot, top_lines
from fuseboard_streams.cli.top_command import snapshot_json
from fuseboard_streams.embedded import EmbeddedBroker
from tests.cli import samples
from tests.cli.samples import NOW, SECOND
from tests.cli.support import Board, run
from tests.cli.test_render import snapshot
from tests.support.brokers import KafkaServer

AWAY = UnreachableError("Kafka at h:1 cannot be reached")


class Broker:
    """What a broker does at each step, and the clients that were made for it."""

    def __init__(self, *answers: FuseboardError | None) -> None:
        self._answers: Iterator[FuseboardError | None] = iter(answers)
        self.made: list[Client] = []
        self.time = NOW

    def answer(self) -> None:
        """Answer, or be away."""
        error = next(self._answers)
        if error is not None:
            raise error

    def client(self) -> Monitor:
        """A monitor of this broker."""
        self.made.append(Client(self))
        return self.made[-1]


class Client(Monitor):
    """A monitor without Kafka."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.closed = False

    def open(self, timeout_s: float) -> None:
        self._broker.answer()

    def close(self) -> None:
        assert not self.closed
        self.closed = True

    def follow(self, seconds: float) -> None:
        self._broker.answer()

    def snapshot(self) -> Snapshot:
        self._broker.answer()
        return snapshot(at=self._broker.time)


def watching(broker: Broker) -> Watch:
    return Watch(broker.client, lambda: broker.time)


def test_a_broker_that_goes_away_and_comes_back() -> None:
    broker = Broker(None, None, AWAY, AWAY, None, None, None)
    watch = watching(broker)
    assert watch.snapshot().silent_since is None
    broker.time += 5 * SECOND
    gone = watch.snapshot()
    assert (gone.silent_since, gone.at, gone.problem) == (NOW, NOW + 5 * SECOND, str(AWAY))
    assert gone.open_breakers == snapshot().open_breakers
    broker.time += 5 * SECOND
    assert watch.snapshot().silent_since == NOW
    broker.time += 5 * SECOND
    back = watch.snapshot()
    assert (back.silent_since, back.at) == (None, NOW + 15 * SECOND)
    assert [client.closed for client in broker.made] == [True, False]
    watch.close()
    assert all(client.closed for client in broker.made)


def test_a_client_is_not_kept_for_long() -> None:
    """One that was told of no brokers has forgotten the addresses."""
    tries = TRIES_PER_CLIENT + 1
    broker = Broker(None, None, AWAY, *[AWAY] * tries)
    watch = watching(broker)
    for _ in range(tries + 2):
        watch.snapshot()
    assert [client.closed for client in broker.made] == [True, True, False]


def test_an_error_between_two_views_is_survived_too() -> None:
    broker = Broker(None, None, AWAY, None, None)
    watch = watching(broker)
    watch.snapshot()
    watch.wait(0.001)
    assert watch.snapshot().silent_since is None
    assert len(broker.made) == 2


def test_topics_that_are_not_there_yet_after_a_restart_are_waited_for() -> None:
    broker = Broker(None, None, AWAY, MissingTopicError("t.heartbeats", "h:1"), None, None)
    watch = watching(broker)
    watch.snapshot()
    watch.snapshot()
    assert "t.heartbeats" in watch.snapshot().problem
    assert watch.snapshot().silent_since is None


@pytest.mark.parametrize("answers", [(AWAY,), (None, AWAY)])
def test_a_broker_that_was_never_there_is_an_error(answers: tuple[FuseboardError | None, ...]) -> None:
    broker = Broker(*answers)

    def look() -> Snapshot:
        return watching(broker).snapshot()

    with pytest.raises(UnreachableError):
        look()


def test_credentials_that_are_refused_end_it() -> None:
    watch = watching(Broker(None, None, ConfigurationError("refused")))
    watch.snapshot()
    with pytest.raises(ConfigurationError):
        watch.snapshot()


def test_the_view_says_since_when_nothing_was_heard_and_gives_no_figures() -> None:
    silent = snapshot(at=NOW + 12 * SECOND, silent_since=NOW, problem="Kafka at h:1\x1b cannot be reached")
    lines = top_lines(silent)
    assert lines[2:6] == [
        "nothing heard from localhost:9092 since 04:00:00.000 UTC (12 s ago); trying again",
        "what follows was so then: breakers may have changed, agents follow what they know",
        "Kafka at h:1\\x1b cannot be reached",
        "",
    ]
    assert not any("tool calls" in line for line in lines)
    assert max(len(line) for line in top_lines(silent, columns=60)[2:6]) <= 60
    found = json.loads(json.dumps(snapshot_json(silent)))
    assert (found["silent_since"], found["problem"]) == (NOW, "Kafka at h:1\x1b cannot be reached")
    assert (found["events_per_s"], found["dead_letters_last_minute"]) == (None, None)
    assert snapshot().as_json()["silent_since"] is None


def check_on(bootstrap: str, leave: Callable[[], object], come_back: Callable[[], object]) -> None:
    """Watch a broker that goes away and comes back; what happens afterwards is seen."""
    board = Board(bootstrap, "t.", 2)
    assert run("topics", "apply", "--partitions", "2", *board.options).exit_code == 0
    board.breakers(samples.command())
    watch = Watch(lambda: Monitor(Connection(bootstrap, "t.")))
    try:
        before = watch.snapshot()
        assert before.silent_since is None
        leave()
        ends = time.monotonic() + 60.0
        while (gone := watch.snapshot()).silent_since is None:
            assert time.monotonic() < ends, "it does not notice that the broker is away"
            watch.wait(0.05)
        assert gone.silent_since >= before.at
        assert [c.breaker_id for c in gone.open_breakers] == [samples.BREAKER]
        come_back()
        board.breakers(samples.command(epoch=samples.command().epoch + 1))
        ends = time.monotonic() + 60.0
        while len((back := watch.snapshot()).transitions) < 2:
            assert time.monotonic() < ends, f"it does not recover: {back}"
            watch.wait(0.05)
        assert back.silent_since is None
    finally:
        watch.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ANSWER_TIMEOUT_S", 1.0)


@pytest.mark.broker
def test_an_embedded_broker_that_is_stopped(tmp_path: Path, impatient: None) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        check_on(broker.bootstrap, broker.stop, broker.start)


@pytest.mark.broker
def test_an_embedded_broker_that_is_frozen(tmp_path: Path, impatient: None) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        freeze, thaw = (functools.partial(os.kill, broker.pid, number) for number in (signal.SIGSTOP, signal.SIGCONT))
        check_on(broker.bootstrap, freeze, thaw)


@pytest.mark.broker
@pytest.mark.kafka
@pytest.mark.slow
def test_an_apache_kafka_that_is_killed(own_kafka: KafkaServer) -> None:
    check_on(own_kafka.bootstrap, own_kafka.kill, own_kafka.start)
