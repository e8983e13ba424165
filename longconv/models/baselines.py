"""Video mixers to compare with: a ConvLSTM, and causal attention between the pixels of all frames.

They keep the law of :class:`~longconv.mixers.VideoMixer`, so that a model takes them in the place of ConvS5.

Shapes: B batch, T frames, C features, H height, W width.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv._checks import check_device, check_int, check_lengths, describe
from longconv._sequence import zero_beyond
from longconv.filters.conv_s5 import check_kernel
from longconv.mixers import VideoMixer


class _Recurrent(VideoMixer):
    """A video mixer whose forward pass is the prefill of the whole."""

    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix whole videos (B, T, C, H, W)."""
        self._check_input(u, lengths)
        check_lengths(lengths, u.shape[1])
        y, _ = self._prefill(zero_beyond(u, lengths), self._init_state(u.shape[0], u.device, None))
        return zero_beyond(y, lengths)

    def streaming_refusal(self) -> str | None:
        """It always can."""
        return None

    def _zeros(self, batch_size: int, *shape: int, device: torch.device | str | None, dtype: Any) -> Tensor:
        """Zeros of a state, in single precision at least."""
        like = next(self.parameters())
        wide = torch.promote_types(dtype or like.dtype, torch.float32)
        return torch.zeros(batch_size, *shape, device=device or like.device, dtype=wide)

    def _check_state(self, u: Tensor, state: Any, kind: type, name: str) -> bool:
        """Raise unless a state fits frames u (..., C, H, W); whether it is that before the first frame.

        Its field ``name`` has height and width as axes 2 and 3.
        """
        if not isinstance(state, kind):
            raise TypeError(f"state is {describe(state)}, expected the {kind.__name__} that init_state returns")
        held: Tensor = getattr(state, name)
        fresh = held.shape[2] == 0
        sizes = (held.shape[0], held.shape[1 if held.ndim == 4 else 4], *held.shape[2:4])
        wanted = (u.shape[0], self.d_model, *((0, 0) if fresh else u.shape[-2:]))
        if sizes != wanted:
            raise ValueError(f"state.{name} is {describe(held)}, a state of {sizes}, but the frames need {wanted}")
        check_device(f"state.{name}", held, "the input", u)
        if u.dtype == torch.float64 != held.dtype:
            raise TypeError(
                f"state.{name} is {describe(held)}, but the input is {describe(u)}: init_state with float64"
            )
        return fresh


# --- ConvLSTM ---------------------------------------------------------------------------------------------------------


class ConvLSTMState(NamedTuple):
    """State of a :class:`ConvLSTM`: both (B, C, H, W), or (B, C, 0, 0) before the first frame."""

    h: Tensor
    c: Tensor


class ConvLSTM(_Recurrent):
    r"""The recurrence that ConvS5 replaces, frame after frame.

    .. math::
        i, f, o, g = W_x * u_t + W_h * h_{t-1} + b, \quad
        c_t = \sigma(f) c_{t-1} + \sigma(i) \tanh(g), \quad h_t = \sigma(o) \tanh(c_t)

    and y = h. The convolution of the inputs is that of all frames at once.

    Args:
        d_model: C, features of a frame, of h and of c.
        kernel: size of both kernels, odd.

    References:
        Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting (Shi, Chen, Wang, Yeung,
        Wong, Woo), arXiv:1506.04214 (here without peepholes).

    >>> ConvLSTM(4)(torch.randn(2, 5, 4, 8, 8)).shape
    torch.Size([2, 5, 4, 8, 8])
    """

    def __init__(self, d_model: int, *, kernel: int = 3) -> None:
        super().__init__(d_model)
        padding = check_kernel("kernel", kernel) // 2
        self.enter = nn.Conv2d(d_model, 4 * d_model, kernel, padding=padding)
        self.recur = nn.Conv2d(d_model, 4 * d_model, kernel, padding=padding, bias=False)
        with torch.no_grad():
            assert self.enter.bias is not None
            self.enter.bias[d_model : 2 * d_model] = 1.0  # what is remembered at first is kept

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> ConvLSTMState:
        zeros = self._zeros(batch_size, self.d_model, 0, 0, device=device, dtype=dtype)
        return ConvLSTMState(zeros, zeros)

    def _prefill(self, u: Tensor, state: ConvLSTMState) -> tuple[Tensor, ConvLSTMState]:
        if self._check_state(u, state, ConvLSTMState, "h"):
            state = ConvLSTMState(*(part.new_zeros(u.shape[0], self.d_model, *u.shape[-2:]) for part in state))
        if not u.shape[1]:
            return u.clone(), state
        entering = self.enter(u.flatten(0, 1)).unflatten(0, u.shape[:2])
        outputs = []
        for gates in entering.unbind(1):
            state = self._advance(gates, state)
            outputs.append(state.h.to(u.dtype))
        return torch.stack(outputs, 1), state

    def _step(self, u_t: Tensor, state: ConvLSTMState) -> tuple[Tensor, ConvLSTMState]:
        y, state = self._prefill(u_t[:, None], state)
        return y[:, 0], state

    def _advance(self, gates: Tensor, state: ConvLSTMState) -> ConvLSTMState:
        h, c = state
        i, f, o, g = (gates + self.recur(h.to(gates.dtype))).chunk(4, 1)
        c = (f.sigmoid() * c + i.sigmoid() * g.tanh()).to(c.dtype)
        return ConvLSTMState((o.sigmoid() * c.tanh()).to(h.dtype), c)

    def _plain_parameters(self) -> Any:
        return self.parameters()


# --- attention --------------------------------------------------------------------------------------------------------


class FrameAttentionState(NamedTuple):
    """State of a :class:`FrameAttention`: keys and values of all frames so far, (B, T, H, W, C)."""

    keys: Tensor
    values: Tensor


class FrameAttention(_Recurrent):
    """A Transformer's layer over video: every pixel attends to all pixels of its own and of all earlier frames.

    y = a + MLP(norm(a)), with a the attention to keys and values; queries and keys carry sines of time and place. The
    cost of a frame grows with all that came before it.

    Args:
        d_model: C, features of a pixel.
        heads: number of heads, a divisor of C.
        expansion: hidden features of the MLP as a multiple of C.

    References:
        Attention Is All You Need (Vaswani et al.), arXiv:1706.03762.

    >>> FrameAttention(8, heads=2)(torch.randn(2, 5, 8, 4, 4)).shape
    torch.Size([2, 5, 8, 4, 4])
    """

    def __init__(self, d_model: int, *, heads: int = 4, expansion: int = 4) -> None:
        super().__init__(d_model)
        self.heads = check_int("heads", heads)
        if d_model % heads:
            raise ValueError(f"heads is {heads}, expected a divisor of d_model = {d_model}")
        self.project, self.join = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        hidden = check_int("expansion", expansion) * d_model
        self.mlp = nn.Sequential(
            nn.LayerNorm(d_model), nn.Linear(d_model, hidden), nn.GELU(), nn.Linear(hidden, d_model)
        )

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> FrameAttentionState:
        zeros = self._zeros(batch_size, 0, 0, 0, self.d_model, device=device, dtype=dtype)
        return FrameAttentionState(zeros, zeros)

    def _prefill(self, u: Tensor, state: FrameAttentionState) -> tuple[Tensor, FrameAttentionState]:
        if self._check_state(u, state, FrameAttentionState, "keys"):
            state = FrameAttentionState(*(p.new_zeros(u.shape[0], 0, *u.shape[-2:], self.d_model) for p in state))
        if not u.shape[1]:
            return u.clone(), state
        past = state.keys.shape[1]
        pixels = u.movedim(2, -1)
        query, key, value = self.project(pixels).chunk(3, -1)
        place = self._places(past, u).to(u.dtype)
        keys = torch.cat([state.keys, (key + place).to(state.keys.dtype)], 1)
        values = torch.cat([state.values, value.to(state.values.dtype)], 1)
        a = self.join(self._attend(query + place, keys.to(u.dtype), values.to(u.dtype), past))
        return (a + self.mlp(a)).movedim(-1, 2), FrameAttentionState(keys, values)

    def _step(self, u_t: Tensor, state: FrameAttentionState) -> tuple[Tensor, FrameAttentionState]:
        y, state = self._prefill(u_t[:, None], state)
        return y[:, 0], state

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, past: int) -> Tensor:
        """Queries (B, T, H, W, C) of the frames from ``past`` on, to keys and values of all."""
        _, frames, height, width, _ = query.shape
        q, k, v = (x.flatten(1, 3).unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (query, keys, values))
        mask = None
        if frames > 1:
            t = torch.arange(past + frames, device=query.device).repeat_interleave(height * width)
            mask = t <= t[past * height * width :, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return y.transpose(1, 2).flatten(2).unflatten(1, (frames, height, width))

    def _places(self, past: int, u: Tensor) -> Tensor:
        """Sines and cosines of time, row and column, (T, H, W, C)."""
        sizes = (u.shape[1], u.shape[3], u.shape[4])
        total = torch.zeros(*sizes, self.d_model, device=u.device)
        half = max(1, self.d_model // 6)
        rates = torch.exp(-math.log(1e3) / half * torch.arange(half, device=u.device))
        for axis, size in enumerate(sizes):
            angle = (torch.arange(size, device=u.device) + (past if axis == 0 else 0))[:, None] * rates
            waves = torch.cat([angle.sin(), angle.cos()], -1)
            waves = waves.view(*(size if other == axis else 1 for other in range(3)), -1)
            start = min(2 * half * axis, max(0, self.d_model - 2 * half))
            width = min(2 * half, self.d_model - start)
            total = total + F.pad(waves[..., :width], (start, self.d_model - start - width))
        return total

    def _plain_parameters(self) -> Any:
        return self.parameters()


BASELINES: dict[str, type[VideoMixer]] = {"conv_lstm": ConvLSTM, "frame_attention": FrameAttention}
"""By the names that :class:`~longconv.models.VideoPredictor` takes beside those of the video mixers."""
