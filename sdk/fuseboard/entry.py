"""What the publisher and the disk spool hand each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuseboard.spool import Position, Spool
    from fuseboard.transport import Message


@dataclass(slots=True, eq=False)
class Entry:
    """A message on its way, kept until the broker has confirmed it.

    Attributes:
        message: What is sent.
        done: Confirmed, or refused for good.
        position: Its place in ``spool``, None while it is in memory only.
        spool: The spool that has it.
        leftover: Whether it comes from a process that died.
    """

    message: Message
    done: bool = False
    position: Position | None = None
    spool: Spool | None = None
    leftover: bool = False
