"""Usage errors, configuration, exit codes; none of it needs a broker."""

import builtins
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
from confluent_kafka import KafkaError, KafkaException

from fuseboard_schemas.errors import ConfigurationError, FuseboardError, UnreachableError
from fuseboard_streams.cli import app, kafka, sending
from fuseboard_streams.cli.app import report
from fuseboard_streams.cli.config import SECTIONS, WORKER_SETTINGS, Connection, connect, flatten, load_toml
from tests.cli.support import run

NOWHERE = ("--bootstrap", "127.0.0.1:1")


def test_help_shows_sections_and_exit_codes() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("Try:", "Watch:", "Run:", "demo", "worker", "Exit codes: 0 fine, 1 a check failed"):
        assert word in result.output


def test_environment_variables_are_in_the_help() -> None:
    text = run("tap", "--help").output
    for name in ("FUSEBOARD_BOOTSTRAP", "FUSEBOARD_PREFIX", "FUSEBOARD_CONFIG", "FUSEBOARD_KAFKA__"):
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("tpo",), "Did you mean 'top'?"),
        (("zzz",), "The commands are demo, top"),
        (("tap",), "Missing argument 'TOPIC'"),
        (("tap", "nonsense"), "none of Fuseboard's topics"),
        (("tap", "tool-cals"), "Did you mean 'tool-calls'?"),
        (("tap", "fuseboard.heartbeat"), "Did you mean 'heartbeats'?"),
        (("doctor", "--group", ""), "--group: expected the name of a consumer group"),
        (("tap", "tool-calls", "--from", "yesterday"), "--from 'yesterday': expected beginning"),
        (("tap", "tool-calls", "--where", "x=1"), "ToolCall has no field 'x'"),
        (("tap", "tool-calls", "--where", "outcome=FOO"), "outcome is one of OK, ERROR, TIMEOUT, DENIED, CANCELLED"),
        (("tap", "state", "--tool", "x"), "StateRecord has no field 'tool'"),
        (("tap", "tool-calls", "-X", "oops"), "-X 'oops': expected key=value"),
        (("tap", "tool-calls", "-X", "no.such.setting=1"), "no.such.setting"),
        (("tap", "tool-calls", "--prefix", "a b"), "--prefix 'a b'"),
        (("tap", "tool-calls", "--bootstrap", ""), "no broker given"),
        (("tap", "tool-calls", "--bootstrap", "foo:bar"), "'foo:bar' is no broker's address. Expected host:port"),
        (("doctor", "--bootstrap", "foo:bar"), "--bootstrap 'foo:bar'"),
        (("top", "--once", "--bootstrap", "foo:bar"), "--bootstrap 'foo:bar'"),
        (("publish", "-", "--bootstrap", "foo:bar"), "--bootstrap 'foo:bar'"),
        (("topics", "plan", "--bootstrap", "foo:bar"), "--bootstrap 'foo:bar'"),
        (("worker", "--bootstrap", "foo:bar"), "--bootstrap 'foo:bar'"),
        (("tap", "tool-calls", "-X", "bootstrap.servers=foo:bar"), "bootstrap.servers 'foo:bar'"),
        (("tap", "tool-calls", "--config", "/no/such.toml"), "/no/such.toml: the configuration file cannot be read"),
        (("publish", "/no/such.jsonl"), "/no/such.jsonl: No such file"),
        (("publish", "-", "--record", "zebra"), "'zebra' is no record"),
        (("publish", "-", "--record", "state"), "written by workers only"),
        (("publish", "-", "--speed", "0"), "expected max, or a multiple"),
        (("publish", "-", "--speed", "fast"), "expected max, or a multiple"),
        (("publish", "-", "--rebase", "first"), "--rebase first needs a --speed"),
        (("schema", "show", "Zebra"), "Zebra"),
        (("topics", "apply", "--partitions", "0"), "--partitions"),
        (("top",), "--once"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_was_expected(arguments: tuple[str, ...], text: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert text in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("tap", "tool-calls"),
        ("top", "--once"),
        ("breakers", "list"),
        ("breakers", "show", "a"),
        ("publish", "-"),
        ("topics", "plan"),
    ],
)
def test_an_unreachable_broker_exits_with_3(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "METADATA_TIMEOUT_S", 0.5)
    monkeypatch.setattr(sending, "METADATA_TIMEOUT_S", 0.5)
    monkeypatch.setattr("fuseboard_streams.admin.Admin.__init__.__defaults__", (0.5,))
    result = run(*arguments, *NOWHERE, stdin=b"")
    assert result.exit_code == 3, result.output
    assert "127.0.0.1:1 cannot be reached" in " ".join(result.stderr.split())


def test_what_librdkafka_says_of_a_secret_is_not_shown() -> None:
    result = run("tap", "tool-calls", *NOWHERE, "-X", "sasl.password=hunter2", "-X", "security.protocol=hunter2")
    assert result.exit_code == 2
    assert "hunter2" not in result.output


class TestReport:
    """Every kind of error, and the exit code it stands for."""

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (FuseboardError("a check failed"), 1),
            (ConfigurationError("wrong"), 2),
            (UnreachableError("away"), 3),
            (KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)), 3),
            (KafkaException(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED)), 2),
            (click.UsageError("wrong"), 2),
            (FileNotFoundError(2, "No such file or directory", "x.jsonl"), 2),
            (ModuleNotFoundError("No module named 'polars'", name="polars"), 2),
            (RuntimeError("boom"), 1),
        ],
    )
    def test_code(self, error: Exception, code: int) -> None:
        assert report(error) == code

    def test_a_missing_extra_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        report(ModuleNotFoundError("No module named 'polars.x'", name="polars.x"))
        assert "pip install 'fuseboard[worker]'" in capsys.readouterr().err

    def test_an_unexpected_error_is_one_paragraph_that_asks_for_a_report(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        report(RuntimeError("boom\nboom"))
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        assert "RuntimeError: boom boom" in text
        assert "--debug" in text


def _broken(error: BaseException) -> click.Command:
    @click.command("broken")
    def command() -> None:
        raise error

    return command


def _install(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(app.LazyGroup, "get_command", lambda *_: _broken(error))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_quiet_and_exits_with_130(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, error)
    result = run("version")
    assert result.exit_code == 130
    assert result.output.strip() == ""


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, RuntimeError("boom"))
    from click.testing import CliRunner

    result = CliRunner().invoke(app.cli, ["--debug", "version"])
    assert isinstance(result.exception, RuntimeError)
    assert run("version").exit_code == 1


def test_a_command_without_its_extra_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_pydantic(name: str, *rest: Any, **options: Any) -> Any:
        if name.partition(".")[0] in ("pydantic", "pydantic_settings"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **options)

    for name in [n for n in sys.modules if n.startswith("fuseboard_streams.worker")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_pydantic)
    result = run("worker")
    assert result.exit_code == 2
    assert "pip install 'fuseboard[worker]'" in " ".join(result.stderr.split())


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    script = "import sys; sys.argv = ['fuseboard', 'schema', 'list']; from fuseboard_streams.cli import main; main()"
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "$0" | true', script], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


class TestConfiguration:
    """Options win over the environment, the environment over the file."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "fuseboard.toml"
        path.write_text(
            'bootstrap = "file:1"\nprefix = "file."\n[kafka]\n"security.protocol" = "SSL"\n'
            "socket.keepalive.enable = true\nrequest.timeout.ms = 5\n[registry]\nurl = 'http://file'\n",
            encoding="utf-8",
        )
        return path

    def connection(self, monkeypatch: pytest.MonkeyPatch, *arguments: str, **env: str) -> Connection:
        seen: list[Connection] = []

        from fuseboard_streams.cli.options import connection_options

        @click.command("seen")
        @connection_options
        def command(connection: Connection) -> None:
            seen.append(connection)

        monkeypatch.setattr(app.LazyGroup, "get_command", lambda *_: command)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        result = run("version", *arguments)
        assert result.exit_code == 0, result.output
        return seen[0]

    def test_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.connection(monkeypatch) == Connection("localhost:9092", "fuseboard.", {}, {})

    def test_the_file_is_read(self, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
        found = self.connection(monkeypatch, "--config", str(file))
        assert (found.bootstrap, found.prefix) == ("file:1", "file.")
        assert found.kafka == {
            "security.protocol": "SSL",
            "socket.keepalive.enable": "true",
            "request.timeout.ms": "5",
        }
        assert found.registry == {"url": "http://file"}

    def test_the_environment_wins_over_the_file(self, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
        found = self.connection(
            monkeypatch,
            FUSEBOARD_CONFIG=str(file),
            FUSEBOARD_BOOTSTRAP="env:1",
            FUSEBOARD_KAFKA__SECURITY_PROTOCOL="SASL_SSL",
            FUSEBOARD_REGISTRY__URL="http://env",
        )
        assert (found.bootstrap, found.prefix) == ("env:1", "file.")
        assert found.kafka["security.protocol"] == "SASL_SSL"
        assert found.registry == {"url": "http://env"}

    def test_options_win_over_both(self, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
        found = self.connection(
            monkeypatch,
            "--config",
            str(file),
            "--bootstrap",
            "option:1",
            "-X",
            "security.protocol=PLAINTEXT",
            "-X",
            "sasl.password=a=b",
            FUSEBOARD_BOOTSTRAP="env:1",
            FUSEBOARD_KAFKA__SECURITY_PROTOCOL="SASL_SSL",
        )
        assert found.bootstrap == "option:1"
        assert found.kafka["security.protocol"] == "PLAINTEXT"
        assert found.kafka["sasl.password"] == "a=b"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("bootstrap = \n", r"\.toml:1:\d+: not valid TOML"),
            ("a = 1\na = 2\n", r"not valid TOML"),
            ("kafka = 5\n", r"\[kafka\].*a table was expected"),
            ("[kafka]\nx = [1]\n", r"kafka\.x: list found"),
        ],
    )
    def test_a_wrong_file_is_named_with_the_place(self, tmp_path: Path, text: str, expected: str) -> None:
        path = tmp_path / "bad.toml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=expected):
            connect("h:1", "p.", (), load_toml(path), {})

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('bootstarp = "h:1"\n', "there is no setting 'bootstarp'. Did you mean 'bootstrap'?"),
            ("[kafak]\nx = 1\n", "there is no setting 'kafak'. Did you mean 'kafka'?"),
            ("zzz = 1\n", "there is no setting 'zzz'. At the top"),
        ],
    )
    @pytest.mark.parametrize("command", [("tap", "tool-calls"), ("worker",), ("schema", "check")])
    def test_a_setting_that_nothing_reads_is_refused(
        self, tmp_path: Path, text: str, expected: str, command: tuple[str, ...]
    ) -> None:
        path = tmp_path / "bad.toml"
        path.write_text(text, encoding="utf-8")
        result = run(*command, "--config", str(path))
        assert result.exit_code == 2
        assert expected in " ".join(result.stderr.split())

    def test_one_file_serves_all_commands(self, tmp_path: Path) -> None:
        path = tmp_path / "good.toml"
        path.write_text(
            "interval = 2\npartitions = 3\ngroup = 'g'\nhttp_port = 1\n[core]\n[worker]\n", encoding="utf-8"
        )
        assert run("schema", "check", "--config", str(path)).exit_code == 0

    def test_the_settings_of_a_worker_are_those_of_its_class(self) -> None:
        from fuseboard_streams.worker.settings import WorkerSettings

        assert set(WorkerSettings.model_fields) == WORKER_SETTINGS | SECTIONS - {"worker"}

    def test_a_file_in_another_encoding(self, tmp_path: Path) -> None:
        path = tmp_path / "bad.toml"
        path.write_bytes(b'a = "\xff"')
        with pytest.raises(ConfigurationError, match=r"byte 5 is not UTF-8"):
            load_toml(path)

    @pytest.mark.parametrize(
        "text",
        ["a:1", "a", " a:1, b.c-d_e:65535 ,", "[::1]:9092", "10.0.0.1:9092", "SASL_SSL://a:1", "bücher.example:1"],
    )
    def test_addresses_that_librdkafka_takes(self, text: str) -> None:
        assert connect(text, "p.", (), {}, {}).bootstrap == text.strip()

    @pytest.mark.parametrize(
        "text",
        [
            *("a:", ":1", "a:0", "a:65536", "a:123456", "a:-1", "a:1:2", "::1", "a b:1", "a:1;b:2", "a:\uff11"),
            *("http://a:1", "a:1/x", "u@a:1", "['a:1']", "[::1", "a:1,foo:bar"),
        ],
    )
    def test_a_malformed_address_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="is no broker's address"):
            connect(text, "p.", (), {}, {})

    def test_messages_name_the_address_that_clients_use(self) -> None:
        assert connect("a:1", "p.", ("bootstrap.servers=b:2",), {}, {}).bootstrap == "b:2"

    def test_nested_tables_are_dotted_names(self) -> None:
        assert flatten({"a": {"b": {"c": 1.5}, "d": False}}, "kafka") == {"a.b.c": "1.5", "a.d": "false"}


def test_version() -> None:
    short = run("--version")
    assert (short.exit_code, short.stdout) == (0, f"fuseboard {version('fuseboard')}\n")
    found = json.loads(run("version", "--json").stdout)
    assert {"fuseboard", "python", "librdkafka", "fastavro"} <= set(found)
    assert "fuseboard" in run("version").stdout


def test_no_line_of_help_is_cut() -> None:
    for group in ("breakers", "schema", "topics"):
        assert "..." not in run(group, "--help").output.replace("[ARGS]...", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_FUSEBOARD_COMPLETE" in result.stdout


def test_completion_completes_commands_and_options() -> None:
    env = {"_FUSEBOARD_COMPLETE": "bash_complete", "COMP_WORDS": "fuseboard bre", "COMP_CWORD": "1"}
    assert "breakers" in run(env=dict(env)).output
