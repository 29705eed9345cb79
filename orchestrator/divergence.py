"""Divergences: where today's code does something else than a recorded run did, in words."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from pydantic_core import to_json

from agents.role import Role
from orchestrator.recording import RecordedTask, Recording, Step
from protocols import messages as m
from protocols.chat import ChatMessage, ModelRequest
from protocols.failures import Failure, Verdict
from protocols.record import Record
from protocols.trust import Origin

SHOWN = 60
"""Characters of each side that a sentence quotes."""

_BEFORE = 12  # characters of what is still the same before a change, so that it can be found
_OUTSIDE = (Verdict.BUDGET, Verdict.DEADLINE, Verdict.CANCELLED, Verdict.EFFECT_IN_DOUBT, Verdict.INFRASTRUCTURE)
_MADE = (Origin.MODEL, Origin.TOOL)

Read = Callable[[m.Value], Any]


class Divergence(Record):
    """One difference: at which task and step of today's run, ``what`` it is in one sentence, and the recorded entry it belongs to."""

    task: str
    role: str
    step: int | None
    what: str
    entry: int

    def __str__(self) -> str:
        where = f"task {self.task}" if self.task else "the run"
        return f"{where}{'' if self.step is None else f' step {self.step}'}: {self.what}"


def cut_short(told: RecordedTask, role: str = "") -> Failure | None:
    """Why a recorded task ended for a reason that lies outside it, or has no end: it is compared only as far as it went. With a ``role``,
    why that one's part in it did."""
    if any(one.role == role for one in told.fallen):
        failure = told.failure_of(role)
        return failure if failure is not None and failure.verdict in _OUTSIDE else None
    if told.end is None:
        return Failure(verdict=Verdict.CANCELLED, message="the recording ends here")
    if isinstance(told.end, m.TaskClosed) or (told.failure is not None and told.failure.verdict in _OUTSIDE):
        return told.failure
    return None


def request_differs(told: RecordedTask, step: int, request: ModelRequest, then: Role | None, now: Role) -> str:
    """How a request that today's code makes at ``step``, and that was never recorded, differs from what was."""
    calls = [one.call for one in told.models() if isinstance(one.call, m.ModelCalled)]
    here = next((call for call in calls if call.step == step), None)
    if here is None:
        count = f"{len(calls)} model call{'' if len(calls) == 1 else 's'}"
        last = next((message for message in reversed(request.messages) if message.origin not in _MADE), None)
        asked = f", with {quoted(last.content)}" if last is not None else ""
        return f"today's code asks its model{asked}; recorded are {count} of this task, and none here"
    known = {message.content for call in calls if call.step < step for message in call.said}
    said = [message for message in here.said if message.content not in known]
    new = [message for message in request.messages if message.origin not in _MADE and message.content not in known]
    changed = next((words for pair in zip_longest(said, new) if (words := _message_differs(*pair))), None)
    if changed is None:
        changed = "; ".join(_settings_differ(then, now)) if then is not None else ""
    return f"the request differs: {changed or 'the words are the same, so its tools, output type or settings changed'}"


def differences(then: Recording, now: Recording, read_then: Read, read_now: Read, *, skipped: frozenset[str]) -> Iterator[Divergence]:
    """The first difference of each task, and of the run's end. Calls that only a ``skipped`` role made are not missed."""
    left_out: set[str] = set()
    for name, told in then.tasks.items():
        if told.task.role in skipped or told.parent in left_out:
            left_out.add(name)
    for name, told in now.tasks.items():
        found = _task_differs(then.tasks.get(name), told, read_then, read_now, skipped=told.task.role in skipped)
        if found is not None:
            step, what, entry = found
            yield Divergence(task=name, role=told.task.role, step=step, what=what, entry=entry or then.ended or told.added)
    for name, told in then.tasks.items():
        if name not in now.tasks and (told.parent is None or told.parent not in left_out) and then.end is not None:
            yield Divergence(task=name, role=told.task.role, step=None, what="today's code has no such task", entry=told.added)
    if then.end is not None and now.end is not None and then.end.status not in (m.Status.CANCELLED, m.Status.BUDGET):
        words = _end_differs(then.end, now.end, read_then, read_now)
        if words:
            yield Divergence(task="", role="", step=None, what=words, entry=then.ended)


def quoted(value: Any, at: int = 0) -> str:
    """``value`` for a sentence, on one line, from a little before place ``at``."""
    text = value if isinstance(value, str) else to_json(value).decode()
    start = max(at - _BEFORE, 0)
    shown = " ".join(text[start : start + SHOWN].split())
    return f"{'…' if start else ''}{shown!r}{'…' if start + SHOWN < len(text) else ''}"


def _task_differs(
    then: RecordedTask | None, now: RecordedTask, read_then: Read, read_now: Read, *, skipped: bool
) -> tuple[int | None, str, int] | None:
    if then is None:
        return None, f"the recording has no such task of role {now.task.role!r}", 0
    for name in ("role", "input", "after", "tolerant"):
        words = value_differs(getattr(then.task, name), getattr(now.task, name))
        if words:
            return None, f"its {name} differs: {words}", then.added
    short = cut_short(then)
    if not skipped:
        found = _steps_differ(then, now, whole=short is None)
        if found is not None:
            return found
    if short is not None:
        return None
    if now.failure is not None and (then.failure is None or _failure(then.failure) != _failure(now.failure)):
        was = f"failed ({_failure(then.failure)})" if then.failure is not None else f"gave {_shown(then.output, read_then)}"
        return None, f"the end differs: recorded it {was}, now it failed ({_failure(now.failure)})", then.closed
    if then.failure is not None and now.failure is None:
        return (
            None,
            f"the end differs: recorded it failed ({_failure(then.failure)}), now it gave {_shown(now.output, read_now)}",
            then.closed,
        )
    if then.failure is None and then.output is not None and now.output is not None:
        words = value_differs(read_then(then.output), read_now(now.output))
        if words:
            return None, f"the output differs: {words}", then.closed
    return None


def _steps_differ(then: RecordedTask, now: RecordedTask, *, whole: bool) -> tuple[int | None, str, int] | None:
    """The first call that is another one, or has another result; with ``whole``, also one that is missing or too many."""
    found = [_calls_differ(then.tools(), now.tools(), _tool_differs, "tool call", whole=whole)]
    found.append(_calls_differ(then.models(), now.models(), _model_differs, "model call", whole=whole))
    return min((one for one in found if one is not None), key=lambda one: one[0], default=None)


def _calls_differ(
    then: Sequence[Step], now: Sequence[Step], differ: Callable[[Any, Any], str | None], noun: str, *, whole: bool
) -> tuple[int, str, int] | None:
    for before, after in zip_longest(then, now):
        if before is not None and after is not None:
            words = differ(before.call, after.call)
            if words:
                return after.call.step, words, before.seq
        elif whole and before is not None:
            return before.call.step, f"recorded is a {noun} more{_named(before.call)}, which today's code does not make", before.seq
        elif whole and after is not None:
            return after.call.step, f"today's code makes a {noun} more{_named(after.call)} than was recorded", then[-1].seq if then else 0
    return None


def _named(call: m.ModelCalled | m.ToolCalled) -> str:
    return f" ({call.call.name} {quoted(call.call.arguments)})" if isinstance(call, m.ToolCalled) else ""


def _model_differs(then: m.ModelCalled, now: m.ModelCalled) -> str | None:
    return None if then.request == now.request else "another request is made here than was recorded"


def _tool_differs(then: m.ToolCalled, now: m.ToolCalled) -> str | None:
    if then.call.name != now.call.name:
        return f"it calls tool {now.call.name!r}; recorded it called {then.call.name!r}"
    words = value_differs(then.call.arguments, now.call.arguments)
    if words:
        return f"the arguments of {now.call.name!r} differ: {words}"
    made = then.ran or bool(then.settled)
    if made != now.ran:
        return (
            f"the call of {now.call.name!r} {'was made and now is not' if made else 'was refused and now is made'}: {quoted(now.content)}"
        )
    if made and then.effect != now.effect:
        return f"tool {now.call.name!r} was declared to {then.effect} and now to {now.effect}"
    words = value_differs(then.content, now.content)
    return f"what {now.call.name!r} is answered differs: {words}" if words else None


def _message_differs(then: ChatMessage | None, now: ChatMessage | None) -> str | None:
    if then is None:
        return f"today's code adds a {now.role} message: {quoted(now.content)}" if now is not None else None
    if now is None:
        return f"the {then.role} message {quoted(then.content)} is gone"
    if then.role != now.role:
        return f"recorded a {then.role} message {quoted(then.content)}, now a {now.role} message {quoted(now.content)}"
    words = value_differs(then.content, now.content)
    return f"the {now.role} message changed {words}" if words else None


def _settings_differ(then: Role, now: Role) -> Iterator[str]:
    """What else goes into a request's digest: tools, output type, choices and settings."""
    for name in ("max_output_tokens", "temperature", "context"):
        if getattr(then, name) != getattr(now, name):
            yield f"{name} was {getattr(then, name)} and is {getattr(now, name)}"
    for name in then.toolbox.keys() | now.toolbox.keys():
        before, after = then.toolbox.get(name), now.toolbox.get(name)
        if before is None or after is None:
            yield f"tool {name!r} is {'new' if before is None else 'gone'}"
        elif words := value_differs(before.spec.model_dump(), after.spec.model_dump()):
            yield f"tool {name!r} changed {words}"
    if words := value_differs(then.output_shape.schema, now.output_shape.schema):
        yield f"the output type changed {words}"
    if then.choice_options != now.choice_options or list(then.baseline) != list(now.baseline):
        yield "the options of its choice changed"


def _end_differs(then: m.RunEnded, now: m.RunEnded, read_then: Read, read_now: Read) -> str | None:
    if then.status is not now.status:
        return f"recorded it ended {then.status.value}, now {now.status.value}"
    if then.output is None or now.output is None:
        return None if then.output is now.output else "its output is no longer made in the same way"
    words = value_differs(read_then(then.output), read_now(now.output))
    return f"the output differs: {words}" if words else None


def value_differs(then: Any, now: Any, place: str = "") -> str | None:
    """Where two JSON values first differ, and how; ``None`` when they are equal."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys: Iterable[Any] = [*then, *(key for key in now if key not in then)]
        missing = object()
        for key in keys:
            before, after = then.get(key, missing), now.get(key, missing)
            inner = f"{place}.{key}".lstrip(".")
            if before is missing or after is missing:
                return f"at {inner}: recorded {'nothing' if before is missing else quoted(before)}, now " + (
                    "nothing" if after is missing else quoted(after)
                )
            if words := value_differs(before, after, inner):
                return words
        return None
    if isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)):
        for number, (before, after) in enumerate(zip(then, now, strict=False)):
            if words := value_differs(before, after, f"{place}[{number}]"):
                return words
        return None if len(then) == len(now) else f"{f'at {place}: ' if place else ''}recorded {len(then)} items, now {len(now)}"
    if isinstance(then, str) and isinstance(now, str):
        if then == now:
            return None
        at = next((k for k, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
        where = f"{f'in {place} ' if place else ''}at character {at}"
        return f"{where}: recorded {quoted(then, at)}, now {quoted(now, at)}"
    if (type(then) is type(now) and then == now) or (then == now and not isinstance(then, bool) and not isinstance(now, bool)):
        return None
    return f"{f'at {place}: ' if place else ''}recorded {quoted(then)}, now {quoted(now)}"


def _failure(failure: Failure) -> str:
    return f"{failure.verdict.value}: {failure.message}"


def _shown(output: m.Value | None, read: Read) -> str:
    return quoted(read(output)) if output is not None else "nothing"
