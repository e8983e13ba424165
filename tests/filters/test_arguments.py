"""The filters as plain functions refuse what they can't serve, by the argument's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.filters import MultiscaleFilter, diagonal_filter, multiscale_filter, smooth, smooth_frequency, squash
from tests.tolerances import assert_close

META = torch.device("meta")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: smooth(torch.arange(5), 3), TypeError, "k is .*int64"),
        (lambda: smooth("a", 3), TypeError, "k is 'a'"),  # type: ignore[arg-type]
        (lambda: smooth(torch.ones(5), 4), ValueError, "window is 4"),
        (lambda: smooth(torch.ones(5), 3.0), TypeError, "window is 3.0"),  # type: ignore[arg-type]
        (lambda: smooth_frequency(torch.arange(5), 3), TypeError, "k is .*int64"),
        (lambda: squash([1.0], 0.5), TypeError, "k is .*list"),  # type: ignore[arg-type]
        (lambda: squash(torch.ones(3), -1), ValueError, "threshold is -1"),
        (lambda: squash(torch.ones(3), float("inf")), ValueError, r"threshold is inf.*\[0, inf\)"),
    ],
)
def test_smoothing_and_squashing(call: Callable[[], Tensor], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("function", [smooth, smooth_frequency])
@pytest.mark.parametrize("shape", [(2, 0), (0, 5)])
def test_smoothing_of_nothing(function: Callable[..., Tensor], shape: tuple[int, int]) -> None:
    k = torch.zeros(shape, requires_grad=True)
    y = function(k, 3)
    y.sum().backward()
    assert y.shape == shape and k.grad is not None and k.grad.shape == shape


def system(**change: Any) -> dict[str, Any]:
    return {
        "Lambda": torch.complex(-torch.ones(2, 3), torch.ones(2, 3)),
        "B": torch.ones(2, 3, dtype=torch.complex64),
        "C": torch.ones(1, 2, 3, dtype=torch.complex64),
        "dt": torch.full((2,), 0.1),
        "length": 8,
        **change,
    }


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        *[({"discretization": "dss", "l_max": n}, ValueError, f"l_max is {n}") for n in (0, -5)],
        *[({"discretization": "dss", "l_max": n}, TypeError, "l_max is ") for n in (2.5, "a", True)],
        ({"dt": torch.tensor([0.1, -0.5])}, ValueError, r"dt\[1\] is -0.5, expected finite, positive"),
        ({"dt": torch.full((2,), 0.1, device=META)}, ValueError, "dt is on meta, but C is on cpu"),
        ({"Lambda": torch.full((2, 3), complex("nan"))}, ValueError, r"Lambda\[0, 0\] is nan"),
        (
            {"Lambda": torch.ones(2, 3, dtype=torch.complex64), "dt": torch.ones(2), "length": 2000},
            ValueError,
            "Lambda has a real part > 0, the system is unstable",
        ),
    ],
)
def test_diagonal_filter(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        diagonal_filter(**system(**change))


def test_diagonal_filter_of_no_taps() -> None:
    for discretization in ("zoh", "bilinear", "dss"):
        assert diagonal_filter(**system(length=0, discretization=discretization)).shape == (1, 2, 0)


WEIGHTS = [torch.ones(1, 2, 4)] * 3


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"decay": torch.tensor([1.0, -2.0])}, ValueError, r"decay\[1\] is -2, expected finite, positive"),
        ({"decay": torch.tensor([0.0, 1.0])}, ValueError, r"decay\[0\] is 0"),
        ({"decay": torch.tensor([1.0, torch.nan])}, ValueError, r"decay\[1\] is nan"),
        ({"decay": torch.ones(2, device=META)}, ValueError, "decay is on meta"),
        ({"decay": torch.ones(2, dtype=torch.int64)}, TypeError, "decay is .*int64"),
        ({"weights": [torch.zeros(1, 2, 4)] * 3}, ValueError, "norm of the filter.* is 0.*all zero"),
        ({"weights": [torch.ones(1, 2, 4), torch.ones(1, 2, 4).double()]}, TypeError, r"weights\[1\] is .*float64"),
        ({"weights": [torch.ones(1, 2, 4), torch.ones(1, 2, 4, device=META)]}, ValueError, r"weights\[1\] is on meta"),
        ({"weights": [torch.ones(1, 2, 0)]}, ValueError, "at least one tap"),
        ({"norm": torch.ones(1, 2, 1, dtype=torch.int64)}, TypeError, "norm is .*int64"),
        ({"norm": torch.ones(1, 2, 1, device=META)}, ValueError, "norm is on meta"),
        ({"norm": torch.zeros(1, 2, 1)}, ValueError, "norm.* is 0"),
        ({"norm": True}, TypeError, "norm is True"),
    ],
)
def test_multiscale_filter(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        multiscale_filter(**{"weights": WEIGHTS, "length": 8, "decay": 2.0, **change})


def test_the_norm_is_of_double_precision() -> None:
    """So that a filter in float64 is that of its weights, and one in float32 stays in float32."""
    taps = MultiscaleFilter(3, l_max=256, kernel_dim=8)
    assert taps(16).dtype == torch.float32
    taps = taps.double()
    assert_close(taps(256).norm(dim=-1), torch.ones(1, 3, dtype=torch.float64))
