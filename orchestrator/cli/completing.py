"""``callboard completion``: the script that makes a shell complete commands, options, runs, targets and models."""

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

from orchestrator.cli import options

VARIABLE = "_CALLBOARD_COMPLETE"
"""Set by the script of a shell that asks for completions."""

_SHELLS = ("bash", "zsh", "fish")
_HELP = """Print the script that makes a shell complete commands, options, runs, teams and models.

\b
bash  add to ~/.bashrc:
        eval "$(callboard completion bash)"
zsh   add to ~/.zshrc, after compinit:
        eval "$(callboard completion zsh)"
fish  callboard completion fish > ~/.config/fish/completions/callboard.fish
"""


@add_completion_class
class _Bash(BashComplete):
    """Bash breaks words at ``:`` and ``=``: here they are one word again, and what it keeps of the word is left out of the candidates."""

    _standing = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        joining = broken = False
        for word in (*args, incomplete):
            breaks = bool(words) and (word == ":" or (word == "=" and words[-1].startswith("-")))
            broken = breaks or joining
            if broken:
                words[-1] += word
            else:
                words.append(word)
            joining = breaks
        value = words[-1].partition("=")[2] if words[-1].startswith("-") else words[-1]
        self._standing = value[: value.rfind(":") + 1] if broken else ""
        return words[:-1], words[-1]

    def format_completion(self, item: "CompletionItem[str]") -> str:
        return f"{item.type},{item.value.removeprefix(self._standing)}"


@click.command(
    help=_HELP,
    short_help="Print the script that completes commands in a shell.",
    epilog=options.examples(*(f"callboard completion {shell}" for shell in _SHELLS)),
)
@click.argument("shell", type=click.Choice(_SHELLS))
@options.debug
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script for this shell."""
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root()
    click.echo(found(root.command, {}, root.info_name or "callboard", VARIABLE).source())
    return 0
