"""The activations that an op can end with, and their derivatives in functions that autograd knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Activation(NamedTuple):
    """A function of one variable, and ``pull_back(dy, z)``: dy times its derivative at z."""

    function: Callable[[Tensor], Tensor]
    pull_back: Callable[[Tensor, Tensor], Tensor]


def _silu(dy: Tensor, z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return dy * torch.addcmul(s, z * s, 1 - s)


def _tanh(dy: Tensor, z: Tensor) -> Tensor:
    return dy * (1 - torch.tanh(z).square())


def _sigmoid(dy: Tensor, z: Tensor) -> Tensor:
    y = torch.sigmoid(z)
    return dy * y * (1 - y)


ACTIVATIONS = {
    "silu": Activation(F.silu, _silu),
    "gelu": Activation(F.gelu, torch.ops.aten.gelu_backward),
    "relu": Activation(F.relu, lambda dy, z: dy * (z > 0)),
    "tanh": Activation(torch.tanh, _tanh),
    "sigmoid": Activation(torch.sigmoid, _sigmoid),
}
"""By the name that ``activation=`` takes."""
