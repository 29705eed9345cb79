"""What a run came to, folded from its journal."""

import itertools

from orchestrator.observe.history import History, glance, summarize
from orchestrator.observe.output import output, results
from orchestrator.observe.summary import State
from protocols import codec
from protocols import messages as m
from protocols.budget import Usage
from protocols.failures import Failure, Verdict
from protocols.plan import Task


def history_of(story):
    return History(story.run).read(story.journal.read(story.run))


def test_a_run_is_summed_up_from_its_journal_alone(everything):
    run = summarize(everything.journal, everything.run)
    assert (run.team, run.goal, run.user, run.target) == ("audit", "audit everything", "ada", "/jobs/audit.py:team")
    assert run.status is m.Status.PARTIAL
    assert run.failure is not None
    assert run.failure.verdict is Verdict.CODE_ERROR
    assert run.ended == everything.at
    assert run.milliseconds == everything.at - run.began
    assert run.tasks == {State.WAITING: 0, State.RUNNING: 0, State.IN_REVIEW: 0, State.DONE: 5, State.FAILED: 2}
    assert (run.planned, run.succeeded, run.failed) == (4, 2, 2)
    assert (run.resumed, run.lost) == (1, 2)


def test_the_cost_of_all_calls_is_what_the_run_reported(everything):
    run = summarize(everything.journal, everything.run)
    ended = codec.unpack(everything.journal.pick(everything.run, [everything.seq])[0].body)
    assert run.usage == ended.usage
    assert sum((role.usage for role in run.roles.values()), Usage()) == run.usage
    assert run.models == {"scripted:careful": run.usage.model_copy(update={"tool_calls": 0})}
    assert sum((task.usage for task in history_of(everything).tasks()), Usage()) == run.usage


def test_tasks_tell_their_attempts_losses_and_parents(everything):
    tasks = {task.task: task for task in history_of(everything).tasks()}
    assert list(tasks) == ["plan/1", "read:a", "read:b", "file:c", "file:d", "read:a/1", "merge/1/0"]
    lost = tasks["read:a"]
    assert (lost.state, lost.attempts, lost.lost, lost.host) == (State.DONE, 2, 1, "host-2")
    assert lost.usage.model_calls == 4
    retried = tasks["read:b"]
    assert (retried.state, retried.attempts, retried.lost, retried.failure) == (State.DONE, 3, 1, None)
    assert retried.usage.tool_calls == 0  # a tool that does not exist never ran
    assert tasks["read:a/1"].parent == "read:a"
    assert tasks["merge/1/0"].merge
    never_ran = tasks["file:d"]
    assert (never_ran.state, never_ran.attempts, never_ran.seconds) == (State.FAILED, 0, 0)
    assert never_ran.failure is not None
    assert never_ran.failure.verdict is Verdict.DEPENDENCY


def test_time_at_work_counts_every_attempt(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),)))
    story.give("a").say(m.AttemptsLost(host="host-1", tasks=(("a", 1),)), after=300)
    story.give("a", attempt=2).end("a", attempt=2, took=500)
    [task] = history_of(story).tasks()
    assert task.seconds == 0.8


def test_an_interrupted_run_has_not_ended(new_story):
    story = new_story().request()
    story.say(m.TasksAdded(tasks=(Task(id="a", role="clerk"), Task(id="b", role="clerk")))).give("a")
    run = summarize(story.journal, story.run)
    assert (run.status, run.ended) == (m.Status.RUNNING, None)
    assert run.tasks == {State.WAITING: 1, State.RUNNING: 1, State.IN_REVIEW: 0, State.DONE: 0, State.FAILED: 0}
    assert run.milliseconds == story.at - run.began


def test_a_takeover_puts_what_was_at_work_back(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="clerk"),))).give("a")
    story.say(m.RunResumed(epoch=2))
    assert summarize(story.journal, story.run).tasks[State.WAITING] == 1


def test_a_retryable_failure_is_waiting_until_its_attempts_are_used_up(new_story):
    failure = Failure(verdict=Verdict.PROVIDER, message="503", retryable=True)
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),)))
    story.give("a").end("a", failure=failure)
    assert summarize(story.journal, story.run).tasks[State.WAITING] == 1
    story.give("a", attempt=2).end("a", failure=failure, attempt=2)
    assert summarize(story.journal, story.run).tasks[State.FAILED] == 1


def test_nothing_is_tried_again_once_the_run_is_being_stopped(new_story):
    failure = Failure(verdict=Verdict.CANCELLED, message="stopped", retryable=True)
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a")
    story.say(m.CancelRequested()).end("a", failure=failure)
    assert summarize(story.journal, story.run).tasks[State.FAILED] == 1


def test_the_word_of_an_attempt_that_was_given_up_changes_nothing_but_the_cost(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a")
    story.say(m.AttemptsLost(host="host-1", tasks=(("a", 1),))).call("a", 1).end("a", "late")
    run = summarize(story.journal, story.run)
    assert run.tasks[State.WAITING] == 1
    assert run.usage.micros == 30


def test_an_ended_run_is_glanced_at_by_its_first_and_last_entries(everything):
    reads = []
    journal = everything.journal
    read, journal.read = journal.read, lambda *args: reads.append(args)
    [row] = journal.runs()
    glanced = glance(journal, row)
    journal.read = read
    assert reads == []
    whole = summarize(journal, everything.run)
    alike = ("team", "goal", "status", "usage", "planned", "succeeded", "failed", "began", "ended", "failure")
    assert [getattr(glanced, name) for name in alike] == [getattr(whole, name) for name in alike]


def test_a_run_that_has_not_ended_is_glanced_at_in_full(new_story):
    story = new_story().request().say(m.TasksAdded(tasks=(Task(id="a", role="reader"),))).give("a").call("a", 1)
    [row] = story.journal.runs()
    assert glance(story.journal, row).usage.micros == 30


def test_the_merged_output_is_the_output(everything):
    assert output(everything.journal, history_of(everything)) == "# Report\nall of it"


def test_collected_results_come_in_plan_order_without_failed_or_taken_ones(everything, fan_out):
    wide = fan_out(1000)
    collected = output(wide.journal, history_of(wide))
    assert collected == [number for number in range(1000) if number % 100 != 99]
    # read:a is taken by file:c, which failed; read:b is nobody's but the merge's
    assert results(everything.journal, history_of(everything)) == ["BSD"]


def test_output_in_a_blob_is_read_back(new_story):
    story = new_story().request()
    ref = story.journal.put_blob(codec.pack_value(["much"] * 3))
    story.say(m.RunEnded(status=m.Status.DONE, output=m.Value(blob=ref)))
    assert output(story.journal, history_of(story)) == ["much"] * 3


def test_state_counts_add_up_at_every_entry(everything):
    history = History(everything.run)
    for entry in everything.journal.read(everything.run):
        history.read([entry])
        tasks = list(history.tasks())
        assert history.counts == {state: sum(task.state is state for task in tasks) for state in State}
        assert history.usage == sum((task.usage for task in tasks), Usage())
        roles = history.summary().roles
        assert sum(role.tasks for role in roles.values()) == len(tasks)


def test_entries_and_envelopes_fold_alike(everything):
    live = History(everything.run)
    for entry in everything.journal.read(everything.run):
        live.add(codec.unpack(entry.body), entry.at, entry.seq)
    assert live.summary() == summarize(everything.journal, everything.run)


def test_a_wide_run_is_read_as_a_stream(fan_out):
    wide = fan_out(2000)
    taken = 0

    def entries():
        nonlocal taken
        for entry in wide.journal.read(wide.run):
            taken += 1
            yield entry

    history = History(wide.run)
    stream = entries()
    history.read(itertools.islice(stream, 10))
    assert taken == 10
    assert history.read(stream).summary().succeeded == 1980
