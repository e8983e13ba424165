"""Settings of the whole suite: seeded, on one thread, and with uninitialised memory filled with NaN."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import torch


class _TorchRandom:
    """torch's generator by the names of ``random.Random``: every example of hypothesis draws the same numbers again."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_torch_random = _TorchRandom()  # hypothesis keeps a weak reference
hypothesis.register_random(_torch_random)


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    """Seed torch, and let every ``torch.empty`` be NaN, so that an output that is not written fails a comparison."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)  # Lightning's strategies for several processes set another number


def pytest_configure(config: pytest.Config) -> None:
    """Tests run on one thread each; those of the threads themselves set their number."""
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests, with the reason, where there is no GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
