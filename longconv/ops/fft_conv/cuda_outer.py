"""The passes of a call of the backend ``cuda`` for sequences that no block holds, with an outer transform."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longconv.ops import _cuda
from longconv.ops._cuda import pointers as _pointers
from longconv.ops.fft_conv import cuda_calls as calls
from longconv.ops.fft_conv import cuda_passes, cuda_plan
from longconv.ops.fft_conv.cuda_passes import Gated, Passes, part, slices
from longconv.ops.fft_conv.cuda_plan import Outer

_PEAK = 1024  # numbers


class Work(NamedTuple):
    """Complex numbers of sequences (H, B, points, 2), and the greatest magnitudes among them (H, B, peaks)."""

    numbers: Tensor
    peaks: Tensor

    @property
    def half(self) -> bool:
        """Whether the numbers are in half precision, as parts of their peaks."""
        return self.numbers.dtype == torch.float16


class OuterPasses(Passes):
    """Three of a convolution: the transform over rows, the convolution of each row, the inverse of the first.

    Bytes a point of a convolution: 8 (4 in half precision) written, read, written and read, beside the sequences, their
    gates and 32 of a spectrum. The spectra of a group of channels and its sequences are in memory together; where each
    sample has a filter of its own, those of the samples that are done together alone.
    """

    def __init__(self, outer: Outer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.outer = outer
        self.tables = cuda_plan.outer_plan(outer, self.arithmetic, self.device).tables
        self.wide = cuda_plan.wide(self.arithmetic)
        size = 8 * outer.points
        self.samples = min(self.batch, max(1, cuda_passes.WORK_BYTES // size))
        self.most_channels = max(1, cuda_passes.WORK_BYTES // (size * self.batch))
        self._spectra: tuple[tuple[slice, slice], Work] | None = None

    @functools.cached_property
    def wide_tables(self) -> Tensor:
        """The tables of transforms without a scale, in the arithmetic ``wide``."""
        if self.wide == self.arithmetic:
            return self.tables
        return cuda_plan.outer_plan(self.outer, self.wide, self.device).tables

    def _work(self, channels: int, batch: int, dtype: torch.dtype = torch.float32) -> Work:
        peaks = self.outer.points // _PEAK
        numbers = torch.empty((channels, batch, self.outer.points, 2), dtype=dtype, device=self.device)
        return Work(numbers, self._empty(channels, batch, peaks))

    def _rows(self, work: Work, spectrum: Work | None, *, conjugate: bool = False, inverse: bool) -> Work:
        """Each row's transform; with a spectrum times that and, inverse, back."""
        new = Work(work.numbers, torch.empty_like(work.peaks))
        channels, batch = work.peaks.shape[:2]
        forward = spectrum is not None or not inverse
        arithmetic, tables = (self.arithmetic, self.tables) if forward else (self.wide, self.wide_tables)
        call = calls.InnerRows(
            *_pointers(tables, *work, new.peaks, *(spectrum or (None, None))),
            *(batch, channels, *self.outer),
            *(arithmetic, work.half, self.per_sample, conjugate, forward, inverse),
        )
        self._run("fft_rows", call)
        return new

    def _spectrum(self, group: slice, samples: slice) -> Work:
        """The spectra of the filters of a group of channels and of some samples; the last ones are kept."""
        samples = samples if self.per_sample else slice(0, 1)
        if self._spectra is not None and self._spectra[0] == (group, samples):
            return self._spectra[1]
        self._spectra = None
        work = self._work(group.stop - group.start, samples.stop - samples.start)
        k, reverse = (self._filters_of(t, group, samples) for t in (self.k, self.k_reverse))
        skip = None if self.skip is None else self.skip[group]
        call = calls.Columns(
            *_pointers(self.tables, *work, skip, part_of(self.periods, samples)),
            *(work.peaks.shape[1], work.peaks.shape[0], *self.outer, self.length),
            *(self.taps, 0 if reverse is None else reverse.shape[-1]),
            *(self.arithmetic, self.circular, self.back_taps == 0, work.half, *self._elements),
            *map(calls.Rows.of, (k, None, reverse)),
        )
        self._run("fft_columns", call)
        self._spectra = (group, samples), self._rows(work, None, inverse=False)
        return self._spectra[1]

    def _filters_of(self, taps: Tensor | None, group: slice, samples: slice) -> Tensor | None:
        """Taps, or their gradients, of a group of channels and of some samples, which may share them."""
        return None if taps is None else part(taps, group, samples if taps.shape[0] > 1 else slice(None))

    def _columns(self, x: Gated, group: slice, samples: slice, *, half: bool = False) -> Work:
        """The transform over rows of a sequence times its gate."""
        dtype = torch.float16 if half else torch.float32
        work = self._work(group.stop - group.start, samples.stop - samples.start, dtype)
        call = calls.Columns(
            *_pointers(self.tables, *work, None, part_of(self.lengths, samples)),
            *(work.peaks.shape[1], work.peaks.shape[0], *self.outer, self.length, self.length, 0),
            *(self.arithmetic, False, True, half, self.element, 0),
            *(calls.Rows.of(part(t, group, samples)) for t in (*x, None)),
        )
        self._run("fft_columns", call)
        return work

    def filter(self, x: Gated, y: Gated, z: Gated = (None, None), *, conjugate: bool = False) -> None:
        for group in slices(self.channels, self.most_channels):
            for samples in slices(self.batch, self.samples):
                work = self._columns(x, group, samples, half=self.arithmetic == _cuda.HALF)
                work = self._rows(work, self._spectrum(group, samples), conjugate=conjugate, inverse=True)
                call = calls.ColumnsBack(
                    *_pointers(self.tables, *work, part_of(self.lengths, samples)),
                    *(work.peaks.shape[1], work.peaks.shape[0], self.length, *self.outer, 0),
                    *(self.arithmetic, work.half, self.element, False),
                    *(calls.Rows.of(part(t, group, samples)) for t in (*y, *z)),
                )
                self._run("fft_columns_back", call)

    def _tap_gradients(self, x: Gated, g: Gated, taps: int, back_taps: int) -> tuple[Tensor, Tensor]:
        dk, dback = (self._empty(self.filters, self.channels, size + size % 2) for size in (taps, back_taps))
        for group in slices(self.channels, self.most_channels):
            parts = list(slices(self.batch, self.samples))
            for together in [[samples] for samples in parts] if self.per_sample else [parts]:
                work = self._rows(self._products(x, g, group, together), None, inverse=True)
                of_k, of_back = (self._filters_of(t, group, together[0]) for t in (dk, dback))
                self._take(work, of_k, first=0, imaginary=False)
                self._take(work, of_back, first=self.outer.points - dback.shape[-1], imaginary=True)
        return dk[..., :taps], dback.flip(-1)[..., :back_taps]

    def _products(self, x: Gated, g: Gated, group: slice, parts: list[slice]) -> Work:
        """The spectra of the correlations of some samples, summed if these share a filter."""
        channels, points = group.stop - group.start, self.outer.points
        filters = parts[0].stop - parts[0].start if self.per_sample else 1
        sums = self._work(channels, filters)
        for number, samples in enumerate(parts):
            spectra = [self._rows(self._columns(t, group, samples), None, inverse=False).numbers for t in (x, g)]
            products = torch.empty_like(sums.numbers) if number else sums.numbers
            batch = spectra[0].shape[1]
            call = calls.Products(*_pointers(*spectra, products), batch, channels, points, 1, 0, 1, filters)
            self._run("fft_products", call)
            if number:
                sums.numbers.add_(products)
        return sums

    def _take(self, work: Work, taps: Tensor | None, *, first: int, imaginary: bool) -> None:
        """Fill taps (filters, H, n) with the last transform back from ``first`` on."""
        if taps is None or taps.numel() == 0:
            return
        call = calls.ColumnsBack(
            *_pointers(self.wide_tables, *work, None),
            *(*taps.shape, *self.outer, first),
            *(self.wide, work.half, 0, imaginary),
            *(calls.Rows.of(t) for t in (taps, None, None, None)),
        )
        self._run("fft_columns_back", call)


def part_of(lengths: Tensor | None, samples: slice) -> Tensor | None:
    """The lengths of some samples."""
    return None if lengths is None else lengths[samples]
