"""The coordinator's shell, joined to a host in this process: what it does when the journal or a host lets it down."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agents import role
from orchestrator import Board, Team, open_journal
from orchestrator.code import pack
from orchestrator.coordinator import Coordinator
from orchestrator.host import Host
from orchestrator.journal.port import Entry
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.models import Models
from orchestrator.scheduler import EVERY
from protocols import codec
from protocols import messages as m
from protocols.failures import BadInput, StorageError, UnknownMessage
from protocols.plan import Plan, Task


class FullDisk(SqliteJournal):
    """A journal whose disk is full from the append on that first holds ``tag``."""

    tag = ""

    def append(self, entries: Sequence[Entry], epochs: Mapping[str, int]) -> None:
        """See ``Journal.append``."""
        if self.tag in {entry.tag for entry in entries}:
            raise StorageError("no space is left")
        super().append(entries, epochs)


@role
async def echo(text: str) -> str:
    return text


TEAM = Team("echoes", [echo], planner=Plan(tasks=tuple(Task(id=f"e{n}", role="echo", input=str(n)) for n in range(5))))


def request(code: m.BlobRef) -> bytes:
    plan = TEAM.planner
    assert isinstance(plan, Plan)
    return codec.pack(m.RunRequested(team=TEAM.spec(), plan=m.Value(inline=plan.model_dump()), code=code))


def with_coordinator(journal: SqliteJournal, do: Callable[[Coordinator, Host], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        host = Host("host/test", EVERY, Models())
        coordinator = Coordinator(journal, [host])
        await coordinator.start()
        try:
            return await do(coordinator, host)
        finally:
            await coordinator.close()
            await host.close()

    return asyncio.run(run())


async def carried_out(coordinator: Coordinator, code: m.BlobRef) -> None:
    await coordinator.submit("run-1", request(code))
    await coordinator.wait("run-1", 10)


@pytest.mark.parametrize("tag", ["RunRequested", "Dispatched", "TaskEnded", "RunEnded"])
def test_a_full_disk_stops_the_run_and_it_goes_on_when_there_is_room(tmp_path: Path, tag: str) -> None:
    path = tmp_path / "journal.db"
    journal = FullDisk(path)
    journal.tag = tag

    async def fill(coordinator: Coordinator, host: Host) -> None:
        code = await coordinator.put_blob(pack(TEAM.cast))
        with pytest.raises(StorageError, match="no space"):
            await carried_out(coordinator, code)

    with_coordinator(journal, fill)
    stored = [entry.tag for entry in journal.read("run-1")]
    journal.close()
    assert tag not in stored

    async def go_on() -> Any:
        async with Board(runtime="inline", store=str(path)) as board:
            return await (await board.resume("run-1")).result()

    if tag in ("RunRequested", "Dispatched"):  # one transaction: what is asked and what starts at once
        assert stored == []
        with pytest.raises(BadInput, match="there is no run"):
            asyncio.run(go_on())
    else:
        assert asyncio.run(go_on()).output == ["0", "1", "2", "3", "4"]


def test_asking_twice_for_the_same_run_starts_it_once(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")

    async def twice(coordinator: Coordinator, host: Host) -> bool:
        code = await coordinator.put_blob(pack(TEAM.cast))
        await asyncio.gather(coordinator.submit("run-1", request(code)), coordinator.submit("run-1", request(code)))
        return await coordinator.wait("run-1", 10)

    assert with_coordinator(journal, twice)
    assert [entry.tag for entry in journal.read("run-1")].count("RunRequested") == 1


def test_a_host_may_say_only_what_hosts_say(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")

    async def forge(coordinator: Coordinator, host: Host) -> None:
        from protocols.envelope import Batch, Parcel

        ended = codec.pack(m.RunEnded(status=m.Status.DONE))
        batch = Batch(await host.ping(), 1, (Parcel("run-1", 0, ended),))
        with pytest.raises(UnknownMessage, match="a host may not say RunEnded"):
            await coordinator.deliver(host.name, batch.pack())
        assert await coordinator.deliver("nobody", batch.pack()) == 0

    with_coordinator(journal, forge)


def test_a_closed_run_that_nobody_works_on_ends_without_starting_anything(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = FullDisk(path)
    journal.tag = "TaskEnded"

    async def begin(coordinator: Coordinator, host: Host) -> None:
        code = await coordinator.put_blob(pack(TEAM.cast))
        with pytest.raises(StorageError):
            await carried_out(coordinator, code)

    with_coordinator(journal, begin)
    journal.close()

    async def abandon() -> Any:
        async with Board(runtime="inline", store=str(path)) as board:
            return await (await board.abandon("run-1", "not wanted")).result()

    assert asyncio.run(abandon()).status is m.Status.CANCELLED
    tags = [entry.tag for entry in open_journal(str(path)).read("run-1")]
    assert "Dispatched" not in tags[tags.index("RunResumed") :]


def test_a_run_goes_on_by_itself_when_there_is_room_again(tmp_path: Path) -> None:
    journal = FullDisk(tmp_path / "journal.db")
    journal.tag = "TaskEnded"

    async def fill_and_free(coordinator: Coordinator, host: Host) -> None:
        code = await coordinator.put_blob(pack(TEAM.cast))
        with pytest.raises(StorageError, match="no space"):
            await carried_out(coordinator, code)
        journal.tag = ""
        await ended(journal, "run-1")

    with_coordinator(journal, fill_and_free)


def test_a_run_that_is_taken_over_takes_no_other_with_it(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")

    async def take_over(coordinator: Coordinator, host: Host) -> None:
        code = await coordinator.put_blob(pack(TEAM.cast))
        await coordinator.submit("run-1", request(code))
        journal.claim("run-1", "somebody else")
        await coordinator.submit("run-2", request(code))
        await ended(journal, "run-2")
        row = journal.row("run-1")
        assert row is not None
        assert (row.epoch, row.owner) == (2, "somebody else")

    with_coordinator(journal, take_over)


async def ended(journal: SqliteJournal, run: str) -> None:
    for _ in range(400):
        row = journal.row(run)
        if row is not None and row.ended:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{run} has not ended")
