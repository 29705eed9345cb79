"""Who pays: whatever a report of costs shows adds up to what the ledger of each run holds, to the micro-unit."""

import asyncio
import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Role, tool
from agents.models.scripted import ScriptedModel, call
from orchestrator import Team
from orchestrator.cli import main
from orchestrator.code import pack
from orchestrator.coordinator import Coordinator
from orchestrator.host import Host
from orchestrator.journal import open_journal
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.port import Entry
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.ledger import RUN, plus
from orchestrator.link import HostGone
from orchestrator.models import Models
from orchestrator.observe.costs import NO_MODEL, By, Cost, Costs, runs_since
from orchestrator.replay import replay
from orchestrator.scheduler import EVERY
from protocols import codec
from protocols import messages as m
from protocols.budget import NOTHING, ZERO, Amount, Limits, Usage, amount
from protocols.chat import ModelRequest, Price, ToolCall
from protocols.failures import ModelError
from protocols.plan import Plan, Task
from protocols.team import FallbackSpec
from tests.orchestrator.conftest import BEGAN, BROKEN, MODEL, Story, tell_everything
from tests.orchestrator.simulation import CALL, Simulation, fan, random_run, request


def rows(journal: Any, by: By, since: int = 0) -> list[Cost]:
    costs = Costs(by, since)
    for row in journal.runs():
        costs.add(journal, row.run)
    assert [costs.total().usage] == [summed(costs.rows())]
    return costs.rows()


def summed(found: Iterable[Cost]) -> Usage:
    return sum((row.usage for row in found), NOTHING)


def settled(journal: Any) -> Amount:
    """What the ledgers of all runs hold."""
    total = ZERO
    for row in journal.runs():
        total = plus(total, replay(journal, row.run).ledger.accounts[RUN].settled)
    return total


def told(journal: Any, run: str, sim: Simulation) -> None:
    """Write a simulated run to the journal."""
    epoch = journal.claim(run)
    journal.append([Entry(run, one.seq, one.at, type(one.body).__name__, codec.pack(one.body)) for one in sim.entries], {run: epoch})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 10),
    trouble=st.floats(0, 0.8),
    calls=st.integers(0, 60),
    by=st.sampled_from(By),
)
def test_rows_of_any_runs_add_up_to_their_ledgers(seed: int, size: int, trouble: float, calls: int, by: By) -> None:
    journal, ended = MemoryJournal(), NOTHING
    for number in range(3):
        sim = random_run(seed + number, request(fan(size), budget=Limits(model_calls=calls, micros=7 * calls)), trouble)
        told(journal, f"run-{number}", sim)
        ended += next(one.usage for one in sim.said if isinstance(one, m.RunEnded))
    found = rows(journal, by)
    assert amount(summed(found)) == settled(journal)
    assert summed(row for row in found if not row.lost) == ended
    assert len({(row.key, row.lost) for row in found}) == len(found)


def test_what_a_task_held_when_it_went_to_review_is_given_back_and_not_lost_with_its_host() -> None:
    sim = Simulation(request(fan(2), budget=Limits(model_calls=40)))
    sim.dispatch()
    for task in ("t0", "t1"):
        sim.say(m.LeaseAsked(task=task, attempt=1, ask=0, need=CALL))
    sent = ToolCall(id="c", name="send", arguments={})
    sim.say(m.ReviewAsked(task="t0", attempt=1, step=1, call=sent, key="k", message="was it sent?"))
    sim.say(m.TaskEnded(task="t1", attempt=9))  # the word of an attempt that is not at work changes nothing
    sim.say(m.AttemptsLost(host="h2", tasks=(("t1", 9),)))
    assert sim.state.ledger.accounts[RUN].settled == ZERO
    sim.say(m.ModelCalled(task="t1", attempt=1, step=1, model="x:y", request="r", usage=CALL))
    sim.say(m.AttemptsLost(host="h1", tasks=(("t0", 1), ("t1", 1))))
    journal = MemoryJournal()
    told(journal, "run-1", sim)
    used, lost = rows(journal, By.TASK)
    assert (used.key, used.usage, used.lost) == ("run-1/t1", CALL, False)
    assert (lost.key, lost.lost) == ("run-1/t1", True)
    assert plus(amount(used.usage), amount(lost.usage)) == sim.state.ledger.accounts[RUN].settled
    assert lost.usage.model_calls > 0


class Losable(Host):
    """A host whose process can be gone."""

    gone = False

    async def ping(self) -> str:
        """See ``HostSide.ping``."""
        if self.gone:
            raise HostGone("gone")
        return await super().ping()


@tool
def look(place: str) -> str:
    """What is there."""
    return f"nothing in {place}"


def test_a_real_run_with_retries_a_lost_host_and_unpriced_calls_is_paid_for_to_the_micro_unit(tmp_path: Path) -> None:
    tries: list[str] = []
    hosts = [Losable("host/a", EVERY, Models()), Host("host/b", EVERY, Models())]
    hosts[1].capacity = 0

    async def script(asked: ModelRequest) -> Any:
        answered = any(message.role == "tool" for message in asked.messages)
        tries.append("second" if answered else "first")
        if tries == ["first"]:
            raise ModelError("busy", retryable=True)
        if not answered:
            return call("look", place="box")
        if tries.count("second") == 1:  # with this call under way the host goes
            hosts[0].gone, hosts[1].capacity = True, 10
            await asyncio.Event().wait()
        return "found nothing"

    priced = ScriptedModel(script, name="priced", price=Price(input_micros=333_333, output_micros=7_000_001))
    unpriced = ScriptedModel(lambda asked: "well", name="unpriced", price=None)
    free = ScriptedModel(lambda asked: "hm", name="free")
    roles = [
        Role("thinker", instructions="Think.", input=str, output=str, model=free),
        Role("seeker", instructions="Look.", input=str, output=str, tools=[look], model=priced),
        Role("talker", instructions="Talk.", input=str, output=str, model=unpriced),
    ]
    plan = Plan(
        tasks=(
            Task(id="seek", role="seeker", input="box"),
            Task(id="talk", role="talker", input="hi", after=("seek",)),
            Task(id="think", role="thinker", input="hi", after=("seek",)),
        )
    )
    team = Team("seekers", roles, planner=plan)
    journal = SqliteJournal(tmp_path / "journal.db")

    async def carried_out() -> None:
        coordinator = Coordinator(journal, hosts)
        await coordinator.start()
        code = await coordinator.put_blob(pack({}))
        for host in hosts:
            host._teams[code.digest] = team.cast
        asked = m.RunRequested(team=team.spec(), plan=m.Value(inline=plan.model_dump()), user="ada", budget=Limits(tokens=10**6), code=code)
        await coordinator.submit("run-1", codec.pack(asked))
        assert await coordinator.wait("run-1", 30)
        await coordinator.close()
        for host in hosts:
            await host.close()

    asyncio.run(carried_out())
    assert tries == ["first", "first", "second", "second"]
    state = replay(journal, "run-1")
    ledger = state.ledger.accounts[RUN].settled
    for by in By:
        found = rows(journal, by)
        assert amount(summed(found)) == ledger
        assert summed(row for row in found if not row.lost) == state.spent()
        assert sum(row.unpriced for row in found) == 1
    by_model = {(row.key, row.lost): row for row in rows(journal, By.MODEL)}
    assert by_model["scripted:priced", False].usage.model_calls == 3
    assert by_model["scripted:priced", False].usage.micros > 0
    assert by_model["scripted:unpriced", False].unpriced == by_model["scripted:unpriced", False].usage.model_calls == 1
    assert by_model["scripted:free", False].unpriced == 0
    assert by_model[NO_MODEL, False].usage == Usage(tool_calls=1)
    assert by_model[NO_MODEL, True].usage.model_calls > 0
    assert [row.key for row in rows(journal, By.USER)] == ["ada", "ada"]
    assert {row.key for row in rows(journal, By.ROLE)} == {"seeker", "talker", "thinker"}
    assert {row.key for row in rows(journal, By.TASK)} == {"run-1/seek", "run-1/talk", "run-1/think"}
    journal.close()


def test_a_report_since_a_moment_has_what_was_spent_from_then_on(new_story) -> None:
    story = new_story().request()
    story.say(m.TasksAdded(tasks=(Task(id="read:a", role="reader"),))).give("read:a").call("read:a", 1)
    between = story.at
    story.call("read:a", 2).tool("read:a", 3)
    assert summed(rows(story.journal, By.RUN, between + 1)) == Usage(
        input_tokens=100, output_tokens=20, micros=30, model_calls=1, tool_calls=1, turns=1
    )
    everybody = story.journal.runs()
    assert [row.run for row in runs_since(story.journal, everybody, between, "ada")] == [story.run]
    assert not list(runs_since(story.journal, everybody, between, "bob"))
    assert not list(runs_since(story.journal, everybody, story.at + 1))


def test_the_role_that_took_a_task_over_pays_for_what_it_did(new_story) -> None:
    story = new_story().request()
    story.say(m.TasksAdded(tasks=(Task(id="read:a", role="reader"),))).give("read:a").call("read:a", 1)
    story.say(m.FellBack(task="read:a", attempt=1, role="reader", to=FallbackSpec(role="clerk"), failure=BROKEN))
    story.give("read:a", attempt=2).call("read:a", 2, attempt=2)
    assert [(row.key, row.usage.model_calls) for row in rows(story.journal, By.ROLE)] == [("clerk", 1), ("reader", 1)]


def test_days_are_those_of_the_calls_in_utc(new_story) -> None:
    story = new_story().request()
    story.say(m.TasksAdded(tasks=(Task(id="read:a", role="reader"),))).give("read:a").call("read:a", 1)
    story.at = BEGAN + 86_400_000
    story.call("read:a", 2)
    assert [(row.key, row.usage.model_calls) for row in rows(story.journal, By.DAY)] == [("2025-10-09", 1), ("2025-10-10", 1)]


def test_what_a_fork_shares_was_paid_once_by_the_run_it_was_forked_from(new_story) -> None:
    story = new_story().request()
    story.say(m.TasksAdded(tasks=(Task(id="read:a", role="reader"),))).give("read:a").call("read:a", 1)
    shared = [*story.journal.read(story.run)]
    request = codec.unpack(shared[0].body)
    story.call("read:a", 2)
    fork = Story(story.journal, "run-1abcdeg-fork1")
    fork.say(request.model_copy(update={"forked": (story.run, story.seq - 1)}), *(codec.unpack(one.body) for one in shared[1:]))
    fork.call("read:a", 2).call("read:a", 3)
    costs = Costs(By.RUN)
    for row in story.journal.runs():
        costs.add(story.journal, row.run)
    assert {row.key: row.usage.model_calls for row in costs.rows()} == {story.run: 2, fork.run: 2}
    assert plus(amount(costs.total().usage), amount(costs.shared.total())) == settled(story.journal)
    story.journal.forget(story.run, story.epoch)
    assert [(row.key, row.usage.model_calls) for row in rows(story.journal, By.RUN)] == [(fork.run, 3)]


@pytest.mark.parametrize(("priced", "micros", "unpriced"), [(None, 0, 1), (None, 30, 0), (True, 0, 0), (False, 0, 1)])
def test_money_that_nobody_knows_is_never_a_silent_zero(new_story, priced: bool | None, micros: int, unpriced: int) -> None:
    story = new_story().request()
    usage = Usage(input_tokens=5, micros=micros, model_calls=1)
    story.say(m.ModelCalled(task="t", attempt=1, step=1, model=MODEL, request="0", usage=usage, priced=priced))
    assert [row.unpriced for row in rows(story.journal, By.MODEL)] == [unpriced]


def test_the_command_shows_rows_and_their_sum(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = str(tmp_path / "costs.db")
    with closing(open_journal(store)) as journal:
        tell_everything(Story(journal))
        story = Story(journal, "run-1abcdeg-bbbbb").request()
        usage = Usage(input_tokens=5, model_calls=1)
        story.say(m.ModelCalled(task="t", attempt=1, step=1, model="own:model", request="0", usage=usage, priced=False))

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["cost", "--store", store, *words])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    code, out, err = typed("--by", "model", "--limit", "1")
    assert code == 0
    assert [line.split() for line in out.splitlines()[1:]] == [
        [MODEL, "5", "0", "500", "100", "$0.00015"],
        ["total", "6", "1", "505", "100", "$0.00015", "+", "1", "unpriced"],
    ]
    assert "2 more rows" in err
    assert "give the model a price" in err
    _, out, _ = typed("--run", "run-1abcdeg", "--json")
    told = json.loads(out)
    assert [(row["key"], row["unpriced"]) for row in told["rows"]] == [("run-1abcdeg-bbbbb", 1)]
    assert told["total"]["unpriced"] == 1
    assert typed("--user", "bob")[1:] == ("", "nothing was spent there; `callboard runs` lists what ran\n")
    code, _, err = typed("--since", "yesterday")
    assert code == 2
    assert err == "callboard: --since 'yesterday' is no time; write it like 7d, 12h or 2026-01-31\n"
    assert typed("--since", "2026-01-31")[0] == 0
