"""``python -m orchestrator.cli``: the same as ``callboard``."""

from orchestrator.cli.command import main

main()
