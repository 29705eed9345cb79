"""Lookalikes: replies whose text only looks like a tool call, in the ways in which models write one when they make none."""

import ast
import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from protocols.chat import ToolCall

_HINT = re.compile(r"[{<(\[]|Action\s*:")
_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"```[ \t]*([\w-]*)[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w./:-]*")
_MARK = re.compile(
    r"<\|?(?:tool_calls?|function_calls?|tool_uses?|python_tag|call|tool|function)\|?(?:begin\|)?>\s*(?:\[?\s*(?=\{)|(?P<bare>[A-Za-z_][\w.-]*))"
    r"|\[TOOL_CALLS\]\s*\[?\s*(?:(?=\{)|(?P<listed>[A-Za-z_][\w.-]*))"
    r"|<(?:\w+:)?(?:invoke|function|tool|call|tool_call)\s+name\s*=\s*[\"']?(?P<named>[\w./:-]+)"
    r"|<function=(?P<equal>[\w./:-]+)"
)
_BROKEN = re.compile(
    r"[\[{\s]*[\"'](?:name|tool|tool_name|function|action)[\"']\s*:\s*[\"'](?P<name>[\w./:-]+)[\"']\s*,\s*"
    r"[\"'](?:arguments|args|parameters|params|input|action_input|tool_input)[\"']\s*:"
)
_ACTION = re.compile(r"^[ \t]*Action[ \t]*:[ \t]*`?([A-Za-z_][\w./:-]*)`?[ \t]*$", re.MULTILINE)
_INPUT = re.compile(r"^[ \t]*Action Input[ \t]*:", re.MULTILINE)
_TAG = re.compile(r"<([A-Za-z_][\w.-]*)(?:\s[^<>]*)?(?:/>|>.*</\1>)", re.DOTALL)
_PREFIXES = ("functions.", "default_api.", "tools.", "tool.")

_NAMES = ("name", "tool", "tool_name", "toolName", "function", "function_name", "action", "recipient_name")
_ARGUMENTS = ("arguments", "args", "parameters", "params", "kwargs", "input", "action_input", "tool_input", "toolInput")
_CALLS = ("tool_calls", "tool_uses", "function_calls", "tool_call", "function_call", "tool_use", "calls")
_BESIDES = {"id", "type", "call_id", "thought", "thoughts", "reasoning", "reason", "index"}


def written_call(text: str, known: Collection[str]) -> ToolCall | None:
    """The first call that stands in ``text`` where an answer should be, its arguments as far as they can be read; else ``None``.

    A text that is nothing but a call is one whatever it names. Inside other words, only the name of a ``known`` tool counts: an
    answer may well show how some other tool is called.
    """
    if not _HINT.search(text):
        return None
    text = _THOUGHT.sub("", text).strip()
    for name, arguments, whole in _candidates(text, known):
        called = next((name[len(one) :] for one in _PREFIXES if name.startswith(one)), name)
        called = called if called in known or name not in known else name
        if called in known or whole:
            return ToolCall(id="", name=called, arguments=arguments)
    return None


def _candidates(text: str, known: Collection[str]) -> Iterator[tuple[str, dict[str, Any] | str, bool]]:
    """Names and arguments of what may be calls, and whether the text is nothing else."""
    for found in _MARK.finditer(text):
        inner = text[found.end() :]
        name = found["bare"] or found["listed"] or found["named"] or found["equal"]
        if name:
            yield name, _object(inner) or {}, found.start() == 0
        else:
            yield from _named(_object(inner), known, whole=found.start() == 0)
    yield from _read(text, known, whole=True)
    for found in _FENCE.finditer(text):
        whole = found.start() == 0 and found.end() == len(text)
        yield from _read(found[2].strip(), known, whole=whole, code=found[1] in ("tool_code", "tool_call"))
    action = _ACTION.search(text)
    given = _INPUT.search(text, action.end()) if action else None
    if action and given:
        rest = text[given.end() :].strip()
        yield action[1], _object(rest) or rest, True
    for place in (text.find("{"), text.find("[{")):
        if place > 0:
            yield from _named(_object(text[place:]), known, whole=False)


def _read(text: str, known: Collection[str], *, whole: bool, code: bool = False) -> Iterator[tuple[str, dict[str, Any] | str, bool]]:
    """The call that ``text`` is from its first character to its last."""
    if text[:1] in ("{", "["):
        value = _value(text)
        yield from _named(value, known, whole=whole)
        broken = _BROKEN.match(text) if value is None else None
        if broken:
            yield broken["name"], text, whole
    tag = _TAG.fullmatch(text)
    if tag and tag[1] in known:
        yield tag[1], text, whole
    if text.endswith((")", ")]", ");")):
        yield from _python(text.rstrip(";"), whole=whole and (code or text[:1] == "["))


def _named(value: Any, known: Collection[str], *, whole: bool) -> Iterator[tuple[str, dict[str, Any] | str, bool]]:
    """The calls that a JSON value describes."""
    if isinstance(value, list):
        for one in value[:8]:
            yield from _named(one, known, whole=whole)
    if not isinstance(value, dict):
        return
    for key in _CALLS:
        if isinstance(value.get(key), (dict, list)):
            yield from _named(value[key], known, whole=whole)
    if isinstance(value.get("function"), dict):
        yield from _named(value["function"], known, whole=whole)
    name = next((key for key in _NAMES if isinstance(value.get(key), str)), None)
    if name is not None and _NAME.fullmatch(value[name]):
        given = next((key for key in _ARGUMENTS if key in value and key != name), None)
        arguments = value[given] if given is not None else {}
        only = value.keys() <= {name, given} | _BESIDES
        if isinstance(arguments, str):
            arguments = _value(arguments) or arguments
        if isinstance(arguments, dict) and only:
            yield value[name], arguments, whole and given is not None
        elif given is not None and only and isinstance(arguments, (str, list, type(None))):
            yield value[name], arguments if isinstance(arguments, str) else {}, False
    elif len(value) == 1:
        ((key, inner),) = value.items()
        if isinstance(inner, dict) and key in known:
            yield key, inner, whole


def _python(text: str, *, whole: bool) -> Iterator[tuple[str, dict[str, Any] | str, bool]]:
    """Calls written as Python expressions with named arguments."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for one in tree.elts if isinstance(tree, ast.List) else [tree]:
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Name) and one.func.id == "print" and len(one.args) == 1:
            one = one.args[0]
        if isinstance(one, ast.Call) and isinstance(one.func, (ast.Name, ast.Attribute)):
            name = ast.unparse(one.func)
            try:
                arguments: dict[str, Any] | str = {str(key.arg): ast.literal_eval(key.value) for key in one.keywords}
            except ValueError:
                arguments = text
            yield name, arguments if not one.args else text, whole and bool(one.keywords) and not one.args


def _value(text: str) -> Any:
    """The JSON value, or the one that Python would read, that ``text`` is; ``None`` when it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _object(text: str) -> Any:
    """The JSON value with which ``text`` begins."""
    try:
        return json.JSONDecoder().raw_decode(text.lstrip())[0]
    except (ValueError, RecursionError):
        return None
