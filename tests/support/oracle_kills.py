"""The kill test: workers share the partitions, are killed and frozen at random instants, and must decide the same.

One history is written under two prefixes, record by record in the same order and partition, hence at the same offsets.
Under one of them a single worker processes it without interruption. Under the other it is written in parts, and during
each part one of several workers is killed with SIGKILL, or frozen with SIGSTOP until its session has long expired and
thawed again. At the end the two must have written the same.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from fuseboard_schemas.codec import Decoder
from fuseboard_schemas.topics import TOPICS
from tests.support.brokers import KafkaServer, create_topics
from tests.support.first_stage import ALONE
from tests.support.journal_replay import Inputs, Replay, panes_by_way, published, replay, state_log
from tests.support.oracle_fleet import Fleet, Member
from tests.support.oracle_input import SETTINGS, History, InputRecord, Row, make
from tests.support.oracle_others import mixed
from tests.support.oracle_outputs import Comparison, Outputs, compare, outputs, tally
from tests.support.oracle_progress import Progress
from tests.support.oracle_rules import RULES, Changer
from tests.support.workers import WorkerProcess, read

_NEVER_S = 1e9


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to the workers.

    Attributes:
        kills: SIGKILLs of workers that have committed something since they started.
        stops: SIGSTOPs of such workers, each past the session timeout.
        restarts: Orderly stops and starts of the broker.
        crashes: SIGKILLs and starts of the broker.
        seed: Of the history, the order, the victims and the instants.
        workers: How many run at a time; a dead one is replaced at once.
        partitions: Of each topic.
        session_timeout_ms: After this a dead worker's shards go to others.
        pause_ms: Mean length of the pauses that workers make between the steps of a transaction.
        chunks: Length of a part of the input, in chunks of some eighty calls for every partition.
        several: Whether the input is of several topics, and idle shards follow the clock. Then two runs may decide
            differently, and each is compared with a replay of its own journal.
    """

    kills: int
    stops: int
    seed: int = 1
    workers: int = 3
    partitions: int = 6
    session_timeout_ms: int = 3_000
    pause_ms: float = 8.0
    chunks: int = 5
    restarts: int = 0
    crashes: int = 0
    several: bool = False
    rules: int = 0
    """How often the rules change meanwhile, at most; needs ``several``."""

    @property
    def deeds(self) -> list[str]:
        """What is to be done, in order of kind."""
        return ["kill"] * self.kills + ["stop"] * self.stops + ["restart"] * self.restarts + ["crash"] * self.crashes

    @property
    def parts(self) -> int:
        """Parts of the input: one for each deed, and a last one to be processed in peace."""
        return len(self.deeds) + 1


@dataclass(slots=True)
class Result:
    """What was done, what was compared, and whether it was the same."""

    kills: int = 0
    young_kills: int = 0
    """Further kills, of workers that had not committed anything yet: while starting, joining or restoring."""
    stops: int = 0
    restarts: int = 0
    crashes: int = 0
    killed_at: Counter[str] = field(default_factory=Counter)
    """Kills by the last step of a transaction that the worker had reached."""
    stopped_at: Counter[str] = field(default_factory=Counter)
    workers: int = 0
    """Processes started."""
    shut_out: int = 0
    shut_out_quietly: int = 0
    """Workers that woke up, found themselves replaced and ended."""
    unreachable: int = 0
    """Workers that started while the broker was away and ended."""
    alone: int = 0
    """Workers that did not find a restarted broker again and ended."""
    last_ones: int = 0
    """Workers that ended by themselves only after all had been stopped: nobody took their place."""
    events: Counter[str] = field(default_factory=Counter)
    """What the workers logged."""
    counters: Counter[str] = field(default_factory=Counter)
    """What the uninterrupted worker counted."""
    inputs: int = 0
    rules_applied: int = 0
    tally: dict[str, Counter[str]] = field(default_factory=dict)
    core: Comparison = field(default_factory=Comparison)
    """The pure core's signals and commands against the uninterrupted worker's."""
    comparison: Comparison = field(default_factory=Comparison)
    """The uninterrupted worker's outputs against those of the killed ones."""
    replayed: dict[str, Comparison] = field(default_factory=dict)
    """What the journals of the two runs give against what these runs wrote; only with several topics."""
    journals: dict[str, Replay] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def differences(self) -> int:
        """All of them."""
        return sum(each.differences for each in (self.comparison, self.core, *self.replayed.values()))

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        made = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "replayed"}
        made["journals"] = {
            name: {"entries": each.entries, "claims": each.claims, "mixed": each.mixed, "advances": each.advances,
                   "records": each.records}
            for name, each in self.journals.items()
        }  # fmt: skip
        for name, comparison in (("core", self.core), ("comparison", self.comparison), *self.replayed.items()):
            made[name] = {
                "compared": comparison.compared,
                "differences": comparison.differences,
                "first": str(comparison.first) if comparison.first is not None else None,
            }
        return made


class Writer:
    """Writes input records: not in transactions, in order, and exactly once."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._prefix = prefix
        self._errors: list[KafkaError] = []
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )
        self.written: Counter[tuple[str, int]] = Counter()
        self.ends: dict[tuple[str, int], int] = {}
        """Topic and partition to the offset after the last record; workers write to one of the inputs too."""

    def write(self, records: Iterable[InputRecord]) -> None:
        """Write them and wait until the broker has them."""
        for each in records:
            self._producer.produce(
                self._prefix + each.topic,
                each.value,
                each.key,
                each.partition,
                timestamp=each.timestamp_ms,
                on_delivery=self._delivered,
            )
            self.written[each.topic, each.partition] += 1
            self._producer.poll(0)
        assert self._producer.flush(120) == 0, "the broker did not take the input"
        assert not self._errors, self._errors[0]

    def count(self, topic: str) -> int:
        """Records of a topic written so far."""
        return sum(count for (name, _), count in self.written.items() if name == topic)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._errors.append(error)
            return
        where = (message.topic() or "").removeprefix(self._prefix), message.partition() or 0
        self.ends[where] = max(self.ends.get(where, 0), (message.offset() or 0) + 1)


def topics_for(bootstrap: str, prefix: str, partitions: int) -> None:
    """Create all topics; arrival times are the writer's, and nothing is ever deleted or compacted.

    The broker's own clock would give the two runs different inputs, and retention or compaction would remove what is
    to be compared.
    """
    create_topics(bootstrap, prefix, partitions)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    resources = []
    for topic in TOPICS:
        changes = {"cleanup.policy": "delete", "retention.ms": "-1"}
        if topic.is_input:
            changes["message.timestamp.type"] = "CreateTime"
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in changes.items()
        ]
        resources.append(ConfigResource(ResourceType.TOPIC, prefix + topic.name, incremental_configs=entries))
    for future in admin.incremental_alter_configs(resources).values():
        future.result(30)


def uninterrupted(bootstrap: str, prefix: str, folder: Path, **more: Any) -> dict[str, int]:
    """Process everything under a prefix with one worker that nobody disturbs; what it counted.

    Args:
        bootstrap: The cluster.
        prefix: Of the topics.
        folder: For its log.
        more: Settings.
    """
    with WorkerProcess(
        bootstrap, prefix, folder / "uninterrupted.log", until_end=True, core=asdict(SETTINGS), **more
    ) as worker:
        assert worker.wait(900) == 0, worker.log.read_text()[-3000:]
        return {name: int(value) for name, value in worker.lines("worker_stopped")[0].items() if isinstance(value, int)}


class Disturber:
    """Kills and freezes workers while they process the parts of the input.

    Args:
        plan: What to do.
        fleet: The workers.
        writer: Writes the parts.
        progress: Tells how far the workers are.
        result: Counts.
        broker: May be restarted.
        say: Told what happens, line by line.
    """

    def __init__(
        self,
        plan: Plan,
        fleet: Fleet,
        writer: Writer,
        progress: Progress,
        result: Result,
        broker: KafkaServer | None,
        say: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._fleet = fleet
        self._writer = writer
        self._progress = progress
        self._result = result
        self._broker = broker
        self._say = say
        self._rng = random.Random(f"{plan.seed}/disturber")

    def run(self, parts: Iterable[list[InputRecord]]) -> None:
        """Disturb the workers once during each part but the last, and wait until all is processed."""
        deeds = self._plan.deeds
        self._rng.shuffle(deeds)
        for number, (deed, part) in enumerate(zip([*deeds, ""], parts, strict=True)):
            before = self._writer.count("tool-calls")
            self._writer.write(part)
            if deed:
                self._await_instant(before, self._writer.count("tool-calls"))
                self._disturb(deed, number)
        self._until(self._all_processed, "everything processed", 180)

    def _await_instant(self, before: int, after: int) -> None:
        """Wait for a random instant: mostly a point of this part, sometimes just a moment, in the middle of whatever
        the last disturbance left behind."""
        if self._rng.random() < 0.2:
            until = time.monotonic() + self._rng.uniform(0.0, self._plan.session_timeout_ms / 1_000)
            self._until(lambda: time.monotonic() > until, "a moment")
        else:
            goal = before + self._rng.random() * (after - before)
            self._until(lambda: self._progress.processed("tool-calls") >= goal, f"{goal:.0f} calls processed")
        self._until(lambda: bool(self._fleet.eligible()), "a worker that has committed something")

    def _disturb(self, deed: str, number: int) -> None:
        victim = self._rng.choice(self._fleet.eligible())
        behind = self._writer.count("tool-calls") - self._progress.processed("tool-calls")
        who = {"kill": self._kill, "stop": self._stop, "restart": self._restart, "crash": self._crash}[deed](victim)
        self._say(f"{deed} {number + 1} of {self._plan.parts - 1}: {who}, {behind} calls behind")
        self._fleet.tend()
        if deed == "kill" and self._rng.random() < 0.15:
            self._kill_young()

    def _kill(self, victim: Member) -> str:
        step = self._fleet.kill(victim)
        self._result.kills += 1
        self._result.killed_at[step] += 1
        return f"{victim.log.stem} after {step!r}"

    def _stop(self, victim: Member) -> str:
        step = self._fleet.freeze(victim, self._rng.uniform(1.3, 2.5) * self._plan.session_timeout_ms / 1_000)
        self._result.stops += 1
        self._result.stopped_at[step] += 1
        return f"{victim.log.stem} after {step!r}"

    def _restart(self, _: Member) -> str:
        assert self._broker is not None
        self._broker.restart()
        self._fleet.broker_away_at = time.monotonic()
        self._result.restarts += 1
        return "the broker"

    def _crash(self, _: Member) -> str:
        assert self._broker is not None
        self._broker.kill()
        self._broker.start()
        self._fleet.broker_away_at = time.monotonic()
        self._result.crashes += 1
        return "the broker"

    def _kill_young(self) -> None:
        """Kill the newest worker too, while it is starting, joining or restoring."""
        newest = self._fleet.youngest()
        until = time.monotonic() + self._rng.uniform(0.5, 2.0 + self._plan.session_timeout_ms / 1_000)
        self._until(lambda: time.monotonic() > until or newest in self._fleet.eligible(), "a moment")
        if newest in self._fleet.members and newest not in self._fleet.eligible():
            self._result.killed_at[self._fleet.kill(newest)] += 1
            self._result.young_kills += 1

    def _all_processed(self) -> bool:
        return not self._fleet.frozen() and all(
            self._progress.position(topic, partition) >= end for (topic, partition), end in self._writer.ends.items()
        )

    def _until(self, condition: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self._fleet.tend()
            if time.monotonic() > deadline:
                logs = [each.log.read_text()[-1500:] for each in self._fleet.members]
                raise AssertionError(f"not within {timeout_s:g} s: {what}\n" + "\n---\n".join(logs))
            time.sleep(0.005)
        self._fleet.tend()


def oracle(
    bootstrap: str,
    prefix: str,
    plan: Plan,
    folder: Path,
    say: Callable[[str], None] = print,
    broker: KafkaServer | None = None,
) -> Result:
    """Run the whole test.

    Args:
        bootstrap: An Apache Kafka whose ``group.min.session.timeout.ms`` allows the plan's.
        prefix: Topics are made under ``prefix`` + ``whole.`` and ``prefix`` + ``torn.``.
        plan: What to do.
        folder: For logs.
        say: Told what happens, line by line.
        broker: The same Apache Kafka, if it is to be restarted.

    Raises:
        AssertionError: A worker ended by itself, or nothing went on any more. Differences are in the result.
    """
    result = Result()
    whole, torn = prefix + "whole.", prefix + "torn."
    for each in (whole, torn):
        topics_for(bootstrap, each, plan.partitions)
    history, parts = _written(bootstrap, whole, plan, result)
    say(f"input: {history.tool_calls} tool calls, {history.acks} acknowledgements, {result.seconds['input']:.0f} s")
    with _timed(result, "uninterrupted"):
        # Small batches, for then topics interleave; and the whole state log is needed.
        more: dict[str, Any] = {**ALONE}
        if plan.several:
            more = {"batch_records": 500, "catch_up_records": 500, "trim_interval_s": _NEVER_S}
        result.counters.update(uninterrupted(bootstrap, whole, folder, **more))
    say(f"uninterrupted run: {result.seconds['uninterrupted']:.0f} s")
    with _timed(result, "disturbed"):
        _disturbed(bootstrap, torn, plan, folder, parts, result, broker, say)
    say(f"{result.kills} kills and {result.stops} stops: {result.seconds['disturbed']:.0f} s")
    expected, found = (outputs(bootstrap, each, plan.partitions) for each in (whole, torn))
    result.tally = tally(published(found) if plan.several else expected)
    if plan.several:
        with _timed(result, "replays"):
            for prefix, written in ((whole, expected), (torn, found)):
                log = state_log(bootstrap, prefix, plan.partitions)
                journal = replay(log, Inputs.of(bootstrap, prefix, plan.partitions), SETTINGS, prefix, RULES)
                result.journals[prefix] = journal
                result.replayed[prefix] = compare(journal.outputs, published(written))
                sent = read(bootstrap, prefix + "panes", plan.partitions)
                again, told = (panes_by_way(each, plan.partitions) for each in (journal.panes, sent))
                result.replayed[prefix + "panes"] = compare(again, told)
        result.comparison = compare(*({"dead-letters": _sorted_letters(each)} for each in (expected, found)))
        return result
    result.core = compare(history.decisions, {name: expected[name] for name in history.decisions})
    assert result.tally["dead letters"] == history.dead_letters
    result.comparison = compare(expected, found)
    return result


def _sorted_letters(written: Outputs) -> list[list[Row]]:
    """The dead letters by source: of several topics, how they interleave is the run's own.

    Those of signals are left out, for the workers' own signals lie between others' at other places.
    """
    decode = Decoder().decode
    keyed = [
        [((letter := decode(row[1], "DeadLetter")).topic, letter.offset, row) for row in rows]
        for rows in written["dead-letters"]
    ]
    return [[row for topic, _, row in sorted(rows, key=lambda each: each[:2]) if topic != "signals"] for rows in keyed]


def _written(bootstrap: str, prefix: str, plan: Plan, result: Result) -> tuple[History, list[list[InputRecord]]]:
    """The history's parts, written under one prefix already."""
    started = time.monotonic()
    history, chunks = make(plan.seed, plan.parts * plan.chunks, plan.partitions)
    if plan.several:
        chunks = mixed(chunks, plan.seed, plan.partitions)
    writer, parts = Writer(bootstrap, prefix), []
    for _ in range(plan.parts):
        part = [record for chunk in itertools.islice(chunks, plan.chunks) for record in chunk]
        writer.write(part)
        parts.append(part)
    result.inputs = sum(map(len, parts))
    result.seconds["input"] = time.monotonic() - started
    return history, parts


def _disturbed(
    bootstrap: str,
    prefix: str,
    plan: Plan,
    folder: Path,
    parts: list[list[InputRecord]],
    result: Result,
    broker: KafkaServer | None,
    say: Callable[[str], None],
) -> None:
    settings: dict[str, Any] = {"session_timeout_ms": plan.session_timeout_ms}
    if plan.several:
        settings |= {"idle_after_s": 0.2, "heartbeat_s": 0.2, "trim_interval_s": _NEVER_S}
    else:
        settings |= ALONE
    with (
        Progress(bootstrap, prefix + "state", plan.partitions) as progress,
        Fleet(
            bootstrap, prefix, plan.workers, folder / "workers", progress, plan.seed, plan.pause_ms, settings
        ) as fleet,
    ):
        fleet.tend()
        changer = Changer(bootstrap, prefix + "rules", plan.rules)
        with changer.at_work():
            Disturber(plan, fleet, Writer(bootstrap, prefix), progress, result, broker, say).run(parts)
        result.rules_applied = changer.applied
        fleet.stop()
        result.workers, result.shut_out, result.unreachable = fleet.started, fleet.shut_out, fleet.unreachable
        result.shut_out_quietly = fleet.shut_out_quietly
        result.alone, result.last_ones = fleet.alone, fleet.last_ones
        result.events = fleet.told()


@contextmanager
def _timed(result: Result, name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    result.seconds[name] = round(time.monotonic() - started, 1)
