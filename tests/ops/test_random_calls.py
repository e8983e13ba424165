"""Ten thousand random calls of the ops of the CPU library, and their gradients, against float64.

A failure prints the case and its number N; ``python -m tests.ops.test_random_calls N`` runs it alone.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv import _native
from tests.ops.native_calls import HERE, ROWS, Call, cast, differentiate
from tests.tolerances import RELATIVE_L2

CALLS = int(os.environ.get("LONGCONV_RANDOM_CALLS", "10000"))
BLOCK = 100
DTYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)
PRIMES = (2, 3, 5, 7, 11, 13, 17, 31, 61, 97, 127, 251, 509, 997, 1021, 2039, 3001, 4999)
OTHERS = [name for name in HERE if not name.startswith("fft_conv")]
pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(_native.cpu().handle is None, reason=f"no CPU library: {_native.cpu().reason}"),
]


class Case:
    """Call number ``number``: the same one every time."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        torch.manual_seed(number)
        self.dtype = self.random.choice(DTYPES)
        self.options: dict[str, Any] = {}
        if self.random.random() < 0.7:
            self.op, self.call = "fft_conv", self._fft_conv()
        else:
            self.op, self.call = self._other()
        self.call = {name: self._laid_out(t) for name, t in self.call.items()}

    def size(self, most: int) -> int:
        """Mostly small, sometimes 0 or a prime."""
        kind = self.random.random()
        if kind < 0.02:
            return 0
        if kind < 0.2:
            return self.random.choice([p for p in PRIMES if p <= most])
        return round(most ** self.random.random())

    def _fft_conv(self) -> Call:
        rnd, length = self.random, self.size(5000)
        batch, channels = self.size(4), self.size(5 if length < 1000 else 2)
        narrow = self.dtype if self.dtype.itemsize > 2 or rnd.random() < 0.5 else torch.float32

        def taps() -> Tensor:
            count = rnd.choice([max(length, 1), max(self.size(6000), 1)])
            lead = (channels,) if rnd.random() < 0.7 else (batch, channels)
            return (torch.randn(*lead, count) / count**0.5).to(narrow)

        call = {"u": torch.randn(batch, channels, length).to(self.dtype), "k": taps()}
        self.options["mode"] = rnd.choice(["causal", "causal", "circular"])
        if self.options["mode"] == "causal" and rnd.random() < 0.4:
            call["k_reverse"] = taps()
        if rnd.random() < 0.4:
            call["skip"] = torch.randn(channels).to(narrow)
        for name in ("pre_gate", "post_gate"):
            if rnd.random() < 0.3:
                call[name] = torch.randn(batch, channels, length).to(self.dtype)
        if rnd.random() < 0.3:
            self.options["lengths"] = torch.tensor([rnd.randint(0, length) for _ in range(batch)], dtype=torch.int64)
        return call

    def _other(self) -> tuple[str, Call]:
        row, length = ROWS[self.random.choice(OTHERS)], max(self.size(1500), 1)
        self.options = row.options_for(length)
        self.dtype = self.random.choice([torch.float32, torch.float64])
        return row.op, cast(row.make(self.size(4), self.size(20 if length < 300 else 4), length), self.dtype)

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """The tensor in another layout: axes in another order, between other numbers, or one axis repeated."""
        kind, axes = self.random.randrange(5), list(range(tensor.ndim))
        if kind == 0 and tensor.numel() and tensor.ndim > 1:
            axis = self.random.choice(axes[:-1])
            return tensor.narrow(axis, 0, 1).expand_as(tensor)
        if kind == 1:
            self.random.shuffle(axes)
        steps = [self.random.choice([1, 1, 2, 3]) if kind == 2 else 1 for _ in axes]
        starts = [self.random.randrange(3) if kind in (2, 3) else 0 for _ in axes]
        if kind == 4:
            return tensor
        sizes = [tensor.shape[a] * steps[a] + starts[a] for a in axes]
        room = torch.full(sizes, torch.nan).to(tensor.dtype).permute(*(axes.index(a) for a in range(tensor.ndim)))
        for axis in range(tensor.ndim):
            room = room.narrow(axis, starts[axis], room.shape[axis] - starts[axis])
            room = room[(slice(None),) * axis + (slice(None, None, steps[axis]),)]
        return room.copy_(tensor)

    def __str__(self) -> str:
        tensors = [f"{n} {tuple(t.shape)} {t.dtype} strides {t.stride()}" for n, t in self.call.items()]
        return f"{self.op}({', '.join(tensors)}, {self.options})"

    def check(self) -> None:
        got = differentiate(self.op, self.call, self.options, "auto")
        small = self.call[next(iter(self.call))].shape[-1] <= 64 or self.op != "fft_conv"
        wide = {name: t.contiguous() for name, t in cast(self.call, torch.float64).items()}
        want = differentiate(self.op, wide, self.options, "definition" if small else "torch")
        for key, tensor in got.items():
            assert tensor.shape == want[key].shape, key
            error, size = (tensor - want[key]).norm().item(), want[key].norm().item()
            if key in ("dk", "dk_reverse", "dskip"):  # numbers out of a spectrum, some of which may be small
                size += self.call["u"].numel() ** 0.5
            if (self.op, key) == ("cauchy", "dz"):  # sums of all that poles and residues give, which may cancel
                v, z, w = (wide[name] for name in ("v", "z", "w"))
                terms = v[..., None].abs() / (z - w[..., None]).abs() ** 2
                size += terms.flatten(end_dim=-2).sum(0).norm().item()
            assert error <= RELATIVE_L2[self.dtype] * size, f"{key}: error {error:.3g} in {size:.3g}"


def check(number: int) -> None:
    case = Case(number)
    try:
        case.check()
    except Exception as error:
        raise AssertionError(f"case {number}: {case}: {error}") from error


@pytest.mark.parametrize("block", range(CALLS // BLOCK))
def test_random_calls(block: int) -> None:
    for number in range(block * BLOCK, (block + 1) * BLOCK):
        check(number)


if __name__ == "__main__":
    print(Case(int(sys.argv[1])))
    check(int(sys.argv[1]))
