"""The resolver, apart from what only a registry can show."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fuseboard_schemas.registry import RegistryResolver


class Unasked:
    """A registry that must not be asked."""

    def schema(self, schema_id: int) -> Any:
        raise AssertionError(schema_id)


@pytest.mark.parametrize("schema_id", [0, 0x8000_0000, 0xFFFF_FFFF])
def test_an_id_that_no_registry_gives_out_is_unknown_without_asking(schema_id: int) -> None:
    assert RegistryResolver(cast("Any", Unasked())).resolve(schema_id) is None
