"""Short convolutions of single channels or small groups of them, in time or in frequency, with norms between them.

Shapes: B batch, D groups of channels, L length.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _sequence
from longconv.filters.base import parameter_dtype
from longconv.ops.short_conv import short_conv
from longconv.ops.transpose import transpose

PADDINGS = ("zeros", "reflect", "circular")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
    "softshrink": F.softshrink,
}
"""Functions of a number; a new one is one row."""

Past = tuple[Tensor, ...]
"""The last samples before a chunk of a stream, one tensor a layer."""


class LocalConvolutions(nn.Module):
    """Layers of short convolutions, each within a group of channels and followed by a layer norm over all channels.

    Activations stand between a convolution and its norm, in all layers but the last.

    Args:
        groups: D, groups of channels.
        inputs: channels of a group at the start.
        outputs: channels of a group behind the first layer; channel ``outputs * g + i`` belongs to group g.
        width: taps of a convolution; odd, unless ``padding`` is "causal".
        layers: number of layers.
        padding: what stands outside the sequence: "zeros", "reflect" (without the edge itself) or "circular", with
            the window centred; or "causal", zeros with the window before and at the place itself.
        norm: whether there are norms.
        bias: whether the convolutions have a bias.
        activation: one of :data:`ACTIVATIONS`.
    """

    def __init__(
        self,
        groups: int,
        inputs: int = 1,
        outputs: int = 1,
        *,
        width: int = 3,
        layers: int = 1,
        padding: str = "zeros",
        norm: bool = True,
        bias: bool = True,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.outputs, self.padding, self.activation = outputs, padding, activation
        sizes = [inputs, *[outputs] * (layers - 1)]
        channels, dtype = groups * outputs, parameter_dtype()

        def uniform(*shape: int, fan_in: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape, dtype=dtype) - 1) / math.sqrt(fan_in))

        self.weights = nn.ParameterList(uniform(channels, size, width, fan_in=size * width) for size in sizes)
        self.biases = nn.ParameterList(uniform(channels, fan_in=size * width) for size in sizes) if bias else None
        self.scales = nn.ParameterList(torch.ones(channels, dtype=dtype) for _ in sizes) if norm else None
        self.shifts = nn.ParameterList(torch.zeros(channels, dtype=dtype) for _ in sizes) if norm else None

    def forward(self, x: Tensor, lengths: Tensor | None = None, factor: float = 1.0) -> Tensor:
        """(B, inputs D, L) -> (B, outputs D, L) times a factor, which goes into the last parameters.

        With lengths (B,), what stands behind them changes nothing before.
        """
        return self._run(x, lengths, factor, None)

    def before(self, batch_size: int, dtype: torch.dtype, device: torch.device | str | None) -> Past:
        """The samples before the first, of every layer: zeros (B, D, width - 1)."""
        device = self.weights[0].device if device is None else device
        sizes = [(batch_size, weight.shape[0], weight.shape[-1] - 1) for weight in self.weights]
        return tuple(torch.zeros(size, dtype=dtype, device=device) for size in sizes)

    def advance(self, x: Tensor, past: Past, factor: float = 1.0) -> tuple[Tensor, Past]:
        """A chunk (B, D, T) of a stream through causal convolutions of single channels, and the samples before it."""
        after: list[Tensor] = []
        x = self._run(x, None, factor, (past, after))
        return x, tuple(after)

    def _run(
        self, x: Tensor, lengths: Tensor | None, factor: float, stream: tuple[Past, list[Tensor]] | None
    ) -> Tensor:
        last = len(self.weights) - 1
        for i, weight in enumerate(self.weights):
            bias = None if self.biases is None else self.biases[i]
            if i == last and self.scales is None and factor != 1:
                weight, bias = factor * weight, None if bias is None else factor * bias
            if stream is None:
                x = self._convolve(x, weight, bias, lengths)
            else:
                x, past = short_stream(x, weight[:, 0], bias, stream[0][i])
                stream[1].append(past)
            if i < last:
                x = ACTIVATIONS[self.activation](x)
            if self.scales is not None and self.shifts is not None:
                scale, shift = self.scales[i], self.shifts[i]
                if i == last and factor != 1:
                    scale, shift = factor * scale, factor * shift
                x = _norm_channels(x, scale, shift)
        return x

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, lengths: Tensor | None) -> Tensor:
        """Every output of a group is the sum over its inputs of a convolution of one channel with one filter."""
        size, inputs, causal = x.shape[-1], weight.shape[1], self.padding == "causal"
        x = x if causal else self._extend(x, weight.shape[-1] // 2, lengths)
        y = None
        for i in range(inputs):
            part = x[:, i::inputs] if inputs > 1 else x
            part = part.repeat_interleave(self.outputs, dim=1) if self.outputs > 1 else part
            given = part.contiguous(), weight[:, i], bias if i == 0 else None
            part = short_conv(*given) if causal else _sequence.alone(short_conv, *given)
            y = part if y is None else y + part
        assert y is not None
        return y[..., y.shape[-1] - size :]

    def _extend(self, x: Tensor, radius: int, lengths: Tensor | None) -> Tensor:
        """The samples (B, C, n + 2 radius) in the windows of n positions, with what stands outside the sequence."""
        if radius == 0:
            return x
        if self.padding == "zeros":
            x = x if lengths is None else mask_beyond(x, lengths)
            nothing = x.new_zeros(*x.shape[:2], radius)
            return _sequence.around(x, nothing, nothing)
        size = x.shape[-1]
        n = _sequence.total(size) if lengths is None else lengths.clamp(min=1)[:, None]
        steps = torch.arange(radius, device=x.device)
        behind = n + steps
        outside = torch.cat([(steps - radius).expand_as(behind), behind], -1).view(-1, 2 * radius)
        before, after = _sequence.pick(x, self._inner(outside, n)).chunk(2, -1)
        x = _sequence.around(x, before, after)
        if lengths is None:
            return x
        start, stop = _sequence.span(size)
        beyond = (torch.arange(start - radius, stop + radius, device=x.device) - n)[:, None]
        return torch.where(beyond < 0, x, after.gather(-1, beyond.clamp(0, radius - 1).expand(-1, x.shape[1], -1)))

    def _inner(self, places: Tensor, n: int | Tensor) -> Tensor:
        """The places below n that stand for others."""
        if self.padding == "circular":
            return places % n
        period = (2 * n - 2).clamp(min=1) if isinstance(n, Tensor) else max(2 * n - 2, 1)
        places = places % period
        return torch.where(places < n, places, period - places)


def _norm_channels(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm over the channels of (B, C, L)."""
    if x.shape[-1] == 1:
        return F.layer_norm(x[..., 0], scale.shape, scale, shift)[..., None]
    return transpose(F.layer_norm(transpose(x), scale.shape, scale, shift))


def short_stream(x: Tensor, w: Tensor, bias: Tensor | None, past: Tensor) -> tuple[Tensor, Tensor]:
    """A chunk x (B, D, T) of a stream through a causal convolution, and the samples before the next one.

    ``past`` (B, D, K - 1) are those before this one, in a precision of their own.
    """
    joined = torch.cat((past, x.to(past.dtype)), -1)
    if x.shape[-1] == 1:  # a step, where calling the op costs more than the sum
        y = (joined * w).sum(-1, keepdim=True)
        return (y if bias is None else y + bias[:, None]).to(x.dtype), joined[..., 1:]
    return short_conv(x, w, bias, initial=past.to(x.dtype)), joined[..., x.shape[-1] :].clone()


def mask_beyond(x: Tensor, lengths: Tensor, value: float = 0.0) -> Tensor:
    """The sequences x (B, D, L) with one value from the lengths (B,) on."""
    return x.masked_fill(~_sequence.within(lengths, x.shape[-1])[:, None], value)
