"""Recorded runs of public benchmarks, as the guards would have seen them: turns of calls with their results, in order."""

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from protocols.chat import ToolCall

DATA = Path(os.environ.get("CALLBOARD_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
"""Where the files are; a machine without them skips what needs them."""


class Turned(NamedTuple):
    """One turn of the agent: what it said, and its calls with what they gave (``None`` where no result was recorded)."""

    text: str
    calls: tuple[tuple[ToolCall, str | None], ...] = ()


class Recorded(NamedTuple):
    """One run: where it is from, whether it earned its whole reward, and its turns."""

    source: str
    name: str
    solved: bool
    turns: tuple[Turned, ...]

    @property
    def calls(self) -> list[ToolCall]:
        """All of the agent's calls, in order."""
        return [call for turn in self.turns for call, _ in turn.calls]


def rows(data: Path, name: str) -> Iterator[dict[str, Any]]:
    """The records of one file; none when it is not there."""
    path = data / f"{name}.jsonl.gz"
    if path.exists():
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            yield json.loads(line)


def recorded_runs(data: Path = DATA) -> list[Recorded]:
    """All runs that call tools: of tau-bench, tau2-bench, and the tau-bench runs of AgentRx."""
    found = [_run("tau-bench", row["id"], row["reward"], row["messages"]) for row in rows(data, "tau_bench_airline_gpt4o")]
    for row in rows(data, "tau2_trajectories"):
        found.append(_run("tau2-bench", row["id"], (row["reward_info"] or {}).get("reward"), row["messages"]))
    for row in rows(data, "agentrx"):
        if "messages" in row:
            found.append(_run("AgentRx", row["trajectory_id"], row["reward"], row["messages"]))
    return found


def conversations(data: Path = DATA) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Runs of several agents that speak: their source, and who said what."""
    for row in rows(data, "who_and_when"):
        yield "Who&When", [(one.get("name") or one["role"], one["content"] or "") for one in row["history"]]
    for row in rows(data, "agentrx"):
        if "trajectory" in row:
            yield "Magentic-One", [(one["role"], one["content"] or "") for one in row["trajectory"]]


def _run(source: str, name: Any, reward: Any, messages: list[dict[str, Any]]) -> Recorded:
    turns: list[Turned] = []
    waiting: list[tuple[ToolCall, str | None]] = []
    for message in messages:
        if message["role"] == "assistant":
            waiting = [(_call(one), None) for one in message.get("tool_calls") or () if one.get("requestor", "assistant") == "assistant"]
            turns.append(Turned(message.get("content") or "", tuple(waiting)))
        elif message["role"] == "tool" and message.get("requestor", "assistant") == "assistant":
            name_of = message.get("tool_call_id") or message.get("id")
            place = next((n for n, (call, gave) in enumerate(waiting) if gave is None and call.id == name_of), None)
            if place is not None:
                waiting[place] = (waiting[place][0], str(message.get("content") or ""))
                turns[-1] = turns[-1]._replace(calls=tuple(waiting))
    return Recorded(source, str(name), reward == 1, tuple(turns))


def _call(one: dict[str, Any]) -> ToolCall:
    function = one.get("function") or one
    arguments = function["arguments"]
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments or "{}")
    return ToolCall(
        id=str(one.get("id")), name=function["name"], arguments=arguments if isinstance(arguments, (dict, str)) else str(arguments)
    )
