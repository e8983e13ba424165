"""The processes that cases of several ranks start end with the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench import ranks


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    yield
    ranks.close()
