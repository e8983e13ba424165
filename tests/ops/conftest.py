"""What the tests of ops with native backends share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from longconv import _native


@pytest.fixture(params=[name for name, supported in _native.isas(_native.cpu()).items() if supported])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this processor in turn."""
    before = _native.chosen_isa(_native.cpu())
    assert before is not None
    _native.select_isa(_native.cpu(), request.param)
    yield request.param
    _native.select_isa(_native.cpu(), before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the backend ``cpu``, of every instruction set, or of CUDA kernels on the host, are native."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        on_host = "cuda_on_host" in getattr(item, "fixturenames", ())
        if on_host or "isa" in parameters or parameters.get("backend") == "cpu":
            item.add_marker("native")
