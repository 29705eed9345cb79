"""The shared turn: one model call and its tool calls, native or in schema-tool mode, and answers that fit their type."""

import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from pydantic_core import to_json

from agents.attempt import Attempt, Ran
from agents.context import BYTES_A_TOKEN, MATERIAL, Conversation, size
from agents.findings import Findings
from agents.guards import MOST_REPAIRS, failed
from agents.lookalike import written_call
from agents.overflow import make_room
from agents.picking import ANSWER, pick_choice, pick_note, pick_schema, picked
from agents.role import Role
from agents.succession import TakenOver
from agents.tool import Tool
from agents.typed import Shape
from protocols.chat import ChatMessage, Choice, Finish, ModelReply, ModelRequest, Need, Option, ToolCall, ToolSpec
from protocols.failures import BadInput, Failed, Verdict
from protocols.trust import TRUSTED, Origin

LABELS_A_CALL = 20
"""Without log-probabilities, so many texts are labelled in one call."""


P = ParamSpec("P")
T = TypeVar("T")


def anew(ask: Callable[Concatenate[Attempt, P], Awaitable[T]]) -> Callable[Concatenate[Attempt, P], Coroutine[Any, Any, T]]:
    """What was asked of a model is asked anew of one that takes over from it, which may need another form."""

    @wraps(ask)
    async def asking(at: Attempt, /, *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return await ask(at, *args, **kwargs)
            except TakenOver:
                continue

    return asking


class Form(NamedTuple):
    """All of a request besides its messages: what may be called, what must be fitted, and a digest of both."""

    tools: tuple[ToolSpec, ...]
    schema: dict[str, Any] | None
    mark: bytes
    tokens: int

    @classmethod
    def of(cls, role: Role, tools: Sequence[Tool] = (), schema: dict[str, Any] | None = None) -> "Form":
        """The form of a role's requests with these tools and this schema."""
        specs = tuple(one.spec for one in tools)
        shown = to_json([[spec.model_dump() for spec in specs], schema])
        mark = hashlib.sha256(shown + f"{role.max_output_tokens} {role.temperature!r}".encode()).digest()
        return cls(specs, schema, mark, len(shown) // BYTES_A_TOKEN)


class Turn(NamedTuple):
    """What a turn gave: results of tool calls, or, when there are none, the text of an answer."""

    results: list[Ran]
    text: str = ""


_forms: WeakKeyDictionary[Role, dict[str, Form]] = WeakKeyDictionary()


def native_form(role: Role, *, schema: bool) -> Form:
    """The form of native turns with all of the role's tools; shared by all agents of the role."""
    known = _forms.setdefault(role, {})
    name = f"native {schema}"
    if name not in known:
        known[name] = Form.of(role, tuple(role.toolbox.values()), role.output_shape.schema if schema else None)
    return known[name]


def answer_form(role: Role) -> Form:
    """The form of an answer without tools."""
    known = _forms.setdefault(role, {})
    if "answer" not in known:
        known["answer"] = Form.of(role, (), None if role.output_shape.is_text else role.output_shape.schema)
    return known["answer"]


async def _converse(at: Attempt, talk: Conversation, form: Form, *, note: str = "", turn: bool = True, alone: bool = False) -> ModelReply:
    """One model call on the conversation; ``note`` is asked after it and not kept in it.

    A reply that was cut off at ``max_output_tokens`` is told to the model once in a task, and asked for again.
    """
    role, model = at.role, at.the_model()
    asked = (ChatMessage(role="user", content=note, origin=Origin.SYSTEM),) if note else ()
    besides, most = form.tokens + sum(map(size, asked)), model.profile.context_tokens - role.max_output_tokens
    live = at.desk.partial if role.output_shape.is_text and not alone else None
    while True:
        room = int(most / talk.density) - besides
        if not talk.fits(room):
            await make_room(at, talk, room, alone=alone)
        request = ModelRequest(
            messages=talk.shown() + asked,
            tools=form.tools,
            output_schema=form.schema,
            max_output_tokens=role.max_output_tokens,
            temperature=role.temperature,
            cut=talk.cut,
        )
        digest = talk.digest(form.mark + f"{model.id} {talk.mark} {note}".encode())
        talk.latest = (digest,) if turn else (*talk.latest, digest)
        reply = await at.complete(request, digest, talk.take_fresh() + asked, turn=turn, on_text=live, alone=alone)
        estimate = talk.tokens + besides
        if reply.input_tokens is not None and estimate > most // 4:  # in a short one, what templates add says nothing of the text
            talk.counted(reply.input_tokens, estimate)
        if reply.finish is Finish.REFUSED:
            raise failed(Verdict.REFUSED, f"model {model.id} refused: {reply.text[:300] or 'it gave no reason'}")
        if reply.finish is not Finish.LENGTH:
            return reply
        at.lengths += 1
        if at.lengths > 1:
            message = f"its reply was cut off at {role.max_output_tokens} tokens twice; raise max_output_tokens, or ask for less"
            raise failed(Verdict.SCHEMA, message, reply.text[-300:])
        talk.replied(reply.text)
        talk.note(f"Your reply was cut off at {role.max_output_tokens} tokens. Say it again, shorter.")


converse = anew(_converse)


@anew
async def turn(at: Attempt, talk: Conversation, found: Findings, *, reuse_failed: bool = True, final: bool = True) -> Turn:
    """One turn with the role's tools; ``found`` is what the turns before it did.

    The text of a ``final`` turn is an answer of the role's output type; that of another is free. Text that only looks like a tool call is
    neither: the model is told, and the call counts as a refused one.
    """
    can, said = at.the_model().profile.can, ""
    if Need.NATIVE_TOOLS in can:
        shape = at.role.output_shape
        form = native_form(at.role, schema=final and not shape.is_text and Need.JSON_SCHEMA in can)
        reply = await _converse(at, talk, form)
        talk.replied(reply.text, reply.tool_calls)
        said = reply.text
        if not reply.tool_calls:
            written = written_call(said, at.role.toolbox)
            if written is None or (final and _answers(shape, said)):
                return Turn([], said) if final else spoken(at, talk, said)
            return Turn([await _refused(at, talk, written)])
        ran = await _ran(at, talk, reply.tool_calls, reuse_failed)
    else:
        call = await _next_call(at, talk, found)
        if call is None:
            if final:
                return Turn([], await answer_text(at, talk, found))
            reply = await _converse(at, talk, Form.of(at.role))
            talk.replied(reply.text)
            return spoken(at, talk, reply.text)
        talk.called(call, Origin.MODEL)
        ran = await _ran(at, talk, [call], reuse_failed)
    for one in ran:
        talk.resulted(one.call, one.content)
    _watched(at, talk, said)
    return Turn(ran)


def spoken(at: Attempt, talk: Conversation, said: str) -> Turn:
    """A turn of nothing but words that are no answer."""
    at.watch.begin()
    _watched(at, talk, said)
    return Turn([], said)


def _watched(at: Attempt, talk: Conversation, said: str) -> None:
    """End a turn of the watch over repetition, and tell the model what it found."""
    try:
        told = at.watch.end(said)
    except Failed:
        at.cache.reject(talk.latest)
        raise
    if told is not None:
        at.cache.reject(talk.latest)
        talk.note(told)


async def _ran(at: Attempt, talk: Conversation, calls: Sequence[ToolCall], reuse_failed: bool) -> list[Ran]:
    """Make the calls of a reply. One with calls that can't be made is not kept."""
    try:
        ran = await at.run_tools(calls, reuse_failed=reuse_failed)
    except Failed:
        at.cache.reject(talk.latest)
        raise
    if any(one.refused for one in ran):
        at.cache.reject(talk.latest)
    return ran


async def _refused(at: Attempt, talk: Conversation, written: ToolCall) -> Ran:
    """Refuse a call that is only the text of a reply, and tell the model."""
    at.cache.reject(talk.latest)
    ran = await at.refuse_written(written)
    talk.note(ran.content)
    return ran


def _answers(shape: Shape, text: str) -> bool:
    """Whether ``text`` is an answer of a type that is more than text."""
    try:
        shape.read_text(text)
    except BadInput:
        return False
    return not shape.is_text


async def _next_call(at: Attempt, talk: Conversation, found: Findings) -> ToolCall | None:
    """Schema-tool mode: which tool, then its arguments under their schema. ``None`` is the answer's turn.

    Whether enough is known is asked only of models that can plan; for others it is a rule: the role's ``done``, or one result.
    """
    role, can = at.role, at.the_model().profile.can
    tools = list(role.toolbox.values())
    may_answer = Need.PLANNING in can and role.done is None
    if not may_answer and (found.values if role.done is None else role.done(list(found.values))):
        return None
    name: str | None = tools[0].name
    if len(tools) > 1 or may_answer:
        if Need.LOG_PROBABILITIES in can:
            choice = pick_choice(talk.outline(), tools, may_answer=may_answer)
            name = (await _score(at, choice, talk))[0][0]
        else:
            form = Form.of(role, (), pick_schema(tools, may_answer=may_answer))
            reply = await _converse(at, talk, form, note=pick_note(tools, may_answer=may_answer))
            name = picked(reply.text)
    if name == ANSWER and may_answer:
        return None
    call_id = f"call-{talk.count}"
    tool = role.toolbox.get(name or "")
    if tool is None or not tool.spec.parameters["properties"]:
        return ToolCall(id=call_id, name=name or "(none)", arguments={})
    note = f"Give the arguments of {tool.name} as JSON. {tool.name}: {tool.description}"
    reply = await _converse(at, talk, Form.of(role, (), tool.spec.parameters), note=note, turn=False)
    return ToolCall(id=call_id, name=tool.name, arguments=reply.text)


@anew
async def answer_text(at: Attempt, talk: Conversation, found: Findings | None = None) -> str:
    """The answer without tools, as text for ``Answer.read``: a scored choice, a result that is the answer already, or a reply."""
    role, can = at.role, at.the_model().profile.can
    if role.output_shape.labels and role.choice_options and Need.LOG_PROBABILITIES in can:
        choice = Choice(texts=(talk.outline(),), options=role.choice_options, baseline=tuple(role.baseline))
        text = (await _score(at, choice, talk))[0][0]
        talk.replied(text)
        return text
    if found is not None and (Need.PLANNING not in can or (role.output_shape.is_text and Need.TEXT not in can)):
        for value in found.answers():
            return value if role.output_shape.is_text else to_json(value).decode()
    while True:
        reply = await _converse(at, talk, answer_form(role))
        talk.replied(reply.text)
        written = written_call(reply.text, role.toolbox) if role.toolbox and role.output_shape.is_text else None
        if written is None:
            return reply.text
        await _refused(at, talk, written)


class Answer:
    """Reads answers strictly as one type; what does not fit goes back to the model with the reasons, a bounded number of times."""

    __slots__ = ("_at", "_check", "_repairs", "_shape", "value")

    def __init__(self, at: Attempt, shape: Shape, check: Callable[[Any], Sequence[str]] | None = None) -> None:
        self._at, self._shape, self._check, self._repairs = at, shape, check, 0
        self.value: Any = None

    def read(self, talk: Conversation, text: str) -> bool:
        """Whether ``text`` fits: then ``value`` is set. Raises ``Failed`` (schema) when it was sent back too often."""
        try:
            if not text.strip():
                raise BadInput("the reply was empty")
            self.value = self._shape.read_text(text)
            wrong = self._check(self.value) if self._check else ()
            if wrong:
                raise BadInput("; ".join(wrong[:5]))
            return True
        except BadInput as error:
            why = str(error)
        self._at.cache.reject(talk.latest)
        self._repairs += 1
        if self._repairs > MOST_REPAIRS:
            raise failed(Verdict.SCHEMA, f"its answer never fitted: {why}", text[:500])
        labels = self._shape.labels
        wanted = f"one of: {', '.join(labels)}" if labels else "nothing but the corrected answer"
        talk.note(f"Your answer does not fit: {why}. Reply with {wanted}.")
        return False


async def asked(
    at: Attempt, talk: Conversation, shape: Shape, form: Form, *, note: str = "", turn: bool = True, alone: bool = False
) -> Any:
    """A typed answer of the model to the conversation, repaired within bounds."""
    answer = Answer(at, shape)
    while True:
        reply = await converse(at, talk, form, note=note, turn=turn, alone=alone)
        talk.replied(reply.text)
        if answer.read(talk, reply.text):
            return answer.value


@anew
async def choose(
    at: Attempt,
    texts: Sequence[str],
    options: Sequence[Option],
    baseline: Sequence[str],
    instructions: str,
    *,
    turn: bool,
    origin: Origin = Origin.USER,
) -> list[tuple[str, float]]:
    """A label and its margin for each text: scored in one batch, or written under a schema, ``LABELS_A_CALL`` texts a call.

    ``origin`` is that of the texts: those that are not trusted are shown as material.
    """
    if Need.LOG_PROBABILITIES in at.the_model().profile.can:
        choice = Choice(texts=tuple(texts), options=tuple(options), baseline=tuple(baseline))
        return await _score(at, choice, None, turn=turn, origin=origin)
    labels = [one.label for one in options]
    described = "\n".join(f"- {one.label}: {one.description}" for one in options)
    found: list[tuple[str, float]] = []
    for start in range(0, len(texts), LABELS_A_CALL):
        some = texts[start : start + LABELS_A_CALL]
        names = [str(number) for number in range(1, len(some) + 1)]
        schema = {
            "type": "object",
            "properties": {name: {"type": "string", "enum": labels} for name in names},
            "required": names,
            "additionalProperties": False,
        }
        told = f"{instructions}\n\nLabel each numbered text. The labels are:\n{described}".strip()
        talk = Conversation(told, "\n\n".join(f"[{name}] {text}" for name, text in zip(names, some, strict=True)), origin)
        answer = Answer(at, Shape(dict[str, str]))
        while True:
            reply = await _converse(at, talk, Form.of(at.role, (), schema), turn=turn, alone=True)
            talk.replied(reply.text)
            if answer.read(talk, _checked_labels(reply.text, names, labels)):
                break
        found += [(answer.value[name], 0.0) for name in names]
    return found


def _checked_labels(text: str, names: list[str], labels: list[str]) -> str:
    try:
        given = Shape(dict[str, str]).read_text(text)
    except BadInput:
        return text
    fits = list(given) == names or set(given) == set(names)
    return text if fits and set(given.values()) <= set(labels) else ""


async def _score(
    at: Attempt, choice: Choice, talk: Conversation | None, *, turn: bool = True, origin: Origin = Origin.USER
) -> list[tuple[str, float]]:
    """A scored choice. On a conversation it is one of its turns; else the texts are told, for no other entry holds them."""
    model = at.the_model()
    digest = hashlib.sha256(choice.model_dump_json().encode() + model.id.encode())
    if talk is None:
        messages: tuple[ChatMessage, ...] = ()
        said = tuple(_shown(text, origin) for text in choice.texts)
    else:
        digest.update(talk.digest(b"").encode())
        messages, said = talk.shown(), talk.take_fresh()
    request = ModelRequest(messages=messages, choice=choice, max_output_tokens=1)
    reply = await at.complete(request, digest.hexdigest(), said, turn=turn, alone=talk is None)
    known = {one.label for one in choice.options}
    if len(reply.labels) != len(choice.texts) or not known.issuperset(reply.labels):
        raise failed(Verdict.PROVIDER, f"model {model.id} was asked for {len(choice.texts)} labels and gave {reply.labels!r}"[:300])
    margins = reply.margins if len(reply.margins) == len(reply.labels) else (0.0,) * len(reply.labels)
    return list(zip(reply.labels, margins, strict=True))


def _shown(text: str, origin: Origin) -> ChatMessage:
    if origin in TRUSTED:
        return ChatMessage(role="user", content=text, origin=origin)
    return ChatMessage(role="tool", content=text, origin=origin, tool_call_id=MATERIAL)
