"""Tasks that wait for a person: in the reducer, over restarts, and as the command line shows and decides them."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agents import Context, Role, ScriptedModel, Tool, call, tool
from agents.effects import Done, NotDone
from orchestrator import Board, RunResult, Team, open_journal, reducer
from orchestrator.coordinator import Coordinator
from orchestrator.host import Host
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.port import Entry, Journal
from orchestrator.observe.history import History, summarize, unpacked
from orchestrator.observe.progress import Progress
from orchestrator.observe.reviews import reviews
from orchestrator.observe.summary import WAITING, State
from orchestrator.observe.trace import Outcome, attempts
from orchestrator.reducer.state import STEPS_A_ROLE, Phase
from protocols import codec
from protocols import messages as m
from protocols.budget import Limits
from protocols.chat import ModelRequest, ToolCall
from protocols.envelope import Envelope
from protocols.failures import BadInput, Failure, StorageError, Verdict
from protocols.plan import Plan, Task, ref
from protocols.team import FallbackSpec
from tests.orchestrator.simulation import (
    CALL,
    Simulation,
    fan,
    fetch,
    open_writes,
    random_life,
    random_run,
    request,
    review,
    team,
    within_limits,
)
from tests.orchestrator.test_coordinator import FullDisk, with_coordinator
from tests.orchestrator.test_reducer import delegating

PAY = ToolCall(id="c", name="pay", arguments={"to": "ann"})
DOUBT = Failure(verdict=Verdict.EFFECT_IN_DOUBT, message="in doubt")


def decided(decision: m.Decision, task: str = "t0", step: int = 7) -> m.ReviewDecided:
    return m.ReviewDecided(task=task, step=step, decision=decision, user="ada")


# --- the reducer ------------------------------------------------------------------------------------------------------


def test_a_task_in_review_holds_no_lease_and_no_place_and_is_tried_again_when_it_is_decided() -> None:
    spec = request(fan(2)).team
    roles = {"worker": spec.roles["worker"].model_copy(update={"concurrency": 1})}
    sim = Simulation(request(fan(2), spec.model_copy(update={"roles": roles}), Limits(model_calls=8)), check=within_limits)
    sim.dispatch()
    sim.say(m.LeaseAsked(task="t0", attempt=1, ask=1, need=CALL))
    sim.say(review("t0", 1))
    assert sim.state.ledger.accounts[""].reserved == (0, 0, 0, 0, 0)
    assert [one.task for one in sim.dispatch()] == ["t1"]
    sim.finish("t1", 1)
    sim.finish("t0", failure=DOUBT)  # the word of the attempt that asked
    sim.say(m.AttemptsLost(host="h1", tasks=(("t0", 1),)))
    sim.say(m.RunResumed(epoch=2))
    sim.say(decided(m.Decision.DONE, step=6))
    assert sim.state.tasks["t0"].phase is Phase.IN_REVIEW
    assert sim.dispatch() == []
    assert not sim.ended
    sim.say(decided(m.Decision.DONE))
    sim.say(decided(m.Decision.FAIL))  # too late: it is tried again already
    asked, said = (next(entry.seq for entry in sim.entries if isinstance(entry.body, kind)) for kind in (m.ReviewAsked, m.ReviewDecided))
    assert [seq for seq, _ in sim.state.tasks["t0"].steps] == [asked, said + 1]
    assert [(one.task, one.attempt) for one in sim.dispatch()] == [("t0", 2)]
    sim.finish("t0", 0)
    assert sim.state.status is m.Status.DONE


@pytest.mark.parametrize(
    "end",
    [decided(m.Decision.FAIL), m.CancelRequested(reason="enough"), m.DeadlinePassed()],
    ids=["decided", "cancelled", "deadline"],
)
def test_a_task_that_ends_in_review_ends_with_its_doubt_and_so_do_those_that_need_it(end: m.Message) -> None:
    plan = Plan(tasks=(*fan(1).tasks, Task(id="after", role="worker", input=ref("t0"))))
    sim = Simulation(request(plan, budget=Limits(seconds=60)))
    sim.dispatch()
    sim.say(review("t0", 1))
    sim.say(end)
    assert sim.ended
    failure = sim.state.tasks["t0"].failure
    assert failure is not None
    assert (failure.verdict, failure.evidence) == (Verdict.EFFECT_IN_DOUBT, ("run-1/t0/7",))
    assert failure.message.startswith("nobody saw its end; ")
    after = sim.state.tasks["after"].failure
    assert after is not None
    assert after.verdict is Verdict.DEPENDENCY
    sim.say(decided(m.Decision.DONE))
    assert sim.state.tasks["t0"].phase is Phase.FAILED


def test_a_subtask_in_review_ends_with_its_doubt_when_nobody_needs_it_any_more() -> None:
    sim = Simulation(delegating())
    sim.dispatch()
    sim.say(m.SubtasksAsked(task="t0", attempt=1, step=0, tasks=(Task(id="t0/a", role="worker"),)))
    sim.dispatch()
    sim.say(review("t0/a", 1))
    sim.finish("t0", failure=Failure(verdict=Verdict.DEADLINE, message="too long"))
    failure = sim.state.tasks["t0/a"].failure
    assert failure is not None
    assert failure.verdict is Verdict.EFFECT_IN_DOUBT
    assert "'t0', which asked for it, has ended" in failure.message
    assert sim.ended


def test_an_attempt_that_ends_in_a_review_is_no_failed_try_unless_it_was_recorded_as_one() -> None:
    for counted in (False, True):
        spec = team("worker")
        worker = spec.roles["worker"].model_copy(update={"attempts": 2})
        sim = Simulation(request(fan(1), spec.model_copy(update={"roles": {"worker": worker}})))
        for attempt in (1, 2):
            sim.dispatch()
            sim.say(review("t0", attempt).model_copy(update={"counted": counted}))
            sim.say(decided(m.Decision.RETRY))
        sim.dispatch()
        sim.finish("t0", failure=Failure(verdict=Verdict.PROVIDER, message="no", retryable=True))
        assert sim.ended is counted
    written = msgpack.packb([2, "ReviewAsked", review("t0", 1).model_dump(mode="json", exclude={"counted"})])
    assert codec.unpack(written) == review("t0", 1).model_copy(update={"counted": True})


def test_nobody_is_asked_in_a_run_that_is_ending() -> None:
    sim = Simulation(request(fan(1)))
    sim.dispatch()
    sim.say(m.CancelRequested(reason="enough"))
    sim.say(review("t0", 1))
    assert not sim.ended
    sim.finish("t0", failure=DOUBT)
    assert sim.state.status is m.Status.CANCELLED
    assert sim.state.tasks["t0"].failure == DOUBT


def intent(task: str = "t0", attempt: int = 1, step: int = 7) -> m.ToolIntended:
    return m.ToolIntended(task=task, attempt=attempt, step=step, call=PAY, key=f"run-1/{task}/{step}", began=1)


def with_fallback() -> m.RunRequested:
    spec = team("worker", "other")
    to = (FallbackSpec(kind="role", role="other"),)
    roles = spec.roles | {"worker": spec.roles["worker"].model_copy(update={"fallbacks": to, "attempts": 1})}
    return request(fan(1), spec.model_copy(update={"roles": roles}))


@pytest.mark.parametrize("losses", [0, 5], ids=["it gave up", "its hosts were lost"])
def test_a_write_in_doubt_is_settled_by_a_person_before_a_fallback_could_make_it_again(losses: int) -> None:
    sim = Simulation(with_fallback())
    sim.dispatch()
    sim.say(intent())
    if losses:
        for attempt in range(1, losses + 1):
            assert sim.state.tasks["t0"].phase is Phase.RUNNING
            sim.say(m.AttemptsLost(host="h1", tasks=(("t0", attempt),)))
            sim.dispatch()
    else:
        sim.finish("t0", failure=Failure(verdict=Verdict.DEADLINE, message="too long"))
    me = sim.state.tasks["t0"]
    assert me.phase is Phase.IN_REVIEW
    assert me.review is not None
    assert (me.review.step, me.review.key, me.review.call) == (7, "run-1/t0/7", PAY)
    assert sim.dispatch() == []
    sim.say(decided(m.Decision.NOT_DONE))
    assert [one.attempt for one in sim.dispatch()] == [max(losses, 1) + 1]
    sim.finish("t0", failure=Failure(verdict=Verdict.DEADLINE, message="too long"))
    assert me.task.role == "other"
    sim.complete()
    assert sim.state.status is m.Status.DONE


@given(seed=st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_no_task_ends_or_changes_hands_with_a_write_in_doubt_unless_its_end_says_so(seed: int) -> None:
    fallen = False
    for sim in random_life(seed, with_fallback(), trouble=0.3):
        me = sim.state.tasks["t0"]
        if me.phase is Phase.FAILED and sim.state.stopping is None and open_writes(sim, "t0"):
            assert me.failure is not None
            assert me.failure.verdict is Verdict.EFFECT_IN_DOUBT
        if me.fallen and not fallen:
            fallen = True
            assert not open_writes(sim, "t0")


@given(seed=st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_whoever_reads_the_journal_sees_the_same_tasks_in_review(seed: int) -> None:
    sim = random_run(seed, request(fan(6)), trouble=0.5)
    journal, history, state = MemoryJournal(), History("run-1"), reducer.begin("run-1", 0, sim.asked)
    epoch = journal.claim("run-1")
    for entry in sim.entries:
        state, _ = reducer.step(state, entry, fetch)
        history.add(entry.body, entry.at, entry.seq)
        journal.append([Entry("run-1", entry.seq, entry.at, type(entry.body).__name__, codec.pack(entry.body))], {"run-1": epoch})
        there = {name for name, one in state.tasks.items() if one.phase is Phase.IN_REVIEW}
        assert {one.task for one in history.tasks() if one.state is State.IN_REVIEW} == there
        assert state.in_review == len(there)
        if isinstance(entry.body, (m.ReviewAsked, m.TaskClosed, m.Dispatched, m.RunEnded)):
            assert {one.task for one in reviews(journal, "run-1") if one.is_open} == there


# --- real runs, in this process ---------------------------------------------------------------------------------------


class Bank:
    """Payments, in a file that is the truth about them. Those to ``slow`` are answered too late, those to ``lost`` never arrive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def paid(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []

    @property
    def tool(self) -> Tool:
        return tool(effect="write", timeout=0.05)(self.pay)

    async def pay(self, to: str, context: Context) -> str:
        late = context.attempt == 1 and to in ("slow", "lost")
        if not (late and to == "lost"):
            with self.path.open("a") as file:
                file.write(f"{to}\n")
        if late:
            await asyncio.sleep(5)
        return f"paid {to}"


def script(request: ModelRequest) -> Any:
    last = request.messages[-1]
    return last.content if last.role == "tool" else call("pay", to=last.content)


def payers(bank: Bank) -> Team:
    payer = Role("payer", input=str, output=str, tools=[bank.tool], model=ScriptedModel(script))
    return Team("payers", [payer], planner=lambda goal: Plan(tasks=tuple(Task(id=f"pay/{to}", role="payer", input=to) for to in goal)))


async def asked(handle: Any, count: int = 1) -> None:
    async for envelope in handle.events():
        count -= isinstance(envelope.body, m.TaskEnded) and envelope.body.failure is not None
        if not count:
            return


def begun(store: str, bank: Bank, goal: list[str], **settings: Any) -> str:
    """A run whose process ended when every task was decided or in review."""

    async def begin() -> str:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(payers(bank), goal, **settings)
            await asked(handle, sum(to in ("slow", "lost") for to in goal))
            return handle.run_id

    return asyncio.run(begin())


async def resumed(store: str, run: str) -> RunResult:
    async with Board(runtime="inline", store=store) as board:
        return await (await board.resume(run)).result()


def test_what_waits_for_a_person_outlives_its_process_and_goes_on_with_what_is_decided(
    store: str, tmp_path: Path, typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.reviewing.WAIT_SECONDS", 0.0)
    bank = Bank(tmp_path / "bank")
    run = begun(store, bank, ["slow", "lost", "bob"])
    assert sorted(bank.paid) == ["bob", "slow"]
    assert WAITING in typed("runs")[1]
    assert f"callboard reviews --run {run}" in typed("show", "last")[1]
    _, out, _ = typed("reviews", "--json")
    queue = {one["task"]: one for one in json.loads(out)["reviews"]}
    assert set(queue) == {"pay/slow", "pay/lost"}
    one = queue["pay/slow"]
    assert (one["tool"], one["arguments"], one["key"]) == ("pay", {"to": "slow"}, f"{run}/pay/slow/1")
    assert one["began"] > 0
    assert "announced pay" in one["evidence"][0]
    assert "longer than 0.05 s" in one["evidence"][1]
    code, _, err = typed("review", "last", "pay/slow", "--done", "--result", "receipt 7", "--by", "ada", "--note", "seen it")
    assert code == 0
    assert f"callboard resume {run}" in err
    code, _, err = typed("review", "last", "pay/lost/1", "--not-done", "--by", "bea")
    assert code == 0
    assert len(open_journal(store).posts([run])) == 2
    open_journal(store).post(run, b"what nobody can read holds nobody up")
    result = asyncio.run(resumed(store, run))
    assert result.status is m.Status.DONE
    assert result.output == ["receipt 7", "paid lost", "paid bob"]
    assert sorted(bank.paid) == ["bob", "lost", "slow"]
    assert open_journal(store).posts([run]) == []
    assert result.usage.tool_calls == 4  # every try counts, and nothing that was only said to be done
    assert "waits for a person" not in progress_of(store, run)
    shown = typed("trace", "last")[1]
    assert "decided by ada at 20" in shown
    assert "seen it" in shown
    assert "settled by review" in shown
    assert "nothing waits" in typed("reviews")[2]
    assert "done, says ada" in typed("reviews", "--all")[1]
    code, _, err = typed("review", "last", "pay/slow", "--fail")
    assert code == 2
    assert "waits for nobody any more: done, says ada" in err
    assert_replays(open_journal(store), run)


def assert_replays(journal: Journal, run: str) -> None:
    """What the live coordinator decided is what the journal decides again."""
    state, due = None, list[m.Message]()
    for entry in journal.read(run):
        body = codec.unpack(entry.body)
        if due:
            assert body == due.pop(0)
        if state is None:
            assert isinstance(body, m.RunRequested)
            state = reducer.begin(run, entry.at, body)
        state, follows = reducer.step(state, Envelope(run, entry.seq, entry.at, body), fetch)
        due = [*follows, *due]
    assert due == []


def progress_of(store: str, run: str) -> str:
    """What is shown of a run when its journal is read from the beginning."""
    written = io.StringIO()
    with Progress(Console(file=written, width=400), run, decide=f"callboard review {run} --store x.db") as progress:
        for entry in open_journal(store).read(run):
            progress.show(Envelope(run, entry.seq, entry.at, codec.unpack(entry.body)))
    return written.getvalue()


def test_a_run_at_work_says_what_it_waits_for_and_how_to_decide(store: str, tmp_path: Path) -> None:
    run = begun(store, Bank(tmp_path / "bank"), ["slow"])
    shown = progress_of(store, run)
    assert "pay/slow waits for a person: tool 'pay' failed: it took longer than 0.05 s; it may or may not have happened" in shown
    assert f"callboard review {run} --store x.db pay/slow --done | --not-done | --fail" in shown
    assert "1 in review" in shown
    assert "✗" not in shown


def test_a_decision_reaches_the_run_at_work_and_one_that_comes_too_late_is_refused(
    store: str, tmp_path: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    bank = Bank(tmp_path / "bank")

    async def work() -> tuple[RunResult, tuple[int, str, str]]:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(payers(bank), ["lost", "slow"])
            await asked(handle, 2)
            with pytest.raises(BadInput, match="waits for nobody"):
                await handle.decide("pay/bob", m.Decision.DONE)
            await handle.decide("pay/slow", m.Decision.FAIL, user="ada", note="no money")
            said = await asyncio.to_thread(typed, "review", handle.run_id, "pay/lost", "--not-done", "--json")
            return await handle.result(), said

    result, (code, out, _) = asyncio.run(work())
    assert code == 0
    assert json.loads(out)["how"] == "decided"
    assert result.status is m.Status.PARTIAL
    assert result.output == ["paid lost"]
    assert sorted(bank.paid) == ["lost", "slow"]
    failure = result.tasks[-1].failure
    assert failure is not None
    assert failure.verdict is Verdict.EFFECT_IN_DOUBT
    assert "ada ended it: no money" in failure.message


def test_a_decision_that_can_not_be_stored_stays_where_it_was_left(store: str, tmp_path: Path) -> None:
    bank = Bank(tmp_path / "bank")
    run = begun(store, bank, ["lost"])
    full = FullDisk(Path(store))
    full.tag = "ReviewDecided"
    full.post(run, codec.pack(decided(m.Decision.NOT_DONE, "pay/lost", 1)))

    async def fail(coordinator: Coordinator, host: Host) -> None:
        await coordinator.resume(run)
        with pytest.raises(StorageError, match="no space"):
            await coordinator.wait(run, 30.0)

    with_coordinator(full, fail)
    assert len(full.posts([run])) == 1
    full.close()
    assert asyncio.run(resumed(store, run)).output == ["paid lost"]
    assert bank.paid == ["lost"]


def test_what_is_in_review_at_the_deadline_ends_with_its_doubt_recorded(store: str, tmp_path: Path) -> None:
    bank = Bank(tmp_path / "bank")
    run = begun(store, bank, ["slow"], budget=Limits(seconds=2.0))
    journal = open_journal(store)
    before = History(run).read(journal.read(run))
    assert before.counts[State.IN_REVIEW] == 1
    assert before.summary().standing == WAITING
    result = asyncio.run(resumed(store, run))
    assert result.status is m.Status.BUDGET
    assert result.tasks[-1].failure is not None
    assert result.tasks[-1].failure.verdict is Verdict.EFFECT_IN_DOUBT
    assert [(one.is_open, one.decision) for one in reviews(journal, run)] == [(False, None)]
    assert summarize(journal, run).tasks[State.FAILED] == 1
    assert bank.paid == ["slow"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["last", "pay/slow"], "say what is so"),
        (["last", "pay/slow", "--done", "--fail"], "--done and --fail contradict each other"),
        (["last", "pay/slow", "--fail", "--result", "x"], "it goes with --done"),
        (["last", "pay/nobody", "--done"], "waits for a person at 'pay/nobody'"),
    ],
)
def test_a_decision_that_can_not_be_meant_is_one_sentence(
    store: str, tmp_path: Path, typed: Callable[..., tuple[int, str, str]], arguments: list[str], sentence: str
) -> None:
    begun(store, Bank(tmp_path / "bank"), ["slow"])
    code, _, err = typed("review", *arguments)
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err


# --- writes that are broken off -----------------------------------------------------------------------------------------


def biller(paid: list[str], reconcile: Any = None) -> Team:
    """A role whose time is over while it pays, and one that takes over from it and pays as well."""

    async def pay(context: Context) -> str:
        """Pay."""
        paid.append(context.key)
        if context.step < STEPS_A_ROLE:
            await asyncio.sleep(5)
        return "paid"

    tools = [tool(effect="write", reconcile=reconcile)(pay)]
    model = ScriptedModel(lambda request: request.messages[-1].content if request.messages[-1].role == "tool" else call("pay"))
    second = Role("second", input=str, output=str, tools=tools, model=model)
    first = Role("first", input=str, output=str, tools=tools, model=model, limits=Limits(seconds=0.1), fallback={"*": second})
    return Team("biller", [first, second], planner=lambda goal: Plan(tasks=(Task(id="t", role="first", input=goal),)))


def test_a_write_that_was_broken_off_goes_to_a_person_and_not_to_a_fallback(store: str) -> None:
    paid: list[str] = []

    async def work() -> tuple[RunResult, list[str]]:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(biller(paid), "go")
            async for envelope in handle.events():
                if isinstance(envelope.body, m.ReviewAsked):
                    break
            before = list(paid)
            await handle.decide("t", m.Decision.DONE, user="ada", result="paid")
            return await handle.result(), before

    result, before = asyncio.run(work())
    assert before == [f"{result.run_id}/t/1"]
    assert result.status is m.Status.DONE
    [asked] = reviews(open_journal(store), result.run_id)
    assert (asked.decision, asked.user) == (m.Decision.DONE, "ada")
    assert "did not end in the 0.1 s" in asked.message
    assert "was stopped before it ended" in asked.evidence[-1]
    assert [one.outcome for one in attempts(open_journal(store).read(result.run_id))][-1] is Outcome.IN_DOUBT
    assert_replays(open_journal(store), result.run_id)


@pytest.mark.parametrize("happened", [True, False])
def test_nobody_is_asked_of_a_write_that_its_tool_can_tell_of(store: str, happened: bool) -> None:
    paid: list[str] = []

    async def look(key: str) -> Done | NotDone:
        return Done("paid") if happened else NotDone()

    result = biller(paid, look).run_sync("go", runtime="inline", store=store)
    assert result.status is m.Status.DONE
    assert result.tasks[-1].role == "second"
    assert reviews(open_journal(store), result.run_id) == []
    settled = [one for one in map(unpacked, open_journal(store).read(result.run_id)) if isinstance(one, m.ToolCalled) and one.settled]
    assert [(one.settled, one.failure is None) for one in settled] == [("reconcile", happened)]


def test_a_write_of_which_nobody_knew_when_its_run_was_cancelled_is_listed(store: str, typed: Callable[..., tuple[int, str, str]]) -> None:
    paid: list[str] = []

    async def work() -> RunResult:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(biller(paid), "go")
            async for envelope in handle.events():
                if isinstance(envelope.body, m.ToolIntended):
                    await handle.cancel("enough")
            return await handle.result()

    result = asyncio.run(work())
    assert result.status is m.Status.CANCELLED
    assert "nothing waits for a person" in typed("reviews", "--all")[2]
    assert f"{result.run_id}/t/1" in typed("reviews", "--all")[1]
    assert "1 write of" in typed("show", "last")[2]
    code, _, err = typed("review", "last", "t", "--done")
    assert (code, "waits for nobody any more" in err) == (2, True)


def test_nobody_takes_over_from_a_task_that_ended_while_its_subtask_wrote() -> None:
    spec = team("worker", "other")
    worker = spec.roles["worker"].model_copy(update={"fallbacks": (FallbackSpec(kind="role", role="other"),), "delegates": True})
    sim = Simulation(request(fan(1), spec.model_copy(update={"roles": spec.roles | {"worker": worker}})))
    sim.dispatch()
    sim.say(m.SubtasksAsked(task="t0", attempt=1, step=0, tasks=(Task(id="t0/a", role="worker"),)))
    sim.dispatch()
    sim.say(intent("t0/a"))
    sim.finish("t0", failure=Failure(verdict=Verdict.CODE_ERROR, message="it raised"))
    me, child = sim.state.tasks["t0"], sim.state.tasks["t0/a"]
    assert me.failure is not None
    assert (me.failure.verdict, me.failure.evidence) == (Verdict.EFFECT_IN_DOUBT, ("run-1/t0/a/7",))
    assert me.failure.message.startswith("it raised; and pay, begun by its subtask 't0/a'")
    assert (me.phase, child.phase, me.fallen) == (Phase.FAILED, Phase.FAILED, ())
    history = History("run-1")
    for entry in sim.entries:
        history.add(entry.body, entry.at, entry.seq)
    told = history.task("t0")
    assert told is not None
    assert told.failure == me.failure


def test_a_decision_on_one_question_is_none_on_the_next_at_the_same_place() -> None:
    sim = Simulation(request(fan(1)))
    sim.dispatch()
    sim.say(review("t0", 1))
    sim.say(decided(m.Decision.NOT_DONE).model_copy(update={"attempt": 1}))
    sim.dispatch()
    sim.say(review("t0", 2))
    sim.say(decided(m.Decision.NOT_DONE).model_copy(update={"attempt": 1}))
    assert sim.state.tasks["t0"].phase is Phase.IN_REVIEW
    sim.say(decided(m.Decision.NOT_DONE).model_copy(update={"attempt": 2}))
    assert [one.attempt for one in sim.dispatch()] == [3]
