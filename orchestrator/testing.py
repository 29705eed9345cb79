"""Testing: a team carried out in this process, over a journal of its own, with scripted models and with faults where a test wants them.

    from orchestrator.testing import KillHost, rehearse

    def test_a_booking_is_made_once(ledger):
        done = rehearse(team, "book it", model=ScriptedModel([...]), chaos=[KillHost(at_tool_call=1)])
        assert done.result.status is Status.DONE
        assert ledger == ["booked"]

Everything is what a cluster runs, without Ray: coordinator, hosts, links and journal. Nothing is asked of a person: ``decide`` says what
one would, and without it a write in doubt ends its task.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_jsonable_python

from agents.mishap import witnessed
from agents.models.port import Model
from orchestrator.board import RunHandle, RunResult
from orchestrator.chaos import (
    DelayAcknowledgement,
    DoubleReport,
    DropAcknowledgement,
    DropReport,
    Fault,
    KillHost,
    MortalHost,
    StopCoordinator,
    Stoppable,
    Unrest,
)
from orchestrator.coordinator import Coordinator
from orchestrator.journal import open_journal
from orchestrator.journal.port import Journal
from orchestrator.manual_clock import ManualClock, is_by_hand
from orchestrator.playback import Playback, play
from orchestrator.recording import recorded_run, replaying
from orchestrator.team import Team
from protocols import codec, ids
from protocols import messages as m
from protocols.budget import Limits
from protocols.failures import BadInput, StorageError
from protocols.messages import Decision

__all__ = [
    "Decision",
    "DelayAcknowledgement",
    "DoubleReport",
    "DropAcknowledgement",
    "DropReport",
    "Fault",
    "KillHost",
    "ManualClock",
    "Playback",
    "Rehearsal",
    "StopCoordinator",
    "rehearse",
    "rehearsed",
    "replay",
]

_WHO = "rehearsal"
_WAIT_SECONDS = 0.1  # short, because the coordinator that is asked may have been stopped
_LONG_SECONDS = 10.0  # where it can't be, and nobody waits

Decide = Callable[[m.ReviewAsked], Decision | str]


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal came to: the run's ``result``, and every message of its journal in order."""

    result: RunResult
    messages: tuple[m.Message, ...]

    @property
    def tool_calls(self) -> list[m.ToolCalled]:
        """The tool calls that ended and are recorded, in the order of the journal."""
        return [one for one in self.messages if isinstance(one, m.ToolCalled)]

    @property
    def reviews(self) -> list[m.ReviewAsked]:
        """What a person was asked."""
        return [one for one in self.messages if isinstance(one, m.ReviewAsked)]

    @property
    def lost(self) -> int:
        """How many attempts were lost with their host."""
        return sum(len(one.tasks) for one in self.messages if isinstance(one, m.AttemptsLost) and not one.returned)


def rehearse(team: Team, goal: Any = None, *, clock: ManualClock | None = None, **settings: Any) -> Rehearsal:
    """``rehearsed`` for code without an event loop; with a ``clock``, by that: deadlines, waits and the ages of caches pass at once."""
    work = rehearsed(team, goal, **settings)
    return asyncio.run(work) if clock is None else clock.run(work)


def replay(team: Team, run: str, store: str | None = None, *, skipped: Collection[str] = ()) -> Playback:
    """A run of the journal at ``store`` against ``team`` as it is now, as ``callboard replay`` does it: a recorded run as a test.

    Nothing is called and nothing stored. ``skipped`` are roles whose functions must not run. Raises ``BadInput``.
    """
    with closing(open_journal(store)) as journal:
        return asyncio.run(play(journal, run, team, skipped))


async def rehearsed(
    team: Team,
    goal: Any = None,
    *,
    model: str | Model | None = None,
    chaos: Sequence[Fault] = (),
    hosts: int = 1,
    budget: Limits | None = None,
    decide: Decide | None = None,
    store: str = "memory:",
) -> Rehearsal:
    """Carry ``goal`` out to its end, with the faults of ``chaos``.

    ``model`` and ``budget`` are as for ``Team.start``. ``hosts`` is how many carry the agents. ``decide`` answers for a person whom a
    write in doubt is shown to, or who gives, as JSON, an output that an agent did not. ``store`` is where the journal is kept, to be read
    afterwards. An assertion that fails in a tool, a model or a function, and ``pytest.fail`` or ``skip`` there, end the rehearsal and are
    raised. Raises ``BadInput`` for what can't work, and for a fault at a tool call that was never reached.
    """
    if hosts < 1 or any(fault.at_tool_call < 1 for fault in chaos):
        raise BadInput("at least one host is needed, and tool calls count from 1")
    with closing(open_journal(store)) as journal:
        run = recorded_run(model)
        if run is not None:
            team = replaying(team, run, journal)
        elif model is not None:
            team = team.with_model(model)
        limits = team.budget.model_copy(update=budget.model_dump(exclude_none=True)) if budget else team.budget
        wrong = team.unmet(limits)
        if wrong:
            raise BadInput(wrong[0])
        goal = to_jsonable_python(goal)
        plan = team.plan(goal)
        kept = None if plan is None else m.Value(inline=plan.model_dump(exclude_defaults=True))
        request = m.RunRequested(team=team.spec(), goal=goal, user=team.user, budget=limits, reserve=team.reserve, plan=kept)
        stage = _Stage(journal, team, chaos, hosts)
        try:
            with witnessed(stage.hear):
                return await stage.carry_out(request, decide or (lambda asked: Decision.FAIL))
        finally:
            await stage.close()


class _Stage:
    """One run with its hosts, and the coordinators that had it one after the other."""

    def __init__(self, journal: Journal, team: Team, chaos: Sequence[Fault], hosts: int) -> None:
        self._run = ids.new_run_id()
        self._journal, self._team = journal, team
        self._unrest = Unrest(chaos, self._succeed)
        self._hosts = [MortalHost(f"host/{number}", self._run, team.cast, self._unrest) for number in range(hosts)]
        self._coordinators: list[tuple[Coordinator, Stoppable]] = []
        self._verdict: BaseException | None = None

    def hear(self, raised: BaseException) -> None:
        """Something was raised in a user's code."""
        self._verdict = self._verdict or _verdict(raised)

    async def carry_out(self, request: m.RunRequested, decide: Decide) -> Rehearsal:
        await self._begin()
        await self._coordinator.submit(self._run, codec.pack(request))
        messages = await self._heard(decide)
        unmet = [fault for fault in self._unrest.faults if fault.at_tool_call > self._unrest.calls]
        if unmet:
            raise BadInput(f"{unmet[0]} never happened: the run made {self._unrest.calls} tool calls")
        result = await RunHandle(self._run, self._coordinator, self._team).result()
        return Rehearsal(result, tuple(messages))

    async def close(self) -> None:
        """End everything."""
        for coordinator, journal in self._coordinators:
            journal.wake()
            await coordinator.close()
        for host in self._hosts:
            await host.close()

    @property
    def _coordinator(self) -> Coordinator:
        return self._coordinators[-1][0]

    async def _begin(self) -> None:
        journal = Stoppable(self._journal)
        coordinator = Coordinator(journal, self._hosts, owner=f"{_WHO} {self._run}")
        await coordinator.start()
        self._coordinators.append((coordinator, journal))

    async def _succeed(self) -> None:
        """The coordinator stops, another one takes over, and the first one wakes."""
        _, stopped = self._coordinators[-1]
        stopped.stop()
        await self._begin()
        stopped.wake()

    async def _heard(self, decide: Decide) -> list[m.Message]:
        """Every message to the end, from whoever has the run."""
        messages: list[m.Message] = []
        partial = 0
        seconds = _LONG_SECONDS if is_by_hand() and not self._unrest.faults else _WAIT_SECONDS
        while not (messages and isinstance(messages[-1], m.RunEnded)):
            if self._verdict is not None:
                raise self._verdict
            coordinator = self._coordinator
            try:
                news = await coordinator.watch(self._run, len(messages), partial, seconds)
            except StorageError:
                if coordinator is self._coordinator:
                    raise
                continue
            partial = news.partial
            for _, _, body in news.entries:
                message = codec.unpack(body)
                messages.append(message)
                if isinstance(message, m.ReviewAsked):
                    said = decide(message)
                    decision, result = (said, None) if isinstance(said, Decision) else (Decision.DONE, said)
                    if message.kind is m.ReviewKind.FALLBACK and result is None and decision is not Decision.FAIL:
                        raise BadInput(f"task {message.task!r} waits for its output; let decide return it, as JSON")
                    decided = m.ReviewDecided(task=message.task, step=message.step, decision=decision, result=result, user=_WHO)
                    await asyncio.to_thread(self._journal.post, self._run, codec.pack(decided))
                if isinstance(message, m.RunEnded):
                    break
        if self._verdict is not None:
            raise self._verdict
        return messages


def _verdict(raised: BaseException) -> BaseException | None:
    """What ``raised`` says of the test: an assertion that failed, or what is no error of a program and no end of one."""
    if isinstance(raised, BaseExceptionGroup):
        return next((found for one in raised.exceptions if (found := _verdict(one)) is not None), None)
    ends = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)
    said = isinstance(raised, AssertionError) or not isinstance(raised, (Exception, *ends))
    return raised if said else None
