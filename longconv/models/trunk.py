"""The trunk of every head: the input's embedding, then a backbone.

Symbols: B batch, L length, D features, V vocabulary size.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from longconv import _autocast
from longconv._checks import FLOATS, check_device, check_int, check_options, check_shape, check_tensor
from longconv.models.backbone import Backbone, BackboneOptions
from longconv.models.padding import INTEGERS, check_lengths, readable, valid_positions, zero_padding


class Embedding(nn.Module):
    """The input as features: a linear map of continuous inputs, or a table for tokens.

    Args:
        d_model: the number of features D.
        d_input: the number of input features, for continuous inputs (B, L, d_input).
        n_tokens: the vocabulary size V, for tokens (B, L) in [0, V). Exactly one of the two is given.

    Raises:
        ValueError: both or none of ``d_input`` and ``n_tokens`` are given, or a size isn't positive.

    >>> Embedding(8, n_tokens=5)(torch.tensor([[0, 4, 5]]))
    Traceback (most recent call last):
        ...
    ValueError: x holds the token 5, expected 0 <= token < n_tokens = 5
    """

    def __init__(self, d_model: int, *, d_input: int | None = None, n_tokens: int | None = None) -> None:
        super().__init__()
        check_int("d_model", d_model)
        if (d_input is None) == (n_tokens is None):
            raise ValueError(
                f"d_input is {d_input} and n_tokens is {n_tokens}, expected exactly one of them: d_input for "
                "continuous inputs (B, L, d_input), n_tokens for tokens (B, L)"
            )
        self.d_input = None if d_input is None else check_int("d_input", d_input)
        self.n_tokens = None if n_tokens is None else check_int("n_tokens", n_tokens)
        self.map: nn.Linear | nn.Embedding = (
            nn.Linear(d_input, d_model) if d_input is not None else nn.Embedding(n_tokens or 0, d_model)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_input) floating or (...) integer -> (..., D)."""
        if self.n_tokens is not None and readable(x):
            wrong = x[(x < 0) | (x >= self.n_tokens)]
            if len(wrong) > 0:
                raise ValueError(f"x holds the token {int(wrong[0])}, expected 0 <= token < n_tokens = {self.n_tokens}")
        return self.map(x)

    def check(self, x: Tensor, axes: tuple[str, ...]) -> None:
        """Raise unless ``x`` has the axes (such as B and L), the last axis and the dtype that this embedding takes."""
        weight = self.map.weight
        if self.d_input is None:
            check_tensor("x", x, f"({', '.join(axes)}) of tokens", ndim=len(axes), dtypes=INTEGERS)
        else:
            symbols = f"({', '.join(axes)}, d_input)"
            check_tensor("x", x, symbols, ndim=len(axes) + 1, dtypes=FLOATS)
            check_shape("x", x, (*[None] * len(axes), self.d_input), symbols)
            if x.dtype != weight.dtype and not _autocast.is_on(x.device):
                raise TypeError(
                    f"x is {x.dtype}, but the model is {weight.dtype}: convert one of them, or use autocast"
                )
        check_device("x", x, "the model", weight)


class Trunk(nn.Module):
    """Embedding and backbone: inputs (B, L, d_input) or tokens (B, L) -> (B, L, D).

    The streaming law of :class:`~longconv.models.Backbone` holds for it too.

    Args:
        d_input: the number of input features (continuous inputs).
        n_tokens: the vocabulary size (tokens); exactly one of the two.
        d_model: the number of features D.
        n_layers: the number of layers.
        options: further options of :class:`~longconv.models.Backbone`.

    >>> Trunk(n_tokens=5, d_model=8, n_layers=1)(torch.tensor([[0, 4, 1]])).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        *,
        d_input: int | None = None,
        n_tokens: int | None = None,
        d_model: int,
        n_layers: int,
        **options: Unpack[BackboneOptions],
    ) -> None:
        super().__init__()
        check_options("the backbone", options, tuple(BackboneOptions.__annotations__))
        self.embedding = Embedding(d_model, d_input=d_input, n_tokens=n_tokens)
        self.backbone = Backbone(d_model, n_layers, **options)

    def forward(self, x: Tensor, lengths: Tensor | None = None, *, least_length: int = 0, rate: float = 1.0) -> Tensor:
        """A whole batch.

        Args:
            x: (B, L, d_input) floating, or (B, L) integer tokens; anything may stand at t >= lengths.
            lengths: (B,) valid lengths in [least_length, L]; None: all L.
            least_length: the smallest length that is accepted.
            rate: what multiplies every dt of the mixers.

        Returns:
            (B, L, D), zero at t >= lengths.
        """
        self.embedding.check(x, ("B", "L"))
        if lengths is not None:
            valid = valid_positions(check_lengths(lengths, x, least=least_length), x.shape[1])
            x = x.masked_fill(~valid[..., 0], 0) if x.ndim == 2 else zero_padding(x, valid)
        return self.backbone(self.embedding(x), lengths, rate=rate)

    def streaming_refusal(self) -> str | None:
        """None if the trunk can stream now, else the reason why not."""
        return self.backbone.streaming_refusal()

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Any, ...]:
        """The state before the first position."""
        return self.backbone.init_state(batch_size, device=device, dtype=dtype)

    def step(self, x_t: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One position (B, d_input) or one token (B,) -> (B, D), with the state in and out."""
        self.embedding.check(x_t, ("B",))
        return self.backbone.step(self.embedding(x_t), state)

    def prefill(self, x: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """A chunk (B, L, d_input) or (B, L) -> (B, L, D), with the state in (None: the start) and out."""
        self.embedding.check(x, ("B", "L"))
        return self.backbone.prefill(self.embedding(x), state)
