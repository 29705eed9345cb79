"""Bodies as stores keep them: any comes back as it was, what was compressed once reads for ever, and damage is told."""

import sqlite3
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.journal.packing import DICTIONARY, LEAST, MOST, packed, unpacked
from orchestrator.journal.port import Entry
from orchestrator.journal.sqlite import SqliteJournal
from protocols import codec
from protocols.chat import ToolCall
from protocols.failures import StorageError
from protocols.messages import ToolCalled

SAID = ToolCalled(task="reader", attempt=1, step=3, call=ToolCall(id="c1", name="read", arguments={}), content="So it goes. " * 20)
BODY = codec.pack(SAID)
WRITTEN = bytes.fromhex(
    "787d2fe7e6ce4331ad156cdab2a2d4c4146068a118ca0c377451b221d8b825206508331be0a1fb21385f21b344213d3fb5584f6124b00186687296"
)
"""``BODY`` of schema 3, as layout 3 stored it when it was new."""


@given(st.binary(max_size=3 * LEAST) | st.text(min_size=LEAST).map(str.encode))
@example(b"")
@example(b"\x78")
@example(b"\x00" * 2 * LEAST)
@example(b"\x78\xbb" + BODY)
def test_any_body_comes_back_and_none_takes_more_than_a_byte_more(body: bytes) -> None:
    stored = packed(body)
    assert unpacked(stored) == body
    assert len(stored) <= len(body) + 1


def test_what_layout_3_has_compressed_reads_for_ever() -> None:
    assert zlib.adler32(DICTIONARY) == 0x2FE7E6CE, "the dictionary is part of the layout: add another beside it, and never change this one"
    assert codec.unpack(unpacked(WRITTEN)) == SAID
    assert len(WRITTEN) < len(BODY) / 2


@given(st.integers(0, len(packed(BODY)) - 1), st.integers(0, 7))
def test_damage_to_a_compressed_body_is_told_or_leaves_no_compressed_body(place: int, bit: int) -> None:
    whole = packed(BODY)
    damaged = bytearray(whole)
    damaged[place] ^= 1 << bit
    try:
        found = unpacked(bytes(damaged))
    except ValueError:
        found = BODY
    assert found == (BODY if place else damaged), "only the first byte says whether it is compressed"
    for other in (whole[: place + 1] if place + 1 < len(whole) else whole + b"\0", whole + whole[: place + 1]):
        with pytest.raises(ValueError, match=r"."):
            unpacked(other)


def test_a_body_that_would_unpack_to_more_than_is_ever_packed_is_damaged() -> None:
    large = bytes(MOST)
    assert len(packed(large)) < MOST / 500
    assert unpacked(packed(large)) == large
    assert packed(large + b"\x93") == b"\x00" + large + b"\x93"
    stream = zlib.compressobj(zdict=DICTIONARY)
    with pytest.raises(ValueError, match="end"):
        unpacked(stream.compress(large * 2) + stream.flush())


def test_a_file_says_that_a_compressed_body_is_damaged_even_where_no_checksum_is_left(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j.db")
    journal.append([Entry("a", 1, 1, "ToolCalled", BODY)], {"a": journal.claim("a")})
    journal.close()
    with sqlite3.connect(tmp_path / "j.db") as db:
        db.execute("UPDATE entries SET sum = -1, body = CAST(substr(body, 1, 40) || x'00' || substr(body, 42) AS BLOB)")
    db.close()
    journal = SqliteJournal(tmp_path / "j.db")
    with pytest.raises(StorageError, match="entry 1 of a is damaged; keep the file"):
        list(journal.read("a"))
    journal.close()
