"""The norm of two numbers: its definition, silence, precision, and its name."""

from __future__ import annotations

import pytest
import torch

from longconv import create_mixer
from longconv.mixers.norms import ScalarLayerNorm
from tests.tolerances import assert_close


def build() -> ScalarLayerNorm:
    norm = ScalarLayerNorm().double()
    torch.nn.init.constant_(norm.s, 1.5)
    torch.nn.init.constant_(norm.m, 0.25)
    return norm


def test_definition() -> None:
    """With the deviation of all features, not of one less, and nothing added to it."""
    norm, y = build(), torch.randn(3, 7, 5, dtype=torch.float64)
    centred = y - y.mean(-1, keepdim=True)
    want = 1.5 * (centred + 0.25) / centred.square().mean(-1, keepdim=True).sqrt()
    assert_close(norm(y), want)
    torch.nn.init.zeros_(norm.m)
    assert_close(norm(1e-9 * y), norm(y))
    assert torch.autograd.gradcheck(build(), y[0].requires_grad_())


def test_equal_features() -> None:
    """Zeros with finite gradients, as of a sequence that begins with silence."""
    norm, y = build(), torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]], dtype=torch.float64).requires_grad_()
    out = norm(y)
    out.square().sum().backward()
    assert out[0].abs().max() == 0 and out[1].abs().min() > 0
    assert all(part.grad is not None and part.grad.isfinite().all() for part in (y, norm.s, norm.m))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_precision(dtype: torch.dtype) -> None:
    """Statistics in single precision at least, whatever the parameters are in."""
    norm, y = build(), torch.randn(7, 64).add(2).to(dtype)
    out = build().to(dtype)(y)
    assert out.dtype == dtype
    assert_close(out.double(), norm(y.double()), 4 * torch.finfo(dtype).eps)


def test_names() -> None:
    mixer = create_mixer("sgconv", 4, norm="scalar_layer")
    assert {"norm.s", "norm.m"} <= set(mixer.state_dict())
    with pytest.raises(ValueError, match="^norm is 'scalar'.*'layer', 'scalar_layer'; did you mean 'scalar_layer'"):
        create_mixer("sgconv", 4, norm="scalar")
