"""TLS and SASL reach every Kafka client; a wrong password is said in one paragraph, and never shown."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from fuseboard import Fuseboard
from tests.cli.support import run
from tests.support.brokers import started
from tests.support.kafka_server import ApacheKafka

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.broker, pytest.mark.kafka]

USER, PASSWORD, WRONG = "fuseboard", "correct-horse", "battery-staple"


@pytest.fixture(scope="module")
def guarded() -> Iterator[ApacheKafka]:
    """An Apache Kafka whose second listener wants TLS and a password."""
    with started(ApacheKafka(users={USER: PASSWORD})) as server:
        yield server


def credentials(server: ApacheKafka, password: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": password,
        "ssl.ca.location": str(server.ca),
    }


def options(server: ApacheKafka, password: str) -> list[str]:
    pairs = credentials(server, password).items()
    return [
        "--bootstrap",
        server.secure_bootstrap,
        *(word for key, value in pairs for word in ("-X", f"{key}={value}")),
    ]


def test_the_loop_over_tls_with_a_password(guarded: ApacheKafka) -> None:
    secure = options(guarded, PASSWORD)
    applied = run("topics", "apply", "--partitions", "2", "--replication", "1", *secure)
    assert applied.exit_code == 0, applied.output
    with Fuseboard(actor="agent", bootstrap=guarded.secure_bootstrap, kafka=credentials(guarded, PASSWORD)) as fuse:

        @fuse.tool(name="db.query", effect="READ")
        def query() -> int:
            return 1

        assert [query() for _ in range(5)] == [1] * 5
        assert fuse.flush(30) == 0

    worked = run("worker", "--until-end", "--no-http", *secure)
    assert worked.exit_code == 0, worked.output
    tapped = run("tap", "tool-calls", "--from", "beginning", "--until-end", "--json", *secure)
    assert [json.loads(line)["tool"] for line in tapped.stdout.splitlines()] == ["db.query"] * 5
    read = run("tap", "state", "--from", "beginning", "--until-end", "--json", *secure)
    assert any(json.loads(line)["inputs"] for line in read.stdout.splitlines())


@pytest.mark.parametrize(
    "command",
    [
        ("topics", "plan"),
        ("worker", "--until-end", "--no-http"),
        ("tap", "tool-calls", "--until-end"),
        ("breakers", "list"),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_a_wrong_password_is_named_and_not_shown(guarded: ApacheKafka, command: tuple[str, ...]) -> None:
    result = run(*command, *options(guarded, WRONG))

    assert result.exit_code == 2, result.output
    said = " ".join(result.output.split())
    assert "refused the TLS handshake or the credentials" in said
    assert WRONG not in said
    assert "Traceback" not in said


def test_a_wrong_password_does_not_stop_an_agent(
    guarded: ApacheKafka, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    fuse = Fuseboard(
        actor="agent",
        bootstrap=guarded.secure_bootstrap,
        kafka=credentials(guarded, WRONG),
        spool_dir=str(tmp_path),
        spool_after_s=0.1,
    )

    @fuse.tool(name="db.query", effect="READ")
    def query() -> int:
        return 1

    assert query() == 1
    fuse.close(2)
    assert fuse.counts.lost == 0
    assert fuse.counts.spooled == 1
    assert "SASL authentication error" in caplog.text
    assert WRONG not in caplog.text


def test_a_client_that_offers_no_tls_is_told_so(guarded: ApacheKafka) -> None:
    result = run("topics", "plan", "--bootstrap", guarded.secure_bootstrap)

    assert result.exit_code == 3
    assert "a broker that wants TLS or SASL looks the same" in " ".join(result.stderr.split())
