"""Lookalikes: replies whose text only looks like a tool call, in the ways in which models write one when they make none."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agents.tool import Tool
from protocols.chat import ToolCall

_HINT = re.compile(r"[{<(\[]|Action\s*:")
_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"```[ \t]*([\w-]*)[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w./:-]*")
_MARK = re.compile(
    r"<\|?(?:tool_calls?|function_calls?|tool_uses?|python_tag|call|tool|function)\|?(?:begin\|)?>\s*(?:\[?\s*(?=\{)|(?P<bare>[A-Za-z_][\w.-]*))"
    r"|\[TOOL_CALLS\]\s*\[?\s*(?:(?=\{)|(?P<listed>[A-Za-z_][\w.-]*))"
    r"|<(?:\w+:|[|\uff5c]DSML[|\uff5c])?(?:invoke|function|tool|call|tool_call)\s+name\s*=\s*[\"']?(?P<named>[\w./:-]+)"
    r"|<function=(?P<equal>[\w./:-]+)"
    r"|<tool_name>\s*(?P<inside>[\w./:-]+)\s*</tool_name>"
)
_TOKEN = r"<[|\uff5c][^<>|\uff5c\n]{1,40}[|\uff5c]>"
_CONTROL = re.compile(
    rf"(?:<[|\uff5c](?P<token>[^<>|\uff5c\n]{{0,40}}(?:tool|call|func|python|(?P<either>recipient|channel|action|plugin))"
    rf"[^<>|\uff5c\n]{{0,40}})[|\uff5c]?>"
    rf"|<(?:\w{{1,20}}:)?(?i:tool_?calls?|tool_?code|\w{{0,20}}(?:function|tool)_call)>"
    rf"|\u273fFUNCTION\u273f[ \t]*:|(?<!\S)(?=to=functions\.)|^>>>(?=[\w./:-]+[ \t]*\n\s*\{{))"
    rf"(?:{_TOKEN}|[\s\[]|(?:function|commentary|analysis)(?=\s|<)|to=|call:){{0,40}}"
    r"(?P<name>[A-Za-z_][\w./:-]*)",
    re.MULTILINE,
)
"""What vendors' chat templates put before a call, in the tokens that are theirs alone; some of them stand before an answer as well."""
_BROKEN = re.compile(
    r"[\[{\s]*(?:[\"'](?:id|type|call_id|tool_call_id)[\"']\s*:\s*[\"'][^\"']{0,80}[\"']\s*,\s*)*"
    r"[\"'](?:name|tool|tool_name|function|action)[\"']\s*:\s*[\"'](?P<name>[\w./:-]+)[\"']\s*,\s*"
    r"[\"'](?:arguments|args|parameters|params|input|action_input|tool_input)[\"']\s*:"
)
_ACTION = re.compile(r"^[ \t]*Action[ \t]*:[ \t]*`?([A-Za-z_][\w./:-]*)`?[ \t]*$", re.MULTILINE)
_INPUT = re.compile(r"^[ \t]*Action Input[ \t]*:", re.MULTILINE)
_BRACKETS = re.compile(r"^[ \t]*Action[ \t]*:[ \t]*([A-Za-z_][\w./:-]*)\[(.*)\][ \t]*$", re.MULTILINE)
_SCRIPT = re.compile(r"(?:await\s+|[\w ]{1,24}:\s*)?([A-Za-z_][\w.]*)\(\s*(\{.*\})\s*\)\s*;?", re.DOTALL)
_SAID = re.compile(
    r"\W*(?:call|invok|us|execut)ing\s+(?:the\s+)?(?:tool|function):?\s+[`\"']?([A-Za-z_][\w./:-]*)\b[^{]{0,40}(\{\s*(?:[\w\"']+\s*:.*)?\})\W*",
    re.DOTALL | re.IGNORECASE,
)
_HEADED = re.compile(r"([A-Za-z_][\w.]*)\s*[:\n]\s*(\{.*\})", re.DOTALL)
_PARTS = re.compile(r"<([A-Za-z_][\w.-]*)>\s*(?:<([A-Za-z_][\w.-]*)>|\{)")
_THEN = re.compile(r"\s*(?:[<{(`\[\u273f]|\Z)")
_TAG = re.compile(r"<([A-Za-z_][\w.-]*)(?:\s[^<>]*)?(?:/>|>.*</\1>)", re.DOTALL)
_ENDING = re.compile(r"(?::\d+|\.call)\Z")
_PREFIXES = ("functions.", "default_api.", "tools.", "tool.")

_NAMES = ("name", "tool", "tool_name", "toolName", "function", "function_name", "action", "recipient_name")
_ARGUMENTS = ("arguments", "args", "parameters", "params", "kwargs", "input", "action_input", "tool_input", "toolInput")
_CALLS = ("tool_calls", "tool_uses", "function_calls", "tool_call", "function_call", "tool_use", "calls")
_BESIDES = {"id", "type", "call_id", "tool_call_id", "thought", "thoughts", "reasoning", "reason", "index"}


Known = Mapping[str, Tool]


def written_call(text: str, known: Known) -> ToolCall | None:
    """The first call that stands in ``text`` where an answer should be, its arguments as far as they can be read; else ``None``.

    A text that is nothing but a call is one whatever it names. Inside other words, only the name of a ``known`` tool counts: an
    answer may well show how some other tool is called.
    """
    if not _HINT.search(text):
        return None
    text = _THOUGHT.sub("", text).strip()
    for name, arguments, whole in _candidates(text, known):
        called = next((name[len(one) :] for one in _PREFIXES if name.startswith(one)), name)
        called = _ENDING.sub("", called)
        called = called if called in known or name not in known else name
        if called in known or whole:
            return ToolCall(id="", name=called, arguments=arguments)
    return None


def _candidates(text: str, known: Known) -> Iterator[tuple[str, dict[str, Any] | str, bool]]:
    """Names and arguments of what may be calls, and whether the text is nothing else."""
    for found in _MARK.finditer(text):
        inner = text[found.end() :]
        whole = found.start() == 0 and not found["inside"] and (found["bare"] is None or _THEN.match(inner) is not None)
        name = found["bare"] or found["listed"] or found["named"] or found["equal"] or found["inside"]
        broken = None if name else _BROKEN.match(inner)
        if name:
            yield name, _fields(inner), whole
        elif broken and _object(inner) is None:
            yield broken["name"], inner, whole
        else:
            yield from _named(_object(inner), known, whole=whole)
    for found in _CONTROL.finditer(text):
        whole = found.start() == 0 and bool(found["token"]) and not found["either"] and _THEN.match(text, found.end()) is not None
        yield found["name"], _fields("".join(text[found.end() :].partition("{")[1:])), whole
    yield from _read(text, known, whole=True)
    for found in _FENCE.finditer(text):
        whole = found.start() == 0 and found.end() == len(text)
        yield from _read(found[2].strip(), known, whole=whole, code=found[1] in ("tool_code", "tool_call"))
    action = _ACTION.search(text)
    given = _INPUT.search(text, action.end()) if action else None
    if action and given:
        rest = text[given.end() :].strip()
        yield action[1], _fields(rest) or rest, True
    for shown in (_SCRIPT.fullmatch(text), _SAID.fullmatch(text)):
        if shown:
            yield shown[1], _fields(shown[2]) or shown[2], False
    headed = _HEADED.fullmatch(text)
    if headed and headed[1] in known and _fields(headed[2]).keys() <= _takes(known[headed[1]]):
        yield headed[1], _fields(headed[2]), False
    for found in _BRACKETS.finditer(text):
        yield found[1], found[2], False
    for found in _PARTS.finditer(text):
        if found[1] in known and (found[2] is None or found[2] in _takes(known[found[1]])):
            yield found[1], text[found.start() :], False
    for place in (text.find("{"), text.find("[{")):
        if place > 0:
            value = _object(text[place:])
            yield from _named(value, known, whole=False)
            broken = _BROKEN.match(text, place) if value is None else None
            if broken:
                yield broken["name"], text[place:], False


def _takes(tool: Tool) -> set[str]:
    """The names of its arguments."""
    return set(tool.spec.parameters["properties"])


def _read(text: str, known: Known, *, whole: bool, code: bool = False) -> Iterator[tuple[str, dict[str, Any] | str, bool]]:
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


def _named(value: Any, known: Known, *, whole: bool) -> Iterator[tuple[str, dict[str, Any] | str, bool]]:
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
        if isinstance(inner, dict) and key in known and inner.keys() <= _takes(known[key]):
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


def _fields(text: str) -> dict[str, Any]:
    """The JSON object with which ``text`` begins, or an empty one."""
    found = _object(text)
    return found if isinstance(found, dict) else {}
