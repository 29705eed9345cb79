"""The catalogue: what it names is complete, and what it does not know is refused in a sentence."""

from pathlib import Path

import pytest

from agents.models.catalogue import CATALOGUE, DEFAULT, Entry, JoinedWheels, LocalModel, find
from protocols.chat import Need
from protocols.failures import BadInput


def test_default_model_is_found_by_its_id_with_or_without_provider() -> None:
    assert find("embedded:smollm2-135m") is find("smollm2-135m") is CATALOGUE[DEFAULT]
    assert find("embedded:default") is CATALOGUE[DEFAULT]


def test_every_entry_can_score_and_fill_schemas_but_has_no_native_tools() -> None:
    for entry in CATALOGUE.values():
        assert {Need.JSON_SCHEMA, Need.LOG_PROBABILITIES} <= entry.profile.can
        assert Need.NATIVE_TOOLS not in entry.profile.can
        assert entry.description
        assert entry.licence == "Apache-2.0"


def test_joined_wheels_are_in_order_and_official_hub_comes_first() -> None:
    entry = CATALOGUE["qwen2.5-coder-0.5b"]
    assert [source.kind for source in entry.sources] == ["hub", "joined"]
    joined = entry.sources[1]
    assert isinstance(joined, JoinedWheels)
    assert [part.member[-6:] for part in joined.parts] == [f"{number:02d}.bin" for number in range(1, 7)]


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="smollm2-135m"):
        find("embedded:nonesuch")


def test_local_gguf_is_taken_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"GGUF....")
    found = find(f"embedded:{path}")
    assert isinstance(found, LocalModel)
    assert not isinstance(found, Entry)
    assert found.path == path


def test_path_that_is_missing_or_no_gguf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        find(f"embedded:{tmp_path / 'none.gguf'}")
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04")
    with pytest.raises(BadInput, match="not a GGUF"):
        find(str(other))
