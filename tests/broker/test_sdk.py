"""The SDK against real brokers: the test plays the worker, publishing commands and heartbeats itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from fuseboard import DeniedBy, Effect, Fuseboard, Outcome, ToolBlocked
from fuseboard.follower import Follower
from fuseboard_schemas.codec import Decoder, Encoder
from fuseboard_schemas.keys import home_partition
from fuseboard_schemas.records import Action, BreakerCommand, BreakerState, Heartbeat, Scope
from tests.unit.sdk.support import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fuseboard_schemas.topics import TopicNames
    from tests.support.brokers import KafkaServer

PARTITIONS = 4
PATIENCE_S = 30.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something another thread or process does; the limit only bounds a failure."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.005)


class Worker:
    """Stands for the worker: commands, and heartbeats for as long as it is told to be alive."""

    def __init__(self, bootstrap: str, topics: TopicNames) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": topics.prefix + "worker", "log_level": 0}
        )
        self._producer.init_transactions(30)
        self._topics = topics
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None
        self._lock = threading.Lock()

    def publish(self, record: BreakerCommand) -> None:
        partition = home_partition(record.scope, record.tenant, record.actor, record.tool, PARTITIONS)
        value = Encoder("BreakerCommand").encode(record)
        self._write(self._topics.breaker_commands, partition, record.breaker_id, value)

    def forget(self, record: BreakerCommand) -> None:
        partition = home_partition(record.scope, record.tenant, record.actor, record.tool, PARTITIONS)
        self._write(self._topics.breaker_commands, partition, record.breaker_id, None)

    def beat(self, lag_s: float = 0.0) -> None:
        now = time.time_ns() // 1000
        for shard in range(PARTITIONS):
            heartbeat = Heartbeat(
                worker_id="w",
                group="g",
                shard=shard,
                ts=now,
                stream_time=now,
                lag_s=lag_s,
                version="0",
                rules_version="0",
            )
            value = Encoder("Heartbeat").encode(heartbeat)
            self._write(self._topics.heartbeats, shard, f"w/{shard}", value)

    def live(self) -> None:
        def run() -> None:
            while not self._stop.wait(0.1):
                self.beat()

        self._beating = threading.Thread(target=run, daemon=True)
        self._beating.start()

    def stop(self) -> None:
        self._stop.set()
        if self._beating is not None:
            self._beating.join()

    def _write(self, topic: str, partition: int, key: str, value: bytes | None) -> None:
        with self._lock:
            self._producer.begin_transaction()
            self._producer.produce(topic, value=value, key=key, partition=partition)
            self._producer.commit_transaction(30)


def read_all(bootstrap: str, topic: str, record: str, until: Callable[[list[Any]], bool]) -> list[Any]:
    """Every record of a topic, in order per partition, as soon as there are enough."""
    decoder = Decoder()
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    while not until(found):
        assert time.monotonic() < deadline, f"{topic} holds only {found}"
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append(decoder.decode(message.value(), record))
    consumer.close()
    return found


class Place:
    """A broker with topics, a worker on it, and clients that are closed at the end."""

    def __init__(self, bootstrap: str, topics: TopicNames) -> None:
        self.bootstrap = bootstrap
        self.topics = topics
        self.worker = Worker(bootstrap, topics)
        self._clients: list[Fuseboard] = []

    def client(self, **settings: Any) -> Fuseboard:
        given = {"actor": "support_agent", "bootstrap": self.bootstrap, "prefix": self.topics.prefix, "spool_dir": ""}
        fuse = Fuseboard(**{**given, **settings})
        self._clients.append(fuse)
        return fuse

    def ready(self, fuse: Fuseboard) -> None:
        wait_until(fuse.ready, "the client has caught up and heard a heartbeat")

    def calls(self, count: int) -> list[Any]:
        return read_all(self.bootstrap, self.topics.tool_calls, "ToolCall", lambda found: len(found) >= count)

    def acks(self, count: int) -> list[Any]:
        topic = self.topics.enforcement_acks
        return read_all(self.bootstrap, topic, "EnforcementAck", lambda found: len(found) >= count)

    def close(self) -> None:
        self.worker.stop()
        for fuse in self._clients:
            fuse.close(timeout=5)


@pytest.fixture
def place(broker: str, unique_prefix: str, topics: Callable[..., TopicNames]) -> Iterator[Place]:
    made = Place(broker, topics(broker, unique_prefix, PARTITIONS))
    yield made
    made.close()


def blocked(call: Callable[[], object]) -> ToolBlocked | None:
    try:
        call()
    except ToolBlocked as refusal:
        return refusal
    return None


def test_a_trip_refuses_the_next_call_and_a_close_lets_it_pass(place: Place) -> None:
    fuse = place.client()
    attempts = 0

    @fuse.tool(effect=Effect.WRITE)
    def refund(order_id: str) -> str:
        return order_id

    def refused() -> ToolBlocked | None:
        nonlocal attempts
        attempts += 1
        return blocked(lambda: refund("1"))

    place.worker.live()
    place.ready(fuse)
    with fuse.session():
        assert refused() is None
        place.worker.publish(command(epoch=100))
        wait_until(lambda: refused() is not None, "the trip is enforced")
        refusal = refused()
        assert refusal is not None
        assert (refusal.action, refusal.scope, refusal.epoch) == (Action.DISABLE_TOOL, Scope.ACTOR_TOOL, 100)
        assert refusal.runbook == "docs/runbooks/tool-failing.md"
        place.worker.publish(command(state=BreakerState.CLOSED, epoch=101))
        wait_until(lambda: refused() is None, "the close is enforced")
    assert fuse.flush(PATIENCE_S) == 0
    calls = place.calls(attempts)
    assert len(calls) == attempts
    denied = [call for call in calls if call.outcome is Outcome.DENIED]
    assert {call.denied_by for call in denied} == {DeniedBy.BREAKER}
    assert {call.gate_epoch for call in denied} == {100}
    acks = place.acks(2)
    assert sorted(ack.epoch for ack in acks) == [100, 101]
    assert {ack.client_id for ack in acks} == {fuse.client_id}


def test_every_attempt_arrives_once_in_order(place: Place) -> None:
    fuse = place.client()

    @fuse.tool(effect=Effect.READ)
    def lookup(number: int) -> int:
        if number % 3 == 0:
            raise KeyError(number)
        return number

    for number in range(300):
        with pytest.raises(KeyError) if number % 3 == 0 else fuse.trace():
            lookup(number)
    assert fuse.flush(PATIENCE_S) == 0
    calls = place.calls(300)
    assert [call.seq for call in calls] == list(range(300))
    assert sum(call.outcome is Outcome.ERROR for call in calls) == 100
    assert {call.error_type for call in calls} == {None, "KeyError"}
    assert len({call.event_id for call in calls}) == 300


def test_a_client_that_starts_later_knows_the_open_breakers(place: Place) -> None:
    place.worker.publish(command(epoch=7))
    place.worker.publish(command(epoch=9, state=BreakerState.OPEN, reason="second trip"))
    place.worker.live()
    fuse = place.client(ready_timeout_s=PATIENCE_S)

    @fuse.tool(effect=Effect.IRREVERSIBLE)
    def refund() -> None: ...

    refusal = blocked(refund)  # It waits for the catch-up by itself.
    assert refusal is not None
    assert refusal.epoch == 9
    assert [ack.epoch for ack in place.acks(1)] == [9]


def test_probes_are_bounded_over_all_threads(place: Place) -> None:
    fuse = place.client()
    passed = threading.Semaphore(0)

    @fuse.tool(effect=Effect.WRITE)
    def refund() -> None:
        passed.release()

    place.worker.publish(command(state=BreakerState.HALF_OPEN, epoch=50, probe_quota=5))
    place.worker.live()
    place.ready(fuse)
    with ThreadPoolExecutor(8) as pool:
        refusals = [refusal for refusal in pool.map(lambda _: blocked(refund), range(200)) if refusal is not None]
    assert len(refusals) == 195
    fuse.flush(PATIENCE_S)
    calls = place.calls(200)
    probes = [call for call in calls if call.probe]
    assert len(probes) == 5
    assert {(call.gate_breaker, call.gate_epoch) for call in calls} == {("ACTOR_TOOL:default/support_agent/refund", 50)}
    place.worker.publish(command(state=BreakerState.HALF_OPEN, epoch=51, probe_quota=2))
    wait_until(lambda: blocked(refund) is None, "the next wave admits a probe")
    assert sum(blocked(refund) is None for _ in range(20)) == 1


def test_silence_makes_the_control_plane_stale(place: Place) -> None:
    place.worker.beat()  # Before anybody listens: a retained heartbeat is no sign of life.
    fuse = place.client(stale_after_s=1.0, ready_timeout_s=0.2)

    @fuse.tool(effect=Effect.READ)
    def look() -> None: ...

    @fuse.tool(effect=Effect.WRITE)
    def change() -> None: ...

    @fuse.tool(effect=Effect.IRREVERSIBLE)
    def destroy() -> None: ...

    refusal = blocked(destroy)
    assert refusal is not None
    assert refusal.breaker_id is None
    assert "control plane stale" in str(refusal)
    assert blocked(look) is None
    assert blocked(change) is None
    place.worker.live()
    place.ready(fuse)
    wait_until(lambda: blocked(destroy) is None, "an irreversible call passes")
    place.worker.stop()
    wait_until(lambda: blocked(destroy) is not None, "silence denies an irreversible call")
    assert blocked(look) is None
    fuse.flush(PATIENCE_S)
    steps = read_all(place.bootstrap, place.topics.traces, "TraceStep", lambda found: len(found) >= 1)
    assert [step.kind.value for step in steps] == ["WARNING"]


def test_an_agent_without_a_worker_is_told_although_it_calls_nothing_more(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    refund = place.client(ready_timeout_s=0.2).tool(effect=Effect.WRITE, name="refund")(lambda: None)
    refund()
    wait_until(lambda: "control plane stale: refund" in caplog.text, "the agent is warned")


def test_a_lagging_shard_is_stale_although_it_beats(place: Place) -> None:
    fuse = place.client(ready_timeout_s=0.0)

    @fuse.tool(effect=Effect.IRREVERSIBLE)
    def destroy() -> None: ...

    place.worker.live()
    place.ready(fuse)
    wait_until(lambda: blocked(destroy) is None, "an irreversible call passes")
    place.worker.stop()
    place.worker.beat(lag_s=3600.0)
    wait_until(lambda: blocked(destroy) is not None, "a lagging shard counts as stale")


def test_an_actor_registered_later_gets_its_breakers(place: Place) -> None:
    fuse = place.client()
    place.worker.publish(command(Scope.ACTOR, Action.READ_ONLY, actor="other/agent", epoch=3))
    place.worker.live()
    place.ready(fuse)
    other = fuse.as_actor("other/agent")

    @other.tool(effect=Effect.WRITE)
    def refund() -> None: ...

    @other.tool(effect=Effect.READ)
    def look() -> None: ...

    wait_until(lambda: blocked(refund) is not None, "the other actor's breaker is enforced")
    assert blocked(look) is None
    assert [ack.actor for ack in place.acks(1)] == ["other/agent"]


def test_a_new_tool_obeys_at_once_and_holds_nothing_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    assign = Follower._assign

    def watched(follower: Follower, partitions: frozenset[int], shards: frozenset[int]) -> None:
        read.extend(partitions)
        assign(follower, partitions, shards)

    monkeypatch.setattr(Follower, "_assign", watched)
    place.worker.publish(command(Scope.TOOL, tool="tool_7", epoch=1))
    place.worker.live()
    fuse = place.client()
    place.ready(fuse)
    tools = [fuse.tool(name=f"tool_{number}", effect=Effect.IRREVERSIBLE)(lambda: None) for number in range(40)]
    refused = [number for number, tool in enumerate(tools) if blocked(tool) is not None]
    assert refused == [7]
    assert sorted(read) == list(range(PARTITIONS)), "every partition is read once"
    assert [ack.breaker_id for ack in place.acks(1)] == ["TOOL:default/tool_7"]


def test_a_tombstone_frees_the_target(place: Place) -> None:
    fuse = place.client()

    @fuse.tool(effect=Effect.WRITE)
    def refund() -> None: ...

    trip = command(epoch=5)
    place.worker.publish(trip)
    place.worker.live()
    wait_until(lambda: blocked(refund) is not None, "the trip is enforced")
    place.worker.forget(trip)
    wait_until(lambda: blocked(refund) is None, "the tombstone is applied")
    place.worker.publish(command(epoch=4))
    place.worker.publish(command(Scope.TENANT, Action.HALT, epoch=1))
    wait_until(lambda: blocked(refund) is not None, "the tenant's halt is enforced")
    refusal = blocked(refund)
    assert refusal is not None
    assert refusal.scope is Scope.TENANT, "an older epoch must not come back after the tombstone"


def test_a_worker_that_has_not_committed_is_not_obeyed(place: Place) -> None:
    fuse = place.client()

    @fuse.tool(effect=Effect.WRITE)
    def refund() -> None: ...

    place.worker.live()
    place.ready(fuse)
    stray = Producer({"bootstrap.servers": place.bootstrap, "transactional.id": place.topics.prefix + "x"})
    stray.init_transactions(30)
    stray.begin_transaction()
    trip = command(epoch=70)
    partition = home_partition(trip.scope, trip.tenant, trip.actor, trip.tool, PARTITIONS)
    stray.produce(
        place.topics.breaker_commands, Encoder("BreakerCommand").encode(trip), trip.breaker_id, partition=partition
    )
    stray.flush(30)
    stray.abort_transaction(30)
    place.worker.publish(command(Scope.ACTOR, Action.READ_ONLY, epoch=1))
    wait_until(lambda: blocked(refund) is not None, "the committed command is enforced")
    refusal = blocked(refund)
    assert refusal is not None
    assert refusal.scope is Scope.ACTOR


FORKING = """
import os, sys
from fuseboard import Effect, Fuseboard, ToolBlocked

fuse = Fuseboard("support_agent", ready_timeout_s=60)

@fuse.tool(effect=Effect.IRREVERSIBLE)
def destroy(): ...

@fuse.tool(effect=Effect.WRITE)
def refund(): ...

def use():
    destroy()  # Waits until the breakers are known.
    for _ in range(5):
        try:
            refund()
        except ToolBlocked:
            pass
    left = fuse.close(60)
    os.write(1, f"{fuse.client_id} {left}\\n".encode())  # One write, or lines of several processes get mixed.

destroy()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        use()
        sys.exit(0)  # Runs the exit handlers, as a worker of a pre-forking server does.
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
use()
assert codes == [0, 0], codes
"""


def run_agent(bootstrap: str, prefix: str, spool: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program as an agent's process of its own, to its end."""
    environment = {
        **os.environ,
        "FUSEBOARD_BOOTSTRAP": bootstrap,
        "FUSEBOARD_PREFIX": prefix,
        "FUSEBOARD_SPOOL_DIR": str(spool),
    }
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_forked_children_publish_and_obey_as_clients_of_their_own(place: Place, tmp_path: Path) -> None:
    place.worker.publish(command(epoch=11))
    place.worker.live()
    done = run_agent(place.bootstrap, place.topics.prefix, tmp_path, FORKING)
    assert done.returncode == 0, done.stderr
    clients = {int(line.split()[0]): int(line.split()[1]) for line in done.stdout.splitlines()}
    assert sorted(clients.values()) == [0, 0, 0]
    assert len(clients) == 3
    calls = place.calls(19)
    for client in clients:
        mine = [call for call in calls if call.client_id == client]
        assert [call.seq for call in mine] == list(range(len(mine)))
        assert sum(call.outcome is Outcome.DENIED for call in mine) == 5
    assert {ack.client_id for ack in place.acks(3)} == set(clients)


IMPORTED = """
import sys
from fuseboard import Effect, Fuseboard, imports

fuse = Fuseboard("support_agent", ready_timeout_s=60)
imports.load()
before = set(sys.modules)
fuse.tool(effect=Effect.IRREVERSIBLE)(lambda: None)()
assert fuse.flush(60) == 0
fuse.close()
print(sorted(set(sys.modules) - before))
"""


def test_threads_import_nothing_while_somebody_may_fork(place: Place, tmp_path: Path) -> None:
    place.worker.publish(command(Scope.TOOL, tool="other"))
    place.worker.live()
    done = run_agent(place.bootstrap, place.topics.prefix, tmp_path, IMPORTED)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


KILLED = """
import os, signal
from fuseboard import Effect, Fuseboard

fuse = Fuseboard("killed_agent", spool_after_s=0.2, memory_events=50)

@fuse.tool(effect=Effect.READ)
def look(): ...

for _ in range(100):
    look()
while fuse.counts.spooled < 100:
    fuse.flush(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


def spool_and_die(bootstrap: str, prefix: str, spool_dir: Path) -> None:
    """A process that is killed while its events are in its spool."""
    assert run_agent(bootstrap, prefix, spool_dir, KILLED).returncode == -9


@pytest.mark.broker
@pytest.mark.kafka
def test_a_broker_that_starts_after_the_agent_gets_everything(
    own_kafka: KafkaServer, unique_prefix: str, topics: Callable[..., TopicNames], tmp_path: Any
) -> None:
    names = topics(own_kafka.bootstrap, unique_prefix, PARTITIONS)
    own_kafka.kill()
    spool_and_die(own_kafka.bootstrap, unique_prefix, tmp_path)
    fuse = Fuseboard(
        actor="support_agent",
        bootstrap=own_kafka.bootstrap,
        prefix=unique_prefix,
        spool_dir=str(tmp_path),
        spool_after_s=0.2,
        memory_events=50,
    )

    @fuse.tool(effect=Effect.READ)
    def look(number: int) -> int:
        return number

    for number in range(200):
        assert look(number) == number
    wait_until(lambda: fuse.counts.spooled >= 200, "the events are in the spool")
    own_kafka.start()
    assert fuse.flush(PATIENCE_S) == 0
    for number in range(200, 250):
        look(number)
    wait_until(lambda: fuse.counts.delivered >= 350, "the killed process's events are delivered too")
    assert fuse.close(PATIENCE_S) == 0
    calls = read_all(own_kafka.bootstrap, names.tool_calls, "ToolCall", lambda found: len(found) >= 350)
    assert [call.seq for call in calls if call.actor == "support_agent"] == list(range(250))
    assert [call.seq for call in calls if call.actor == "killed_agent"] == list(range(100))
    assert list(tmp_path.rglob("*.seg")) == []
    assert fuse.counts.lost == 0


@pytest.mark.broker
@pytest.mark.kafka
def test_a_broker_killed_under_load_loses_and_doubles_nothing(
    own_kafka: KafkaServer, unique_prefix: str, topics: Callable[..., TopicNames], tmp_path: Any
) -> None:
    names = topics(own_kafka.bootstrap, unique_prefix, PARTITIONS)
    fuse = Fuseboard(
        actor="support_agent", bootstrap=own_kafka.bootstrap, prefix=unique_prefix, spool_dir=str(tmp_path)
    )

    @fuse.tool(effect=Effect.READ)
    def look(number: int) -> int:
        return number

    sent = 0
    for _ in range(2):
        for _ in range(300):
            look(sent)
            sent += 1
        own_kafka.kill()
        for _ in range(300):
            look(sent)
            sent += 1
        own_kafka.start()
    assert fuse.flush(2 * PATIENCE_S) == 0
    assert fuse.close(PATIENCE_S) == 0
    calls = read_all(own_kafka.bootstrap, names.tool_calls, "ToolCall", lambda found: len(found) >= sent)
    assert [call.seq for call in calls] == list(range(sent))
