"""One transaction: offsets first, then everything else, then a commit that is repeated until its outcome is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeAlias, TypeVar

from confluent_kafka import KafkaException

from fuseboard_streams.worker.clients import REQUEST_S, error_of, is_fatal, is_hopeless
from fuseboard_streams.worker.errors import TransactionAborted, WorkerError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer, TopicPartition

    from fuseboard_streams.worker.clients import Clients

FaultPoint: TypeAlias = Callable[[str], None]
"""Called with the name of each step of a transaction; tests let it raise, abort or kill."""
STEPS: Final = ("begin", "offsets", "outputs", "state", "before_commit", "after_commit")
Headers: TypeAlias = list[tuple[str, str | bytes | None]]
T = TypeVar("T")

_WAIT_S: Final = 0.05


class Outgoing(NamedTuple):
    """A record to produce."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class StateWrite:
    """An entry of the state log to produce, and where it came to lie."""

    records: list[Outgoing]
    first_offset: int = -1
    last_offset: int = -1
    failed: bool = False

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Delivery report of one of its records; they arrive in order."""
        offset = message.offset()
        if error is not None or offset is None or offset < 0:
            self.failed = True
            return
        if self.first_offset < 0:
            self.first_offset = offset
        self.last_offset = offset


@dataclass(slots=True)
class Contents:
    """What a transaction does."""

    offsets: list[TopicPartition]
    group_metadata: object
    outputs: list[Outgoing]
    state: list[StateWrite]
    claim: bool = False
    """Whether it only announces a new owner: then the state records go out before the offsets."""


def no_fault(step: str) -> None:
    """The fault point of a worker outside tests."""


TELL_S = 5.0
"""So often it is told that the broker is waited for."""
STRANDED_S = 15.0
"""A producer without an answer for so long stops the worker, if it finds no broker and a new client does ..."""
UNANSWERED_S = 60.0
"""... and for so long, if any new client does."""


class Transactions:
    """The transactional producer, one transaction at a time.

    Args:
        clients: Makes the producer.
        fault: Called after each step.
        give_up: Asked while an outcome is awaited; true ends the waiting with an error.
        tell: Told now and then what is being waited for, and for how many seconds so far.
    """

    def __init__(
        self,
        clients: Clients,
        fault: FaultPoint = no_fault,
        give_up: Callable[[], bool] = bool,
        tell: Callable[[str, float], None] = lambda doing, seconds: None,
    ) -> None:
        self._clients = clients
        self._producer: Producer = clients.producer()
        self._fault = fault
        self._give_up = give_up
        self._tell = tell
        self._tell_at = 0.0
        self._ask_at = 0.0
        self.waiting_since: float | None = None
        """Monotonic time since which the broker has not answered; None when it does."""

    def start(self) -> None:
        """Register the transactional id.

        Raises:
            FuseboardError: The broker refuses.
        """
        self._repeat(lambda: self._producer.init_transactions(REQUEST_S), "while registering the transactional id")

    def run(self, contents: Contents) -> None:
        """Do all of it or nothing.

        The offsets go first, with the group metadata of the assignment: a worker that has lost its shards is refused
        there, before it has written anything. A claim's records go before them, so that from the first moment in which
        the transaction can be in anybody's way its writer's name is in the log; until it is committed nobody reads
        more than the name.

        Raises:
            TransactionAborted: Nothing of it will ever be visible.
            FuseboardError: The worker must stop; its successor settles the transaction.
        """
        try:
            self._call(self._producer.begin_transaction, "while beginning a transaction")
            self._fault("begin")
            if contents.claim:
                self._write_state(contents.state)
                self._flush()
                self._fault("state")
            self._send_offsets(contents)
            self._fault("offsets")
            for outgoing in contents.outputs:
                self._produce(outgoing, None)
            self._fault("outputs")
            if not contents.claim:
                self._write_state(contents.state)
                self._fault("state")
            self._fault("before_commit")
            self._repeat(lambda: self._producer.commit_transaction(REQUEST_S), "while committing")
        except TransactionAborted:
            self._abort()
            raise
        self._call(lambda: self._producer.poll(0), "after a commit")
        self._check_reports(contents.state)
        self._fault("after_commit")

    def close(self) -> None:
        """Serve what is left; there is no open transaction."""
        # A producer with a fatal error reports it at every call, over the error that is ending the worker.
        with suppress(KafkaException):
            self._producer.poll(0)

    def _write_state(self, writes: Sequence[StateWrite]) -> None:
        for write in writes:
            for outgoing in write.records:
                self._produce(outgoing, write.delivered)

    def _flush(self) -> None:
        started = time.monotonic()
        doing = "while writing to the state log"
        while self._call(lambda: self._producer.flush(_WAIT_S), doing) > 0:
            self._still_waiting(started, doing)
        self.waiting_since = None

    def _send_offsets(self, contents: Contents) -> None:
        self._repeat(
            lambda: self._producer.send_offsets_to_transaction(contents.offsets, contents.group_metadata, REQUEST_S),
            "while adding the offsets to a transaction",
        )

    def _produce(self, outgoing: Outgoing, report: Callable[[KafkaError | None, Message], None] | None) -> None:
        topic, partition, key, value, headers = outgoing
        started = time.monotonic()
        while True:
            try:
                if report is None:
                    self._producer.produce(topic, value, key, partition, headers=headers)
                else:
                    self._producer.produce(topic, value, key, partition, on_delivery=report, headers=headers)
            except BufferError:
                self._call(lambda: self._producer.poll(_WAIT_S), f"while producing to {topic}")
                self._still_waiting(started, f"while producing to {topic}")
            except KafkaException as exception:
                self._raise_definite(exception, f"while producing to {topic}")
            else:
                return

    def _abort(self) -> None:
        self._repeat(lambda: self._producer.abort_transaction(REQUEST_S), "while aborting a transaction")

    def _call(self, call: Callable[[], T], doing: str) -> T:
        """Make a call that is not to be repeated: even ``poll`` raises once the producer has a fatal error."""
        try:
            return call()
        except KafkaException as exception:
            self._raise_definite(exception, doing)

    def _repeat(self, call: Callable[[], T], doing: str) -> T:
        """Repeat a call until it has a definite answer: a timeout says nothing about what the broker did."""
        started = time.monotonic()
        while True:
            try:
                result = call()
            except KafkaException as exception:
                error = error_of(exception)
                if not error.retriable() or error.txn_requires_abort() or is_fatal(error) or is_hopeless(error):
                    self._raise_definite(exception, doing)
                self._still_waiting(started, doing)
                # A call that fails at once must not spin.
                self._call(lambda: self._producer.poll(_WAIT_S), doing)
            else:
                self.waiting_since = None
                return result

    def _still_waiting(self, started: float, doing: str) -> None:
        self.waiting_since = started
        now = time.monotonic()
        if now - started > TELL_S and now >= self._tell_at:
            self._tell_at = now + TELL_S
            self._tell(doing, now - started)
        self._raise_stranded(started, doing)
        if self._give_up():
            raise WorkerError(
                f"Stopped {doing}: the broker had not answered for {time.monotonic() - started:.0f} s. Whether the "
                "transaction took effect is not known here; the next worker settles it before it goes on, and nothing "
                "is lost or counted twice."
            )

    def _raise_stranded(self, started: float, doing: str) -> None:
        """A producer that alone finds no broker never will: only a new process helps, and only that is certain."""
        now = time.monotonic()
        if now - started < STRANDED_S or now < self._ask_at:
            return
        self._ask_at = now + STRANDED_S
        alone = self._clients.stranded(self._producer)
        if alone or (now - started > UNANSWERED_S and self._clients.reachable()):
            raise WorkerError(
                f"Stopped {doing}: this worker's producer has had no answer for {now - started:.0f} s, although other "
                "clients reach the broker; that happens when the only broker of a cluster restarts. Start the worker "
                "again, or let its supervisor do so: whether the transaction took effect is not known here; the next "
                "worker settles it before it goes on, and nothing is lost or counted twice."
            )

    def _raise_definite(self, exception: KafkaException, doing: str) -> NoReturn:
        error = error_of(exception)
        if error.txn_requires_abort():
            raise TransactionAborted(f"{error.name()} {doing}: {error.str()}") from exception
        if is_fatal(error):
            raise WorkerError(
                f"The broker has shut out this worker {doing}: {error.name()}: {error.str()}. Another worker has taken "
                "over its shards, which is what happens when a worker was stopped or cut off for longer than the "
                "session timeout. Nothing was lost or counted twice; start the worker again."
            ) from exception
        raise self._clients.explain(exception, doing) from exception

    def _check_reports(self, writes: Sequence[StateWrite]) -> None:
        for write in writes:
            if write.failed or write.last_offset < 0:
                raise WorkerError(
                    "A committed transaction has no delivery report for an entry of the state log. This cannot happen "
                    "with a broker that keeps Kafka's protocol; start the worker again, it restores from the log."
                )
