"""What a shard is made of, for those who describe it and change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuseboard_streams.core.breakers import Breakers
    from fuseboard_streams.core.engine import Engine
    from fuseboard_streams.core.identity import Identities
    from fuseboard_streams.core.rulebook import Rulebook
    from fuseboard_streams.core.second_stage import SecondStage
    from fuseboard_streams.core.settings import CoreSettings
    from fuseboard_streams.core.state import ShardState


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one shard, to be read only."""

    settings: CoreSettings
    stream_time: int
    """Microseconds."""
    state: ShardState
    identities: Identities
    book: Rulebook
    breakers: Breakers
    engine: Engine
    second: SecondStage
