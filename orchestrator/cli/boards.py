"""``callboard grafana``: write the Grafana board where Ray's provisioning finds it."""

import json
import sys
from pathlib import Path

import click

from orchestrator.cli import options, streams

FOLDER = "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"
"""The variable that tells Ray's head, when it starts, where its boards go; files of others in there it leaves alone."""


@click.command(epilog=options.examples("callboard grafana ~/boards", f"{FOLDER}=~/boards ray start --head"))
@click.argument("folder", metavar="[DIR]", required=False, envvar=FOLDER, type=click.Path(file_okay=False, path_type=Path))
@options.as_json
@options.debug
def grafana(folder: Path | None, as_json: bool) -> int:
    """Write the Grafana board of Callboard's metrics to DIR.

    Start Ray's head with RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR set to the same DIR, and a Grafana that uses Ray's provisioning shows
    the board beside Ray's own. Without DIR that variable says where.
    """
    from orchestrator.observe.grafana import FILE, board
    from protocols.failures import BadInput

    if folder is None:
        raise BadInput(f"say where the board goes: `callboard grafana DIR`, or set {FOLDER}")
    path = folder.expanduser() / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(board(), indent=2) + "\n")
    except OSError as error:
        raise BadInput(f"the board can't be written to {path} ({error.strerror}); name a folder that can be written") from None
    if as_json:
        streams.write_json({"path": str(path)}, sys.stdout)
    else:
        click.echo(path)
    return 0
