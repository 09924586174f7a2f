"""Java servers from Maven Central, resolved once into a cache."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KAFKA_VERSION = "4.2.1"
LOG4J_VERSION = "2.25.4"
APICURIO_VERSION = "3.0.9"
_OLDEST_JAVA = 17
_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
# The parent POM of Apicurio Registry 3.0.9 is not on Maven Central. This is the last release of the plugin that fetches
# an artifact without reading its POM, and the last that can name the file it goes to.
_FETCH_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:2.10"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>fuseboard.tests</groupId>
  <artifactId>kafka-server</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class Unavailable(Exception):
    """A server cannot be had on this machine; the message names what is missing."""


def cache_dir() -> Path:
    """Where resolved servers are kept: FUSEBOARD_CACHE, else ``fuseboard`` in the user's cache folder."""
    given = os.environ.get("FUSEBOARD_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fuseboard"


@functools.cache
def java() -> str:
    """The Java launcher: JAVA_HOME's if that is set, else the one on the path.

    Raises:
        Unavailable: there is none, or it is older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None:
        raise Unavailable("no java (17 or newer) on the path")
    shown = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version.group(1)) < _OLDEST_JAVA:
        first = (shown.splitlines() or ["nothing"])[0]
        raise Unavailable(f"Java 17 or newer is needed, and {found} says {first}")
    return found


def kafka_jars() -> Path:
    """A folder with the jars of the Apache Kafka server, resolved on first use.

    Raises:
        Unavailable: Maven is missing or cannot resolve them.
    """

    def resolve(folder: Path) -> None:
        pom = folder / "pom.xml"
        pom.write_text(_POM)
        _maven("-f", str(pom), f"{_DEPENDENCY_PLUGIN}:copy-dependencies", f"-DoutputDirectory={folder}")

    return _cached(f"kafka-{KAFKA_VERSION}", resolve)


def apicurio_home() -> Path:
    """The unpacked distribution of Apicurio Registry, resolved on first use.

    Raises:
        Unavailable: Maven is missing or cannot resolve it.
    """

    def resolve(folder: Path) -> None:
        artifact = f"io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all"
        archive = folder / "apicurio.tar.gz"
        _maven(f"{_FETCH_PLUGIN}:get", f"-Dartifact={artifact}", "-Dtransitive=false", f"-Ddest={archive}")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()

    return _cached(f"apicurio-{APICURIO_VERSION}", resolve)


def _maven(*arguments: str) -> None:
    program = shutil.which("mvn")
    if program is None:
        raise Unavailable("no Maven (mvn) on the path to fetch the server with")
    done = subprocess.run(
        [program, "-q", "-B", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"Maven could not fetch the server: {(done.stdout + done.stderr).strip()[-800:]}")


def _cached(name: str, resolve: Callable[[Path], None]) -> Path:
    """``resolve`` fills a temporary folder, which becomes the cached one in a single step."""
    root = cache_dir()
    target = root / name
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / f"{name}.lock"):
        if target.is_dir():
            return target
        folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
        try:
            resolve(folder)
            folder.rename(target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return target


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which one process can at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Fetch every server now, so that the tests need not (``make setup``); says what is missing instead of failing."""
    for name, get in (("Apache Kafka", kafka_jars), ("Apicurio Registry", apicurio_home)):
        try:
            java()
            print(f"{name}: {get()}")
        except Unavailable as missing:
            print(f"{name}: not here ({missing}); the tests that need it will be skipped")


if __name__ == "__main__":
    main()
