"""The passes of a call of the backend ``cuda``: what they share, and those of sequences in tiles and in blocks."""

from __future__ import annotations

import ctypes
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda
from longconv.ops._cuda import pointers as _pointers
from longconv.ops.fft_conv import cuda_calls as calls
from longconv.ops.fft_conv import cuda_plan
from longconv.ops.fft_conv.cuda_plan import Cut, Tiles

WORK_BYTES = 2**28
"""Memory for the spectra of long sequences, unless one channel takes more, of an outer transform: one sequence.

The spectra of the filters of several blocks come on top.
"""

Gated = tuple[Tensor | None, Tensor | None]
"""A sequence and its gate."""


def reach(length: int, k: Tensor, k_reverse: Tensor | None, mode: str) -> tuple[int, int]:
    """The lags below 0 and from 0 on at which a filter has taps for sequences of a length."""
    back = 0 if k_reverse is None else k_reverse.shape[-1]
    return length - 1 if mode == "circular" else min(back, length - 1), min(k.shape[-1], length)


def per_sample(k: Tensor, k_reverse: Tensor | None, lengths: Tensor | None, mode: str) -> bool:
    """Whether every sample has a spectrum of its own: of its own filter, or of a shared one at its own period."""
    own = any(t is not None and t.ndim == 3 for t in (k, k_reverse))
    return own or (mode == "circular" and lengths is not None)


class Passes(ABC):
    """What the passes of a call have in common."""

    def __init__(
        self,
        like: Tensor,
        k: Tensor,
        k_reverse: Tensor | None,
        skip: Tensor | None,
        lengths: Tensor | None,
        mode: str,
    ) -> None:
        self.batch, self.channels, self.length = like.shape
        self.dtype, self.device = like.dtype, like.device
        self.arithmetic, self.element = _cuda.arithmetic(self.dtype), _native.ELEMENTS[self.dtype]
        self.circular = mode == "circular"
        self.lengths = None if lengths is None else lengths.clamp(0, self.length).to(torch.int64).contiguous()
        self.periods = self.lengths if self.circular else None
        self.per_sample = per_sample(k, k_reverse, lengths, mode)
        self.filters = self.batch if self.per_sample else 1
        self.k = self._taps(k, self.length)
        self.k_reverse = None if k_reverse is None or self.length == 1 else self._taps(k_reverse, self.length - 1)
        self.skip = None if skip is None else skip.resolve_neg().to(torch.float32).contiguous()
        self.back_taps, self.taps = reach(self.length, k, k_reverse, mode)

    def _taps(self, taps: Tensor, most: int) -> Tensor:
        taps = taps[..., :most].resolve_neg()
        taps = taps[None] if taps.ndim == 2 else taps
        return taps if taps.stride(-1) == 1 else taps.contiguous()

    @abstractmethod
    def filter(self, x: Gated, y: Gated, z: Gated = (None, None), *, conjugate: bool = False) -> None:
        """Fill y and z with their gates times the convolution (conjugate: its adjoint) of x times its gate."""

    @abstractmethod
    def _tap_gradients(self, x: Gated, g: Gated, taps: int, back_taps: int) -> tuple[Tensor, Tensor]:
        """The correlations of x and g, each times its gate: (1 or B, H, taps) at lags from 0 on and below."""

    @property
    def _elements(self) -> tuple[int, int]:
        """The elements of k and k_reverse."""
        return _native.ELEMENTS[self.k.dtype], 0 if self.k_reverse is None else _native.ELEMENTS[self.k_reverse.dtype]

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def _run(self, function: str, call: ctypes.Structure) -> None:
        _cuda.run(function, call, self.device)

    def correlate(self, x: Gated, g: Gated, grads: tuple[Tensor | None, Tensor | None, Tensor | None]) -> None:
        """Fill the gradients of k, k_reverse and skip that are there from x and g, each times its gate."""
        taps = self.taps if grads[0] is not None else 1 if grads[2] is not None else 0
        back_taps = self.back_taps if grads[0 if self.circular else 1] is not None else 0
        dk, dback = self._tap_gradients(x, g, taps, back_taps)
        if grads[2] is not None:
            grads[2].copy_(dk[..., 0].sum(0))
        if grads[0] is not None:
            _cuda.finish(grads[0], self._fold(dk, dback) if self.circular else dk)
        if grads[1] is not None:
            _cuda.finish(grads[1], dback)

    def _fold(self, dk: Tensor, dback: Tensor) -> Tensor:
        """The gradient of circular taps: tap j is also at the lag j - period, if any are below 0."""
        if self.periods is None:
            if self.back_taps:
                dk[..., 1:] += dback.flip(-1)[..., : self.taps - 1]
            return dk
        tap, period = torch.arange(self.taps, device=self.device), self.periods[:, None, None]
        zero = dk.new_zeros(())
        if self.back_taps:
            place = (period - 1 - tap).clamp(0, self.back_taps - 1).expand(dk.shape)
            dk = dk + torch.where((tap > 0) & (tap < period), dback.gather(-1, place), zero)
        return torch.where(tap < period, dk, zero)


class _InBlocks(Passes):
    """What those of tiles and of cut sequences have in common: spectra of the filters in blocks."""

    alone: bool
    """Whether a filter is in the lags from 0 on of one block."""
    first, filter_blocks = 0, 1

    def __init__(self, points: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.points = points
        self.tables = cuda_plan.plan(points, self.arithmetic, self.device).tables

    @functools.cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The spectra of the filters (H, 1 or B, filter blocks, points) and the greatest magnitude in each."""
        spectrum = self._empty(self.channels, self.filters, self.filter_blocks, self.points, 2)
        norms = self._empty(*spectrum.shape[:3])
        reverse = self.k_reverse
        call = calls.Spectrum(
            *_pointers(self.tables, spectrum, norms, self.skip, self.periods),
            *(self.filters, self.channels, self.points, self.length, self.first, self.filter_blocks),
            *(self.taps, 0 if reverse is None else reverse.shape[-1], self.arithmetic, self.circular, self.alone),
            *self._elements,
            *map(calls.Rows.of, (self.k, None, reverse)),
        )
        self._run("fft_spectrum", call)
        return spectrum, norms

    @abstractmethod
    def _products(self, x: Gated, g: Gated) -> tuple[Tensor, float]:
        """The spectra of the correlations (H, parts, filter blocks, points), and what they are to be multiplied by."""

    def _tap_gradients(self, x: Gated, g: Gated, taps: int, back_taps: int) -> tuple[Tensor, Tensor]:
        products, scale = self._products(x, g)
        dk, dback = (self._empty(self.filters, self.channels, size) for size in (taps, back_taps))
        call = calls.Taps(
            *_pointers(self.tables, products),
            *(self.filters, self.channels, self.points, self.first, self.filter_blocks),
            *(products.shape[1] // self.filters, taps, back_taps, self.arithmetic, scale),
            *(calls.Rows.of(t if t.numel() else None) for t in (dk, dback)),
        )
        self._run("fft_taps", call)
        return dk, dback


class TilePasses(_InBlocks):
    """One of a convolution: a sequence is a block, or is in tiles that overlap by the filter's length."""

    def __init__(self, tiles: Tiles, *arguments: Any) -> None:
        super().__init__(tiles.points, *arguments)
        self.tiles = tiles
        self.around = self.circular and tiles.pieces > 1
        if self.around:
            self.back_taps = 0
        self.alone = self.back_taps == 0

    def _tiles(self, before: int) -> calls.Tiles:
        return calls.Tiles(self.points, self.tiles.pieces, self.tiles.step, before, self.around)

    def filter(self, x: Gated, y: Gated, z: Gated = (None, None), *, conjugate: bool = False) -> None:
        call = calls.Filter(
            *_pointers(self.tables, *self.spectrum, self.lengths),
            *(self.batch, self.channels, self.length),
            self._tiles(self.tiles.after if conjugate else self.tiles.before),
            *(self.arithmetic, self.element, self.per_sample, conjugate),
            *map(calls.Rows.of, (*x, *y, *z)),
        )
        self._run("fft_filter", call)

    def _products(self, x: Gated, g: Gated) -> tuple[Tensor, float]:
        terms = self.batch * self.tiles.pieces // self.filters
        parts = self.filters * _cuda.correlation_parts(terms, self.channels * self.filters)
        products = self._empty(self.channels, parts, 1, self.points, 2)
        scratch = torch.empty_like(products)
        call = calls.Correlation(
            *_pointers(self.tables, products, scratch, self.lengths),
            *(self.batch, self.channels, self.length, parts, self._tiles(self.tiles.before)),
            *(self.arithmetic, self.element),
            *map(calls.Rows.of, (*x, *g)),
        )
        self._run("fft_correlate", call)
        return products, 1 / 16


class BlockPasses(_InBlocks):
    """Two of a convolution, of sequences cut into several blocks: their spectra, and the sums of products of pairs."""

    alone = False

    def __init__(self, cut: Cut, *arguments: Any) -> None:
        super().__init__(cut.points, *arguments)
        self.blocks, self.first, self.filter_blocks = cut[1:]
        self.most_channels = max(1, WORK_BYTES // (8 * self.batch * self.blocks * self.points))

    def _spectra(self, x: Gated, group: slice) -> tuple[Tensor, Tensor]:
        """The spectra and norms of the blocks of a sequence times its gate, for a group of channels."""
        spectra = self._empty(group.stop - group.start, self.batch, self.blocks, self.points, 2)
        norms = self._empty(*spectra.shape[:3])
        call = calls.Spectrum(
            *_pointers(self.tables, spectra, norms, None, self.lengths),
            *(self.batch, spectra.shape[0], self.points, self.length, 0, self.blocks, self.length, 0),
            *(self.arithmetic, False, True, self.element, 0),
            *(calls.Rows.of(part(t, group)) for t in (*x, None)),
        )
        self._run("fft_spectrum", call)
        return spectra, norms

    def filter(self, x: Gated, y: Gated, z: Gated = (None, None), *, conjugate: bool = False) -> None:
        for group in slices(self.channels, self.most_channels):
            spectra, norms = self._spectra(x, group)
            spectrum, filter_norms = (t[group] for t in self.spectrum)
            call = calls.Blocks(
                *_pointers(self.tables, spectra, spectrum, norms, filter_norms, self.lengths),
                *(self.batch, spectra.shape[0], self.length, self.points, self.blocks, self.first, self.filter_blocks),
                *(self.arithmetic, self.element, self.per_sample, conjugate),
                *(calls.Rows.of(part(t, group)) for t in (*y, *z)),
            )
            self._run("fft_blocks", call)

    def _products(self, x: Gated, g: Gated) -> tuple[Tensor, float]:
        products = self._empty(self.channels, self.filters, self.filter_blocks, self.points, 2)
        for group in slices(self.channels, self.most_channels):
            spectra = [self._spectra(t, group)[0] for t in (x, g)]
            sums = calls.Products(
                *_pointers(*spectra, products[group]),
                *(self.batch, spectra[0].shape[0], self.points, self.blocks, self.first, self.filter_blocks),
                self.filters,
            )
            self._run("fft_products", sums)
        return products, 1 / self.points


def slices(size: int, most: int) -> Iterator[slice]:
    """The channels, or samples, that are done together, at most so many."""
    return (slice(i, min(i + most, size)) for i in range(0, size, most))


def part(x: Tensor | None, channels: slice, samples: slice = slice(None)) -> Tensor | None:
    """Some channels of some samples of a tensor (B, H, n)."""
    return None if x is None else x[samples, channels]
