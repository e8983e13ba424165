"""Networks on single frames: what a video mixer does to an output before it leaves.

Shapes: F frames (batch and time as one axis), U features, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from longconv._checks import check_int
from longconv.mixers.norms import FollowingLayerNorm
from longconv.mixers.s5 import HalfGLU

EPS = 1e-6
"""What is added to a variance; the published value."""
GROUP = 8
"""Features of a group of a norm, the published number."""

Activation = Callable[[], nn.Module]


def group_count(d_model: int, groups: int | None) -> int:
    """The number of groups of a norm over U features; None: groups of 8 features where that can be, else one."""
    if groups is None:
        return 1 if d_model % GROUP else d_model // GROUP
    if d_model % check_int("groups", groups):
        raise ValueError(f"groups is {groups}, expected a divisor of d_model = {d_model}")
    return groups


class FrameNorm(nn.GroupNorm):
    """Group normalisation of single frames in the precision of its parameters, of frames of one pixel too.

    >>> FrameNorm(2, 4)(torch.randn(3, 4, 5, 5)).mean((2, 3)).abs().max() < 1
    tensor(True)
    """

    def __init__(self, groups: int, d_model: int) -> None:
        super().__init__(groups, d_model, eps=EPS)

    def forward(self, y: Tensor) -> Tensor:
        """(F, U, H, W) -> (F, U, H, W), in y's dtype."""
        wide = y.to(self.weight.dtype)
        if torch._C._are_functorch_transforms_active():  # where group_norm asks for a layout that it can't be told
            return self._by_parts(wide).to(y.dtype)
        return torch.group_norm(wide, self.num_groups, self.weight, self.bias, self.eps).to(y.dtype)

    def _by_parts(self, y: Tensor) -> Tensor:
        parts = y.unflatten(1, (self.num_groups, -1))
        variance, mean = torch.var_mean(parts, (2, 3, 4), correction=0, keepdim=True)
        scaled = ((parts - mean) * (variance + self.eps).rsqrt()).flatten(1, 2)
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


class SqueezeExcite(nn.Module):
    r"""Features weighed by what the whole frame holds.

    .. math:: y = x \odot \sigma(W_2\, \mathrm{ReLU}(W_1 \bar x + b_1) + b_2)

    with the frame's mean of x and max(U / 16, 4) hidden features.

    References:
        Squeeze-and-Excitation Networks (Hu, Shen, Albanie, Sun, Wu), arXiv:1709.01507.

    >>> SqueezeExcite(8)(torch.zeros(2, 8, 4, 4)).shape
    torch.Size([2, 8, 4, 4])
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        hidden = max(d_model // 16, 4)
        self.reduce, self.expand = nn.Linear(d_model, hidden), nn.Linear(hidden, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(F, U, H, W) -> (F, U, H, W)."""
        weights = torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3))))))
        return x * weights[..., None, None]


class Feedthrough(nn.Module):
    """act(norm(y + D * u)): the frame itself is added to the output of the system by a convolution D with a bias.

    Args:
        d_model: U.
        kernel: size of D, odd.
        groups: groups of the norm, a divisor of U.
        activation: makes the activation.
        squeeze_excite: end in a :class:`SqueezeExcite`.
    """

    def __init__(self, d_model: int, kernel: int, groups: int, activation: Activation, squeeze_excite: bool) -> None:
        super().__init__()
        self.D = nn.Conv2d(d_model, d_model, kernel, padding=kernel // 2)
        self.norm, self.activation = FrameNorm(groups, d_model), activation()
        self.excite = SqueezeExcite(d_model) if squeeze_excite else nn.Identity()

    def forward(self, y: Tensor, u: Tensor) -> Tensor:
        """(F, U, H, W) of the system and of the input -> (F, U, H, W)."""
        mixed: Tensor = self.excite(self.activation(self.norm(y + self.D(u))))
        return mixed


class ResNetBlock(nn.Module):
    """act(y + h), where h is two times norm, activation and convolution of y.

    Args:
        d_model: U.
        kernel: size of the convolutions, odd.
        groups: groups of the norms, a divisor of U.
        activation: makes the activation.
        squeeze_excite: weigh h by a :class:`SqueezeExcite`.
    """

    def __init__(self, d_model: int, kernel: int, groups: int, activation: Activation, squeeze_excite: bool) -> None:
        super().__init__()
        self.activation = activation()
        parts: list[nn.Module] = []
        for _ in range(2):
            conv = nn.Conv2d(d_model, d_model, kernel, padding=kernel // 2)
            parts += [FrameNorm(groups, d_model), activation(), conv]
        self.branch = nn.Sequential(*parts, *([SqueezeExcite(d_model)] if squeeze_excite else []))

    def forward(self, y: Tensor, u: Tensor | None = None) -> Tensor:
        """(F, U, H, W) -> (F, U, H, W); the input of the system does not enter."""
        mixed: Tensor = self.activation(y + self.branch(y))
        return mixed


class FrameGLU(nn.Module):
    """h sigmoid(W h + b), with h = act(norm(y)) and a norm over the features of a pixel.

    Args:
        d_model: U.
        activation: makes the activation.
    """

    def __init__(self, d_model: int, activation: Activation) -> None:
        super().__init__()
        self.norm, self.activation = FollowingLayerNorm(d_model, eps=EPS), activation()
        self.gate = HalfGLU(d_model, nn.Identity())

    def forward(self, y: Tensor, u: Tensor | None = None) -> Tensor:
        """(F, U, H, W) -> (F, U, H, W); the input of the system does not enter."""
        mixed: Tensor = self.gate(self.activation(self.norm(y.movedim(1, -1))))
        return mixed.movedim(-1, 1)
