"""How runs failed: every failed task once, by verdict, with the entries that say so; and one place that describes every verdict."""

import asyncio
import json
import re
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Role, ScriptedModel, call, tool
from orchestrator import Board, Team
from orchestrator.cli import main
from orchestrator.journal import open_journal
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.port import Entry
from orchestrator.observe.failures import By, failed, grouped
from orchestrator.observe.proofs import proofs
from orchestrator.reducer.state import Phase
from orchestrator.testing import rehearse
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.failures import MODES, Failure, ModelError, Severity, Verdict
from protocols.plan import Task
from tests.orchestrator.conftest import BROKEN, MODEL, PROVIDER, Story, tell_everything
from tests.orchestrator.simulation import fan, random_run, request

DOCS = Path(__file__).parents[3] / "docs"


def test_every_verdict_has_a_severity_and_a_description_and_the_page_about_failures_has_a_line_for_each() -> None:
    assert set(MODES) == set(Verdict)
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.+?) \|$", (DOCS / "failures.md").read_text(), re.MULTILINE)
    assert [(verdict, severity, meaning) for verdict, severity, meaning, _ in listed] == [
        (verdict.value, MODES[verdict].severity.value, MODES[verdict].description) for verdict in Verdict
    ]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 10), trouble=st.floats(0, 0.8), calls=st.none() | st.integers(0, 20))
def test_every_task_that_failed_for_good_is_reported_once_with_the_entry_that_says_so(
    seed: int, size: int, trouble: float, calls: int | None
) -> None:
    sim = random_run(seed, request(fan(size), budget=Limits(model_calls=calls)), trouble)
    journal = MemoryJournal()
    epoch = journal.claim("run-1")
    journal.append(
        [Entry("run-1", one.seq, one.at, type(one.body).__name__, codec.pack(one.body)) for one in sim.entries], {"run-1": epoch}
    )
    found = list(failed(journal, "run-1"))
    verdicts = {name: task.failure.verdict for name, task in sim.state.tasks.items() if task.phase is Phase.FAILED and task.failure}
    assert {one.task: one.failure.verdict for one in found if one.task} == verdicts
    for one in found:
        (entry,) = journal.pick("run-1", [one.entry])
        said = codec.unpack(entry.body)
        assert isinstance(said, m.TaskEnded | m.TaskClosed) if one.task else isinstance(said, m.RunEnded)
        assert said.failure == one.failure
    for by in By:
        rows = grouped(found, by)
        assert sum(row.count for row in rows) == len(found)
        counted: Counter[Verdict] = Counter()
        for row in rows:
            counted[row.verdict] += row.count
        assert counted == Counter(one.failure.verdict for one in found)


def test_rows_come_most_severe_first_and_say_what_may_be_tried_again(new_story) -> None:
    story = new_story().request()
    names = [f"t{number}" for number in range(4)]
    story.say(m.TasksAdded(tasks=tuple(Task(id=name, role="clerk") for name in names))).give(*names)
    doubt = Failure(verdict=Verdict.EFFECT_IN_DOUBT, message="a mail may have been sent")
    story.end("t0", failure=BROKEN).end("t1", failure=BROKEN).end("t2", failure=PROVIDER).end("t3", failure=doubt)
    rows = grouped(failed(story.journal, story.run), By.MODE)
    assert [(row.verdict, row.severity, row.count, row.retryable) for row in rows] == [
        (Verdict.EFFECT_IN_DOUBT, Severity.CRITICAL, 1, 0),
        (Verdict.CODE_ERROR, Severity.ERROR, 2, 0),
        (Verdict.PROVIDER, Severity.ERROR, 1, 1),
    ]
    assert [place.entry for place in rows[1].evidence] == [4, 5]


def test_what_was_tried_again_has_not_failed_and_a_failure_of_the_run_alone_is_reported(new_story) -> None:
    story = new_story().request()
    story.say(m.TasksAdded(tasks=(Task(id="read:a", role="reader"),))).give("read:a").end("read:a", failure=PROVIDER)
    story.give("read:a", attempt=2).call("read:a", 1, attempt=2).end("read:a", "MIT", attempt=2)
    assert not list(failed(story.journal, story.run))
    refused = Failure(verdict=Verdict.PLAN, message="the plan did not pass the checks")
    story.say(m.RunEnded(status=m.Status.FAILED, failure=refused))
    (one,) = failed(story.journal, story.run)
    assert (one.task, one.entry, one.failure) == ("", story.seq, refused)


def test_what_failed_before_a_fork_is_reported_once(new_story) -> None:
    story = new_story().request()
    tasks = (Task(id="file:a", role="clerk"), Task(id="file:b", role="clerk"))
    story.say(m.TasksAdded(tasks=tasks)).give("file:a", "file:b").end("file:a", failure=BROKEN)
    request, *rest = (codec.unpack(one.body) for one in story.journal.read(story.run))
    fork = Story(story.journal, "run-1abcdeg-fork1")
    fork.say(request.model_copy(update={"forked": (story.run, story.seq)}), *rest)
    fork.given = story.given
    fork.end("file:b", failure=BROKEN)
    assert [one.task for one in failed(story.journal, fork.run)] == ["file:b"]


def test_the_model_asked_last_is_named_where_it_is_wanted(new_story) -> None:
    story = new_story().request()
    story.say(m.TasksAdded(tasks=(Task(id="read:a", role="reader"),))).give("read:a").call("read:a", 1).end("read:a", failure=BROKEN)
    (row,) = grouped(failed(story.journal, story.run, models=True), By.MODEL)
    assert row.key == MODEL


def test_the_command_shows_verdicts_and_where_they_stand(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = str(tmp_path / "failures.db")
    with closing(open_journal(store)) as journal:
        tell_everything(Story(journal))

    def typed(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["failures", "--store", store, *words])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    code, out, err = typed()
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [["error", "code_error", "1", "0"], ["notice", "dependency", "1", "0"]]
    assert f"callboard failures run-1abcdef-aaaaa --store {store}" in err
    told = json.loads(typed("--by", "role", "--json")[1])
    places = [(row["key"], row["verdict"], row["evidence"][0]["task"]) for row in told["failures"]]
    assert places == [("clerk", "code_error", "file:c"), ("clerk", "dependency", "file:d")]
    assert typed("--since", "2026-01-31")[1:] == ("", "no task failed in 0 runs\n")


def test_the_entries_that_show_why_each_task_failed_are_named(tmp_path: Path) -> None:
    store = str(tmp_path / "proofs.db")

    @tool
    def look(n: int) -> str:
        """Look at something."""
        return "nothing"

    async def sleep(text: str) -> str:
        await asyncio.Event().wait()
        return text

    def proven(team: Team, **budget: Any) -> list[str]:
        done = rehearse(team, "go", store=store, budget=Limits(**budget))
        (lost,) = done.result.failed
        assert lost.failure is not None
        *steps, end = (done.messages[entry - 1] for entry in lost.entries)
        assert isinstance(end, m.TaskEnded)
        assert all(isinstance(one, m.ModelCalled | m.ToolCalled) for one in steps)
        with closing(open_journal(store)) as journal:
            found = proofs(journal, done.result.run_id, {lost.task: lost.failure})[lost.task]
        assert all(type(done.messages[one.entry - 1]) is not m.TaskEnded for one in found)
        return [one.what for one in found]

    again = Team("again", [Role("r", tools=[look], model=ScriptedModel(lambda _: call("look", n=1)))])
    *equal, asked = proven(again)
    assert len(equal) == 4
    assert all(one.startswith('look {"n": 1}') for one in equal)
    assert asked == 'scripted:script asked for look {"n": 1}'
    assert proven(again, model_calls=2) == ["no room was left: model calls of the run"]
    wrong = Team("wrong", [Role("r", tools=[look], model=ScriptedModel(lambda asked: call("lok", n=len(asked.messages))))])
    assert ["was refused" in one for one in proven(wrong)] == [True, True, True, False]
    down = Team("down", [Role("r", attempts=1, model=ScriptedModel([ModelError("no such model")]))])
    assert proven(down) == ["scripted:script failed: model scripted:script failed (try 1): no such model"]
    assert proven(Team("slow", [Role("sleep", run=sleep)]), seconds=0.2) == ["the run's seconds were over"]


def test_a_task_that_was_stopped_says_why() -> None:
    begun = asyncio.Event()

    async def sleep(text: str) -> str:
        begun.set()
        await asyncio.Event().wait()
        return text

    async def stopped() -> tuple[Failure | None, ...]:
        async with Board(runtime="inline", store="memory:") as board:
            handle = await board.start(Team("slow", [Role("sleep", run=sleep)]), "go")
            await begun.wait()
            await handle.cancel("the customer called it off")
            return tuple(task.failure for task in (await handle.result()).failed)

    (failure,) = asyncio.run(stopped())
    assert failure is not None
    assert failure.verdict is Verdict.CANCELLED
    assert failure.message == "stopped with its run: the customer called it off"


def test_hosts_that_were_lost_prove_an_infrastructure_failure(new_story) -> None:
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="read:a", role="reader"),)))
    for attempt in (1, 2):
        story.give("read:a", attempt=attempt).say(m.AttemptsLost(host="host-1", tasks=(("read:a", attempt),)))
    story.epoch = story.journal.claim(story.run)
    story.say(m.RunResumed(epoch=story.epoch))  # when it was at no host
    lost = Failure(verdict=Verdict.INFRASTRUCTURE, message="its host was lost 2 times")
    story.say(m.TaskClosed(task="read:a", failure=lost))
    assert [one.entry for one in proofs(story.journal, story.run, {"read:a": lost})["read:a"]] == [4, 6]
