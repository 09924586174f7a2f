"""The peers' environments: made once, each apart from ours, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks._harness import ROOT, console
from benchmarks._processes import ProcessFailed
from tests.support.maven import cache_dir, java, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PEERS = ROOT / "benchmarks" / "peers"

FAUST = ("faust-streaming==0.15.3", "aiokafka[lz4]==0.14.0", "fastavro==1.13.1")
"""What the Faust peer runs on."""

QUIX = ("quixstreams==3.28.1", "fastavro==1.13.1")
"""What the Quix Streams peer runs on."""

_NO_CONNECTION = re.compile(r"connection broken by|(NewConnection|ConnectTimeout|NameResolution|Proxy)Error")
"""What pip says when there is nobody to ask, rather than that a package is not there."""


class IndexUnreachable(ProcessFailed):
    """Pip could not reach a package index."""


def python_with(name: str, packages: Sequence[str], *, patience: Sequence[str] = ()) -> Path:
    """The Python of a virtual environment with `packages`, made on first use.

    Args:
        name: what the environment is called in the cache.
        packages: what pip installs.
        patience: further options of pip, such as `--retries` and `--timeout`.

    Raises:
        IndexUnreachable: pip could not reach a package index.
        ProcessFailed: the environment cannot be made; the message holds what pip said.
    """

    def make(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        try:
            _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *patience, *packages])
        except ProcessFailed as failure:
            if _NO_CONNECTION.search(failure.message):
                raise IndexUnreachable(failure.message) from failure
            raise

    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return _made(f"{name}-py{version}", "\n".join(packages), make) / "bin" / "python"


def kafka_streams() -> list[str]:
    """The start of the command that runs the Kafka Streams peer, which Maven builds on first use.

    Raises:
        ProcessFailed: it cannot be built; the message holds what Maven said.
        tests.support.maven.Unavailable: there is no Java.
    """
    project = PEERS / "kafka_streams"
    sources = sorted(path for path in project.rglob("*") if path.suffix in (".java", ".xml"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)

    def make(folder: Path) -> None:
        _run(["mvn", "-q", "-B", "-f", str(project / "pom.xml"), f"-Dbuild.folder={folder}", "package"])

    folder = _made("kafka-streams", text, make)
    return [java(), "-cp", f"{folder / 'peer.jar'}:{folder / 'lib'}/*"]


def _made(name: str, content: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, under a name that changes with `content`."""
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    folder = cache_dir() / "benchmarks" / f"{name}-{digest}"
    complete = folder / ".complete"
    if not complete.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f"{folder.name}.lock"):
            if not complete.exists():
                console.print(f"[dim]making {folder}[/dim]")
                make(folder)
                complete.touch()
    return folder


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProcessFailed(f"{' '.join(argv[:4])} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
