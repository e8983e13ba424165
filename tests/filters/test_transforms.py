"""Fourier and cosine transforms against scipy, of samples of one length and of several."""

from __future__ import annotations

import pytest
import scipy.fft
import torch
from torch import Tensor

from longconv.filters.transforms import TRANSFORMS
from tests.tolerances import RELATIVE_L2, assert_close

SCIPY = {
    "fft": lambda x: scipy.fft.rfft(x, norm="forward"),
    "fft_ortho": lambda x: scipy.fft.rfft(x, norm="ortho"),
    "dct": lambda x: scipy.fft.dct(x, type=2),
    "dct_ortho": lambda x: scipy.fft.dct(x, type=2, norm="ortho"),
    "dct1": lambda x: scipy.fft.dct(x, type=1) if x.shape[-1] > 1 else x,
}
LENGTHS = [1, 2, 3, 7, 8, 101, 128]
every_transform = pytest.mark.parametrize("name", list(TRANSFORMS))


def definition(name: str, x: Tensor) -> Tensor:
    return torch.from_numpy(SCIPY[name](x.double().numpy()))


@every_transform
@pytest.mark.parametrize("length", LENGTHS)
def test_transform_and_inverse(name: str, length: int) -> None:
    transform, x = TRANSFORMS[name], torch.randn(2, 3, length, dtype=torch.float64)
    spectrum = transform.forward(x)
    assert spectrum.shape[-1] == transform.bins(length)
    assert spectrum.is_complex() != transform.is_real
    assert_close(spectrum, definition(name, x))
    assert_close(transform.inverse(spectrum, length), x)


@every_transform
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_lengths_of_their_own(name: str, dtype: torch.dtype) -> None:
    """A padded sample has the transform of what is valid of it, and zeros behind."""
    transform, lengths = TRANSFORMS[name], torch.tensor([101, 64, 2, 1])
    x = torch.randn(4, 3, 101, dtype=dtype).masked_fill((torch.arange(101) >= lengths[:, None])[:, None], 0)
    spectrum = transform.forward(x, lengths)
    back = transform.inverse(spectrum, 101, lengths)
    for i, n in enumerate(lengths.tolist()):
        bins = transform.bins(n)
        assert_close(spectrum[i, :, :bins], definition(name, x[i, :, :n]), RELATIVE_L2[dtype])
        assert (spectrum[i, :, bins:] == 0).all()
        assert_close(back[i, :, :n], x[i, :, :n].double(), RELATIVE_L2[dtype])


@every_transform
def test_inverse_of_any_spectrum(name: str) -> None:
    """Also of one that no real sequence has, and with anything beyond a sample's own bins."""
    transform, lengths = TRANSFORMS[name], torch.tensor([30, 30, 41])
    spectrum = torch.randn_like(transform.forward(torch.randn(3, 2, 41, dtype=torch.float64)))
    found = transform.inverse(spectrum, 41, lengths)
    assert_close(found[:2, :, :30], transform.inverse(spectrum[:2, :, : transform.bins(30)], 30))
    assert_close(found[2:], transform.inverse(spectrum[2:], 41))


@every_transform
def test_gradients(name: str) -> None:
    transform, lengths = TRANSFORMS[name], torch.tensor([6, 3])

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        return transform.inverse(transform.forward(x) ** 2, 6), transform.inverse(transform.forward(x, lengths) ** 2, 6)

    x = torch.randn(2, 1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(both, x)
    assert torch.autograd.gradgradcheck(both, x)


def test_long_prime_length_in_single_precision() -> None:
    """The angles of the chirp stay exact where their number of turns is far beyond single precision."""
    length = 99991
    x = torch.nn.functional.pad(torch.randn(1, 2, length), (0, 9))
    found = TRANSFORMS["fft_ortho"].forward(x, torch.tensor([length]))
    assert_close(found[..., : length // 2 + 1], definition("fft_ortho", x[..., :length]))
