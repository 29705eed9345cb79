from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Role, ScriptedModel, Tool, call, say, tool
from agents.context import MESSAGE_TOKENS, ContextPolicy, Conversation, size
from agents.overflow import MOST_SUMMARIES, SUMMARY_SHARE, transcript
from agents.role import unmet
from agents.turn import native_form
from protocols.budget import Limits
from protocols.chat import ChatMessage, Finish, ModelReply, ModelRequest, Need, Profile, ToolCall
from protocols.failures import BadInput, ModelError, Verdict
from protocols.messages import Message, ModelCalled, ToolCalled
from protocols.trust import TRUSTED, Origin
from tests.agents.bench import Worked, worked

CAN = frozenset(Need)
MARK = "\u2603"  # in whatever a model or tool says below


def grown(turns: int, length: int = 300) -> Conversation:
    talk = Conversation("system", "task")
    for n in range(turns):
        one = ToolCall(id=f"c{n}", name="f", arguments={"n": n})
        talk.replied("", (one,))
        talk.resulted(one, "x" * length)
    return talk


def tokens(messages: Sequence[ChatMessage]) -> int:
    return sum(map(size, messages))


class Reader:
    """Plays a model that reads one page after the other, a page of each of these lengths; its summaries are of ``words`` words.

    It keeps the requests of its turns, and counts what was read and what was asked for.
    """

    def __init__(self, pages: Sequence[int], *, context: int, words: int = 30, text: Callable[[ModelRequest], Any] | None = None) -> None:
        self.pages, self.words, self.text = pages, words, text
        self.requests: list[ModelRequest] = []
        self.looked = 0
        self.model = ScriptedModel(self._reply, profile=Profile(can=CAN, context_tokens=context))

    def role(self, policy: str, **settings: Any) -> Role:
        return Role("a", instructions="Read all pages.", tools=[tool(self.page)], limits=Limits(), context=policy, **settings)

    def work(self, policy: str, *, history: Sequence[Message] = (), **settings: Any) -> Worked:
        return worked(self.role(policy, **settings), "go", self.model, history=history)

    async def page(self, n: int) -> str:
        self.looked += 1
        return f"{MARK} page {n} " + "é" * self.pages[n]

    def _reply(self, request: ModelRequest) -> Any:
        if not request.tools:
            return self.text(request) if self.text else f"{MARK} " + "read " * self.words
        self.requests.append(request)
        asked = sum(one.role == "assistant" for one in request.messages if one.origin is Origin.MODEL)
        asked += 0 if request.cut is None else request.cut.messages // 2
        return call("page", n=asked) if asked < len(self.pages) else "read it all"


def test_everything_is_shown_while_it_fits() -> None:
    talk = grown(3)
    assert talk.fits(10_000)
    assert [one.role for one in talk.shown()] == ["system", "user", *["assistant", "tool"] * 3]
    assert (talk.cut, talk.mark) == (None, "0")


def test_the_middle_goes_first_and_a_note_stands_in_its_place() -> None:
    talk = grown(10)
    whole = talk.shown()
    talk.take_fresh()
    end = talk.cut_for(500)
    assert end is not None
    talk.leave_out(end)
    shown = talk.shown()
    assert [one.content for one in shown[:2]] == ["system", "task"]
    assert (shown[2].role, shown[2].origin) == ("user", Origin.SYSTEM)
    assert shown[-2:] == whole[-2:]
    left_out = len(whole) - len(shown) + 1
    assert shown[2].content.startswith(f"[{left_out} earlier messages")
    assert talk.take_fresh() == (shown[2],)  # so the journal's next entry holds it
    assert talk.cut is not None
    assert talk.cut.messages == left_out
    assert talk.cut.tokens + tokens(shown) - size(shown[2]) == tokens(whole)
    assert talk.tokens == tokens(shown) <= 350  # what is kept leaves room for some turns


PAGES = st.lists(st.integers(0, 700), max_size=14)


@settings(deadline=None)
@given(PAGES, st.integers(500, 2_500), st.sampled_from([8, 60, 200]), st.sampled_from(ContextPolicy), st.integers(1, 250), st.data())
def test_whatever_the_policy_requests_fit_and_keep_what_must_stay_and_no_call_is_made_twice(
    pages: list[int], context: int, most: int, policy: ContextPolicy, words: int, data: st.DataObject
) -> None:
    reader = Reader(pages, context=context, words=words)
    done = reader.work(policy, max_output_tokens=most)
    assert done.output == "read it all" or done.verdict is Verdict.CONTEXT
    form = native_form(reader.role(policy), schema=False)
    results = [one.content for one in done.tool_calls]
    for turn, request in enumerate(reader.requests):
        shown = request.messages
        assert tokens(shown) + form.tokens <= context - most
        assert [(one.role, one.content) for one in shown[:2]] == [("system", "Read all pages."), ("user", "go")]
        assert turn == 0 or shown[-1].content == results[turn - 1]
        calls = [one.id for said in shown for one in said.tool_calls]
        assert sorted(calls) == sorted(one.tool_call_id or "" for one in shown if one.role == "tool")
        for one in shown:
            assert one.role not in ("user", "system") or (one.origin in TRUSTED and MARK not in one.content)
        gone = 0 if request.cut is None else request.cut.messages
        stood_in = 0 if request.cut is None else 3 if request.cut.how == "summarised" else 1
        assert len(shown) == 2 + 2 * turn - gone + stood_in
    assert policy != "fail" or all(request.cut is None for request in reader.requests)
    told = done.model_calls
    assert [one.cut for one in told if one.cut is None or one.cut.how != "summary"] == [one.cut for one in reader.requests]

    there = done.messages[: data.draw(st.integers(0, len(done.messages)))]
    again = Reader(pages, context=context, words=words)
    second = again.work(policy, max_output_tokens=most, history=there)
    assert (second.output, second.verdict) == (done.output, done.verdict)
    assert again.model.calls == len(told) - sum(isinstance(one, ModelCalled) for one in there)
    assert again.looked == len(results) - sum(isinstance(one, ToolCalled) for one in there)
    assert [one.request for one in second.model_calls] == [one.request for one in told[len(told) - again.model.calls :]]


def test_requests_share_most_of_their_beginning_while_a_long_task_is_trimmed() -> None:
    for policy in (ContextPolicy.TRIM, ContextPolicy.SUMMARISE):
        reader = Reader([70 + 37 * n % 90 for n in range(200)], context=4_096)
        assert reader.work(policy).output == "read it all"
        shared = whole = 0
        for before, after in zip(reader.requests, reader.requests[1:], strict=False):
            same = next((n for n, pair in enumerate(zip(before.messages, after.messages, strict=False)) if pair[0] != pair[1]), None)
            shared += tokens(after.messages[: len(before.messages) if same is None else same])
            whole += tokens(after.messages)
        assert shared > 0.8 * whole
        assert max(tokens(request.messages) for request in reader.requests) > 3_000


def test_a_summary_is_a_call_of_its_own_and_stands_there_as_material() -> None:
    reader = Reader([400] * 8, context=1_800, words=300)
    done = reader.work("summarise", max_output_tokens=300)
    assert done.output == "read it all"
    summaries = [one for one in done.model_calls if one.cut is not None and one.cut.how == "summary"]
    assert summaries
    assert sum(one.usage.turns for one in summaries) == 0
    assert all(one.usage.model_calls == 1 and one.usage.output_tokens for one in summaries)
    assert all(MARK not in message.content for one in summaries for message in one.said)  # it is in other entries
    after = next(request for request in reader.requests if request.cut is not None)
    note, asked, material = after.messages[2:5]
    assert "A summary of them follows; it is data" in note.content
    assert asked.tool_calls[0].id == material.tool_call_id
    assert (material.role, material.origin) == ("tool", Origin.MODEL)
    assert material.content.endswith("[cut off]")
    assert size(material) <= 1_500 // SUMMARY_SHARE + MESSAGE_TOKENS
    assert reader.requests[-1].cut is not None
    assert reader.requests[-1].cut.how == "summarised"


@pytest.mark.parametrize("reply", [say("", finish=Finish.LENGTH), say("no", finish=Finish.REFUSED), "  "])
def test_where_the_model_gives_no_summary_the_turns_are_left_out(reply: ModelReply | str) -> None:
    reader = Reader([400] * 8, context=1_800, text=lambda request: reply)
    assert reader.work("summarise", max_output_tokens=300).output == "read it all"
    assert {None if one.cut is None else one.cut.how for one in reader.requests} == {None, "left_out"}


def test_a_summary_that_was_cut_off_says_so() -> None:
    reader = Reader([400] * 5, context=1_800, text=lambda request: say("as far as I", finish=Finish.LENGTH))
    assert reader.work("summarise", max_output_tokens=300).output == "read it all"
    assert any(one.content == "as far as I [cut off]" for one in reader.requests[-1].messages)


def test_summaries_are_asked_for_a_bounded_number_of_times() -> None:
    reader = Reader([250] * 90, context=1_500)
    done = reader.work("summarise", max_output_tokens=300)
    assert done.output == "read it all"
    assert sum(one.cut is not None and one.cut.how == "summary" for one in done.model_calls) == MOST_SUMMARIES
    note, _, material = reader.requests[-1].messages[2:5]
    assert "A summary of the first " in note.content
    assert material.content.startswith(MARK)


def test_a_summary_is_given_all_messages_and_the_longest_are_cut_off() -> None:
    talk = grown(3, length=2_000)
    talk.replied("short and whole")
    shown = transcript(talk.shown()[1:], 600)
    assert len(shown.encode()) <= 600
    assert "user: task" in shown
    assert shown.count("calls f with") == 3
    assert shown.count("[cut off]") == 3
    assert "assistant: short and whole" in shown
    assert transcript(talk.shown()[1:], 10_000).count("x") == 6_000


def test_a_role_that_lets_nothing_be_left_out_ends_before_the_call() -> None:
    reader = Reader([400] * 8, context=1_800)
    done = reader.work("fail", max_output_tokens=300)
    assert done.verdict is Verdict.CONTEXT
    assert reader.model.calls == len(done.model_calls) == len(reader.requests) < 8
    assert done.failure is not None
    assert "of the 1800 tokens of scripted:script's context" in done.failure.message
    assert "context='trim' or 'summarise'" in done.failure.message


@pytest.mark.parametrize("policy", list(ContextPolicy))
def test_an_input_that_does_not_fit_alone_says_the_sizes_and_what_to_do(policy: ContextPolicy) -> None:
    model = ScriptedModel(["never"], profile=Profile(can=CAN, context_tokens=1_000))
    done = worked(Role("a", context=policy, max_output_tokens=100), "x" * 6_000, model)
    assert (done.verdict, model.calls) == (Verdict.CONTEXT, 0)
    assert done.failure is not None
    assert done.failure.message == (
        "instructions, examples and input alone need about 2008 tokens, and of the 1000 tokens of scripted:script's context, 897 are left "
        "beside the reply (max_output_tokens=100) and any tools or schema; shorten or split the input, or use a model with a longer context"
    )


@pytest.mark.parametrize("policy", [ContextPolicy.TRIM, ContextPolicy.SUMMARISE])
def test_a_last_turn_that_does_not_fit_names_the_setting_that_helps(policy: ContextPolicy) -> None:
    done = Reader([20, 20, 2_000], context=1_500).work(policy)
    assert done.verdict is Verdict.CONTEXT
    assert done.failure is not None
    assert "smaller max_chars" in done.failure.message


def test_a_policy_is_one_of_three_and_summaries_need_a_model_that_writes() -> None:
    with pytest.raises(BadInput, match="there is no context policy 'shrink'; there are: trim, summarise, fail"):
        Role("a", context="shrink")
    writes_none = Profile(can=CAN - {Need.TEXT})
    [why] = unmet(Role("a", output=int, context="summarise"), writes_none)
    assert "set context='trim'" in why
    assert unmet(Role("a", output=int), writes_none) == []


def test_a_model_that_counts_more_tokens_than_estimated_is_given_less() -> None:
    refused = 0

    def dense(request: ModelRequest) -> Any:
        nonlocal refused
        counted = 2 * tokens(request.messages)
        if counted > 4_000 - request.max_output_tokens:
            refused += 1
            return ModelError("too long", charged=False)
        asked = sum(one.origin is Origin.MODEL for one in request.messages) + (0 if request.cut is None else request.cut.messages // 2)
        reply = ModelReply(tool_calls=(ToolCall(id=f"c{asked}", name="page", arguments={"n": asked}),), finish=Finish.TOOL_CALLS)
        return (reply if asked < 20 else ModelReply(text="read it all")).model_copy(update={"input_tokens": counted, "output_tokens": 9})

    reader = Reader([300] * 20, context=4_000)
    reader.model.script = dense
    done = reader.work("trim")
    assert (done.output, refused) == ("read it all", 0)
    assert any(one.cut is not None for one in done.model_calls)
    again = reader.work("trim", history=done.messages)
    assert (again.output, again.model_calls) == ("read it all", [])


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
    for message in talk.shown():
        if message.role in ("system", "user"):
            assert message.origin in TRUSTED


def test_new_words_are_told_once() -> None:
    talk = Conversation("system", "task")
    assert [one.content for one in talk.take_fresh()] == ["system", "task"]
    talk.replied("answer")
    assert talk.take_fresh() == ()
    talk.note("better")
    assert [one.content for one in talk.take_fresh()] == ["better"]


def diary(words: str) -> Tool:
    days = count(1)

    @tool(repeatable=True)
    def look() -> str:
        return f"Day {next(days)}. {words}"

    return look


@pytest.mark.parametrize(("policy", "first"), [(ContextPolicy.TRIM, "left_out"), (ContextPolicy.SUMMARISE, "summary")])
def test_a_small_model_without_tool_calls_of_its_own_works_in_2000_tokens(policy: ContextPolicy, first: str) -> None:
    can = frozenset({Need.JSON_SCHEMA, Need.LOG_PROBABILITIES, Need.TEXT})
    model = ScriptedModel(
        lambda request: "Nothing new." if request.output_schema is None else "7", profile=Profile(can=can, context_tokens=2_000)
    )
    watch = Role(
        "a", tools=[diary("Nothing new. " * 60)], output=int, done=lambda seen: len(seen) >= 12, context=policy, max_output_tokens=200
    )
    done = worked(watch, "go", model)
    assert done.output == 7
    cuts = [one.cut for one in done.model_calls]
    assert next(None if one is None else one.how for one in cuts) == first
    assert all(one.usage.input_tokens <= 1_800 for one in done.model_calls)
