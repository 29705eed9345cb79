"""``callboard doctor``: every check against what it looks at, made for the test: files, sockets, installed packages."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.checkup import machine, software, surroundings
from orchestrator.checkup.check import Check, carried_out
from orchestrator.cli import main
from orchestrator.journal import Entry, open_journal

ROOT = Path(__file__).parents[2]
HIDDEN = "sk-never-shown"


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own."""
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of somebody who listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def found(checks: Iterator[Check]) -> tuple[str, str]:
    """The status and the text of the only check."""
    [check] = checks
    assert check.status == "ok" or check.next, "what is not well says what to do"
    return check.status.value, f"{check.what} > {check.next}"


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_sound_installation_is_told_at_once_without_ray_and_without_keys(at_home: Path) -> None:
    code = "import sys\nfrom orchestrator.cli import main\ntry: main(['doctor'])\nfinally: print('ray' in sys.modules, file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": HIDDEN, "CALLBOARD_HOME": str(at_home)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stderr == "False\n"
    assert [heading in done.stdout for heading in ("Software\n", "This machine\n", "Ray\n", "no problems, ")] == [True] * 4
    assert "OPENAI_API_KEY set" in done.stdout
    assert HIDDEN not in done.stdout
    assert not at_home.exists()


def test_a_problem_ends_in_code_1_and_json_says_which(at_home: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port()}")
    with pytest.raises(SystemExit) as left:
        main(["doctor", "--json"])
    assert left.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert [check["name"] for check in said["checks"] if check["status"] == "problem"] == ["ray address"]
    assert all(set(check) == {"name", "status", "what", "next"} for check in said["checks"])


def test_a_check_that_breaks_is_a_note_and_the_others_go_on() -> None:
    def broken_check() -> Check:
        raise RuntimeError("no such thing")

    first, second = carried_out([broken_check, machine.processors])
    assert (first.name, first.status) == ("broken check", "note")
    assert "no such thing" in first.what
    assert second.name == "processors"


# --- software ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a distribution, as far as its metadata goes, before all others."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, version: str, *packages: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "top_level.txt").write_text("\n".join(packages))

    return install


def test_another_distribution_with_our_import_names_is_a_problem(installed) -> None:
    assert found(software.clashes())[0] == "ok"
    installed("openai-agents", "1.0", "agents")
    status, said = found(software.clashes())
    assert status == "problem"
    assert "openai-agents is also imported as `agents`" in said
    assert "pip uninstall openai-agents" in said


def test_a_file_that_hides_a_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents.py").touch()
    monkeypatch.chdir(tmp_path)
    assert found(software.clashes())[0] == "note"


def test_versions_that_do_not_fit_are_problems_with_the_command_that_helps(installed) -> None:
    assert {check.status for check in software.dependencies()} == {"ok"}
    installed("ray", "2.9.0")
    installed("click", "7.0")
    wrong = {check.name: check for check in software.dependencies()}
    assert wrong["ray"].status == wrong["dependencies"].status == "problem"
    assert wrong["ray"].what == "ray 2.9.0 is installed, and ==2.60.0 is asked for"
    assert wrong["ray"].next == "pip install 'ray==2.60.0'"
    assert wrong["dependencies"].what.startswith("click 7.0 is installed")


def test_an_extra_with_the_wrong_engine_is_a_note(installed) -> None:
    installed("xllamacpp", "0.0.1")
    extras = {check.name: check for check in software.extras()}
    assert extras["extra local"].status == "note"
    assert extras["extra local"].next == "pip install 'callboard[local]'"
    assert "extra dev" not in extras


def test_weights_that_are_cut_short_are_told(at_home: Path) -> None:
    from agents.models.catalogue import CATALOGUE, DEFAULT

    (at_home / "models").mkdir(parents=True)
    (at_home / "models" / CATALOGUE[DEFAULT].file).write_text("half")
    first, *_ = software.models()
    assert first.status == "note"
    assert "4 bytes" in first.what
    assert first.next == f"callboard model pull {DEFAULT}"


def test_a_key_with_white_space_is_a_problem_and_no_key_is_shown() -> None:
    first, second = software.keys({"OPENAI_API_KEY": HIDDEN, "ANTHROPIC_API_KEY": f"{HIDDEN}\n"})
    assert (first.status, second.status) == ("ok", "problem")
    assert "GOOGLE_API_KEY not set" in first.what
    assert HIDDEN not in f"{first}{second}"


# --- the machine ------------------------------------------------------------------------------------------------------


def test_a_home_that_cannot_be_made_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path / "file" / "home"))
    check = machine.home()
    assert (check.status, "CALLBOARD_HOME" in check.next) == ("problem", True)


def test_the_journal_is_opened_and_never_made(at_home: Path) -> None:
    assert machine.journal().what.startswith("none yet")
    assert not at_home.exists()
    journal = open_journal()
    journal.append([Entry("run-1", 1, 1, "RunRequested", b"begun")], {"run-1": journal.claim("run-1")})
    journal.claim("run-2")  # and never begun
    journal.close()
    assert machine.journal().status == "note"
    assert "1 run, " in machine.journal().what
    assert "1 unfinished" in machine.journal().what
    for file in at_home.glob("journal.db*"):
        file.unlink()
    (at_home / "journal.db").write_text("this is no database, " * 1000)
    assert machine.journal().status == "problem"


@pytest.mark.parametrize(("version", "status"), [((3, 51, 2), "note"), ((3, 51, 3), "ok"), ((3, 52, 0), "ok")])
def test_an_older_sqlite_is_a_note(version: tuple[int, ...], status: str) -> None:
    assert machine.sqlite(version).status == status


@pytest.mark.parametrize(("limit", "status"), [("max", "ok"), (3_000_000_000, "ok"), (1_200_000_000, "note"), (700_000_000, "problem")])
def test_memory_is_what_the_container_has(tmp_path: Path, limit: object, status: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: 7000000 kB\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("100000000\n")
    assert found(machine.memory(tmp_path))[0] == status


# --- Ray --------------------------------------------------------------------------------------------------------------


def test_an_address_is_asked_whether_it_answers(listener: int) -> None:
    assert found(surroundings.address({})) == ("ok", "RAY_ADDRESS is not set; a run starts a local Ray of its own > ")
    assert found(surroundings.address({"RAY_ADDRESS": f"ray://127.0.0.1:{listener}"}, closed_port()))[0] == "ok"
    status, said = found(surroundings.address({"RAY_ADDRESS": f"127.0.0.1:{closed_port()}"}))
    assert (status, "nobody answers there" in said) == ("problem", True)
    assert found(surroundings.address({"RAY_ADDRESS": "http://[half"}))[0] == "problem"


@pytest.mark.parametrize(("theirs", "status"), [(metadata.version("ray"), "ok"), ("2.50.1", "problem")])
def test_a_cluster_with_another_ray_is_a_problem(listener: int, theirs: str, status: str) -> None:
    class Dashboard(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"version": "4", "ray_version": theirs}).encode() if self.path == "/api/version" else b"")

        def log_message(self, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = found(surroundings.address({"RAY_ADDRESS": f"127.0.0.1:{listener}"}, server.server_port))
        server.shutdown()
    assert said[0] == status
    assert f"with Ray {theirs}" in said[1]


def test_a_cluster_that_is_gone_but_remembered_is_a_note(tmp_path: Path, listener: int) -> None:
    environment = {"RAY_TMPDIR": str(tmp_path)}
    assert list(surroundings.current_cluster(environment)) == []
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text(f"127.0.0.1:{closed_port()}")
    assert found(surroundings.current_cluster(environment))[1].endswith(f"> rm {file}")
    file.write_text(f"127.0.0.1:{listener}")
    assert found(surroundings.current_cluster(environment))[0] == "ok"


def test_a_port_that_is_taken_is_told_with_who_has_it(listener: int) -> None:
    status, said = found(surroundings.ports({listener: "a test"}))
    assert status == "note"
    if Path("/proc/net/tcp").exists():
        assert "python" in said
    assert found(surroundings.ports({closed_port(): "a test"}))[0] == "ok"


def test_the_token_is_found_where_ray_looks_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(HIDDEN)
    file.chmod(0o600)
    where = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    assert found(surroundings.authentication(where)) == ("ok", f"in {file} > ")
    file.chmod(0o644)
    assert found(surroundings.authentication(where))[0] == "note"
    assert HIDDEN not in found(surroundings.authentication({"RAY_AUTH_TOKEN": HIDDEN}))[1]
    assert found(surroundings.authentication({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}))[0] == "problem"
    assert found(surroundings.authentication({"RAY_AUTH_MODE": "disabled"}))[0] == "note"
    assert found(surroundings.authentication({"RAY_AUTH_MODE": "yes"}))[0] == "problem"


def test_uv_run_is_noticed_however_far_above(tmp_path: Path) -> None:
    for number, above, words in ((30, 20, "python\0x.py"), (20, 10, "sh\0-c"), (10, 1, "/usr/bin/uv\0run\0x.py")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_text(words)
        (tmp_path / str(number) / "stat").write_text(f"{number} (a) name) S {above} 1 1")
    assert found(surroundings.uv_run({}, 30, tmp_path))[0] == "note"
    assert list(surroundings.uv_run({"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}, 30, tmp_path)) == []
    (tmp_path / "10" / "cmdline").write_text("/usr/bin/uv\0pip")
    assert list(surroundings.uv_run({}, 30, tmp_path)) == []


@given(st.text(max_size=40) | st.from_regex(r"(ray|https?)://[\[\]a-z.:0-9@-]{0,20}", fullmatch=True))
def test_no_address_however_odd_is_more_than_a_problem(text: str) -> None:
    place = surroundings._place(text)
    assert place is None or (place[0] and 0 < place[1] < 65536)
