"""The commands against running brokers."""

import dataclasses
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.errors import ConfigurationError, FuseboardError, UnreachableError
from fuseboard_schemas.keys import actor_key, partition_for
from fuseboard_schemas.records import BreakerState, Effect
from fuseboard_schemas.topics import TOPICS, TopicNames
from fuseboard_streams.cli import kafka, monitor
from fuseboard_streams.cli.render import top as render_top
from tests.cli import samples
from tests.cli.samples import BREAKER, NOW, SECOND
from tests.cli.support import Board, run

PARTITIONS = 3


@pytest.fixture
def board(broker: str, unique_prefix: str, topics: Callable[..., TopicNames]) -> Board:
    topics(broker, unique_prefix, PARTITIONS)
    return Board(broker, unique_prefix, PARTITIONS)


def lines_of(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


class TestTopics:
    """``topics plan`` and ``apply``."""

    def test_plan_apply_plan(self, broker: str, unique_prefix: str) -> None:
        options = ("--bootstrap", broker, "--prefix", unique_prefix)
        planned = run("topics", "plan", "--partitions", "2", *options)
        assert planned.exit_code == 1
        assert f"{len(TOPICS)} differences" in planned.stdout
        applied = run("topics", "apply", "--partitions", "2", "--replication", "1", *options)
        assert applied.exit_code == 0, applied.output
        assert f"✓ {unique_prefix}tool-calls  created" in applied.stdout
        again = run("topics", "plan", *options)
        assert again.exit_code == 0
        assert "are as declared" in again.stdout

    def test_another_partition_count_is_left_to_a_person(self, board: Board) -> None:
        result = run("topics", "apply", "--partitions", "5", "--json", *board.options)
        assert result.exit_code == 1
        changes = json.loads(result.stdout)["changes"]
        assert {change["kind"] for change in changes} == {"partitions"}
        assert all("migrate" in change["todo"] and not change["done"] for change in changes)


class TestTap:
    """``tap``: every kind of record, filters, places to start."""

    def tap(self, board: Board, *arguments: str) -> list[dict[str, Any]]:
        result = run("tap", *arguments, "--until-end", "--json", *board.options)
        assert result.exit_code == 0, result.output
        return lines_of(result.stdout)

    def test_records_garbage_and_tombstones_are_all_shown(self, board: Board) -> None:
        board.calls(1)
        board.raw("tool-calls", b"\x00garbage")
        board.raw("tool-calls", None, b"gone")
        board.raw("tool-calls", Encoder("EnforcementAck").encode(samples.ack()), b"\xff")
        board.flush()
        good, garbage, gone, other = self.tap(board, "tool-calls", "--from", "beginning")
        assert (good["record"], good["tool"], good["outcome"]) == ("ToolCall", "billing.refund", "ERROR")
        assert good["kafka"]["topic"] == board.prefix + "tool-calls"
        assert (good["kafka"]["partition"], good["kafka"]["offset"], good["kafka"]["key"]) == (0, 0, "default/a")
        assert garbage["undecodable"]["reason"] == "UNKNOWN_SCHEMA"
        assert gone["tombstone"] is True
        assert other["undecodable"]["reason"] == "WRONG_RECORD"
        text = run("tap", "tool-calls", "--from", "beginning", "--until-end", "--headers", *board.options).stdout
        assert "ERROR RateLimitError" in text
        assert "UNKNOWN_SCHEMA" in text
        assert "TOMBSTONE  gone" in text
        assert "key \\xff" in text
        assert "ce_id=x1  none=" in text

    def test_filters(self, board: Board) -> None:
        board.calls(3)
        board.calls(2, actor="other", tool="pay")
        board.raw("tool-calls", b"garbage")
        board.flush()
        assert len(self.tap(board, "tool-calls", "--from", "beginning", "--actor", "other")) == 2
        assert len(self.tap(board, "tool-calls", "--from", "beginning", "--tool", "billing.*")) == 3
        assert len(self.tap(board, "tool-calls", "--from", "beginning", "--where", "seq!=0")) == 3
        assert len(self.tap(board, "tool-calls", "--from", "beginning", "--where", "seq=0", "--tool", "pay")) == 1
        assert self.tap(board, "tool-calls", "--from", "beginning", "--tenant", "nobody") == []
        hidden = run("tap", "tool-calls", "--from", "beginning", "--until-end", "--actor", "x", *board.options)
        assert hidden.stdout == ""
        assert "1 record without a readable value" in hidden.stderr

    def test_where_to_start(self, board: Board) -> None:
        board.calls(5)
        assert [r["seq"] for r in self.tap(board, "tool-calls", "--from", "3")] == [3, 4]
        assert [r["seq"] for r in self.tap(board, "tool-calls", "--from", "-2")] == [3, 4]
        assert [r["seq"] for r in self.tap(board, "tool-calls", "--from", "beginning", "--max", "2")] == [0, 1]
        assert self.tap(board, "tool-calls") == []
        assert len(self.tap(board, "tool-calls", "--from", "2020-01-01T00:00:00Z")) == 5
        assert self.tap(board, "tool-calls", "--from", "2100-01-01T00:00:00Z") == []
        assert self.tap(board, "tool-calls", "--from", "beginning", "--partition", "1") == []
        assert len(self.tap(board, board.prefix + "tool-calls", "--from", "beginning", "--partition", "0")) == 5

    def test_a_partition_that_is_not_there(self, board: Board) -> None:
        result = run("tap", "tool-calls", "--partition", "9", *board.options)
        assert result.exit_code == 2
        assert "partitions 0 to 2" in result.stderr

    def test_a_missing_topic(self, broker: str, unique_prefix: str) -> None:
        result = run("tap", "tool-calls", "--bootstrap", broker, "--prefix", unique_prefix)
        assert result.exit_code == 2
        assert f"{unique_prefix}tool-calls" in result.stderr
        assert "fuseboard topics apply" in " ".join(result.stderr.split())

    def test_records_of_an_open_transaction_are_shown_on_request_only(self, board: Board, broker: str) -> None:
        from confluent_kafka import Producer

        producer = Producer(
            {"bootstrap.servers": broker, "transactional.id": board.prefix, "log_level": 0, "linger.ms": 0}
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        value = Encoder("ToolCall").encode(samples.call())
        producer.produce(board.prefix + "tool-calls", value, b"k", 0)
        producer.flush(30)
        try:
            assert self.tap(board, "tool-calls", "--from", "beginning") == []
            assert len(self.tap(board, "tool-calls", "--from", "beginning", "--uncommitted")) == 1
        finally:
            producer.abort_transaction(30)
        assert self.tap(board, "tool-calls", "--from", "beginning") == []


class TestPublish:
    """``publish``: everything usable arrives, everything else is named."""

    def published(self, board: Board) -> list[dict[str, Any]]:
        result = run("tap", "tool-calls", "--from", "beginning", "--until-end", "--json", *board.options)
        return lines_of(result.stdout)

    def write(self, path: Path, count: int = 3) -> Path:
        rows = [
            {
                "record": "tool-calls",
                "ts": NOW + i * SECOND,
                "actor": f"a{i % 2}",
                "tool": "t",
                "outcome": "OK",
                "cost_usd": 0.1,
            }
            for i in range(count)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def test_a_good_file(self, board: Board, tmp_path: Path) -> None:
        result = run("publish", str(self.write(tmp_path / "x.jsonl")), *board.options)
        assert result.exit_code == 0, result.output
        assert "3 records sent and confirmed" in result.stdout
        assert result.stderr == ""
        found = self.published(board)
        assert len(found) == 3
        assert {r["cost_usd_micros"] for r in found} == {100_000}
        assert {r["kafka"]["key"] for r in found} == {"default/a0", "default/a1"}

    def test_bad_lines_are_named_and_the_rest_is_sent(self, board: Board, tmp_path: Path) -> None:
        path = self.write(tmp_path / "x.jsonl")
        good = path.read_bytes()
        bad = b'{"record": "tool-calls", "ts": 5}\n\xff\xfe\n\n{"a": "\0"}\n[]\n'
        path.write_bytes(good + bad + b'{"x": "' + b"y" * 5_000_000 + b'"}\n' + good)
        result = run("publish", str(path), "--json", *board.options)
        assert result.exit_code == 1
        summary = json.loads(result.stdout)
        assert (summary["sent"], summary["skipped"]) == (6, 5)
        assert [p["line"] for p in summary["problems"]] == [4, 5, 7, 8, 9]
        assert summary["problems"][0]["field"] == "ts"
        assert len(self.published(board)) == 6
        text = run("publish", str(path), *board.options)
        assert f"{path}:4: field `ts`" in text.stderr
        assert "5 lines skipped" in text.stderr

    def test_a_record_that_kafka_does_not_take_is_a_problem_of_its_line(self, board: Board, tmp_path: Path) -> None:
        path = self.write(tmp_path / "x.jsonl", 1)
        huge = {**json.loads(path.read_text()), "intent": "x" * 2_000_000}
        path.write_text(json.dumps(huge) + "\n" + path.read_text(), encoding="utf-8")
        result = run("publish", str(path), "--json", *board.options)
        assert result.exit_code == 1
        summary = json.loads(result.stdout)
        assert (summary["sent"], summary["skipped"], summary["problems"][0]["line"]) == (1, 1, 1)
        assert "max.message.bytes" in summary["problems"][0]["detail"]

    def test_standard_input_and_one_kind_for_all(self, board: Board) -> None:
        row = json.dumps({"ts": NOW, "actor": "a", "tool": "t", "outcome": "OK"})
        result = run("publish", "-", "--record", "tool-calls", *board.options, stdin=(row + "\n").encode())
        assert result.exit_code == 0, result.output
        assert len(self.published(board)) == 1
        nothing = run("publish", "-", *board.options, stdin=b"")
        assert nothing.exit_code == 0
        assert "0 records sent" in nothing.stdout

    def test_two_runs_are_two_clients_unless_ids_are_kept(self, board: Board, tmp_path: Path) -> None:
        path = str(self.write(tmp_path / "x.jsonl"))
        run("publish", path, *board.options)
        run("publish", path, *board.options)
        found = self.published(board)
        assert len({r["client_id"] for r in found}) == 2
        assert sorted(r["seq"] for r in found if r["actor"] == "a0") == [0, 0, 1, 1]
        tapped = run("tap", "tool-calls", "--from", "beginning", "--until-end", "--json", *board.options).stdout
        again = run("publish", "-", "--keep-ids", *board.options, stdin=tapped.encode())
        assert again.exit_code == 0, again.output
        assert len({r["client_id"] for r in self.published(board)}) == 2
        assert len(self.published(board)) == 12

    @pytest.mark.parametrize("source", ["file", "stdin"])
    def test_rebase_makes_the_last_event_now(self, board: Board, tmp_path: Path, source: str) -> None:
        from datetime import datetime

        path = self.write(tmp_path / "x.jsonl")
        before = time.time_ns() // 1_000
        if source == "file":
            run("publish", str(path), "--rebase", "last", *board.options)
        else:
            run("publish", "-", "--rebase", "last", *board.options, stdin=path.read_bytes())
        times = sorted(round(datetime.fromisoformat(r["ts"]).timestamp() * 1e6) for r in self.published(board))
        assert before <= times[-1] <= time.time_ns() // 1_000
        assert [b - a for a, b in itertools.pairwise(times)] == [SECOND, SECOND]

    def test_a_missing_topic_stops_it(self, broker: str, unique_prefix: str, tmp_path: Path) -> None:
        path = str(self.write(tmp_path / "x.jsonl"))
        result = run("publish", path, "--bootstrap", broker, "--prefix", unique_prefix)
        assert result.exit_code == 2
        assert "fuseboard topics apply" in " ".join(result.stderr.split())
        assert run("tap", "tool-calls", "--bootstrap", broker, "--prefix", unique_prefix).exit_code == 2


class TestBreakers:
    """``breakers list`` and ``show``."""

    def test_list(self, board: Board) -> None:
        assert run("breakers", "list", *board.options).stdout == "no breaker has tripped\n"
        forgotten = samples.closed(breaker_id="ACTOR:default/b", actor="b", tenant="default")
        board.breakers(samples.half_open(epoch=1), samples.closed(), forgotten, samples.command())
        home = next(p for p in range(PARTITIONS) if self.has(board, p, forgotten.breaker_id))
        board.raw("breaker-commands", None, forgotten.breaker_id.encode(), home)
        board.flush()
        found = json.loads(run("breakers", "list", "--json", *board.options).stdout)
        assert [(b["breaker_id"], b["state"]) for b in found] == [
            (BREAKER, "OPEN"),
            ("ACTOR:acme/billing_agent", "CLOSED"),
        ]
        opened = json.loads(run("breakers", "list", "--json", "--open", *board.options).stdout)
        assert [b["breaker_id"] for b in opened] == [BREAKER]
        text = run("breakers", "list", "--actor", "support*", *board.options).stdout
        assert "OPEN" in text
        assert "billing_agent" not in text

    def has(self, board: Board, partition: int, key: str) -> bool:
        arguments = ("--from", "beginning", "--until-end", "--json", "--partition", str(partition))
        found = lines_of(run("tap", "breaker-commands", *arguments, *board.options).stdout)
        return any(r["kafka"]["key"] == key for r in found)

    def test_show(self, board: Board) -> None:
        board.breakers(samples.closed(), samples.command())
        board.acks([samples.ack(), samples.ack(breaker_id="ACTOR:default/support_agent_v4", enforcer="other")])
        result = run("breakers", "show", "support_agent_v4", "get_reservation_details", *board.options)
        assert result.exit_code == 0, result.output
        for text in (
            BREAKER,
            "OPEN since",
            "13 failures in 21 calls",
            "agent-7",
            "Beta(0.72, 12.7)",
            "10^6",
            "500 calls",
        ):
            assert text in result.stdout
        assert "other" not in result.stdout
        found = json.loads(run("breakers", "show", BREAKER, "--json", *board.options).stdout)
        assert found["state"] == "OPEN"
        assert [a["enforcer"] for a in found["acks"]] == ["agent-7"]
        assert found["settings"]["prior"] == "Beta(0.72, 12.7)"
        by_actor = run("breakers", "show", "billing_agent", "--tenant", "acme", *board.options)
        assert "CLOSED since" in by_actor.stdout
        assert "no enforcer has acknowledged it" in by_actor.stdout

    def test_a_breaker_nobody_knows(self, board: Board) -> None:
        result = run("breakers", "show", "nobody", *board.options)
        assert result.exit_code == 1
        assert "never tripped" in " ".join(result.stderr.split())


class TestWhatCanBeProbed:
    """A command does not say what its tool does: that is looked up in the call that decided."""

    def put_call(self, board: Board, effect: Effect) -> tuple[str, int]:
        """Put calls on the sample breaker's home, and return id and offset of the last one."""
        home = partition_for(actor_key("default", "support_agent_v4"), board.partitions)
        for number in range(3):
            made = samples.call(event_id=f"e{number}", effect=effect, tool="get_reservation_details")
            board.put("tool-calls", made, "default/support_agent_v4", home)
        board.flush()
        return "e2", 2

    def trip(self, board: Board, event_id: str, offset: int) -> None:
        """Put a trip by that call, and the wave that a timer began after it, which names none."""
        tripped = samples.command(event_id=event_id, source_offset=offset)
        silent = samples.half_open(
            epoch=tripped.epoch + 1, event_id=None, source_offset=None, probes_ok=0, probes_failed=0
        )
        board.breakers(tripped, silent)

    @pytest.mark.parametrize(("effect", "probed"), [(Effect.IRREVERSIBLE, False), (Effect.WRITE, True)])
    def test_the_call_that_decided_says_it(self, board: Board, effect: Effect, probed: bool) -> None:
        self.trip(board, *self.put_call(board, effect))
        listed = json.loads(run("breakers", "list", "--json", *board.options).stdout)
        shown = json.loads(run("breakers", "show", BREAKER, "--json", *board.options).stdout)
        top = json.loads(run("top", "--once", "--json", *board.options).stdout)
        assert [each["can_be_probed"] for each in (*listed, shown, *top["open_breakers"])] == [probed] * 3
        never = "stays shut: IRREVERSIBLE, never probed"
        for arguments in (("breakers", "list"), ("breakers", "show", BREAKER), ("top", "--once")):
            text = run(*arguments, *board.options).stdout
            assert (never in text) is not probed
            assert ("probing, wave 2" in text) is probed

    @pytest.mark.parametrize(("event_id", "offset"), [("another", 2), ("e2", 99)])
    def test_a_call_that_is_not_there_any_more_leaves_it_open(self, board: Board, event_id: str, offset: int) -> None:
        self.put_call(board, Effect.IRREVERSIBLE)
        self.trip(board, event_id, offset)
        assert json.loads(run("breakers", "list", "--json", *board.options).stdout)[0]["can_be_probed"] is None
        assert "unless IRREVERSIBLE" in run("breakers", "list", *board.options).stdout

    @pytest.mark.parametrize("error", [ConfigurationError("no ACL"), UnreachableError("no leader")])
    def test_calls_that_cannot_be_read_leave_it_open(
        self, board: Board, monkeypatch: pytest.MonkeyPatch, error: FuseboardError
    ) -> None:
        self.trip(board, *self.put_call(board, Effect.IRREVERSIBLE))

        def refused(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(kafka.Reader, "record_at", refused)
        assert json.loads(run("breakers", "list", "--json", *board.options).stdout)[0]["can_be_probed"] is None


class TestTop:
    """``top --once`` and ``--json``."""

    def test_a_snapshot(self, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
        # Windows so long that a slow machine cannot leave them.
        monkeypatch.setattr(monitor, "WINDOW_S", 1_000)
        monkeypatch.setattr(render_top, "SILENT_AFTER_US", 1_000 * SECOND)
        board.calls(2_000)
        board.breakers(samples.closed(), samples.half_open(epoch=1), samples.command())
        for shard in range(PARTITIONS - 1):
            board.heartbeat(shard, "worker-old")
            board.heartbeat(shard, "worker-a", lag_s=0.25 + shard)
        found = json.loads(run("top", "--once", "--json", *board.options).stdout)
        assert found["events_per_s"] == pytest.approx(2.0)
        assert found["partitions"] == PARTITIONS
        assert found["shards_alive"] == PARTITIONS - 1
        assert found["workers"] == ["worker-a"]
        assert found["lag_s"] == pytest.approx(1.25)
        assert found["dead_letters_last_minute"] == 0
        assert [b["breaker_id"] for b in found["open_breakers"]] == [BREAKER]
        assert [t["state"] for t in found["transitions"]] == ["HALF_OPEN", "OPEN", "CLOSED"]
        text = run("top", "--once", *board.options).stdout
        assert "2 /s tool calls" in text
        assert "1 worker, 2 of 3 shards" in text
        assert "1 breaker open" in text

    def test_nothing_there_yet(self, board: Board) -> None:
        found = json.loads(run("top", "--once", "--json", *board.options).stdout)
        assert found["lag_s"] is None
        assert found["shards_alive"] == 0
        assert "start one with `fuseboard worker`" in run("top", "--once", *board.options).stdout

    def test_a_breaker_that_closes_leaves_the_view(self, board: Board) -> None:
        board.breakers(samples.command())
        board.breakers(samples.command(state=BreakerState.CLOSED, epoch=samples.command().epoch + 1))
        found = json.loads(run("top", "--once", "--json", *board.options).stdout)
        assert found["open_breakers"] == []
        assert len(found["transitions"]) == 2


class TestDoctor:
    """``doctor``: exit codes and what it says."""

    def test_missing_topics(self, broker: str, unique_prefix: str) -> None:
        result = run("doctor", "--bootstrap", broker, "--prefix", unique_prefix, "--listen", "0.2")
        assert result.exit_code == 1
        assert "fuseboard topics apply" in result.stdout

    def test_no_worker(self, board: Board) -> None:
        result = run("doctor", "--json", "--listen", "0.2", *board.options)
        assert result.exit_code == 1
        found = json.loads(result.stdout)
        assert found["ok"] is False
        assert [c["name"] for c in found["checks"] if c["ok"] is False] == ["heartbeats"]
        left = [c for c in found["checks"] if c["status"] == "unchecked"]
        assert [(c["name"], c["ok"], c["exit_code"]) for c in left] == [
            ("schemas", None, 0),
            ("clock", None, 0),
            ("lag", None, 0),
        ]
        assert (found["passed"], found["failed"], found["unchecked"]) == (4, 1, 3)
        text = run("doctor", "--listen", "0.2", *board.options).stdout
        assert "--  clock           Not checked: no worker sends heartbeats" in text
        assert text.endswith("1 check failed, 4 passed, 3 could not be made\n")


class TestTapOfDecisions:
    """The last N records of a topic that transactions write, whose markers take offsets too."""

    @pytest.mark.parametrize("count", [1, 3, 50])
    def test_the_last_records(self, board: Board, broker: str, count: int) -> None:
        producer = Producer({"bootstrap.servers": broker, "transactional.id": board.prefix, "log_level": 0})
        producer.init_transactions(30)
        encoder = Encoder("BreakerCommand")
        for epoch in range(1, 31):
            producer.begin_transaction()
            command = dataclasses.replace(samples.command(), epoch=epoch)
            producer.produce(board.prefix + "breaker-commands", encoder.encode(command), b"key", 1)
            producer.commit_transaction(30)
        options = ("--from", f"-{count}", "--until-end", "--json")
        result = run("tap", "breaker-commands", *options, *board.options)
        assert result.exit_code == 0, result.output
        epochs = [line["epoch"] for line in lines_of(result.stdout)]
        assert epochs == list(range(1, 31))[-count:]


class TestInterrupted:
    """Ctrl-C ends a live command quietly, with 130."""

    def start(self, *arguments: str, terminal: bool) -> tuple[subprocess.Popen[bytes], int]:
        """Start a command; its output goes to a terminal or a pipe, whose reading end is returned."""
        script = "from fuseboard_streams.cli import main; main()"
        reading, writing = pty.openpty() if terminal else os.pipe()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        child = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        os.close(writing)
        return child, reading

    def interrupt(self, child: subprocess.Popen[bytes], reading: int, until: bytes) -> bytes:
        """Wait for a text in the output, send SIGINT, and return what the command wrote to standard error."""
        seen = b""
        while until not in seen:
            chunk = os.read(reading, 65_536)
            assert chunk, seen
            seen += chunk
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        errors = child.stderr.read()
        assert child.wait(60) == 130
        os.close(reading)
        child.stderr.close()
        return errors

    def test_tap(self, board: Board) -> None:
        board.calls(1)
        child, reading = self.start("tap", "tool-calls", "--from", "beginning", *board.options, terminal=False)
        assert self.interrupt(child, reading, b"billing.refund").strip() == b""

    def test_top_on_a_terminal(self, board: Board) -> None:
        board.breakers(samples.command())
        child, reading = self.start("top", "--interval", "0.2", *board.options, terminal=True)
        assert self.interrupt(child, reading, b"1 breaker open").strip() == b""
