import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents import tool
from agents.lookalike import written_call


@tool
def add(n: int, place: str = "") -> int:
    """Add"""
    raise AssertionError("nothing is called")


KNOWN = {"add": add, "look_up": replace(add, name="look_up")}


def wide(text: str) -> str:
    """With the bars of DeepSeek's tokens."""
    return text.replace("|", "\uff5c").replace("_", "\u2581")


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
    "deepseek": wide('<|tool_calls_begin|><|tool_call_begin|>function<|tool_sep|>subtract\n```json\n{"n": 1}\n```<|tool_call_end|>'),
    "deepseek, later": wide('I add. <|tool_call_begin|>add<|tool_sep|>{"n": 1}<|tool_call_end|>'),
    "dsml": wide('<|DSML|invoke name="subtract">\n<|DSML|parameter name="n">1</|DSML|parameter>'),
    "kimi": '<|tool_calls_section_begin|><|tool_call_begin|>functions.subtract:0<|tool_call_argument_begin|>{"n": 1}<|tool_call_end|>',
    "harmony": '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"n": 1}<|call|>',
    "harmony without its tokens": 'commentary to=functions.add json {"n": 1}',
    "command r": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "add", "parameters": {"n": 1}}]<|END_ACTION|>',
    "functionary": '<|recipient|>add\n<|content|>{"n": 1}',
    "functionary, later": '>>>add\n{"n": 1}',
    "qwen": '\u273fFUNCTION\u273f: add\n\u273fARGS\u273f: {"n": 1}',
    "gemma": '<|tool_call>call:add{"n": 1}<tool_call|>',
    "react in brackets": "Thought: I add.\nAction: add[1]",
    "tags around the name": "<function_calls><invoke>\n<tool_name>add</tool_name>\n<parameters><n>1</n></parameters></invoke>",
    "tags cut off": '<tool_call>\n{"name": "subtract", "arguments": {"n": ',
    "xml of the name, after words": "I will add.\n<add>\n<n>1</n>\n</add>",
    "python in tags": "<tool_code>add(n=1)</tool_code>",
    "javascript": 'await add({"n": 1})',
    "told": '[Calling tool add with {"n": 1}]',
    "name and json": 'add: {"n": 1}',
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
    '{"add": {"total": 3}}',
    'The sum is {"add": {"total": 3}}.',
    "<add><total>3</total></add> is how the page shows it",
    "<|channel|>final<|message|>It is 3.",
    "<|recipient|>all\n<|content|>It is 3.",
    "Models write <|tool_call|> before they call a tool such as add.",
    ">>> add(1)\n1",
    "Action: add up the bill [today]",
    'Calling the function add with care is wise {"so": ' + "it is said.",
    "add: three",
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


@example("add\n1")
@example("Action: add\nAction Input: 3")
@given(st.text(max_size=40) | st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda x: st.lists(x)).map(json.dumps))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert written_call(text, {}) is None or text
    for frame in ("<tool_call>{}", "```json\n{}\n```", "add({})", '{{"name": "add", "arguments": {}'):
        written_call(frame.replace("{}", text), KNOWN)
