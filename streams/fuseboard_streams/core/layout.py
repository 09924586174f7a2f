"""The tables of a shard: one row per key, in families that change together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuseboard_streams.core.statistics import ring_columns
from fuseboard_streams.core.tables import Column, Family, Table

if TYPE_CHECKING:
    from fuseboard_detectors.failure import FailureParams
    from fuseboard_streams.core.rulebook import FailureLevel
    from fuseboard_streams.core.settings import CoreSettings

EPOCH_S = 946_684_800
"""Last-seen times are kept in whole seconds since 2000-01-01, in four bytes."""


def hot_family() -> Family:
    """All that an ordinary success changes."""
    return Family("hot", (Column("successes", "i4"), Column("last_seen", "i4")))


def statistic_columns(odds: int) -> tuple[Column, ...]:
    """What a failure statistic with so many odds keeps, but for its successes."""
    counts = tuple(
        Column(name, "i4")
        for name in (
            "settled", "suspect_left", "pending_calls", "pending_failures", "parked_calls", "parked_failures",
            "run_calls", "run_failures",
        )
    )  # fmt: skip
    return (
        Column("r", "f8", width=odds),
        # 0 stands for the null that the rule in force begins with.
        Column("p0", "f8"),
        *counts,
        Column("learned_calls", "i8"),
        Column("learned_failures", "i8"),
        Column("run_since", "i8"),
    )


def _statistic(params: FailureParams, *, ring: bool) -> Family:
    extra = (Column("ring", "i4", default=-1),) if ring else ()
    columns = statistic_columns(len(params.odds))
    return Family("stat", (*columns, Column("frozen", "u1"), Column("closed_at", "i8"), *extra))


def in_force() -> tuple[Column, ...]:
    """Of a failure statistic: its rule's variant, what its state was made under, and the rules that said so."""
    return Column("rule", "i2"), Column("basis", "i4"), Column("stamp", "i4")


def _hash() -> Family:
    # Hashes are seeded anew by every process: they are undone with a transaction, but not logged.
    return Family("hash", (Column("lo", "u8"), Column("hi", "u8")), volatile=True)


def _gate() -> Family:
    # What the row's breaker refuses, looked up again where it says nothing; see ``core/gates.py``.
    return Family("gate", (Column("gate", "u1"),), volatile=True)


def actors_table(settings: CoreSettings, level: FailureLevel) -> Table:
    """One row per actor; ``refs`` counts the tool and client rows that point at it."""
    key = Family("key", (Column("tenant", str), Column("actor", str), *in_force()))
    refs = Family("refs", (Column("refs", "i4"),))
    # Rows of other tables that only some actors have.
    slots = Family(
        "slots", (Column("spend", "i4", default=-1), Column("violated", "u1"), Column("asked", "i4", default=-1))
    )
    experience = Family("experience", (Column("calls", "i4"),))
    families = (_hash(), key, refs, hot_family(), _statistic(level.params(0), ring=True), slots, experience, _gate())
    return Table("actors", families, limit=settings.max_actors, key=("lo", "hi"))


def tools_table(settings: CoreSettings, level: FailureLevel) -> Table:
    """One row per actor and tool: the actor's row and the tool's number; ``refs`` counts the rows that point at it."""
    key = Family("key", (Column("actor", "i4"), Column("tool", "i4"), *in_force()))
    used = Family("used", (Column("used", "u1"),))
    refs = Family("refs", (Column("refs", "i4"),))
    families = (_hash(), key, refs, hot_family(), _statistic(level.params(0), ring=False), used, _gate())
    return Table("tools", families, limit=settings.max_tools, key=("lo", "hi"))


def clients_table(settings: CoreSettings) -> Table:
    """One row per client, actor and topic: the replay window of its sequence numbers.

    ``actor`` is the actor's row with the topic's number above it (`ShardState.window_rows`).
    """
    key = Family("key", (Column("client", "u8"), Column("actor", "u8")))
    hot = Family("hot", (Column("last_seq", "i8", default=-1), Column("window", "u8"), Column("last_seen", "i4")))
    return Table("clients", (key, hot), limit=settings.max_clients, key=("client", "actor"))


def rings_table(settings: CoreSettings, level: FailureLevel) -> Table:
    """The last counted failures of actors that have some."""
    columns = tuple(Column(name, dtype, width=width) for name, dtype, width in ring_columns(len(level.params(0).odds)))
    return Table("rings", (Family("ring", columns),), limit=settings.max_actors)


def traces_table(name: str, settings: CoreSettings) -> Table:
    """Traces with counted failures: when the first was, how many there are, and the order of arrival."""
    entry = Family("entry", (Column("key", "u8"), Column("start", "i8"), Column("count", "u1"), Column("order", "i8")))
    return Table(name, (entry,), limit=settings.max_traces)
