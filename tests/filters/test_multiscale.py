"""Multi-scale filters against a loop over taps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from longconv.filters import MultiscaleFilter, multiscale_filter
from tests.tolerances import assert_close

C, H, d, S = 2, 3, 4, 4
DECAY = torch.tensor([1.5, 2.0, 3.0], dtype=torch.float64)


def weights() -> list[Tensor]:
    return [torch.randn(C, H, d, dtype=torch.float64) for _ in range(S)]


def stretch(weight: Tensor, factor: int, nearest: bool) -> Tensor:
    """Tap j of the stretched filter sits at (j + 1/2) / factor - 1/2 of the short one."""
    taps = []
    for j in range(weight.shape[-1] * factor):
        if nearest:
            taps.append(weight[..., j // factor])
            continue
        position = min(max((j + 0.5) / factor - 0.5, 0), weight.shape[-1] - 1)
        left = math.floor(position)
        right = min(left + 1, weight.shape[-1] - 1)
        taps.append(weight[..., left] * (left + 1 - position) + weight[..., right] * (position - left))
    return torch.stack(taps, -1)


def direct(parts: list[Tensor], decay: Tensor, mode: str, init_scale: int = 0) -> Tensor:
    whole = torch.zeros(C, H, 0, dtype=torch.float64)
    for i, part in enumerate(parts):
        doublings = init_scale + (i if mode == "sum" else max(0, i - 1))
        piece = stretch(part, 2**doublings, mode == "nearest")
        if mode != "learnable":
            piece = piece * decay[:, None] ** (S - 1 - i)
        if mode == "sum":
            total = torch.zeros_like(piece)
            total[..., : whole.shape[-1]] = whole
            whole = total + piece
        else:
            whole = torch.cat([whole, piece], -1)
    if mode == "learnable":
        whole = whole * torch.arange(1, whole.shape[-1] + 1) ** -decay[:, None]
    return whole


@pytest.mark.parametrize("init_scale", [0, 1])
@pytest.mark.parametrize("mode", ["linear", "nearest", "sum", "cos", "learnable"])
def test_every_mode(mode: str, init_scale: int) -> None:
    parts = weights()
    want = direct(parts, DECAY, mode, init_scale)
    total = d * 2 ** (S - 1 + init_scale)
    assert want.shape[-1] == total
    for length in (1, 5, total, total + 7):
        padded = torch.nn.functional.pad(want, (0, max(0, length - total)))[..., :length]
        arguments = (parts, length, DECAY, mode)
        assert_close(multiscale_filter(*arguments, False, init_scale=init_scale), padded)
        unit = padded / want.norm(dim=-1, keepdim=True)
        assert_close(multiscale_filter(*arguments, init_scale=init_scale), unit)
        norm = torch.rand(C, H, 1, dtype=torch.float64) + 1
        assert_close(multiscale_filter(*arguments, norm, init_scale=init_scale), padded / norm)


def test_decay_as_a_number() -> None:
    parts = weights()
    assert_close(multiscale_filter(parts, 20, 2.0), multiscale_filter(parts, 20, torch.full((H,), 2.0)))


@pytest.mark.parametrize("mode", ["linear", "nearest", "sum", "learnable"])
def test_gradcheck(mode: str) -> None:
    parts = [torch.randn(1, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    decay = DECAY[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda decay, *parts: multiscale_filter(parts, 7, decay, mode), (decay, *parts))


@pytest.mark.parametrize("mode", ["linear", "nearest", "sum", "cos", "learnable"])
def test_module(mode: str) -> None:
    """Unit norm at construction, fixed afterwards; as many scales as l_max needs; no tap from l_max on."""
    taps = MultiscaleFilter(8, 2, kernel_dim=4, l_max=50, mode=mode)
    assert len(taps.weights) == 5
    k = taps(100)
    assert (k[..., 50:] == 0).all()
    whole = multiscale_filter(list(taps.weights), 64, taps.decay, mode)
    assert_close(k[..., :50], whole[..., :50])
    with torch.no_grad():
        for weight in taps.weights:
            weight.mul_(3)
    assert_close(taps(100), 3 * k)
    assert "norm" in taps.state_dict()


@pytest.mark.parametrize(("mode", "finite"), [("linear", 8), ("nearest", 8), ("learnable", 8), ("sum", 4)])
def test_a_short_filter_reads_no_more_parameters_than_it_needs(mode: str, finite: int) -> None:
    """The first 8 taps lie in the first two of four sub-filters, but in the sum every one of them reaches tap 0."""
    taps = MultiscaleFilter(3, kernel_dim=4, l_max=32, mode=mode)
    with torch.no_grad():
        for weight in list(taps.weights)[2:]:
            weight[..., 2 if mode == "sum" else 0 :] = torch.nan
    k = taps(finite)
    assert k.isfinite().all()
    with pytest.raises(ValueError, match=r"^weights\.[123]\[.*\] is nan, expected finite values"):
        taps(32)
    gradients = torch.autograd.grad(k.square().sum(), list(taps.weights))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_decay_range() -> None:
    assert_close(MultiscaleFilter(3, decay_min=1.0, decay_max=3.0).decay, torch.tensor([1.0, 2.0, 3.0]))
    trained = MultiscaleFilter(100, decay_min=1.0, decay_max=3.0, mode="learnable").decay
    assert isinstance(trained, torch.nn.Parameter)
    assert trained.min() >= 1 and trained.max() <= 3 and trained.std() > 0.3
    torch.manual_seed(0)
    fixed = MultiscaleFilter(100, decay_min=1.0, decay_max=3.0, mode="learnable", trainable_decay=False)
    torch.manual_seed(0)
    assert torch.equal(
        fixed.decay, MultiscaleFilter(100, decay_min=1.0, decay_max=3.0, mode="learnable").decay.detach()
    )
    assert "decay" in fixed.state_dict() and "decay" not in dict(fixed.named_parameters())


def test_dropout() -> None:
    """Taps are dropped one by one while training, and the mean stays."""
    torch.manual_seed(0)
    taps = MultiscaleFilter(4, kernel_dim=4, l_max=32, filter_dropout=0.25)
    dropped, whole = torch.stack([taps(32) for _ in range(4000)]), taps.eval()(32)
    assert abs((dropped == 0).double().mean() - 0.25) < 0.01
    assert_close(dropped.mean(0), whole, 0.05)


def test_l_max_below_a_sub_filter() -> None:
    assert MultiscaleFilter(2, kernel_dim=64, l_max=1)(3).shape == (1, 2, 3)


def test_bad_arguments() -> None:
    parts = weights()
    for arguments, error, message in [
        (([], 5, 2.0), ValueError, "weights is empty"),
        (([parts[0], parts[1][..., :2]], 5, 2.0), ValueError, r"weights\[1\] is a \(2, 3, 2\)"),
        ((parts, 5, 2.0, "linaer"), ValueError, "did you mean 'linear'"),
        ((parts, 5, 0.0), ValueError, "decay is 0"),
        ((parts, 5, torch.ones(4)), ValueError, r"decay is a \(4,\)"),
        ((parts, 5, 2.0, "linear", torch.ones(3, 1)), ValueError, r"norm is a \(3, 1\)"),
        ((parts, 5, 2.0, "linear", True), TypeError, "norm is True"),
        ((parts, -1, 2.0), ValueError, "length is -1"),
    ]:
        with pytest.raises(error, match=message):
            multiscale_filter(*arguments)  # type: ignore[arg-type]
