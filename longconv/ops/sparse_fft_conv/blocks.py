"""Which frequencies a mask keeps: what all backends share."""

from __future__ import annotations

import functools

from torch import Tensor


@functools.lru_cache(maxsize=4096)
def next_smooth(n: int) -> int:
    """The least number >= n with no prime factor but 2, 3 and 5.

    >>> next_smooth(7), next_smooth(48)
    (8, 48)
    """
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def spectrum_size(length: int, blocks: int) -> int:
    """The number of frequencies: P m >= L for P blocks, m the least number with no prime factor but 2, 3 and 5.

    >>> spectrum_size(1000, 1), spectrum_size(1000, 7), spectrum_size(3, 8)
    (1000, 1008, 8)
    """
    return blocks * next_smooth(-(-length // blocks))


def residues(block_mask: Tensor) -> Tensor:
    """The mask (N_1, ..., N_r) as one of the residues of f modulo P, (P,): the first axis counts fastest.

    >>> import torch
    >>> residues(torch.tensor([[True, True, False], [False, False, False]]))  # f = 0 and 2, modulo 6
    tensor([ True, False,  True, False, False, False])
    """
    return block_mask.permute(*range(block_mask.ndim - 1, -1, -1)).flatten()
