"""Guests against Apache Kafka: Faust and Quix Streams judge an agent's work, and their findings arrive as signals."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from benchmarks._environments import FAUST, QUIX
from benchmarks._processes import running
from fuseboard import Action, Fuseboard, ToolBlocked
from fuseboard.guest import Signal, SignalWriter, signal_record, to_message
from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import BreakerCommand, BreakerState, Cause, Effect, Outcome, ToolCall
from tests.support.brokers import delete_topics
from tests.support.guests import Judge, Score, judge, write_scores
from tests.support.workers import T0_US, Read, WorkerThread, produce, read, run, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fuseboard_schemas.topics import TopicNames

pytestmark = [pytest.mark.broker, pytest.mark.kafka, pytest.mark.slow]

PARTITIONS = 4
SCORE_PARTITIONS = 3
"""Another number than ours: where a score is read says nothing about where its signal belongs."""
PATIENCE_S = 120.0
MINUTE_US = 60_000_000
NONSENSE = (b"", b"no json", b"[]", b"{}", b'{"score": 2}', Score("e", T0_US, "wild", "t", 7.0).value())


@pytest.fixture(scope="module")
def faust() -> Judge:
    return judge("faust", FAUST, "faust_judge.py", "--datadir", "{folder}", "worker", "--without-web", "-l", "warn")


@pytest.fixture(scope="module")
def quix() -> Judge:
    return judge("quix", QUIX, "quix_judge.py")


@dataclass
class Stage:
    """A broker with topics, and what guests leave there."""

    bootstrap: str
    names: TopicNames
    folder: Path

    def signals(self) -> list[Read]:
        return read(self.bootstrap, self.names.signals, PARTITIONS)

    @contextlib.contextmanager
    def played_by(self, guest: Judge, name: str) -> Iterator[Callable[[int], list[Read]]]:
        """A guest at work; yields the function that waits for so many signals in all."""
        process = guest.start(self.bootstrap, self.names.prefix, name, SCORE_PARTITIONS, self.folder)

        def arrived(count: int) -> list[Read]:
            def enough() -> bool:
                assert process.ended() is None, process.tail()
                return len(self.signals()) >= count

            until(enough, f"{count} signals of {name}", PATIENCE_S)
            return self.signals()

        with running([process]):
            yield arrived


@pytest.fixture
def stage(apache_kafka: str, unique_prefix: str, topics: Callable[..., TopicNames], tmp_path: Path) -> Iterator[Stage]:
    yield Stage(apache_kafka, topics(apache_kafka, unique_prefix, PARTITIONS), tmp_path)
    delete_topics(apache_kafka, f"changelog__{unique_prefix}")


def check(found: list[Read], expected: list[Signal], prefix: str) -> None:
    """The same findings, each at its target's home under its key, as the worker's own decoder reads them."""
    assert Counter(each.decoded("Signal").signal_id for each in found) == Counter(each.signal_id for each in expected)
    by_id = {each.signal_id: each for each in expected}
    for each in found:
        signal = each.decoded("Signal")
        assert signal == by_id[signal.signal_id]
        assert each.partition == partition_for(actor_key(signal.tenant, signal.actor), PARTITIONS)
        message = to_message(signal, PARTITIONS, prefix)
        assert (each.key, each.value, each.headers) == (message.key, message.value, message.headers)
    assert len({each.partition for each in found}) > 1, "all in one partition: this proves nothing"


def scores(actor: str, *pairs: tuple[str, float], start: int = 0, every_us: int = MINUTE_US) -> list[Score]:
    """Scores of one actor, each a trace and what was thought of it, at even intervals from a minute on."""
    return [
        Score(f"{actor}#{start}.{i}", T0_US + start * MINUTE_US + i * every_us, actor, trace, score)
        for i, (trace, score) in enumerate(pairs)
    ]


def test_faust_judges_by_low_scores_in_distinct_traces(stage: Stage, faust: Judge) -> None:
    low, high = 0.1, 0.9
    written: list[list[Score | bytes]] = []
    expected: list[Signal] = []
    for p in range(SCORE_PARTITIONS):
        bad = scores(f"bad/{p}", ("a", low), ("a", low), ("b", high), ("b", low), ("c", 0.39), ("c", low), ("d", low))
        last = scores(f"last-{p}", ("a", low), ("b", low), ("c", low), start=30)
        written.append([
            *scores(f"good-{p}", *((str(i), high) for i in range(8))),
            *scores(f"stuck-{p}", *(("same", low) for _ in range(8)), ("other", low)),
            *scores(f"rare-{p}", ("a", low), ("b", low), ("c", low), every_us=31 * MINUTE_US),
            *NONSENSE,
            *bad,
            *last,
        ])  # fmt: skip
        expected += [finding(bad[4], 3), finding(bad[6], 4), finding(last[2], 3)]
    write_scores(stage.bootstrap, stage.names.prefix, written)

    with stage.played_by(faust, "first") as arrived:
        check(arrived(len(expected)), expected, stage.names.prefix)
    # Another name reads all scores again, as a guest does whose state was lost: the same signals, under the same ids.
    with stage.played_by(faust, "second") as arrived:
        check(arrived(2 * len(expected)), expected * 2, stage.names.prefix)


def finding(score: Score, traces: int) -> Signal:
    return signal_record(
        scope="ACTOR_TOOL",
        actor=score.actor,
        tool="refund",
        level="TRIP",
        metric="signals.low_scores",
        value=traces,
        reason=f"{traces} traces within an hour scored below 0.4",
        source="faust_judge",
        event_id=score.event_id,
        ts=score.ts,
    )


def test_quix_judges_by_the_mean_of_a_window(stage: Stage, quix: Judge) -> None:
    written: list[list[Score | bytes]] = []
    expected: list[Signal] = []
    for p in range(SCORE_PARTITIONS):
        written.append([
            *scores(f"bad/{p}", *((str(i), 0.25) for i in range(4)), ("t", 0.75), every_us=1_000_000),
            *scores(f"good-{p}", *((str(i), 0.9) for i in range(9)), ("t", 0.0), every_us=1_000_000),
            *scores(f"few-{p}", *(("t", 0.0) for _ in range(4)), every_us=1_000_000),
            *NONSENSE,
            # The second window closes the first of every actor, the third the second.
            *scores(f"last-{p}", *(("t", 0.0) for _ in range(6)), start=5, every_us=1_000_000),
            *scores("closer", ("t", 1.0), start=10),
        ])  # fmt: skip
        expected += [mean(f"bad/{p}", 5, 0.35, 5), mean(f"last-{p}", 6, 0.0, 10)]
    write_scores(stage.bootstrap, stage.names.prefix, written)

    with stage.played_by(quix, "first") as arrived:
        check(arrived(len(expected)), expected, stage.names.prefix)
    with stage.played_by(quix, "second") as arrived:
        check(arrived(2 * len(expected)), expected * 2, stage.names.prefix)


def mean(actor: str, count: int, value: float, end_minute: int) -> Signal:
    return signal_record(
        scope="ACTOR",
        actor=actor,
        level="TRIP",
        metric="signals.mean_score",
        value=value,
        reason=f"the mean of {count} scores is {value:.2f}; below 0.4 is low",
        source="quix_judge",
        ts=T0_US + end_minute * MINUTE_US,
    )


@pytest.mark.parametrize("framework", ["faust", "quix"])
def test_a_judge_without_a_topic_for_its_signals_says_so_and_ends(
    apache_kafka: str, unique_prefix: str, tmp_path: Path, request: pytest.FixtureRequest, framework: str
) -> None:
    guest: Judge = request.getfixturevalue(framework)
    write_scores(apache_kafka, unique_prefix, [scores("agent", ("a", 0.1))])
    process = guest.start(apache_kafka, unique_prefix, "early", 1, tmp_path)
    with running([process]):
        until(lambda: process.ended() is not None, "the end of the judge", PATIENCE_S)
    assert process.ended() == 1
    assert f"There is no topic {unique_prefix}signals" in process.tail()
    assert "fuseboard topics apply" in process.tail()
    delete_topics(apache_kafka, unique_prefix)
    delete_topics(apache_kafka, f"changelog__{unique_prefix}")


RULES = """
version: 1
breakers:
  low-scores:
    metric: signals.low_scores
    scope: ACTOR_TOOL
    test: {kind: signal, source: "*_judge", level: trip}
    action: REQUIRE_APPROVAL
    mode: enforce
  mean-score:
    metric: signals.mean_score
    scope: ACTOR
    test: {kind: signal, source: quix_judge, level: trip}
    action: HALT
    mode: enforce
blast_radius: {tenant_actors: 100%, at_least: 10, window: 1m}
"""


@contextlib.contextmanager
def obeying(stage: Stage, actors: list[str], tools: tuple[str, ...] = ("refund",)) -> Iterator[WorkerThread]:
    """A worker with these rules that knows these actors and their tools: each has made a call."""
    file = stage.folder / "rules.yaml"
    file.write_text(RULES, encoding="utf-8")
    calls = [
        ToolCall(
            event_id=f"{actor} {tool}", ts=T0_US, tenant="default", actor=actor, tool=tool, effect=Effect.WRITE,
            outcome=Outcome.OK,
        )
        for actor in actors
        for tool in tools
    ]  # fmt: skip
    produce(stage.bootstrap, stage.names.tool_calls, calls)
    run(stage.bootstrap, stage.names.prefix, rules=str(file))
    with WorkerThread(stage.bootstrap, stage.names.prefix, {"rules": str(file)}) as worker:
        yield worker
    assert worker.failure is None, worker.failure


def commands(stage: Stage) -> list[tuple[int, BreakerCommand]]:
    """Every command so far, with its partition."""
    found = read(stage.bootstrap, stage.names.breaker_commands, PARTITIONS)
    return [(each.partition, each.decoded("BreakerCommand")) for each in found if each.value is not None]


def opened(stage: Stage, rule: str, count: int) -> list[BreakerCommand]:
    """The commands with which a rule has opened breakers, when there are so many; each at its target's home."""
    of_rule: list[tuple[int, BreakerCommand]] = []

    def enough() -> bool:
        of_rule[:] = [
            (partition, each)
            for partition, each in commands(stage)
            if each.rule == rule and each.state is BreakerState.OPEN and each.cause is Cause.TRIP
        ]
        return len(of_rule) >= count

    until(enough, f"{count} commands of {rule}", PATIENCE_S)
    for partition, each in of_rule:
        assert partition == partition_for(actor_key(each.tenant, str(each.actor)), PARTITIONS)
    return [each for _, each in of_rule]


def refused(stage: Stage, actor: str, tool: str) -> ToolBlocked:
    """What an agent's gate says to a call of a tool."""
    with Fuseboard(
        actor=actor, bootstrap=stage.bootstrap, prefix=stage.names.prefix, spool_dir="", close_timeout_s=30
    ) as fuse:
        call = fuse.tool(name=tool, effect="WRITE")(lambda: "done")
        until(fuse.ready, f"{actor} knows the breakers", PATIENCE_S)
        with pytest.raises(ToolBlocked) as failure:
            call()
    return failure.value


def judged_badly(*actors: str) -> list[list[Score | bytes]]:
    """Scores that both judges find too low, within a few seconds: nothing of it is late anywhere.

    The last of each partition closes the window of Quix four minutes and a half later.
    """
    written: list[list[Score | bytes]] = [[] for _ in range(SCORE_PARTITIONS)]
    for i, actor in enumerate(actors):
        pairs = ((f"{actor}-{n}", 0.1) for n in range(5))
        # From 4:30 on: the window ends half a minute later, and signals of both judges lie close together.
        written[i % SCORE_PARTITIONS] += [
            Score(f"{actor}#{n}", T0_US + 270_000_000 + n * 1_000_000, actor, trace, score)
            for n, (trace, score) in enumerate(pairs)
        ]
    for p in range(SCORE_PARTITIONS):
        written[p] += [*scores(f"good-{p}", *((str(i), 0.9) for i in range(3)), start=5, every_us=1_000_000)]
    return written


def test_low_scores_hold_a_tool_back_until_a_person_approves(stage: Stage, faust: Judge) -> None:
    actors = [f"bad/{i}" for i in range(5)]
    write_scores(stage.bootstrap, stage.names.prefix, judged_badly(*actors))
    with obeying(stage, actors), stage.played_by(faust, "first") as arrived:
        arrived(3 * len(actors))
        found = opened(stage, "low-scores", len(actors))
        assert sorted(each.breaker_id for each in found) == [
            f"ACTOR_TOOL:default/bad%2F{i}/refund" for i in range(len(actors))
        ]
        assert {each.action for each in found} == {Action.REQUIRE_APPROVAL}
        assert all("3 traces within an hour scored below 0.4" in each.reason for each in found)
        blocked = refused(stage, "bad/0", "refund")
        assert (blocked.action, blocked.breaker_id) == (
            Action.REQUIRE_APPROVAL,
            "ACTOR_TOOL:default/bad%2F0/refund",
        )
    assert read(stage.bootstrap, stage.names.dead_letters, PARTITIONS) == []


def test_a_low_mean_halts_an_actor(stage: Stage, quix: Judge) -> None:
    actors = [f"bad/{i}" for i in range(5)]
    write_scores(stage.bootstrap, stage.names.prefix, judged_badly(*actors))
    with obeying(stage, actors), stage.played_by(quix, "first") as arrived:
        arrived(len(actors))
        found = opened(stage, "mean-score", len(actors))
        assert sorted(each.breaker_id for each in found) == [f"ACTOR:default/bad%2F{i}" for i in range(len(actors))]
        assert {each.action for each in found} == {Action.HALT}
        # All of the actor's tools, also one that nobody has judged.
        assert refused(stage, "bad/3", "orders.find").action is Action.HALT
    assert read(stage.bootstrap, stage.names.dead_letters, PARTITIONS) == []


def test_a_repeated_signal_opens_nothing_twice(stage: Stage, faust: Judge) -> None:
    """A guest that has lost its state says all of it again, under the same ids: nobody is told anything new."""
    actors = [f"bad/{i}" for i in range(4)]
    write_scores(stage.bootstrap, stage.names.prefix, judged_badly(*actors))
    with obeying(stage, actors, ("refund", "other")):
        with stage.played_by(faust, "first") as arrived:
            arrived(3 * len(actors))
        before = opened(stage, "low-scores", len(actors))
        with stage.played_by(faust, "second") as arrived:
            arrived(6 * len(actors))
        # A fresh finding behind the repeats: when it has had its effect, they have had theirs.
        for actor in actors:
            fresh = finding(Score(f"{actor}#new", T0_US + 290_000_000, actor, "new", 0.1), 3)
            send(stage, signal_record(**described(fresh) | {"tool": "other"}))
        after = opened(stage, "low-scores", 2 * len(actors))
    assert [each for each in after if each.tool == "refund"] == before


def test_what_no_rule_asks_for_opens_nothing(stage: Stage) -> None:
    """Another source, a level below, another metric, a scope without a rule; then one that a rule does ask for."""
    score = Score("e", T0_US, "agent", "t", 0.1)
    wanted = finding(score, 3)
    others = [
        {"source": "somebody"},
        {"level": "WARN"},
        {"level": "INFO"},
        {"metric": "signals.others"},
        {"scope": "ACTOR", "tool": None},
        {"scope": "SESSION", "tool": None, "trace_id": "t"},
    ]
    with obeying(stage, ["agent"]):
        for changes in others:
            send(stage, signal_record(**described(wanted) | changes))
        send(stage, wanted)
        (only,) = opened(stage, "low-scores", 1)
    assert (only.actor, only.tool) == ("agent", "refund")
    assert [each for _, each in commands(stage)] == [only]
    assert read(stage.bootstrap, stage.names.dead_letters, PARTITIONS) == []


def described(signal: Signal) -> dict[str, Any]:
    """The arguments that make a signal, but for its id."""
    names = ("scope", "level", "metric", "source", "ts", "tenant", "actor", "tool", "value", "reason", "event_id")
    return {name: getattr(signal, name) for name in names}


def send(stage: Stage, *signals: Signal) -> None:
    """Publish signals with the writer that guests have."""
    producer = Producer({"bootstrap.servers": stage.bootstrap, "enable.idempotence": True})
    with SignalWriter(producer, prefix=stage.names.prefix) as writer:
        for signal in signals:
            writer.send(signal)
