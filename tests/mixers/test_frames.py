"""Networks on single frames against their equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv.mixers.frames import EPS, Feedthrough, FrameGLU, FrameNorm, ResNetBlock, SqueezeExcite
from tests.tolerances import assert_close

FRAMES, U, H, W = 3, 8, 5, 4


def frames(seed: int) -> Tensor:
    return torch.randn(FRAMES, U, H, W, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(module: nn.Module) -> nn.Module:
    """In double precision, with weights of unit scale everywhere, those of norms too."""
    generator = torch.Generator().manual_seed(2)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
    return module


def normed(x: Tensor, norm: FrameNorm) -> Tensor:
    """Over the pixels and features of a group, of one frame at a time."""
    out = torch.empty_like(x)
    for frame in range(len(x)):
        for group in torch.arange(U).chunk(norm.num_groups):
            part = x[frame, group]
            out[frame, group] = (part - part.mean()) / (part.var(correction=0) + EPS).sqrt()
    return out * norm.weight[:, None, None] + norm.bias[:, None, None]


def excited(x: Tensor, excite: SqueezeExcite) -> Tensor:
    mean = x.sum((2, 3)) / (H * W)
    hidden = (mean @ excite.reduce.weight.T + excite.reduce.bias).clamp(min=0)
    weights = 1 / (1 + torch.exp(-(hidden @ excite.expand.weight.T + excite.expand.bias)))
    return torch.einsum("fuhw,fu->fuhw", x, weights)


def conv(x: Tensor, layer: nn.Module) -> Tensor:
    """A centred cross-correlation with zeros around the frame, tap by tap."""
    assert isinstance(layer, nn.Conv2d) and layer.bias is not None
    wide = F.pad(x, (1, 1, 1, 1))
    taps = [
        torch.einsum("fuhw,vu->fvhw", wide[:, :, i : i + H, j : j + W], layer.weight[:, :, i, j])
        for i in range(3)
        for j in range(3)
    ]
    return sum(taps) + layer.bias[:, None, None]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("squeeze_excite", [False, True])
def test_the_feedthrough(groups: int, squeeze_excite: bool) -> None:
    module = shaken(Feedthrough(U, 3, groups, nn.SiLU, squeeze_excite))
    assert isinstance(module, Feedthrough)
    y, u = frames(0), frames(1)
    want = normed(y + conv(u, module.D), module.norm)
    want = want * torch.sigmoid(want)
    if squeeze_excite:
        assert isinstance(module.excite, SqueezeExcite)
        want = excited(want, module.excite)
    assert_close(module(y, u), want)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("squeeze_excite", [False, True])
def test_the_resnet_block(groups: int, squeeze_excite: bool) -> None:
    module = shaken(ResNetBlock(U, 3, groups, nn.SiLU, squeeze_excite))
    assert isinstance(module, ResNetBlock)
    y = frames(0)
    h = y
    for place in (0, 3):
        norm = module.branch[place]
        assert isinstance(norm, FrameNorm)
        h = normed(h, norm)
        h = conv(h * torch.sigmoid(h), module.branch[place + 2])
    if squeeze_excite:
        excite = module.branch[6]
        assert isinstance(excite, SqueezeExcite)
        h = excited(h, excite)
    assert_close(module(y), (y + h) * torch.sigmoid(y + h))


def test_the_gated_unit() -> None:
    module = shaken(FrameGLU(U, nn.SiLU))
    assert isinstance(module, FrameGLU)
    y = frames(0)
    mean, variance = y.mean(1, keepdim=True), y.var(1, correction=0, keepdim=True)
    h = (y - mean) / (variance + EPS).sqrt()
    h = h * module.norm.weight[:, None, None] + module.norm.bias[:, None, None]
    h = h * torch.sigmoid(h)
    gate = torch.einsum("fuhw,vu->fvhw", h, module.gate.gate.weight) + module.gate.gate.bias[:, None, None]
    assert_close(module(y), h * torch.sigmoid(gate))
