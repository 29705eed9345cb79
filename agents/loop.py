"""The loop: one role's work on one input, from JSON to JSON."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agents.at_work import Label, Outcome
from agents.attempt import Attempt
from agents.containment import contained
from agents.context import Conversation
from agents.desk import Desk, LocalDesk
from agents.guards import failed
from agents.mishap import mishap, passes
from agents.models.port import Model
from agents.role import Role, unmet
from agents.strategies import carried_out
from agents.turn import Form, asked, choose
from agents.typed import Shape
from protocols.budget import Limits
from protocols.chat import Option
from protocols.failures import BadInput, CallboardError, Failed, Failure, Verdict
from protocols.messages import Message, TaskEnded, Value
from protocols.plan import Task
from protocols.team import Strategy
from protocols.trust import Origin


async def work(
    role: Role,
    input_json: Any,
    desk: Desk,
    model: Model | None = None,
    *,
    fallback_models: Sequence[Model] = (),
    origin: Origin = Origin.USER,
    limits: Limits | None = None,
) -> Any:
    """Work on one task: the output as JSON. Raises ``Failed`` with the verdict for everything that goes wrong.

    ``model`` is needed by every role but those that are plain functions; ``fallback_models`` take over from it, in their order. An input
    whose ``origin`` is not trusted is shown to the model as material, never as a user's words. ``limits`` are the task's own, and hold
    where they are narrower than the role's. The caller reports the end
    (``TaskEnded``); everything before it is told to ``desk``.
    """
    unpriced = [one.id for one in (model, *fallback_models) if one is not None and one.price is None]
    if unpriced and limits is not None and limits.micros is not None:
        told = f"task {desk.task!r} has a limit on money, and the price of {unpriced[0]} is not known"
        raise failed(Verdict.PLAN, f"{told}; give the model a price, or limit tokens and calls")
    with contained():
        at = Attempt(role, desk, model, fallback_models, limits)
        return await _worked(at, input_json, model, origin)


async def _worked(at: Attempt, input_json: Any, model: Model | None, origin: Origin) -> Any:
    role = at.role
    try:
        value = role.read_input(input_json)
    except BadInput as error:
        raise failed(Verdict.PLAN, str(error)) from None
    except BaseException as error:  # of a validator of its input
        if passes(error):
            raise
        raise mishap(role.name, error) from error
    assert isinstance(role.strategy, Strategy)
    if model is None and not role.is_function and role.strategy is not Strategy.SEQUENTIAL:
        raise BadInput(f"role {role.name!r} has the {role.strategy} strategy and needs a model; give it model=, like model='embedded'")
    at.counter = Help(at, origin)
    seconds = at.limits.seconds
    try:
        if seconds is None:
            output = await carried_out(at, value, origin)
        else:
            async with asyncio.timeout(max(seconds - at.desk.worked / 1000, 0)) as at.clock.timeout:
                output = await carried_out(at, value, origin)
        at.account_for_writes()
        return role.dump_output(output)
    except TimeoutError as error:
        if not at.clock.expired:
            raise mishap(role.name, error, role.retry_on) from error
        await at.look_back()
        message = f"role {role.name!r} did not end in the {seconds or 0:g} s of its limits; raise limits=seconds, or split its task"
        raise failed(Verdict.DEADLINE, message) from None
    except Failed:
        raise
    except CallboardError as error:
        retryable = error.retryable or isinstance(error, role.retry_on)
        raise failed(Verdict.CODE_ERROR, f"role {role.name!r}: {error}", retryable=retryable) from error
    except BaseException as error:  # of the role's own prompt, plan, check or done
        if passes(error):
            raise
        raise mishap(role.name, error, role.retry_on) from error
    finally:
        await at.cache.forget()


class Help:
    """What a ``Context`` asks of the attempt that it belongs to."""

    __slots__ = ("_at", "_origin")

    def __init__(self, at: Attempt, origin: Origin) -> None:
        self._at, self._origin = at, origin

    async def choose(self, texts: Sequence[str], options: Mapping[str, str], baseline: Sequence[str]) -> list[Label]:
        """Labels for texts; see ``Context.choose``."""
        if not options:
            raise BadInput("a choice needs options; give a mapping of label to description")
        listed = [Option(label=label, description=description) for label, description in options.items()]
        found = await choose(self._at, texts, listed, baseline, self._at.role.instructions, turn=False, origin=self._origin)
        return [Label(*one) for one in found]

    async def ask(self, prompt: str, output: Any, instructions: str) -> Any:
        """A typed answer; see ``Context.ask``."""
        at, shape = self._at, Shape(output)
        talk = Conversation(instructions, prompt, self._origin)
        form = Form.of(at.role, (), None if shape.is_text else shape.schema)
        return await asked(at, talk, shape, form, turn=False, alone=True)

    async def delegate(self, tasks: Sequence[Task], step: int | None) -> list[Outcome]:
        """Outcomes of subtasks; see ``Context.delegate``."""
        return await self._at.delegate(tasks, step)

    def partial(self, text: str) -> None:
        """Pass on a piece of output."""
        self._at.desk.partial(text)


async def steps(
    role: Role, input: Any, model: Model | str | None = None, *, limits: Limits | None = None, task: str = "task"
) -> AsyncIterator[Message]:
    """Work on one task alone in this process, with no Ray: each message as it is told, and at last ``TaskEnded``.

    ``model`` (or its id) stands in for the role's own; ``limits`` are a budget on top of the role's limits. Raises ``BadInput`` when the
    role cannot work with the model; a failure of the work itself is in ``TaskEnded``.
    """
    made_here = isinstance(role.model if model is None else model, str)
    model = await _model_for(role, model)
    told: asyncio.Queue[Message | None] = asyncio.Queue()
    desk = LocalDesk(task=task, limits=limits or Limits(), on_message=told.put_nowait)
    began = desk.now()
    working = asyncio.create_task(work(role, input, desk, model))
    working.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (message := await told.get()) is not None:
            yield message
        output, failure = None, None
        try:
            output = Value(inline=working.result())
        except Failed as error:
            failure = error.failure
        except asyncio.CancelledError:
            failure = Failure(verdict=Verdict.CANCELLED, message="the work was cancelled")
        yield TaskEnded(task=task, attempt=1, output=output, failure=failure, usage=desk.usage, began=began, ended=desk.now())
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        if made_here and model is not None:
            await model.aclose()


async def _model_for(role: Role, model: Model | str | None) -> Model | None:
    found = role.model if model is None else model
    if isinstance(found, str):
        from agents.models.registry import resolve

        found = resolve(found)
    if found is not None:
        lacking = unmet(role, found.profile)
        if lacking:
            raise BadInput(" ".join(lacking))
    return found
