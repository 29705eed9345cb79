"""``callboard submit``: a run whose driver is a job of the cluster, so that this machine may go away."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from orchestrator.cli import exits, options, streams
from protocols import ids
from protocols.failures import BadInput

MOST_BYTES = 512 << 20
"""Ray's own limit on a working directory; to find out before it is packed."""


@click.command(
    epilog=options.examples(
        "callboard submit review.py:team --goal '[\"a.py\"]' --working-dir .",
        "callboard submit review.py --run-id nightly-7 --address http://10.0.0.5:8265 --no-wait",
    )
)
@options.target
@options.asked
@options.hosts
@options.coordinators
@click.option("--store", metavar="URL", help="The journal, on the cluster's head.  [default: ~/.callboard/journal.db there]")
@click.option("--run-id", metavar="ID", help="The run's id and the job's; submitting it again follows it.")
@click.option("--address", metavar="URL", help="The dashboard's address.  [default: RAY_API_SERVER_ADDRESS, else that of `callboard up`]")
@click.option("--working-dir", metavar="DIR", help="The folder that goes along.  [default: that of TARGET's file]")
@click.option("--runtime-env", "env_file", metavar="FILE", help="Ray's runtime environment of the job, as JSON or YAML.")
@click.option("--runtime-env-json", "env_json", metavar="JSON", help="The same, written here.")
@click.option("--entrypoint-num-cpus", "num_cpus", type=float, metavar="N", help="Processors for the driver.")
@click.option("--entrypoint-num-gpus", "num_gpus", type=float, metavar="N", help="GPUs for the driver.")
@click.option("--entrypoint-memory", "memory", type=int, metavar="BYTES", help="Memory for the driver.")
@click.option("--metadata-json", metavar="JSON", help="More metadata of the job.")
@click.option("--no-wait", is_flag=True, help="Do not follow the run.")
@options.as_json
@options.debug
def submit(
    target: str,
    asked: options.Asked,
    hosts: int,
    coordinators: int | None,
    store: str | None,
    run_id: str | None,
    address: str | None,
    working_dir: str | None,
    env_file: str | None,
    env_json: str | None,
    num_cpus: float | None,
    num_gpus: float | None,
    memory: int | None,
    metadata_json: str | None,
    no_wait: bool,
    as_json: bool,
) -> int:
    """Submit a run to a cluster as a Ray job.

    Its id is the job's, so that submitting it twice runs it once. The log is followed on standard error, the output goes to standard
    output, and the exit code is the run's; when this process, or the job itself, is lost, the run goes on.
    """
    from orchestrator.journal import shown

    flags = asked.flags()
    if store is not None and shown(store) != store:
        raise BadInput("--store holds a password, and the job's command line is shown on the dashboard; leave it to ~/.pgpass on the head")
    run_id = run_id or ids.new_run_id()
    if not ids.is_run_id(run_id):
        raise BadInput(f"{run_id!r} can't name a run; use at most 100 letters, digits, dots, dashes and underscores, and not 'last'")
    environment = _environment(env_file, env_json)
    place, folder = _packed(target, working_dir or environment.get("working_dir"))
    if folder is not None:
        environment["working_dir"] = folder
    arguments = [place, "--hosts", str(hosts), *(["--store", store] if store is not None else []), *flags]
    arguments += ["--coordinators", str(coordinators)] if coordinators is not None else []
    metadata = {str(key): str(value) for key, value in _object("--metadata-json", metadata_json).items()}
    metadata |= {"target": target, "user": asked.user or "nobody"}
    where = _dashboard(address)
    with streams.kept() as out:
        from orchestrator.jobs import Job, Jobs

        jobs = Jobs(where)
        job = Job(
            run_id=run_id,
            arguments=tuple(arguments),
            runtime_env=environment,
            metadata=metadata,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=memory,
        )
        new = jobs.submit(job)
        streams.note(f"{run_id} {'is submitted' if new else 'was submitted before; nothing runs twice'} ({jobs.address}/#/jobs/{run_id})")
        if no_wait:
            streams.write_json({"run": run_id}, out) if as_json else streams.write_output(run_id, out)
            return 0
        try:
            report = jobs.follow(run_id, streams.note)
        except KeyboardInterrupt:
            streams.note(f"callboard: the run goes on; submit it again with --run-id {run_id} to follow it")
            return int(exits.Exit.INTERRUPTED)
        if as_json:
            streams.write_json(report, out)
        elif report.get("output") is not None:
            streams.write_output(report["output"], out)
        return int(report["exit_code"])


def _packed(target: str, working_dir: str | None) -> tuple[str, str | None]:
    """TARGET as it is written on the cluster, and the folder that goes along."""
    from orchestrator import target as targets

    where, name = targets.split(target)
    if not targets.is_file(where) or (working_dir and "://" in working_dir):
        return target, working_dir
    path = Path(where).expanduser().resolve()
    if not path.is_file():
        raise BadInput(f"there is no file {where}; check the path")
    folder = Path(working_dir).expanduser().resolve() if working_dir else path.parent
    if _is_larger(folder, MOST_BYTES):
        raise BadInput(f"{folder} holds more than {MOST_BYTES >> 20} MiB, too much to go along; give a smaller --working-dir")
    if not path.is_relative_to(folder):
        raise BadInput(f"{where} is not in the working directory {folder}; give a --working-dir that holds it")
    return f"./{path.relative_to(folder)}:{name}", str(folder)


def _is_larger(folder: Path, size: int) -> bool:
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone since it was listed
                size -= os.lstat(os.path.join(place, name)).st_size
        if size < 0:
            return True
    return False


def _dashboard(address: str | None) -> str:
    from orchestrator import warm

    named = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    there = warm.found()
    if named:
        return named
    if there is None or there.dashboard is None:
        raise BadInput("say where the cluster's dashboard is with --address http://HOST:8265, or start a cluster with `callboard up`")
    warm.heed(there)
    return there.dashboard


def _environment(file: str | None, text: str | None) -> dict[str, Any]:
    if file is not None and text is not None:
        raise BadInput("--runtime-env and --runtime-env-json say the same in two ways; use one of them")
    if file is None:
        return _object("--runtime-env-json", text)
    import yaml  # JSON is YAML

    try:
        found = yaml.safe_load(Path(file).expanduser().read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"--runtime-env {file} can't be read: {str(error).splitlines()[0]}; give a JSON or YAML file") from None
    if not isinstance(found, dict):
        raise BadInput(f"--runtime-env {file} holds no object; see Ray's runtime environments")
    return found


def _object(flag: str, text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text) if text is not None else {}
    except ValueError as error:
        raise BadInput(f'{flag} is not valid JSON ({error}); write it like \'{{"key": "value"}}\'') from None
    if not isinstance(found, dict):
        raise BadInput(f'{flag} is no JSON object; write it like \'{{"key": "value"}}\'')
    return found
