"""Overflow: what a role's policy does with a conversation that has outgrown its model's context."""

from collections.abc import Sequence

from agents.attempt import Attempt
from agents.context import BYTES_A_TOKEN, ContextPolicy, Conversation
from agents.guards import failed
from protocols.chat import ChatMessage, Finish, ModelRequest
from protocols.failures import Verdict
from protocols.trust import Origin

MOST_SUMMARIES = 20
"""So often a conversation is summarised; after that its last summary stays, and what follows it is left out."""
SUMMARY_SHARE = 5
"""A summary takes at most one part in so many of the room, and no more than ``max_output_tokens``."""

_CUT_OFF = " [cut off]"


async def make_room(at: Attempt, talk: Conversation, room: int, *, alone: bool = False) -> None:
    """Leave the oldest turns out, as the role's ``context`` policy says, so that ``talk`` fits into about ``room`` tokens.

    ``alone`` is that of the model call that needs the room. Raises ``Failed`` (context) where the policy leaves nothing out, or what must
    stay does not fit: instructions, examples, input and the last turn.
    """
    if at.role.context == ContextPolicy.FAIL:
        raise failed(Verdict.CONTEXT, _too_long(at, talk, room))
    most = min(at.role.max_output_tokens, max(room, 0) // SUMMARY_SHARE) if at.role.context == ContextPolicy.SUMMARISE else 0
    end = talk.cut_for(room, most)
    if end is None and most:
        most, end = 0, talk.cut_for(room)
    if end is None:
        raise failed(Verdict.CONTEXT, _too_long(at, talk, room))
    summary, summed = await _summary(at, talk, end, most, alone=alone) if most else "", end
    if not summary:
        summary, summed = _clipped(talk.summary, most * BYTES_A_TOKEN), talk.summed
    talk.leave_out(end, summary, summed)


async def _summary(at: Attempt, talk: Conversation, end: int, most: int, *, alone: bool) -> str:
    """The model's summary of what goes, in at most about ``most`` tokens; none where it gives none, or gave enough of them."""
    role, model = at.role, at.the_model()
    told = (
        "Summarise the work below for whoever goes on with it and can't see it: what is to be done, what was done, what was found (names, "
        f"numbers and ids as they are), what is left to do. Reply with the summary and nothing else, in at most {max(most // 2, 1)} words."
    )
    room = int((model.profile.context_tokens - role.max_output_tokens) / talk.density) - Conversation(told, "", Origin.TOOL).tokens
    if talk.summaries >= MOST_SUMMARIES or room <= 0:
        return ""
    talk.summaries += 1
    asked = Conversation(told, transcript(talk.passed(end), room * BYTES_A_TOKEN), Origin.TOOL)
    settings = f"{model.id} {role.max_output_tokens} {role.temperature!r}"
    request = ModelRequest(
        messages=asked.shown(),
        max_output_tokens=role.max_output_tokens,
        temperature=role.temperature,
        cut=talk.gone(end).model_copy(update={"how": "summary"}),
    )
    said = tuple(one for one in asked.take_fresh() if one.role != "tool")  # other entries hold what is summarised
    reply = await at.complete(request, asked.digest(settings.encode()), said, turn=False, alone=alone)
    text = "" if reply.finish is Finish.REFUSED else reply.text.strip()
    if text and reply.finish is Finish.LENGTH:
        text += _CUT_OFF
    return _clipped(text, most * BYTES_A_TOKEN)


def transcript(messages: Sequence[ChatMessage], most: int) -> str:
    """What was said in a conversation, in at most ``most`` bytes: where that is too little, the longest messages are cut off."""
    names = {call.id: call.name for one in messages for call in one.tool_calls}
    parts = [_line(one, names) for one in messages]
    share, left = 0, most - len(parts)
    for place, length in enumerate(sorted(len(part.encode("utf-8")) for part in parts)):
        share = max(left // (len(parts) - place), 0)
        if length > share:
            break
        left -= length
        share = length
    return _clipped("\n".join(_clipped(part, share) for part in parts), most)


def _line(message: ChatMessage, names: dict[str, str]) -> str:
    calls = [f"calls {one.name} with {one.arguments}" for one in message.tool_calls]
    who = f"{names.get(message.tool_call_id or '', 'input')} gave" if message.role == "tool" else message.role
    return f"{who}: {' '.join(filter(None, (message.content, *calls)))}"


def _clipped(text: str, most: int) -> str:
    """``text`` in at most ``most`` bytes, and where that is less of it, it says so."""
    data = text.encode("utf-8")
    if len(data) <= most:
        return text
    room = most - len(_CUT_OFF)
    return "" if room <= 0 else data[:room].decode("utf-8", "ignore").rstrip() + _CUT_OFF


def _too_long(at: Attempt, talk: Conversation, room: int) -> str:
    role, model = at.role, at.the_model()
    opening, last = talk.needed
    there = (
        f"of the {model.profile.context_tokens} tokens of {model.id}'s context, {max(room, 0)} are left beside the reply "
        f"(max_output_tokens={role.max_output_tokens}) and any tools or schema"
    )
    if opening > room:
        what = "instructions, examples and input alone need"
        return f"{what} about {opening} tokens, and {there}; shorten or split the input, or use a model with a longer context"
    if role.context == ContextPolicy.FAIL:
        advice = "let context='trim' or 'summarise' leave its oldest turns out, or use a model with a longer context"
        return f"the conversation needs about {talk.tokens} tokens, and {there}; {advice}"
    advice = "give the tools a smaller max_chars, shorten the input, or use a model with a longer context"
    return f"instructions and input need about {opening} tokens, the last turn another {last}, and {there}; {advice}"
