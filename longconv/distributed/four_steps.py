"""A transform that all ranks take part in, of rows that are cut along time.

Symbols: P ranks, N = P M points of the transform, L length of the rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.distributed.agreement import Shards
from longconv.distributed.exchange import Range, exchange, redistribute
from longconv.distributed.ranks import Ranks
from longconv.ops.fft_conv.torch_fft import next_fast_length


class Steps:
    """T(x) of rows of up to ``length`` numbers in four steps, in the ring X^N - i of ``ops.fft_conv.torch_fft``.

    With w[n] = exp(i pi n / 2N), n = r M + m and frequencies q + P p,

        T(x)[q + P p] = sum_m e^(-2 pi i m p / M) e^(-2 pi i m q / N) sum_r e^(-2 pi i r q / P) x[n] w[n]:

    columns m are given to the ranks, which sum over r; then rank q gets all m of its q, and transforms those. It has
    the frequencies q + P p of every row. The way back is the same.
    """

    def __init__(self, ranks: Ranks, length: int, dtype: torch.dtype, device: torch.device) -> None:
        count = ranks.size
        self.ranks, self.dtype = ranks, dtype
        self.width = next_fast_length(max(-(-length // count), count))  # a column for every rank at least
        self.columns = Shards.even(self.width, count)
        first, last = self.columns.ranges()[ranks.rank]
        row, column = torch.arange(count, device=device)[:, None], torch.arange(first, last, device=device)
        self.w = self._turns(row * self.width + column)
        self.turned = self._turns(-4 * column * row)

    def transform(self, x: Tensor, shards: Shards) -> Tensor:
        """T of rows (..., L_r) of which every rank has its shard; (..., M), this rank's frequencies."""
        held, columns = self._held(shards.length), self.columns.sizes
        mine, lead = columns[self.ranks.rank], x.shape[:-1]
        rows = redistribute(self.ranks, x, _one(shards), held)
        grid = torch.stack([F.pad(row, (0, mine - row.shape[-1])) for row in rows], -2)  # (..., P, columns)
        partial = torch.fft.fft(grid * self.w, dim=-2) * self.turned
        arrived = exchange(self.ranks, partial.unbind(-2), [(*lead, size) for size in columns])()
        return torch.fft.fft(torch.cat(arrived, -1))

    def inverse(self, spectrum: Tensor, shards: Shards) -> Tensor:
        """The real part of T^-1 / w at this rank's positions, from its frequencies."""
        held, columns = self._held(shards.length), self.columns.sizes
        lead, rank = spectrum.shape[:-1], self.ranks.rank
        z = torch.fft.ifft(spectrum).split(list(columns), -1)
        back = torch.stack(exchange(self.ranks, z, [(*lead, columns[rank])] * len(columns))(), -2)
        y = torch.fft.ifft(back * self.turned.conj_physical(), dim=-2)
        y = y.real * self.w.real + y.imag * self.w.imag  # the real part of y / w
        kept = torch.cat([row[..., : b - a] for row, (a, b) in zip(y.unbind(-2), held[rank], strict=True)], -1)
        return redistribute(self.ranks, kept, held, _one(shards))[0]

    def own_frequencies(self, x: Tensor) -> Tensor:
        """T of whole rows (..., K) at this rank's frequencies, without a word to others."""
        reach = x.shape[-1]
        turned = self._turns(torch.arange(reach, device=x.device) * (1 - 4 * self.ranks.rank))
        folded = F.pad(x * turned, (0, -reach % self.width)).unflatten(-1, (-1, self.width)).sum(-2)
        return torch.fft.fft(folded)

    def _held(self, length: int) -> list[list[Range]]:
        """The positions of a sequence in the columns of every rank, row after row of the grid."""
        rows = [row * self.width for row in range(self.ranks.size)]
        return [[(min(row + a, length), min(row + b, length)) for row in rows] for a, b in self.columns.ranges()]

    def _turns(self, number: Tensor) -> Tensor:
        """exp(2 pi i number / 4N) for integers, rounded once."""
        whole = 4 * self.ranks.size * self.width
        angle = (number % whole).double() * (2 * math.pi / whole)
        return torch.polar(torch.ones_like(angle), angle).to(torch.promote_types(self.dtype, torch.complex64))


def _one(shards: Shards) -> list[list[Range]]:
    """One range a rank."""
    return [[ends] for ends in shards.ranges()]
