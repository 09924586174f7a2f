"""Whether a tool's breaker can be probed: IRREVERSIBLE calls never are, and no command names the effect."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fuseboard_schemas.records import BreakerCommand
    from fuseboard_streams.cli.kafka import Reader

PATIENCE_S: Final = 2.0
"""How long a call may take to arrive."""


class Probeable:
    """Finds the effect of a tool in the last call that decided about its breaker.

    Args:
        prefix: What all topic names start with.
    """

    def __init__(self, prefix: str) -> None:
        self._topic = prefix + "tool-calls"
        self._partitions = 0
        self._deciding: dict[str, BreakerCommand] = {}
        self._known: dict[str, tuple[int, bool | None]] = {}

    def note(self, command: BreakerCommand) -> bool:
        """Remember a command and return True if a call decided it: those that a timer made name none."""
        # An order of a person has an id and an offset as well, but in another topic.
        if command.event_id is None or command.source_offset is None or str(command.cause) == "OVERRIDE":
            return False
        self._deciding[command.breaker_id] = command
        return True

    def forget(self, breaker_id: str) -> None:
        """Drop what is known about a breaker."""
        self._deciding.pop(breaker_id, None)
        self._known.pop(breaker_id, None)

    def of(
        self,
        commands: Iterable[BreakerCommand],
        reader: Reader,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> dict[str, bool | None]:
        """Return, for each open breaker of a tool, whether its calls can be probes; ``None`` if that is not known.

        What was found is remembered, so that asking again goes on where the time was up.

        Args:
            commands: The newest command of each breaker.
            reader: Reads the calls; what it was reading before is given up.
            seconds: No call is looked up when so much time has passed.
            clock: Monotonic clock in seconds.
        """
        from fuseboard_schemas.errors import FuseboardError

        found: dict[str, bool | None] = {}
        ends = clock() + seconds
        for command in commands:
            if str(command.scope) != "ACTOR_TOOL" or str(command.state) not in ("OPEN", "HALF_OPEN"):
                continue
            identity, deciding = command.breaker_id, self._deciding.get(command.breaker_id)
            if command.probes_ok or command.probes_failed:
                found[identity] = True
                continue
            epoch, known = self._known.get(identity, (-1, None))
            if deciding is not None and epoch != deciding.epoch and clock() < ends:
                try:
                    known = self._look_up(deciding, reader)
                    self._known[identity] = (deciding.epoch, known)
                except FuseboardError:
                    # Calls that cannot be read now, or by this user: the breakers are to be seen all the same.
                    ends = clock()
            found[identity] = known
        return found

    def _look_up(self, deciding: BreakerCommand, reader: Reader) -> bool | None:
        """Return whether the call that decided can be repeated as a probe; ``None`` if it is not there any more."""
        from fuseboard_schemas.keys import home_partition
        from fuseboard_streams.cli import decode

        assert deciding.source_offset is not None
        self._partitions = self._partitions or len(reader.partitions(self._topic))
        home = home_partition(deciding.scope, deciding.tenant, deciding.actor, deciding.tool, self._partitions)
        message = reader.record_at(self._topic, home, deciding.source_offset, timeout_s=PATIENCE_S)
        if message is None:
            return None
        call = decode.TopicDecoder("ToolCall", reader.resolver).decode(message.value())
        if isinstance(call, decode.Tombstone | decode.Undecodable) or call.event_id != deciding.event_id:
            return None
        return str(call.effect) != "IRREVERSIBLE"
