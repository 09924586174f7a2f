"""The peers' environments: made once, each apart from ours, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks._harness import ROOT, console
from benchmarks._processes import ProcessFailed
from tests.support.maven import cache_dir, java

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PEERS = ROOT / "benchmarks" / "peers"

FAUST = ("faust-streaming==0.15.3", "aiokafka[lz4]==0.14.0", "fastavro==1.13.1")
"""What the Faust peer runs on."""

QUIX = ("quixstreams==3.28.1", "fastavro==1.13.1")
"""What the Quix Streams peer runs on."""


def python_with(name: str, packages: Sequence[str]) -> Path:
    """The Python of a virtual environment with `packages`, made on first use.

    Raises:
        ProcessFailed: the environment cannot be made; the message holds what pip said.
    """

    def make(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages])

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
        console.print(f"[dim]making {folder}[/dim]")
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        complete.touch()
    return folder


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProcessFailed(f"{' '.join(argv[:4])} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
