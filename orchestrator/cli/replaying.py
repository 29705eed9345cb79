"""``callboard replay`` and ``fork``: a recorded run against today's code, and runs that begin where another one was."""

import asyncio
from typing import TYPE_CHECKING

import click

from orchestrator.cli import candidates, options, streams
from protocols.failures import BadInput

if TYPE_CHECKING:
    from orchestrator.playback import Playback


@click.command(
    short_help="Play a run against today's code, and say where they part.",
    epilog=options.examples(
        "callboard replay last", "callboard replay run-1ng7w8r review.py:team", "callboard replay last --skip fetcher --json"
    ),
)
@options.run_id
@click.argument("target", required=False, shell_complete=candidates.targets)
@click.option("--skip", "skipped", metavar="ROLE", multiple=True, help="Take what this role gave from the recording, and don't run it.")
@options.store
@options.as_json
@options.debug
def replay(run_id: str, target: str | None, skipped: tuple[str, ...], store: str | None, as_json: bool) -> int:
    """Carry a recorded run out with today's code, and report the first thing that it does otherwise.

    Models and tools answer from the recording: none is called, nothing is stored, and no key is needed. Functions of roles run; --skip
    those that do more than compute. TARGET is where today's team is, by default where the run's was. Exit code 0: nothing differs.
    """
    with streams.kept() as out:
        from orchestrator import target as targets
        from orchestrator.observe.history import unpacked
        from orchestrator.playback import play
        from protocols.messages import RunRequested

        with options.opened(store) as journal:
            run = options.found(journal, run_id).run
            if target is None:
                first = unpacked(journal.pick(run, [1])[0])
                target = first.target if isinstance(first, RunRequested) else None
            if target is None:
                raise BadInput(f"run {run} does not say where its team is; name it: callboard replay {run} file.py:team")
            found = asyncio.run(play(journal, run, targets.load(target).team, skipped))
        if as_json:
            streams.write_json(
                {
                    **found.model_dump(mode="json", exclude={"divergences"}),
                    "same": not found.divergences,
                    "divergences": [one.model_dump(mode="json") | {"sentence": str(one)} for one in found.divergences],
                    "exit_code": int(bool(found.divergences)),
                },
                out,
            )
        else:
            out.write("\n".join(_told(found)) + "\n")
    return int(bool(found.divergences))


def _told(found: "Playback") -> list[str]:
    from orchestrator.observe.figures import clean, count

    amount = f"{count(found.tasks, 'task')}, {count(found.model_calls, 'model call')}, {count(found.tool_calls, 'tool call')}"
    if found.divergences:
        first, *more = found.divergences
        lines = [f"{first} (entry {first.entry} of {found.run})"]
        if more:
            lines.append(f"{count(len(more), 'later difference')}, which may follow from it; --json has them all")
    else:
        lines = [f"{found.run} is the same with today's code: {amount}"]
    if found.unfinished:
        lines.append(f"{count(found.unfinished, 'task')} of the recording did not end by themselves and were compared as far as they went")
    return [clean(line) for line in (*lines, *found.notes)]


@click.command(
    short_help="Begin a run with the first entries of another one.",
    epilog=options.examples(
        "callboard fork last --at 57",
        "callboard fork last --at 57 --role-override reviewer=openai:gpt-5-mini",
        """callboard fork run-1ng7w8r --at 1 --goal '["c.py"]' --run-id again""",
    ),
)
@options.run_id
@click.option("--at", type=click.IntRange(1), required=True, metavar="SEQ", help="The last entry to share; `callboard journal` lists them.")
@click.option("--goal", "goal_text", metavar="TEXT", help="Another goal (text or JSON), where nothing was done about the old one yet.")
@click.option("--role-override", "overrides", metavar="ROLE=MODEL", multiple=True, help="The model that a role has from here on.")
@click.option("--run-id", "new", metavar="ID", help="The new run's id.")
@options.runtime
@options.store
@options.as_json
@options.quiet
@options.debug
def fork(
    run_id: str,
    at: int,
    goal_text: str | None,
    overrides: tuple[str, ...],
    new: str | None,
    place: options.Place,
    store: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Begin a run that shares a run's entries up to SEQ, and carry it on with the code of then.

    What the shared entries hold is not done again; what was at work there is, with its recorded steps. What the other run did after SEQ
    the fork may do again, effects included.
    """
    from orchestrator.cli import amounts
    from orchestrator.cli.running import carry_on
    from orchestrator.fork import fork as forked

    models = dict(_override(text) for text in overrides)
    changed = {} if goal_text is None else {"goal": amounts.goal(goal_text, None)}
    with options.opened(store) as journal:
        run = options.found(journal, run_id).run
        new = forked(journal, run, at, new, models=models, **changed)
    streams.note(f"{new} begins with entries 1 to {at} of {run}")
    return carry_on(new, place, store, as_json, quiet)


def _override(text: str) -> tuple[str, str]:
    role, _, model = text.partition("=")
    if not role or not model:
        raise BadInput(f"--role-override {text!r} names no role and model; write it like reviewer=openai:gpt-5-mini")
    return role, model
