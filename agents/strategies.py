"""The four strategies: how a role works on a task, over one shared turn."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from agents.attempt import Attempt, Ran
from agents.context import Concluding, Conversation
from agents.findings import Findings, values_of
from agents.guards import failed
from agents.mishap import mishap, passes
from agents.threads import in_thread
from agents.turn import Answer, Form, answer_text, asked, choose, converse, spoken, turn
from agents.typed import Shape
from protocols.chat import Need, ToolCall
from protocols.failures import CallboardError, Verdict
from protocols.team import Strategy
from protocols.trust import Origin

MOST_STEPS = 50
"""A plan of the sequential strategy is carried out for at most so many steps, whoever planned them."""


class Observation(NamedTuple):
    """A step of the sequential strategy that was carried out: the text or tool call, and what came of it."""

    step: str | ToolCall
    result: str


class Steps(BaseModel):
    """What remains to be done, in order; empty when the goal is reached."""

    model_config = ConfigDict(extra="forbid")
    steps: list[str] = Field(max_length=20)


STEPS = Shape(Steps)


async def function(at: Attempt, value: Any, origin: Origin) -> Any:
    """Deterministic Python: the role's own function. What it raises is a failure (code error); ``Failed`` passes as it is."""
    role = at.role
    run = role.run
    assert run is not None
    named = {} if role.run_context is None else {role.run_context: at.context()}
    try:
        if role.run_is_async:
            return await run(value, **named)
        found = await in_thread(run, value, **named)
        return await found if inspect.isawaitable(found) else found
    except CallboardError:
        raise
    except BaseException as error:
        if passes(error):
            raise
        raise mishap(role.name, error, role.retry_on) from error


async def single(at: Attempt, value: Any, origin: Origin) -> Any:
    """One model call, its tool calls executed, a typed result.

    Without tool calls the reply is the answer. Else the results are, when they fit the output type: the only one, all of them as a
    list, or the last. When none fits, one more call without tools asks for the answer. Wrong calls are corrected
    first; a tool that fails ends the task (tool error), because there is no second chance.
    """
    talk = _open(at, value, origin)
    if not at.role.toolbox:
        return await _answered(at, talk, value)
    answer, found = Answer(at, at.role.output_shape, _check(at, value)), Findings(at.role)
    while True:
        made = await turn(at, talk, found, reuse_failed=False)
        if not made.results:
            if answer.read(talk, made.text):
                return answer.value
            continue
        broken = next((one for one in made.results if one.failure is not None and not one.refused), None)
        if broken is not None and broken.failure is not None:
            raise failed(Verdict.TOOL_ERROR, broken.content, retryable=broken.failure.retryable)
        if not any(one.refused for one in made.results):
            break
    values = values_of(at.role, made.results)
    candidates = values if len(values) == 1 else [values, values[-1]] if values else []
    for one in candidates:
        if at.role.output_shape.fits(one):
            return at.role.output_shape.read(one)
    found.add(made.results)
    return await _answered(at, talk, value, found)


async def react(at: Attempt, value: Any, origin: Origin) -> Any:
    """Reason and act by turns: tool calls are made and observed until the model answers, within the role's limits."""
    talk = _open(at, value, origin)
    if not at.role.toolbox:
        return await _answered(at, talk, value)
    answer, found = Answer(at, at.role.output_shape, _check(at, value)), Findings(at.role, kept=not at.models.all_can(Need.NATIVE_TOOLS))
    while True:
        made = await turn(at, talk, found)
        found.add(made.results)
        if not made.results and answer.read(talk, made.text):
            return answer.value


async def sequential(at: Attempt, value: Any, origin: Origin) -> Any:
    """Plan, carry out the first step, observe, update the plan, repeat; then answer.

    The plan is the role's rule or the model's. A step in words is one turn of the model with the role's tools; a step that is
    a ``ToolCall`` is made as it is. After a rule's plan the last result is the answer, if it fits, unless a model can write text.
    """
    role = at.role
    talk = _open(at, value, origin)
    seen, found = list[Observation](), Findings(role)
    steps = await _plan(at, talk, value, seen)
    while steps:
        if len(seen) == MOST_STEPS:
            raise failed(Verdict.TURNS, f"the plan of role {role.name!r} was not done after {MOST_STEPS} steps; let plan= end sooner")
        made = await _carry_out(at, talk, steps[0])
        found.add(made)
        shown = "\n".join(one.content for one in made) if made else talk.last_words
        seen.append(Observation(steps[0], shown))
        steps = await _plan(at, talk, value, seen)
    if role.plan is not None and not (role.output_shape.is_text and _writes(at)):
        for one in found.answers():
            return role.output_shape.read(one)
    return await _answered(at, talk, value, found)


async def _plan(at: Attempt, talk: Conversation, value: Any, seen: Sequence[Observation]) -> Sequence[str | ToolCall]:
    """The steps that remain."""
    rule = at.role.plan
    if rule is not None:
        if len(inspect.signature(rule).parameters) > 1:
            return list(rule(value, list(seen)))
        return list(rule(value))[len(seen) :]
    if seen:
        note = "Update the plan: which steps remain, now that you know the results? Give none when the goal is reached."
    else:
        note = "Make a plan: the few steps that reach the goal, each one thing to do with your tools. Do not carry them out yet."
    known = ", ".join(at.role.toolbox) or "none"
    plan: Steps = await asked(at, talk, STEPS, Form.of(at.role, (), STEPS.schema), note=f"{note} Tools: {known}.")
    return plan.steps


async def _carry_out(at: Attempt, talk: Conversation, step: str | ToolCall) -> list[Ran]:
    if isinstance(step, ToolCall):
        call = ToolCall(id=step.id or f"step-{talk.count}", name=step.name, arguments=step.arguments)
        talk.called(call, Origin.SYSTEM)
        (ran,) = await at.run_tools([call])
        talk.resulted(call, ran.content)
        return [ran]
    talk.note(f"Carry out this step, and only this: {step}")
    if at.role.toolbox:
        return (await turn(at, talk, Findings(at.role), final=False)).results
    reply = await converse(at, talk, Form.of(at.role))
    talk.replied(reply.text)
    return spoken(at, talk, reply.text).results


async def _answered(at: Attempt, talk: Conversation, value: Any, found: Findings | None = None) -> Any:
    """The typed answer, with no more tools."""
    role = at.role
    if role.choice_options and not role.toolbox and not (found and found.some):
        texts = list(value) if role.output_shape.labels is None else [role.prompt_for(value)]
        labels = role.output_shape.labels or role.output_shape.item_labels or {}
        if not texts:
            return []
        chosen = await choose(at, texts, role.choice_options, role.baseline, role.instructions, turn=True, origin=talk.origin)
        values = [labels[label] for label, _ in chosen]
        return role.output_shape.read(values if role.output_shape.labels is None else values[0])
    answer = Answer(at, role.output_shape, _check(at, value))
    while not answer.read(talk, await answer_text(at, talk, found)):
        continue
    return answer.value


def _open(at: Attempt, value: Any, origin: Origin) -> Conversation:
    at.talk = Conversation(at.role.instructions, at.role.prompt_for(value), origin, at.role.shots)
    return at.talk


async def carried_out(at: Attempt, value: Any, origin: Origin) -> Any:
    """The role's own strategy; where it is told to conclude, up to its first model call that is not recorded, and then its answer."""
    assert isinstance(at.role.strategy, Strategy)
    try:
        return await STRATEGIES[at.role.strategy](at, value, origin)
    except Concluding as stopped:
        assert at.talk is not None
        at.talk.untold(stopped.said)
        at.concluding = False
        at.talk.note("You can do no more: answer now, from what you have found so far, and say what is missing.")
        return await _answered(at, at.talk, value)


def _check(at: Attempt, value: Any) -> Callable[[Any], Sequence[str]] | None:
    check = at.role.check
    return None if check is None else lambda answer: check(value, answer)


def _writes(at: Attempt) -> bool:
    return at.model is not None and Need.TEXT in at.model.profile.can


Work = Callable[[Attempt, Any, Origin], Awaitable[Any]]

STRATEGIES: dict[Strategy, Work] = {
    Strategy.FUNCTION: function,
    Strategy.SINGLE: single,
    Strategy.REACT: react,
    Strategy.SEQUENTIAL: sequential,
}
"""How each strategy works."""
