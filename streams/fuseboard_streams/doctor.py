"""``fuseboard doctor``: what could keep the loop from working, checked one by one, each with what to do about it.

Nothing is written, and nothing is created. The judgements are pure functions of what was observed; ``examine`` does
the observing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from fuseboard_schemas import catalogue
from fuseboard_schemas.errors import FuseboardError, UnreachableError
from fuseboard_schemas.topics import TOPICS, TopicNames
from fuseboard_streams import admin as topics_admin
from fuseboard_streams.admin import Admin, ChangeKind, TopicState, common_partitions, differences, migration_advice
from fuseboard_streams.heartbeat_reader import Beat, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DEFAULT_GROUP: Final = "fuseboard"
FRESH_S: Final = 10.0
"""A shard whose owner has sent no heartbeat for longer than this has no owner."""
MAX_LAG_S: Final = 30.0
MAX_SKEW_S: Final = 2.0
"""Events more than 5 s ahead of their arrival are clamped: well before that a clock deserves attention."""
_REQUEST_S: Final = 30.0
_OF_WORKERS: Final = ("clock", "heartbeats", "lag")
_ALL: Final = ("broker", "topics", "partitions", "topic settings", "schemas", *_OF_WORKERS)
"""Every check, in its order."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    ok: bool | None
    """None: it could not be checked, which is neither a success nor a failure."""
    detail: str
    """What was found, or why nothing could be, as a sentence."""
    todo: str = ""
    """What to do about it; empty if nothing."""
    exit_code: int = 1
    """What a command that fails because of this check exits with: 1 wrong, 2 misconfigured, 3 unreachable."""

    @property
    def status(self) -> str:
        """``ok``, ``failed`` or ``unchecked``."""
        return "unchecked" if self.ok is None else "ok" if self.ok else "failed"


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a consumer group is behind, in records."""

    group: str
    committed: int
    """Partitions of input topics for which it has committed an offset."""
    records: int
    """Committed offsets to stable ends, over those partitions."""


def exit_code(checks: Sequence[Check]) -> int:
    """0 if none failed, else the highest exit code among those that did."""
    return max((check.exit_code for check in checks if check.ok is False), default=0)


def unchecked(names: Sequence[str], why: str) -> list[Check]:
    """Checks that could not be made, all for one reason."""
    return [Check(name, None, f"Not checked: {why}.") for name in names]


def examine(
    settings: Mapping[str, Any],
    prefix: str,
    *,
    group: str = DEFAULT_GROUP,
    registry: Mapping[str, str] | None = None,
    listen_s: float = 3.0,
    clock: Callable[[], float] = time.time,
) -> list[Check]:
    """Run all checks, in the order in which one depends on another; those that cannot be made say why.

    Args:
        settings: librdkafka settings, ``bootstrap.servers`` among them.
        prefix: what all topic names start with.
        group: the workers' consumer group, where no heartbeat names it.
        registry: the schema registry client's settings (``url``, ...); empty or None without a registry.
        listen_s: how long to wait for live heartbeats, in seconds.
        clock: this machine's time, in seconds since 1970-01-01 UTC.

    Raises:
        ConfigurationError: the prefix cannot be used.
    """
    names = TopicNames(prefix)
    try:
        admin = Admin(settings)
        found = topics_admin.observe(admin, names)
        broker = check_broker(admin)
    except FuseboardError as error:
        away = Check("broker", False, str(error), "Mend the connection and run it again.", error.exit_code)
        return [away, *unchecked(_ALL[1:], "the broker does not answer as it should")]
    checks = [broker, *check_topics(names, found)]
    checks.append(_examine_schemas(names, registry or {}))
    return checks + _examine_workers(admin, settings, names, found, group, listen_s, clock)


def _examine_workers(
    admin: Admin,
    settings: Mapping[str, Any],
    names: TopicNames,
    found: Mapping[str, TopicState],
    group: str,
    listen_s: float,
    clock: Callable[[], float],
) -> list[Check]:
    """What the heartbeats say: clocks, owners and lag."""
    if names.heartbeats not in found:
        return unchecked(_OF_WORKERS, f"there is no topic {names.heartbeats}")
    try:
        beats = listen(settings, names.heartbeats, found[names.heartbeats].partitions, listen_s, clock)
    except FuseboardError as error:
        failed = Check("heartbeats", False, str(error), "Mend what it names and run it again.", error.exit_code)
        clocks, lag = unchecked(("clock", "lag"), "the heartbeats cannot be read")
        return [clocks, failed, lag]
    now = clock()
    checks = [check_clocks(beats, now), check_heartbeats(beats, found[names.heartbeats].partitions, now)]
    groups = sorted({beat.record.group for beat in beats.values() if now - beat.appended_s <= FRESH_S}) or [group]
    inputs = [
        (names.of(topic), found[names.of(topic)].partitions)
        for topic in TOPICS
        if topic.is_input and names.of(topic) in found
    ]
    try:
        lags = [measure_lag(admin, each, inputs) for each in groups]
    except FuseboardError as error:
        return [*checks, Check("lag", False, str(error), "Mend what it names and run it again.", error.exit_code)]
    return [*checks, check_lag(lags, beats, now)]


def check_broker(admin: Admin) -> Check:
    """The broker answers: who it is."""
    metadata = admin.metadata()
    brokers = ", ".join(sorted(f"{each.host}:{each.port}" for each in metadata.brokers.values()))
    return Check(
        "broker", True, f"Cluster {metadata.cluster_id} answers, with {len(metadata.brokers)} broker(s): {brokers}."
    )


def check_topics(names: TopicNames, found: Mapping[str, TopicState]) -> list[Check]:
    """Three checks: every topic is there, all have the same partition count, and their settings are as declared."""
    changes = differences(names, found)
    missing = [change.topic for change in changes if change.kind is ChangeKind.CREATE]
    there = Check("topics", True, f"All {len(TOPICS)} topics under {names.prefix!r} are there.")
    if missing:
        there = Check(
            "topics",
            False,
            f"{len(missing)} of {len(TOPICS)} topics are missing: {', '.join(missing)}.",
            "Run `fuseboard topics apply`, or check --prefix.",
        )
    settings = [change for change in changes if change.kind is ChangeKind.CONFIG]
    config = Check("topic settings", True, f"The settings of {len(found)} topics are as declared.")
    if not found:
        (config,) = unchecked(("topic settings",), "there are no topics")
    elif settings:
        config = Check(
            "topic settings",
            False,
            "; ".join(f"{each.topic}: {each.detail}" for each in settings) + ".",
            "Run `fuseboard topics plan`, then `fuseboard topics apply --alter`.",
        )
    return [there, check_partitions(found), config]


def check_partitions(found: Mapping[str, TopicState]) -> Check:
    """All topics have the same partition count: a shard is partition i of every one of them."""
    count = common_partitions(found)
    odd = {name: state.partitions for name, state in found.items() if state.partitions != count}
    if count is None:
        return unchecked(("partitions",), "there are no topics")[0]
    if not odd:
        which = "Every topic" if len(found) == len(TOPICS) else "Every topic that is there"
        return Check("partitions", True, f"{which} has {count} partitions.")
    listed = ", ".join(f"{name} has {partitions}" for name, partitions in odd.items())
    first, partitions = next(iter(odd.items()))
    return Check(
        "partitions",
        False,
        f"Most topics have {count} partitions, but {listed}.",
        migration_advice(first, partitions, count),
    )


def check_schemas(names: TopicNames, registered: Mapping[str, object | None]) -> Check:
    """The registry's latest schema of every subject is the packaged one.

    Args:
        names: the topics' full names.
        registered: for each subject the latest schema as parsed JSON, or None if there is none.
    """
    subjects = {names.subject(topic): topic.record for topic in TOPICS}
    absent = [subject for subject in subjects if registered.get(subject) is None]
    differing = [
        subject
        for subject, record in subjects.items()
        if (schema := registered.get(subject)) is not None
        and catalogue.fingerprint(schema) != catalogue.fingerprint(catalogue.schema(record))
    ]
    if not absent and not differing:
        return Check("schemas", True, f"The registry has the packaged schema under all {len(subjects)} subjects.")
    detail = "".join(
        f"{what}: {', '.join(which)}. "
        for what, which in (("Not in the registry", absent), ("Another schema in the registry", differing))
        if which
    )
    return Check(
        "schemas",
        False,
        detail.strip(),
        "Run `fuseboard schema check`, then `fuseboard schema register`. "
        "A newer registered schema is fine for reading if it is compatible: then upgrade this package.",
    )


def check_clocks(beats: Mapping[int, Beat], now: float) -> Check:
    """The clocks of this machine and of the workers agree with the broker's.

    Heartbeats carry both: ``LogAppendTime`` is the broker's clock, the record's own time the worker's. One that
    arrives while we listen compares ours with the broker's, to within the time it took to get here.
    """
    live = [beat for beat in beats.values() if beat.live]
    newest = max((beat.appended_s for beat in beats.values()), default=None)
    if newest is not None and newest - now > MAX_SKEW_S:
        return _wrong_clock("This machine", -(newest - now))
    if not live:
        return unchecked(("clock",), "no worker sends heartbeats at the moment, with which clocks are compared")[0]
    ours = min((beat.received_s - beat.appended_s for beat in live), key=abs)
    if abs(ours) > MAX_SKEW_S:
        return _wrong_clock("This machine", ours)
    for beat in live:
        theirs = beat.record.ts / 1e6 - beat.appended_s
        if abs(theirs) > MAX_SKEW_S:
            return _wrong_clock(f"Worker {beat.record.worker_id}", theirs)
    return Check("clock", True, f"This machine and the workers agree with the broker's clock to {abs(ours):.1f} s.")


def check_heartbeats(beats: Mapping[int, Beat], partitions: int, now: float) -> Check:
    """Every shard has an owner that has given a sign of life lately."""
    stale = [
        shard
        for shard in range(partitions)
        if shard not in beats or (not beats[shard].live and now - beats[shard].appended_s > FRESH_S)
    ]
    workers = {beat.record.worker_id for shard, beat in beats.items() if shard not in stale}
    if not stale:
        return Check("heartbeats", True, f"All {partitions} shards are owned, by {len(workers)} worker(s).")
    if len(stale) == partitions:
        seen = max((beat.appended_s for beat in beats.values()), default=None)
        found = "has ever sent a heartbeat" if seen is None else f"has sent a heartbeat for {now - seen:.0f} s"
        return Check(
            "heartbeats",
            False,
            f"No worker {found}: nothing is detected, and agents treat their breakers as stale.",
            "Start one with `fuseboard worker`.",
        )
    return Check(
        "heartbeats",
        False,
        f"{len(stale)} of {partitions} shards have no live owner: {', '.join(map(str, stale))}.",
        "Look at the workers' /readyz and logs: a shard is paused while its "
        "state is restored, or if a member of the group does not read all input topics.",
    )


def check_lag(lags: Sequence[Lag], beats: Mapping[int, Beat], now: float) -> Check:
    """The workers keep up with their inputs."""
    worst = max(
        (beat for beat in beats.values() if beat.live or now - beat.appended_s <= FRESH_S),
        key=lambda beat: beat.record.lag_s,
        default=None,
    )
    records = ", ".join(f"{lag.records:,} records in group {lag.group}" for lag in lags)
    if worst is None:
        if any(lag.committed for lag in lags):
            return Check(
                "lag",
                not any(lag.records for lag in lags),
                f"No worker is running; behind: {records}.",
                "Start a worker with `fuseboard worker`." if any(lag.records for lag in lags) else "",
            )
        return unchecked(("lag",), "no worker runs or has ever processed anything here")[0]
    behind = f"Behind by {worst.record.lag_s:.1f} s at most, in shard {worst.record.shard}; {records}."
    if worst.record.lag_s <= MAX_LAG_S:
        return Check("lag", True, behind)
    return Check(
        "lag",
        False,
        behind,
        "If it shrinks, wait: a worker is catching up. If it grows, start more workers "
        "(up to one per partition) and look at the CPU of those that run.",
    )


def measure_lag(admin: Admin, group: str, inputs: Sequence[tuple[str, int]]) -> Lag:
    """A group's lag over input topics, given with their partition counts.

    Raises:
        FuseboardError: the broker does not say.
    """
    partitions = [TopicPartition(topic, number) for topic, count in inputs for number in range(count)]
    try:
        (answer,) = admin.client.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, partitions)], request_timeout=_REQUEST_S
        ).values()
        committed = [each for each in answer.result(_REQUEST_S).topic_partitions or [] if each.offset >= 0]
        ends = (
            admin.client.list_offsets(
                {TopicPartition(each.topic, each.partition): OffsetSpec.latest() for each in committed},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_REQUEST_S,
            )
            if committed
            else {}
        )
        end_of = {(each.topic, each.partition): int(future.result(_REQUEST_S).offset) for each, future in ends.items()}
    except KafkaException as error:
        raise admin.explain(error, f"while asking for the offsets of group {group}") from error
    behind = sum(max(0, end_of[each.topic, each.partition] - each.offset) for each in committed)
    return Lag(group, len(committed), behind)


def read_registry(settings: Mapping[str, str], subjects: Sequence[str]) -> dict[str, object | None]:
    """The latest schema of each subject, as parsed JSON; None for a subject that is not there.

    Raises:
        ConfigurationError: the registry client is not installed, or the registry refuses.
        UnreachableError: the registry does not answer.
    """
    from fuseboard_schemas.errors import ConfigurationError

    url = settings.get("url", "")
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
    except ImportError as error:
        raise ConfigurationError(
            'A schema registry is configured but its client is not installed. Install it with "pip install '
            "'fuseboard[registry]'\"."
        ) from error
    found: dict[str, object | None] = {}
    try:
        with SchemaRegistryClient({**settings}) as client:
            for subject in subjects:
                found[subject] = _latest(client, subject, SchemaRegistryError)
    except SchemaRegistryError as error:
        raise ConfigurationError(
            f"The schema registry at {url} refuses: {error.error_message} (HTTP {error.http_status_code}). Check its "
            "address and credentials (FUSEBOARD_REGISTRY__URL, FUSEBOARD_REGISTRY__BASIC_AUTH_USER_INFO)."
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"The schema registry's settings cannot be used: {error}.") from error
    except Exception as error:
        # The client lets its HTTP library's errors through, and which library that is differs by version.
        raise UnreachableError(
            f"The schema registry at {url} cannot be reached: {error}. Check that it runs and that "
            "FUSEBOARD_REGISTRY__URL names it."
        ) from error
    return found


def _latest(client: Any, subject: str, not_found: type[Any]) -> object | None:  # noqa: ANN401 - a registry client
    try:
        text = client.get_latest_version(subject).schema.schema_str
    except not_found as error:
        if error.http_status_code == 404:
            return None
        raise
    schema: object = json.loads(text)
    return schema


def _examine_schemas(names: TopicNames, registry: Mapping[str, str]) -> Check:
    if not registry.get("url"):
        what = f"the {len(catalogue.releases())} packaged schemas and their fixed ids are used"
        return unchecked(("schemas",), f"no registry is configured; {what}")[0]
    try:
        return check_schemas(names, read_registry(registry, [names.subject(topic) for topic in TOPICS]))
    except FuseboardError as error:
        return Check("schemas", False, str(error), "Mend the registry's address and run it again.", error.exit_code)


def _wrong_clock(whose: str, ahead_s: float) -> Check:
    way = "ahead of" if ahead_s > 0 else "behind"
    return Check(
        "clock",
        False,
        f"{whose} is {abs(ahead_s):.1f} s {way} the broker's clock.",
        "Synchronise it (chrony or systemd-timesyncd): event times in the future are clamped to arrival, and "
        "windows and freshness are judged by these clocks.",
    )
