"""Loading teams from files and modules, and what is said when that can't work."""

import sys

import pytest

from orchestrator import target
from protocols.failures import BadInput

GOOD = """
from agents.role import Role
from orchestrator.team import Team
from protocols.failures import BadInput


def work(goal: str) -> str:
    return goal.upper()


other = Team(name="shouters", roles=[Role(name="shout", run=work)])
"""


@pytest.fixture(autouse=True)
def _untouched_imports(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def said(text):
    with pytest.raises(BadInput) as raised:
        target.load(text)
    sentence = str(raised.value)
    assert "\n" not in sentence
    return sentence


def test_a_team_is_loaded_from_a_file_and_its_place_means_the_same_everywhere(tmp_path):
    (tmp_path / "job.py").write_text(GOOD)
    loaded = target.load("job.py:other")
    assert loaded.team.name == "shouters"
    assert loaded.place == f"{tmp_path}/job.py:other"
    assert target.load(loaded.place).team is loaded.team


def test_a_team_is_loaded_from_a_module_in_the_working_folder(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("")
    (tmp_path / "jobs" / "shout.py").write_text(GOOD.replace("other =", "team ="))
    assert target.load("jobs.shout").place == "jobs.shout:team"


def test_a_file_may_import_its_neighbours(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "neighbour_of_job.py").write_text("NAME = 'shouters'")
    (folder / "job_with_neighbour.py").write_text("import neighbour_of_job\n" + GOOD)
    assert target.load("elsewhere/job_with_neighbour.py:other").team.name == "shouters"


def test_a_missing_file_or_module_is_named(tmp_path):
    (tmp_path / "job.py").write_text(GOOD)
    assert said("nowhere.py:team") == "there is no file nowhere.py; check the path"
    assert said(f"{tmp_path}/:team").endswith("is no Python file; write file.py:team or package.module:team")
    assert said("no_such_module:team").startswith("there is no module 'no_such_module'")
    assert said("a b c") == "'a b c' is no module name; write file.py:team or package.module:team"
    assert said(":team") == "':team' names no file or module; write file.py:team or package.module:team"


def test_a_missing_name_is_answered_with_those_there_are(tmp_path):
    (tmp_path / "job.py").write_text(GOOD)
    assert said("job.py") == "job.py has no 'team'; write job.py:other"
    assert said("job.py:work") == "'work' in job.py is a function, not a Team; write job.py:other"
    (tmp_path / "empty.py").write_text("")
    assert said("empty.py") == "empty.py has no 'team'; it defines no Team; assign one: team = Team(...)"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def broken(:\n", "is not valid Python: "),
        ("x = 1\n1 / 0\n", "could not be loaded (line 2 of bad.py): ZeroDivisionError: division by zero"),
        ("import not_installed_anywhere\n", "imports 'not_installed_anywhere', which is not installed here"),
        ("raise SystemExit(3)\n", "ended the program while it was imported"),
        ("from protocols.failures import BadInput\nraise BadInput('a role has no name')\n", "(line 2 of bad.py): a role has no name"),
        ("int('x')\n", "ValueError: invalid literal"),
        ("import json\njson.loads('x')\n", "(line 2 of bad.py): JSONDecodeError: "),
        ("from protocols.budget import Limits\nLimits(tokens=-5)\n", "(line 2 of bad.py): Limits: tokens: Input should be greater than"),
        ("from protocols.budget import Limits\nLimits(token=5)\n", "Limits: token: there is no such setting; did you mean 'tokens'?"),
    ],
)
def test_code_that_fails_is_one_sentence(tmp_path, code, sentence):
    (tmp_path / "bad.py").write_text(code)
    assert sentence in said("bad.py:team")
    assert "bad" not in sys.modules
    assert sentence in said("bad:team")
