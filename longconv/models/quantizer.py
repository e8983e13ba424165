"""Vector quantisation: continuous features as words of a codebook.

Symbols: D features, S words.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _autocast
from longconv._checks import FLOATS, check_int, check_real, check_shape, check_tensor


class Quantized(NamedTuple):
    """What :class:`VectorQuantizer` returns."""

    features: Tensor
    """The nearest words, in the shape of the input; their gradient is the input's."""
    codes: Tensor
    """The numbers of the words, int64, the input's shape without its last axis."""
    loss: Tensor
    """What draws words and features together, a number."""


class VectorQuantizer(nn.Module):
    r"""Every vector as the nearest word of a learned codebook, with a straight-through gradient.

    .. math::
        s = \arg\min_s \lVert x - e_s \rVert, \qquad
        \mathrm{loss} = \overline{(\mathrm{sg}(x) - e_s)^2} + \beta\, \overline{(x - \mathrm{sg}(e_s))^2}

    Args:
        n_codes: the number of words S.
        d_model: the number of features D.
        commitment: the weight beta.

    References:
        Neural Discrete Representation Learning (van den Oord, Vinyals, Kavukcuoglu), arXiv:1711.00937.

    >>> features, codes, loss = VectorQuantizer(16, 4)(torch.randn(2, 5, 4))
    >>> features.shape, codes.shape
    (torch.Size([2, 5, 4]), torch.Size([2, 5]))
    """

    def __init__(self, n_codes: int, d_model: int, commitment: float = 0.25) -> None:
        super().__init__()
        self.commitment = check_real("commitment", commitment, least=0.0)
        size = check_int("n_codes", n_codes), check_int("d_model", d_model)
        # Words near 0 are chosen by their direction; long ones would all lose to the shortest.
        self.words = nn.Parameter(torch.empty(size).uniform_(-1 / n_codes, 1 / n_codes))

    def forward(self, x: Tensor) -> Quantized:
        """Quantise (..., D).

        Raises:
            ValueError: another last axis than D.
        """
        check_tensor("x", x, "(..., D)", ndim=range(1, 9), dtypes=FLOATS)
        check_shape("x", x, (*[None] * (x.ndim - 1), self.words.shape[1]), "(..., D)")
        flat = x.detach().reshape(-1, x.shape[-1]).to(self.words.dtype)
        with _autocast.off(x.device):  # words are close to each other
            codes = (self.words.square().sum(-1) - 2 * flat @ self.words.T).argmin(-1).view(x.shape[:-1])
        words = self.words[codes]
        loss = F.mse_loss(words, x.detach()) + self.commitment * F.mse_loss(x, words.detach())
        return Quantized(x + (words - x).detach(), codes, loss)
