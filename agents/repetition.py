"""Repetition: an agent that goes round in its calls, its words or its results is told so once, with evidence, and then stopped."""

import hashlib
import re
from collections import deque
from collections.abc import Hashable, Iterable
from decimal import Decimal
from typing import Any

from pydantic_core import to_json

from agents.delegation import DELEGATE
from agents.guards import Objection, failed
from protocols.chat import ToolCall
from protocols.failures import Verdict

MOST_REPEATS = 3
"""The same call in a row: the third is not made, and the model is told."""
LONGEST_CYCLE = 6
"""Calls that take turns (A, B, A, B) are looked for up to this period. They count with the second call of their third round, or, from a
period of 3 on, with the second call after their second round; rounds whose results change may go on for five."""
MOST_EQUAL = 10
"""A repeatable tool may be called with equal arguments while its results change; after so many equal ones in a row, one more counts."""
MOST_BARREN = 8
"""Turns in a row that brought nothing new: no result that this tool had not given before, no new write, no new words. A third of those
that asked something new, and got an old answer, are allowed on top: eleven when all did."""
MOST_THOUGHTS = 3
"""The same words in so many turns in a row, while nothing new comes in."""
PATIENCE = 1
"""Told at one turn, the agent that goes on at the next ends its task."""
SPARED = 1
"""The same call in a row is refused so many turns more after it was told, in a line without evidence. Of 207 recorded runs that succeeded
two would be stopped, and three (1.4%; of tau2-bench alone 2.2%) without it; no other kind of repetition stops any of them."""
MOST_TOLD = 2
"""So often is a task told of repetition, of another each time; a third ends it. No recorded run comes to a third."""

_ELSE = "Do something else, or answer with what you know"
_AGAIN = f"as you were told; made once more, this call ends the task. {_ELSE}"
_LONG = 100
_POLLS = "; a tool that polls says repeatable=True"
_DONE = "; say in its instructions when a piece of work is done"
_LONGEST_TEXT = 2_000
"""Characters of a text up to which differences of spelling are looked through; longer ones are compared as they are."""
_QUOTES = dict.fromkeys(map(ord, "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"))
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


def canonical(value: Any) -> Hashable:
    """JSON without what is only spelling: white space, case, quotes, the order of keys, and how a number is written.

    Digits with a leading zero are text: they name something and count nothing. Long texts are kept by their digest.
    """
    if isinstance(value, str):
        text = _plain(value)
        if len(text) > _LONG:
            return hashlib.sha256(text.encode("utf-8", "replace")).digest()
        return Decimal(text.replace(",", "")) if text and text[-1].isdigit() and _NUMBER.fullmatch(text) else text
    if isinstance(value, dict):
        return tuple(sorted(((_plain(key), canonical(one)) for key, one in value.items()), key=_key))
    if isinstance(value, (list, tuple)):
        return tuple([canonical(one) for one in value])
    return Decimal(repr(value)) if isinstance(value, float) else value


class _Step:
    """One call that was checked, and what came of it (a mark that equal results share)."""

    __slots__ = ("call", "content", "key", "mark", "polls")

    def __init__(self, call: ToolCall, key: Hashable, polls: bool) -> None:
        self.call, self.key, self.polls = call, key, polls
        self.mark: int | None = None
        self.content = ""


class Repetition:
    """Watches the calls and the words of one task, turn by turn; ``turn`` numbers them from 1."""

    __slots__ = (
        "_acted",
        "_asked",
        "_barren",
        "_curious",
        "_equal",
        "_last",
        "_named",
        "_news",
        "_open",
        "_results",
        "_round",
        "_runs",
        "_said",
        "_spin",
        "_steps",
        "_texts",
        "_thoughts",
        "_told",
        "turn",
    )

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque(maxlen=(MOST_EQUAL + 1) * LONGEST_CYCLE)
        self._open: deque[_Step] = deque()
        self._runs = [0] * (LONGEST_CYCLE + 1)
        self._last: dict[Hashable, int | None] = {}
        self._results: set[tuple[str, int]] = set()
        self._equal: dict[Hashable, int] = {}
        self.turn = self._told = self._barren = self._asked = self._thoughts = 0
        self._round: list[int] = []
        self._named: Hashable = None
        self._spin: list[int] = []
        self._news = self._acted = self._curious = False
        self._said = ""
        self._texts: set[int] = set()

    def begin(self) -> None:
        """A turn begins."""
        if self._round and self._round[-1] != self.turn:
            self._round.clear()  # it did something else: what comes next is told anew
        self.turn += 1
        self._news = self._acted = self._curious = False
        self._open.clear()

    def check(self, call: ToolCall, *, repeatable: bool = False) -> Objection | None:
        """An objection to a call that goes round; raises ``Failed`` when the model was told before and went on: ping_pong, where all that
        goes round is work that it hands to others, else loop."""
        step = _Step(call, (call.name, canonical(call.arguments)), repeatable)
        self._acted = True
        period = self._period(step)
        self._steps.append(step)
        if not period:
            self._open.append(step)
            return None
        before = self._steps[-1 - period]
        step.mark, step.content = before.mark, before.content
        shown = _shown(list(self._steps)[-period:])
        told = _round(period, self._runs[period], shown, before.content)
        again = bool(self._round) and self._round[0] < self.turn and self._named == step.key
        evidence = [*shown, *([before.content] if before.content else [])]
        handed = all(one.call.name == DELEGATE for one in list(self._steps)[-period:])
        verdict, hint = (Verdict.PING_PONG, _DONE) if handed else (Verdict.LOOP, _POLLS)
        self._tell(self._round, told, evidence, hint, patience=PATIENCE + SPARED * (period == 1), verdict=verdict)
        self._named = step.key
        return Objection(verdict, _AGAIN if again else told)

    def gave(self, call: ToolCall, content: str, *, writes: bool = False, fails: bool = False) -> None:
        """The result of the next call of this turn that was made: whether it was a write, and whether it failed."""
        if not self._open:
            return
        step = self._open.popleft()
        step.mark, step.content = mark, _ = _mark(content), content[:200]
        key, result = step.key, (call.name, mark)
        if step.polls:
            self._equal[key] = self._equal.get(key, 0) + 1 if self._last.get(key) == mark else 1
            fresh = self._equal[key] < MOST_EQUAL
        elif writes and not fails:
            fresh = self._last.get(key) != mark
        else:
            fresh = result not in self._results
        self._curious = self._curious or (key not in self._last and not fails)
        self._last[key] = mark
        self._results.add(result)
        self._news = self._news or fresh

    def end(self, text: str = "") -> str | None:
        """What is to be said to the model at the end of a turn in which it said ``text``; raises ``Failed`` (loop)."""
        said = _plain(text)
        self._thoughts = self._thoughts + 1 if said and said == self._said else 1
        self._said = said
        self._news = self._news or (not self._acted and bool(said) and hash(said) not in self._texts)
        self._texts.add(hash(said))
        self._barren = 0 if self._news else self._barren + 1
        self._asked = 0 if self._news else self._asked + self._curious
        same = f"you have said the same in {self._thoughts} turns in a row: {text[:200]!r}. {_ELSE}"
        spun = bool(said) and min(self._thoughts, self._barren + 1) >= MOST_THOUGHTS
        if not spun and self._barren < MOST_BARREN + self._asked // 3:
            self._spin.clear()
            return same if said and self._news and self._thoughts == 2 * MOST_THOUGHTS else None  # it gets on, if oddly: nothing more
        if self._round and self._round[-1] == self.turn:
            return None  # an objection of this turn has said so
        if spun:
            told, evidence = same, [text[:300]]
        else:
            last = next((one.content for one in reversed(self._steps) if one.content), "")
            gave = f"; the last result was: {last}" if last else ""
            told = f"your last {self._barren} turns brought nothing new{gave}. {_ELSE}"
            evidence = _shown(list(self._steps)[-LONGEST_CYCLE:])
        self._tell(self._spin, told, evidence)
        return told

    def _period(self, step: _Step) -> int:
        """The period with which ``step`` goes round, or 0."""
        runs, steps = self._runs, self._steps
        if step.key not in self._last and not any(one.key == step.key for one in self._open):
            self._runs = [0] * (LONGEST_CYCLE + 1)
            return 0
        found = 0
        for period in range(1, min(LONGEST_CYCLE, len(steps)) + 1):
            runs[period] = runs[period] + 1 if steps[-period].key == step.key else 0
            if not found and runs[period] >= min(2 * period, period + 2) and self._counts(step, period):
                found = period
        return found

    def _counts(self, step: _Step, period: int) -> bool:
        """Whether a run that is long enough to be one of ``period`` is repetition, and no waiting or getting on."""
        run = min(self._runs[period], len(self._steps) - period + 1)
        recent = [*self._steps, step][-run - period :]
        still = 1
        for one, before in zip(reversed(recent[:-1]), reversed(recent[: -1 - period]), strict=False):
            if one.mark is not None and before.mark is not None and one.mark != before.mark:
                break
            still += 1
        still = min(still, run)
        if any(one.polls for one in recent[-period:]):
            return still >= MOST_EQUAL * period
        if period == 1 and all(one.call.arguments == step.call.arguments for one in recent[-MOST_REPEATS:]):
            return True
        return still >= min(2 * period, period + 2) or run >= 4 * period

    def _tell(
        self,
        warned: list[int],
        told: str,
        evidence: Iterable[str],
        hint: str = "",
        *,
        patience: int = PATIENCE,
        verdict: Verdict = Verdict.LOOP,
    ) -> None:
        """Note in which turns it was told the same; raises ``Failed`` when it was told enough."""
        if not warned:
            self._told += 1
        warned.append(self.turn)
        if self._told > MOST_TOLD:
            raise failed(verdict, f"it goes round again after it was told of {MOST_TOLD} repetitions: {told[:500]}{hint}", *evidence)
        if self.turn - warned[0] >= patience:
            raise failed(verdict, f"it went on after it was told: {told[:500]}{hint}", *evidence)


def _plain(text: str) -> str:
    return text if len(text) > _LONGEST_TEXT else " ".join(text.translate(_QUOTES).casefold().split())


def _key(pair: tuple[str, Hashable]) -> str:
    return pair[0]


def _mark(content: str) -> int:
    return hash(_plain(content))


def _shown(steps: Iterable[_Step]) -> list[str]:
    return [f"{one.call.name}({to_json(one.call.arguments).decode()[:300]})" for one in steps]


def _round(period: int, run: int, shown: list[str], content: str) -> str:
    gave = f"; it gave: {content}" if content else ""
    if period == 1:
        return f"this call was made {run} times already with equal arguments{gave}. {_ELSE}"
    return f"these {period} calls go round, for {run // period + 1} rounds now: {', '.join(shown)[:600]}{gave}. {_ELSE}"
