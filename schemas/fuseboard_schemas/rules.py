"""Field rules: what a record that decodes must still fulfil to be used."""

from __future__ import annotations

MAX_NAME_BYTES = 256


def check_identity(tenant: str, actor: str, tool: str) -> str | None:
    """Why these names cannot be used, or None if they can.

    A name is 1 to 256 bytes of UTF-8 without NUL.
    """
    for field, value in (("tenant", tenant), ("actor", actor), ("tool", tool)):
        if not value:
            return f"{field} is empty: expected 1 to {MAX_NAME_BYTES} bytes"
        if "\x00" in value:
            return f"{field} contains a NUL character: remove it"
        if len(value.encode()) > MAX_NAME_BYTES:
            return f"{field} is longer than {MAX_NAME_BYTES} bytes: shorten it"
    return None
