"""``callboard reviews`` and ``review``: what waits for a person, and the person's word on it."""

import getpass
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import candidates, options, streams

if TYPE_CHECKING:
    from orchestrator.journal.port import Journal
    from orchestrator.observe.reviews import Review

WAIT_SECONDS = 5.0
"""How long the run's coordinator is given to take the decision."""

_LOOK_SECONDS = 0.1


@click.command(
    short_help="List what waits for a person.",
    epilog=options.examples("callboard reviews", "callboard reviews --run last --all", "callboard reviews --json"),
)
@click.option("--run", "run_id", metavar="RUN", shell_complete=candidates.runs, help="Only this run.")
@click.option("--all", "everything", is_flag=True, help="Also what is decided already, or was left open by a run that ended.")
@options.store
@options.as_json
@options.debug
def reviews(run_id: str | None, everything: bool, store: str | None, as_json: bool) -> int:
    """List what waits for a person, with all that the journal knows of it: effects that may or may not have happened."""
    from orchestrator.cli.skipping import Skipping
    from orchestrator.observe.reviews import reviews as reviews_of
    from orchestrator.observe.reviews import waiting

    with options.opened(store) as journal:
        rows = journal.runs() if run_id is None else [options.found(journal, run_id)]
        reading = Skipping()
        several = reading.each(rows, lambda row: reviews_of(journal, row.run) if everything else list(waiting(journal, [row])))
        found = [one for some in several for one in some]
    if as_json:
        streams.write_json({"reviews": [one.model_dump(mode="json") for one in found]}, sys.stdout)
        return reading.exit
    for one in found:
        for line in _lines(one):
            click.echo(line)
    kinds = {one.kind for one in found if one.is_open}
    for kind in sorted(kinds):
        streams.note(_ASK[kind])
    if not kinds:
        streams.note("nothing waits for a person")
    return reading.exit


_ASK = {
    "effect_in_doubt": "look at the other side, then: callboard review RUN TASK --done | --not-done | --fail",
    "fallback": "give an output that an agent did not: callboard review RUN TASK --done --result JSON | --fail",
}


@click.command(
    short_help="Decide what waits for a person.",
    epilog=options.examples(
        "callboard review last pay/7 --done --result 'receipt 4711'",
        "callboard review run-1ng7w8r pay/7 --not-done --by ada --note 'not in the bank statement'",
        """callboard review last read/3 --done --result '{"total": 119}'""",
    ),
)
@options.run_id
@click.argument("task", metavar="TASK[/STEP]")
@click.option("--done", "decisions", multiple=True, flag_value="done", help="It happened: it is not made again.")
@click.option("--not-done", "decisions", multiple=True, flag_value="not_done", help="It did not happen: it is made now.")
@click.option(
    "--retry",
    "decisions",
    multiple=True,
    flag_value="retry",
    help="Ask the tool's reconcile function again; where it has none, you are only asked again.",
)
@click.option("--fail", "decisions", multiple=True, flag_value="fail", help="End the task.")
@click.option("--result", metavar="TEXT", help="With --done: what the call returned, or the output (JSON).")
@click.option("--note", default="", metavar="TEXT", help="Why, for the journal.")
@click.option("--by", "user", metavar="USER", help="Who decides.  [default: the user of this machine]")
@options.store
@options.as_json
@options.debug
def review(
    run_id: str,
    task: str,
    decisions: tuple[str, ...],
    result: str | None,
    note: str,
    user: str | None,
    store: str | None,
    as_json: bool,
) -> int:
    """Say what became of an effect in doubt, or give the output that an agent did not, and let the task go on.

    The decision is final. It is taken by the process that works on the run; where none does, it is kept until `callboard resume RUN`.
    """
    from protocols import codec
    from protocols.failures import BadInput
    from protocols.messages import Decision, ReviewDecided

    if not decisions:
        raise BadInput("say what is so: --done, --not-done, --retry or --fail")
    decision, *others = dict.fromkeys(decisions)
    if others:
        said_so = " and ".join(f"--{one.replace('_', '-')}" for one in (decision, *others))
        raise BadInput(f"{said_so} contradict each other; decide for one of them")
    if result is not None and decision != "done":
        raise BadInput("--result says what the call returned; it goes with --done")
    with options.opened(store) as journal:
        run = options.found(journal, run_id).run
        asked = _open(journal, run, task)
        _check_first(journal, asked)
        if asked.kind == "fallback":
            _check_output(journal, asked, decision, result)
        at = time.time_ns() // 1_000_000
        said = ReviewDecided(
            task=asked.task,
            step=asked.step,
            attempt=asked.attempt,
            decision=Decision(decision),
            result=result,
            note=note,
            user=user or me(),
            at=at,
        )
        body = codec.pack(said)
        journal.post(run, body)
        taken = _taken(journal, run, body)
        now = _again(journal, asked)
    mine = taken and (now.decision, now.user, now.decided) == (said.decision, said.user, at)
    if taken and not mine:
        raise BadInput(f"{asked.task} was settled before this was heard: {_outcome(now)}")
    how = "decided" if taken else "kept"
    if taken:
        streams.note(f"{run} {asked.task}: {_outcome(now)}")
    else:
        streams.note(f"nothing is working on {run}; the decision is kept, and `callboard resume {run}` goes on with it")
    if as_json:
        streams.write_json(
            {"run": run, "task": asked.task, "step": asked.step, "decision": decision, "by": said.user, "how": how}, sys.stdout
        )
    return 0


def mention(journal: "Journal", run: str) -> None:
    """Say that writes of a run that has ended may or may not have happened, if there are any."""
    from orchestrator.observe.figures import count
    from orchestrator.observe.reviews import unknown

    if number := unknown(journal, run):
        streams.note(f"{count(number, 'write')} of {run} may or may not have happened: `callboard reviews --run {run} --all`")


def _open(journal: "Journal", run: str, task: str) -> "Review":
    from orchestrator.observe.reviews import reviews as reviews_of
    from protocols.failures import BadInput

    found = [one for one in reviews_of(journal, run) if task in (one.task, f"{one.task}/{one.step}")]
    if not found:
        raise BadInput(f"nothing in {run} waits for a person at {task!r}; `callboard reviews --run {run}` lists what does")
    if not found[-1].is_open:
        raise BadInput(f"{found[-1].task} waits for nobody any more: {_outcome(found[-1])}")
    return found[-1]


def _check_first(journal: "Journal", asked: "Review") -> None:
    """Nobody has decided this yet, whose word is only waiting to be heard."""
    from protocols import codec
    from protocols.failures import BadInput, UnknownMessage
    from protocols.messages import ReviewDecided

    for post in journal.posts([asked.run]):
        with suppress(UnknownMessage):
            said = codec.unpack(post.body)
            if isinstance(said, ReviewDecided) and (said.task, said.step) == (asked.task, asked.step):
                word = said.decision.value.replace("_", " ")
                raise BadInput(f"{said.user} has decided on {asked.task} already ({word}); `callboard resume {asked.run}` goes on with it")


def _check_output(journal: "Journal", asked: "Review", decision: str, result: str | None) -> None:
    from orchestrator.fallback import answered
    from orchestrator.observe.history import unpacked
    from protocols.failures import BadInput
    from protocols.messages import RunRequested

    if decision == "fail":
        return
    if decision != "done" or result is None:
        raise BadInput(f"{asked.task} waits for its output: give it with --done --result JSON, or end the task with --fail")
    request = unpacked(next(iter(journal.read(asked.run, 0, 1))))
    if isinstance(request, RunRequested):
        answered(result, request.team.roles[asked.tool])


def _again(journal: "Journal", asked: "Review") -> "Review":
    """The same question, as it stands now."""
    from orchestrator.observe.reviews import reviews as reviews_of

    place = (asked.task, asked.step, asked.attempt)
    return next(one for one in reviews_of(journal, asked.run) if (one.task, one.step, one.attempt) == place)


def _taken(journal: "Journal", run: str, body: bytes) -> bool:
    """Whether somebody took the decision within ``WAIT_SECONDS``."""
    until = time.monotonic() + WAIT_SECONDS
    while any(post.body == body for post in journal.posts([run])):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _outcome(one: "Review") -> str:
    from orchestrator.observe.figures import moment

    if one.decision is None:
        return "by nobody; its run or its task has ended"
    note = f" ({one.note})" if one.note else ""
    return f"{one.decision.value.replace('_', ' ')}, says {one.user} at {moment(one.decided)}{note}"


def _lines(one: "Review") -> list[str]:
    from orchestrator.observe.figures import brief, clean, moment

    facts: list[tuple[str, Any]] = [("role" if one.kind == "fallback" else "call", f"{one.tool} {brief(one.arguments, 200)}")]
    facts += [("key", one.key)] if one.kind != "fallback" else []
    facts += [("began", moment(one.began))] if one.began else []
    facts += [("asked", moment(one.asked)), ("why", brief(one.message, 400))]
    facts += [("decided", _outcome(one))] if not one.is_open else []
    head = f"{one.run}  {clean(one.task)}  {one.kind.value.replace('_', ' ')}"
    return [head, *(f"  {name:<8}{clean(value)}" for name, value in facts), *(f"    {brief(line, 200)}" for line in one.evidence)]


def me() -> str:
    """The name of whoever types."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a process without a user, as in some containers
        return "nobody"
