"""README and pages say what is true: their code runs, their commands can be typed, and the README's are those of the gate."""

import re
from pathlib import Path

import pytest

from agents import ScriptedModel, call
from protocols.messages import Status
from tests.shown import blocks, callboards, typed, why_not

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def test_the_first_block_defines_a_team_that_works(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    exec(blocks(README, "python")[0], names)
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for risk, path in enumerate(files):
        path.write_text(f"risk = {risk}")

    def reply(request: object) -> object:
        *_, last = request.messages  # type: ignore[attr-defined]
        if last.role == "tool":
            risk = int(last.content.split()[-1])
            return {"file": str(files[risk]), "risk": risk}
        return call("read_file", path=last.content)

    team = names["team"].with_model(ScriptedModel(reply, name="reviewer"))  # type: ignore[attr-defined]
    result = team.run_sync([str(path) for path in files], runtime="inline", store=store)
    assert result.status is Status.DONE
    assert result.output == {"file": str(files[1]), "risk": 1}
    assert result.usage.tool_calls == 2


def test_the_gate_runs_the_readmes_test_command() -> None:
    commands = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if name != "README.md" and blocks(text, "python")])
def test_the_code_of_a_page_works(page: str) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(PAGES[page], "python"):
        exec(block, names)


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if any(callboards(typed(text)))])
def test_the_commands_of_a_page_can_be_typed(page: str) -> None:
    refused = list(filter(None, map(why_not, callboards(typed(PAGES[page])))))
    assert refused == []


def test_commands_in_sentences_exist() -> None:
    named = {span for text in PAGES.values() for span in re.findall(r"`(callboard [^`]+)`", text)}
    refused = filter(None, map(why_not, callboards(" ".join(span.split()) for span in named)))
    assert [why for why in refused if "Missing argument" not in why] == []


def test_links_between_pages_lead_somewhere() -> None:
    for name, text in PAGES.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, heading = link.partition("#")
            target = folder / path if path else folder / name
            assert target.exists(), f"{name} links to {link}"
            if heading:
                headings = [
                    re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
                    for line in re.findall(r"^#+ (.*)$", target.read_text(), re.M)
                ]
                assert heading in headings, f"{name} links to {link}"
