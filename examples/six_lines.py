"""The shortest use: one tool behind its breakers.

FUSEBOARD_BOOTSTRAP=localhost:9092 python examples/six_lines.py
"""

from fuseboard import Effect, Fuseboard

fuse = Fuseboard(actor="support_agent")


@fuse.tool(effect=Effect.WRITE)
def refund(order_id: str) -> str:
    return f"refunded {order_id}"


with fuse.session():
    print(refund("42"))
