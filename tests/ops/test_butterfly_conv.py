"""``butterfly_conv``: the definition against whole matrices, chunks and panels against it, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.ops import butterfly_conv
from longconv.ops.butterfly_conv import torch_blocks
from longconv.ops.butterfly_conv.operator import BACKENDS
from tests.tolerances import assert_close


def real(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def arguments(n1: int, n2: int, batch: int = 3, channels: int = 2) -> list[Tensor]:
    shapes = 2 * ((n1, n1, 2), (n1, n2, 2), (n2, n2, 2))
    return [real(batch, n1 * n2, channels), real(n1 * n2, channels), *(real(*shape) for shape in shapes)]


def test_the_definition() -> None:
    """Element by element."""
    x, k, *matrices = (t.detach() for t in arguments(3, 2))
    E1, W, E2, G1, V, G2 = map(torch.view_as_complex, matrices)
    analysis, synthesis = torch.zeros(2, 6, 6, dtype=torch.complex128)
    for m in range(6):
        for n in range(6):
            analysis[m, n] = E1[m // 2, n // 2] * W[m // 2, n % 2] * E2[n % 2, m % 2]
            synthesis[n, m] = G1[n // 2, m // 2] * V[m // 2, n % 2] * G2[m % 2, n % 2]
    y = 6**0.5 * synthesis @ ((analysis @ x.to(analysis)) * (analysis @ k.to(analysis)))
    assert_close(butterfly_conv(x, k, *matrices, backend="reference"), y.real)
    assert_close(butterfly_conv(x, k, *matrices, tail=True, backend="reference"), torch.cat((y.real, y.imag), 1))


@pytest.mark.parametrize("numbers", [1, 40, 2**18], ids="chunks of {}".format)
@pytest.mark.parametrize("panel", [1, 48, 2**23], ids="panels of {}".format)
@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (4, 4), (8, 4), (3, 2)], ids=str)
@pytest.mark.parametrize("tail", [False, True])
def test_backends_agree(
    tail: bool, sizes: tuple[int, int], panel: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, some of them alone too."""
    monkeypatch.setattr(torch_blocks, "CHUNK_NUMBERS", numbers)
    monkeypatch.setattr(torch_blocks, "PANEL_NUMBERS", panel)
    given = arguments(*sizes)
    want = butterfly_conv(*given, tail=tail, backend="reference")
    g = torch.randn_like(want)
    gradients = torch.autograd.grad(want, given, g)
    assert_close(butterfly_conv(*given, tail=tail), want)
    for places in (range(8), [0], [1], [0, 1], [4]):
        called = [t if i in places else t.detach() for i, t in enumerate(given)]
        y = butterfly_conv(*called, tail=tail)
        found = torch.autograd.grad(y, [given[i] for i in places], g)
        for i, gradient in zip(places, found, strict=True):
            assert_close(gradient, gradients[i])


@pytest.mark.parametrize("backend", BACKENDS.names()[1:])
def test_gradients_of_gradients(backend: str) -> None:
    def function(*given: Tensor) -> Tensor:
        return butterfly_conv(*given, tail=True, backend=backend)

    given = arguments(2, 2, batch=2, channels=1)
    assert torch.autograd.gradcheck(function, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_any_strides_and_nothing_at_all() -> None:
    x, k, *matrices = arguments(4, 2)
    strided = x.detach().mT.contiguous().mT.requires_grad_()
    want = butterfly_conv(x, k, *matrices)
    assert_close(butterfly_conv(strided, k.mT.contiguous().mT, *matrices), want)
    got = torch.autograd.grad(butterfly_conv(strided, k, *matrices).mT.square().sum(), (strided, k))
    for found, expected in zip(got, torch.autograd.grad(want.square().sum(), (x, k)), strict=True):
        assert_close(found, expected)
    none = real(0, 8, 2)
    y = butterfly_conv(none, k, *matrices, tail=True)
    assert y.shape == (0, 16, 2)
    assert all(not grad.any() for grad in torch.autograd.grad(y.sum(), (k, *matrices)))


def test_wrong_arguments_are_refused() -> None:
    given = [t.detach() for t in arguments(4, 2)]
    for place, wrong, error, message in [
        (0, torch.zeros(3, 9, 2, dtype=torch.float64), ValueError, r"k is a \(8, 2\)"),
        (1, torch.zeros(8, 2), TypeError, r"k is a \(8, 2\) float32"),
        (4, torch.zeros(4, 4, 2, dtype=torch.float64), ValueError, r"analysis_2 is a \(4, 4, 2\)"),
        (6, torch.zeros(4, 2, 1, dtype=torch.float64), ValueError, r"synthesis_twiddles is a \(4, 2, 1\)"),
        (2, None, TypeError, "analysis_1 is None"),
        (7, given[7].to("meta"), ValueError, "synthesis_2 is on meta"),
    ]:
        called: list[Any] = [*given]
        called[place] = wrong
        with pytest.raises(error, match=message):
            butterfly_conv(*called)
    with pytest.raises(ValueError, match=r"x is a \(3, 9, 2\).*N = N_1 N_2"):
        butterfly_conv(torch.zeros(3, 9, 2).double(), torch.zeros(9, 2).double(), *given[2:])
    with pytest.raises(TypeError, match="tail is 1"):
        butterfly_conv(*given, tail=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend"):
        butterfly_conv(*given, backend="cpu")
