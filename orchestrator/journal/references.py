"""Which blobs a packed message refers to, read off its bytes. Pure."""

import re

MARK = b"\xa6digest\xd9\x40"
"""How msgpack begins a ``BlobRef``: the key, then text of 64 characters. A message names blobs in no other way."""

_REFERENCE = re.compile(re.escape(MARK) + rb"([0-9a-f]{64})")


def digests(body: bytes) -> list[bytes]:
    """The digests, as bytes, that ``body`` may refer to. What only looks like a reference is among them, and keeps a blob longer."""
    return [bytes.fromhex(found.decode()) for found in _REFERENCE.findall(body)] if MARK in body else []
