"""The hash of arguments: equal by value, keyed, and blind to what it does not know."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from fuseboard.arguments import ArgumentHasher


def digest(*args: Any, names: tuple[str, ...] = ("a", "b"), key: str | None = "k", **kwargs: Any) -> str | None:
    return ArgumentHasher(key).digest(names, args, kwargs)


def test_it_makes_no_difference_how_an_argument_is_passed() -> None:
    assert digest("42", 7) == digest("42", b=7) == digest(a="42", b=7) == digest(b=7, a="42")


def test_different_values_and_types_differ() -> None:
    hashes = {digest(value) for value in ("1", 1, 1.5, True, None, b"1", [1], [[1]], {"x": 1}, {1}, "")}
    assert len(hashes) == 11


def test_the_order_of_mappings_and_sets_does_not_matter() -> None:
    assert digest({"x": 1, "y": [1, {2, 3}]}) == digest({"y": [1, {3, 2}], "x": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest([1, 2]) == digest((1, 2))


def test_known_values_inside_unknown_places() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    @dataclass
    class Order:
        number: int

    assert digest(Colour.RED) == digest("red")
    assert digest(Order(1)) == digest(Order(1))
    assert digest(Order(1)) != digest(Order(2))


def test_an_object_of_another_kind_is_only_its_class() -> None:
    class Client:
        def __repr__(self) -> str:
            raise AssertionError("never called")

        def __eq__(self, other: object) -> bool:
            raise AssertionError("never called")

        __hash__ = None  # type: ignore[assignment]

    assert digest(Client()) == digest(Client())
    assert digest(Client()) != digest(object())


def test_surplus_positional_arguments_count() -> None:
    assert digest(1, 2, 3) != digest(1, 2)
    assert digest(1, 2, 3) != digest(1, 2, 4)


def test_the_key_matters_and_the_default_is_random() -> None:
    assert digest("42") == digest("42")
    assert digest("42") != digest("42", key="other")
    assert digest("42", key=None) != digest("42", key=None)


def test_what_cannot_be_hashed_is_no_error() -> None:
    class Evil(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError

    assert digest(Evil()) is None
    endless: list[Any] = []
    endless.append(endless)
    assert digest(endless) is not None
    assert digest("\ud800") is not None
