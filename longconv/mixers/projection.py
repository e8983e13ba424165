"""Projections with short convolutions, and linear maps between (B, L, D) and (B, E, L) without a transposed copy.

Symbols: B batch, L length, D features, n projections, K taps of a short convolution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from longconv._checks import check_batch, check_device, check_int, check_shape, check_tensor, describe
from longconv.filters.local import short_stream
from longconv.mixers.base import Mixer
from longconv.mixers.gated import Short
from longconv.ops import transpose


class ProjectionMixer(Mixer):
    """A mixer that begins with n linear maps of its input, each followed by a short causal convolution.

        p_i = W_i u + b_i,    c_i = short_conv(p_i),    i < n

    Subclasses make the parameters; there are methods for whole sequences, one projection at a time, whose short
    convolution is left to :func:`~longconv.mixers.gated.gated_conv`, and for the chunks of a stream.

    Of a linear map that is as it was made the parameters are taken, a part of them for each projection. One with hooks
    or a parametrization, or another module in its place, as adapters and quantisation have it, is called, once.

    Attributes:
        input: the linear maps one below the other, D -> n D.
        output: what comes at the end, D -> D.
        short_weight: (n D, K), from :func:`short_parameters`, as the next one.
        short_bias: (n D,).
        dropout: of what is convolved.
    """

    shards = True
    input: nn.Linear
    output: nn.Linear
    short_weight: nn.Parameter
    short_bias: nn.Parameter
    dropout: nn.Dropout

    def _rows(self, i: int) -> slice:
        """Where projection i stands in the parameters."""
        return slice(i * self.d_model, (i + 1) * self.d_model)

    def _projections(self, u: Tensor) -> Callable[[int], Tensor]:
        """Of u (B, L, D) the function i -> p_i, (B, D, L)."""
        if is_bare(self.input, nn.Linear):
            weight, bias = self.input.weight, self.input.bias
            return lambda i: to_channels(u, weight[self._rows(i)], bias[self._rows(i)])
        p = transpose(self.input(u))
        return lambda i: p[:, self._rows(i)]

    def _output(self, y: Tensor) -> Tensor:
        """The output of y (B, D, L), (B, L, D)."""
        if is_bare(self.output, nn.Linear):
            return from_channels(y, self.output.weight, self.output.bias)
        mixed: Tensor = self.output(transpose(y))
        return mixed

    def _short(self, i: int, p: Tensor) -> Short:
        """c_i of p_i, (B, D, L), still to be done."""
        rows = self._rows(i)
        return Short(p, self.short_weight[rows], self.short_bias[rows])

    def _dropped(self, x: Short | Tensor) -> Short | Tensor:
        """What dropout leaves of x, for which a short convolution has to be done."""
        if is_bare(self.dropout, nn.Dropout) and not (self.dropout.training and self.dropout.p):
            return x
        dropped: Tensor = self.dropout(x.convolved() if isinstance(x, Short) else x)
        return dropped

    def _before(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
        """The projections before the first sample, zeros (B, n D, K - 1)."""
        total, K = self.short_weight.shape
        return self.short_weight.new_zeros(batch_size, total, K - 1, device=device, dtype=dtype)

    def _advance_projections(self, u: Tensor, past: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Of a chunk u (B, T, D) the last p_i, all c_i (B, D, T), and the projections before the next chunk.

        ``past`` (B, n D, K - 1) are those before this one, in a precision of their own. A step takes all at once.
        """
        count = len(self.short_weight) // self.d_model
        if u.shape[1] == 1:
            p = self.input(u[:, 0])[..., None]
            c, past = short_stream(p, self.short_weight, self.short_bias, past)
            return p[:, self._rows(count - 1)], list(c.chunk(count, 1)), past
        project, parts, pasts = self._projections(u), [], []
        for i in range(count):
            p, rows = project(i), self._rows(i)
            c, last = short_stream(p, self.short_weight[rows], self.short_bias[rows], past[:, rows])
            parts.append(c)
            pasts.append(last)
        return p, parts, torch.cat(pasts, 1)

    def _check_past(self, past: Tensor, u: Tensor) -> None:
        """That ``state.past`` fits the mixer and the input."""
        total, K = self.short_weight.shape
        symbols = f"(B, {total // self.d_model} D, K - 1)"
        check_tensor("state.past", past, symbols, ndim=3, dtypes=(torch.float64, torch.float32))
        check_batch("state.past", past, u)
        check_shape("state.past", past, (u.shape[0], total, K - 1), symbols)
        check_device("state.past", past, "the input", u)
        if u.dtype == torch.float64 != past.dtype:
            raise TypeError(
                f"state.past is {describe(past)}, but the input is {describe(u)}: init_state with dtype=torch.float64 "
                "makes a state of its precision"
            )


def short_parameters(total: int, short_filter: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights (total, K) and biases (total,) of short convolutions, uniform in +-1 / sqrt(K) as in nn.Conv1d."""
    K = check_int("short_filter", short_filter)
    return (
        nn.Parameter((2 * torch.rand(total, K) - 1) * K**-0.5),
        nn.Parameter((2 * torch.rand(total) - 1) * K**-0.5),
    )


def is_bare(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of a class and nothing was done to it, so that its parameters say what a call of it does."""
    hooks = "_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"
    return (
        type(module) is kind
        and "forward" not in vars(module)
        and all(type(parameter) in (Tensor, nn.Parameter) for parameter in module._parameters.values())
        and not (_has_any_global_hook() or any(getattr(module, name) for name in hooks))
    )


def to_channels(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W u_t + b at every time: u (B, L, D), weight (E, D), bias (E,) -> (B, E, L)."""
    if _is_short(u.shape[1], weight):
        return transpose(F.linear(u, weight, bias))
    return torch.baddbmm(bias[:, None], weight.expand(u.shape[0], -1, -1), u.mT)


def from_channels(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W y_t + b at every time: y (B, E, L), weight (D, E), bias (D,) -> (B, L, D)."""
    if _is_short(y.shape[2], weight):
        return F.linear(transpose(y), weight, bias)
    return torch.baddbmm(bias, y.mT, weight.mT.expand(y.shape[0], -1, -1))


def _is_short(length: int, weight: Tensor) -> bool:
    """Whether a gradient of the weight for each sample, summed afterwards, would cost more than the copy."""
    return 4 * length <= min(weight.shape)
