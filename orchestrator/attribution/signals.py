"""Signals: what speaks for or against a step's being the decisive one. Each is a number from 0 to 1, and none of them reads meaning."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from orchestrator.attribution.trajectory import Actor, Step, Trajectory

MOST_FACTS = 20
"""So many new numbers in one step count in full."""

_BLOCKED = re.compile(
    r"polic(?:y|ies)[ _]?violation|content (?:management )?(?:policy|filter)|jailbreak|not a robot|captcha|cloudflare|"
    r"error code: 4\d\d|access denied",
    re.IGNORECASE,
)
_GUESSED = re.compile(
    r"\bassum(?:e|ing|ption)|\bsimulat|\bhypothe|\bmock\b|\bsample data|\bplaceholder|\bfrom memory|\bknown data|\bmanually|"
    r"\btypical(?:ly)?\b|\bexample data",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d[\d,.:]*\d|\b\d\b")
_CODE = "```"


class Told:
    """A trajectory, with what the signals ask of it counted once. ``places`` are the steps that could be to blame: all but the tools'."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.steps = trajectory.steps
        self.places = [index for index, step in enumerate(self.steps) if step.actor is not Actor.TOOL]
        self.order = {index: number for number, index in enumerate(self.places)}
        self.words: Counter[str] = Counter()
        for index in self.places:
            self.words[self.steps[index].who] += len(self.steps[index].text.split())
        self.fresh = list(_new_numbers(self.steps))

    def signals(self, at: int) -> dict[str, float]:
        """Every signal of the step at this place."""
        return {name: signal(self, at) for name, signal in SIGNALS.items()}

    def before(self, at: int) -> Step | None:
        """The step before this one, of whomever."""
        return self.steps[at - 1] if at else None

    def after(self, at: int) -> Step | None:
        """The step after this one, of whomever."""
        return self.steps[at + 1] if at + 1 < len(self.steps) else None


def _new_numbers(steps: Sequence[Step]) -> Iterator[int]:
    known: set[str] = set()
    for step in steps:
        found = set(_NUMBER.findall(step.text))
        yield len(found - known)
        known |= found


def _early(told: Told, at: int) -> float:
    return 1 / (1 + told.order[at])


def _last(told: Told, at: int) -> float:
    return float(at == told.places[-1])


def _acts(told: Told, at: int) -> float:
    return float(bool(told.steps[at].calls) or _CODE in told.steps[at].text)


def _fails(told: Told, at: int) -> float:
    after = told.after(at)
    return float(after is not None and after.actor is Actor.TOOL and after.failed)


def _after_tool(told: Told, at: int) -> float:
    before = told.before(at)
    return float(before is not None and before.actor is Actor.TOOL)


def _blocked(told: Told, at: int) -> float:
    return float(bool(_BLOCKED.search(told.steps[at].text)))


def _guesses(told: Told, at: int) -> float:
    return min(len(_GUESSED.findall(told.steps[at].text)), 3) / 3


def _talker(told: Told, at: int) -> float:
    return told.words[told.steps[at].who] / max(sum(told.words.values()), 1)


def _person(told: Told, at: int) -> float:
    return float(told.steps[at].actor is Actor.PERSON)


def _fresh(told: Told, at: int) -> float:
    return min(told.fresh[at], MOST_FACTS) / MOST_FACTS


def _closes(told: Told, at: int) -> float:
    return float(told.steps[at].who == told.steps[told.places[-1]].who)


def _takes_over(told: Told, at: int) -> float:
    before = told.before(at)
    return float(before is not None and before.actor is not Actor.TOOL and before.who != told.steps[at].who)


SIGNALS: dict[str, Callable[[Told, int], float]] = {
    "early": _early,
    "last": _last,
    "acts": _acts,
    "fails": _fails,
    "after_tool": _after_tool,
    "blocked": _blocked,
    "guesses": _guesses,
    "talker": _talker,
    "person": _person,
    "fresh": _fresh,
    "closes": _closes,
    "takes_over": _takes_over,
}
"""The signals by name. ``fresh`` is new numbers, ``talker`` the agent's share of all words, ``closes`` that its agent speaks last."""
