"""The trace drawn as a tree for a terminal: run, tasks, attempts, turns, calls; with durations, tokens and money on every line.

Everything that came from models and tools is cleaned of control characters and is never read as markup.
"""

import json
from collections.abc import Mapping, Sequence

from rich.text import Text
from rich.tree import Tree

from orchestrator.observe.figures import brief, clean, count, duration, moment, money, spent
from orchestrator.observe.outline import Branch, Fold, Outline
from orchestrator.observe.summary import RunSummary, State, TaskSummary
from orchestrator.observe.trace import Attempt, Kind, Outcome, Step, Turn
from protocols.budget import Usage
from protocols.chat import Cut
from protocols.failures import Failure
from protocols.messages import ModelCalled, ReviewAsked, ReviewDecided, Status, SubtasksAsked, ToolCalled, ToolIntended

MOST_TURNS = 12
"""Turns of one attempt that are drawn; of more, the first and the last ones, unless everything is asked for."""

_MARKS = {
    State.WAITING: ("○", "dim"),
    State.RUNNING: ("◐", "cyan"),
    State.IN_REVIEW: ("?", "yellow"),
    State.DONE: ("✓", "green"),
    State.FAILED: ("✗", "red"),
}
_OUTCOMES = {
    Outcome.RUNNING: ("◐", "cyan"),
    Outcome.DONE: ("✓", "green"),
    Outcome.FAILED: ("✗", "red"),
    Outcome.LOST: ("↯", "yellow"),
    Outcome.IN_DOUBT: ("?", "yellow"),
    Outcome.IN_REVIEW: ("?", "yellow"),
}
_COLOURS = {
    Status.RUNNING: "cyan",
    Status.DONE: "green",
    Status.PARTIAL: "yellow",
    Status.FAILED: "red",
    Status.BUDGET: "yellow",
    Status.CANCELLED: "yellow",
}


def headline(run: RunSummary) -> Text:
    """A run in one line."""
    standing = run.standing
    line = Text.assemble((run.run, "bold"), f"  {clean(run.team)} · ", (standing, _COLOURS[run.status]))
    line.append(f" · {duration(run.milliseconds)}")
    if run.planned:
        line.append(f" · {run.succeeded:,} of {count(run.planned, 'task')} done")
    if used := spent(run.usage):
        line.append(f" · {used}")
    if run.resumed:
        line.append(f" · resumed {run.resumed}×", "yellow")
    if run.lost:
        line.append(f" · {count(run.lost, 'attempt')} lost", "yellow")
    return line


def draw(
    run: RunSummary, shown: Outline, attempts: Mapping[str, Sequence[Attempt]], *, full: bool = False, everything: bool = False
) -> Tree:
    """The tree of ``run``: what ``shown`` picks, with the ``attempts`` of its tasks by task id; ``full`` adds contents."""
    drawn = Tree(headline(run), guide_style="dim")
    if run.failure:
        drawn.add(_failure(run.failure))
    pen = _Pen(attempts, full, everything)
    for title, items in (("plan", shown.plan), ("tasks", shown.work), ("merge", shown.merge)):
        if items:
            section = drawn.add(Text(title, "bold"))
            for item in items:
                pen.item(section, item)
    return drawn


class _Pen:
    def __init__(self, attempts: Mapping[str, Sequence[Attempt]], full: bool, everything: bool) -> None:
        self.attempts, self.full, self.everything = attempts, full, everything

    def item(self, tree: Tree, item: Branch | Fold) -> None:
        if isinstance(item, Fold):
            tree.add(_fold(item))
            return
        task = item.task
        branch = tree.add(_task(task))
        if task.failure and task.state is State.FAILED:
            self._failed(branch, task.failure)
        for fallen in task.fallbacks:
            why = f"{fallen.failure.verdict.value}: {brief(fallen.failure.message, 160)}"
            branch.add(Text(f"↷ role {fallen.role} failed, {fallen.to.who} took over · {why}", "yellow"))
        tries = self.attempts.get(task.task, ())
        for attempt in tries:
            # a single try that went through is no news: its turns hang on the task
            plain = len(tries) == 1 and attempt.outcome in (Outcome.DONE, Outcome.FAILED)
            self._turns(branch if plain else branch.add(_attempt(attempt)), attempt.turns)
        for below in item.below:
            self.item(branch, below)

    def _turns(self, tree: Tree, turns: Sequence[Turn]) -> None:
        hidden = 0 if self.everything or self.full else len(turns) - MOST_TURNS
        for at, turn in enumerate(turns):
            if hidden > 0 and MOST_TURNS // 2 <= at < MOST_TURNS // 2 + hidden:
                if at == MOST_TURNS // 2:
                    tree.add(Text(f"… {count(hidden, 'more turn')} (--all shows them)", "dim"))
                continue
            # a role without a model has calls but no turns worth a line
            lone = len(turns) == 1 and turn.steps[0].kind is not Kind.MODEL
            branch = tree if lone else tree.add(Text(f"turn {turn.number} · {duration(turn.ended - turn.began)}", "bold dim"))
            for step in turn.steps:
                self._step(branch, step)

    def _step(self, tree: Tree, step: Step) -> None:
        branch = tree.add(_step(step))
        if step.failure and step.outcome is Outcome.FAILED:
            self._failed(branch, step.failure)
        if self.full:
            for label, text in _contents(step):
                branch.add(Text.assemble((f"{label}: ", "dim"), clean(text)))

    def _failed(self, tree: Tree, failure: Failure) -> None:
        branch = tree.add(_failure(failure))
        if self.full:
            for line in failure.evidence:
                branch.add(Text(clean(line), "dim"))


def _task(task: TaskSummary) -> Text:
    mark, colour = _MARKS[task.state]
    line = Text.assemble((f"{mark} ", colour), (task.task, "bold"))
    if task.role != task.task:
        line.append(f"  {task.role}", "dim")
    if task.state in (State.DONE, State.FAILED) and task.attempts:
        line.append(f" · {duration(round(task.seconds * 1000))}")
    elif task.state is not State.DONE:
        line.append(f" · {task.state.words}")
    _used(line, task.usage)
    if task.fallbacks:
        line.append(f" · by a fallback: {task.fallbacks[-1].to.who}", "yellow")
    if task.attempts > 1:
        line.append(f" · {task.attempts} attempts", "yellow")
    if task.host:
        line.append(f" · {task.host}", "dim")
    return line


def _fold(fold: Fold) -> Text:
    states = ", ".join(f"{number:,} {state.words}" for state, number in fold.states.items() if number)
    line = Text(f"… {fold.size:,} more {fold.role} · {states}", "dim")
    line.append(f" · median {duration(fold.middle)}, p95 {duration(fold.high)}")
    _used(line, fold.usage)
    return line


def _attempt(attempt: Attempt) -> Text:
    mark, colour = _OUTCOMES[attempt.outcome]
    line = Text.assemble((f"{mark} ", colour), f"attempt {attempt.number} · {duration(attempt.ended - attempt.began)}")
    line.append(f" · {attempt.host}", "dim")
    if attempt.note:
        line.append(f" · {attempt.note}", "yellow")
    if attempt.failure:
        line.append(f" · {attempt.failure.verdict.value}: {brief(attempt.failure.message, 160)}", colour)
    return line


def _step(step: Step) -> Text:
    mark, colour = _OUTCOMES[step.outcome]
    line = Text.assemble((f"{mark} ", colour), f"{step.kind.value} ", (clean(step.name), "bold"))
    said = step.said
    if isinstance(said, SubtasksAsked):
        line.append(f" · {count(len(said.tasks), 'subtask')}")
    if isinstance(said, ReviewAsked):
        line.append(
            f" · {'waits for a person' if step.outcome is Outcome.IN_REVIEW else 'asked a person'}: {brief(said.message, 160)}", "yellow"
        )
    elif isinstance(said, ReviewDecided):
        line.append(f" · decided by {clean(said.user)} at {moment(step.ended)}")
        line.append(f" · {brief(said.note, 160)}" if said.note else "", "dim")
    elif isinstance(said, ToolIntended):
        line.append(" · in doubt: announced and never reported, so it may or may not have happened", "yellow")
    elif step.outcome is Outcome.IN_DOUBT and step.failure:
        line.append(f" · in doubt: {brief(step.failure.message, 160)}", "yellow")
    elif step.outcome is not Outcome.RUNNING:
        line.append(f" · {duration(step.ended - step.began)}")
    if isinstance(said, ModelCalled):
        line.append(" · from the cache" if said.cached else "", "cyan")
        line.append(f" · {said.then} takes over" if said.then else "", "yellow")
        _used(line, step.usage, calls=False)
        if said.cut is not None:
            line.append(f" · {_cut(said.cut)}", "yellow")
        line.append(" · one of two at once" if said.hedged else "", "cyan")
        line.append(f" · room for {said.shortened.tokens:,} output tokens only" if said.shortened else "", "yellow")
        if said.reply and said.reply.labels:
            line.append(f" → {brief(', '.join(said.reply.labels), 60)}", "cyan")
        elif said.reply and said.reply.tool_calls:
            line.append(f" → {', '.join(clean(call.name) for call in said.reply.tool_calls)}", "cyan")
    elif isinstance(said, ToolCalled | ToolIntended):
        line.append(f" · {brief(said.call.arguments, 60)}", "dim")
        if isinstance(said, ToolCalled):
            line.append(f" · {said.effect}" if said.effect != "read" else "", "yellow")
            line.append(f" · settled by {said.settled}" if said.settled else "" if said.ran else " · not run", "yellow")
            line.append(" · tried again" if said.again else "", "yellow")
    return line


def _used(line: Text, usage: Usage, *, calls: bool = True) -> None:
    if usage.turns > 1 and calls:
        line.append(f" · {usage.turns:,} turns")
    if calls:
        text = spent(usage)
    else:
        text = f"{usage.input_tokens:,} in, {usage.output_tokens:,} out" if usage.tokens else ""
        text += f" · {money(usage.micros)}" if usage.micros else ""
    if text:
        line.append(f" · {text}")


def _cut(cut: Cut) -> str:
    what = f"{count(cut.messages, 'earlier message')} (~{cut.tokens:,} tokens)"
    return f"summary of {what}" if cut.how == "summary" else f"{what} {cut.how.replace('_', ' ')}"


def _failure(failure: Failure) -> Text:
    return Text.assemble((failure.verdict.value, "bold red"), (f": {brief(failure.message, 300)}", "red"))


def _contents(step: Step) -> list[tuple[str, str]]:
    said = step.said
    if isinstance(said, ModelCalled):
        found = [(f"{message.role} ({message.origin.value})", message.content) for message in said.said]
        if said.reply and said.reply.text:
            found.append(("reply", said.reply.text))
        if said.reply:
            found += [(f"calls {call.name}", _json(call.arguments)) for call in said.reply.tool_calls]
        return found
    if isinstance(said, ToolCalled):
        return [("arguments", _json(said.call.arguments)), ("result", said.content)]
    if isinstance(said, ToolIntended):
        return [("arguments", _json(said.call.arguments)), ("key", said.key)]
    if isinstance(said, ReviewAsked):
        return [("arguments", _json(said.call.arguments)), ("key", said.key)]
    if isinstance(said, ReviewDecided):
        return [("result", said.result)] if said.result is not None else []
    return [(task.id, _json(task.input)) for task in said.tasks]


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
