"""Messages to bytes and back: msgpack of ``[schema, tag, fields]``. The only serialisation between agents."""

import hashlib
from typing import Any

import msgpack
from pydantic import ValidationError

from protocols.failures import BadInput, UnknownMessage
from protocols.messages import MESSAGES, SCHEMA, Message
from protocols.upcast import UPCASTS, upcast

_READ = f"{min(UPCASTS)} to {SCHEMA}"
_BY_TAG: dict[str, type[Message]] = {kind.__name__: kind for kind in MESSAGES}


def pack(message: Message) -> bytes:
    """``message`` as bytes. Raises ``BadInput`` when it holds something that JSON could not."""
    kind = type(message)
    # model_dump and model_validate themselves would cost as much as what they call; every message passes here several times
    fields = kind.__pydantic_serializer__.to_python(message, exclude_defaults=True)
    return pack_value([SCHEMA, kind.__name__, fields])


def unpack(data: bytes) -> Message:
    """The message in ``data``, of this schema or an earlier one.

    Raises ``UnknownMessage`` for any other bytes: an unknown tag, schema, field or garbage.
    """
    try:
        schema, tag, fields = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise UnknownMessage(f"these {len(data)} bytes are no message: {error}") from None
    kind = _BY_TAG.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise UnknownMessage(f"no message is called {tag!r} in schema {SCHEMA}; was it written by a newer callboard?")
    if schema != SCHEMA:
        if not isinstance(schema, int) or schema not in UPCASTS or not isinstance(fields, dict):
            raise UnknownMessage(f"{tag} has schema {schema!r} and this callboard reads {_READ}; use the version that wrote it")
        fields = upcast(schema, tag, fields)
    try:
        message: Message = kind.__pydantic_validator__.validate_python(fields)
        return message
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnknownMessage(f"{tag} does not fit its schema at {where!r}: {first['msg']}") from None


def pack_value(value: Any) -> bytes:
    """A JSON-like value as bytes. Raises ``BadInput`` for types or integers that msgpack has no room for."""
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"a value can't be sent: {error}; use JSON types and integers below 2**64") from None
    return packed


def unpack_value(data: bytes) -> Any:
    """The value that ``pack_value`` packed. Raises ``UnknownMessage`` for other bytes."""
    try:
        return msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise UnknownMessage(f"these {len(data)} bytes are no value: {error}") from None


def digest(data: bytes) -> str:
    """The SHA-256 of ``data`` in hexadecimal: how blobs and requests are named."""
    return hashlib.sha256(data).hexdigest()
