"""Projections with short convolutions, and linear maps between (B, L, D) and (B, E, L) without a transposed copy.

Symbols: B batch, L length, D features, n projections, K taps of a short convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _sequence
from longconv._checks import check_device, check_int, check_shape, check_tensor, describe
from longconv.filters.local import short_stream
from longconv.mixers.base import Mixer
from longconv.ops import short_conv, transpose

LARGE = 1 << 22
"""Bytes of a projection from which on gradients do not keep it twice; less is kept, since computing it takes time."""


class ProjectionMixer(Mixer):
    """A mixer that begins with n linear maps of its input, each followed by a short causal convolution.

        p_i = W_i u + b_i,    c_i = short_conv(p_i),    i < n

    Subclasses make the parameters; there are methods for whole sequences, one projection at a time, so that of what
    comes before the short convolutions a part alone is ever in memory, and for the chunks of a stream.

    Attributes:
        input: the linear maps one below the other, D -> n D.
        short_weight: (n D, K), from :func:`short_parameters`, as the next one.
        short_bias: (n D,).
    """

    shards = True
    input: nn.Linear
    short_weight: nn.Parameter
    short_bias: nn.Parameter

    def _rows(self, i: int) -> slice:
        """Where projection i stands in the parameters."""
        return slice(i * self.d_model, (i + 1) * self.d_model)

    def _projection(self, i: int, u: Tensor) -> Tensor:
        """p_i of u (B, L, D), (B, D, L)."""
        rows = self._rows(i)
        return to_channels(u, self.input.weight[rows], self.input.bias[rows])

    def _short(self, i: int, p: Tensor) -> Tensor:
        """c_i of p_i, (B, D, L)."""
        rows = self._rows(i)
        return short_conv(p, self.short_weight[rows], self.short_bias[rows])

    @contextmanager
    def _keeping_inputs(self) -> Iterator[Callable[[int, Tensor], Tensor]]:
        """:meth:`_short` whose results gradients keep as the p_i, which they need anyway, and compute again from them.

        That holds for operations within the context, and for p_i of :data:`LARGE` bytes and more. Where others decide
        on what gradients keep, as torch.compile, torch.func or a checkpoint, it is the plain one: the gradients then
        keep both p_i and c_i, as they do of smaller p_i.
        """
        if not _takes_hooks():
            yield self._short
            return
        results: list[tuple[Tensor, Callable[[], Tensor]]] = []

        def short(i: int, p: Tensor) -> Tensor:
            c, rows = self._short(i, p), self._rows(i)
            if type(c) is Tensor and c.nbytes >= max(LARGE, 1) and c.requires_grad:
                given = (tensor.detach() for tensor in (p, self.short_weight[rows], self.short_bias[rows]))
                results.append((c, functools.partial(short_conv, *given)))
            return c

        def pack(tensor: Tensor) -> Any:
            return next((again for c, again in results if _is_same(c, tensor)), tensor)

        def unpack(kept: Any) -> Tensor:
            if isinstance(kept, Tensor):
                return kept
            with torch.no_grad():
                again: Tensor = kept()
            return again

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield short
        results.clear()

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
        parts, pasts = [], []
        for i in range(count):
            p, rows = self._projection(i, u), self._rows(i)
            c, last = short_stream(p, self.short_weight[rows], self.short_bias[rows], past[:, rows])
            parts.append(c)
            pasts.append(last)
        return p, parts, torch.cat(pasts, 1)

    def _check_past(self, past: Tensor, u: Tensor) -> None:
        """That ``state.past`` fits the mixer and the input."""
        total, K = self.short_weight.shape
        symbols = f"(B, {total // self.d_model} D, K - 1)"
        check_tensor("state.past", past, symbols, ndim=3, dtypes=(torch.float64, torch.float32))
        check_shape("state.past", past, (u.shape[0], total, K - 1), symbols)
        check_device("state.past", past, "the input", u)
        if u.dtype == torch.float64 != past.dtype:
            raise TypeError(
                f"state.past is {describe(past)}, but the input is {describe(u)}: init_state with dtype=torch.float64 "
                "makes a state of its precision"
            )


def _takes_hooks() -> bool:
    """Whether there are gradients, and what they keep is no business of a compiler, of torch.func or a checkpoint.

    Of a shard of a sequence nothing is computed again, which would take all ranks at the same place.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or _sequence.shard() is not None:
        return False
    return torch.is_grad_enabled() and torch._C._autograd._top_saved_tensors_default_hooks(False) is None


def _is_same(c: Tensor, tensor: Tensor) -> bool:
    """Whether two tensors are the same numbers in memory."""
    return (
        type(tensor) is Tensor
        and c.data_ptr() == tensor.data_ptr()
        and c.stride() == tensor.stride()
        and (c.shape == tensor.shape)
    )


def short_parameters(total: int, short_filter: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights (total, K) and biases (total,) of short convolutions, uniform in +-1 / sqrt(K) as in nn.Conv1d."""
    K = check_int("short_filter", short_filter)
    return (
        nn.Parameter((2 * torch.rand(total, K) - 1) * K**-0.5),
        nn.Parameter((2 * torch.rand(total) - 1) * K**-0.5),
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
