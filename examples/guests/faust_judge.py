"""A guest in Faust: when an LLM judge scores the work of an agent's tool low in several traces, that is a signal.

    pip install . 'faust-streaming==0.15.3'          # fuseboard and Faust, in an environment of their own
    fuseboard topics apply --partitions 12           # once, if there are no topics yet
    FUSEBOARD_BOOTSTRAP=localhost:9092 JUDGE_PARTITIONS=12 python examples/guests/faust_judge.py worker --without-web

It reads the topic `judge-scores`, to which the judge writes one JSON object for each thing it has judged, with the
actor as key (the table below is kept per partition) and as many partitions as JUDGE_PARTITIONS says:

    {"event_id": "score-1", "ts": 1790000000000000, "actor": "support_agent", "tool": "refund", "trace": "t-1",
     "score": 0.2}

JUDGE_REPLICATION says in how many copies Kafka keeps the table (1).

`ts` is in microseconds, `score` goes from 0 (bad) to 1. After three traces with a low score within an hour a signal of
level TRIP about that tool of that actor goes to `fuseboard.signals`, and one more for each further trace. What follows
is for the rules to say; see docs/guests.md.
"""

import json
import logging
import os
from collections.abc import AsyncIterator
from typing import NamedTuple

import faust
from aiokafka.admin import AIOKafkaAdminClient

from fuseboard.guest import Message, Signal, SignalError, signal_record, to_message

BOOTSTRAP = os.environ.get("FUSEBOARD_BOOTSTRAP", "localhost:9092")
PREFIX = os.environ.get("FUSEBOARD_PREFIX", "fuseboard.")
TENANT = os.environ.get("FUSEBOARD_TENANT", "default")

LOW = 0.4
"""A score below it is low."""
TRACES = 3
"""So many traces with a low score make a signal. A single trace can be one hard question, asked in a loop."""
WINDOW_US = 3_600_000_000
"""Low scores count for an hour of event time."""

log = logging.getLogger("faust_judge")
app = faust.App(
    os.environ.get("JUDGE_APP", "faust-judge"),
    broker=f"kafka://{BOOTSTRAP}",
    store="memory://",
    topic_partitions=int(os.environ.get("JUDGE_PARTITIONS", "8")),
    topic_replication_factor=int(os.environ.get("JUDGE_REPLICATION", "1")),
    consumer_auto_offset_reset="earliest",
    broker_commit_interval=1.0,
)
scores = app.topic(os.environ.get("JUDGE_TOPIC", "judge-scores"), key_serializer="raw", value_serializer="raw")
signals = app.topic(f"{PREFIX}signals", key_serializer="raw", value_serializer="raw")
low_traces = app.Table("low_traces", default=dict)
"""Per actor and tool: the traces with a low score, and when each had its first."""


@app.agent(scores)
async def judge(stream: AsyncIterator[bytes]) -> None:
    """Judge until asked to stop, or until something cannot be published."""
    try:
        await look_at_each(stream)
    except Exception:
        # Faust would go on without this agent, and count the score at which it failed as done.
        log.exception("the judge has failed, and ends the process")
        os._exit(1)


async def look_at_each(stream: AsyncIterator[bytes]) -> None:
    """Look at one score at a time."""
    partitions = await partitions_of(f"{PREFIX}signals")
    async for value in stream:
        try:
            found = look_at(read(value))
        except (SignalError, ValueError, KeyError, TypeError) as error:
            # One bad record must not stop the rest; a judge that writes many of them is found in the log.
            log.warning("no score, left out: %.200r: %s", value, error)
            continue
        if found is not None:
            key, low, signal = found
            # Sent and confirmed before it is remembered: after a crash the score is looked at again, and what is
            # published then is the same signal, under the same id, which comes from its content.
            if signal is not None:
                await publish(to_message(signal, partitions, PREFIX))
            low_traces[key] = low


class Score(NamedTuple):
    """What the judge thinks of one use of a tool."""

    event_id: str
    ts: int
    actor: str
    tool: str
    trace: str
    score: float


def read(value: bytes) -> Score:
    """A score from its JSON."""
    given = json.loads(value)
    names = [str(given[name]) for name in ("actor", "tool", "trace")]
    score = Score(str(given["event_id"]), int(given["ts"]), *names, float(given["score"]))
    if not 0.0 <= score.score <= 1.0:
        raise ValueError("a score goes from 0 to 1")
    return score


def look_at(score: Score) -> tuple[str, dict[str, int], Signal | None] | None:
    """The low traces of an actor and tool, if the score adds one, and the signal if there are enough of them."""
    key = json.dumps([score.actor, score.tool])
    low = {trace: ts for trace, ts in low_traces[key].items() if abs(score.ts - ts) < WINDOW_US}
    if score.score >= LOW or score.trace in low:
        return None
    low[score.trace] = score.ts
    return key, low, finding(score, len(low)) if len(low) >= TRACES else None


def finding(score: Score, traces: int) -> Signal:
    """What the judge has found out about a tool of an actor; the time is that of the score, never the time now."""
    return signal_record(
        scope="ACTOR_TOOL",
        tenant=TENANT,
        actor=score.actor,
        tool=score.tool,
        level="TRIP",
        metric="signals.low_scores",
        value=traces,
        reason=f"{traces} traces within an hour scored below {LOW}",
        source="faust_judge",
        event_id=score.event_id,
        ts=score.ts,
    )


async def publish(message: Message) -> None:
    """Send a message as it is, to the partition it names, and wait until Kafka has it."""
    sent = await signals.send(
        key=message.key, value=message.value, partition=message.partition, headers=list(message.headers)
    )
    await sent


async def partitions_of(topic: str) -> int:
    """How many partitions a topic has; asks for all topics, since asking for one may create it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    try:
        found = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics()}
    finally:
        await admin.close()
    if topic not in found:
        raise LookupError(f"There is no topic {topic}: create it with `fuseboard topics apply`.")
    return found[topic]


if __name__ == "__main__":
    app.main()
