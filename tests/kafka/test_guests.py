"""Guests against Apache Kafka: Faust and Quix Streams judge an agent's work, and their findings arrive as signals."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks._environments import FAUST, QUIX
from benchmarks._processes import running
from fuseboard.guest import Signal, signal_record, to_message
from fuseboard_schemas.keys import actor_key, partition_for
from tests.support.brokers import delete_topics
from tests.support.guests import Judge, Score, judge, write_scores
from tests.support.workers import T0_US, Read, read, until

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
