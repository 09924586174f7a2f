"""The worker: wires the parts together and turns the loop until it is told to stop."""

from __future__ import annotations

import gc
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from fuseboard_schemas.errors import UnreachableError
from fuseboard_schemas.registry import PackagedResolver, Registry, RegistryResolver
from fuseboard_schemas.topics import TOPICS, TopicNames
from fuseboard_streams.core.settings import HashSeeds
from fuseboard_streams.core.shard import Shard
from fuseboard_streams.worker.assignment import Assignment
from fuseboard_streams.worker.clients import Clients
from fuseboard_streams.worker.clock import Clock
from fuseboard_streams.worker.decoding import INPUTS, Batch, Decoding
from fuseboard_streams.worker.errors import TransactionAborted, WorkerError
from fuseboard_streams.worker.http import Answer, StatusServer
from fuseboard_streams.worker.logs import make_logger
from fuseboard_streams.worker.metrics import ShardFacts, WorkerMetrics
from fuseboard_streams.worker.outgoing import Outbox
from fuseboard_streams.worker.preflight import check_topics
from fuseboard_streams.worker.processing import Processor
from fuseboard_streams.worker.restore import Restorer
from fuseboard_streams.worker.rules_source import RulesSource, noted
from fuseboard_streams.worker.shutdown import Shutdown
from fuseboard_streams.worker.source import RawBatch, Source
from fuseboard_streams.worker.synchrony import Synchrony
from fuseboard_streams.worker.transaction import FaultPoint, Transactions, no_fault
from fuseboard_streams.worker.trimming import Trimming

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from structlog.typing import FilteringBoundLogger

    from fuseboard_schemas.registry import Resolver
    from fuseboard_streams.worker.settings import WorkerSettings

OUTPUTS: Final = tuple(topic.name for topic in TOPICS if topic.is_output)
_MOST_ABORTS: Final = 30
"""Aborts in a row after which the worker stops: something is wrong that starting over does not mend."""
_GARBAGE: Final = 500_000
"""Objects made and kept between two searches for reference cycles."""
_STALL_S: Final = 1.0
_RULES_S: Final = 5.0
"""How long the rules may take that a shard runs already."""
_ALONE_S: Final = 20.0
"""Without an assignment for so long, the worker asks whether its consumer can still find the broker."""
_DISTRUST_S: Final = 5.0
"""After a turn that took so long, where the inputs end is found out anew."""
_DOUBT_AGAIN_S: Final = 15.0
"""While errors go on, so often at most: an idle shard needs some seconds at its end before the clock counts."""
_STUCK_S: Final = 120.0
"""A loop that has not turned for so long, and is not waiting for the broker, should be restarted."""


def run_worker(
    settings: WorkerSettings,
    *,
    fault: FaultPoint = no_fault,
    shutdown: Shutdown | None = None,
    log: FilteringBoundLogger | None = None,
    clock: Clock | None = None,
    resolver: Resolver | None = None,
) -> int:
    """Run a worker until SIGTERM, SIGINT or, with ``until_end``, the end of its inputs.

    Args:
        settings: See `WorkerSettings`.
        fault: Called after each step of a transaction, for tests.
        shutdown: Stops it from another thread.
        log: Where to log; standard error by default.
        clock: The clocks.
        resolver: Finds schemas; by default as the settings say.

    Returns:
        The exit code 0.

    Raises:
        FuseboardError: The worker could not start or go on; ``exit_code`` says how to exit.
    """
    shutdown = shutdown or Shutdown()
    log = log or make_logger(settings.log_format, settings.log_level)
    with shutdown:
        worker = Worker(settings, fault, shutdown, log, clock or Clock(), resolver or _resolver(settings))
        try:
            worker.run()
        finally:
            worker.close()
    return 0


class Worker:
    """One worker process, without its signals."""

    def __init__(
        self,
        settings: WorkerSettings,
        fault: FaultPoint,
        shutdown: Shutdown,
        log: FilteringBoundLogger,
        clock: Clock,
        resolver: Resolver,
    ) -> None:
        self._settings = settings
        self._clients = Clients(settings)
        self._shutdown = shutdown
        self._log = log
        self._clock = clock
        self._version = _version()
        self._turned = clock.monotonic()
        self._aborts = 0
        self._lagging = False
        self._stalled: str | None = None
        self._retry_at = 0.0
        self._errors_seen, self._doubt_at = 0, 0.0
        self._ask_at = clock.monotonic() + _ALONE_S
        self._next: Future[Batch] | None = None
        self._decoders = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self.metrics = WorkerMetrics(self._version, settings.worker_id, settings.group)
        self._status: StatusServer | None = None
        self._rules = RulesSource(
            self._clients,
            TopicNames(settings.prefix).rules,
            settings.rules,
            settings.core.failure,
            resolver,
            log,
            self.metrics.rules_refused.inc,
        )
        self._assignment: Assignment | None = None
        self._start(fault, resolver)

    def _start(self, fault: FaultPoint, resolver: Resolver) -> None:
        settings, clients = self._settings, self._clients
        names = TopicNames(settings.prefix)
        partitions = check_topics(
            clients,
            names,
            tuple(dict.fromkeys(INPUTS + OUTPUTS)),
            settings.connect_timeout_s,
            self._warn_of_topic_setting,
        )
        self._rules.start(settings.connect_timeout_s)
        seeds = HashSeeds(secrets.randbits(64), secrets.randbits(64))
        # The first shard of a process computes tables that all share; that second must not fall into a takeover.
        Shard(0, partitions, settings.core, seeds, self._rules.wanted.rules)
        inputs = {names.prefix + each: each for each in INPUTS}
        self._decoding = Decoding(resolver, seeds)
        self._transactions = Transactions(clients, fault, self._shutdown.out_of_patience, self._tell_waiting)
        self._source = Source(clients.consumer(), clients, inputs)
        self._synchrony = Synchrony(self._source, settings.sync_s)
        self._restorer = Restorer(
            clients,
            names,
            INPUTS,
            settings.group,
            partitions,
            lambda number: Shard(number, partitions, settings.core, seeds, self._rules.wanted.rules),
            noted(self._log, settings.core.failure),
            self._log,
        )
        self._assignment = Assignment(
            self._source,
            self._restorer,
            inputs,
            partitions,
            lambda: self._shutdown.requested,
            self._clock,
            self.metrics,
            self._log,
        )
        self._processor = Processor(
            settings,
            names,
            clients.transactional_id,
            self._version,
            self._assignment,
            self._transactions,
            Outbox(names, partitions),
            self.metrics,
            self._clock,
            self._log,
        )
        self._trimming = Trimming(clients.admin, names.state, settings.trim_interval_s, self._log)
        if settings.http:
            self._status = StatusServer(
                settings.http_host, settings.http_port, self.health, self.readiness, self.metrics.text
            )
            self._status.start()
        self._tell_started(partitions)

    def _tell_started(self, partitions: int) -> None:
        settings = self._settings
        self._log.info(
            "worker_started",
            worker_id=settings.worker_id,
            group=settings.group,
            bootstrap=settings.bootstrap,
            prefix=settings.prefix,
            partitions=partitions,
            transactional_id=self._clients.transactional_id,
            version=self._version,
            http=self._status.address if self._status else None,
            pid=os.getpid(),
        )

    def _tell_waiting(self, doing: str, seconds: float) -> None:
        self._log.warning("waiting_for_broker", doing=doing, seconds=round(seconds, 1))

    def _warn_of_topic_setting(self, topic: str, detail: str) -> None:
        self._log.warning(
            "topic_setting_differs", topic=topic, detail=detail, hint="`fuseboard topics plan` says how to mend it"
        )

    def run(self) -> None:
        """Turn the loop until there is a reason to stop.

        Raises:
            FuseboardError: See `run_worker`.
        """
        self._transactions.start()
        assignment = self._owner
        assignment.subscribe()
        with _rare_collections():
            while not self._shutdown.requested:
                before, self._turned = self._turned, self._clock.monotonic()
                self._doubt_ends(assignment, slow=self._turned - before > _DISTRUST_S)
                self._turn(assignment)
                if self._settings.until_end and self._finished(assignment):
                    self._log.info("end_reached", shards=sorted(assignment.owned))
                    return

    def close(self) -> None:
        """Leave the group and free everything."""
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._rules.close()
        if self._assignment is not None:
            self._assignment.close()
            self._transactions.close()
        if self._status is not None:
            self._status.stop()
        totals = {name: value for name, value in self.metrics.core_totals().items() if value}
        self._log.info("worker_stopped", worker_id=self._settings.worker_id, stages=self._stage_seconds(), **totals)

    # --- the loop

    def _turn(self, assignment: Assignment) -> None:
        assignment.collect()
        self._expect_company(assignment)
        self._observe_restore()
        try:
            if assignment.restored:
                self._processor.claim()
            self._catch_up_with_rules(assignment)
            raw = self._poll()
            self._rules.look(self._turned)
            batch = self._decoded(raw)
            # A batch that is being decoded brings the rules that it was decoded for.
            self._processor.process(batch, self._rules.wanted if self._next is None else None)
            self._aborts = 0
        except TransactionAborted as aborted:
            self._start_over(assignment, aborted)
        self._synchrony.run(assignment.owned.values())
        self._trimming.run(assignment.owned.values(), self._turned)
        self._describe(assignment)

    def _catch_up_with_rules(self, assignment: Assignment) -> None:
        """Before anything is folded read the rules that a shard's last owner ran: older ones would release holds."""
        known = (each.shard.rules_offset for each in assignment.owned.values())
        if self._rules.catch_up(max((each for each in known if each is not None), default=-1), _RULES_S):
            # What is being decoded is for the rules before.
            self._next = None
            assignment.reposition()

    def _doubt_ends(self, assignment: Assignment, *, slow: bool) -> None:
        """Find out anew where the inputs end, after a turn that took long or an error of the consumer.

        An input that was at its end may have gone on unseen, and stream time must not pass what waits there.
        """
        errors = self._clients.consumer_errors
        lost = errors != self._errors_seen and self._turned >= self._doubt_at
        if not slow and not lost:
            return
        self._errors_seen, self._doubt_at = errors, self._turned + _DOUBT_AGAIN_S
        if any(each.at_end() for each in assignment.owned.values()):
            self._log.info("inputs_read_again", slow_turn=slow)
            assignment.reposition()

    def _expect_company(self, assignment: Assignment) -> None:
        """Stop a worker whose consumer alone cannot find the broker: it would wait for an assignment for ever."""
        if assignment.received:
            self._ask_at = self._turned + _ALONE_S
        elif self._turned >= self._ask_at:
            self._ask_at = self._turned + _ALONE_S
            if self._clients.stranded(self._source.consumer):
                raise WorkerError(
                    f"This worker's consumer has had no assignment for {_ALONE_S:.0f} s and finds no broker, although "
                    "other clients reach it; that happens when the only broker of a cluster restarts. Start the worker "
                    "again, or let its supervisor do so; nothing is lost or counted twice."
                )

    def _poll(self) -> RawBatch:
        started = time.perf_counter()
        limit = self._settings.catch_up_records if self._lagging else self._settings.batch_records
        eager = self._lagging or self._next is not None
        raw = self._source.poll(limit, 0.0 if eager and not self._stalled else self._settings.idle_wait_ms / 1000)
        if raw.records:
            self._lagging = raw.full or (self._lagging and raw.records * 4 > limit)
        elif self._next is None:
            self._lagging = False
        self.metrics.stages.labels("consume").inc(time.perf_counter() - started)
        return raw

    def _decoded(self, raw: RawBatch) -> Batch | None:
        """The next batch to process: while lagging the one before, so that this one is decoded meanwhile."""
        ahead, self._next = self._next, None
        try:
            if raw and (ahead is not None or (self._lagging and self._settings.lookahead)):
                self._next = self._decoders.submit(self._decoding.decode, raw, self._rules.wanted)
            started = time.perf_counter()
            batch = ahead.result() if ahead is not None else None
            self.metrics.stages.labels("wait").inc(time.perf_counter() - started)
            if ahead is None and self._next is None and raw:
                batch = self._decoding.decode(raw, self._rules.wanted)
        except UnreachableError as error:
            self._stall(error)
            return None
        self._resume()
        if batch is None:
            return None
        self.metrics.stages.labels("decode").inc(batch.seconds)
        return batch if batch.generation == self._source.generation else None

    def _start_over(self, assignment: Assignment, aborted: TransactionAborted) -> None:
        """Nothing of the transaction counts: read its inputs again."""
        self._aborts += 1
        self._next = None
        self._log.warning("transaction_aborted", reason=aborted.reason, in_a_row=self._aborts)
        if self._aborts > _MOST_ABORTS:
            raise WorkerError(
                f"{self._aborts} transactions in a row were aborted; the last one because of {aborted.reason}. Look "
                "for the reason in the broker's log; nothing was lost or counted twice, and the worker goes on from "
                "there when it is started again."
            )
        # A transaction that fails at once must not spin. And it may have failed because the shards are somebody else's
        # by now, which only a poll finds out: a claim that is repeated comes before the next one.
        assignment.pause()
        self._source.poll(1, min(0.01 * self._aborts, 0.5))
        assignment.reposition()

    # --- a registry that does not answer

    def _stall(self, error: UnreachableError) -> None:
        """Wait with the inputs: a registry that is away must not turn good records into dead letters."""
        if self._stalled is None:
            self._log.warning("schema_registry_unreachable", error=str(error))
        self._stalled = str(error)
        self._retry_at = self._clock.monotonic() + _STALL_S
        self._next = None
        self._owner.pause()

    def _resume(self) -> None:
        if self._stalled is not None and self._clock.monotonic() >= self._retry_at:
            self._stalled = None
            self._owner.reposition()

    # --- what is told outside

    @property
    def _owner(self) -> Assignment:
        assert self._assignment is not None
        return self._assignment

    def _finished(self, assignment: Assignment) -> bool:
        return (
            assignment.settled()
            and self._next is None
            and self._stalled is None
            and all(each.reached(assignment.stop_at[each.number]) for each in assignment.owned.values())
        )

    def _observe_restore(self) -> None:
        metrics, restorer = self.metrics, self._restorer
        for counter, value in (
            (metrics.restored_bytes, restorer.bytes_restored),
            (metrics.restore_seconds, restorer.seconds),
            (metrics.fenced, restorer.fencing.count),
        ):
            known = counter._value.get()
            if value > known:
                counter.inc(value - known)

    def _describe(self, assignment: Assignment) -> None:
        facts = {number: ShardFacts("restoring") for number in assignment.pending | set(assignment.restored)}
        facts.update({number: ShardFacts("waiting") for number in assignment.incomplete})
        for number in assignment.owned:
            known = self.metrics.shards.get(number)
            facts[number] = known if known is not None and known.state == "ready" else ShardFacts("ready")
            if self._stalled:
                facts[number] = ShardFacts("stalled")
        self.metrics.shards = facts

    def _stage_seconds(self) -> dict[str, float]:
        samples = next(iter(self.metrics.stages.collect())).samples
        return {each.labels["stage"]: round(each.value, 3) for each in samples if each.name.endswith("_total")}

    def health(self) -> Answer:
        """Whether the process works: the loop turns, or waits for a broker."""
        since = self._clock.monotonic() - self._turned
        waiting = self._transactions.waiting_since is not None
        return since < _STUCK_S or waiting, {"loop_turned_s_ago": round(since, 3), "waiting_for_broker": waiting}

    def readiness(self) -> Answer:
        """Whether every assigned shard is being processed."""
        assignment = self._owner
        shards = {number: facts.state for number, facts in sorted(self.metrics.shards.items())}
        waiting = self._transactions.waiting_since is not None
        ready = assignment.settled() and not waiting and all(state == "ready" for state in shards.values())
        said: dict[str, Any] = {
            "ready": ready,
            "assigned": assignment.received,
            "shards": shards,
            "waiting_for_broker": waiting,
            "registry": self._stalled,
        }
        return ready, said


def _resolver(settings: WorkerSettings) -> Resolver:
    return RegistryResolver(Registry(settings.registry)) if settings.registry.get("url") else PackagedResolver()


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for reference cycles seldom: a batch makes a hundred thousand messages, and none of them is in one."""
    usual = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def _version() -> str:
    try:
        return version("fuseboard")
    except PackageNotFoundError:
        return "unknown"
