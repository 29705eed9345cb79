"""``callboard run``: carry a run out, show it at work, give its output."""

import asyncio
import os
import shlex
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from orchestrator.cli import options, reviewing, streams

if TYPE_CHECKING:
    from orchestrator.board import Board, RunHandle, RunResult
    from orchestrator.cli.report import Report
    from orchestrator.observe.progress import Progress

    Begin = Callable[[Board], Awaitable[RunHandle]]

DRAIN_SECONDS = 1.0
"""How long the progress may go on after the result is there, to show the last of it."""


@click.command(
    epilog=options.examples(
        "callboard run review.py",
        """callboard run review.py:team --goal '["a.py", "b.py"]' --budget-calls 40""",
        "callboard run review.py --input goal.json --model openai:gpt-5-mini --budget-usd 0.25 --json",
    )
)
@options.target
@options.asked
@click.option("--run-id", metavar="ID", help="The run's id; one that has begun already is followed and not begun again.")
@options.runtime
@options.store
@options.as_json
@options.quiet
@options.debug
def run(
    target: str,
    asked: options.Asked,
    run_id: str | None,
    place: options.Place,
    store: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Carry out a goal with the team at TARGET.

    TARGET is file.py:team or package.module:team; the name is `team` when it is left out. The output goes to standard output,
    everything else to standard error. Ctrl-C leaves the run as it is, to be resumed.
    """
    from orchestrator.cli import modelling

    limits, user, goal = asked.limits(), asked.whom(), asked.goal()
    with streams.kept() as out:
        from orchestrator import target as targets

        team, loaded = targets.load(target)
        model = _recorded(asked.model, store) if asked.model else None
        own = [model for role in team.cast.values() for model in role.models if isinstance(model, str)]
        modelling.have([model] * bool(own) if model else own)

        async def begin(board: "Board") -> "RunHandle":
            if run_id is not None and await board.has(run_id):
                streams.note(f"{run_id} has begun already; nothing of it is begun again")
                return await board.resume(run_id, team)
            return await board.start(team, goal, user=user, budget=limits, model=model, target=loaded, run_id=run_id)

        return _Work(begin, place, store, as_json, quiet).carry_out(out)


def carry_on(run_id: str, place: options.Place, store: str | None, as_json: bool, quiet: bool) -> int:
    """Resume a run of the journal at ``store``, or give its output if it has ended; returns the exit code."""
    from orchestrator.cli import modelling
    from orchestrator.observe.history import History, unpacked
    from protocols.messages import RunRequested

    with streams.kept() as out:
        with options.opened(store) as journal:
            row = options.found(journal, run_id)
            if row.ended:
                from orchestrator.cli import report

                streams.note(f"{row.run} has ended already; nothing of it is done again")
                ended = report.of_history(journal, History(row.run).read(journal.read(row.run)))
                return _give(ended, out, store, as_json, quiet)
            [first] = journal.pick(row.run, [1])
        request = unpacked(first)
        if isinstance(request, RunRequested):
            modelling.have([model for role in request.team.roles.values() for model in role.models()])

        async def begin(board: "Board") -> "RunHandle":
            return await board.resume(row.run)

        return _Work(begin, place, store, as_json, quiet).carry_out(out)


def _recorded(model: str, store: str | None) -> str:
    """``model``; of ``recorded:RUN``, with the whole id of the run."""
    provider, _, run = model.partition(":")
    if provider != "recorded":
        return model
    with options.opened(store) as journal:
        return f"{provider}:{options.found(journal, run).run}"


class _Work:
    """One run from its beginning to its exit code; ``begin`` starts or resumes it on a board."""

    def __init__(self, begin: "Begin", place: options.Place, store: str | None, as_json: bool, quiet: bool) -> None:
        self.begin, self.place, self.store = begin, place, store
        self.as_json, self.quiet = as_json, quiet
        self.run_id = ""
        self.opening = place.runtime == "ray"
        self.terminated = False

    def carry_out(self, out: TextIO) -> int:
        """Run it, write its output to ``out``, and say how it went on standard error."""
        try:
            report = asyncio.run(self._report(out))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return self._interrupted(out)
        return _give(report, out, self.store, self.as_json, self.quiet)

    async def _report(self, out: TextIO) -> "Report":
        from orchestrator.board import Board
        from orchestrator.cli import report
        from orchestrator.observe.progress import Progress

        self._heed_signals(out)
        began = time.monotonic()
        async with Board(store=self.store, **self.place._asdict()) as board:
            self.opening = False
            self._heed_signals(out)  # Ray has put handlers of its own in their place
            if self.place.address is not None:
                streams.note(f"on the cluster at {self.place.address}{elsewhere(self.place.address)}")
            handle = await self.begin(board)
            self.run_id = handle.run_id
            if self.quiet:
                result = await handle.result()
            else:
                with Progress(streams.errors(), handle.run_id, decide=_again("review", handle.run_id, self.store) or "") as progress:
                    result = await _followed(handle, progress)
        return report.of_result(result, time.monotonic() - began)

    def _heed_signals(self, out: TextIO) -> None:
        work = asyncio.current_task()
        assert work is not None

        def stop(terminated: bool) -> None:
            self.terminated = terminated
            if self.opening:  # Ray's start takes its time and can't be cancelled
                code = self._interrupted(out)
                _end_below(os.getpid())
                os._exit(code)
            if work.cancelling():
                raise KeyboardInterrupt
            work.cancel()

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, stop, False)
        loop.add_signal_handler(signal.SIGTERM, stop, True)

    def _interrupted(self, out: TextIO) -> int:
        word = "terminated" if self.terminated else "interrupted"
        code = 143 if self.terminated else 130
        again = _again("resume", self.run_id, self.store) if self.run_id else None
        what = "nothing was started" if not self.run_id else f"go on with `{again}`" if again else "its journal is gone with it"
        streams.note(f"callboard: {word}; {what}")
        if self.as_json:
            streams.write_json({"run": self.run_id or None, "status": word, "exit_code": code, "resume": again}, out)
        return code


def _end_below(process: int) -> None:
    """Kill what a process has started. Ray's own would end with it, but the last of them only after a minute."""
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # gone since it was listed
            for child in map(int, file.read_text().split()):
                _end_below(child)
                os.kill(child, signal.SIGKILL)


async def _followed(handle: "RunHandle", progress: "Progress") -> "RunResult":
    """The result, with ``progress`` shown until it is there. What is shown never decides how a run ends."""

    async def follow() -> None:
        async for envelope in handle.events():
            progress.show(envelope)

    following = asyncio.create_task(follow(), name="progress")
    try:
        result = await handle.result()
        await asyncio.wait([following], timeout=DRAIN_SECONDS)
        return result
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def elsewhere(address: str) -> str:
    """What to know of relative paths when the hosts of the cluster of ``callboard up`` work in another folder than this process."""
    from orchestrator import warm

    there = warm.found()
    if there is None or there.address != address or there.folder in (None, os.getcwd()):
        return ""
    return f"; relative paths are looked for in {there.folder} (give absolute ones, or `--address local`)"


def _give(report: "Report", out: TextIO, store: str | None, as_json: bool, quiet: bool) -> int:
    from orchestrator.cli.report import tell
    from protocols.failures import CallboardError

    if as_json:
        streams.write_json(report.as_json(), out)
    elif report.output is not None:
        streams.write_output(report.output, out)
    if not quiet:
        tell(report, streams.errors(), hint=_again("trace", report.run, store))
        if any(line.failure for line in report.tasks) and not (store or "").startswith("memory:"):
            with suppress(CallboardError), options.opened(store) as journal:  # that of a cluster may not be readable from here
                reviewing.mention(journal, report.run)
    elif report.failure:
        streams.note(f"callboard: {report.status.value}: {report.failure.message}")
    return int(report.exit)


def _again(command: str, run_id: str, store: str | None) -> str | None:
    """The command line that goes on with the run; ``None`` for a journal that dies with this process."""
    from orchestrator.journal import shown

    if store is None:
        return f"callboard {command} {run_id}"
    return None if store.startswith("memory:") else f"callboard {command} {run_id} --store {shlex.quote(shown(store))}"
