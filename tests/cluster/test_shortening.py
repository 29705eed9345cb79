"""What is left of a limit goes to shorter replies, then to a conclusion; nothing is overspent, and the result says what was cut."""

import asyncio
import json
from contextlib import closing
from tempfile import TemporaryDirectory
from typing import Any

from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Role, ScriptedModel, call, say, tool
from agents.call_size import CallSize, fewest
from agents.fallback import Conclude
from orchestrator import Team, open_journal
from orchestrator.cli.command import commands
from orchestrator.journal.allowances import Limit, Window, of_user
from orchestrator.playback import play
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.chat import Finish, ModelReply, ModelRequest, Price, Shortened
from protocols.failures import Verdict
from protocols.plan import Plan, Task

OUT = Price(input_micros=0, output_micros=1_000_000)


@tool
async def look(page: str) -> str:
    """Look at a page."""
    return f"{page} is blank"


def script(request: ModelRequest) -> Any:
    """Three pages, and then more words than there is room for, but for the last ones."""
    turn = sum(message.role == "tool" for message in request.messages)
    if "no more" in request.messages[-1].content:
        return say("two pages were blank", output_tokens=20)
    return say("and so on", output_tokens=900) if turn == 2 else call("look", page=f"p{turn}")


def test_a_reply_that_was_cut_off_for_want_of_room_leads_to_the_conclusion(runtime: str, store: str) -> None:
    model = ScriptedModel(script, price=OUT)
    reader = Role("reader", tools=[look], model=model, max_output_tokens=256, fallback={"budget": Conclude()})
    team = Team("reading", [reader], budget=Limits(micros=256 + 64), reserve=Limits(micros=64))
    result = team.run_sync("go", runtime=runtime, store=store)
    assert (result.status, result.output) == (m.Status.DONE, "two pages were blank")
    (task,) = result.tasks
    assert (task.shortened, task.fallbacks[0].failure.verdict) == (3, Verdict.BUDGET)
    assert "cut off" in task.fallbacks[0].failure.message
    journal = open_journal(store)
    calls = [body for entry in journal.read(result.run_id) if isinstance(body := codec.unpack(entry.body), m.ModelCalled)]
    first, second, third, last = calls
    shorter = [Shortened(tokens=tokens, limit="money of the run") for tokens in (256 - first.usage.micros, third.usage.micros, 64)]
    assert [one.shortened for one in calls] == [None, *shorter]
    assert third.reply is not None
    assert third.reply.finish is Finish.LENGTH
    assert last.usage.micros == 20
    assert first.usage.micros + second.usage.micros + third.usage.micros == 256
    played = asyncio.run(play(journal, result.run_id, team))
    journal.close()
    assert (played.divergences, played.model_calls) == ((), 4)
    shown = CliRunner().invoke(commands, ["show", result.run_id, "--store", store])
    assert "reader: 3 of its model calls had to be short" in shown.output
    assert json.loads(CliRunner().invoke(commands, ["show", result.run_id, "--store", store, "--json"]).stdout)["shortened"] == 3
    assert "room for 64 output tokens only" in CliRunner().invoke(commands, ["trace", result.run_id, "--store", store]).output


def turning(request: ModelRequest) -> Any:
    """Looks at pages for 100 tokens each, until it is told to conclude."""
    if "no more" in request.messages[-1].content:
        return say("some pages were blank", output_tokens=20)
    turn = sum(message.role == "tool" for message in request.messages)
    return ModelReply(tool_calls=(call("look", page=f"p{turn}"),), finish=Finish.TOOL_CALLS, input_tokens=1, output_tokens=100)


def test_an_agent_that_works_by_turns_leaves_room_to_conclude_and_does_without_being_declared_to(store: str) -> None:
    model = ScriptedModel(turning, price=OUT)
    team = Team("reading", [Role("reader", tools=[look], model=model, max_output_tokens=256)])
    result = team.run_sync("go", runtime="inline", store=store, budget=Limits(micros=400))
    assert (result.status, result.output, result.cost_micros) == (m.Status.DONE, "some pages were blank", 320)
    (task,) = result.tasks
    assert (task.shortened, task.fallbacks[0].to.kind, task.fallbacks[0].failure.limit) == (2, "conclude", "money of the run")
    with closing(open_journal(store)) as journal:
        assert asyncio.run(play(journal, result.run_id, team)).divergences == ()
    for own, strategy, spent in ((Limits(micros=400), "react", 300), (Limits(), "single", 0)):
        alone = Team("reading", [Role("reader", tools=[look], model=model, max_output_tokens=256, limits=own, strategy=strategy)])
        ended = alone.run_sync("go", runtime="inline", store=store, budget=Limits(micros=400 if strategy == "react" else 63))
        assert ended.failure is not None
        assert (ended.failure.verdict, ended.cost_micros, ended.fallen_back) == (Verdict.BUDGET, spent, ())


@settings(max_examples=25, deadline=None)
@given(
    most=st.integers(1, 300),
    written=st.integers(0, 300),
    tasks=st.integers(1, 5),
    budget=st.builds(Limits, tokens=st.none() | st.integers(1, 1_500), micros=st.integers(0, 1_500)),
    into=st.integers(0, 2_000_000),
    of_ada=st.booleans(),
)
def test_runs_never_overspend_and_refuse_a_call_only_where_the_shortest_does_not_fit(
    most: int, written: int, tasks: int, budget: Limits, into: int, of_ada: bool
) -> None:
    price = Price(input_micros=into, output_micros=1_000_000)
    model = ScriptedModel(lambda request: say("x", input_tokens=1, output_tokens=written), price=price)
    role = Role("asker", input=str, output=str, model=model, max_output_tokens=most)
    team = Team("askers", [role], planner=Plan(tasks=tuple(Task(id=f"t{n}", role="asker", input="go") for n in range(tasks))))

    with TemporaryDirectory() as place:
        store = f"{place}/journal.db" if of_ada else "memory:"
        if of_ada:
            with closing(open_journal(store)) as journal:
                journal.set_limits([Limit(of_user("ada"), Window.DAY, budget)])
        result = team.run_sync(runtime="inline", store=store, user="ada", budget=Limits() if of_ada else budget)
    used = result.usage
    left = (budget.tokens or 1 << 40) - used.tokens, budget.micros - used.micros
    assert min(left) >= 0
    size = CallSize(1, most, fewest(most), price, 1).need(fewest(most))
    refused = [one for one in result.tasks if one.usage.model_calls == 0]
    assert not refused or size.tokens > left[0] or size.micros > left[1]
