"""Online convolutions of every kind, and streams through them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.streaming import OnlineConv, OnlineState, folded

KINDS = ("taps", "taps of each sample", "function", "function for ever", "function of ranges", "stream")
CHAIN = 1e-12


def filters(kind: str, channels: int, taps: int, length: int, block: int) -> tuple[OnlineConv, Tensor]:
    """A convolution of two samples and all taps that it uses of a stream of ``length``, (H, ...) or (2, H, ...)."""
    generator = torch.Generator().manual_seed(2)
    per_sample = (2,) if kind in ("taps of each sample", "stream") else ()
    finite = kind not in ("function for ever", "function of ranges", "stream")
    k = torch.randn(*per_sample, channels, taps if finite else 8 * length + 4 * block, generator=generator).double()
    if kind == "stream":
        return OnlineConv(block=block), k[..., :length]
    if kind == "function":
        return OnlineConv(lambda n: F.pad(k, (0, n))[..., :n], length=taps, block=block), k
    if kind == "function for ever":
        return OnlineConv(lambda n: k[..., :n], block=block), k
    if kind == "function of ranges":
        return OnlineConv(lambda start, stop: k[..., start:stop], ranges=True, block=block), k
    return OnlineConv(k, block=block), k


def samples(channels: int, length: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, length, generator=generator, dtype=torch.float64).to(dtype)


def stream(conv: OnlineConv, x: Tensor, sizes: Sequence[int], k: Tensor | None = None) -> tuple[Tensor, OnlineState]:
    """Chunk by chunk; size 0 is an empty chunk, and size -1 a step."""
    state, outputs, t = conv.init_state(*x.shape[:2], dtype=x.dtype), [x[..., :0]], 0
    for size in sizes:
        if size < 0:
            y_t, state = conv.step(x[..., t], state, None if k is None else k[..., t])
            outputs.append(y_t[..., None])
        else:
            y, state = conv.prefill(x[..., t : t + size], state, None if k is None else k[..., t : t + size])
            outputs.append(y)
        t += abs(size)
    return torch.cat(outputs, -1), state


def unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of few channels go as those of many."""
    monkeypatch.setattr(folded, "folds", lambda products, channels: False)
