"""A judge that costs nothing and always says the same: it weighs a dozen signals of each step, and reads no meaning.

A step's chance is the softmax of its weighted signals, an agent's the sum over its steps. The weights were fitted to 139 failures that
people annotated (Who&When and AgentRx) and rounded; ``python -m tests.orchestrator.attribution_accuracy`` fits them anew, on folds.
Take what it says as where to look first: it names the right agent about three times in five and the right step one in three.
"""

import math
from collections import defaultdict
from collections.abc import Mapping

from orchestrator.attribution.signals import Told
from orchestrator.attribution.trajectory import Actor, Attribution, Cause, Trajectory
from protocols.failures import BadInput, Verdict

WEIGHTS: Mapping[str, float] = {
    "early": -0.6,
    "last": -0.8,
    "acts": 0.6,
    "fails": 1.0,
    "after_tool": -0.5,
    "blocked": 1.8,
    "guesses": 2.1,
    "talker": -0.6,
    "person": -0.6,
    "fresh": 1.6,
    "closes": 0.3,
    "takes_over": 0.9,
}

ALONE = 0.5
"""The most that is claimed of an agent that nobody else could be told from."""

_EXACT: Mapping[Verdict, Cause] = {
    Verdict.BAD_ARGUMENTS: Cause.INVOCATION,
    Verdict.HALLUCINATED_TOOL: Cause.INVOCATION,
    Verdict.TOOL_ERROR: Cause.SYSTEM,
    Verdict.EFFECT_IN_DOUBT: Cause.SYSTEM,
    Verdict.CODE_ERROR: Cause.SYSTEM,
    Verdict.PROVIDER: Cause.SYSTEM,
    Verdict.INFRASTRUCTURE: Cause.SYSTEM,
    Verdict.SCHEMA: Cause.ADHERENCE,
    Verdict.REFUSED: Cause.GUARDRAIL,
}
"""Verdicts that leave no doubt about the kind of mistake of the task that ended with them."""

_REASONS = {
    "blocked": "it met a policy, a filter or a check for robots",
    "guesses": "it works with assumed or made-up data",
    "fails": "what directly follows from it fails",
    "fresh": "it brings numbers that nothing before it has",
    "takes_over": "it takes over from another",
    "acts": "it acts on what it believes",
    "closes": "its agent speaks last",
}
"""What is said of the signals that can speak for a step."""


class Heuristic:
    """The judge by ``weights`` of ``SIGNALS``. See ``Judge``."""

    def __init__(self, weights: Mapping[str, float] = WEIGHTS) -> None:
        self.weights = weights

    async def judge(self, trajectory: Trajectory) -> Attribution:
        """See ``Judge.judge``; it waits for nothing."""
        told = Told(trajectory)
        if not told.places:
            raise BadInput("nobody took a step here, so nobody can be judged; give a trajectory with the steps of an agent")
        signals = {at: told.signals(at) for at in told.places}
        scores = {at: sum(self.weights.get(name, 0.0) * value for name, value in found.items()) for at, found in signals.items()}
        top = max(scores.values())
        whole = sum(math.exp(score - top) for score in scores.values())
        chance = {at: math.exp(score - top) / whole for at, score in scores.items()}
        agents: dict[str, float] = defaultdict(float)
        for at, one in chance.items():
            agents[told.steps[at].who] += one
        step = max(told.places, key=lambda at: (chance[at] * agents[told.steps[at].who], -at))
        who = told.steps[step].who
        sure = agents[who] if len(agents) > 1 else min(agents[who], ALONE)
        verdict = trajectory.verdict
        if who == trajectory.task and verdict is not None and verdict in _EXACT:  # what is recorded goes before what is guessed
            failing = [at for at in told.places if told.steps[at].who == who and signals[at]["fails"]]
            step = failing[-1] if failing else step
            called = f"what it called there ({told.steps[step + 1].who}) failed, and " if failing else ""
            return Attribution(
                who=who,
                step=step,
                cause=_EXACT[verdict],
                confidence=round(min(sure, 1.0), 2),
                because=f"{called}the task is recorded as {verdict.value}",
            )
        causes: dict[Cause, float] = defaultdict(float)
        for at, one in chance.items():  # the step may be wrong and its agent right: all of the agent's steps have a say in the cause
            if told.steps[at].who == who:
                causes[_cause(told, at, signals[at])] += one
        return Attribution(
            who=who,
            step=step,
            cause=max(causes, key=lambda cause: causes[cause]),
            confidence=round(min(sure, 1.0), 2),
            because=self._because(signals[step]) if len(chance) > 1 else "it took the only step there is",
        )

    def _because(self, found: Mapping[str, float]) -> str:
        pulls = {name: self.weights.get(name, 0.0) * found[name] for name in _REASONS}
        strong = [name for name in sorted(pulls, key=lambda name: -pulls[name]) if pulls[name] >= 0.2][:2]
        return " and ".join(_REASONS[name] for name in strong) or "no other step stands out more"


def _cause(told: Told, at: int, found: Mapping[str, float]) -> Cause:
    step, before = told.steps[at], told.before(at)
    if step.actor is Actor.PERSON:
        return Cause.UNDERSPECIFIED
    if found["blocked"]:
        return Cause.GUARDRAIL
    if found["fails"]:
        after = told.after(at)
        return _EXACT.get(after.verdict, Cause.INVOCATION) if after and after.verdict else Cause.INVOCATION
    answers_a_person = before is None or before.actor is Actor.PERSON
    if step.calls and answers_a_person:
        return Cause.MISALIGNMENT
    return Cause.ADHERENCE if answers_a_person else Cause.MISREADING
