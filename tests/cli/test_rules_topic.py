"""``fuseboard rules apply`` and ``rules show`` against running brokers."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from fuseboard_detectors.failure import FailureParams
from fuseboard_schemas.codec import Encoder
from fuseboard_schemas.keys import partition_for
from fuseboard_schemas.records import BreakerState, Rules
from fuseboard_schemas.registry import PackagedResolver
from fuseboard_schemas.topics import TopicNames
from fuseboard_streams.cli import rules_topic
from fuseboard_streams.cli.one_record import person_of
from fuseboard_streams.cli.render.applied import applied_lines, in_force_lines
from fuseboard_streams.cli.rules_topic import InForce, ShardRules, other_versions
from fuseboard_streams.rules.compile import PACKAGED, compile_rules, version_of
from fuseboard_streams.worker import load_settings
from fuseboard_streams.worker.clients import Clients
from fuseboard_streams.worker.rules_source import RULES_KEY, RulesSource
from tests.cli import samples
from tests.cli.samples import MINUTE, NOW, SECOND
from tests.cli.support import Board, run
from tests.support.workers import read, settings_for
from tests.unit.rules.example import EXAMPLE, changed

PARTITIONS = 3
VERSION = version_of(EXAMPLE.encode())
PACKAGED_VERSION = version_of(PACKAGED.read_bytes())


@pytest.fixture
def board(broker: str, unique_prefix: str, topics: Callable[..., TopicNames]) -> Board:
    topics(broker, unique_prefix, PARTITIONS)
    return Board(broker, unique_prefix, PARTITIONS)


def apply(board: Board, folder: Path, text: str, *options: str) -> Any:
    path = folder / "mine.yaml"
    path.write_bytes(text.encode())
    return run("rules", "apply", str(path), "--person", "anna", *options, *board.options)


def shown(board: Board, *options: str, code: int = 0) -> dict[str, Any]:
    result = run("rules", "show", "--json", *options, *board.options)
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


class TestApply:
    """``rules apply``."""

    def test_what_is_applied_is_what_a_worker_takes(
        self, board: Board, broker: str, unique_prefix: str, tmp_path: Path
    ) -> None:
        result = apply(board, tmp_path, EXAMPLE, "--reason", "a test")
        assert result.exit_code == 0, result.output
        assert f"Version {VERSION} is applied by anna, after the packaged rules." in result.stdout
        (written,) = read(broker, unique_prefix + "rules", PARTITIONS)
        assert (written.key, written.partition) == (RULES_KEY.encode(), partition_for(RULES_KEY, PARTITIONS))
        record = written.decoded("Rules")
        assert (record.version, record.previous_version, record.text) == (VERSION, PACKAGED_VERSION, EXAMPLE)
        assert (record.tenant, record.applied_by, record.reason) == ("default", "anna", "a test")
        refused: list[None] = []
        clients = Clients(load_settings(overrides=settings_for(broker, unique_prefix)))
        source = RulesSource(
            clients, unique_prefix + "rules", None, FailureParams(), PackagedResolver(), structlog.get_logger(),
            lambda: refused.append(None),
        )  # fmt: skip
        source.start(10)
        source.close()
        assert (source.wanted.rules.version, refused) == (VERSION, [])

    def test_it_shows_what_changes_against_what_holds(self, board: Board, tmp_path: Path) -> None:
        assert apply(board, tmp_path, EXAMPLE).exit_code == 0
        result = apply(board, tmp_path, changed("floor: 0.5%", "floor: 1%"), "--json")
        found = json.loads(result.stdout)
        assert (found["ok"], found["written"], found["previous_version"]) == (True, True, VERSION)
        assert [(each["rule"], each["scope"], each["cold"]) for each in found["changes"]] == [
            ("tool-failing", "ACTOR_TOOL", True),
            ("tool-failing", "TOOL", True),
        ]

    def test_a_dry_run_writes_nothing(self, board: Board, broker: str, unique_prefix: str, tmp_path: Path) -> None:
        result = apply(board, tmp_path, EXAMPLE, "--dry-run", "--wait", "5")
        assert result.exit_code == 0
        assert "Nothing was applied: " in result.stdout
        assert "removed" in result.stdout
        assert read(broker, unique_prefix + "rules", PARTITIONS) == []

    def test_what_holds_already_is_not_written_again(
        self, board: Board, broker: str, unique_prefix: str, tmp_path: Path
    ) -> None:
        assert apply(board, tmp_path, EXAMPLE).exit_code == 0
        again = apply(board, tmp_path, EXAMPLE)
        assert again.exit_code == 0
        assert f"Version {VERSION} holds already; nothing was written." in again.stdout
        assert len(read(broker, unique_prefix + "rules", PARTITIONS)) == 1

    @pytest.mark.parametrize("as_json", [False, True])
    def test_a_file_that_is_wrong_is_refused_like_by_check(
        self, board: Board, broker: str, unique_prefix: str, tmp_path: Path, as_json: bool
    ) -> None:
        result = apply(board, tmp_path, changed("action: DISABLE_TOOL", "action: HALT"), *["--json"][: int(as_json)])
        assert result.exit_code == 1
        if as_json:
            assert json.loads(result.stdout)["ok"] is False
        else:
            assert "HALT does not fit scope ACTOR_TOOL" in result.stderr
            assert result.stderr.endswith("Nothing was applied.\n")
        assert read(broker, unique_prefix + "rules", PARTITIONS) == []

    def test_what_is_written_is_what_was_checked(
        self, board: Board, broker: str, unique_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The file was read a second time to be written.
        path = tmp_path / "mine.yaml"

        def saved_meanwhile(*given: Any) -> Any:
            path.write_bytes(b"version: 2")
            return before(*given)

        before = rules_topic.read_rules
        monkeypatch.setattr(rules_topic, "read_rules", saved_meanwhile)
        assert apply(board, tmp_path, EXAMPLE).exit_code == 0
        assert path.read_bytes() == b"version: 2"
        (written,) = read(broker, unique_prefix + "rules", PARTITIONS)
        assert written.decoded("Rules").text == EXAMPLE

    def test_it_waits_for_every_shard(self, board: Board, tmp_path: Path) -> None:
        done = threading.Event()

        def beat() -> None:
            while not done.wait(0.05):
                board.heartbeat(0, rules_version=VERSION)
                board.heartbeat(1, "worker-b", rules_version=VERSION)
                board.heartbeat(2, "worker-b", rules_version=VERSION)

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            result = apply(board, tmp_path, EXAMPLE, "--wait", "30")
        finally:
            done.set()
            thread.join()
        assert result.exit_code == 0, result.output
        assert "Every shard runs it." in result.stdout

    def test_it_says_which_shards_do_not_run_it(self, board: Board, tmp_path: Path) -> None:
        board.heartbeat(0, rules_version="another")
        board.heartbeat(1, rules_version=VERSION)
        result = apply(board, tmp_path, EXAMPLE, "--wait", "0", "--json")
        assert result.exit_code == 1
        found = json.loads(result.stdout)
        assert found["ok"] is False
        # A heartbeat that lay there before is no sign of life.
        assert [(each["shard"], each["version"]) for each in found["missing"]] == [
            (0, "another"),
            (1, VERSION),
            (2, None),
        ]


class TestShow:
    """``rules show``."""

    def test_without_a_record_the_packaged_rules_hold(self, board: Board) -> None:
        found = shown(board)
        assert (found["packaged"], found["version"], found["applied_by"]) == (True, PACKAGED_VERSION, None)
        text = run("rules", "show", "--text", *board.options)
        assert text.stdout == PACKAGED.read_text(encoding="utf-8")

    def test_who_when_why_and_what(self, board: Board, tmp_path: Path) -> None:
        apply(board, tmp_path, EXAMPLE, "--reason", "first")
        apply(board, tmp_path, "# more\n" + EXAMPLE, "--reason", "second")
        found = shown(board, "--text")
        assert (found["applied_by"], found["reason"], found["previous_version"]) == ("anna", "second", VERSION)
        assert found["text"] == "# more\n" + EXAMPLE
        assert run("rules", "show", "--text", *board.options).stdout == "# more\n" + EXAMPLE

    def test_a_shard_that_runs_another_version_is_an_error(self, board: Board, tmp_path: Path) -> None:
        apply(board, tmp_path, EXAMPLE)
        for shard in range(PARTITIONS):
            board.heartbeat(shard, rules_version=VERSION)
        assert not any(each["differs"] for each in shown(board)["shards"])
        board.heartbeat(1, "worker-b", rules_version="old")
        found = shown(board, code=1)
        assert [each["differs"] for each in found["shards"]] == [False, True, False]
        assert [each["worker"] for each in found["shards"]] == ["worker-a", "worker-b", "worker-a"]

    def test_breakers_of_other_versions_are_counted(self, board: Board, tmp_path: Path) -> None:
        apply(board, tmp_path, EXAMPLE)
        ids = [samples.BREAKER + str(i) for i in range(5)]
        board.breakers(
            samples.command(breaker_id=ids[0], rules_version="old"),
            samples.command(breaker_id=ids[1], rules_version=VERSION),
            samples.command(breaker_id=ids[2], rules_version="old", state=BreakerState.CLOSED),
            samples.command(breaker_id=ids[3], rules_version="", rule="manual"),
            samples.command(breaker_id=ids[4], rules_version="older"),
        )
        assert shown(board)["breakers_of_other_versions"] == {"old": 1, "older": 1}

    def test_what_cannot_be_used_does_not_hold_and_is_named(self, board: Board, tmp_path: Path) -> None:
        apply(board, tmp_path, EXAMPLE)
        home = partition_for(RULES_KEY, PARTITIONS)
        record = Rules(ts=NOW, version="tampered", text=EXAMPLE, applied_by="x")
        board.raw("rules", b"garbage", RULES_KEY.encode(), home)
        board.raw("rules", Encoder("Rules").encode(record), RULES_KEY.encode(), home)
        board.raw("rules", Encoder("Rules").encode(record), b"another", home)
        board.flush()
        found = shown(board)
        assert (found["version"], found["applied_by"]) == (VERSION, "anna")
        assert len(found["refused"]) == 2
        assert f"has the version {VERSION} and not tampered" in found["refused"][0]
        # To apply the same again is how a bad record is got rid of.
        assert "is applied by anna" in apply(board, tmp_path, EXAMPLE).stdout
        assert shown(board)["refused"] == []

    def test_a_tombstone_brings_the_packaged_rules_back(self, board: Board, tmp_path: Path) -> None:
        apply(board, tmp_path, EXAMPLE)
        board.raw("rules", None, RULES_KEY.encode(), partition_for(RULES_KEY, PARTITIONS))
        board.flush()
        assert shown(board)["packaged"] is True


def test_how_it_looks() -> None:
    record = Rules(
        ts=NOW - 3 * MINUTE,
        version=VERSION,
        previous_version="a" * 16,
        text=EXAMPLE,
        applied_by="anna",
        reason="w\x1by",
    )
    shards = [
        ShardRules(0, "w-a", VERSION, NOW - SECOND),
        ShardRules(1, "w-a", VERSION, NOW - SECOND),
        ShardRules(2, "w-b", "old", NOW - SECOND),
        ShardRules(3, "w-c", VERSION, NOW - MINUTE),
        ShardRules(4),
    ]
    found = InForce(record, compile_rules(EXAMPLE.encode(), "x"))
    assert in_force_lines(found, shards, {"old": 2}, NOW) == [
        f"version {VERSION}: 2 breakers, 5 objectives",
        "applied by anna at 2026-11-23 03:57:00.000 UTC (3 min ago), after aaaaaaaaaaaaaaaa",
        "reason: w\\x1by",
        "",
        "shards  worker    version           heard",
        "4       none yet                    never     silent",
        "2       w-b       old               1 s ago   differs",
        f"0-1     w-a       {VERSION}  1 s ago   runs it",
        f"3       w-c       {VERSION}  60 s ago  silent",
        "2 of 5 shards run it; 2 silent: see `fuseboard doctor`; a worker takes a change over within seconds, and one "
        "with a rules file of its own never does",
        "2 breakers in force decided under other versions: 2 under old",
    ]


def test_how_a_wait_in_vain_looks() -> None:
    missing = [ShardRules(0, "w-a", "old", NOW, live=True), ShardRules(1, "w-a", VERSION, NOW), ShardRules(2)]
    assert applied_lines("f", VERSION, "old", None, missing)[1:] == [
        "3 shards did not show it in time:",
        "  shard 0: worker w-a runs old",
        "  shard 1: no heartbeat came; start a worker, and see `fuseboard doctor`",
        "  shard 2: no heartbeat came; start a worker, and see `fuseboard doctor`",
    ]


def test_other_versions() -> None:
    assert other_versions({"a": "v", "b": "", "c": "w", "d": "w"}, "v") == {"w": 2}


def test_nobody_cannot_apply_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    from fuseboard_schemas.errors import ConfigurationError

    assert person_of(" anna ") == "anna"
    for name in ("", "  ", "é" * 129):
        with pytest.raises(ConfigurationError, match="--person: expected a name"):
            person_of(name)
    monkeypatch.setattr("getpass.getuser", lambda: "kim")
    assert person_of(None) == "kim"
