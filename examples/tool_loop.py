"""Guarding every tool in one place: the loop that runs what a model asks for.

    FUSEBOARD_BOOTSTRAP=localhost:9092 python examples/tool_loop.py

Providers whose client has no hook for tool calls leave the loop to you, which is the right place anyway: one block
guards all tools, and a refusal or an error goes back to the model as the tool's result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fuseboard import Effect, Fuseboard, ToolBlocked


@dataclass(frozen=True)
class Tool:
    """A function and what it does to the world."""

    run: Callable[..., str]
    effect: Effect


TOOLS = {
    "find_order": Tool(lambda order_id: f"order {order_id} was delivered", Effect.READ),
    "refund": Tool(lambda order_id: f"refunded {order_id}", Effect.WRITE),
    "close_account": Tool(lambda user_id: f"closed {user_id}", Effect.IRREVERSIBLE),
}

REQUESTS: list[dict[str, Any]] = [
    {"id": "t1", "name": "find_order", "input": {"order_id": "42"}},
    {"id": "t2", "name": "refund", "input": {"order": "42"}},
    {"id": "t3", "name": "refund", "input": {"order_id": "42"}},
    {"id": "t4", "name": "close_account", "input": {"user_id": "u-1"}},
]
"""What the model asks for; the second is a mistake of the model's."""

fuse = Fuseboard(actor="support_agent")


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run one tool request and make the message that answers it."""
    tool = TOOLS[request["name"]]
    try:
        with fuse.call(request["name"], effect=tool.effect, args=request["input"], idempotency_key=request["id"]):
            content, failed = tool.run(**request["input"]), False
    except ToolBlocked as blocked:
        content, failed = f"This tool is not available now: {blocked.reason}. Do not try again.", True
    except Exception as error:
        content, failed = f"{type(error).__name__}: {error}", True
    return {"type": "tool_result", "tool_use_id": request["id"], "content": content, "is_error": failed}


with fuse, fuse.session(), fuse.task(intent="refund an order"):
    for request in REQUESTS:
        print(run(request))
