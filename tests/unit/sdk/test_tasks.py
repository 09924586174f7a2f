"""Sessions, tasks, traces, and what is recorded inside them."""

from __future__ import annotations

import asyncio

import pytest

from fuseboard import ConfigurationError, Effect, Outcome, PolicyDecision, RouteTier, StepKind, TaskResult
from fuseboard.context import parse_traceparent
from fuseboard_schemas.records import Decision
from tests.unit.sdk.support import World, decode, world

INCOMING = "00-" + "4bf92f3577b34da6a3ce929d0e0e4736" + "-" + "00f067aa0ba902b7" + "-01"


@pytest.fixture
def there() -> World:
    made = world()
    made.alive()
    return made


def steps(there: World) -> list[object]:
    there.deliver()
    return decode(there.broker, "TraceStep")


def test_the_six_lines(there: World) -> None:
    @there.fuse.tool(effect=Effect.WRITE)
    def refund(order_id: str) -> None: ...

    there.alive()
    with there.fuse.session() as session:
        refund("42")
        refund("43")
        with there.fuse.task() as task:
            refund("44")
            refund("45")
    first, second, third, fourth = there.calls()
    assert {call.session_id for call in there.calls()} == {session.session_id}
    # A session may last for days: outside of a task each of its calls is a trace of its own.
    assert len({first.trace_id, second.trace_id, third.trace_id}) == 3
    assert third.trace_id == fourth.trace_id == task.trace_id
    start, end = decode(there.broker, "TraceStep")
    assert [start.kind, end.kind] == [StepKind.SESSION_START, StepKind.SESSION_END]
    assert start.session_id == end.session_id == session.session_id


def test_a_session_that_fails_says_so(there: World) -> None:
    def fail() -> None:
        there.clock.sleep(2.0)
        raise KeyError

    with pytest.raises(KeyError), there.fuse.session("s-1"):
        fail()
    there.deliver()
    end = decode(there.broker, "TraceStep")[-1]
    assert (end.outcome, end.error_type, end.duration_ms, end.session_id) == (Outcome.ERROR, "KeyError", 2000, "s-1")


def test_each_task_is_a_trace_of_its_own(there: World) -> None:
    look = there.fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    with there.fuse.session() as session:
        with there.fuse.task(intent="find") as first:
            look()
        with there.fuse.task("t-2") as second:
            look()
    calls = there.calls()
    assert [call.trace_id for call in calls] == [first.trace_id, second.trace_id]
    assert [call.task_id for call in calls] == [first.task_id, "t-2"]
    assert [call.intent for call in calls] == ["find", None]
    assert {call.session_id for call in calls} == {session.session_id}
    assert len({session.trace_id, first.trace_id, second.trace_id}) == 3


def test_a_task_ends_with_its_outcome(there: World) -> None:
    look = there.fuse.tool(effect=Effect.READ, name="look")(lambda: there.clock.sleep(1.0))
    with there.fuse.task(task_type="refund") as task:
        there.clock.sleep(0.5)
        with there.fuse.model_call("openai", "gpt-4o", route_tier=RouteTier.SLOW) as model:
            there.clock.sleep(0.25)
            model.tokens_in, model.tokens_out, model.cost_usd = 100, 20, 0.001
        there.fuse.record_model_call("openai", "gpt-4o-mini", tokens_in=10, tokens_out=5)
        look()
        look()
        task.score = 0.9
        task.override("wrong order")
    there.deliver()
    (outcome,) = decode(there.broker, "TaskOutcome")
    assert outcome.result is TaskResult.SUCCEEDED
    assert (outcome.tool_calls, outcome.model_calls) == (2, 2)
    assert (outcome.tokens_in, outcome.tokens_out) == (110, 25)
    assert (outcome.time_to_first_action_ms, outcome.duration_ms) == (750, 2750)
    assert (outcome.score, outcome.task_type) == (0.9, "refund")
    assert (outcome.user_override, outcome.override_reason) == (True, "wrong order")
    assert outcome.cost_usd_micros is None, "the parts are known"
    first, second = decode(there.broker, "TraceStep")
    assert (first.kind, first.provider, first.model) == (StepKind.LLM_CALL, "openai", "gpt-4o")
    assert (first.tokens_in, first.cost_usd_micros, first.duration_ms) == (100, 1000, 250)
    assert first.route_tier is RouteTier.SLOW
    assert second.trace_id == task.trace_id


@pytest.mark.parametrize(
    ("error", "result"),
    [(ValueError(), TaskResult.FAILED), (asyncio.CancelledError(), TaskResult.ABANDONED)],
)
def test_the_result_of_a_task_that_raises(there: World, error: BaseException, result: TaskResult) -> None:
    with pytest.raises(type(error)), there.fuse.task():
        raise error
    there.deliver()
    assert decode(there.broker, "TaskOutcome")[0].result is result


def test_the_task_itself_may_say_how_it_ended(there: World) -> None:
    with there.fuse.task() as task:
        task.result = TaskResult.ESCALATED
    there.deliver()
    assert decode(there.broker, "TaskOutcome")[0].result is TaskResult.ESCALATED


def test_a_retrieval_has_a_source_and_an_age(there: World) -> None:
    with there.fuse.retrieval("kb/orders") as found:
        found.source_age_s = 3600.0
    there.fuse.record_retrieval("kb/policies", 60.0, duration_ms=5)
    first, second = steps(there)
    assert (first.source, first.source_age_s) == ("kb/orders", 3600.0)  # type: ignore[attr-defined]
    assert (second.source, second.source_age_s, second.duration_ms) == (  # type: ignore[attr-defined]
        "kb/policies",
        60.0,
        5,
    )


def test_other_records(there: World) -> None:
    there.fuse.record_step(StepKind.PLAN, summary="three steps")
    there.fuse.record_session_request("s-1", router="edge", route="/chat", channel="web")
    there.fuse.publish(
        PolicyDecision(
            event_id="p-1", ts=there.clock.wall_us(), actor="support_agent", decision=Decision.DENY, rule="no-pii"
        )
    )
    there.deliver()
    assert decode(there.broker, "TraceStep")[0].summary == "three steps"
    assert decode(there.broker, "SessionRequest")[0].router == "edge"
    decision = decode(there.broker, "PolicyDecision")[0]
    assert (decision.event_id, decision.client_id, decision.seq) == ("p-1", there.fuse.client_id, 0)


def test_each_topic_counts_for_itself(there: World) -> None:
    look = there.fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    for _ in range(3):
        with there.fuse.session():
            look()
    there.fuse.as_actor("other").record_step(StepKind.PLAN)
    assert [call.seq for call in there.calls()] == [0, 1, 2]
    assert [(step.actor, step.seq) for step in decode(there.broker, "TraceStep")] == [
        *(("support_agent", number) for number in range(6)),
        ("other", 0),
    ]


# --------------------------------------------------------------- trace context


def test_an_incoming_trace_is_continued(there: World) -> None:
    look = there.fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    with there.fuse.task(traceparent=INCOMING) as task:
        assert task.traceparent == INCOMING
        assert there.fuse.traceparent() == INCOMING
        look()
    assert there.fuse.traceparent() is None
    (call,) = there.calls()
    assert call.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ],
)
def test_an_invalid_traceparent_starts_a_new_trace(there: World, header: str | None) -> None:
    assert parse_traceparent(header) is None
    with there.fuse.trace(header) as trace:
        assert len(trace.trace_id) == 32
        assert trace.trace_id != "0" * 32


def test_a_later_version_of_traceparent_is_read_as_far_as_known() -> None:
    parsed = parse_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more")
    assert parsed is not None
    assert parsed.flags == "00"


def test_the_ids_are_gone_outside_of_the_block(there: World) -> None:
    session = there.fuse.session()
    with pytest.raises(RuntimeError, match="inside its with block"):
        _ = session.trace_id


def test_asynchronous_blocks_keep_to_their_own_task(there: World) -> None:
    @there.fuse.tool(effect=Effect.READ)
    async def look() -> None:
        await asyncio.sleep(0)

    async def one(number: int) -> str:
        async with there.fuse.session(f"s-{number}"), there.fuse.task() as task:
            await look()
            return task.trace_id

    async def main() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(20)))

    traces = asyncio.run(main())
    calls = {call.session_id: call.trace_id for call in there.calls()}
    assert calls == {f"s-{number}": trace for number, trace in enumerate(traces)}


# --------------------------------------------------------------------- actors


def test_the_actor_of_the_session_acts_in_every_tool(there: World) -> None:
    look = there.fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    other = there.fuse.as_actor("other")
    with other.session():
        look()
    with there.fuse.session(actor="third"):
        look()
        with there.fuse.acting_as("fourth"):
            look()
    look()
    assert [call.actor for call in there.calls()] == ["other", "third", "fourth", "support_agent"]


def test_another_client_in_the_process_keeps_its_own_actor(there: World) -> None:
    elsewhere = world(actor="elsewhere")
    look = elsewhere.fuse.tool(effect=Effect.READ, name="look")(lambda: None)
    with there.fuse.session() as session:
        look()
    (call,) = elsewhere.calls()
    assert call.actor == "elsewhere"
    assert call.session_id == session.session_id


def test_an_actor_needs_a_name(there: World) -> None:
    with pytest.raises(ConfigurationError, match="actor"):
        there.fuse.as_actor("")
