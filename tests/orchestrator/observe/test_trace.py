"""Attempts, turns and calls, read from the journal; and the tree and the spans made of them."""

import io
import json

import pytest
from rich.console import Console

from orchestrator.observe.drawing import draw
from orchestrator.observe.history import History
from orchestrator.observe.outline import Branch, Fold, outline
from orchestrator.observe.spans import spans
from orchestrator.observe.trace import Kind, Outcome, attempts
from protocols import codec
from protocols import messages as m
from protocols.chat import Cut, Shortened, ToolCall
from protocols.failures import BadInput
from protocols.plan import Task


def history_of(story):
    return History(story.run).read(story.journal.read(story.run))


def tried(story, task):
    found = [one for one in attempts(story.journal.read(story.run)) if one.task == task]
    return sorted(found, key=lambda one: one.number)


def drawn(story, *, full=False, everything=False, **chosen):
    history = history_of(story)
    shown = outline(history.tasks(), everything=everything, **chosen)
    by_task = {}
    for attempt in attempts(story.journal.read(story.run), shown.shown()):
        by_task.setdefault(attempt.task, []).append(attempt)
    console = Console(file=io.StringIO(), width=200, markup=False, highlight=False)
    console.print(draw(history.summary(), shown, by_task, full=full, everything=everything))
    return console.file.getvalue()


def test_a_turn_is_a_model_call_with_its_retries_and_tool_calls(everything):
    lost, _ = tried(everything, "read:a")
    [turn] = lost.turns
    assert [(step.kind, step.outcome) for step in turn.steps] == [
        (Kind.MODEL, Outcome.FAILED),
        (Kind.MODEL, Outcome.DONE),
        (Kind.TOOL, Outcome.DONE),
    ]
    assert turn.ended - turn.began == 540


def test_every_turn_begins_with_the_next_model_call(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a")
    for step in range(1, 100, 2):
        story.call("a", step).tool("a", step + 1)
    [attempt] = tried(story.end("a"), "a")
    assert [len(turn.steps) for turn in attempt.turns] == [2] * 50
    assert [turn.number for turn in attempt.turns] == list(range(1, 51))


def test_what_a_request_left_out_is_shown_and_its_summary_belongs_to_the_turn(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a").call("a", 1).tool("a", 2)
    called = m.ModelCalled(task="a", attempt=1, step=3, model="scripted:careful", request="0" * 64)
    story.say(called.model_copy(update={"cut": Cut(messages=1, tokens=1_200, how="summary")}))
    story.say(called.model_copy(update={"step": 4, "cut": Cut(messages=1, tokens=1_200, how="summarised")}))
    story.say(called.model_copy(update={"step": 5, "cut": Cut(messages=12, tokens=9_000)})).end("a")
    [attempt] = tried(story, "a")
    assert [[step.ordinal for step in turn.steps] for turn in attempt.turns] == [[1, 2], [3, 4], [5]]
    text = drawn(story)
    assert "summary of 1 earlier message (~1,200 tokens)" in text
    assert "1 earlier message (~1,200 tokens) summarised" in text
    assert "12 earlier messages (~9,000 tokens) left out" in text
    cuts = [span["attributes"]["callboard.cut"] for span in all_spans(story) if "callboard.cut" in span["attributes"]]
    assert cuts == ["summary", "summarised", "left_out"]
    assert history_of(story).summary().roles["reader"].cut == 2


def test_a_call_that_had_to_be_short_or_was_made_twice_says_so(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a")
    called = m.ModelCalled(task="a", attempt=1, step=1, model="scripted:careful", request="0" * 64)
    story.say(called.model_copy(update={"hedged": True}))
    story.say(called.model_copy(update={"step": 2, "shortened": Shortened(tokens=80, limit="money of the run")})).end("a")
    assert "one of two at once" in drawn(story)
    assert "room for 80 output tokens only" in drawn(story)
    marks = [span["attributes"] for span in all_spans(story)]
    assert sum(one.get("callboard.hedged", False) for one in marks) == 1
    assert [one["gen_ai.request.max_tokens"] for one in marks if one.get("callboard.shortened")] == [80]
    assert history_of(story).summary().roles["reader"].shortened == 1


def test_a_lost_attempt_says_why_and_keeps_what_it_did(everything):
    lost, done = tried(everything, "read:a")
    assert (lost.outcome, lost.note, lost.host) == (Outcome.LOST, "host host-1 was lost", "host-1")
    assert (done.outcome, done.host) == (Outcome.DONE, "host-2")
    failed, taken_over, last = tried(everything, "read:b")
    assert failed.failure is not None
    assert (failed.outcome, taken_over.outcome, last.outcome) == (Outcome.FAILED, Outcome.LOST, Outcome.DONE)
    assert "epoch 2" in taken_over.note


def test_steps_that_come_after_the_loss_belong_to_the_lost_attempt(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a")
    story.say(m.AttemptsLost(host="host-1", tasks=(("a", 1),))).call("a", 1).give("a", attempt=2).end("a", attempt=2)
    lost, done = tried(story, "a")
    assert len(lost.turns) == 1
    assert done.turns == ()


def test_a_write_that_was_announced_and_not_reported_is_in_doubt(everything):
    [turn] = tried(everything, "read:b")[1].turns
    assert [(step.name, step.outcome) for step in turn.steps] == [("send_mail", Outcome.IN_DOUBT)]


def test_the_report_of_a_write_takes_the_place_of_its_announcement(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a")
    call = ToolCall(id="call-1", name="read_file", arguments={})
    story.say(m.ToolIntended(task="a", attempt=1, step=1, call=call, key="k")).tool("a", 1, effect="write").end("a")
    [attempt] = tried(story, "a")
    assert [step.outcome for step in attempt.turns[0].steps] == [Outcome.DONE]


def test_a_delegation_lasts_until_its_subtasks_have_ended(everything):
    _, done = tried(everything, "read:a")
    delegation = done.turns[0].steps[1]
    assert (delegation.kind, delegation.name, delegation.outcome) == (Kind.DELEGATION, "clerk", Outcome.DONE)
    assert delegation.ended - delegation.began == 130


def test_attempts_of_an_unfinished_run_are_at_work(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a").call("a", 1)
    [attempt] = tried(story, "a")
    assert attempt.outcome is Outcome.RUNNING
    assert len(attempt.turns) == 1


def test_the_tree_shows_plan_tasks_subtasks_and_merge(everything):
    text = drawn(everything)
    lines = text.splitlines()
    assert lines[0].startswith("run-1abcdef-aaaaa  audit · partial · ")
    assert "500 in, 100 out · $0.00015" in lines[0]
    for piece in (
        "✓ plan/1  planner",
        "↯ attempt 1",
        "host host-1 was lost",
        "✗ model scripted:careful",
        "provider: the provider answered 503",
        "tool read_file · 40 ms",
        "delegation clerk · 1 subtask",
        "? tool send_mail · in doubt",
        "not run",
        "code_error: ValueError: no licence file",
        "dependency: it needs 'file:c', which failed",
        "✓ merge/1/0",
    ):
        assert piece in text
    parent, child = (next(line for line in lines if piece in line) for piece in ("✓ read:a  ", "✓ read:a/1"))
    assert child.index("✓") > parent.index("✓")


def test_contents_are_shown_when_asked_for_and_cannot_steer_the_terminal(everything):
    assert "what does [bold]it[/bold] say?" not in drawn(everything)
    text = drawn(everything, full=True)
    assert "user (user): what does [bold]it[/bold] say?" in text
    assert "reply: fine" in text
    assert 'arguments: {"path": "LICENSE"}' in text
    assert "clerk.py line 7" in text
    assert "\x1b" not in text


def test_a_wide_fan_out_is_folded_to_the_slowest_and_the_failed(fan_out):
    text = drawn(fan_out(1000))
    assert "… 995 more clerk · 988 done, 7 failed · median 24 ms, p95 47 ms" in text
    assert "✗ t99 " in text
    assert len(text.splitlines()) < 20


def test_folds_can_be_opened(fan_out):
    text = drawn(fan_out(1000), everything=True)
    assert "more clerk" not in text
    assert sum(" clerk · " in line for line in text.splitlines()) == 1000


def test_only_the_slowest_with_those_above_them(everything):
    shown = outline(history_of(everything).tasks(), slowest=1)
    assert shown.shown() == {"read:b"}
    [branch, *folds] = shown.work
    assert isinstance(branch, Branch)
    assert [(fold.role, fold.size) for fold in folds if isinstance(fold, Fold)] == [("reader", 1), ("clerk", 2)]
    [merge] = shown.merge
    assert isinstance(merge, Fold)


def test_a_slow_subtask_is_shown_below_its_parent(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"), Task(id="b", role="reader"))))
    story.give("b").end("b").say(m.TasksAdded(tasks=(Task(id="a/1", role="clerk"),), parent="a"))
    story.give("a/1").end("a/1", took=900)
    [branch, fold] = outline(history_of(story).tasks(), slowest=1).work
    assert isinstance(branch, Branch)
    assert [below.task.task for below in branch.below] == ["a/1"]
    assert isinstance(fold, Fold)
    assert fold.size == 1


def test_one_task_with_what_it_delegated(everything):
    assert outline(history_of(everything).tasks(), only="read:a").shown() == {"read:a", "read:a/1"}
    with pytest.raises(BadInput, match="no task 'nobody'"):
        outline(history_of(everything).tasks(), only="nobody")


def test_long_attempts_show_their_ends(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a")
    for step in range(1, 51):
        story.call("a", step)
    story.end("a")
    text = drawn(story)
    assert "… 38 more turns" in text
    assert "turn 1 " in text
    assert "turn 50 " in text
    assert "turn 25 " in drawn(story, everything=True)


def all_spans(story, full=False):
    history = history_of(story)
    found = spans(history.summary(), history.tasks(), attempts(story.journal.read(story.run)), full=full)
    return [json.loads(span.model_dump_json()) for span in found]


def test_spans_are_named_by_the_genai_conventions(everything):
    found = all_spans(everything)
    names = {span["name"] for span in found}
    assert {"invoke_workflow audit", "plan planner", "invoke_agent reader", "chat careful", "execute_tool read_file"} <= names
    chat = next(span for span in found if span["name"] == "chat careful" and span["status"] == "ok")
    assert chat["kind"] == "client"
    assert chat["attributes"]["gen_ai.operation.name"] == "chat"
    assert chat["attributes"]["gen_ai.provider.name"] == "scripted"
    assert chat["attributes"]["gen_ai.request.model"] == "careful"
    assert chat["attributes"]["gen_ai.usage.input_tokens"] == 100
    assert chat["attributes"]["gen_ai.usage.output_tokens"] == 20
    assert chat["attributes"]["gen_ai.response.finish_reasons"] == ["stop"]
    assert chat["end_time_unix_nano"] - chat["start_time_unix_nano"] == 250_000_000
    tool = next(span for span in found if span["name"] == "execute_tool read_file")
    assert tool["attributes"]["gen_ai.tool.name"] == "read_file"
    assert tool["attributes"]["gen_ai.tool.call.id"] == "call-3"


def test_spans_form_one_tree_with_unique_ids(everything):
    found = all_spans(everything)
    ids = [span["span_id"] for span in found]
    assert len(set(ids)) == len(ids)
    assert len({span["trace_id"] for span in found}) == 1
    assert [span["name"] for span in found if span["parent_span_id"] is None] == ["invoke_workflow audit"]
    assert {span["parent_span_id"] for span in found if span["parent_span_id"]} <= set(ids)
    assert found == all_spans(everything)


def test_failed_lost_and_doubtful_spans_carry_an_error_type(everything):
    found = all_spans(everything)
    errors = {(span["name"], span["attributes"]["error.type"]) for span in found if span["status"] == "error"}
    assert errors == {
        ("invoke_workflow audit", "code_error"),
        ("invoke_agent clerk", "code_error"),
        ("invoke_agent clerk", "dependency"),
        ("attempt 1", "code_error"),
        ("attempt 1", "provider"),
        ("attempt 1", "lost"),
        ("attempt 2", "lost"),
        ("chat careful", "provider"),
        ("execute_tool send_mail", "effect_in_doubt"),
    }
    (clerk,) = [one["attributes"] for one in found if one["attributes"].get("gen_ai.agent.id") == "file:c"]
    assert (clerk["callboard.failure.severity"], clerk["callboard.failure.retryable"]) == ("error", False)
    (said,) = everything.journal.pick(everything.run, [clerk["callboard.entry"]])
    assert codec.unpack(said.body).failure.verdict == clerk["error.type"]


def test_contents_are_in_spans_only_when_asked_for(everything):
    assert "what does" not in json.dumps(all_spans(everything))
    full = next(span for span in all_spans(everything, full=True) if span["name"] == "chat careful")
    assert full["attributes"]["gen_ai.input.messages"][0]["parts"][0]["type"] == "text"


def test_a_run_started_inside_a_trace_stays_in_it(new_story):
    story = new_story().request(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    [root] = all_spans(story)
    assert root["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert root["parent_span_id"] == "b7ad6b7169203331"
    assert root["status"] == "unset"
