"""Callboard's own folder on this machine."""

import os
from pathlib import Path

from protocols.failures import BadInput


def home_folder() -> Path:
    """Where journals, models and what is known of a cluster are kept: ``$CALLBOARD_HOME``, else ``~/.callboard``. Not created by asking.

    The path is absolute. Raises ``BadInput`` when there is no home folder to begin with.
    """
    try:
        return Path(os.environ.get("CALLBOARD_HOME") or "~/.callboard").expanduser().absolute()
    except RuntimeError:
        raise BadInput("the home folder can't be found; set CALLBOARD_HOME to a folder that you can write to") from None
