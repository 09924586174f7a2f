"""The keyed hash of a call's arguments: equal arguments can be recognised, but not read back."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

_SCALARS = frozenset({str, int, float, bool, type(None), bytes})
_DEPTH = 16


class ArgumentHasher:
    """Hashes arguments with BLAKE2b under a secret key (RFC 7693).

    Strings, numbers, None, bytes, enums' and dataclasses' fields, and lists, tuples, sets and mappings of these are
    hashed by value, mappings and sets in any order. Of every other object only the name of its class counts: its own
    ``__repr__`` and ``__eq__`` are never called.

    Args:
        key: The secret; None draws a random one, so that hashes are comparable within this process only.
    """

    def __init__(self, key: str | None) -> None:
        import hashlib

        secret = os.urandom(32) if key is None else hashlib.blake2b(key.encode(), digest_size=32).digest()
        self._keyed = hashlib.blake2b(key=secret, digest_size=16)

    def digest(self, names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """32 hex digits for the arguments of one call; None if they cannot be hashed.

        Args:
            names: Names of the positional parameters, so that it makes no difference how an argument is passed.
            args: Positional arguments.
            kwargs: Keyword arguments.
        """
        try:
            items = list(zip(names, args, strict=False))
            if len(args) > len(names):
                items.append(("*", tuple(args[len(names) :])))
            if kwargs:
                items.extend(kwargs.items())
                items.sort(key=_first)
            for _, value in items:
                if type(value) not in _SCALARS:
                    items = [(name, canonical(value)) for name, value in items]
                    break
            keyed = self._keyed.copy()
            keyed.update(repr(items).encode("utf-8", "surrogatepass"))
            return keyed.hexdigest()
        except Exception:  # Whatever an argument's class does when it is looked at must not reach the agent.
            return None


def _first(item: tuple[str, Any]) -> str:
    return item[0]


def canonical(value: object, depth: int = 0) -> object:
    """The same nested tuples of scalars for arguments that are equal by value."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth >= _DEPTH:
        return "..."
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        pairs = [(canonical(key, depth + 1), canonical(item, depth + 1)) for key, item in mapping.items()]
        return ("map", *sorted(pairs, key=repr))
    if isinstance(value, Set):
        return ("set", *sorted((canonical(item, depth + 1) for item in cast("Set[object]", value)), key=repr))
    if isinstance(value, list | tuple):
        return ("list", *(canonical(item, depth + 1) for item in cast("Sequence[object]", value)))
    # Enums and other named values are hashed as what they stand for.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((item.name, canonical(getattr(value, item.name), depth + 1)) for item in dataclasses.fields(value))
        return (kind.__qualname__, *fields)
    return f"<{kind.__module__}.{kind.__qualname__}>"
