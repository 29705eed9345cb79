"""Ends what a process left behind when it died. Run as a program of its own, one for each process that runs programs.

Its standard input says which process groups are at work (``+GROUP``) and which have ended (``-GROUP``), a line each. When that ends, or
its parent has, whatever is still there is killed. It imports nothing of ours, so that it starts in some milliseconds.
"""

import os
import select
import signal
from contextlib import suppress

LOOK_SECONDS = 1.0
"""How often it looks whether its parent lives: a forked child may hold the other end of the pipe open."""


def main() -> None:
    """Listen until nobody is there any more, then kill."""
    parent, groups, rest = os.getppid(), set[int](), b""
    while os.getppid() == parent:
        if not select.select([0], [], [], LOOK_SECONDS)[0]:
            continue
        said = os.read(0, 65_536)
        if not said:
            break
        *lines, rest = (rest + said).split(b"\n")
        for line in lines:
            change = groups.add if line.startswith(b"+") else groups.discard
            change(int(line[1:]))
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
