"""Time in rehearsals: by a manual clock nobody waits, and what is waited for comes as it would have. So do the waits between tries."""

import asyncio
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from agents import Role, ScriptedModel, call, role, tool
from agents.calls import MOST_WAIT, wait
from agents.process import run as run_program
from orchestrator import Team
from orchestrator.link import now
from orchestrator.testing import ManualClock, rehearse
from protocols.budget import Limits
from protocols.failures import BadInput, Verdict
from protocols.messages import Status

HOUR = 3_600


async def sleeps(text: str) -> str:
    """Work that takes two hours."""
    await asyncio.sleep(2 * HOUR)
    return text


def test_deadlines_come_without_waiting_and_the_machines_clock_stays() -> None:
    before = now()
    for limited, team in (
        (60, Team("slow", [Role("sleeper", run=sleeps)], budget=Limits(seconds=60))),
        (600, Team("slow", [Role("sleeper", run=sleeps, limits=Limits(seconds=600))])),
    ):
        clock = ManualClock()
        done = rehearse(team, "x", clock=clock)
        (lost,) = done.result.failed
        assert lost.failure is not None
        assert lost.failure.verdict is Verdict.DEADLINE
        assert f"{limited}" in lost.failure.message
        assert limited - 30 < clock.ahead < limited + 30
        assert limited - 30 < lost.seconds < limited + 30
    assert now() - before < 600_000


def test_what_threads_and_programs_do_is_waited_for() -> None:
    @tool(timeout=30)
    def block(word: str) -> str:
        """Block until somebody else says so."""
        ended = threading.Event()
        threading.Timer(0.05, ended.set).start()
        ended.wait()
        return word

    @tool(timeout=30)
    async def echo(word: str) -> str:
        """Have a program say it."""
        return (await run_program("/bin/sh", "-c", f"sleep 0.05; printf {word}", timeout=30)).stdout

    model = ScriptedModel([call("block", word="well"), call("echo", word="done"), "fine"])
    done = rehearse(Team("busy", [Role("r", tools=[block, echo], model=model)]), "x", clock=ManualClock())
    assert [one.content for one in done.tool_calls] == ["well", "done"]


def test_a_cached_reply_grows_old_by_the_clock(tmp_path: Path) -> None:
    model, clock, store = ScriptedModel(lambda _: "four"), ManualClock(), str(tmp_path / "journal.db")
    team = Team("counters", [Role("count", model=model, cache="user", cache_seconds=HOUR)])
    for passes, calls in ((0, 1), (HOUR / 2, 1), (HOUR, 2)):
        clock.advance(passes)
        assert rehearse(team, "2 + 2", clock=clock, store=store).result.output == "four"
        assert model.calls == calls
    with pytest.raises(BadInput, match="give a number from 0 up"):
        clock.advance(-1)


def tried(clock: ManualClock, error: Exception, budget: Limits | None = None, **settings: object) -> tuple[list[float], Verdict, Status]:
    """When a role that always raises ``error`` was tried, how its task ended, and its run."""
    times: list[float] = []

    @role(**settings)
    async def flaky(text: str) -> str:
        times.append(asyncio.get_running_loop().time())
        raise error

    result = rehearse(Team("flaky", [flaky]), "x", clock=clock, budget=budget).result
    (lost,) = result.failed
    assert lost.failure is not None
    return times, lost.failure.verdict, result.status


def test_between_tries_it_is_waited_longer_each_time_within_the_roles_seconds_and_not_after_the_last() -> None:
    times, *ended = tried(ManualClock(), ConnectionError("no"), attempts=8)
    assert ended == [Verdict.CODE_ERROR, Status.FAILED]
    gaps = [after - before for before, after in pairwise(times)]
    assert len(gaps) == 7
    assert all(gap >= min(0.5 * 2**number, MOST_WAIT) / 2 for number, gap in enumerate(gaps))
    clock = ManualClock()
    times, *_ = tried(clock, ConnectionError("no"), attempts=8, limits=Limits(seconds=0.2))
    assert len(times) == 8
    assert clock.ahead < 7
    clock = ManualClock()
    assert len(tried(clock, ConnectionError("no"), attempts=1)[0]) == 1
    assert clock.ahead < 0.25
    assert max(wait(tries) for tries in range(1, 2_000)) <= 1.5 * MOST_WAIT


def test_a_run_that_is_over_ends_the_wait_and_the_failure_is_what_it_was() -> None:
    times, *ended = tried(ManualClock(), ConnectionError("no"), attempts=50, budget=Limits(seconds=20))
    assert ended == [Verdict.CODE_ERROR, Status.BUDGET]
    assert 3 <= len(times) < 10


@pytest.mark.parametrize(
    ("error", "retry_on", "tries"),
    [
        (KeyError("x"), (LookupError,), 2),
        (ConnectionError("x"), (LookupError,), 1),
        (ConnectionError("x"), (), 1),
        (KeyError("x"), (OSError,), 1),
        (ExceptionGroup("both", [KeyError("x"), ExceptionGroup("one", [IndexError()])]), (LookupError,), 2),
        (ExceptionGroup("both", [KeyError("x"), ValueError("x")]), (LookupError,), 1),
        (BadInput("not today"), (BadInput,), 2),
    ],
)
def test_a_role_says_which_of_its_errors_may_pass(error: Exception, retry_on: tuple[type[Exception], ...], tries: int) -> None:
    assert len(tried(ManualClock(), error, retry_on=retry_on)[0]) == tries


def test_what_is_no_type_of_error_is_refused() -> None:
    for wrong in (OSError, ["OSError"], [BaseException], None):
        with pytest.raises(BadInput, match="retry_on is a list of exception types"):
            role(retry_on=wrong)(sleeps)
