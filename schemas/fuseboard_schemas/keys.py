"""Keys, breaker ids, and the partition in which everything about one target meets.

All producers must use Kafka's own partitioner: murmur2 of the key, its sign bit cleared, modulo the number of
partitions (librdkafka calls it ``murmur2_random``; its default is another one).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from fuseboard_schemas.errors import FuseboardError
from fuseboard_schemas.records.enums import Scope

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_PARTS: dict[Scope, int] = {Scope.ACTOR: 2, Scope.ACTOR_TOOL: 3, Scope.TOOL: 2, Scope.TENANT: 1, Scope.SESSION: 3}


class KeyFormatError(FuseboardError, ValueError):
    """A key or breaker id that is not written as it should be, or lacks a part."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a breaker stands for."""

    scope: Scope
    tenant: str
    actor: str | None = None
    tool: str | None = None
    trace_id: str | None = None


def encode_part(part: str) -> str:
    """One part of a key: ``%`` and ``/`` percent-encoded, everything else as it is."""
    return part.replace("%", "%25").replace("/", "%2F")


def decode_part(part: str) -> str:
    """The inverse of :func:`encode_part`.

    Raises:
        KeyFormatError: The part holds a percent sign that encodes neither ``%`` nor ``/``.
    """
    plain = part.replace("%2F", "/").replace("%25", "%") if "%" in part else part
    if encode_part(plain) != part:
        raise KeyFormatError(f"{part!r} is no part of a key: % must be written %25 and / must be written %2F.")
    return plain


def actor_key(tenant: str, actor: str) -> str:
    """Key of everything about one actor: ``tenant/actor``."""
    return f"{encode_part(tenant)}/{encode_part(actor)}"


def tool_key(tenant: str, tool: str) -> str:
    """Key of everything about one tool of a whole tenant: ``tenant/tool``."""
    return f"{encode_part(tenant)}/{encode_part(tool)}"


def tenant_key(tenant: str) -> str:
    """Key of everything about a tenant."""
    return encode_part(tenant)


@lru_cache(maxsize=1 << 14, typed=True)
def breaker_id(
    scope: Scope, tenant: str, actor: str | None = None, tool: str | None = None, trace_id: str | None = None
) -> str:
    """Id of a breaker, for example ``ACTOR_TOOL:default/support_agent_v4/billing.refund``.

    Args:
        scope: Kind of target; it says which of the other arguments are used.
        tenant: Tenant of the target.
        actor: Needed for ACTOR, ACTOR_TOOL and SESSION.
        tool: Needed for ACTOR_TOOL and TOOL.
        trace_id: Needed for SESSION.

    Raises:
        KeyFormatError: A part that the scope needs is None.
    """
    if scope is Scope.ACTOR_TOOL:
        parts: tuple[str | None, ...] = (tenant, actor, tool)
    elif scope is Scope.ACTOR:
        parts = (tenant, actor)
    elif scope is Scope.TOOL:
        parts = (tenant, tool)
    elif scope is Scope.TENANT:
        parts = (tenant,)
    elif scope is Scope.SESSION:
        parts = (tenant, actor, trace_id)
    else:
        raise KeyFormatError(f"The scope {scope!r} has no breakers.")
    if any(part is None for part in parts):
        raise KeyFormatError(
            f"A breaker of scope {scope} needs {_PARTS[scope]} parts; one of them is missing: {parts}."
        )
    return f"{scope}:" + "/".join(encode_part(part or "") for part in parts)


def parse_breaker_id(text: str) -> Target:
    """The target that a breaker id names.

    Raises:
        KeyFormatError: The text is not a breaker id.
    """
    name, colon, rest = text.partition(":")
    scope = Scope.__members__.get(name)
    if scope is None or not colon or scope not in _PARTS:
        raise KeyFormatError(f"{text!r} is no breaker id: it must start with one of {', '.join(_PARTS)} and a colon.")
    parts = [decode_part(part) for part in rest.split("/")]
    if len(parts) != _PARTS[scope]:
        raise KeyFormatError(f"{text!r} is no breaker id: {scope} has {_PARTS[scope]} parts, not {len(parts)}.")
    if scope is Scope.ACTOR_TOOL:
        return Target(scope, parts[0], actor=parts[1], tool=parts[2])
    if scope is Scope.TOOL:
        return Target(scope, parts[0], tool=parts[1])
    if scope is Scope.SESSION:
        return Target(scope, parts[0], actor=parts[1], trace_id=parts[2])
    return Target(scope, parts[0], actor=parts[1] if scope is Scope.ACTOR else None)


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 of some bytes, as a signed integer like in Java.

    Source: ``org.apache.kafka.common.utils.Utils.murmur2``.
    """
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    if length > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    h ^= h >> 15
    return h - 0x1_0000_0000 if h & 0x8000_0000 else h


def partition_for(key: bytes | str, partitions: int) -> int:
    """The partition to which Kafka's own partitioner sends a key."""
    data = key.encode() if isinstance(key, str) else key
    return (murmur2(data) & 0x7FFFFFFF) % partitions


def home_key(scope: Scope, tenant: str, actor: str | None, tool: str | None) -> str:
    """The key whose partition is the home of all records about a target.

    Raises:
        KeyFormatError: The actor or tool that the scope needs is None.
    """
    if scope in (Scope.ACTOR, Scope.ACTOR_TOOL, Scope.SESSION) and actor is not None:
        return actor_key(tenant, actor)
    if scope is Scope.TOOL and tool is not None:
        return tool_key(tenant, tool)
    if scope is Scope.TENANT:
        return tenant_key(tenant)
    raise KeyFormatError(f"A target of scope {scope} of tenant {tenant!r} has no home: actor {actor!r}, tool {tool!r}.")


def home_partition(scope: Scope, tenant: str, actor: str | None, tool: str | None, partitions: int) -> int:
    """The partition in which all records about a target meet, whatever their own key is."""
    return partition_for(home_key(scope, tenant, actor, tool), partitions)
