"""The bodies of entries as stores keep them: the longer ones compressed, with a dictionary of what such bodies say again and again. Pure.

A compressed body is a zlib stream (RFC 1950). Its first byte tells it from a message, which begins with 0x93; it names the dictionary
that it needs, and ends with a checksum of what it holds. Bodies that compression would not make shorter stay as they are.
"""

import zlib

DICTIONARY = b"".join(
    (
        b"\xa7failure\x83\xa7verdict\xa7message\xa8evidence\xa4blob\x82\xa6digest\xa4size\xcd\xadoutput_schema\xabdescription\xa5title",
        b"\xa4type\xa6string\x93\x03\xa9TaskEnded\x86\xa4task\xa7attempt\x01\xa6output\x81\xa6inline\xda\x01\xaatool_calls\x01\xa5turns\x01",
        b"\xa5began\xcf\x00\x00\x01\xa5ended\xcf\x00\x00\x01\x93\x03\xabModelCalled\x8b\xa4task\xa7attempt\x01\xa4step\x01\xa5model\xb0",
        b"\xa7request\xd9\x40\xa4said\x91\x82\xa4role\xa4user\xa7content\xd9\xa5reply\x85\xa4text\xd9\xaatool_calls\x91\x83\xa2id\xa8call-1-0",
        b"\xa4name\xa9arguments\x82\xa6finish\xaatool_calls\xacinput_tokens\xcd\xadoutput_tokens\xcc\xa5usage\x85\xacinput_tokens\xcd",
        b"\xadoutput_tokens\xcc\xa6micros\xcd\xabmodel_calls\x01\xa5turns\x01\xa6priced\xc3\xa5began\xcf\x00\x00\x01\xa5ended",
        b"\x93\x03\xaaToolCalled\x87\xa4task\xa7attempt\x01\xa4step\x01\xa4call\x83\xa2id\xa8call-1-0\xa4name\xa9arguments\x81\xa7content\xda\x01",
    )
)
"""Part of the layout of every store: nothing of it may change while bodies exist that were compressed with it."""

LEAST, MOST = 192, 1 << 24
"""Bytes of the shortest and of the longest body that is compressed. So damage makes no reader unpack more than ``MOST``."""

_STREAM, _PLAIN = b"\x78", b"\x00"  # a zlib stream with a window of 32 KiB; and what stands before a body that begins as one of these two


def packed(body: bytes) -> bytes:
    """``body``, as it is stored."""
    if LEAST <= len(body) <= MOST:
        stream = zlib.compressobj(level=4, zdict=DICTIONARY)
        short = stream.compress(body) + stream.flush()
        if len(short) < len(body):
            return short
    return _PLAIN + body if body[:1] in (_STREAM, _PLAIN) else body


def unpacked(stored: bytes) -> bytes:
    """The body of which ``stored`` was made. Raises ``ValueError`` when it is damaged, as far as that shows."""
    first = stored[:1]
    if first == _PLAIN:
        return stored[1:]
    if first != _STREAM:
        return stored
    stream = zlib.decompressobj(zdict=DICTIONARY)
    try:
        body = stream.decompress(stored, MOST + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not stream.eof or stream.unused_data:
        raise ValueError("it does not end where it should")
    return body
