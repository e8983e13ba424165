"""The chooser of backends."""

from __future__ import annotations

import logging

import pytest

from longconv.ops import _registry
from longconv.ops._registry import Backend, Backends


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Backends:
    monkeypatch.setattr(_registry, "ALL", {})
    return Backends(
        "double",
        [
            Backend("gpu", lambda x: 2 * x, available=lambda: "no GPU"),
            Backend("even", lambda x: x + x, supports=lambda x: None if x % 2 == 0 else f"{x} is odd"),
            Backend("plain", lambda x: 2 * x),
            Backend("slow", lambda x: x * 2, auto=False),
        ],
    )


def test_auto_takes_the_first_that_supports_the_call(backends: Backends) -> None:
    assert backends.choose("auto", 4).name == "even"
    assert backends.choose("auto", 3).name == "plain"


def test_auto_passes_over_what_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "ALL", {})
    large = Backend("large", lambda x: 2 * x, slower=lambda x: None if x > 9 else f"{x} is small")
    both = Backends("double", [large, Backend("plain", lambda x: 2 * x)])
    assert [both.choose("auto", x).name for x in (10, 9)] == ["large", "plain"]
    assert both.choose("large", 9).name == "large"


def test_auto_logs_once_what_it_took_and_why(backends: Backends, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="longconv"):
        for _ in range(3):
            backends.choose("auto", 3)
            backends.choose("auto", 5)  # refused by the same backend, in other words
    assert [r.getMessage() for r in caplog.records] == ["double: backend plain (refused: gpu: no GPU; even: 3 is odd)"]


def test_a_named_backend_serves_or_gives_the_reason(backends: Backends) -> None:
    assert backends.choose("slow", 3).name == "slow"
    with pytest.raises(ValueError, match="double: backend 'even' can't serve this call: 3 is odd"):
        backends.choose("even", 3)
    with pytest.raises(ValueError, match="backend is 'plian'.*did you mean 'plain'"):
        backends.choose("plian", 3)


def test_no_backend_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "ALL", {})
    alone = Backends("double", [Backend("gpu", abs, available=lambda: "no GPU")])
    with pytest.raises(ValueError, match=r"no backend can serve this call \(gpu: no GPU\)"):
        alone.choose("auto", 1)


def test_status(backends: Backends) -> None:
    assert backends.status() == {"gpu": "no GPU", "even": None, "plain": None, "slow": None}
    assert list(_registry.ALL) == ["double"]
