"""A guest in Quix Streams: when an LLM judge's mean score of an agent's work is low for five minutes, that is a signal.

    pip install . 'quixstreams==3.28.1'              # fuseboard and Quix Streams, in an environment of their own
    fuseboard topics apply --partitions 12           # once, if there are no topics yet
    FUSEBOARD_BOOTSTRAP=localhost:9092 python examples/guests/quix_judge.py

It reads the topic `judge-scores`, to which the judge writes one JSON object for each thing it has judged, with the
actor as key: windows are kept for each key.

    {"event_id": "score-1", "ts": 1790000000000000, "actor": "support_agent", "tool": "refund", "trace": "t-1",
     "score": 0.2}

`ts` is in microseconds, `score` goes from 0 (bad) to 1. A window of five minutes with at least five scores whose mean
is low makes a signal of level TRIP about that actor on `fuseboard.signals`, when a later score has closed it. What
follows is for the rules to say; see docs/guests.md.
"""

import json
import logging
import os
from datetime import timedelta
from typing import Any

from confluent_kafka import Producer
from quixstreams import Application
from quixstreams.dataframe.windows import Count, Mean
from quixstreams.models import Deserializer, SerializationContext
from quixstreams.models.serializers.exceptions import IgnoreMessage
from quixstreams.sinks import BatchingSink, SinkBatch

from fuseboard.guest import Signal, SignalError, SignalWriter, signal_record

BOOTSTRAP = os.environ.get("FUSEBOARD_BOOTSTRAP", "localhost:9092")
PREFIX = os.environ.get("FUSEBOARD_PREFIX", "fuseboard.")
TENANT = os.environ.get("FUSEBOARD_TENANT", "default")

LOW = 0.4
"""A mean score below it is low."""
SCORES = 5
"""A window with fewer scores says nothing: a mean of two is as good as chance."""
WINDOW = timedelta(minutes=5)

log = logging.getLogger("quix_judge")


class Scores(Deserializer):
    """A score from its JSON; what is none is logged and left out, as one bad record must not stop the rest."""

    def __call__(self, value: bytes, ctx: SerializationContext) -> dict[str, Any]:
        """The score as a dict."""
        try:
            given = json.loads(value)
            score = {"ts": int(given["ts"]), "score": float(given["score"])}
            if not 0.0 <= score["score"] <= 1.0:
                raise ValueError("a score goes from 0 to 1")
        except (ValueError, KeyError, TypeError) as error:
            log.warning("no score, left out: %.200r: %s", value, error)
            raise IgnoreMessage from error
        return score


class Signals(BatchingSink):
    """Publishes a signal for each window that reaches it.

    Quix flushes its sinks before it commits offsets. Every signal is confirmed by then, or the commit fails and the
    scores are read again, and what is published then is the same signal, under the same id, which comes from its
    content.
    """

    def setup(self) -> None:
        """Connect, and see that the topic is there."""
        producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True})
        self._signals = SignalWriter(producer, prefix=PREFIX)

    def write(self, batch: SinkBatch) -> None:
        """Send the signals of a batch of windows."""
        for window in batch:
            try:
                self._signals.send(finding(window.key, window.value))
            except SignalError as error:
                log.warning("no signal about %r: %s", window.key, error)
        self._signals.flush()


def finding(actor: str, window: dict[str, Any]) -> Signal:
    """What a window says about an actor; the time is the window's end, never the time now."""
    return signal_record(
        scope="ACTOR",
        tenant=TENANT,
        actor=actor,
        level="TRIP",
        metric="signals.mean_score",
        value=window["mean"],
        reason=f"the mean of {window['count']} scores is {window['mean']:.2f}; below {LOW} is low",
        source="quix_judge",
        ts=window["end"] * 1_000,
    )


def main() -> None:
    """Run until asked to stop."""
    app = Application(
        broker_address=BOOTSTRAP,
        consumer_group=os.environ.get("JUDGE_APP", "quix-judge"),
        auto_offset_reset="earliest",
        commit_interval=1.0,
    )
    scores = app.topic(
        os.environ.get("JUDGE_TOPIC", "judge-scores"),
        key_deserializer="str",
        value_deserializer=Scores(),
        # Windows are of the time at which the work was judged, whenever that arrives here.
        timestamp_extractor=lambda score, *_: score["ts"] // 1_000,
    )
    windows = (
        app.dataframe(scores)
        .tumbling_window(WINDOW)
        .agg(mean=Mean("score"), count=Count())
        # Any actor's later score closes the windows of all actors of its partition: one that fell silent is judged too.
        .final(closing_strategy="partition")
    )
    low = windows[(windows["count"] >= SCORES) & (windows["mean"] < LOW)]
    low.sink(Signals())
    app.run()


if __name__ == "__main__":
    main()
