from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents import Role, ScriptedModel, call, tool
from agents.context import BYTES_A_TOKEN, MESSAGE_TOKENS, Conversation
from protocols.chat import ChatMessage, ModelRequest, Profile, ToolCall
from protocols.failures import Failed, Verdict
from protocols.trust import TRUSTED, Origin
from tests.agents.bench import worked


def grown(turns: int, size: int = 300) -> Conversation:
    talk = Conversation("system", "task")
    for n in range(turns):
        one = ToolCall(id=f"c{n}", name="f", arguments={"n": n})
        talk.replied("", (one,))
        talk.resulted(one, "x" * size)
    return talk


def tokens(messages: tuple[ChatMessage, ...]) -> int:
    return sum(len(one.content.encode()) // BYTES_A_TOKEN + MESSAGE_TOKENS for one in messages)


def test_everything_is_shown_while_it_fits() -> None:
    talk = grown(3)
    assert talk.fitted(10_000) == tuple(talk.messages)


def test_the_middle_goes_first_and_a_note_stands_in_its_place() -> None:
    talk = grown(10)
    shown = talk.fitted(500)
    assert [one.content for one in shown[:2]] == ["system", "task"]
    assert (shown[2].role, shown[2].origin) == ("user", Origin.SYSTEM)
    assert shown[-2:] == tuple(talk.messages[-2:])
    left_out = len(talk.messages) - len(shown) + 1
    assert shown[2].content.startswith(f"[{left_out} earlier messages")


def test_what_must_stay_and_does_not_fit_is_a_failure() -> None:
    with pytest.raises(Failed) as caught:
        grown(3, size=3_000).fitted(500)
    assert caught.value.failure.verdict is Verdict.CONTEXT
    with pytest.raises(Failed):
        Conversation("", "x" * 10_000).fitted(100)


@given(st.lists(st.integers(0, 600), max_size=12), st.integers(0, 2_500))
def test_trimming_keeps_calls_with_their_results_and_stays_within_the_room(sizes: list[int], room: int) -> None:
    talk = Conversation("system", "task")
    for n, size in enumerate(sizes):
        one = ToolCall(id=f"c{n}", name="f", arguments={})
        talk.replied("", (one,))
        talk.resulted(one, "é" * size)
        if size % 3 == 0:
            talk.note("mind the gap")
    try:
        shown = talk.fitted(room)
    except Failed:
        return
    assert tokens(shown) <= room
    assert shown[:2] == tuple(talk.messages[:2])
    assert shown[-1] == talk.messages[-1]
    open_calls = {one.id for said in shown for one in said.tool_calls}
    assert open_calls == {one.tool_call_id for one in shown if one.role == "tool"}


@given(st.lists(st.tuples(st.sampled_from(["note", "reply", "result"]), st.text(max_size=8)), max_size=6), st.data())
def test_equal_conversations_have_equal_digests_and_others_do_not(parts: list[tuple[str, str]], data: st.DataObject) -> None:
    def made(steps: list[tuple[str, str]]) -> str:
        talk = Conversation("s", "p")
        for kind, text in steps:
            if kind == "note":
                talk.note(text)
            elif kind == "reply":
                talk.replied(text)
            else:
                talk.resulted(ToolCall(id="c", name="f", arguments={}), text)
        return talk.digest(b"")

    other = data.draw(st.permutations(parts)) + data.draw(st.sampled_from([[], [("note", "")]]))
    assert (made(parts) == made(other)) is (parts == other)


def test_digest_depends_on_settings_and_origin() -> None:
    assert grown(1).digest(b"a") != grown(1).digest(b"b")
    assert Conversation("", "p", Origin.USER).digest(b"") != Conversation("", "p", Origin.SYSTEM).digest(b"")


@pytest.mark.parametrize("origin", list(Origin))
def test_only_trusted_text_is_said_by_system_or_user(origin: Origin) -> None:
    talk = Conversation("system", "the input", origin)
    one = ToolCall(id="c", name="f", arguments={})
    talk.replied("model text", (one,))
    talk.resulted(one, "tool text")
    for message in talk.messages:
        if message.role in ("system", "user"):
            assert message.origin in TRUSTED


def test_new_words_are_told_once() -> None:
    talk = Conversation("system", "task")
    assert [one.content for one in talk.take_fresh()] == ["system", "task"]
    talk.replied("answer")
    assert talk.take_fresh() == ()
    talk.note("better")
    assert [one.content for one in talk.take_fresh()] == ["better"]


def test_a_long_task_keeps_working_in_a_small_context() -> None:
    @tool
    def read(n: int) -> str:
        return f"page {n} " * 60

    longest = 0

    def script(request: ModelRequest) -> Any:
        nonlocal longest
        longest = max(longest, len(request.messages))
        made = script_calls[0]
        script_calls[0] += 1
        return call("read", n=made) if made < 9 else "read it all"

    script_calls = [0]
    model = ScriptedModel(script, profile=Profile(can=ScriptedModel([]).profile.can, context_tokens=1_500))
    done = worked(Role("a", tools=[read]), "go", model)
    assert done.output == "read it all"
    assert longest < 14
    tiny = ScriptedModel([call("read", n=1), "x"], profile=Profile(can=model.profile.can, context_tokens=700))
    assert worked(Role("a", tools=[read]), "go", tiny).verdict is Verdict.CONTEXT
