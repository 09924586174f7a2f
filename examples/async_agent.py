"""An asynchronous agent: model call, retrieval, retries, a timeout, and a way out when a tool is blocked.

FUSEBOARD_BOOTSTRAP=localhost:9092 python examples/async_agent.py
"""

import asyncio

from fuseboard import Effect, Fuseboard, ModelAccess, TaskResult, ToolBlocked, current_call

fuse = Fuseboard(actor="support_agent")


@fuse.tool(name="orders.find", effect=Effect.READ, timeout=2.0)
async def find_order(order_id: str) -> dict[str, str]:
    await asyncio.sleep(0.01)
    return {"order": order_id, "state": "delivered"}


@fuse.tool(name="billing.refund", effect=Effect.WRITE, timeout=5.0)
async def refund(order_id: str, usd: float) -> str:
    call = current_call()
    assert call is not None
    if call.attempt == 1:
        raise ConnectionError("reset by peer")  # So that there is something to retry here.
    # A real tool hands both on: the key makes a retry harmless, the rest of the budget bounds the request.
    call.amount_usd = usd
    return f"refunded {order_id} under {call.idempotency_key[:8]} with {call.remaining():.0f} s left"


async def refund_with_retries(order_id: str, usd: float) -> str:
    async with fuse.retrying():
        for _ in range(3):
            try:
                return await refund(order_id, usd)
            except ConnectionError:
                await asyncio.sleep(0.01)
    raise ConnectionError("the billing service does not answer")


async def handle(order_id: str) -> None:
    async with fuse.session(), fuse.task(intent="refund an order") as task:
        async with fuse.retrieval("kb/refund-policy", age_s=3600):
            await asyncio.sleep(0.01)
        model = "gpt-4o-mini" if fuse.model_tier() is ModelAccess.FAST_ONLY else "gpt-4o"
        async with fuse.model_call("openai", model) as step:
            await asyncio.sleep(0.01)
            step.tokens_in, step.tokens_out, step.cost_usd = 420, 35, 0.0021
        print(await find_order(order_id))
        try:
            print(await refund_with_retries(order_id, 19.99))
        except ToolBlocked as blocked:
            task.result = TaskResult.ESCALATED
            print(f"a person takes over: {blocked.reason}; try again in {blocked.retry_after} s")


async def main() -> None:
    async with fuse:
        await handle("42")


asyncio.run(main())
