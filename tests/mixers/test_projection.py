"""Linear maps to channels and back: against torch, and what their gradients hold in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from longconv.mixers.projection import from_channels, to_channels
from tests.tolerances import assert_close

MAPS = {
    "to": (to_channels, lambda x, w, b: F.linear(x, w, b).mT),
    "from": (from_channels, lambda x, w, b: F.linear(x.mT, w, b)),
}


class Largest(TorchDispatchMode):
    """The numbers in the largest tensor that any operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.numbers = max(self.numbers, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


def arguments(name: str, batch: int, length: int, inputs: int, outputs: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = (batch, length, inputs) if name == "to" else (batch, inputs, length)
    shapes: list[tuple[int, ...]] = [size, (outputs, inputs), (outputs,)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("sizes", [(3, 2, 8, 12), (3, 5, 8, 12), (1, 40, 8, 12)], ids=str)
def test_values_and_gradients(name: str, sizes: tuple[int, int, int, int]) -> None:
    ours, want = MAPS[name]
    given = arguments(name, *sizes)
    y, expected = ours(*given), want(*given)
    assert y.is_contiguous()
    assert_close(y, expected)
    weight = torch.randn_like(expected)
    for got, gradient in zip(
        torch.autograd.grad((y * weight).sum(), given),
        torch.autograd.grad((expected * weight).sum(), given),
        strict=True,
    ):
        assert_close(got, gradient)


@pytest.mark.parametrize("function", [to_channels, from_channels])
def test_short_sequences_have_no_weight_gradient_for_each_sample(function: Callable[..., Tensor]) -> None:
    name, batch, length, width = "to" if function is to_channels else "from", 16, 4, 32
    given = arguments(name, batch, length, width, width)
    with Largest() as largest:
        function(*given).square().sum().backward()
    assert largest.numbers <= max(batch * length * width, width * width) < batch * width * width


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("sizes", [(0, 2, 8, 8), (0, 9, 8, 8), (2, 0, 8, 8)], ids=str)
def test_nothing_at_all(name: str, sizes: tuple[int, int, int, int]) -> None:
    ours, want = MAPS[name]
    given = arguments(name, *sizes)
    y = ours(*given)
    assert y.shape == want(*given).shape
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(y.sum(), given))
