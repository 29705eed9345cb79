import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.lookalike import written_call

KNOWN = ["add", "look_up"]
CALLS = {
    "json": '{"name": "add", "arguments": {"n": 1}}',
    "json of an unknown tool": '{"name": "subtract", "arguments": {"n": 1}}',
    "other words for it": '{"tool": "subtract", "parameters": {"n": 1}}',
    "react": '{"action": "subtract", "action_input": {"n": 1}}',
    "react in lines": 'Thought: I add.\nAction: add\nAction Input: {"n": 1}',
    "a message's own field": '{"tool_calls": [{"type": "function", "function": {"name": "subtract", "arguments": "{\\"n\\": 1}"}}]}',
    "a list": '[{"name": "add", "arguments": {"n": 1}}, {"name": "add", "arguments": {"n": 2}}]',
    "the name as the key": '{"add": {"n": 1}}',
    "python quotes": "{'name': 'add', 'arguments': {'n': 1}}",
    "cut off": '{"name": "subtract", "arguments": {"n": ',
    "fenced": '```json\n{"name": "subtract", "arguments": {"n": 1}}\n```',
    "fenced, after words": 'I will add.\n\n```json\n{"name": "add", "arguments": {"n": 1}}\n```',
    "after words": 'I will add: {"name": "add", "arguments": {"n": 1}}',
    "xml around json": '<tool_call>\n{"name": "subtract", "arguments": {"n": 1}}\n</tool_call>',
    "xml after words": 'So: <tool_call>{"name": "add", "arguments": {"n": 1}}</tool_call>',
    "xml": '<invoke name="subtract"><parameter name="n">1</parameter></invoke>',
    "xml of the name": "<add><n>1</n></add>",
    "function tag": '<function=subtract>{"n": 1}</function>',
    "listed": '[TOOL_CALLS][{"name": "subtract", "arguments": {"n": 1}}]',
    "python": "add(n=1)",
    "python list": "[subtract(n=1), add(n=2)]",
    "python, fenced": "```tool_code\nprint(default_api.subtract(n=1))\n```",
    "after a thought": '<think>hm, add?</think>\n{"name": "add", "arguments": {"n": 1}}',
    "without arguments": '{"name": "add"}',
}
ANSWERS = [
    "It is 3 (three).",
    "Call add(n=1) to do that yourself.",
    '{"name": "Ada", "born": 1815}',
    '{"message": "done", "next_steps": []}',
    '{"name": "subtract"}',
    'Another system takes {"name": "subtract", "arguments": {"n": 1}} for that.',
    '{"action": "Final Answer", "action_input": "3"}',
    "```python\nprint(1)\n```",
    "<p>three</p>",
    "f(n) = 2n",
    "[1, 2, 3]",
    "",
]


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_that_is_only_text_is_seen(kind: str) -> None:
    found = written_call(CALLS[kind], KNOWN)
    assert found is not None
    assert found.name in ("add", "subtract")
    if isinstance(found.arguments, dict) and found.arguments:
        assert found.arguments == {"n": 1}


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_none(text: str) -> None:
    assert written_call(text, KNOWN) is None


@given(st.text(max_size=40) | st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda x: st.lists(x)).map(json.dumps))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert written_call(text, []) is None or text
    for frame in ("<tool_call>{}", "```json\n{}\n```", "add({})", '{{"name": "add", "arguments": {}'):
        written_call(frame.replace("{}", text), KNOWN)
