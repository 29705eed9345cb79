"""Identifiers: how runs, tasks and hosts are named."""

import re
import secrets
import time
import zlib

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+/-]{0,199}\Z")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
LAST = "last"
ROLE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,49}\Z")


def new_run_id() -> str:
    """A run id that sorts by creation time: seven base-32 characters of seconds, then five random ones."""
    seconds, stamp = int(time.time()), ""
    for _ in range(7):
        seconds, digit = divmod(seconds, 32)
        stamp = _ALPHABET[digit] + stamp
    return f"run-{stamp}-{''.join(secrets.choice(_ALPHABET) for _ in range(5))}"


def share(run_id: str, count: int) -> int:
    """Which of ``count`` coordinators a run belongs to: always the same one, in every process."""
    return zlib.crc32(run_id.encode()) % count


def is_run_id(text: str) -> bool:
    """Whether ``text`` may name a run: up to 100 characters, letters, digits and ``._-``, and not ``last``, which means the newest one."""
    return RUN_ID.match(text) is not None and text != LAST


def is_task_id(text: str) -> bool:
    """Whether ``text`` may name a task: up to 200 characters, letters, digits and ``._:@+/-``."""
    return TASK_ID.match(text) is not None


def is_user_name(text: str) -> bool:
    """Whether ``text`` may name whom a run is for: up to 200 characters that can be printed, not all of them blank."""
    return bool(text.strip()) and len(text) <= 200 and text.isprintable()


def is_role_name(text: str) -> bool:
    """Whether ``text`` may name a role: up to 50 lower-case characters, digits, ``_`` and ``-``."""
    return ROLE_NAME.match(text) is not None
