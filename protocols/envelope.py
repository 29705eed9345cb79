"""Envelopes: a message with its address and number, and the batches in which links carry them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from protocols import codec
from protocols.failures import UnknownMessage
from protocols.messages import Message

BATCH_BYTES = 90_000
"""A batch stays below this many bytes: Ray carries arguments inline up to 100 kB."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One entry of a run: ``seq`` counts from 1 in the run (0 for what is never stored), ``at`` is in milliseconds (UTC)."""

    run: str
    seq: int
    at: int
    body: Message


class Parcel(NamedTuple):
    """A packed message on its way: the run, when it was said (milliseconds), and its bytes.

    ``large`` parcels carry, instead of the message, the digest of the blob that holds it.
    """

    run: str
    at: int
    body: bytes
    large: bool = False

    @property
    def size(self) -> int:
        """Bytes in a batch, with a safe margin for framing."""
        return len(self.run) + len(self.body) + 24


class Batch(NamedTuple):
    """Consecutive parcels of one direction of a link, the first numbered ``first``.

    ``sender`` names the incarnation that numbers them; a new incarnation starts again at 1.
    """

    sender: str
    first: int
    parcels: tuple[Parcel, ...]

    def pack(self) -> bytes:
        """The batch as bytes."""
        return codec.pack_value([self.sender, self.first, self.parcels])

    @classmethod
    def unpack(cls, data: bytes) -> "Batch":
        """The batch in ``data``; raises ``UnknownMessage`` for anything else."""
        raw: Any = codec.unpack_value(data)
        try:
            sender, first, parcels = raw
            batch = cls(str(sender), int(first), tuple(Parcel(*parcel) for parcel in parcels))
        except (TypeError, ValueError) as error:
            raise UnknownMessage(f"these bytes are no batch: {error}") from None
        return batch
