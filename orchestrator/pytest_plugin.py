"""The pytest plugin: rehearsals whose journal stays with the test's files, to be read with ``callboard trace --store`` when one fails."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from orchestrator.testing import ManualClock, Rehearsal


@pytest.fixture
def callboard_store(tmp_path: Path) -> str:
    """The journal of the test's rehearsals, a file."""
    return str(tmp_path / "journal.db")


@pytest.fixture
def rehearse(callboard_store: str) -> "Callable[..., Rehearsal]":
    """``orchestrator.testing.rehearse`` over ``callboard_store``."""
    from orchestrator.testing import rehearse

    return partial(rehearse, store=callboard_store)


@pytest.fixture
def manual_clock() -> "ManualClock":
    """A clock for ``rehearse(…, clock=manual_clock)``, on which nobody waits."""
    from orchestrator.testing import ManualClock

    return ManualClock()
