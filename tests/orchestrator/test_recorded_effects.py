"""Recorded agents of public benchmarks, with a host killed between their calls: a sample of ``recorded_effects``."""

import asyncio

import pytest

from tests.agents.recorded_runs import DATA, recorded_runs
from tests.orchestrator.recorded_effects import killed, recorded_effects

SAMPLE = 12
EVERY = 5


def test_the_effects_are_the_recorded_ones_wherever_a_host_dies() -> None:
    runs = [run for run in recorded_runs() if len(recorded_effects(run)) > 1]
    if not runs:
        pytest.skip(f"there are no recorded runs in {DATA}; CALLBOARD_TEST_DATA says where they are")
    some = runs[:: len(runs) // SAMPLE]
    peace, trouble, wrong = asyncio.run(killed(list(enumerate(some)), EVERY))
    assert wrong == []
    assert sum(one.lost for one in trouble) >= len(trouble) > 3 * len(peace)
    assert any(one.repeated for one in trouble)
