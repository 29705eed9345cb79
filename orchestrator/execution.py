"""Carrying out what is durable: attempts are given to hosts, answers sent, agents stopped or held. No Ray here."""

import asyncio
from collections.abc import Callable

from orchestrator.assignment import assignment
from orchestrator.journal.port import Journal
from orchestrator.link import now
from orchestrator.live import LiveRun
from orchestrator.observe.logs import get_logger
from orchestrator.purse import Purse
from orchestrator.reducer.state import RunState
from orchestrator.roster import Roster
from protocols import codec
from protocols import messages as m

STOP_SECONDS = 2.0
"""Stopped tasks of which none has ended for this long are given up."""

Say = Callable[[str, m.Message], None]
"""Puts a message into a run, to be stored and folded with the next batch."""

log = get_logger("execution")


class Execution:
    """Does what journalled messages call for, through the hosts of a roster. What follows is said to the run, and journalled in turn."""

    def __init__(self, journal: Journal, roster: Roster, purse: Purse, say: Say, finished: Callable[[LiveRun], None]) -> None:
        self._journal = journal
        self._roster = roster
        self._purse = purse
        self._say = say
        self._finished = finished

    async def carry_out(self, here: LiveRun, message: m.Message) -> None:
        """Do what one durable message calls for."""
        if isinstance(message, m.Dispatched):
            await self._assign(here.state, message)
        elif isinstance(message, (m.LeaseGranted, m.LeaseDenied, m.SubtasksEnded)):
            self._send(here.state, message.task, message)
        elif isinstance(message, m.AllowanceAsked):
            self._purse.ask(here)
        elif isinstance(message, m.TaskClosed):
            if self._roster.stop_task(here.state.run, message.task, message.failure):
                self._give_up_later(here.state.run, message.task)
        elif isinstance(message, m.ReviewAsked):
            decide = f"callboard review {here.state.run} {message.task}"
            log.warning("a task waits for a person", run=here.state.run, task=message.task, why=message.message, decide=decide)
        elif isinstance(message, (m.AllowanceGranted, m.BudgetChanged)):
            self._limit(here)
            if isinstance(message, m.BudgetChanged):
                self.set_deadline(here)
        elif isinstance(message, m.RunRequested):
            self.set_deadline(here)
        elif isinstance(message, (m.CancelRequested, m.DeadlinePassed, m.RunResumed)):
            if here.state.stopping is not None:
                self._roster.stop_run(here.state.run, here.state.stopping)
                self._give_up_later(here.state.run)
        elif isinstance(message, (m.PauseRequested, m.ContinueRequested)):
            self._roster.hold(here.state.run, here.state.paused)
        elif isinstance(message, m.RunEnded):
            if here.state.paused:
                self._roster.hold(here.state.run, False)
            await self._purse.finish(here)
            self._finished(here)

    async def _assign(self, state: RunState, message: m.Dispatched) -> None:
        for item in message.items:
            me = state.tasks[item.task]
            link = self._roster.links.get(item.host)
            if link is None:  # lost since; the loss is in the queue or will be noticed with the next ping
                self._say(state.run, m.AttemptsLost(host=item.host, tasks=((item.task, item.attempt),)))
                continue
            history: tuple[bytes, ...] = ()
            if me.steps:
                picked = await asyncio.to_thread(self._journal.pick, state.run, [seq for seq, _ in me.steps])
                history = tuple(entry.body for entry in picked)
            assign = assignment(state, item, history)
            link.at_work[state.run, item.task] = item.attempt
            link.outbox.send(state.run, codec.pack(assign), f"{state.run} / {me.task.role} / {item.task}")

    def _send(self, state: RunState, task: str, message: m.Message) -> None:
        host = state.tasks[task].host
        link = self._roster.links.get(host) if host else None
        if link is not None:
            link.outbox.send(state.run, codec.pack(message), f"{state.run} / {state.tasks[task].task.role} / {task}")

    def _limit(self, here: LiveRun) -> None:
        """Have agents told that began before there was any limit."""
        if here.state.ledger.limited and not here.limited:
            self._roster.limit(here.state.run)
        here.limited = here.state.ledger.limited

    def set_deadline(self, here: LiveRun) -> None:
        """Have the run stopped when its seconds are over."""
        if here.timer is not None:
            here.timer.cancel()
        seconds = here.state.ledger.limits.seconds
        if seconds is None:
            return
        left = here.state.began / 1000 + seconds - now() / 1000
        here.timer = asyncio.get_running_loop().call_later(max(left, 0), self._deadline, here.state.run)

    def _deadline(self, run: str) -> None:
        self._say(run, m.DeadlinePassed())

    def _give_up_later(self, run: str, task: str | None = None) -> None:
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._give_up, run, task, self._left(run, task))

    def _left(self, run: str, task: str | None) -> int:
        return sum(task in (None, name) for name, _ in self._roster.having(run))

    def _give_up(self, run: str, task: str | None, before: int) -> None:
        """What has not stopped by now is lost, unless many are at it still."""
        if 0 < self._left(run, task) < before:
            self._give_up_later(run, task)
            return
        for host, left in self._roster.give_up(run, task):
            self._say(run, m.AttemptsLost(host=host, tasks=left))
