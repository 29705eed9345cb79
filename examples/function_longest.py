"""The longest and deepest functions of a Python source tree: the *function* strategy, and a merge in a tree. No model is asked.

    callboard run examples/function_longest.py:team --goal path/to/project

The output is the twenty longest functions: lines, depth of nesting, place and name.
"""

import ast
from pathlib import Path

from agents import role
from orchestrator import Team, reduce
from protocols.failures import BadInput
from protocols.plan import Plan, Task

KEPT = 20
FILES_A_TASK = 25
SKIPPED = {"node_modules", "site-packages", "build", "dist"}
NESTS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith, ast.Match)


@role
def measure(files: list[str]) -> list[str]:
    """The functions of some files, longest first, one line each."""
    found = []
    for file in files:
        try:
            tree = parsed(Path(file).read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue  # templates and files of other Pythons are not ours to judge
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                found.append(f"{lines:5} lines, {depth(node)} deep  {file}:{node.lineno}  {node.name}")
    return longest([found])


def parsed(source: bytes) -> ast.Module:
    """The syntax tree; in CPython 3.11 several threads that build one can disturb each other, and it is built again."""
    for _ in range(100):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    raise ValueError("it could not be parsed")


def depth(node: ast.AST) -> int:
    """How many blocks are nested inside each other below ``node``."""
    below = max((depth(child) for child in ast.iter_child_nodes(node)), default=0)
    return below + isinstance(node, NESTS)


def longest(parts: list[list[str]]) -> list[str]:
    """The longest of several such lists: fit to be merged again, so that any number of files can be measured."""
    return sorted((line for part in parts for line in part), reverse=True)[:KEPT]


def plan(goal: str | None = None) -> Plan:
    """Some files a task."""
    root = Path(goal or ".").expanduser().resolve()
    files = sorted(str(path) for path in root.rglob("*.py") if not any(part in SKIPPED or part[0] == "." for part in path.parts[1:]))
    if not files:
        raise BadInput(f"there is no Python file under {root}; give a folder: --goal path/to/project")
    starts = range(0, len(files), FILES_A_TASK)
    return Plan(tasks=tuple(Task(id=f"files/{at}", role="measure", input=files[at : at + FILES_A_TASK]) for at in starts))


team = Team("longest-functions", roles=[measure], planner=plan, merge=reduce(longest, fan_in=16))
