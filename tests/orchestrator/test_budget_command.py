"""``callboard budget``: limits as they are typed, exact to the millionth, and every refusal one sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.journal import open_journal

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An empty journal."""
    path = str(tmp_path / "journal.db")
    open_journal(path).close()
    return path


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str], store: str) -> Called:
    """A command line of ``callboard budget``: its exit code, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["budget", *arguments, "--store", store])
        streams = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, streams.out, streams.err

    return call


def rows(called: Called, *arguments: str) -> list[tuple[str, str, str, int]]:
    code, out, _ = called("show", "--json", *arguments)
    assert code == 0
    return [(row["account"], row["per"], row["of"], row["limit"]) for row in json.loads(out)["limits"]]


def test_limits_are_set_one_by_one_shown_and_cleared(called: Called) -> None:
    assert called("show")[2].startswith("there are no limits there")
    assert called("set", "--user", "ada", "--per", "day", "--usd", "0.000001", "--calls", "7")[0] == 0
    assert called("set", "--user", "ada", "--per", "day", "--usd", "4611.686018")[0] == 0
    assert called("set", "--everyone", "--per", "run", "--tool-calls", "0")[0] == 0
    ada = [("user ada", "day", "micros", 4_611_686_018), ("user ada", "day", "model_calls", 7)]
    assert rows(called) == [("everyone", "run", "tool_calls", 0), *ada]
    assert rows(called, "--user", "ada") == ada
    code, out, _ = called("show")
    assert code == 0
    assert "$4,611.686018" in out
    assert called("clear", "--user", "ada", "--per", "hour")[0] == 0
    assert rows(called, "--user", "ada") == ada
    assert called("clear", "--user", "ada")[0] == 0
    assert rows(called) == [("everyone", "run", "tool_calls", 0)]


def test_a_file_of_limits_is_read_exactly_and_leaves_others(called: Called, tmp_path: Path) -> None:
    called("set", "--user", "bob", "--per", "total", "--turns", "9")
    file = tmp_path / "limits.toml"
    file.write_text('[everyone.day]\nusd = 0.1\n[everyone.month]\nusd = "250.50"\n[user."eve smith".hour]\ntokens = 100_000\nusd = 3\n')
    assert called("load", str(file))[0] == 0
    assert rows(called) == [
        ("everyone", "day", "micros", 100_000),
        ("everyone", "month", "micros", 250_500_000),
        ("user bob", "total", "turns", 9),
        ("user eve smith", "hour", "tokens", 100_000),
        ("user eve smith", "hour", "micros", 3_000_000),
    ]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("[everyone.day", "is not valid TOML"),
        ("[everyone.week]\nusd = 1", "[everyone.week] is no time that limits count over; there are run, hour"),
        ("everyone = 3", "is no time that limits count over"),
        ("[ada.day]\nusd = 1", "'ada' says not whose limit it is; write [everyone.day] or [user.NAME.day]"),
        ("[user.ada.day]\nmoney = 1", "money is no limit; there are usd, tokens"),
        ("[user.ada.day]\ntokens = 1.5", "tokens '1.5' is no limit; give a whole number from 0 to"),
        ("[user.ada.day]\ntokens = true", "tokens True is no limit"),
        ("[user.ada.day]\nusd = 0.0000001", "finer than a millionth"),
        ("[user.ada.day]\nusd = -1", "is no amount of money"),
        ('[user."".day]\nusd = 1', "'' can't name a user"),
    ],
)
def test_a_wrong_file_sets_nothing(called: Called, tmp_path: Path, told: str, sentence: str) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(f"[everyone.total]\nusd = 5\n{told}" if told.startswith("[") else told)
    code, out, err = called("load", str(file))
    assert (code, out) == (2, "")
    assert sentence in err
    assert rows(called) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["set", "--per", "day", "--usd", "1"], "say whose limit: --user NAME, --everyone, or --run RUN"),
        (["set", "--user", "ada", "--everyone", "--per", "day", "--usd", "1"], "say whose limit"),
        (["set", "--user", "ada", "--per", "day"], "give at least one limit"),
        (["set", "--user", "ada", "--per", "day", "--usd", "much"], "--usd 'much' is no amount of money"),
        (["set", "--user", "ada", "--per", "day", "--tokens", "-1"], "-1 is not in the range"),
        (["set", "--user", " ", "--per", "day", "--usd", "1"], "--user ' ' can't name a user; give a name like ada"),
        (["set", "--user", "bad\udcff", "--per", "day", "--usd", "1"], "can't name a user"),
        (["set", "--user", "ada", "--per", "day", "--tokens", "9" * 20], "give a whole number from 0 to 1,000,000,000,000,000"),
        (["set", "--user", "ada", "--usd", "1"], "say over which time it counts: --per run, hour"),
        (["set", "--user", "ada", "--per", "day", "--timeout", "9"], "--timeout is for one run"),
        (["set", "--run", "last", "--user", "ada", "--usd", "1"], "leave out --user, --everyone and --per"),
        (["set", "--run", "last", "--timeout", "-1"], "--timeout -1.0 is no time to work in"),
        (["clear", "--run", "last", "--per", "day"], "leave out --user, --everyone and --per"),
        (["load", "nowhere.toml"], "nowhere.toml can't be read"),
    ],
)
def test_bad_input_is_one_sentence(called: Called, arguments: list[str], sentence: str) -> None:
    code, out, err = called(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
