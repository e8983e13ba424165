"""The processes of all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.distributed.processes import Processes


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Four of them, as groups of up to four."""
    started = Processes(4)
    yield started
    started.close()
