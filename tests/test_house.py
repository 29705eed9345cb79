"""The house itself: which way imports point, what is public, and that the linter and the type checker have nothing to say."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agents
import orchestrator

ROOT = Path(__file__).parents[1]
FLOORS = ("protocols", "agents", "orchestrator")
RAY_ROOMS = {
    "orchestrator.actors",
    "orchestrator.cluster",
    "orchestrator.deployment",
    "orchestrator.jobs",
    "orchestrator.model_server",
    "orchestrator.observe.exporter",
    "orchestrator.remote",
}


def modules() -> dict[str, Path]:
    found = {}
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path], *, lazy: bool) -> Iterator[str]:
    """What a module imports: ``lazy`` includes imports inside functions and those for type checkers only."""
    tree = ast.parse(path.read_text())
    if not lazy:
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in known else node.module


def test_imports_point_one_way() -> None:
    known = modules()
    for name, path in known.items():
        floor = FLOORS.index(name.split(".")[0])
        for other in imports(path, known, lazy=True):
            head = other.split(".")[0]
            if head in FLOORS:
                assert FLOORS.index(head) <= floor, f"{name} imports {other}, which is above it"


def test_no_two_modules_import_each_other() -> None:
    known = modules()
    graph = {name: {other for other in imports(path, known, lazy=False) if other in known} for name, path in known.items()}
    mutual = {frozenset((one, other)) for one, others in graph.items() for other in others if one != other and one in graph[other]}
    # A package's __init__ that gathers its own modules is no arrow back.
    mutual = {pair for pair in mutual if not any(a != b and b.startswith(f"{a}.") for a in pair for b in pair)}
    assert mutual == set()


def test_only_the_cluster_modules_know_ray() -> None:
    known = modules()
    for name, path in known.items():
        if any(other.split(".")[0] == "ray" for other in imports(path, known, lazy=True)):
            assert name in RAY_ROOMS, f"{name} imports ray"


def test_protocols_do_no_io() -> None:
    known = modules()
    for name, path in known.items():
        if name.startswith("protocols"):
            bad = {"asyncio", "socket", "sqlite3", "pathlib", "os", "aiohttp", "subprocess"} & set(imports(path, known, lazy=True))
            assert not bad, f"{name} imports {bad}"


def test_modules_are_small_and_public_names_few() -> None:
    for name, path in modules().items():
        lines = len(path.read_text().splitlines())
        assert lines <= 450, f"{name} has {lines} lines: probably two concepts"
    assert len(orchestrator.__all__) <= 15
    assert len(agents.__all__) <= 12


def test_importing_an_inline_team_does_not_load_ray() -> None:
    code = "import sys, agents, orchestrator; assert not {'ray', 'aiohttp', 'click'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."]])
def test_the_linter_has_nothing_to_say(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_type_checker_has_nothing_to_say() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
