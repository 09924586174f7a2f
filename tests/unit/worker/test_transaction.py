"""What a worker does when its producer gets no answer."""

from __future__ import annotations

import pytest

from fuseboard_streams.worker import clients as clients_module
from fuseboard_streams.worker import transaction
from fuseboard_streams.worker.clients import Clients
from fuseboard_streams.worker.errors import WorkerError
from fuseboard_streams.worker.settings import WorkerSettings
from fuseboard_streams.worker.transaction import Transactions

NOBODY = "127.0.0.1:9"


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Clients of a broker that is not there, and little patience."""
    monkeypatch.setattr(transaction, "REQUEST_S", 0.1)
    monkeypatch.setattr(transaction, "STRANDED_S", 0.0)
    monkeypatch.setattr(clients_module, "_METADATA_S", 0.1)
    return Clients(WorkerSettings(bootstrap=NOBODY))


def test_a_producer_that_alone_gets_no_answer_stops_the_worker(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "reachable", lambda: True)
    with pytest.raises(WorkerError, match="although other clients reach the broker"):
        Transactions(clients).start()


def test_a_producer_that_finds_the_broker_gets_a_minute(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def enough() -> bool:
        asked.append(True)
        return len(asked) == 3

    monkeypatch.setattr(clients, "reachable", lambda: True)
    monkeypatch.setattr(clients, "stranded", lambda client: False)
    with pytest.raises(WorkerError, match="had not answered"):
        Transactions(clients, give_up=enough).start()
    monkeypatch.setattr(transaction, "UNANSWERED_S", 0.0)
    with pytest.raises(WorkerError, match="although other clients reach the broker"):
        Transactions(clients).start()


def test_a_broker_that_nobody_reaches_is_waited_for(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def enough() -> bool:
        asked.append(True)
        return len(asked) == 3

    monkeypatch.setattr(clients, "reachable", lambda: False)
    waiting = Transactions(clients, give_up=enough)
    with pytest.raises(WorkerError, match="had not answered"):
        waiting.start()
    assert waiting.waiting_since is not None
