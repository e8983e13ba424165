"""A classifier of pairs of sequences: both through one trunk, then a network on what they have in common.

Symbols: B batch, L length, D features.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from longconv.models.backbone import BackboneOptions
from longconv.models.pooled import PooledModel


class PairClassifier(PooledModel):
    r"""Pairs of sequences to class logits: one trunk for both, pooling, a network with one hidden layer.

    .. math::
        a_b, c_b &= \mathrm{pool}\, \mathrm{trunk}(x_{b0}),\ \mathrm{pool}\, \mathrm{trunk}(x_{b1}) \\
        \mathrm{logits}_b &= W_2\, \mathrm{relu}(W_1 [a_b, c_b, a_b - c_b, a_b c_b] + w_1) + w_2

    Args:
        n_classes: the number of classes.
        d_input: the number of input features, for continuous inputs (B, 2, L, d_input).
        n_tokens: the vocabulary size, for tokens (B, 2, L). Exactly one of the two is given.
        d_model: the number of features D, of the hidden layer too.
        n_layers: the number of layers.
        pooling: ``"mean"``, ``"max"``, ``"sum"``, ``"last"`` or ``"first"`` of the valid positions.
        backbone: further options of :class:`~longconv.models.Backbone`, such as ``mixer`` and ``norm``.

    Raises:
        TypeError: an unknown option (named, with the nearest) or one of the wrong type.
        ValueError: an option out of range.

    References:
        Long Range Arena: A Benchmark for Efficient Transformers, Y. Tay et al., arXiv:2011.04006 (two towers).

    >>> model = PairClassifier(2, n_tokens=9, d_model=8, n_layers=1)
    >>> model(torch.randint(9, (3, 2, 50)), lengths=torch.tensor([[50, 7], [1, 2], [3, 50]])).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        n_classes: int,
        *,
        d_input: int | None = None,
        n_tokens: int | None = None,
        d_model: int = 128,
        n_layers: int = 4,
        pooling: str = "mean",
        **backbone: Unpack[BackboneOptions],
    ) -> None:
        inputs: dict[str, Any] = {"d_input": d_input, "n_tokens": n_tokens, "d_model": d_model, "n_layers": n_layers}
        super().__init__("n_classes", n_classes, pooling=pooling, head=_network, **inputs, **backbone)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """A batch of pairs.

        Args:
            x: (B, 2, L, d_input) floating, or (B, 2, L) integer tokens; anything may stand at t >= lengths.
            lengths: (B, 2) valid lengths in [1, L]; None: all L.

        Returns:
            (B, n_classes).

        Raises:
            ValueError: a wrong shape, a token or a length out of range, or an empty sequence.
            TypeError: a wrong dtype.
        """
        self.trunk.embedding.check(x, ("B", "2", "L"))
        if x.shape[1] != 2:
            raise ValueError(f"x is {tuple(x.shape)}, expected two sequences a sample: (B, 2, L, ...)")
        if lengths is not None and lengths.shape != x.shape[:2]:
            raise ValueError(f"lengths is {tuple(lengths.shape)}, expected (B, 2) = {tuple(x.shape[:2])}")
        flat = None if lengths is None else lengths.flatten()
        a, c = self.pooled(x.flatten(0, 1), flat).unflatten(0, (len(x), 2)).unbind(1)
        return self.head(torch.cat([a, c, a - c, a * c], dim=-1))


def _network(d_model: int, n_outputs: int) -> nn.Module:
    """One hidden layer on four vectors of D features."""
    return nn.Sequential(nn.Linear(4 * d_model, d_model), nn.ReLU(), nn.Linear(d_model, n_outputs))
