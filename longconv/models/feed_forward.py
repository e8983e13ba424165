"""The position-wise network that may follow each mixer.

Symbols: B batch, L length, D features, E expansion.
"""

from __future__ import annotations

from torch import Tensor, nn

from longconv._checks import check_choice, check_int, check_real

FEED_FORWARDS = ("glu", "mlp")
"""The names that ``feed_forward=`` accepts beside None."""


class FeedForward(nn.Module):
    r"""A two-layer network at every position.

    .. math::
        \text{mlp:}\quad y = W_2\, \mathrm{GELU}(W_1 x + b_1) + b_2, \qquad
        \text{glu:}\quad y = W_2\, ((W_1 x + b_1) \odot \sigma(V x + c)) + b_2

    with E D hidden features.

    Args:
        d_model: the number of features D.
        kind: ``"glu"`` or ``"mlp"``.
        expansion: the factor E; E D is rounded.

    Raises:
        ValueError: unknown kind (with the nearest), or a size that isn't positive.

    References:
        Language Modeling with Gated Convolutional Networks, Y. Dauphin, A. Fan, M. Auli and D. Grangier,
        arXiv:1612.08083.

    >>> import torch
    >>> FeedForward(8, "mlp", expansion=4)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, d_model: int, kind: str = "glu", expansion: float = 2.0) -> None:
        super().__init__()
        check_int("d_model", d_model)
        check_choice("feed_forward", kind, FEED_FORWARDS)
        hidden = max(1, round(check_real("expansion", expansion, least=0.0, open_least=True) * d_model))
        gated = kind == "glu"
        self.expand = nn.Linear(d_model, 2 * hidden if gated else hidden)
        self.activation = nn.GLU(dim=-1) if gated else nn.GELU()
        self.contract = nn.Linear(hidden, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.contract(self.activation(self.expand(x)))
