"""Ends what a process left behind when it died. Run as a program of its own, one for each process that runs programs.

Its standard input says which process groups are at work (``+GROUP``) and which have ended (``-GROUP``), a line each. When that ends, or
the process that its argument names has, whatever is still there is killed. It leaves its parent at once, because whoever ends that
process may end its children first. It imports nothing of ours, so that it starts in some milliseconds.
"""

import os
import select
import signal
import sys
from contextlib import suppress

LOOK_SECONDS = 1.0
"""How often it looks whether that process lives: a forked child may hold the other end of the pipe open."""


def main() -> None:
    """Listen until nobody is there any more, then kill."""
    watched, groups, rest = int(sys.argv[1]), set[int](), b""
    if os.fork():
        os._exit(0)
    ended = _end_of(watched)
    while True:
        if 0 in select.select([0, *ended], [], [], LOOK_SECONDS)[0]:
            said = os.read(0, 65_536)
            if not said:
                break
            *lines, rest = (rest + said).split(b"\n")
            for line in lines:
                change = groups.add if line.startswith(b"+") else groups.discard
                change(int(line[1:]))
        elif not _lives(watched, ended):
            break
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _end_of(watched: int) -> list[int]:
    """What can be read once that process has ended, where the system has such a thing."""
    with suppress(OSError, AttributeError):
        return [os.pidfd_open(watched)]
    return []


def _lives(watched: int, ended: list[int]) -> bool:
    if ended:
        return not select.select(ended, [], [], 0)[0]
    with suppress(ProcessLookupError):
        os.kill(watched, 0)
        return True
    return False


if __name__ == "__main__":
    main()
