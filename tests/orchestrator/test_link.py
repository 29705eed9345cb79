import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.link import LARGE, Inbox, LinkDown, Outbox, open_parcel
from protocols import codec
from protocols.envelope import BATCH_BYTES, Batch, Parcel
from protocols.messages import BlobRef

BLOBS: dict[str, bytes] = {}


async def put_blob(data: bytes) -> BlobRef:
    name = codec.digest(data)
    BLOBS[name] = data
    return BlobRef(digest=name, size=len(data))


async def get_blob(digest: str) -> bytes:
    return BLOBS[digest]


async def carried(bodies: list[bytes], dice: random.Random, trouble: float) -> tuple[list[bytes], list[int]]:
    """Send ``bodies`` over a line that loses batches, loses acknowledgements and so makes batches arrive twice."""
    inbox, got, sizes = Inbox("a"), list[bytes](), list[int]()

    async def carry(data: bytes, label: str) -> int:
        await asyncio.sleep(0)
        sizes.append(len(data))
        if dice.random() < trouble:
            raise LinkDown("lost on the way there")
        batch = Batch.unpack(data)
        got.extend([await open_parcel(parcel, get_blob) for parcel in inbox.fresh(batch)])
        taken = inbox.take(batch)
        if dice.random() < trouble:
            raise LinkDown("lost on the way back")
        return taken

    outbox = Outbox("a", carry, put_blob)
    pump = asyncio.create_task(outbox.run())
    last = 0
    for body in bodies:
        last = outbox.send("run-1", body)
        if dice.random() < 0.1:
            await asyncio.sleep(0)
    await asyncio.wait_for(outbox.delivered(last), 20)
    pump.cancel()
    return got, sizes


@given(seed=st.integers(0, 10**6), count=st.integers(1, 60))
@settings(max_examples=15, deadline=None)
def test_everything_arrives_once_and_in_order_over_a_line_that_loses_and_doubles(seed: int, count: int) -> None:
    bodies = [str(number).encode() for number in range(count)]
    got, _ = asyncio.run(carried(bodies, random.Random(seed), trouble=0.2))
    assert got == bodies


def test_batches_stay_below_the_inline_limit_and_large_messages_travel_as_blobs() -> None:
    dice = random.Random(1)
    bodies = [dice.randbytes(dice.choice([10, 500, LARGE - 1, LARGE + 1, 500_000])) for _ in range(120)]
    got, sizes = asyncio.run(carried(bodies, dice, trouble=0.0))
    assert got == bodies
    assert max(sizes) <= BATCH_BYTES
    assert len(sizes) < len(bodies)


def test_a_batch_that_leaves_a_gap_or_comes_from_another_sender_is_not_taken() -> None:
    inbox = Inbox("a")
    late = Batch("a", 5, (Parcel("r", 1, b"x"),))
    other = Batch("b", 1, (Parcel("r", 1, b"x"),))
    assert inbox.fresh(late) == inbox.fresh(other) == ()
    assert inbox.take(late) == inbox.take(other) == 0
