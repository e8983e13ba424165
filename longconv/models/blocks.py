"""The residual block: a mixer along the sequence, then possibly a network at every position.

Symbols: B batch, L length, D features.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from longconv.mixers import Mixer
from longconv.models.drop import DropPath, create_dropout
from longconv.models.norms import apply_norm, create_norm
from longconv.models.padding import zero_padding


class Residual(nn.Module):
    r"""The part of a residual branch around its function f: norm, dropout, drop path and sum.

    .. math::
        \text{pre-norm:}\quad y = x + \mathrm{drop}(f(\mathrm{norm}(x))), \qquad
        \text{post-norm:}\quad y = \mathrm{norm}(x + \mathrm{drop}(f(x)))

    It is split into ``enter`` and ``leave``, between which the caller runs f, because f may carry a state.

    Args:
        d_model: the number of features D.
        norm: ``"layer"``, ``"batch"`` or ``"rms"``.
        prenorm: whether the norm comes before f or after the sum.
        dropout: the probability of a dropout on f's output.
        tie_dropout: whether its mask is shared by all positions of a sequence.
        drop_path: the probability that f's output is left out for a whole sample.
        norm_eps: what the norm adds to the variance; None: the norm's own, see ``create_norm``.
    """

    def __init__(
        self,
        d_model: int,
        *,
        norm: str,
        prenorm: bool,
        dropout: float,
        tie_dropout: bool,
        drop_path: float,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.prenorm = prenorm
        self.norm = create_norm(norm, d_model, norm_eps)
        self.dropout = create_dropout(dropout, tied=tie_dropout)
        self.drop_path = DropPath(drop_path)

    def enter(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The input of f: (..., D) -> (..., D)."""
        return apply_norm(self.norm, x, valid) if self.prenorm else x

    def leave(self, x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """The block's output from its input ``x`` and f's output ``y``, both (..., D) and zero at padded positions."""
        x = x + self.drop_path(self.dropout(y))
        return x if self.prenorm else zero_padding(apply_norm(self.norm, x, valid), valid)


class Block(nn.Module):
    """One layer of a backbone: a residual mixer, then a residual feed-forward network where one is given.

    Args:
        mixer: (B, L, D) -> (B, L, D) along the sequence, with the contract of ``longconv.mixers``: its outputs at
            padded positions are zero, for nothing in a pre-norm block sets them so.
        mixer_residual: the branch around the mixer.
        feed_forward: (..., D) -> (..., D) at every position, or None.
        feed_forward_residual: the branch around it; given exactly where ``feed_forward`` is.
    """

    def __init__(
        self,
        mixer: Mixer,
        mixer_residual: Residual,
        feed_forward: nn.Module | None = None,
        feed_forward_residual: Residual | None = None,
    ) -> None:
        super().__init__()
        self.mixer_residual = mixer_residual
        self.mixer = mixer
        self.feed_forward_residual = feed_forward_residual
        self.feed_forward = feed_forward

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, valid: Tensor | None = None, *, rate: float = 1.0
    ) -> Tensor:
        """A whole batch.

        Args:
            x: (B, L, D), zero at padded positions.
            lengths: (B,) valid lengths; None: all L.
            valid: the mask (B, L, 1) of ``lengths``; None exactly where ``lengths`` is.
            rate: what multiplies every dt of the mixer.

        Returns:
            (B, L, D), zero at padded positions.
        """
        sampling = {} if rate == 1 else {"rate": self._check_rate(rate)}
        y = self.mixer(self.mixer_residual.enter(x, valid), lengths, **sampling)
        return self._feed_forward(self.mixer_residual.leave(x, y, valid), valid)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One position (B, D), with the mixer's state in and out."""
        y, state = self.mixer.step(self.mixer_residual.enter(x), state)
        return self._feed_forward(self.mixer_residual.leave(x, y)), state

    def prefill(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """A chunk (B, L, D), with the mixer's state in (None: the start) and out."""
        y, state = self.mixer.prefill(self.mixer_residual.enter(x), state)
        return self._feed_forward(self.mixer_residual.leave(x, y)), state

    def _check_rate(self, rate: float) -> float:
        """The rate, where the mixer takes one; a mixer whose own filter has no dt refuses it itself."""
        if "rate" not in inspect.signature(self.mixer.forward).parameters:
            raise ValueError(
                f"rate is {rate:g}, expected 1: {type(self.mixer).__name__} has no step dt that a rate could multiply"
            )
        return rate

    def _feed_forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        if self.feed_forward is None or self.feed_forward_residual is None:
            return x
        y = zero_padding(self.feed_forward(self.feed_forward_residual.enter(x, valid)), valid)
        return self.feed_forward_residual.leave(x, y, valid)
