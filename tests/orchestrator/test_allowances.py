"""Limits over many runs: reducers of random runs over one store, with deaths in between; then whole runs, in one process."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from agents import Role, ScriptedModel, call, tool
from agents import say as text
from orchestrator import Board, Team, open_journal, purse, requests
from orchestrator.code import pack
from orchestrator.coordinator import Coordinator
from orchestrator.fork import fork
from orchestrator.host import Host
from orchestrator.journal.allowances import EVERYONE, Claim, Limit, Window, accounts_of, of_user
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.port import Journal
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.ledger import ALLOWANCE, RUN, Account, plus
from orchestrator.link import now
from orchestrator.models import Models
from orchestrator.reducer.allowances import beside, is_idle, most, waits
from orchestrator.reducer.leases import comes_back
from orchestrator.replay import replay
from orchestrator.scheduler import EVERY
from protocols import codec
from protocols import messages as m
from protocols.budget import COUNTED, ZERO, Amount, Limits, amount
from protocols.failures import BadInput, StorageError, Verdict
from protocols.plan import Plan, Task
from tests.orchestrator.simulation import Simulation, fan, random_life, request
from tests.orchestrator.test_fallback import falling
from tests.orchestrator.test_takeover import with_deaths

STEPS = int(os.environ.get("CALLBOARD_STEPS", "40"))
DAY = 86_400_000
gate = asyncio.Event()


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An empty journal."""
    return str(tmp_path / "journal.db")


class Shell:
    """What a coordinator does for one run: it draws, dies between store and journal, comes back, and settles."""

    def __init__(self, store: Journal, run: str, user: str, dice: random.Random) -> None:
        self.store, self.run, self.user, self.dice = store, run, user, dice
        self.epoch, self.heard = 1, 0
        self.opened: Simulation | None = None
        self.limits: list[Limit] = []

    @property
    def claim(self) -> Claim:
        return Claim(self.run, self.user, self.epoch)

    def tend(self, sim: Simulation, at: int) -> None:
        news, self.heard = sim.said[self.heard :], len(sim.said)
        if self.opened is None or any(isinstance(one, m.RunResumed) for one in news):
            self.epoch += self.opened is not None
            self.open(sim, at)
        elif self.dice.random() < 0.3 and self.its() != self.limits:
            self.open(sim, at)
        if ALLOWANCE not in sim.state.ledger.accounts:
            return
        if sim.ended:
            for _ in range(2):  # the second time it is known already
                self.store.settle(self.claim, taken(sim), None, at, ended=True)
        elif (asked := sim.state.drawing) is not None and self.dice.random() < 0.8:
            self.draw(sim, asked, at)
        elif self.dice.random() < 0.2:
            self.renew(sim, at)

    def its(self) -> list[Limit]:
        return [one for one in self.store.limits() if one.account in accounts_of(self.user)]

    def open(self, sim: Simulation, at: int) -> None:
        self.opened, self.limits = sim, self.its()
        if not sim.ended:
            for one in purse.opening(self.limits, sim.state):
                sim.say(one)
        if not sim.ended and ALLOWANCE in sim.state.ledger.accounts:
            self.store.join(self.claim, ZERO, at, taken(sim))
            self.give_back(sim, at)

    def draw(self, sim: Simulation, asked: m.AllowanceAsked, at: int) -> None:
        account, need = allowance(sim), amount(asked.need)
        idle, many = is_idle(sim.state, need), most(sim.state, asked)
        for _ in range(self.dice.randint(1, 2)):  # the answer may be lost
            drawn = self.store.draw(self.claim, account.settled, beside(sim.state, asked), need, many, at, idle=idle)
            if isinstance(drawn, Limits):
                self.fits(need, at)
        if self.dice.random() < 0.1:
            sim.say(m.RunResumed(epoch=self.epoch + 1))
        elif isinstance(drawn, Limits):
            sim.say(m.AllowanceGranted(total=drawn))
        elif not (waits(sim.state, asked) and (drawn.others or comes_back(sim.state, ALLOWANCE, drawn.dimension))):
            sim.say(m.AllowanceDenied(task=asked.task, attempt=asked.attempt, ask=asked.ask, limit=str(drawn)))

    def fits(self, need: Amount, at: int) -> None:
        """What was drawn just now passes no limit, however they were changed before."""
        for (account, window, limits), used, reserved, _ in self.store.standings(at):
            for place, name in enumerate(COUNTED):
                bound = getattr(limits, name)
                if account in accounts_of(self.user) and need[place] and bound is not None:
                    assert used[place] + reserved[place] <= bound, f"{name} of {account} per {window}"

    def renew(self, sim: Simulation, at: int) -> None:
        if self.store.settle(self.claim, allowance(sim).settled, None, at) and sim.state.drawing is None:
            sim.say(purse.lessened(allowance(sim), plus(taken(sim), allowance(sim).kept)))
            if self.dice.random() < 0.9:  # else it dies here
                self.give_back(sim, at)

    def give_back(self, sim: Simulation, at: int) -> None:
        bounds = dict(allowance(sim).bounds)
        drawn: Any = tuple(bounds.get(place, one) for place, one in enumerate(taken(sim)))
        self.store.settle(self.claim, allowance(sim).settled, drawn, at)


def allowance(sim: Simulation) -> Account:
    return sim.state.ledger.accounts[ALLOWANCE]


def taken(sim: Simulation) -> Amount:
    return plus(allowance(sim).settled, allowance(sim).reserved)


def within(store: Journal, moments: set[int]) -> None:
    """No limit is passed in any window that was ever looked at."""
    for at in moments:
        for (account, window, limits), used, reserved, _ in store.standings(at):
            for place, most_ in ((0, limits.tokens), (2, limits.model_calls)):
                assert most_ is None or used[place] + reserved[place] <= most_, f"{account} per {window} at {at}"


@given(seed=st.integers(0, 10**9), calls=st.integers(0, 30), tokens=st.integers(0, 400), runs=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_runs_at_once_stay_within_the_limits_of_their_users_and_of_everyone(seed: int, calls: int, tokens: int, runs: int) -> None:
    dice, store = random.Random(seed), MemoryJournal()
    store.set_limits(
        [
            Limit(EVERYONE, Window.DAY, Limits(model_calls=calls)),
            Limit(EVERYONE, Window.TOTAL, Limits(model_calls=10**6)),
            Limit(of_user("ada"), Window.HOUR, Limits(tokens=tokens, model_calls=max(calls - 3, 0))),
            Limit(of_user("bob"), Window.RUN, Limits(model_calls=calls // 2)),
        ]
    )
    lives = []
    for number in range(runs):
        shell = Shell(store, f"run-{number}", dice.choice(["ada", "bob"]), dice)
        lives.append((shell, random_life(dice.randrange(10**9), request(fan(8)), trouble=dice.choice([0.0, 0.2]))))
    at, moments = DAY * 365, set()
    used: Amount = ZERO
    while lives:
        if dice.random() < 0.02:
            at += dice.choice([-1, 1]) * dice.choice([DAY // 24, DAY, DAY // 100])  # clocks jump, both ways
        moments.add(at)
        shell, life = one = dice.choice(lives)
        sim = next(life, None)
        if sim is None:
            lives.remove(one)
            assert shell.opened is not None
            shell.tend(shell.opened, at)  # it may have ended with what it was told last
            assert taken(shell.opened) == allowance(shell.opened).settled
            used = plus(used, taken(shell.opened))
            if shell.user == "bob":
                assert taken(shell.opened)[2] <= calls // 2
            continue
        shell.tend(sim, at)
        at += dice.randint(0, 2_000)
        if dice.random() < 0.05:
            within(store, moments)
    within(store, moments)
    assert store.drawing() == []
    (total,) = (one for one in store.standings(at) if one.limit.window is Window.TOTAL)
    assert (total.used, total.reserved) == (used, ZERO)


FIGURES = st.builds(Limits, model_calls=st.none() | st.integers(0, 60), tokens=st.none() | st.integers(0, 600))


class Changes(RuleBasedStateMachine):
    """Runs at work while limits of their users, of everyone and their own come, change and go."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.at, self.begun = MemoryJournal(), 365 * DAY, 0
        self.lives: list[tuple[Shell, Iterator[Simulation], Simulation]] = []
        self.charged: list[Amount] = []
        self.begun = 0

    @precondition(lambda self: len(self.lives) < 4)
    @rule(user=st.sampled_from(["ada", "bob"]), seed=st.integers(0, 10**9), budget=FIGURES, kept=st.integers(0, 6))
    def begin(self, user: str, seed: int, budget: Limits, kept: int) -> None:
        self.begun += 1
        shell = Shell(self.store, f"run-{self.begun}", user, random.Random(seed))
        asked = request(fan(8), budget=budget) if kept == 0 else falling(model_calls=60, reserve=kept)
        life = random_life(seed, asked, trouble=shell.dice.choice([0.0, 0.2]))
        sim = next(life)
        sim.check = lambda state: granted_within_bounds(sim)
        self.lives.append((shell, life, sim))

    @precondition(lambda self: self.lives)
    @rule(number=st.integers(0, 9), times=st.integers(1, 12))
    def work(self, number: int, times: int) -> None:
        shell, life, sim = one = self.lives[number % len(self.lives)]
        for _ in range(times):
            shell.tend(sim, self.at)
            self.at += shell.dice.randint(0, 2_000)
            if next(life, None) is None:
                self.lives.remove(one)
                shell.tend(sim, self.at)
                if ALLOWANCE in sim.state.ledger.accounts:
                    assert taken(sim) == allowance(sim).settled == sim.state.ledger.accounts[RUN].settled
                    self.charged.append(taken(sim))
                return

    @rule(account=st.sampled_from([EVERYONE, of_user("ada"), of_user("bob")]), window=st.sampled_from(Window), limits=FIGURES)
    def limit(self, account: str, window: Window, limits: Limits) -> None:
        self.store.set_limits([Limit(account, window, limits)])

    @precondition(lambda self: self.lives)
    @rule(number=st.integers(0, 9), budget=FIGURES, lifted=st.booleans())
    def budget(self, number: int, budget: Limits, lifted: bool) -> None:
        sim = self.lives[number % len(self.lives)][2]
        if not sim.ended:
            sim.say(m.BudgetChanged(budget=budget, lifted=lifted))

    @rule(jump=st.integers(0, 2 * DAY))
    def clock(self, jump: int) -> None:
        self.at += jump

    def teardown(self) -> None:
        while self.lives:
            self.work(self.at, 1)
        assert self.store.drawing() == []
        self.store.set_limits([Limit(EVERYONE, Window.TOTAL, Limits(model_calls=0))])
        (total,) = (one for one in self.store.standings(self.at, EVERYONE) if one.limit.window is Window.TOTAL)
        assert total.reserved == ZERO
        assert total.used == tuple(sum(used[place] for used in self.charged) for place in range(5))


def granted_within_bounds(sim: Simulation) -> None:
    """Nobody is granted more than there is, whatever was lowered before; nor what is kept, but who may take the whole."""
    last = sim.said[-1] if sim.said else None
    if isinstance(last, m.LeaseGranted):
        whole = sim.state.spares(last.task)
        for account in sim.state.ledger.accounts.values():
            for place, bound in account.bounds:
                most_ = bound if whole else bound - account.kept[place]
                assert not amount(last.lease)[place] or account.settled[place] + account.reserved[place] <= most_


def test_limits_that_change_while_runs_work_bound_what_is_drawn_after_and_count_everything_once() -> None:
    examples = 15 if STEPS < 1000 else 4
    settled = settings(stateful_step_count=STEPS, max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Changes, settings=settled)


# --- whole runs ---------------------------------------------------------------------------------------------------------


def reading(pages: int, latency: float = 0.005, **fields: Any) -> Team:
    model = ScriptedModel(lambda asked: text("fine", input_tokens=9, output_tokens=4), latency=latency)
    reader = Role("reader", instructions="Read.", input=str, output=str, model=model, max_output_tokens=5, **fields)
    return Team("reading", [reader], planner=Plan(tasks=tuple(Task(id=f"p{n}", role="reader", input=str(n)) for n in range(pages))))


def carried(store: str, *asked: tuple[Team, str]) -> list[Any]:
    async def carry() -> list[Any]:
        async with Board(runtime="inline", store=store) as board:
            handles = [await board.start(team, user=user) for team, user in asked]
            return await asyncio.gather(*(handle.result() for handle in handles))

    return asyncio.run(carry())


def standing(store: str, account: str, window: Window = Window.DAY) -> tuple[Amount, Amount]:
    journal = open_journal(store)
    (found,) = (one for one in journal.standings(now(), account) if one.limit.window is window)
    assert journal.drawing() == []
    journal.close()
    return found.used, found.reserved


def limit(store: str, *limits: Limit) -> None:
    journal = open_journal(store)
    journal.set_limits(limits)
    journal.close()


def tags(store: str, run: str) -> Counter[str]:
    return Counter(entry.tag for entry in open_journal(store).read(run))


def test_runs_of_one_user_share_a_limit_exactly_and_say_whose_it_was(store: str) -> None:
    limit(store, Limit(of_user("ada"), Window.DAY, Limits(model_calls=25)), Limit(EVERYONE, Window.TOTAL, Limits(model_calls=100)))
    results = carried(store, *[(reading(12), "ada")] * 3, (reading(12), "bob"))
    assert sum(one.usage.model_calls for one in results[:3]) == 25
    assert results[3].status is m.Status.DONE
    assert standing(store, of_user("ada"))[0][2] == 25
    assert standing(store, EVERYONE, Window.TOTAL) == ((13 * 37, 0, 37, 0, 37), ZERO)
    short = [one for one in results[:3] if one.status is m.Status.BUDGET]
    assert short
    for one in short:
        assert one.failure.message == "the limit on model calls of user ada per day was reached"
    (again,) = carried(store, (reading(1), "ada"))
    assert again.status is m.Status.BUDGET
    assert again.usage.model_calls == 0


def test_what_a_team_keeps_for_fallbacks_is_kept_of_the_limits_of_its_user_too(store: str) -> None:
    limit(store, Limit(of_user("ada"), Window.DAY, Limits(model_calls=20)))

    @tool
    async def look(at: int) -> str:
        """Look."""
        return f"saw {at * 31}"

    model = ScriptedModel(lambda asked: call("look", at=len(asked.messages)) if asked.tools else "enough")
    looker = Role("looker", tools=[look], model=model)
    plan = Plan(tasks=tuple(Task(id=f"l{number}", role="looker", input="go") for number in range(10)))
    (result,) = carried(store, (Team("lookers", [looker], planner=plan, reserve=Limits(model_calls=10)), "ada"))
    assert result.status is m.Status.DONE
    assert result.output == ["enough"] * 10
    assert standing(store, of_user("ada"))[0][2] == 20


def test_runs_whose_needs_fit_exactly_all_end_although_each_draws_more_than_it_needs(store: str) -> None:
    limit(store, Limit(EVERYONE, Window.DAY, Limits(model_calls=24)))
    assert [one.status for one in carried(store, *[(reading(8), "ada"), (reading(8), "bob")], (reading(8), "eve"))] == [m.Status.DONE] * 3


def test_a_limit_on_every_run_bounds_each_by_itself(store: str) -> None:
    limit(store, Limit(of_user("ada"), Window.RUN, Limits(model_calls=3)))
    results = carried(store, (reading(5), "ada"), (reading(5), "ada"), (reading(5), "bob"))
    assert [one.usage.model_calls for one in results] == [3, 3, 5]


def test_a_run_without_limits_draws_nothing_and_has_no_entries_of_it(store: str) -> None:
    limit(store, Limit(of_user("ada"), Window.DAY, Limits(model_calls=1)))
    (result,) = carried(store, (reading(3), "bob"))
    assert not [tag for tag in tags(store, result.run_id) if "Allowance" in tag or "Lease" in tag]


def test_a_limit_that_is_raised_or_taken_away_while_a_run_works_holds_from_its_next_draw(store: str) -> None:
    limit(store, Limit(of_user("ada"), Window.HOUR, Limits(model_calls=4)))

    async def carry() -> list[Any]:
        async with Board(runtime="inline", store=store) as board:
            raised = await board.start(reading(12, latency=0.05, concurrency=1), user="ada")
            async for entry in raised.events():
                if isinstance(entry.body, m.ModelCalled):
                    break
            limit(store, Limit(of_user("ada"), Window.HOUR, Limits(model_calls=9)))
            one = await raised.result()
            limit(store, Limit(of_user("ada"), Window.HOUR, Limits(model_calls=11)))
            freed = await board.start(reading(6, latency=0.05, concurrency=1), user="ada")
            async for entry in freed.events():
                if isinstance(entry.body, m.ModelCalled):
                    break
            limit(store, Limit(of_user("ada"), Window.HOUR, Limits()))
            return [one, await freed.result()]

    raised, freed = asyncio.run(carry())
    assert (raised.usage.model_calls, raised.status) == (9, m.Status.BUDGET)
    assert (freed.usage.model_calls, freed.status) == (6, m.Status.DONE)


@tool
def look(page: str) -> str:
    """Look at a page."""
    return f"{page} is blank"


def walking(turns: int, agents: int = 1) -> Team:
    """Agents that look at one page after the other."""

    def reply(asked: Any) -> Any:
        seen = sum(one.role == "tool" for one in asked.messages)
        return call("look", page=f"p{seen}") if seen < turns else text("done")

    model, limits = ScriptedModel(reply, latency=0.01), Limits(turns=1_000)
    walker = Role("walker", instructions="Look.", input=str, output=str, tools=[look], model=model, limits=limits)
    return Team("walking", [walker], planner=Plan(tasks=tuple(Task(id=f"w{n}", role="walker", input="x") for n in range(agents))))


async def called(handle: Any, times: int) -> None:
    """Return when a run has made so many model calls."""
    async for entry in handle.events():
        times -= isinstance(entry.body, m.ModelCalled)
        if times == 0:
            return


def test_agents_of_a_run_that_began_without_limits_come_under_one_with_all_that_they_have_used(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purse, "LOOK_SECONDS", 0.02)

    async def carry() -> list[Any]:
        async with Board(runtime="inline", store=store) as board:
            walk, other = await board.start(walking(500, 2), user="ada"), await board.start(walking(20), user="bob")
            await called(walk, 3)
            limit(store, Limit(of_user("ada"), Window.DAY, Limits(model_calls=100)))
            return [await walk.result(), await other.result()]

    walk, other = asyncio.run(carry())
    assert (walk.status, walk.usage.model_calls) == (m.Status.BUDGET, 100)
    assert walk.failure.message == "the limit on model calls of user ada per day was reached"
    assert standing(store, of_user("ada"))[0] == (walk.usage.tokens, 0, 100, walk.usage.tool_calls, 100)
    assert other.status is m.Status.DONE
    assert not [tag for tag in tags(store, other.run_id) if "Allowance" in tag or "Lease" in tag]


@pytest.mark.parametrize(("budget", "changed", "calls"), [(None, 60, 60), (80, 40, 40), (30, 60, 60), (30, None, 101)])
def test_the_budget_of_a_run_at_work_is_set_lowered_raised_and_lifted(
    store: str, monkeypatch: pytest.MonkeyPatch, budget: int | None, changed: int | None, calls: int
) -> None:
    monkeypatch.setattr(requests, "REQUEST_SECONDS", 0.02)

    async def carry() -> Any:
        async with Board(runtime="inline", store=store) as board:
            handle = await board.start(walking(100), budget=Limits(model_calls=budget))
            await called(handle, 3)
            journal = open_journal(store)
            journal.post(handle.run_id, codec.pack(m.BudgetChanged(budget=Limits(model_calls=changed), lifted=changed is None)))
            journal.close()
            return await handle.result()

    result = asyncio.run(carry())
    assert result.usage.model_calls == calls
    assert result.status is (m.Status.BUDGET if changed else m.Status.DONE)


def test_a_limit_that_is_set_while_coordinators_follow_each_other_counts_what_was_used_under_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purse, "LOOK_SECONDS", 0.01)
    path = tmp_path / "journal.db"

    async def set_later() -> None:
        while not tags(str(path), "run-1")["ModelCalled"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        limit(str(path), Limit(EVERYONE, Window.DAY, Limits(model_calls=200, tool_calls=200)))

    async def carry() -> Any:
        return (await asyncio.gather(with_deaths(path, 2, Limits()), set_later()))[0]

    assert asyncio.run(carry())[0] is m.Status.DONE
    assert standing(str(path), EVERYONE)[0][2:4] == (24, 18)
    assert tags(str(path), "run-1")["AllowanceAsked"] > 0


@tool
async def dawdle() -> str:
    """Wait until the other run has ended."""
    await gate.wait()
    return "done"


def test_what_a_run_has_drawn_and_does_not_need_goes_to_another_that_waits(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purse, "RENEW_SECONDS", 0.1)
    limit(store, Limit(EVERYONE, Window.DAY, Limits(model_calls=18)))
    model = ScriptedModel(lambda asked: call("dawdle") if asked.messages[-1].role != "tool" else text("fine"))
    slow = Role("slow", instructions="Wait.", input=str, output=str, tools=[dawdle], model=model, max_output_tokens=5)

    async def carry() -> tuple[Any, Any]:
        gate.clear()
        async with Board(runtime="inline", store=store) as board, asyncio.timeout(30):
            plan = Plan(tasks=tuple(Task(id=f"s{n}", role="slow", input="x") for n in range(4)))
            first = await board.start(Team("slow", [slow], planner=plan), user="ada")
            called = 0
            async for entry in first.events():
                called += isinstance(entry.body, m.ModelCalled)
                if called == 4:
                    break
            journal = open_journal(store)
            assert [drawn[2] for _, drawn in journal.drawing()] == [9]
            journal.close()
            second = await (await board.start(reading(10, concurrency=1), user="bob")).result()
            gate.set()
            return await first.result(), second

    first, second = asyncio.run(carry())
    assert first.status is m.Status.DONE
    assert (first.usage.model_calls, second.usage.model_calls) == (8, 10)
    assert second.status is m.Status.DONE


def test_a_fork_is_charged_for_what_it_does_itself(store: str) -> None:
    limit(store, Limit(of_user("ada"), Window.TOTAL, Limits(model_calls=100)))
    (first,) = carried(store, (reading(6, concurrency=1), "ada"))
    journal = open_journal(store)
    cut = [entry.seq for entry in journal.read(first.run_id) if entry.tag == "ModelCalled"][3]
    forked = fork(journal, first.run_id, cut)
    journal.close()

    async def go_on() -> Any:
        async with Board(runtime="inline", store=store) as board:
            return await (await board.resume(forked)).result()

    result = asyncio.run(go_on())
    assert result.status is m.Status.DONE
    journal = open_journal(store)
    account = replay(journal, forked).ledger.accounts[ALLOWANCE]
    assert account.settled[2] >= 6
    assert standing(store, of_user("ada"), Window.TOTAL)[0][2] == 6 + 2
    journal.close()


def test_a_model_without_a_price_is_refused_where_the_user_has_a_limit_on_money(store: str) -> None:
    limit(store, Limit(of_user("ada"), Window.MONTH, Limits(micros=10**9)))
    model = ScriptedModel(lambda asked: text("fine"), price=None)
    team = Team("alone", [Role("reader", instructions="Read.", input=str, output=str, model=model)])
    for user, refused in (("bob", False), ("ada", True)):
        if refused:
            with pytest.raises(BadInput, match="whose price is not known"):
                team.run_sync("x", runtime="inline", store=store, user=user)
        else:
            assert team.run_sync("x", runtime="inline", store=store, user=user).status is m.Status.DONE
    assert len(open_journal(store).runs()) == 1


class Dying(SqliteJournal):
    """A store that is gone from the moment on that ``call`` is made for the ``times``th time; ``done`` says whether it still happens."""

    call, times, done, dead = "", 1, False, False

    def _dies(self, name: str) -> None:
        if name == self.call:
            self.times -= 1
            self.dead = self.dead or self.times == 0
        if self.dead:
            raise StorageError("gone")

    def append(self, entries: Any, epochs: Any) -> None:
        if self.dead:
            raise StorageError("gone")
        super().append(entries, epochs)
        for entry in entries:
            self._dies(entry.tag)

    def draw(self, *arguments: Any, **named: Any) -> Any:
        drawn = super().draw(*arguments, **named)
        self._dies("draw")
        return drawn

    def settle(self, *arguments: Any, **named: Any) -> Any:
        if named.get("ended"):
            self._dies("settle")
        return super().settle(*arguments, **named)


@pytest.mark.parametrize(("moment", "times"), [("draw", 1), ("draw", 2), ("AllowanceGranted", 2), ("LeaseGranted", 3), ("settle", 1)])
def test_wherever_a_coordinator_dies_the_store_is_in_line_again_with_the_next(tmp_path: Path, moment: str, times: int) -> None:
    path = str(tmp_path / "journal.db")
    limit(path, Limit(of_user("ada"), Window.TOTAL, Limits(model_calls=30, tokens=100_000)))
    team = reading(12, concurrency=1)

    async def die() -> None:
        journal = Dying(Path(path))
        journal.call, journal.times = moment, times
        host = Host("host/test", EVERY, Models())
        coordinator = Coordinator(journal, [host])
        await coordinator.start()
        code, plan = await coordinator.put_blob(pack(team.cast)), team.plan(None)
        assert plan is not None
        asked = m.RunRequested(team=team.spec(), plan=m.Value(inline=plan.model_dump()), code=code, user="ada")
        await coordinator.submit("run-1", codec.pack(asked))
        async with asyncio.timeout(20):
            while not journal.dead:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await coordinator.close()
        await host.close()
        journal.close()

    asyncio.run(die())

    async def go_on() -> Any:
        async with Board(runtime="inline", store=path) as board:
            return await (await board.resume("run-1")).result()

    before = open_journal(path)
    assert len(before.drawing()) == 1
    before.close()
    result = asyncio.run(go_on())
    assert result.status is m.Status.DONE
    journal = open_journal(path)
    ended = journal.standings(now(), of_user("ada"))[0]
    assert ended.reserved == ZERO
    assert 12 <= ended.used[2] <= 12 + 8  # calls, and the lease of one agent that was lost
    assert ended.used == replay(journal, "run-1").ledger.accounts[ALLOWANCE].settled
    assert journal.drawing() == []


@pytest.mark.parametrize("seed", range(3))
def test_coordinators_that_follow_each_other_while_agents_work_keep_one_account(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "journal.db"
    limit(str(path), Limit(EVERYONE, Window.DAY, Limits(model_calls=200, tool_calls=200)))
    status, deaths = asyncio.run(with_deaths(path, seed))
    assert (status, deaths > 0) == (m.Status.DONE, True)
    journal = open_journal(str(path))
    used, reserved = standing(str(path), EVERYONE)
    assert used == replay(journal, "run-1").ledger.accounts[ALLOWANCE].settled
    assert used[2:4] == (24, 18)
    assert reserved == ZERO
    journal.close()


def test_a_dead_run_weighs_on_its_limit_until_it_is_cancelled(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.db")
    limit(path, Limit(of_user("ada"), Window.DAY, Limits(model_calls=10)))
    journal = open_journal(path)
    dead = Claim("run-0", "ada", journal.claim("run-0"))
    journal.join(dead, ZERO, now())
    assert isinstance(journal.draw(dead, ZERO, ZERO, (0, 0, 10, 0, 0), 1, now() - 60_000), Limits)
    journal.close()
    (result,) = carried(path, (reading(2), "ada"))
    assert result.status is m.Status.BUDGET
    assert {task.failure.verdict for task in result.tasks} == {Verdict.BUDGET}
    journal = open_journal(path)
    journal.settle(dead._replace(epoch=2), ZERO, None, now(), ended=True)
    journal.close()
    (result,) = carried(path, (reading(2), "ada"))
    assert result.status is m.Status.DONE
