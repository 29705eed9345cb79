import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import reducer
from orchestrator.ledger import RUN
from orchestrator.reducer.attempts import MOST_LOSSES
from orchestrator.reducer.delegation import MOST_SUBTASKS
from orchestrator.reducer.state import Phase
from protocols import messages as m
from protocols.budget import ZERO, Limits, amount
from protocols.failures import Failure, Verdict
from protocols.plan import Plan, PlanAsk, Task, ref
from protocols.team import PLANNER, RoleSpec, Strategy
from tests.orchestrator.simulation import CALL, TREE, Simulation, fan, fetch, random_run, request, team, within_limits

BOOM = Failure(verdict=Verdict.CODE_ERROR, message="boom")


def replayed(sim: Simulation) -> reducer.RunState:
    state = reducer.begin("run-1", 0, sim.asked)
    for entry in sim.entries:
        state, _ = reducer.step(state, entry, fetch)
    return state


def test_a_fan_of_tasks_ends_done_with_every_result_in_plan_order() -> None:
    sim = Simulation(request(fan(20))).complete()
    assert sim.state.status is m.Status.DONE
    assert [one.output.inline for one in sim.state.results() if one.output] == [f"t{number}" for number in range(20)]


def test_a_task_starts_only_after_what_it_needs_and_gets_its_output() -> None:
    tasks = (Task(id="b", role="worker", input={"x": ref("a")}), Task(id="a", role="worker"), Task(id="c", role="worker", after=("b",)))
    plan = Plan(tasks=tasks)
    sim = Simulation(request(plan))
    assert [one.task for one in sim.dispatch()] == ["a"]
    sim.finish("a", 1)
    assert [one.task for one in sim.dispatch()] == ["b"]
    sim.finish("b", 2)
    assert [one.task for one in sim.dispatch()] == ["c"]
    sim.finish("c", 3)
    assert [one.task.id for one in sim.state.results()] == ["b", "c"]


def test_tasks_that_need_a_failed_one_are_closed_and_the_rest_goes_on() -> None:
    plan = Plan(
        tasks=(
            Task(id="a", role="worker"),
            Task(id="b", role="worker", input=ref("a")),
            Task(id="c", role="worker", input=[ref("a"), ref("d")], tolerant=True),
            Task(id="d", role="worker"),
        )
    )
    sim = Simulation(request(plan))
    sim.dispatch()
    sim.finish("a", failure=BOOM)
    sim.complete()
    assert sim.state.tasks["b"].failure is not None
    assert sim.state.tasks["b"].failure.verdict is Verdict.DEPENDENCY
    assert sim.state.tasks["c"].phase is Phase.DONE
    assert sim.state.status is m.Status.PARTIAL
    assert sim.state.failure == BOOM


def test_a_retryable_failure_is_tried_again_until_the_roles_attempts_are_used() -> None:
    sim = Simulation(request(fan(1)))
    no = Failure(verdict=Verdict.PROVIDER, message="no", retryable=True)
    sim.dispatch()
    sim.finish("t0", failure=no)
    assert [one.attempt for one in sim.dispatch()] == [2]
    sim.finish("t0", failure=no)
    assert sim.state.status is m.Status.FAILED


def test_a_lost_attempt_is_tried_again_and_what_the_lost_host_still_says_changes_nothing() -> None:
    sim = Simulation(request(fan(2)))
    sim.dispatch()
    sim.say(m.AttemptsLost(host="h1", tasks=(("t0", 1),)))
    sim.say(m.TaskEnded(task="t0", attempt=1, output=m.Value(inline="late")))
    assert [(one.task, one.attempt) for one in sim.dispatch()] == [("t0", 2)]
    sim.say(m.TaskEnded(task="t0", attempt=1, output=m.Value(inline="late")))
    sim.finish("t0", "right")
    sim.finish("t1")
    assert sim.state.tasks["t0"].output == m.Value(inline="right")


def test_a_task_that_loses_its_host_again_and_again_ends_with_a_verdict() -> None:
    sim = Simulation(request(fan(1)))
    while not sim.ended:
        (one,) = sim.dispatch()
        sim.say(m.AttemptsLost(host=one.host, tasks=((one.task, one.attempt),)))
    assert sim.state.failure is not None
    assert sim.state.failure.verdict is Verdict.INFRASTRUCTURE


def test_what_attempts_that_were_stopped_held_is_given_back_however_often() -> None:
    sim = Simulation(request(fan(1), budget=Limits(model_calls=2)))
    for number in range(1, MOST_LOSSES + 3):
        sim.dispatch()
        sim.say(m.LeaseAsked(task="t0", attempt=number, ask=1, need=CALL))
        assert isinstance(sim.said[-1], m.LeaseGranted)
        sim.say(m.AttemptsLost(host="h1", tasks=(("t0", number),), returned=True))
        account = sim.state.ledger.accounts[RUN]
        assert (account.settled, account.reserved) == (ZERO, ZERO)
    assert sim.complete().state.status is m.Status.DONE


def test_a_run_that_ends_at_a_limit_says_what_of_it_was_written_off() -> None:
    sim = Simulation(request(fan(1), budget=Limits(model_calls=6)))
    for number in (1, 2):
        sim.dispatch()
        sim.say(m.LeaseAsked(task="t0", attempt=number, ask=1, need=CALL))
        if number == 1:
            sim.say(m.AttemptsLost(host="h1", tasks=(("t0", 1),)))
    assert isinstance(sim.said[-1], m.LeaseDenied)
    sim.finish("t0", failure=Failure(verdict=Verdict.BUDGET, message="no room"))
    assert sim.state.failure is not None
    lost = "6 calls ($0.000042) that lost hosts had reserved counted as used"
    assert sim.state.failure.message == f"the limit on model calls of the run was reached; {lost}"


def test_concurrency_of_a_role_bounds_its_tasks_at_work() -> None:
    spec = team()
    roles = {"worker": spec.roles["worker"].model_copy(update={"concurrency": 3})}
    sim = Simulation(request(fan(10), spec.model_copy(update={"roles": roles})))
    assert len(sim.dispatch()) == 3
    assert sim.dispatch() == []
    sim.finish("t0")
    assert len(sim.dispatch()) == 1


def test_many_results_are_merged_by_a_tree_of_bounded_nodes() -> None:
    sim = Simulation(request(fan(20), team("worker", "merge", merge=TREE))).complete()
    nodes = [one for one in sim.state.tasks.values() if one.task.role == "merge"]
    assert len(nodes) == 7 + 3 + 1
    assert all(len(one.task.input["items"]) <= 3 for one in nodes)
    assert sim.state.output == m.Value(inline="merge/3/0")


def test_cancel_stops_dispatch_and_ends_when_agents_have_stopped() -> None:
    sim = Simulation(request(fan(20)), room=2)
    started = sim.dispatch()
    sim.say(m.CancelRequested(reason="enough"))
    assert sim.dispatch() == []
    assert not sim.ended
    for one in started:
        sim.finish(one.task, failure=Failure(verdict=Verdict.CANCELLED, message="stopped"))
    assert sim.state.status is m.Status.CANCELLED


def test_a_planner_makes_the_plan_and_a_bad_plan_fails_the_run_with_what_is_wrong() -> None:
    spec = team("worker", PLANNER, planned=True)
    asked = m.RunRequested(team=spec, goal="g")
    good = Simulation(asked)
    good.dispatch()
    assert PlanAsk.model_validate(good.state.tasks["plan/1"].task.input).goal == "g"
    good.finish("plan/1", fan(3).model_dump())
    assert good.complete().state.status is m.Status.DONE
    bad = Simulation(asked)
    bad.dispatch()
    bad.finish("plan/1", {"tasks": [{"id": "a", "role": "wroker"}]})
    assert bad.state.status is m.Status.FAILED
    assert bad.state.failure is not None
    assert "did you mean 'worker'" in bad.state.failure.message


def test_a_failed_task_triggers_one_replan_whose_results_count() -> None:
    sim = Simulation(m.RunRequested(team=team("worker", PLANNER, planned=True), goal="g"))
    sim.dispatch()
    sim.finish("plan/1", fan(2).model_dump())
    sim.dispatch()
    sim.finish("t0", "zero")
    sim.finish("t1", failure=BOOM)
    sim.dispatch()
    ask = PlanAsk.model_validate(sim.state.tasks["plan/2"].task.input)
    assert ask.failures[0]["task"] == "t1"
    assert ask.done == ("t0",)
    sim.finish("plan/2", {"tasks": [{"id": "t1b", "role": "worker"}]})
    sim.complete()
    assert sim.state.status is m.Status.DONE
    assert [one.task.id for one in sim.state.results()] == ["t0", "t1b"]


def delegating() -> m.RunRequested:
    limits = Limits(model_calls=3)
    boss = RoleSpec(name="boss", strategy=Strategy.REACT, limits=limits, delegates=True, concurrency=1)
    spec = team("worker").model_copy(update={"roles": {"boss": boss, "worker": team().roles["worker"]}})
    return request(fan(1, "boss"), spec)


def test_subtasks_run_under_their_parent_and_their_outcomes_come_back_in_order() -> None:
    sim = Simulation(delegating())
    sim.dispatch()
    children = (Task(id="t0/b", role="worker"), Task(id="t0/a", role="worker"))
    sim.say(m.SubtasksAsked(task="t0", attempt=1, step=4, tasks=children))
    assert [one.task for one in sim.dispatch()] == ["t0/b", "t0/a"]
    sim.finish("t0/a", 1)
    sim.finish("t0/b", failure=BOOM)
    answer = sim.said[-1]
    assert isinstance(answer, m.SubtasksEnded)
    assert (answer.step, answer.failures, answer.outputs) == (4, (BOOM, None), (None, m.Value(inline=1)))
    sim.finish("t0", "all")
    assert sim.state.status is m.Status.DONE


def test_subtasks_are_bound_by_their_parents_budget() -> None:
    sim = Simulation(delegating())
    sim.dispatch()
    sim.say(m.SubtasksAsked(task="t0", attempt=1, step=0, tasks=(Task(id="t0/a", role="worker"), Task(id="t0/b", role="worker"))))
    sim.dispatch()
    for number in range(3):
        sim.say(m.LeaseAsked(task="t0/a", attempt=1, ask=number, need=CALL))
    sim.say(m.LeaseAsked(task="t0/b", attempt=1, ask=0, need=CALL))
    sim.say(m.LeaseAsked(task="t0/a", attempt=1, ask=9, need=CALL))
    assert sum(one.lease.model_calls for one in sim.said if isinstance(one, m.LeaseGranted)) == 3
    assert any(isinstance(one, m.LeaseDenied) and "t0" in one.limit for one in sim.said)
    assert sim.state.exhausted is None


def test_delegation_deeper_than_the_team_allows_is_refused_in_words() -> None:
    asked = delegating()
    sim = Simulation(asked.model_copy(update={"team": asked.team.model_copy(update={"depth": 0})}))
    sim.dispatch()
    sim.say(m.SubtasksAsked(task="t0", attempt=1, step=0, tasks=(Task(id="t0/a", role="worker"),)))
    answer = sim.said[-1]
    assert isinstance(answer, m.SubtasksEnded)
    assert answer.refused is not None
    assert "at most 0 deep" in answer.refused.message


def delegated(sim: Simulation, task: str, count: int, role: str = "worker") -> Failure | None:
    """Have so many new subtasks done; or why they are refused."""
    sim.dispatch()
    begun = len(sim.state.tasks)
    tasks = tuple(Task(id=f"{task}/{begun + number}", role=role, input=begun + number) for number in range(count))
    sim.say(m.SubtasksAsked(task=task, attempt=1, step=begun, tasks=tasks))
    if isinstance(sim.said[-1], m.SubtasksEnded):
        return sim.said[-1].refused
    for one in tasks if role == "worker" else ():
        sim.dispatch()
        sim.finish(one.id, 1)
    return None


def test_the_subtasks_below_a_task_are_bound_by_its_role_at_any_depth() -> None:
    asked = delegating()
    boss = asked.team.roles["boss"].model_copy(update={"limits": Limits(subtasks=4)})
    lead = boss.model_copy(update={"name": "lead", "limits": Limits()})
    roles = {**asked.team.roles, "boss": boss, "lead": lead}
    sim = Simulation(asked.model_copy(update={"team": asked.team.model_copy(update={"roles": roles})}))
    assert delegated(sim, "t0", 1) is None
    assert delegated(sim, "t0", 1, "lead") is None
    (below,) = (name for name, one in sim.state.tasks.items() if one.task.role == "lead")
    assert delegated(sim, below, 2) is None
    for task in (below, "t0"):
        if task == "t0":
            sim.finish(below, 1)
        refused = delegated(sim, task, 1)
        assert refused is not None
        assert (refused.verdict, refused.limit) == (Verdict.BUDGET, "")
        assert "the limit on subtasks of task 't0' of role 'boss' is 4: it has 4 and 1 more" in refused.message


def test_the_subtasks_of_a_run_are_bound_by_its_budget() -> None:
    asked = delegating()
    sim = Simulation(asked.model_copy(update={"plan": m.Value(inline=fan(2, "boss").model_dump()), "budget": Limits(subtasks=3)}))
    assert delegated(sim, "t0", 2) is None
    sim.finish("t0", 1)
    refused = delegated(sim, "t1", 2)
    assert refused is not None
    assert (refused.verdict, refused.limit) == (Verdict.BUDGET, "subtasks of the run")
    sim.finish("t1", failure=refused)
    assert (sim.state.status, sim.state.exhausted) == (m.Status.BUDGET, "subtasks of the run")


def test_who_delegates_without_a_limit_comes_to_an_end() -> None:
    sim = Simulation(delegating())
    sim.dispatch()
    many = tuple(Task(id=f"t0/{number}", role="worker", input=number) for number in range(MOST_SUBTASKS + 1))
    sim.say(m.SubtasksAsked(task="t0", attempt=1, step=0, tasks=many))
    assert isinstance(sim.said[-1], m.SubtasksEnded)
    assert sim.said[-1].refused is not None
    assert "is 10,000" in sim.said[-1].refused.message
    sim.say(m.SubtasksAsked(task="t0", attempt=1, step=1, tasks=many[1:]))
    assert len(sim.state.tasks) == MOST_SUBTASKS + 1


def test_subtasks_of_a_lost_parent_are_not_done_again() -> None:
    sim = Simulation(delegating())
    sim.dispatch()
    asked = m.SubtasksAsked(task="t0", attempt=1, step=0, tasks=(Task(id="t0/a", role="worker"),))
    sim.say(asked)
    sim.dispatch()
    sim.say(m.AttemptsLost(host="h1", tasks=(("t0", 1),)))
    sim.finish("t0/a", 5)
    sim.dispatch()
    sim.say(asked.model_copy(update={"attempt": 2}))
    answer = sim.said[-1]
    assert isinstance(answer, m.SubtasksEnded)
    assert answer.outputs == (m.Value(inline=5),)


@pytest.mark.parametrize("calls", [0, 1, 5, 17])
def test_a_budget_of_calls_is_used_up_and_never_passed(calls: int) -> None:
    for seed in range(15):
        sim = random_run(seed, request(fan(12), budget=Limits(model_calls=calls)), trouble=0.0)
        assert sim.state.spent().model_calls <= calls


@given(seed=st.integers(0, 10**9), calls=st.integers(0, 40), tasks=st.integers(1, 12), roles=st.integers(1, 4), merged=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_run_ends_within_its_limits_and_replays_to_the_same_state(seed: int, calls: int, tasks: int, roles: int, merged: bool) -> None:
    names = [f"role{number}" for number in range(roles)]
    spec = team(*names, "merge", merge=TREE) if merged else team(*names)
    plan = Plan(tasks=tuple(Task(id=f"t{number}", role=names[number % roles]) for number in range(tasks)))
    sim = random_run(seed, request(plan, spec, Limits(model_calls=calls, tokens=500)))
    assert all(not one.open for one in sim.state.tasks.values())
    root = sim.state.ledger.accounts[""]
    assert root.reserved == (0, 0, 0, 0, 0)
    assert dataclasses.asdict(replayed(sim)) == dataclasses.asdict(sim.state)


def test_first_leases_of_many_roles_together_never_pass_the_budget() -> None:
    names = [f"role{number}" for number in range(5)]
    plan = Plan(tasks=tuple(Task(id=f"{name}/{number}", role=name) for name in names for number in range(20)))
    sim = Simulation(request(plan, team(*names), Limits(model_calls=40)), room=100, check=within_limits)
    sim.state.typical = dict.fromkeys(names, amount(CALL))
    leased = [one for one in sim.dispatch() if one.lease is not None]
    assert 10 < len(leased) <= 40


def handing(*roles: str, strategy: Strategy = Strategy.REACT) -> Simulation:
    """A run of one task of the first role, in which every role may ask every other."""
    specs = {name: RoleSpec(name=name, strategy=strategy, delegates=True) for name in roles}
    spec = team().model_copy(update={"roles": specs, "depth": 8})
    sim = Simulation(request(Plan(tasks=(Task(id="t", role=roles[0], input="goal"),)), spec))
    sim.dispatch()
    return sim


def hand(sim: Simulation, parent: str, role: str, *inputs: str, step: int = 0) -> m.SubtasksEnded | None:
    """Have ``parent`` ask ``role`` for subtasks; the refusal, or ``None`` when they are at work."""
    tasks = tuple(Task(id=f"{parent}/{step}.{place}", role=role, input=one) for place, one in enumerate(inputs))
    sim.say(m.SubtasksAsked(task=parent, attempt=1, step=step, tasks=tasks))
    sim.dispatch()
    last = sim.said[-1]
    return last if isinstance(last, m.SubtasksEnded) and last.refused is not None else None


def test_a_subtask_that_is_already_waited_for_further_up_is_refused_with_who_waits() -> None:
    sim = handing("boss", "helper")
    assert hand(sim, "t", "helper", "part") is None
    answer = hand(sim, "t/0.0", "boss", "  GOAL")
    assert answer is not None
    assert answer.refused is not None
    assert answer.refused.verdict is Verdict.PING_PONG
    assert "in 't', which waits for it" in answer.refused.message
    assert answer.refused.evidence == ("t",)


def test_two_roles_that_hand_work_to_each_other_are_stopped_whatever_they_say() -> None:
    sim = handing("boss", "helper")
    assert hand(sim, "t", "helper", "do this") is None
    assert hand(sim, "t/0.0", "boss", "what do you mean?") is None
    answer = hand(sim, "t/0.0/0.0", "helper", "do this, please")
    assert answer is not None
    assert answer.refused is not None
    assert answer.refused.message.startswith("the subtasks were refused: roles 'helper' and 'boss' hand work to each other")


def test_the_same_subtask_is_done_twice_below_one_task_and_refused_the_third_time_with_its_outcome() -> None:
    sim = handing("boss", "left", "right", "helper")
    assert hand(sim, "t", "left", "a", "b") is None
    assert hand(sim, "t/0.0", "helper", "same", "same", "other") is None  # several answers at a time are one asking
    for name in ("t/0.0/0.0", "t/0.0/0.1", "t/0.0/0.2"):
        sim.finish(name, "known")
    assert hand(sim, "t/0.1", "helper", "Same") is None
    sim.finish("t/0.1/0.0", "known by now")
    answer = hand(sim, "t/0.0", "helper", "same ", step=1)
    assert answer is not None
    assert answer.refused is not None
    assert '2 times already; the last time it answered: "known by now"' in answer.refused.message
    assert hand(sim, "t/0.0", "helper", "new", step=2) is None
    assert dataclasses.asdict(replayed(sim)) == dataclasses.asdict(sim.state)


def test_code_may_recurse_and_ask_again_but_not_for_what_waits_for_it() -> None:
    sim = handing("boss", "helper", strategy=Strategy.FUNCTION)
    assert hand(sim, "t", "helper", "all of it") is None
    assert hand(sim, "t/0.0", "boss", "half of it") is None
    assert hand(sim, "t/0.0/0.0", "helper", "a quarter") is None
    for step in range(4):
        assert hand(sim, "t/0.0/0.0/0.0", "boss", "roll a die", step=step) is None
        sim.finish(f"t/0.0/0.0/0.0/{step}.0", 6)
    assert hand(sim, "t/0.0/0.0/0.0", "boss", "half of it", step=9) is not None
