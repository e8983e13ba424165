"""Sequence mixers to compare with: attention with rotary positions, a GRU and a plain convolution.

They are :class:`~longconv.mixers.Mixer` modules, so that a backbone takes them in the place of any other by the names
of :data:`SEQUENCE_BASELINES`. None of them has an online form here.

Shapes: B batch, L length, D features.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv._checks import check_bool, check_choice, check_int, check_lengths, check_options, check_real
from longconv._sequence import zero_beyond
from longconv.mixers import Mixer, create_mixer, list_mixers


class _Baseline(Mixer):
    """A mixer that handles padding by itself: its inputs are zero there, and its outputs are made so.

    Args:
        d_model: D.
        bidirectional: whether an output depends on the future too.
    """

    def __init__(self, d_model: int, bidirectional: bool) -> None:
        super().__init__(d_model)
        self.bidirectional = check_bool("bidirectional", bidirectional)

    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix a whole sequence; see :meth:`Mixer.forward`."""
        self._check_input(u, lengths)
        check_lengths(lengths, u.shape[1])
        if not u.numel():
            return u.clone()
        return zero_beyond(self._mix(zero_beyond(u, lengths), lengths), lengths)

    def _plain_parameters(self) -> Iterator[nn.Parameter]:
        return self.parameters()

    @abstractmethod
    def _mix(self, u: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, L, D) with zeros at t >= lengths -> (B, L, D) with anything there; L > 0 and B > 0."""


class RotaryAttention(_Baseline):
    r"""Attention of several heads, whose queries and keys are turned by their positions.

    .. math::
        y_t = W \sum_s \mathrm{softmax}_s\big((R_t q_t) \cdot (R_s k_s) / \sqrt{d}\big) v_s

    over s <= t, or over all s if bidirectional; R_t turns the i-th of the d/2 planes of a head by t base^(-2i/d). With
    ``feed_forward="mlp"`` a block of a backbone is a Transformer's.

    Args:
        d_model: D.
        heads: number of heads; D / heads = d is even.
        bidirectional: whether an output depends on the future too.
        base: sets the slowest turn.
        dropout: probability that an attention weight is dropped in training.

    References:
        Attention Is All You Need (Vaswani et al.), arXiv:1706.03762; RoFormer: Enhanced Transformer with Rotary
        Position Embedding (Su, Lu, Pan, Murtadha, Wen, Liu), arXiv:2104.09864.

    >>> RotaryAttention(8, heads=2)(torch.randn(2, 100, 8)).shape
    torch.Size([2, 100, 8])
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 4,
        bidirectional: bool = False,
        base: float = 10000.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(d_model, bidirectional)
        self.heads = check_int("heads", heads)
        if d_model % (2 * heads):
            raise ValueError(
                f"heads is {heads}, expected d_model / heads to be an even number, with d_model = {d_model}"
            )
        self.base = check_real("base", base, least=1.0)
        self.dropout = check_real("dropout", dropout, least=0.0, most=1.0)
        self.project, self.join = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)

    def _mix(self, u: Tensor, lengths: Tensor | None) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.project(u).chunk(3, -1))
        mask = None
        if self.bidirectional and lengths is not None:
            # A causal output looks at no padding before its own; a sample of length 0 looks at its first zero.
            mask = (torch.arange(u.shape[1], device=u.device) < lengths.clamp(min=1)[:, None])[:, None, None]
        y = F.scaled_dot_product_attention(
            self._turn(q),
            self._turn(k),
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=not self.bidirectional,
        )
        return self.join(y.transpose(1, 2).flatten(2))

    def _turn(self, x: Tensor) -> Tensor:
        """(B, heads, L, d) with plane i, the features i and d/2 + i, turned by the position."""
        length, half = x.shape[2], x.shape[3] // 2
        wide = torch.promote_types(x.dtype, torch.float32)
        rates = self.base ** (-torch.arange(half, device=x.device, dtype=wide) / half)
        angles = torch.arange(length, device=x.device, dtype=wide)[:, None] * rates
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        one, two = x.chunk(2, -1)
        return torch.cat([one * cos - two * sin, one * sin + two * cos], -1)


class GRU(_Baseline):
    """A gated recurrent unit, sample after sample; if bidirectional a second one runs backwards, and both are joined.

    Args:
        d_model: D, features of the input, of the state and of the output.
        bidirectional: whether an output depends on the future too.

    References:
        Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation (Cho et al.),
        arXiv:1406.1078.

    >>> GRU(8, bidirectional=True)(torch.randn(2, 100, 8)).shape
    torch.Size([2, 100, 8])
    """

    def __init__(self, d_model: int, *, bidirectional: bool = False) -> None:
        super().__init__(d_model, bidirectional)
        self.forwards = nn.GRU(d_model, d_model, batch_first=True)
        if bidirectional:
            self.backwards = nn.GRU(d_model, d_model, batch_first=True)
            self.join = nn.Linear(2 * d_model, d_model)

    def _mix(self, u: Tensor, lengths: Tensor | None) -> Tensor:
        ahead: Tensor = self.forwards(u)[0]
        if not self.bidirectional:
            return ahead
        back: Tensor = _reverse(self.backwards(_reverse(u, lengths))[0], lengths)
        return self.join(torch.cat([ahead, back], -1))


def _reverse(u: Tensor, lengths: Tensor | None) -> Tensor:
    """The valid part of every sample backwards; what lies beyond keeps its place."""
    if lengths is None:
        return u.flip(1)
    t = torch.arange(u.shape[1], device=u.device).expand(u.shape[:2])
    back = lengths[:, None] - 1 - t
    return u.gather(1, torch.where(back >= 0, back, t)[..., None].expand_as(u))


class PlainConvolution(_Baseline):
    r"""A convolution of all features with a few taps, :math:`y_t = b + \sum_k W_k u_{t - k}`, and GELU.

    If bidirectional the taps lie on both sides of t. What a stack of them sees grows with the layers, not with L.

    Args:
        d_model: D.
        kernel: number of taps; odd if bidirectional.
        dilation: distance between two of them.
        bidirectional: whether an output depends on the future too.

    References:
        An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling (Bai, Kolter,
        Koltun), arXiv:1803.01271.

    >>> PlainConvolution(8, kernel=5)(torch.randn(2, 100, 8)).shape
    torch.Size([2, 100, 8])
    """

    def __init__(self, d_model: int, *, kernel: int = 15, dilation: int = 1, bidirectional: bool = False) -> None:
        super().__init__(d_model, bidirectional)
        self.kernel, self.dilation = check_int("kernel", kernel), check_int("dilation", dilation)
        if bidirectional and kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}, expected an odd number where bidirectional")
        self.taps = nn.Conv1d(d_model, d_model, kernel, dilation=dilation)

    def _mix(self, u: Tensor, lengths: Tensor | None) -> Tensor:
        reach = (self.kernel - 1) * self.dilation
        sides = (reach // 2, reach // 2) if self.bidirectional else (reach, 0)
        return F.gelu(self.taps(F.pad(u.mT, sides))).mT


SEQUENCE_BASELINES: dict[str, type[Mixer]] = {"transformer": RotaryAttention, "gru": GRU, "cnn": PlainConvolution}
"""By the names that a :class:`~longconv.models.Backbone` takes beside those of the mixers."""


def create_layer(name: str, d_model: int, **options: Any) -> Mixer:
    """A mixer of the library, or one to compare with, by name; the errors are those of ``create_mixer``."""
    check_choice("mixer", name, [*list_mixers(video=False), *SEQUENCE_BASELINES])
    if name not in SEQUENCE_BASELINES:
        return create_mixer(name, d_model, **options)
    check_options(f"mixer {name!r}", options, list(inspect.signature(SEQUENCE_BASELINES[name]).parameters)[1:])
    kind: Any = SEQUENCE_BASELINES[name]
    layer: Mixer = kind(d_model, **options)
    return layer
