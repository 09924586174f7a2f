"""Guests under test: the examples, each run by the Python of an environment that has what it needs and not more."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

import fuseboard
import fuseboard_schemas
from benchmarks._environments import IndexUnreachable, python_with
from benchmarks._processes import Started
from tests.support.brokers import missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "guests"
_PATIENCE = ("--retries", "2", "--timeout", "20")


@dataclass(frozen=True)
class Score:
    """What a judge thinks of one use of a tool; ``ts`` in microseconds."""

    event_id: str
    ts: int
    actor: str
    trace: str
    score: float
    tool: str = "refund"

    def value(self) -> bytes:
        """As it stands in the topic."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Judge:
    """A guest's example, ready to be started.

    Attributes:
        script: its file.
        python: of its environment.
        arguments: behind the script.
    """

    script: str
    python: Path
    arguments: tuple[str, ...] = ()

    def start(self, bootstrap: str, prefix: str, name: str, partitions: int, folder: Path) -> Started:
        """Start it under a name of its own, which makes it read its input from the beginning."""
        packages = [str(Path(package.__file__).parents[1]) for package in (fuseboard, fuseboard_schemas)]
        environment = {
            "PYTHONPATH": ":".join(packages),
            "FUSEBOARD_BOOTSTRAP": bootstrap,
            "FUSEBOARD_PREFIX": prefix,
            "FUSEBOARD_TENANT": "default",
            "JUDGE_APP": prefix + name,
            "JUDGE_TOPIC": judged(prefix),
            "JUDGE_PARTITIONS": str(partitions),
            "Quix__State__Dir": str(folder / name),
        }
        arguments = [each.format(folder=folder / name) for each in self.arguments]
        command = [str(self.python), str(EXAMPLES / self.script), *arguments]
        return Started(f"{self.script} as {name}", command, folder / f"{name}.log", environment)


def judge(framework: str, packages: Sequence[str], script: str, *arguments: str) -> Judge:
    """The example of a framework; where pip reaches no index to make its environment, the test is skipped."""
    try:
        return Judge(script, python_with(framework, packages, patience=_PATIENCE), arguments)
    except IndexUnreachable as reason:
        missing(f"an environment with {packages[0]}", f"pip reaches no package index: {reason.message[-400:]}")


def judged(prefix: str) -> str:
    """The topic of the scores."""
    return f"{prefix}judge-scores"


def write_scores(bootstrap: str, prefix: str, partitions: Sequence[Iterable[Score | bytes]]) -> None:
    """Make the topic of the scores, and write what is to be in each of its partitions; bytes are no score."""
    topic = judged(prefix)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(topic, len(partitions), 1)]).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": bootstrap})
    for number, scores in enumerate(partitions):
        for score in scores:
            value, key = (score, "nobody") if isinstance(score, bytes) else (score.value(), score.actor)
            producer.produce(topic, value, key.encode(), number)
    assert producer.flush(30) == 0
