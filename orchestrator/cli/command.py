"""The ``callboard`` command: its subcommands, and the one place where errors become sentences and exit codes."""

import difflib
import errno
import importlib
import keyword
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from orchestrator.cli import streams

_SECTIONS = {
    "Run": {
        "run": "running",
        "resume": "resuming",
        "fork": "replaying",
        "cancel": "cancelling",
        "pause": "cancelling",
        "continue": "cancelling",
        "reviews": "reviewing",
        "review": "reviewing",
    },
    "Read runs": {
        "runs": "reading",
        "show": "reading",
        "trace": "tracing",
        "journal": "reading",
        "replay": "replaying",
        "cost": "costing",
        "failures": "failing",
        "prune": "pruning",
    },
    "Cluster": {
        "up": "clustering",
        "down": "clustering",
        "submit": "submitting",
        "grafana": "boards",
    },
    "Set up": {
        "init": "scaffolding",
        "budget": "budgeting",
        "doctor": "doctor",
        "model": "modelling",
        "completion": "completing",
    },
}
"""Each subcommand, under its heading in the help, and the module of this package that defines it under the same name.

Where Python keeps the name to itself, an underscore follows it there.
"""

_COMMANDS = {name: module for section in _SECTIONS.values() for name, module in section.items()}

_EXITS = """\b
Exit codes:
  0    done
  1    failed, or something unexpected
  2    bad input: nothing was started
  3    a budget or deadline ended the run
  4    cancelled
  5    partial: merged, but some tasks failed
  6    the journal could not be read or written
  130  interrupted with Ctrl-C: `callboard resume RUN` goes on
  143  terminated: `callboard resume RUN` goes on
"""


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk says that takes no more."""


class _Callboard(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"orchestrator.cli.{_COMMANDS[cmd_name]}")
        found = getattr(module, f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}; {_nearest(args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _COMMANDS))
        for title, names in _SECTIONS.items():
            found = [(name.ljust(width), command.get_short_help_str(80)) for name in names if (command := self.get_command(ctx, name))]
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)


def _nearest(name: str) -> str:
    if ".py" in name:
        return f"to run a team write: callboard run {name}"
    close = difflib.get_close_matches(name, _COMMANDS, n=1, cutoff=0.75)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(_COMMANDS)}"


@click.group(cls=_Callboard, epilog=_EXITS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="callboard", message="callboard %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error (also after a command).")
def commands() -> None:
    """Runs teams of AI agents, and shows what they did.

    RUN is a run's id, any beginning of it that no other run shares, or `last`.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Carry out one command line (``sys.argv`` without ``arguments``) and exit with its code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    if "_CALLBOARD_COMPLETE" in os.environ:
        importlib.import_module("orchestrator.cli.completing")  # knows how each shell breaks words
    sys.exit(_carry_out(args))


def _carry_out(args: list[str]) -> int:
    try:
        code: Any = commands.main(args=args, prog_name="callboard", standalone_mode=False)
        return int(code or 0)
    except click.Abort:
        return _end(args, 130, "interrupted", "interrupted; nothing was left at work")
    except click.ClickException as error:
        error.show()
        return _end(args, 2, "bad_input", error.format_message(), told=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: the last flush must not complain either
        return 1
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            return _unexpected(args, error)
        return _unwritten(args, error)
    except Exception as error:
        return _unexpected(args, error)


def _unwritten(args: list[str], error: OSError) -> int:
    """Standard output has no room for more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered can't be written either
    kept = "; what a run gave is kept: `callboard show RUN --output` (`callboard runs` lists them)"
    return _end(args, 1, "unwritten", f"the output can't be written ({error.strerror}){kept}")


def _unexpected(args: list[str], error: Exception) -> int:
    from orchestrator.cli import exits
    from orchestrator.observe.figures import clean
    from protocols.failures import CallboardError

    if isinstance(error, CallboardError):
        return _end(args, exits.of_error(error), error.code, str(error))
    # an error that comes from another process ends in its cause, below that process's traceback
    said = clean(f"{type(error).__name__}: {error}".rstrip(": \n").splitlines()[-1].strip())
    missing = ", or `callboard doctor` for what is missing here" if isinstance(error, ImportError) else ""
    return _end(args, 1, "unexpected", f"something unexpected went wrong ({said}); run it again with --debug for the details{missing}")


def _end(args: list[str], code: int, name: str, message: str, *, told: bool = False) -> int:
    if "--debug" in args:
        traceback.print_exc()
    if not told:
        streams.note(f"callboard: {message}")
    if "--json" in args:
        streams.write_json({"error": {"code": name, "message": message}, "exit_code": int(code)}, sys.stdout)
    return int(code)
