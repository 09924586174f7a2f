"""The command line starts fast: `--help` imports click and the standard library, and nothing else."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fuseboard_streams.cli.app import COMMANDS

HEAVY = {
    "numpy",
    "polars",
    "pydantic",
    "pydantic_settings",
    "rich",
    "structlog",
    "prometheus_client",
    "confluent_kafka",
    "fastavro",
    "yaml",
    "asyncio",
}


def modules_after(*arguments: str) -> set[str]:
    """Return the top-level modules that a new interpreter has loaded after one invocation."""
    script = (
        "import json, sys, atexit\n"
        "atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules))))\n"
        f"sys.argv = ['fuseboard', *{list(arguments)!r}]\n"
        "from fuseboard_streams.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("--help",), ("worker", "--help"), ("tap", "--help"), ("publish", "-h")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    loaded = modules_after(*arguments)
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


def test_the_root_help_loads_click_and_the_standard_library_only() -> None:
    loaded = modules_after("--help")
    ours = {name for name in loaded if name.startswith("fuseboard")}
    assert ours <= {
        "fuseboard_schemas",
        "fuseboard_schemas.errors",
        "fuseboard_streams",
        "fuseboard_streams.cli",
        "fuseboard_streams.cli.app",
    }
    stdlib = sys.stdlib_module_names | {"click", "fuseboard_schemas", "fuseboard_streams", "__main__"}
    site = Path(sysconfig.get_paths()["purelib"])
    # Whatever .pth files of the environment load at start is not ours; `fuseboard` itself must add nothing.
    baseline = modules_of_a_bare_interpreter()
    foreign = {name.partition(".")[0] for name in loaded - baseline} - stdlib
    assert not foreign, f"loaded from {site}: {foreign}"


def modules_of_a_bare_interpreter() -> set[str]:
    script = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_every_command_of_the_table_exists_and_has_help() -> None:
    from tests.cli.support import run

    for name in COMMANDS:
        result = run(name, "--help")
        assert result.exit_code == 0, result.output
        assert "Usage: fuseboard " + name in result.output
