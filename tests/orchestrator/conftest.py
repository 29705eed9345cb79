"""Stories: journals written by hand, entry by entry, for whatever reads journals."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.journal import open_journal
from orchestrator.journal.port import Entry, Journal
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits, Usage
from protocols.chat import ChatMessage, Finish, ModelReply, ToolCall
from protocols.failures import Failure, Verdict
from protocols.plan import Plan, Task, ref
from protocols.team import MergeSpec, RoleSpec, Strategy, TeamSpec
from protocols.trust import Origin

BEGAN = 1_760_000_000_000
TEAM = TeamSpec(
    name="audit",
    planned=True,
    merge=MergeSpec(kind="tree"),
    roles={
        "planner": RoleSpec(name="planner", strategy=Strategy.SINGLE, attempts=2),
        "reader": RoleSpec(name="reader", strategy=Strategy.REACT, attempts=2),
        "clerk": RoleSpec(name="clerk", strategy=Strategy.FUNCTION, attempts=1),
        "merge": RoleSpec(name="merge", strategy=Strategy.FUNCTION),
    },
)
MODEL = "scripted:careful"


class Story:
    """Tells one run to a journal. ``at`` is the clock (milliseconds), which each message moves on by ``after``."""

    def __init__(self, journal: Journal, run: str = "run-1abcdef-aaaaa", at: int = BEGAN) -> None:
        self.journal, self.run, self.at, self.seq = journal, run, at, 0
        self.epoch = journal.claim(run)
        self.given: dict[str, int] = {}

    def say(self, *messages: m.Message, after: int = 10) -> "Story":
        """Append ``messages``, ``after`` milliseconds apart."""
        entries = []
        for message in messages:
            self.at, self.seq = self.at + after, self.seq + 1
            entries.append(Entry(self.run, self.seq, self.at, type(message).__name__, codec.pack(message)))
        self.journal.append(entries, {self.run: self.epoch})
        return self

    def request(self, goal: object = "audit everything", team: TeamSpec = TEAM, **fields: object) -> "Story":
        """A goal for ``team``."""
        return self.say(m.RunRequested(team=team, goal=goal, user="ada", target="/jobs/audit.py:team", **fields))

    def give(self, *tasks: str, attempt: int = 1, host: str = "host-1") -> "Story":
        """Dispatch ``tasks`` to ``host``."""
        self.say(m.Dispatched(items=tuple(m.Dispatch(task=task, attempt=attempt, host=host) for task in tasks)))
        self.given.update(dict.fromkeys(tasks, self.at))
        return self

    def end(self, task: str, output: object = None, failure: Failure | None = None, attempt: int = 1, took: int = 100) -> "Story":
        """An attempt, begun when it was given, ends ``took`` milliseconds from now."""
        value = None if failure else m.Value(inline=output)
        began, ended = self.given[task], self.at + took
        body = m.TaskEnded(task=task, attempt=attempt, output=value, failure=failure, began=began, ended=ended)
        return self.say(body, after=took)

    def call(self, task: str, step: int, *, attempt: int = 1, text: str = "fine", failure: Failure | None = None) -> "Story":
        """A model call of 100 tokens in, 20 out and 30 micro-units (all of it also when it fails)."""
        reply = None if failure else ModelReply(text=text, finish=Finish.STOP)
        said = (ChatMessage(role="user", content="what does [bold]it[/bold] say?\x1b[31m", origin=Origin.USER),)
        usage = Usage(input_tokens=100, output_tokens=20, micros=30, model_calls=1, turns=1)
        common = {"task": task, "attempt": attempt, "step": step, "model": MODEL, "request": "0" * 64}
        times = {"began": self.at, "ended": self.at + 250}
        return self.say(m.ModelCalled(said=said, reply=reply, failure=failure, usage=usage, **common, **times), after=250)

    def tool(self, task: str, step: int, *, attempt: int = 1, name: str = "read_file", ran: bool = True, **fields: object) -> "Story":
        """A tool call of 40 ms."""
        call = ToolCall(id=f"call-{step}", name=name, arguments={"path": "LICENSE"})
        body = m.ToolCalled(
            task=task, attempt=attempt, step=step, call=call, content="MIT", ran=ran, began=self.at, ended=self.at + 40, **fields
        )
        return self.say(body, after=40)


PROVIDER = Failure(verdict=Verdict.PROVIDER, message="the provider answered 503", retryable=True)
BROKEN = Failure(verdict=Verdict.CODE_ERROR, message="ValueError: no licence file", evidence=("clerk.py line 7",))


def tell_everything(story: Story) -> Story:
    """A run in which everything happens: plan, retry, lost host, subtasks, a write in doubt, failures, takeover, merge."""
    story.request().say(m.TasksAdded(tasks=(Task(id="plan/1", role="planner", input={"goal": "audit everything"}),)))
    story.give("plan/1").call("plan/1", 1).end("plan/1", Plan(tasks=()).model_dump())
    first, second = Task(id="read:a", role="reader", input="a"), Task(id="read:b", role="reader", input="b")
    third = Task(id="file:c", role="clerk", input={"all": [ref("read:a")]}, tolerant=True)
    fourth = Task(id="file:d", role="clerk", input=ref("file:c"))
    story.say(m.TasksAdded(tasks=(first, second), more=True), m.TasksAdded(tasks=(third, fourth)))
    story.give("read:a", "read:b")
    # read:a: the provider fails once inside a turn, then the host is lost after a tool call; its second attempt delegates
    story.call("read:a", 1, failure=PROVIDER).call("read:a", 2).tool("read:a", 3)
    story.say(m.AttemptsLost(host="host-1", tasks=(("read:a", 1),)))
    story.give("read:a", attempt=2, host="host-2").call("read:a", 4, attempt=2)
    child = Task(id="read:a/1", role="clerk", input="x")
    story.say(m.SubtasksAsked(task="read:a", attempt=2, step=5, tasks=(child,)), m.TasksAdded(tasks=(child,), parent="read:a"))
    story.give("read:a/1", host="host-2").end("read:a/1", 1)
    story.say(m.SubtasksEnded(task="read:a", attempt=2, step=5, outputs=(m.Value(inline=1),), failures=(None,)))
    story.call("read:a", 6, attempt=2).end("read:a", "MIT", attempt=2, took=400)
    # read:b: a failure that is tried again, then a write that stays in doubt when another coordinator takes over
    story.end("read:b", failure=PROVIDER).give("read:b", attempt=2)
    sent = ToolCall(id="call-1", name="send_mail", arguments={"to": "ada"})
    story.say(m.ToolIntended(task="read:b", attempt=2, step=1, call=sent, key="run/read:b/1"))
    story.epoch = story.journal.claim(story.run)
    story.say(m.RunResumed(epoch=story.epoch))
    story.give("read:b", attempt=3).tool("read:b", 2, attempt=3, name="no_such_tool", ran=False).end("read:b", "BSD", attempt=3)
    story.give("file:c").end("file:c", failure=BROKEN)
    needs = Failure(verdict=Verdict.DEPENDENCY, message="it needs 'file:c', which failed")
    story.say(m.TaskClosed(task="file:d", failure=needs))
    story.say(m.TasksAdded(tasks=(Task(id="merge/1/0", role="merge", input={"items": [ref("read:b")]}),), merge=True))
    story.give("merge/1/0").end("merge/1/0", "# Report\nall of it")
    usage = Usage(input_tokens=500, output_tokens=100, micros=150, model_calls=5, tool_calls=1, turns=5)
    output = m.Value(inline="# Report\nall of it")
    return story.say(m.RunEnded(status=m.Status.PARTIAL, output=output, failure=BROKEN, usage=usage, succeeded=2, failed=2))


def tell_fan_out(story: Story, size: int) -> Story:
    """A run of ``size`` tasks of one role, collected; every hundredth fails."""
    team = TeamSpec(name="wide", roles={"clerk": RoleSpec(name="clerk", strategy=Strategy.FUNCTION, attempts=1)})
    story.request(list(range(3)), team, budget=Limits(seconds=60))
    names = [f"t{number}" for number in range(size)]
    for start in range(0, size, 500):
        chunk = names[start : start + 500]
        more = start + 500 < size
        story.say(m.TasksAdded(tasks=tuple(Task(id=name, role="clerk", input=1) for name in chunk), more=more), after=1)
    for start in range(0, size, 500):
        chunk = names[start : start + 500]
        story.give(*chunk)
        ends = []
        for at, name in enumerate(chunk, start):
            bad = at % 100 == 99
            times = {"began": story.at, "ended": story.at + at % 50}
            value = None if bad else m.Value(inline=at)
            ends.append(m.TaskEnded(task=name, attempt=1, output=value, failure=BROKEN if bad else None, **times))
        story.say(*ends, after=0)
    failed = size // 100
    status = m.Status.PARTIAL if failed else m.Status.DONE
    return story.say(m.RunEnded(status=status, failure=BROKEN if failed else None, succeeded=size - failed, failed=failed))


@pytest.fixture
def journal() -> Journal:
    """A journal in memory."""
    return open_journal("memory:")


@pytest.fixture
def everything(journal: Journal) -> Story:
    """The story in which everything happens, told in memory."""
    return tell_everything(Story(journal))


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The path of a journal file that holds the story of everything, and after it a fan-out of 1,000 tasks."""
    path = str(tmp_path / "journal.db")
    opened = open_journal(path)
    tell_everything(Story(opened))
    tell_fan_out(Story(opened, "run-1abcdeg-bbbbb", BEGAN + 100_000), 1000)
    opened.close()
    return path


@pytest.fixture
def new_story(journal: Journal) -> Callable[..., Story]:
    """Stories in the ``journal`` of the test."""
    return lambda run="run-1abcdef-aaaaa": Story(journal, run)


@pytest.fixture
def fan_out(journal: Journal) -> Callable[[int], Story]:
    """A wide run of that many tasks, told in the ``journal`` of the test."""
    return lambda size: tell_fan_out(Story(journal, "run-1abcdeg-bbbbb"), size)


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], store: str) -> Callable[..., tuple[int, str, str]]:
    """A command line on the store of the test: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--store", store])
        shown = capsys.readouterr()
        return int(str(left.value.code)), shown.out, shown.err

    return call
