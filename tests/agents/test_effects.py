"""Effects happen once: what a tool answers for them, what a person decides, and which calls are tried again."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Context, Role, ScriptedModel, Tool, call, tool
from agents.desk import LocalDesk
from agents.effects import Done, NotDone, Reconciled, Unknown, unsettled
from agents.loop import work
from protocols.budget import Limits
from protocols.failures import BadInput, Failed, Failure, Verdict
from protocols.messages import Decision, Message, ModelCalled, ReviewAsked, ReviewDecided, ToolCalled, ToolIntended
from tests.agents.bench import Worked, worked


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr("agents.calls.FIRST_WAIT", 0.001)


class Bank:
    """Payments by key, and what happens to each call that arrives: ``ok``, ``slow`` (done, and never answered) or ``lost``."""

    def __init__(self, arrives: Sequence[str] = ("ok",), answers: Sequence[str] = ("truth",)) -> None:
        self.arrives, self.answers = iter(arrives), iter(answers)
        self.paid: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []

    async def pay(self, to: str, context: Context, cents: int = 5) -> str:
        how = next(self.arrives, "ok")
        self.calls.append((context.key, how))
        if how != "lost":
            assert self.paid.setdefault(context.key, to) == to, "one key, two payments"
        if how != "ok":
            await asyncio.sleep(5)
        return f"receipt of {to}"

    async def find(self, key: str, to: str, cents: int) -> Reconciled:
        how = next(self.answers, "truth")
        if how == "down":
            raise OSError("the bank is closed")
        if how == "unknown":
            return Unknown("not yet booked")
        assert cents == 5
        return Done(f"found {to}") if key in self.paid else NotDone()

    def tool(self, **settings: Any) -> Tool:
        return tool(effect="write", timeout=0.02, **settings)(self.pay)


def attempt(bank: Bank, history: Sequence[Message] = (), to: str = "ann", told: str = "", **settings: Any) -> Worked:
    def script(request: Any) -> Any:
        last = request.messages[-1]
        return last.content if last.role == "tool" else call("pay", to=to)

    return worked(Role("a", told, tools=[bank.tool(**settings)]), "go", ScriptedModel(script), history=history)


def asked(done: Worked) -> ReviewAsked:
    (found,) = [one for one in done.messages if isinstance(one, ReviewAsked)]
    return found


def decided(decision: Decision, result: str | None = None) -> ReviewDecided:
    return ReviewDecided(task="t", step=1, decision=decision, result=result, user="ada")


def cut_off(bank: Bank, history: Sequence[Message] = ()) -> list[Message]:
    """What was recorded when a host was lost during the payment."""
    done = attempt(bank, history)
    place = next(place for place, one in enumerate(done.messages) if isinstance(one, ToolIntended))
    return list(done.messages[: place + 1])


@pytest.mark.parametrize("lost", [False, True], ids=["answered late", "host lost"])
@pytest.mark.parametrize(
    ("arrives", "answers", "output", "calls"),
    [
        (["slow"], ["truth"], "found ann", 1),
        (["lost"], ["truth"], "receipt of ann", 2),
        (["slow"], ["unknown"], None, 1),
        (["slow"], ["down"], None, 1),
        (["lost"], ["down"], None, 1),
    ],
)
def test_a_tool_that_can_find_its_effect_is_asked_first(
    lost: bool, arrives: list[str], answers: list[str], output: str | None, calls: int
) -> None:
    bank = Bank(arrives)
    if lost:
        history = cut_off(bank)
        bank.answers = iter(answers)
        done = attempt(bank, history, reconcile=bank.find)
    else:
        bank.answers = iter(answers)
        done = attempt(bank, reconcile=bank.find)
    assert done.output == output
    assert [key for key, _ in bank.calls] == ["run/t/1"] * calls
    settled = [one for one in done.tool_calls if one.settled]
    assert [one.settled for one in settled] == (["reconcile"] if output == "found ann" else [])
    assert len([one for one in done.tool_calls if one.ran]) == calls - lost
    if output is None:
        assert done.verdict is Verdict.EFFECT_IN_DOUBT
        why = asked(done).message
        assert ("not yet booked" if answers == ["unknown"] else "OSError: the bank is closed") in why
    again = attempt(Bank(), [*done.messages], reconcile=None) if output else None
    assert again is None or again.output == output  # what was settled is read back as it is


def test_a_tool_that_says_that_it_did_not_happen_fails_after_its_tries() -> None:
    bank = Bank(["lost"] * 9)
    done = attempt(bank, reconcile=bank.find, retries=2)
    assert done.output is not None  # the model was told
    assert "says that it did not" in done.output
    assert len(bank.calls) == 3
    assert bank.paid == {}


def test_an_idempotent_write_that_never_answers_is_decided_by_a_person() -> None:
    bank = Bank(["slow"] * 9)
    done = attempt(bank, idempotent=True, retries=3)
    assert done.verdict is Verdict.EFFECT_IN_DOUBT
    assert len(bank.calls) == 4
    assert asked(done).began == done.intents[-1].began > 0


def test_a_blocking_write_that_goes_on_after_its_timeout_is_not_taken_for_undone() -> None:
    async def found(key: str) -> Reconciled:
        return NotDone()

    @tool(effect="write", timeout=0.02, reconcile=found)
    def slow() -> str:
        time.sleep(0.1)
        return "done after all"

    done = worked(Role("a", tools=[slow]), "go", ScriptedModel([call("slow"), "x"]))
    assert done.verdict is Verdict.EFFECT_IN_DOUBT
    assert "thread may still be at work" in asked(done).message


@pytest.mark.parametrize(
    ("decision", "result", "output", "calls"),
    [
        (Decision.DONE, "receipt 7", "receipt 7", 1),
        (Decision.DONE, None, "pay was carried out, as ada has made sure; what it returned is not known", 1),
        (Decision.NOT_DONE, None, "receipt of ann", 2),
        (Decision.RETRY, None, None, 1),
    ],
)
def test_a_persons_decision_is_found_by_the_next_attempt(decision: Decision, result: str | None, output: str | None, calls: int) -> None:
    bank = Bank(["lost"])
    first = attempt(bank)
    second = attempt(bank, [*first.messages, decided(decision, result)])
    assert second.output == output
    assert len(bank.calls) == calls
    third = attempt(bank, [*first.messages, decided(decision, result), *second.messages])
    assert third.output == output
    assert len(bank.calls) == calls


def test_a_tool_that_could_not_say_is_asked_again_when_a_person_wants_it() -> None:
    bank = Bank(["slow"], ["unknown", "truth"])
    first = attempt(bank, reconcile=bank.find)
    assert first.verdict is Verdict.EFFECT_IN_DOUBT
    second = attempt(bank, [*first.messages, decided(Decision.RETRY)], reconcile=bank.find)
    assert second.output == "found ann"
    assert len(bank.calls) == 1


def test_what_a_person_decided_of_one_call_is_not_true_of_another() -> None:
    bank = Bank(["lost"])
    first = attempt(bank)
    done = attempt(bank, [*first.messages, decided(Decision.NOT_DONE)], to="bob", told="other instructions")
    assert done.verdict is Verdict.EFFECT_IN_DOUBT
    assert "made another change at run/t/1" in str(done.failure)
    assert not any(isinstance(one, ReviewAsked) for one in done.messages)
    assert len(bank.calls) == 1


def test_a_decision_holds_for_one_call_and_not_for_the_one_that_follows_it() -> None:
    bank = Bank(["lost", "slow"])
    history = [*attempt(bank).messages, decided(Decision.NOT_DONE)]
    history += cut_off(bank, history)
    done = attempt(bank, history)
    assert done.verdict is Verdict.EFFECT_IN_DOUBT
    assert len(bank.calls) == 2


@pytest.mark.parametrize(("way", "output"), [("idempotent", "receipt of ann"), ("reconcile", "found ann"), ("plain", None)])
def test_a_fork_goes_on_with_an_effect_under_the_key_that_it_was_begun_with(way: str, output: str | None) -> None:
    bank = Bank(["slow"])
    there = [one.model_copy(update={"key": "other/t/1"}) if isinstance(one, ToolIntended) else one for one in cut_off(bank)]
    bank.paid = {"other/t/1": "ann"}
    settings: dict[str, Any] = {"idempotent": {"idempotent": True}, "reconcile": {"reconcile": bank.find}, "plain": {}}[way]
    done = attempt(bank, there, **settings)
    assert done.output == output
    assert list(bank.paid) == ["other/t/1"]
    assert [key for key, _ in bank.calls[1:]] == (["other/t/1"] if way == "idempotent" else [])
    assert way != "plain" or asked(done).key == "other/t/1"


@pytest.mark.parametrize("first", [0, 1_000_000], ids=["near", "far off"])
def test_a_write_in_doubt_that_the_next_attempt_never_comes_to_is_not_forgotten(first: int) -> None:
    bank = Bank(["slow"])
    history = [one.model_copy(update={"step": first + one.step}) for one in cut_off(bank) if isinstance(one, (ModelCalled, ToolIntended))]
    role = Role("a", "other instructions", tools=[bank.tool()])

    def again(*more: Message) -> Worked:
        return worked(role, "go", ScriptedModel(["nothing to pay"]), history=[*history, *more], attempt=2)

    second = again()
    assert second.verdict is Verdict.EFFECT_IN_DOUBT
    assert (asked(second).step, asked(second).call.name, asked(second).key) == (first + 1, "pay", "run/t/1")
    assert "did not come to it" in asked(second).message
    said = [decided(one).model_copy(update={"step": first + 1}) for one in (Decision.RETRY, Decision.DONE)]
    assert again(*second.messages, said[0]).verdict is Verdict.EFFECT_IN_DOUBT
    assert again(*second.messages, *said).output == "nothing to pay"
    assert len(bank.calls) == 1


def test_a_write_that_is_stopped_is_recorded_as_in_doubt() -> None:
    bank = Bank(["slow"])
    slow = tool(effect="write", timeout=9)(bank.pay)
    done = worked(Role("a", tools=[slow], limits=Limits(seconds=0.05)), "go", ScriptedModel([call("pay", to="ann"), "x"]))
    assert done.verdict is Verdict.DEADLINE
    assert [one.failure.verdict for one in done.tool_calls if one.failure] == [Verdict.EFFECT_IN_DOUBT]


@given(
    arrives=st.lists(st.sampled_from(["ok", "ok", "slow", "lost"]), min_size=9, max_size=9),
    answers=st.lists(st.sampled_from(["truth", "truth", "unknown", "down"]), min_size=9, max_size=9),
    nature=st.sampled_from(["plain", "idempotent", "reconcile"]),
    retries=st.integers(0, 2),
    cuts=st.lists(st.integers(0, 12), min_size=6, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_whatever_is_lost_an_effect_happens_once_and_is_never_forgotten(
    arrives: list[str], answers: list[str], nature: str, retries: int, cuts: list[int]
) -> None:
    """Attempts are cut off anywhere, calls arrive or not, and whoever is asked tells the truth, or does not know yet."""
    bank = Bank(arrives, answers)
    way: dict[str, Any] = {"plain": {}, "idempotent": {"idempotent": True}, "reconcile": {"reconcile": bank.find}}[nature]
    history: list[Message] = []
    for cut in cuts:
        done = attempt(bank, history, retries=retries, **way)
        # an effect is announced durably: without its announcement it can't have begun
        announced = max((place + 1 for place, one in enumerate(done.messages) if isinstance(one, ToolIntended)), default=0)
        kept = done.messages[: max(cut, announced)]
        history += kept
        if len(kept) < len(done.messages):
            continue
        if done.output is not None:
            assert bank.paid == {"run/t/1": "ann"} or "says that it did not" in done.output
            break
        if any(isinstance(one, ReviewAsked) for one in kept):
            history.append(decided(Decision.DONE if bank.paid else Decision.NOT_DONE))
    assert {key for key, _ in bank.calls} <= {"run/t/1"}
    if nature != "idempotent":
        assert sum(how != "lost" for _, how in bank.calls) <= 1


# --- tries ------------------------------------------------------------------------------------------------------------


class Flaky:
    """Raises what it was given, call by call, then answers."""

    def __init__(self, *raises: Exception) -> None:
        self.raises = list(raises)
        self.keys: list[str] = []

    async def get(self, context: Context) -> str:
        self.keys.append(context.key)
        if self.raises:
            raise self.raises.pop(0)
        return "got it"


class Busy(Exception):
    """The other side has no room now, and did nothing."""


@pytest.mark.parametrize(
    ("raises", "settings", "output", "tries"),
    [
        ([ConnectionError(), TimeoutError()], {"retries": 2}, "got it", 3),
        ([ConnectionError(), ConnectionError()], {"retries": 1}, "tool 'get' failed: ConnectionError", 2),
        ([ConnectionError()], {}, "tool 'get' failed: ConnectionError", 1),
        ([Busy()], {"retries": 2}, "tool 'get' failed: Busy", 1),
        ([Busy()], {"retries": 2, "retry_on": (Busy,)}, "got it", 2),
        ([Busy(), Busy()], {"retries": 2, "retry_on": (Busy,), "effect": "write"}, "got it", 3),
        ([ConnectionError()], {"retries": 2, "effect": "write"}, None, 1),
        ([ConnectionError()], {"retries": 2, "effect": "write", "idempotent": True}, "got it", 2),
        ([Busy()], {"retries": 2, "effect": "write", "doubt_on": (Busy,)}, None, 1),
        ([Failed(Failure(verdict=Verdict.REFUSED, message="no"))], {"retries": 2}, None, 1),
    ],
)
def test_calls_are_tried_again_as_their_tool_declares_and_every_try_counts(
    raises: list[Exception], settings: dict[str, Any], output: str | None, tries: int
) -> None:
    flaky = Flaky(*raises)
    role = Role("a", tools=[tool(**settings)(flaky.get)])
    done = worked(role, "go", ScriptedModel(lambda request: call("get") if len(request.messages) < 3 else request.messages[-1].content))
    assert done.output == output
    assert flaky.keys == ["run/t/1"] * tries
    assert done.desk.usage.tool_calls == tries
    assert [one.step for one in done.tool_calls] == [1] * tries
    assert len(done.intents) == (tries if settings.get("effect") == "write" else 0)


def test_tries_go_on_where_an_earlier_attempt_was_cut_off() -> None:
    flaky = Flaky(Busy(), Busy(), Busy(), Busy())
    role = Role("a", tools=[tool(retries=2, retry_on=(Busy,), effect="write")(flaky.get)])
    script = [call("get"), "told"]
    first = worked(role, "go", ScriptedModel(script))
    tried = [place for place, one in enumerate(first.messages) if isinstance(one, ToolCalled)]
    assert len(flaky.keys) == 3
    second = worked(role, "go", ScriptedModel(script), history=first.messages[: tried[1] + 1])
    assert second.output == "told"
    assert len(flaky.keys) == 4  # the one that was left of three


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"reconcile": lambda key: NotDone()},
        {"effect": "write", "reconcile": lambda key, nobody: NotDone()},
    ],
)
def test_what_a_tool_can_not_mean_is_refused_where_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        tool(**wrong)(Flaky().get)


def test_a_method_finds_its_effect_on_its_own_instance() -> None:
    class Shop:
        def __init__(self) -> None:
            self.sold: list[str] = []

        async def found(self, key: str, what: str) -> Reconciled:
            return Done([what]) if what in self.sold else NotDone()

        @tool(effect="write", timeout=0.02, reconcile=found)
        async def sell(self, what: str) -> list[str]:
            self.sold.append(what)
            await asyncio.sleep(5)
            return [what]

    shop = Shop()
    done = worked(Role("a", tools=[shop.sell]), "go", ScriptedModel([call("sell", what="tea"), "sold"]))
    assert done.output == "sold"
    assert done.tool_calls[-1].content == '["tea"]'
    assert shop.sold == ["tea"]


def test_what_a_reconcile_function_must_not_return_is_shown_to_the_person() -> None:
    async def wrong(key: str) -> Any:
        return True

    bank = Bank(["slow"])
    done = attempt(bank, reconcile=wrong)
    assert "returned bool, not Done, NotDone or Unknown" in asked(done).message


class Suspended(LocalDesk):
    """A desk whose process sleeps for a minute while its first write is announced."""

    asleep = 0

    def now(self) -> int:
        return super().now() + self.asleep

    async def commit(self, message: Message) -> None:
        await super().commit(message)
        self.asleep = 60_000


def test_a_write_that_was_announced_before_its_process_was_suspended_is_announced_again_before_it_begins() -> None:
    bank, desk = Bank(), Suspended(run="run", task="t")

    def script(request: Any) -> Any:
        last = request.messages[-1]
        return last.content if last.role == "tool" else call("pay", to="ann")

    assert asyncio.run(work(Role("a", tools=[bank.tool()]), "go", desk, ScriptedModel(script))) == "receipt of ann"
    announced = [one for one in desk.messages if isinstance(one, ToolIntended)]
    assert [one.key for one in announced] == ["run/t/1"] * 2
    assert announced[1].began - announced[0].began >= 60_000
    assert bank.calls == [("run/t/1", "ok")]


class Leaving(LocalDesk):
    """A desk whose process is stopped while a write is announced."""

    async def commit(self, message: Message) -> None:
        await super().commit(message)
        working = asyncio.current_task()
        assert working is not None
        working.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_write_that_was_stopped_before_it_began_is_made_next_time_and_an_earlier_doubt_stays(in_doubt: bool) -> None:
    bank = Bank(["slow"] if in_doubt else ["ok"], ["unknown"])
    pay = bank.tool(idempotent=True)
    history = cut_off(bank) if in_doubt else []

    def script(request: Any) -> Any:
        last = request.messages[-1]
        return last.content if last.role == "tool" else call("pay", to="ann")

    desk = Leaving(run="run", task="t", attempt=2, history=history)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work(Role("a", tools=[pay]), "go", desk, ScriptedModel(script)))
    told = [one for one in (*history, *desk.messages) if getattr(one, "step", None) == 1]
    assert (unsettled(told) is not None) is in_doubt
    made = len(bank.calls)
    assert attempt(bank, [*history, *desk.messages], idempotent=True).output == "receipt of ann"
    assert len(bank.calls) == made + 1
