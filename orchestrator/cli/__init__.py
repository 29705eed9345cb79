"""The command line. Each command's module is imported when it is used, so that ``--help`` and ``runs`` answer at once."""

from orchestrator.cli.command import main

__all__ = ["main"]
