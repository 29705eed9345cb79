"""Every benchmark runs, tiny and without Ray; what they find is for ``python -m tests.bench``."""

import asyncio

import pytest

from tests.bench.cases import CASES, TINY


@pytest.mark.parametrize("name", CASES)
def test_every_case_fills_rows_of_the_table(name: str) -> None:
    async def rows() -> list[str]:
        return [str(row) async for row in CASES[name](TINY)]

    for row in asyncio.run(rows()):
        assert row.startswith(f"| {name[:3]}")
        assert row.count("|") == 5
