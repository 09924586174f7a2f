"""Real forks: the child is a process of its own, and the parent does not notice."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fuseboard import Effect, Fuseboard, Settings, ToolBlocked, imports
from fuseboard.runtime import Runtime
from fuseboard_schemas.codec import Decoder
from tests.unit.sdk.support import MemoryBroker

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def in_child(task: Callable[[], Any]) -> Any:
    """Run something in a forked child and return its result."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = task()
        except BaseException:
            result = traceback.format_exc()
        os.write(writer, pickle.dumps(result))
        sys.stdout.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    return result


def start(tmp_path: Path, **settings: Any) -> tuple[Fuseboard, MemoryBroker]:
    broker = MemoryBroker()
    loaded = Settings(**{"actor": "a", "spool_dir": str(tmp_path), "spool_after_s": 0.01, **settings})
    runtime = Runtime(loaded, transport=broker.connect, follow=False)
    return Fuseboard.of(runtime), broker


def seqs(broker: MemoryBroker, client_id: int) -> list[int]:
    decoder = Decoder()
    calls = [decoder.decode(message.value, "ToolCall") for message in broker.log if "tool-calls" in message.topic]
    return [call.seq for call in calls if call.client_id == client_id]


def test_a_child_is_a_new_client_with_threads_of_its_own(tmp_path: Path) -> None:
    fuse, broker = start(tmp_path)
    look = fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    look()
    assert fuse.flush(30) == 0
    parent = fuse.client_id

    def child() -> tuple[int, list[int], list[str], int]:
        before = [thread.name for thread in threading.enumerate()]
        for _ in range(3):
            look()
        left = fuse.flush(30)
        return fuse.client_id, seqs(broker, fuse.client_id), before, left

    client, numbers, threads, left = in_child(child)
    assert client != parent
    assert numbers == [0, 1, 2]
    assert left == 0
    assert threads == ["MainThread"]
    look()
    assert fuse.flush(30) == 0
    assert seqs(broker, parent) == [0, 1]
    fuse.close()


def test_a_child_drops_what_the_parent_has_pending(tmp_path: Path) -> None:
    fuse, broker = start(tmp_path, spool_dir="")
    broker.up = False
    look = fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    for _ in range(5):
        look()

    def child() -> tuple[int, int]:
        broker.up = True
        pending = fuse.flush(30)
        look()
        return pending, fuse.flush(30) + len(broker.log)

    assert in_child(child) == (0, 1)
    broker.up = True
    assert fuse.flush(30) == 0
    assert seqs(broker, fuse.client_id) == list(range(5))
    fuse.close()


def test_a_child_leaves_the_parents_spool_alone(tmp_path: Path) -> None:
    fuse, broker = start(tmp_path, memory_events=2)
    broker.up = False
    look = fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    for _ in range(20):
        look()
    while fuse.counts.spooled < 20:
        fuse.flush(0.05)

    def child() -> tuple[int, list[str]]:
        broker.up = True
        look()
        left = fuse.flush(30)
        fuse.close(30)
        return left, [str(seq) for seq in seqs(broker, fuse.client_id)]

    assert in_child(child) == (0, ["0"])
    broker.up = True
    assert fuse.flush(30) == 0
    assert seqs(broker, fuse.client_id) == list(range(20))
    fuse.close(30)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_child_that_only_reads_follows_the_breakers_too(tmp_path: Path) -> None:
    fuse, _ = start(tmp_path, bootstrap="127.0.0.1:1")
    look = fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    look()

    def child() -> bool:
        fuse._runtime._follow = True  # only here: a follower in the parent would look for a broker
        look()
        return fuse._runtime._follower is not None

    assert in_child(child) is True
    fuse.close()


def test_a_child_forked_while_threads_are_calling_works(tmp_path: Path) -> None:
    fuse, broker = start(tmp_path)
    look = fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    stop = threading.Event()

    def call() -> None:
        while not stop.wait(0.001):
            look()

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()

    def child() -> list[int]:
        for _ in range(3):
            look()
        fuse.flush(30)
        return seqs(broker, fuse.client_id)

    try:
        results = [in_child(child) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert results == [[0, 1, 2]] * 5
    assert fuse.flush(30) == 0
    numbers = seqs(broker, fuse.client_id)
    assert numbers == list(range(len(numbers)))
    fuse.close()


def test_a_child_waits_for_its_own_view(tmp_path: Path) -> None:
    """What the parent has waited for in vain may be there by now: the child's first call waits again, once."""
    fuse, _ = start(tmp_path, ready_timeout_s=0.05)
    pay = fuse.tool(effect=Effect.IRREVERSIBLE, name="pay")(lambda: None)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(seconds)

    fuse._runtime.sleep = sleep

    def waited() -> bool:
        waits.clear()
        with pytest.raises(ToolBlocked, match="control plane stale"):
            pay()
        return bool(waits)

    assert [waited(), waited()] == [True, False]
    assert in_child(lambda: [waited(), waited()]) == [True, False]
    assert not waited()


IMPORTING = """
import threading
entered, finish = threading.Event(), threading.Event()
def work():
    entered.set()
    finish.wait()
"""


def test_a_fork_waits_for_what_our_threads_are_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the child could never import that module: the thread that would unlock it is not there."""
    (tmp_path / "slowly_signals.py").write_text(IMPORTING)
    (tmp_path / "slowly_imported.py").write_text("import slowly_signals\nslowly_signals.work()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    signals = importlib.import_module("slowly_signals")
    lock = threading.Lock()

    class Watched:
        def acquire(self, timeout: float) -> bool:
            signals.finish.set()
            return lock.acquire(timeout=timeout)

        def release(self) -> None:
            lock.release()

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(imports, "_MODULES", ("slowly_imported",))
    monkeypatch.setattr(imports, "_lock", Watched())
    thread = threading.Thread(target=imports.load)
    thread.start()
    assert signals.entered.wait(30)

    def child() -> bool:
        signal.alarm(30)  # Ends a child that would wait for ever.
        imports.load()
        return "slowly_imported" in sys.modules

    try:
        assert in_child(child) is True
    finally:
        signals.finish.set()
        thread.join()
        sys.modules.pop("slowly_imported", None)
        sys.modules.pop("slowly_signals", None)
