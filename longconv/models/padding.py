"""Valid lengths of padded batches: which positions count, and how the others are kept out.

Symbols: B batch, L length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import check_device, check_shape, check_tensor

INTEGERS = (torch.int64, torch.int32)


def check_lengths(lengths: Tensor, x: Tensor, *, least: int = 0) -> Tensor:
    """Return ``lengths`` if it is an integer (B,) tensor with ``least <= lengths <= L`` for ``x`` of shape (B, L, ...).

    The values are read only where that is free: eagerly and on the CPU. Under ``torch.compile`` and on an accelerator
    the read would be a graph break or a synchronisation, so that only type, shape and device are checked there.

    Raises:
        TypeError: not an integer tensor.
        ValueError: wrong shape or device, or a length out of range (with its index).

    >>> check_lengths(torch.tensor([2, 4]), torch.zeros(2, 3, 1))
    Traceback (most recent call last):
        ...
    ValueError: lengths[1] is 4, expected 0 <= length <= L = 3
    """
    check_tensor("lengths", lengths, "(B,)", ndim=1, dtypes=INTEGERS)
    check_shape("lengths", lengths, (x.shape[0],), "(B,)")
    check_device("lengths", lengths, "the input", x)
    if readable(lengths):
        total = _sequence.total(x.shape[1])
        wrong = ((lengths < least) | (lengths > total)).nonzero()
        if len(wrong) > 0:
            index = int(wrong[0])
            raise ValueError(f"lengths[{index}] is {int(lengths[index])}, expected {least} <= length <= L = {total}")
    return lengths


def readable(x: Tensor) -> bool:
    """Whether the values of ``x`` can be read at no cost: eagerly and on the CPU."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def valid_positions(lengths: Tensor, length: int) -> Tensor:
    """The mask (B, L, 1) that is True at t < lengths.

    >>> valid_positions(torch.tensor([1, 3]), 3)[..., 0].int()
    tensor([[1, 0, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    return _sequence.within(lengths, length)[..., None]


def zero_padding(x: Tensor, valid: Tensor | None) -> Tensor:
    """``x`` (B, L, D) with zeros where ``valid`` (B, L, 1) is False, NaN there included; ``x`` itself for None.

    On the CPU ``masked_fill`` with a mask that is broadcast, and its gradient, take 2.5 times as long.
    """
    return x if valid is None else torch.where(valid, x, 0.0)
