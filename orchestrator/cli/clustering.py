"""``callboard up`` and ``down``: keep a warm cluster on this machine; end it, or a deployment on another one."""

import asyncio

import click

from orchestrator.cli import options, streams

DASHBOARD_PORT = 8265


@click.command(epilog=options.examples("callboard up", "callboard up --hosts 4 --no-dashboard"))
@options.hosts
@options.coordinators
@click.option("--cpus", type=click.IntRange(1), help="Processors that Ray may count on.  [default: all]")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Ray's port.  [default: any that is free]")
@click.option("--dashboard-port", type=click.IntRange(0, 65535), default=DASHBOARD_PORT, show_default=True, help="0 is any that is free.")
@click.option("--dashboard/--no-dashboard", default=True, help="With Ray's dashboard, or without.")
@options.store
@options.as_json
@options.debug
def up(
    hosts: int,
    coordinators: int | None,
    cpus: int | None,
    port: int,
    dashboard_port: int,
    dashboard: bool,
    store: str | None,
    as_json: bool,
) -> int:
    """Start a cluster on this machine that stays.

    It has coordinator and hosts ready, and `callboard run` uses it until `callboard down`. Hosts work in the folder that it is called in.
    """
    from orchestrator import warm

    with streams.kept() as out:
        started = warm.start(cpus=cpus, port=port, dashboard_port=dashboard_port if dashboard else None)
        try:
            journal = asyncio.run(_deploy(started.address, store, hosts, coordinators))
        except BaseException:
            warm.stop(started)
            raise
        board = f"http://{started.dashboard}" if started.dashboard else None
        token = "; it asks for Ray's token: Ray's own commands need RAY_AUTH_MODE=token" if started.asks_for_token else ""
        streams.note(f"up at {started.address}" + (f", dashboard at {board}" if board else "") + f"; journal {journal}{token}")
        streams.note(f"`callboard run TARGET` uses it now, with relative paths from {started.folder}; `callboard down` ends it")
        if as_json:
            streams.write_json({"address": started.address, "dashboard": board, "journal": journal, "log": started.log}, out)
    return 0


async def _deploy(address: str, store: str | None, hosts: int, coordinators: int | None) -> str | None:
    from orchestrator.deployment import DeploymentRuntime
    from orchestrator.journal import shown

    runtime = DeploymentRuntime(address, store, hosts, coordinators, idle=None)
    try:
        await runtime.open(dict)
    finally:
        await runtime.close()
    return runtime.store and shown(runtime.store)


@click.command(epilog=options.examples("callboard down", "callboard down --address 10.0.0.5:6379"))
@click.option("--address", metavar="A", help="End the deployment on this cluster; the cluster stays.")
@options.as_json
@options.debug
def down(address: str | None, as_json: bool) -> int:
    """End the cluster of `callboard up`, or a deployment on another cluster.

    Runs at work there are stopped, and what they hold is given back; `callboard resume RUN` goes on with them.
    """
    from orchestrator import warm
    from protocols.failures import CallboardError

    with streams.kept() as out:
        if address is not None:
            ended, what = asyncio.run(_end(options.cluster(address) or address)), f"the deployment at {address}"
        else:
            there = warm.found()
            ended, what = there is not None, f"the cluster at {there.address}" if there else "a cluster of `callboard up`"
            if there is not None:
                warm.heed(there)
                try:
                    asyncio.run(_end(there.address))
                except CallboardError as error:  # what was at work counts as used
                    streams.note(f"the runs there could not be stopped in good order ({error})")
                warm.stop(there)
        streams.note(f"{what} has ended" if ended else f"{what} is not there; nothing to end")
        if as_json:
            streams.write_json({"ended": ended}, out)
    return 0


async def _end(address: str) -> bool:
    from orchestrator.deployment import DeploymentRuntime

    runtime = DeploymentRuntime(address, None, 1)
    try:
        return await runtime.end()
    finally:
        await runtime.close()
