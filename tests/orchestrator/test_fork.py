"""Forks: a run cut anywhere goes on to the same end, does nothing twice that its entries hold, and touches the other run in nothing."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents import Context, Role, ScriptedModel, call, role, tool
from orchestrator import Board, RunResult, Team, open_journal, reduce
from orchestrator.cli import main
from orchestrator.fork import fork
from orchestrator.journal.port import Entry
from orchestrator.observe.history import summarize
from orchestrator.playback import play
from orchestrator.testing import KillHost, rehearse
from protocols import codec
from protocols.budget import Limits
from protocols.chat import ModelRequest
from protocols.failures import BadInput
from protocols.messages import ModelCalled, PauseRequested, RunRequested, Status, ToolCalled, ToolIntended
from protocols.plan import Plan, Task, ref

outside: dict[str, str] = {}
"""Where tools leave what they did: a file, because a run carries its code with it, globals and all."""


def do(what: str, key: str) -> None:
    with open(outside["path"], "a") as file:
        file.write(f"{what}\t{key}\n")


def did() -> list[tuple[str, str]]:
    """What was done, and under which key."""
    path = Path(outside["path"])
    return [tuple(line.split("\t")) for line in path.read_text().splitlines()] if path.exists() else []  # type: ignore[misc]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A journal that holds nothing yet."""
    outside["path"] = str(tmp_path / "outside")
    return str(tmp_path / "journal.db")


@tool
async def look(at: str, context: Context) -> str:
    """Look at something."""
    do(f"look {at}", context.key)
    return f"{at} is fine"


@tool(effect="write", idempotent=True)
async def change(what: str, context: Context) -> str:
    """Change something."""
    do(f"change {what}", context.key)
    return f"changed {what}"


@tool(effect="write")
async def pay(what: str, context: Context) -> str:
    """Pay for something."""
    do(f"pay {what}", context.key)
    return f"paid {what}"


def script(request: ModelRequest) -> Any:
    results = [message.content for message in request.messages if message.role == "tool"]
    item = next(message.content for message in request.messages if message.role == "user")
    return [call("look", at=item), call("change", what=item), "; ".join(results)][len(results)]


SCRIPTED = ScriptedModel(script, name="first")
OTHER = ScriptedModel(script, name="second")


def team(**settings: Any) -> Team:
    worker = Role("worker", instructions="Work.", tools=[look, change], model=SCRIPTED)

    @role
    async def note(text: str) -> str:
        return text.upper()

    def plan(items: list[str]) -> Plan:
        tasks = []
        for item in items:
            tasks += [Task(id=f"work/{item}", role="worker", input=item), Task(id=f"note/{item}", role="note", input=ref(f"work/{item}"))]
        return Plan(tasks=tuple(tasks))

    def joined(parts: list[str]) -> str:
        return "+".join(parts)

    return Team("forking", [worker, note], planner=plan, merge=reduce(joined), **settings)


def carried_on(run: str, store: str) -> RunResult:
    async def carry_on() -> RunResult:
        async with Board(runtime="inline", store=store) as board:
            return await (await board.resume(run)).result()

    return asyncio.run(carry_on())


def forked(run: str, at: int, store: str, **how: Any) -> str:
    journal = open_journal(store)
    try:
        return fork(journal, run, at, **how)
    finally:
        journal.close()


def entries(run: str, store: str) -> list[Entry]:
    journal = open_journal(store)
    try:
        return list(journal.read(run))
    finally:
        journal.close()


def test_a_run_cut_anywhere_comes_to_the_same_end_and_repeats_nothing_that_it_shares(store: str) -> None:
    first = team(budget=Limits(model_calls=50, seconds=600)).run_sync(["a", "b"], runtime="inline", store=store)
    assert first.status is Status.DONE
    then = entries(first.run_id, store)
    ends = then[-2].seq  # what ended the run; from there nothing is left to do
    for at in range(1, ends):
        shared = [codec.unpack(entry.body) for entry in then[:at]]
        before = len(did())
        new = forked(first.run_id, at, store)
        again = carried_on(new, store)
        assert (again.status, again.output, again.usage) == (first.status, first.output, first.usage), at
        recorded = Counter(f"{one.call.name} {next(iter(one.call.arguments.values()))}" for one in shared if isinstance(one, ToolCalled))
        assert Counter(what for what, _ in did()[before:]) == Counter(["look a", "change a", "look b", "change b"]) - recorded, at
        kept = entries(new, store)
        assert [entry[1:] for entry in kept[1:at]] == [entry[1:] for entry in then[1:at]]
        request = codec.unpack(kept[0].body)
        assert isinstance(request, RunRequested)
        assert request.forked == (first.run_id, at)
        in_doubt = {one.key for one in shared if isinstance(one, ToolIntended)}
        ended = {(one.task, one.step) for one in shared if isinstance(one, ToolCalled)}
        for what, key in did()[before:]:
            run, place, step = key.split("/", 1)[0], *key.split("/", 1)[1].rsplit("/", 1)
            announced = key in in_doubt and (place, int(step)) not in ended
            assert run == (first.run_id if announced else new), (at, what)  # in doubt there: asked for again under its own key
    assert entries(first.run_id, store) == then
    for at in (ends, ends + 1):
        with pytest.raises(BadInput, match=rf"ended the run.*fork at {ends - 1} or before"):
            forked(first.run_id, at, store)


def test_a_write_with_no_end_at_the_cut_is_in_doubt_as_after_a_crash(store: str) -> None:
    buyer = Team("buyers", [Role("buyer", tools=[pay], model=ScriptedModel([call("pay", what="it"), "paid"]))])
    first = buyer.run_sync("go", runtime="inline", store=store)
    [intent] = [entry.seq for entry in entries(first.run_id, store) if entry.tag == "ToolIntended"]
    new = forked(first.run_id, intent, store, new="doubtful")

    async def until_asked() -> Any:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.resume(new)
            async for envelope in handle.events():
                if type(envelope.body).__name__ == "ReviewAsked":
                    await handle.cancel()
                    await handle.result()
                    return envelope.body
        raise AssertionError

    before = len(did())
    asked = asyncio.run(until_asked())
    assert asked.key == f"{first.run_id}/buyer/1"
    assert len(did()) == before
    after = carried_on(forked(first.run_id, intent + 1, store), store)  # its end is recorded there: it is not paid again
    assert (after.output, len(did())) == ("paid", before)


def test_another_model_answers_from_the_cut_on_and_nothing_of_the_first_is_read_back(store: str) -> None:
    first = team().run_sync(["a", "b"], runtime="inline", store=store)
    then = entries(first.run_id, store)
    [ended_a] = [entry.seq for entry in then if entry.tag == "TaskEnded" and codec.unpack(entry.body).task == "work/a"]  # type: ignore[attr-defined]
    new = forked(first.run_id, ended_a, store, models={"worker": f"python:{__name__}:OTHER"})
    again = carried_on(new, store)
    assert (again.status, again.output) == (first.status, first.output)
    calls = [message for entry in entries(new, store)[ended_a:] if isinstance(message := codec.unpack(entry.body), ModelCalled)]
    assert {one.model for one in calls if one.task == "work/b"} == {OTHER.id}
    assert not [one for one in calls if one.task == "work/a"]
    assert len([one for one in calls if one.task == "work/b"]) == 3  # all of them: none was answered from the record
    journal = open_journal(store)
    with pytest.raises(BadInput, match=r"role 'worker' changed its model in run .* \(scripted:first, scripted:second\)"):
        asyncio.run(play(journal, new, team()))
    journal.close()


def test_a_goal_can_change_only_while_nothing_was_done_about_the_old_one(store: str) -> None:
    first = team().run_sync(["a"], runtime="inline", store=store)
    assert carried_on(forked(first.run_id, 1, store, goal=["x", "y"]), store).output == "X IS FINE; CHANGED X+Y IS FINE; CHANGED Y"
    with pytest.raises(BadInput, match="with entry 3 work on the old goal began; with another goal fork at 2 or before"):
        forked(first.run_id, 5, store, goal=["x"])

    alone = Team("alone", [Role("doubler", input=int, output=int, run=lambda n: 2 * n)])
    two = alone.run_sync(2, runtime="inline", store=store)
    assert carried_on(forked(two.run_id, 1, store, goal=21), store).output == 42
    with pytest.raises(BadInput, match="valid integer"):
        forked(two.run_id, 1, store, goal="x")
    fixed = Team("fixed", alone.roles, planner=Plan(tasks=(Task(id="t", role="doubler", input=1),)))
    with pytest.raises(BadInput, match="fixed plan, which no goal changes"):
        forked(fixed.run_sync(runtime="inline", store=store).run_id, 1, store, goal=3)


def test_the_time_since_the_cut_does_not_count_and_money_spent_before_it_does(store: str) -> None:
    worker = Role("worker", model=ScriptedModel(lambda request: "so much"))
    plan = Plan(tasks=tuple(Task(id=f"t{n}", role="worker", input="x") for n in range(3)))
    short = Team("short", [worker], planner=plan, budget=Limits(model_calls=60, seconds=5))
    first = short.run_sync(runtime="inline", store=store)
    old = entries(first.run_id, store)
    journal = open_journal(store)
    hours = [entry._replace(run="old", at=entry.at - 36_000_000) for entry in old[:-1]]  # the same run, ten hours ago
    journal.append(hours, {"old": journal.claim("old")})
    journal.close()
    at = next(entry.seq for entry in old if entry.tag == "TaskEnded")
    again = carried_on(forked("old", at, store), store)
    assert (again.status, again.usage) == (Status.DONE, first.usage)


def test_what_can_not_be_forked_is_one_sentence(store: str) -> None:
    first = rehearse(team(), ["a"], chaos=[KillHost(1)], store=store).result
    good: dict[str, Any] = {"run": first.run_id, "at": 4, "store": store}
    for changed, words in (
        ({"run": "nonesuch"}, "there is no run 'nonesuch'"),
        ({"at": 999}, "and no 999"),
        ({"new": first.run_id}, "exists already"),
        ({"new": "a b"}, "can't name a run"),
        ({"new": "last"}, "can't name a run"),
        ({"models": {"worker": "embedded"}}, "does not hold its team's code"),
    ):
        with pytest.raises(BadInput, match=words):
            forked(**good | changed)
    kept = team().run_sync(["a"], runtime="inline", store=store)
    for models, words in (
        ({"nobody": "embedded"}, "has no role 'nobody'; its roles are: worker, note, planner, merge"),
        ({"note": "embedded"}, "role 'note' uses no model"),
        ({"worker": "nobody:x"}, "there is no model 'nobody:x'"),
    ):
        with pytest.raises(BadInput, match=words):
            forked(kept.run_id, 4, store, models=models)
    assert {row.run for row in open_journal(store).runs()} == {first.run_id, kept.run_id}


def test_a_run_that_was_being_stopped_is_forked_before_that(store: str) -> None:
    async def cancelled() -> str:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(team(), ["a"])
            await handle.cancel("enough")
            await handle.result()
            return handle.run_id

    run = asyncio.run(cancelled())
    [stop] = [entry.seq for entry in entries(run, store) if entry.tag == "CancelRequested"]
    with pytest.raises(BadInput, match=rf"entry {stop} led to stopped the run.*fork at {stop - 1} or before"):
        forked(run, stop, store)
    assert carried_on(forked(run, stop - 1, store), store).status is Status.DONE


def test_a_run_that_rested_goes_on_when_it_is_forked(store: str) -> None:
    first = team().run_sync(["a"], runtime="inline", store=store)
    shared = [entry._replace(run="resting") for entry in entries(first.run_id, store)[:6]]
    pause = Entry("resting", 7, shared[-1].at, "PauseRequested", codec.pack(PauseRequested()))
    journal = open_journal(store)
    journal.append([*shared, pause], {"resting": journal.claim("resting")})
    journal.close()
    again = carried_on(forked("resting", 7, store), store)
    assert (again.status, again.output) == (first.status, first.output)


TEAM = """
from agents import Role, ScriptedModel
from orchestrator import Team

team = Team("echo", [Role("echo", model=ScriptedModel(lambda request: "said " + request.messages[-1].content))])
"""


def test_the_command_forks_carries_on_and_show_tells_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "echo_team.py").write_text(TEAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def typed(*arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--store", "j.db"])
        return left.value.code, *capsys.readouterr()

    typed("run", "echo_team.py", "--goal", "hi", "--runtime", "inline", "--run-id", "one")
    code, said, told = typed("fork", "one", "--at", "3", "--runtime", "inline", "--run-id", "two")
    assert (code, said) == (0, "said hi\n")
    assert "two begins with entries 1 to 3 of one" in told
    shown = typed("show", "two")[1]
    assert "forked  one at entry 3" in shown
    assert "resumed" not in shown
    assert json.loads(typed("show", "two", "--json")[1])["forked"] == ["one", 3]
    assert typed("fork", "one", "--at", "1", "--goal", "ho", "--runtime", "inline", "-q")[:2] == (0, "said ho\n")
    for wrong in (("--role-override", "echo"), ("--role-override", "echo=nobody:x"), ("--at", "99")):
        code, _, told = typed("fork", "one", "--at", "3", "--runtime", "inline", *wrong)
        assert (code, told.count("\n")) == (2, 1)
    assert summarize(open_journal("j.db"), "two").forked == ("one", 3)
