"""A model that answers with what another one answered in an earlier run: no network, no key, no provider."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from math import inf
from typing import NamedTuple

from agents.models.port import Model
from protocols.chat import FREE, ChatMessage, ModelReply, ModelRequest, Price, Profile
from protocols.failures import ModelError, Verdict
from protocols.messages import ModelCalled

PROVIDER = "recorded"
_SHOWN = 80  # characters of a message that an error quotes
_TRIED = re.compile(r"model \S+ failed \(try \d+\): ")  # what the loop puts before a model's own words


class _Told(NamedTuple):
    """What one recorded call came to: a reply, or why there was none."""

    reply: ModelReply | None
    failure: str
    retryable: bool
    charged: bool
    then: bool = False


class _Heard(NamedTuple):
    """A message that a recorded call added: a hash, and its beginning to be quoted."""

    hash: bytes
    shown: str


class RecordedModel:
    """Plays the model ``original`` of one role as it was in ``run``: with its id, profile and price, by the calls in the journal.

    A request is known by its digest. The one made at the same place (task and step) gets what came there, failed tries included, in
    order; one that was made elsewhere gets the replies from there. Usage counts as it was recorded, and nothing is called. Any other
    request raises ``ModelError``, which says what differs. ``source`` is how a run's request names the model. A fault that was recorded
    says that it was, unless it is to be ``verbatim``.
    """

    def __init__(self, run: str, role: str, original: Model, calls: Iterable[ModelCalled], *, verbatim: bool = False) -> None:
        self.id, self.source = original.id, f"{PROVIDER}:{run}"
        self._run, self._role, self._original = run, role, original
        self._there: dict[tuple[str, int, str], list[_Told]] = defaultdict(list)
        self._anywhere: dict[str, list[_Told]] = defaultdict(list)
        self._heard: dict[tuple[str, int], tuple[_Heard, ...]] = {}
        self._steps: dict[str, int] = defaultdict(int)
        self._charged, self._verbatim = False, verbatim
        for call in calls:
            self._charged = self._charged or call.usage.micros > 0
            self._steps[call.task] = max(self._steps[call.task], call.step + 1)
            self._heard.setdefault((call.task, call.step), tuple(map(_heard, call.said)))
            if call.failure is not None and call.failure.verdict is Verdict.CANCELLED:
                continue  # nothing came, and the call was made again if the work went on
            told = _told(call)
            self._there[call.task, call.step, call.request].append(told)
            if told.reply is not None:
                self._anywhere[call.request].append(told)
        self._given: dict[tuple[str, int, str] | str, int] = defaultdict(int)

    @property
    def profile(self) -> Profile:
        """The original's."""
        return self._original.profile

    @property
    def price(self) -> Price | None:
        """The original's, so that reserving is decided as it was; nothing where nothing was charged then."""
        return self._original.price if self._charged else FREE

    def bound(self, request: ModelRequest) -> tuple[int, int]:
        """The original's."""
        return self._original.bound(request)

    async def complete(self, request: ModelRequest, on_text: Callable[[str], None] | None = None) -> ModelReply:
        """What was recorded of ``request``; ``on_text`` hears the text in one piece. Raises ``ModelError``."""
        task, step = request.place or ("", 0)
        there = (task, step, request.digest)
        told = self._next(there, self._there.get(there, [])) or self._next(request.digest, self._anywhere.get(request.digest, []))
        if told is None:
            message = f"run {self._run} holds no reply to what role {self._role!r} asks at step {step} of task {task!r}"
            raise ModelError(f"{message}: {self._difference(request)}; undo that, or run it with the model itself", charged=False)
        if told.reply is None:
            why = _TRIED.sub("", told.failure, count=1) if self._verbatim else f"as it was recorded: {told.failure}"
            # Where another model took over it does so again, whatever the tries.
            raise ModelError(why, retryable=told.retryable or told.then, retry_after=inf if told.then else 0.0, charged=told.charged)
        if on_text is not None and told.reply.text:
            on_text(told.reply.text)
        return told.reply

    def holds(self, request: ModelRequest) -> bool:
        """Whether something is left that was recorded of ``request``."""
        there = (*(request.place or ("", 0)), request.digest)
        told: list[tuple[tuple[str, int, str] | str, list[_Told]]] = [
            (there, self._there.get(there, [])),
            (request.digest, self._anywhere.get(request.digest, [])),
        ]
        return any(self._given[key] < len(found) for key, found in told)

    async def aclose(self) -> None:
        """Nothing to release: the original was never called."""

    def _next(self, key: tuple[str, int, str] | str, told: list[_Told]) -> _Told | None:
        place = self._given[key]
        if place >= len(told):
            return None
        self._given[key] = place + 1
        return told[place]

    def _difference(self, request: ModelRequest) -> str:
        task, step = request.place or ("", 0)
        if request.digest in self._anywhere:
            return "it asked the same fewer times then"
        if task not in self._steps:
            return "it had no such task in this role then"
        said = self._heard.get((task, step))
        if said is None:
            return f"it asked its model nothing at this step then, and went up to step {self._steps[task] - 1}"
        now = {_hash(message.content) for message in request.messages}
        gone = next((one for one in said if one.hash not in now), None)
        if gone is not None:
            last = next((message for message in reversed(request.messages) if message.role != "assistant"), None)
            return f"then it was told {gone.shown!r}, and now {_beginning(last.content if last else '')!r}"
        return (
            "what this step adds is the same, so an earlier reply or tool result differs, or the role's tools, output, "
            "max_output_tokens or temperature do"
        )

    def __repr__(self) -> str:
        return f"RecordedModel({self.source!r}, {self._role!r})"


def _told(call: ModelCalled) -> _Told:
    used = call.usage
    if call.reply is not None:
        counts = {
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "micros": used.micros,
            "shortened": call.shortened,
        }
        return _Told(call.reply.model_copy(update=counts), "", False, True)
    why = call.failure.message if call.failure else "no reply was recorded"
    charged = bool(used.input_tokens or used.output_tokens)
    return _Told(None, why, call.failure is not None and call.failure.retryable, charged, bool(call.then))


def _heard(message: ChatMessage) -> _Heard:
    return _Heard(_hash(message.content), _beginning(message.content))


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()


def _beginning(text: str) -> str:
    line = " ".join(text[: 4 * _SHOWN].split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"
