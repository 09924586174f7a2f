"""The replay that the kill test rests on: it gives what was decided, and notices what is not as the journal says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.records import Outcome, StateRecord, ToolCall
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.core.settings import SECOND, CoreSettings
from fuseboard_streams.worker.decoding import INPUTS, Decoding
from fuseboard_streams.worker.outgoing import Outbox
from fuseboard_streams.worker.rules_source import packaged
from fuseboard_streams.worker.source import RawBatch
from fuseboard_streams.worker.statelog import Journal, ranges, to_records
from tests.support.calls import SEEDS, T0, make_shard
from tests.support.events import made
from tests.support.journal_replay import Inputs, Replay, arrived, replay
from tests.support.oracle_input import Row
from tests.support.workers import Read

Log = list[tuple[int, StateRecord]]
Records = dict[tuple[str, int], list[Read]]
SETTINGS = CoreSettings()
RULES = packaged(SETTINGS.failure)


def records() -> Records:
    """A tool that breaks, and steps over the same minutes, one of them bad."""
    found: Records = {(topic, 0): [] for topic in INPUTS}
    for i in range(120):
        ts = T0 + i * SECOND
        outcome = Outcome.ERROR if 60 <= i < 90 else Outcome.OK
        call = ToolCall(event_id=f"e{i}", ts=ts, actor="a", tool="t", client_id=1, seq=i, outcome=outcome)
        _add(found, "tool-calls", ts, Encoder("ToolCall").encode(call))
        step = replace(made("traces", 0, actor="a" if i != 70 else ""), ts=ts)
        _add(found, "traces", ts, Encoder("TraceStep").encode(step))
    return found


def _add(found: Records, topic: str, ts: int, value: bytes) -> None:
    log = found[topic, 0]
    log.append(Read(0, len(log), b"default/a", value, (), ts // 1_000))


def worked(found: Records) -> tuple[Log, list[Row]]:
    """What a worker would write that takes ten calls, then thirty steps, and so on: the state log, and the commands."""
    shard, decoding, outbox = make_shard(SETTINGS), Decoding(PackagedResolver(), SEEDS), Outbox(TopicNames(), 1)
    position, log, commands = dict.fromkeys(INPUTS, 0), Log(), list[Row]()
    for number in range(17):
        topic, size = (("tool-calls", 10), ("traces", 30))[number % 4 == 1]
        after = position | {topic: min(position[topic] + size, 120)}
        several = found[topic, 0][position[topic] : after[topic]]
        shard.begin()
        if number == 0:
            shard.change_rules(RULES.rules, RULES.text)
        if several:
            work = decoding.decode(RawBatch(0, [arrived(topic, 0, several)]), RULES).work[0]
            shard.fold(work.inputs)
        advance = SECOND if number == 16 else 0
        shard.advance(shard.clock + advance)
        for output in shard.take_outputs():
            if output.topic == "breaker_commands":
                out = outbox.decision(0, output)
                headers: Any = tuple(out.headers)
                commands.append((out.key, out.value, headers))
        delta = shard.encode_changes(512)
        shard.commit()
        journal = Journal(
            0, "w", number + 1, 0, shard.stream_time, advance, RULES.rules.version, ranges(position, after)
        )
        log += [(len(log), each) for each in to_records(journal, delta)]
        position = after
    return log, commands


def replayed(log: Log, found: Records) -> Replay:
    return replay([log], Inputs(found), SETTINGS, TopicNames().prefix, [RULES])


def test_a_replay_gives_what_was_decided() -> None:
    found = records()
    log, commands = worked(found)
    result = replayed(log, found)
    assert len(commands) > 1
    assert result.outputs["breaker-commands"] == [commands]
    assert len(result.outputs["dead-letters"][0]) == 1
    assert (result.entries, result.advances, result.mixed) == (17, 1, 0)
    assert (result.records["tool-calls"], result.records["traces"]) == (120, 120)


def _swap(log: Log, found: Records) -> None:
    """The steps of one entry are read after the calls that came after them."""
    first, second = log[5][1], log[6][1]
    log[5] = 5, replace(first, inputs=second.inputs)
    log[6] = 6, replace(second, inputs=first.inputs)


def _lose(log: Log, found: Records) -> None:
    del log[7]


def _shift(log: Log, found: Records) -> None:
    log[8] = (
        8,
        replace(log[8][1], inputs=tuple(replace(each, from_offset=each.from_offset + 1) for each in log[8][1].inputs)),
    )


def _stand_still(log: Log, found: Records) -> None:
    log[16] = 16, replace(log[16][1], advanced_us=0)


def _cut(log: Log, found: Records) -> None:
    del log[-3:]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_swap, "stream time|goes on"),
        (_lose, "entry 9 after entry 7"),
        (_shift, "goes on at"),
        (_stand_still, "another stream time"),
        (_cut, "was not read to its end"),
    ],
)
def test_a_replay_notices(damage: Callable[[Log, Records], None], what: str) -> None:
    found = records()
    log, _ = worked(found)
    damage(log, found)
    with pytest.raises(Exception, match=what):
        replayed(log, found)


def test_a_call_that_was_not_counted_shows_in_the_commands() -> None:
    found = records()
    log, commands = worked(found)
    del found["tool-calls", 0][61]
    assert replayed(log, found).outputs["breaker-commands"] != [commands]
