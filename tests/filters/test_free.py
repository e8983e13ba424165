"""Free filters: smoothing, squashing, dropout, both initialisations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from longconv.filters import FreeFilter, smooth, smooth_frequency, squash
from tests.tolerances import assert_close


@pytest.mark.parametrize("window", [1, 3, 7, 9])
@pytest.mark.parametrize("length", [1, 2, 20, 21])
def test_smooth_is_a_convolution(length: int, window: int) -> None:
    k = torch.randn(2, 3, length, dtype=torch.float64)
    want = np.stack([np.convolve(row, np.ones(window) / window, "full") for row in k.flatten(0, 1).numpy()])
    want = want[:, window // 2 : window // 2 + length].reshape(2, 3, length)
    assert_close(smooth(k, window), torch.from_numpy(want))


@pytest.mark.parametrize("window", [1, 3, 7])
@pytest.mark.parametrize("length", [2, 20, 21])
def test_smooth_frequency_is_a_convolution_of_the_spectrum(length: int, window: int) -> None:
    k = torch.randn(3, length, dtype=torch.float64)
    shape = np.exp(-((np.arange(window) - window // 2) ** 2) / 2)
    rows = np.stack([np.convolve(row, shape, "full") for row in np.fft.rfft(k.numpy())])
    want = np.fft.irfft(rows[:, window // 2 : window // 2 + length // 2 + 1], length)
    assert_close(smooth_frequency(k, window), torch.from_numpy(want))


def test_squash_minimises_its_proximal_objective() -> None:
    """argmin_x (x - k)^2 / 2 + lambda |x|, by a fine grid."""
    k, grid = torch.linspace(-2, 2, 41, dtype=torch.float64), torch.linspace(-3, 3, 60001, dtype=torch.float64)
    objective = (grid - k[:, None]).square() / 2 + 0.5 * grid.abs()
    assert (squash(k, 0.5) - grid[objective.argmin(1)]).abs().max() < 1e-4


@pytest.mark.parametrize("window", [3, 5])
def test_gradcheck(window: int) -> None:
    k = torch.randn(1, 2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: squash(smooth(k, window), 0.1), k)
    assert torch.autograd.gradcheck(lambda k: smooth_frequency(k, window), k)


@pytest.mark.parametrize("smoothing", [None, "time", "frequency"])
def test_module_smooths_then_squashes(smoothing: str | None) -> None:
    taps = FreeFilter(3, 2, l_max=20, init="double_exp", smoothing=smoothing, smooth_window=3).double()
    k = {None: taps.weight, "time": smooth(taps.weight, 3), "frequency": smooth_frequency(taps.weight, 3)}[smoothing]
    want = squash(k, 0.003)
    assert 0 < (want == 0).double().mean() < 0.5
    assert_close(taps(20), want)
    assert_close(taps(7), want[..., :7])
    assert_close(taps(30), nn.functional.pad(want, (0, 10)))


@pytest.mark.parametrize(("smoothing", "reach"), [(None, 0), ("time", 2)])
def test_a_short_filter_reads_no_more_parameters_than_it_needs(smoothing: str | None, reach: int) -> None:
    taps = FreeFilter(2, l_max=50, smoothing=smoothing, smooth_window=5)
    with torch.no_grad():
        taps.weight[..., 7 + reach :] = torch.nan
    assert taps(7).isfinite().all()
    with pytest.raises(ValueError, match=r"^weight\[0, 0, \d+\] is nan, expected finite values"):
        taps(8)


def test_dropout_drops_taps_in_training_alone() -> None:
    taps = FreeFilter(8, l_max=1000, threshold=0.0, filter_dropout=0.25)
    k = taps(1000)
    dropped = k == 0
    assert 0.2 < dropped.double().mean() < 0.3
    assert_close(k[~dropped], taps.weight[~dropped] / 0.75)
    assert torch.equal(taps.eval()(1000), taps.weight)


def test_initialisations() -> None:
    assert_close(FreeFilter(64, l_max=1000).weight.std(), torch.tensor(0.002), 0.05)
    H, L = 64, 1000
    size = FreeFilter(H, 8, l_max=L, init="double_exp").weight
    decay = torch.exp(-torch.arange(L) / L * (H // 2) ** (torch.arange(H) / H)[:, None])
    assert_close((size / decay).std((0, 2)), torch.full((H,), 0.02), 0.05)


def test_bad_arguments() -> None:
    k = torch.zeros(1, 1, 5)
    with pytest.raises(ValueError, match="window is 4, expected an odd number"):
        smooth(k, 4)
    with pytest.raises(ValueError, match="window is 0"):
        smooth_frequency(k, 0)
    with pytest.raises(ValueError, match="threshold is -1"):
        squash(k, -1.0)
    for options, message in [
        ({"init": "randm"}, "did you mean 'random'"),
        ({"smoothing": "both"}, "smoothing is 'both'"),
        ({"smooth_window": 2}, "window is 2"),
        ({"filter_dropout": 1.5}, "filter_dropout is 1.5"),
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"l_max": 0}, "l_max is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            FreeFilter(2, **options)  # type: ignore[arg-type]
