"""The trained transform of long_conv: it starts as the convolution, and is trained to more than one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import create_mixer, distill, fft_conv
from longconv.mixers import LongConv
from longconv.mixers.butterfly import ButterflyConvolution
from longconv.models import optimizer_groups
from tests.tolerances import assert_close


def signal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def created(size: int, dtype: torch.dtype = torch.float64) -> ButterflyConvolution:
    """With the DFT in the precision of its dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return ButterflyConvolution(size)
    finally:
        torch.set_default_dtype(before)


def moved(module: ButterflyConvolution, scale: float = 0.3) -> ButterflyConvolution:
    """The same with other matrices, as training leaves them."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.add_(scale * signal(*parameter.shape, seed=i))
    return module


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
@pytest.mark.parametrize(
    ("size", "length", "taps"),
    [(1, 5, 1), (2, 3, 2), (4, 7, 3), (16, 16, 16), (17, 31, 17), (20, 100, 20), (32, 9, 40), (1024, 1009, 1024)],
)
def test_it_starts_as_the_convolution(size: int, length: int, taps: int, dtype: torch.dtype, tolerance: float) -> None:
    """Of any length, odd and prime ones and those of many blocks, one way and both ways."""
    convolve = created(size, dtype)
    x, k = signal(2, 3, length), signal(3, taps, seed=1)
    used = k[:, : convolve.size]
    assert_close(convolve(x.to(dtype), k.to(dtype)), fft_conv(x, used), tolerance)
    if size > 1:
        k_reverse = signal(3, min(taps, convolve.size - 1), seed=2)
        want = fft_conv(x, used, k_reverse=k_reverse)
        assert_close(convolve(x.to(dtype), k.to(dtype), k_reverse.to(dtype)), want, tolerance)


def dense(convolve: ButterflyConvolution, x: Tensor, k: Tensor) -> Tensor:
    """One block by the whole matrices, number by number as the definition has it."""
    N1, N2 = convolve.analysis_twiddles.shape[:2]
    n1, n2 = torch.arange(convolve.size) // N2, torch.arange(convolve.size) % N2
    parts = {name: torch.view_as_complex(p.detach()) for name, p in convolve.named_parameters()}
    analysis = torch.zeros(convolve.size, convolve.size, dtype=torch.complex128)
    synthesis = analysis.clone()
    for m in range(convolve.size):  # the spectrum's (m_1, m_2) stands at m_1 N_2 + m_2
        m1, m2 = divmod(m, N2)
        E1, W, E2 = parts["analysis_1"], parts["analysis_twiddles"], parts["analysis_2"]
        analysis[m] = E1[m1, n1] * W[m1, n2] * E2[n2, m2]
        G1, V, G2 = parts["synthesis_1"], parts["synthesis_twiddles"], parts["synthesis_2"]
        synthesis[:, m] = G1[n1, m1] * V[m1, n2] * G2[m2, n2]
    assert convolve.size == N1 * N2
    spectra = [F.pad(t, (0, convolve.size - t.shape[-1])).to(torch.complex128) @ analysis.mT for t in (x, k)]
    return (convolve.size**0.5 * (spectra[0] * spectra[1]) @ synthesis.mT).real


@pytest.mark.parametrize("size", [2, 8, 16])
def test_the_equation_with_any_matrices(size: int) -> None:
    convolve = moved(created(size))
    x, k = signal(2, 3, size), signal(3, size, seed=1)
    assert_close(convolve(x, k), dense(convolve, x, k), 1e-13)
    assert (convolve(x, k) - fft_conv(x, k)).norm() > 0.1 * fft_conv(x, k).norm()


def test_a_row_of_many_blocks() -> None:
    """Every block adds to its own outputs and to those of the next, whatever stands before it."""
    convolve = moved(created(8))
    x, k = signal(1, 2, 29), signal(2, 8, seed=1)
    parts = [F.pad(x[..., i : i + 8], (i, max(0, 29 - i - 8))) for i in range(0, 29, 8)]
    assert_close(convolve(x, k), torch.stack([convolve(part, k) for part in parts]).sum(0), 1e-13)
    first = convolve(parts[0], k)
    assert first[..., 8:16].norm() > 0.1 * first.norm() and not first[..., 16:].any()
    assert_close(convolve(F.pad(x, (0, 20)), k)[..., :29], convolve(x, k), 1e-13)


@pytest.mark.parametrize("both_ways", [False, True])
def test_gradcheck(both_ways: bool) -> None:
    convolve = moved(created(4))
    x, k = signal(1, 2, 7).requires_grad_(), signal(2, 3, seed=1).requires_grad_()
    k_reverse = [signal(2, 3, seed=2).requires_grad_()] * both_ways
    names = [name for name, _ in convolve.named_parameters()]

    def call(x: Tensor, k: Tensor, *rest: Tensor) -> Tensor:
        matrices = dict(zip(names, rest[len(k_reverse) :], strict=True))
        return torch.func.functional_call(convolve, matrices, (x, k, *rest[: len(k_reverse)]))

    assert torch.autograd.gradcheck(call, (x, k, *k_reverse, *convolve.parameters()))


def test_training_finds_a_permuted_convolution() -> None:
    """Outputs in another order, which no convolution gives: the trained transform does, the fixed one can't."""
    torch.manual_seed(0)
    size = 16
    order = torch.arange(size).view(4, 4)[[2, 0, 3, 1]].flatten()
    k = signal(1, size, seed=1) * 0.8 ** torch.arange(size)

    def left(matrices: bool) -> float:
        """The part of the target that is left after training, on samples that were not trained on."""
        convolve = created(size).requires_grad_(matrices)
        taps = torch.nn.Parameter(k.clone())
        parameters = [taps, *(convolve.parameters() if matrices else ())]
        optimizer = torch.optim.Adam(parameters, lr=0.02)
        for step in range(600):
            for group in optimizer.param_groups:
                group["lr"] = 0.02 * (1 - step / 600)
            x = signal(64, 1, size, seed=100 + step)
            loss = (convolve(x, taps) - fft_conv(x, k)[..., order]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        x = signal(256, 1, size, seed=99)
        want = fft_conv(x, k)[..., order]
        with torch.no_grad():
            return ((convolve(x, taps) - want).norm() / want.norm()).item()

    assert left(matrices=False) > 0.5
    assert left(matrices=True) < 0.02


def test_the_mixer() -> None:
    """It starts as the mixer of the same taps; what is learned is checkpointed; lengths hold for any matrices."""
    torch.manual_seed(0)
    plain = create_mixer("long_conv", 3, l_max=16, channels=2, bidirectional=True).double()
    learned = create_mixer("long_conv", 3, l_max=16, channels=2, bidirectional=True, transform="butterfly").double()
    missing, unexpected = learned.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("butterfly.") for name in missing)
    u, lengths = signal(3, 70, 3), torch.tensor([70, 33, 5])
    assert_close(learned(u, lengths), plain(u, lengths), 1e-6)  # the DFT was made in float32
    assert isinstance(learned, LongConv) and learned.butterfly is not None
    moved(learned.butterfly)
    y = learned(u, lengths)
    assert (y - plain(u, lengths)).norm() > 1e-3 * y.norm()
    for i, length in enumerate(lengths.tolist()):
        assert_close(y[i : i + 1, :length], learned(u[i : i + 1, :length]), 1e-12)
        assert not y[i, length:].any()
    again = create_mixer("long_conv", 3, l_max=16, channels=2, bidirectional=True, transform="butterfly").double()
    again.load_state_dict(learned.state_dict())
    assert torch.equal(again(u, lengths), y)


def test_matrices_learn_at_the_filters_rate_without_decay() -> None:
    mixer = create_mixer("long_conv", 3, transform="butterfly", filter_lr=0.001)
    assert isinstance(mixer, LongConv) and mixer.butterfly is not None
    _, filters = optimizer_groups(mixer, lr=0.01, weight_decay=0.1)
    assert filters["lr"] == 0.001 and filters["weight_decay"] == 0
    ids = {id(p) for p in filters["params"]}
    assert ids == {id(p) for p in [*mixer.butterfly.parameters(), *mixer.taps.parameters()]}


def test_what_does_not_hold_is_refused() -> None:
    mixer = create_mixer("long_conv", 3, l_max=16, transform="butterfly")
    with pytest.raises(NotImplementedError, match="LongConv can't stream: its transform is trained"):
        mixer.prefill(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="filter is a LongConv, expected one that streams: its transform is trained"):
        distill(mixer, 2)
    with pytest.raises(ValueError, match="transform is 'butterfyl'.*did you mean 'butterfly'"):
        create_mixer("long_conv", 3, transform="butterfyl")
    with pytest.raises(ValueError, match="lengths go from 0 to 9"):
        mixer(torch.zeros(2, 8, 3), torch.tensor([0, 9]))
    convolve = ButterflyConvolution(4)
    with pytest.raises(ValueError, match=r"k is a \(2, 4\)"):
        convolve(torch.zeros(1, 3, 5), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"x is a \(3, 5\)"):
        convolve(torch.zeros(3, 5), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="size is 0"):
        ButterflyConvolution(0)
