"""``sparse_fft_conv``: the definition against transforms written out, the backends against it, and what they skip."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from longconv.ops import fft_conv, sparse_fft_conv
from longconv.ops.fft_conv.plain import Filter
from longconv.ops.sparse_fft_conv.blocks import residues, spectrum_size
from longconv.ops.sparse_fft_conv.operator import BACKENDS
from longconv.ops.sparse_fft_conv.torch_blocks import MaskedSpectrum, best_split
from tests.ops.native_calls import fast
from tests.tolerances import RELATIVE_L2, assert_close

FAST = fast(BACKENDS)
B, H = 2, 3


def some(*shape: int, seed: int = 0) -> Tensor:
    """A mask with a block that is kept and, where there are several, one that isn't."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    mask.view(-1)[0], mask.view(-1)[-1] = True, mask.numel() == 1
    return mask


def by_transforms(u: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """Re inverse(S U) with the twisted FFTs of n points written out, frequency by frequency in the mask's order."""
    n = spectrum_size(u.shape[-1], mask.numel())
    w = torch.exp(-0.5j * math.pi * torch.arange(n, dtype=torch.float64) / n)
    kept = torch.zeros(n, dtype=torch.bool)
    strides = [math.prod(mask.shape[:axis]) for axis in range(mask.ndim)]
    for place in mask.nonzero().tolist():
        kept[sum(i * stride for i, stride in zip(place, strides, strict=True)) :: mask.numel()] = True
    U, S = (
        torch.fft.fft(w * torch.nn.functional.pad(x.double(), (0, n - x.shape[-1]))) for x in (u, k[:, : u.shape[-1]])
    )
    return (torch.fft.ifft(U * S * kept) / w).real[..., : u.shape[-1]]


def compare(backend: str, u: Tensor, k: Tensor, mask: Tensor, definition: str = "reference") -> None:
    """Result and gradients against those of the definition, or of another backend, in double precision."""
    leaves = [t.requires_grad_() for t in (u, k)]
    wide = [t.detach().double().requires_grad_() for t in leaves]
    y, want = sparse_fft_conv(u, k, mask, backend=backend), sparse_fft_conv(wide[0], wide[1], mask, backend=definition)
    assert y.dtype == u.dtype and y.is_contiguous()
    tolerance = RELATIVE_L2[u.dtype]
    assert_close(y, want, tolerance)
    dy = torch.randn_like(y)
    grads = torch.autograd.grad(y, leaves, dy), torch.autograd.grad(want, wide, dy.double())
    for got, expected, leaf in zip(*grads, leaves, strict=True):
        assert got.dtype == leaf.dtype
        assert_close(got, expected, tolerance)


@pytest.mark.parametrize("shape", [(1,), (4,), (7,), (3, 2), (2, 2, 3), (2, 3, 1, 2)], ids=str)
@pytest.mark.parametrize("length", [1, 13, 24])
def test_reference_is_a_product_of_masked_spectra(shape: tuple[int, ...], length: int) -> None:
    u, k, mask = torch.randn(B, H, length).double(), torch.randn(H, length).double(), some(*shape)
    assert_close(sparse_fft_conv(u, k, mask, backend="reference"), by_transforms(u, k, mask))


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    length=st.integers(1, 90),
    taps=st.integers(1, 100),
    per_sample=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 99),
)
def test_agrees_with_reference(
    backend: str, shape: list[int], length: int, taps: int, per_sample: bool, dtype: torch.dtype, seed: int
) -> None:
    k = torch.randn(B, H, taps, dtype=dtype) if per_sample else torch.randn(H, taps, dtype=dtype)
    u, mask = torch.randn(B, H, length, dtype=dtype), some(*shape, seed=seed)
    compare(backend, u, k, mask)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("shape", [(1,), (8,), (4, 8), (64,), (3, 5), (2, 2, 3)], ids=str)
@pytest.mark.parametrize("size", [16, 48, 256])
def test_long_sequences(backend: str, shape: tuple[int, ...], size: int) -> None:
    mask = some(*shape)
    length = size * mask.numel()
    u, k = torch.randn(1, 2, length - 1), torch.randn(2, length)
    y = sparse_fft_conv(u, k, mask, backend=backend)
    assert_close(y, by_transforms(u, k, mask), RELATIVE_L2[torch.float32])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits(backend: str, dtype: torch.dtype) -> None:
    u, k, mask = torch.randn(B, H, 64).to(dtype), torch.randn(H, 60) / 8, some(4)
    compare(backend, u, k, mask)
    compare(backend, u.detach(), k.detach().to(dtype), mask)


@pytest.mark.parametrize("backend", [*FAST, "reference"])
@pytest.mark.parametrize("length", [1, 17, 48, 100])
def test_all_blocks_are_the_whole_convolution(backend: str, length: int) -> None:
    u, k = torch.randn(B, H, length).double(), torch.randn(H, 30).double()
    for shape in ((1,), (5,), (4, 3), (2, 2, 2, 2)):
        mask = torch.ones(shape, dtype=torch.bool)
        assert_close(sparse_fft_conv(u, k, mask, backend=backend), fft_conv(u, k, backend="reference"))


@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_masks_add_up(backend: str) -> None:
    u, k, mask = torch.randn(B, H, 48).double(), torch.randn(H, 40).double(), some(4, 3)
    parts = [sparse_fft_conv(u, k, m, backend=backend) for m in (mask, ~mask)]
    assert_close(parts[0] + parts[1], fft_conv(u, k))


def test_axes_count_from_the_first() -> None:
    """A mask of two axes is one of their product, transposed; an axis of blocks that are all kept is as none."""
    u, k, mask = torch.randn(B, H, 40).double(), torch.randn(H, 40).double(), some(4, 3)
    want = sparse_fft_conv(u, k, mask)
    assert_close(sparse_fft_conv(u, k, mask.T.flatten()), want)
    u, k, mask = u[..., :36], k[:, :36], some(6)
    assert_close(sparse_fft_conv(u, k, mask[:, None].expand(6, 3)), sparse_fft_conv(u, k, mask))
    assert residues(mask[:, None].expand(6, 3)).equal(mask.repeat(3))


@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_no_block_is_no_filter(backend: str) -> None:
    u, k = torch.randn(B, H, 64, requires_grad=True), torch.randn(H, 20, requires_grad=True)
    y = sparse_fft_conv(u, k, torch.zeros(4, dtype=torch.bool), backend=backend)
    y.sum().backward()
    assert u.grad is not None and k.grad is not None
    assert not y.any() and not u.grad.any() and not k.grad.any()


def test_groups_without_a_block_cost_nothing() -> None:
    """Products and lengths of transforms are in proportion to the groups that are kept, wherever the mask is True."""

    def work(mask: Tensor) -> tuple[int, int]:
        """Operations of products, and numbers of transforms."""
        filters = Filter(torch.randn(4, 4096), None, 4096, "causal", None)
        with FlopCounterMode(display=False) as counter:
            made = MaskedSpectrum(mask, filters)
            made.apply(torch.randn(1, 4, 4096))
        return counter.get_total_flops(), made.spectrum.numel()

    first, any_place = torch.zeros(8, 4, dtype=torch.bool), torch.zeros(8, 4, dtype=torch.bool)
    first[0, :2] = any_place[5, 1:3] = True
    whole = torch.ones_like(first)
    for mask in (first, any_place):
        assert best_split(residues(mask), 4096) % 8 == 0
        assert work(mask)[0] <= work(whole)[0] / 2 and work(mask)[1] <= work(whole)[1] / 8


@pytest.mark.parametrize("backend", FAST)
def test_nan_stays_in_its_row(backend: str) -> None:
    u, k = torch.randn(B, H, 128), torch.randn(H, 40)
    u[1, 2, 5] = k[0, 3] = torch.nan
    y = sparse_fft_conv(u, k, some(8), backend=backend)
    assert y[1, 2].isnan().any() and y[:, 0].isnan().any()
    assert y[:, 1].isfinite().all() and y[0, 2].isfinite().all()


@pytest.mark.parametrize("backend", [*FAST, "reference"])
def test_gradients_numerically(backend: str) -> None:
    u = torch.randn(2, 2, 22, dtype=torch.float64, requires_grad=True)
    for k in (torch.randn(2, 7, dtype=torch.float64), torch.randn(2, 2, 12, dtype=torch.float64)):
        k.requires_grad_()
        mask = some(2, 3)

        def function(u: Tensor, k: Tensor, mask: Tensor = mask) -> Tensor:
            return sparse_fft_conv(u, k, mask, backend=backend)

        assert torch.autograd.gradcheck(function, (u, k), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (u, k), fast_mode=True)


@pytest.mark.parametrize("shape", [(0, H, 8), (B, 0, 8), (B, H, 0)], ids=str)
def test_empty(shape: tuple[int, int, int]) -> None:
    u, k = torch.randn(shape, requires_grad=True), torch.randn(shape[1], 5, requires_grad=True)
    y = sparse_fft_conv(u, k, some(4))
    y.sum().backward()
    assert y.shape == shape
    assert all(t.grad is not None and not t.grad.any() for t in (u, k))


def test_layouts() -> None:
    u, k, mask = torch.randn(B, 20, H).mT, torch.randn(20, H).mT, some(3, 4).T
    want = sparse_fft_conv(u.contiguous(), k.contiguous(), mask.contiguous())
    assert_close(sparse_fft_conv(u, k, mask), want)
    assert_close(sparse_fft_conv(u[:, :1].expand(-1, H, -1), k, mask)[:, :1], sparse_fft_conv(u[:, :1], k[:1], mask))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"u": 3.0}, TypeError, r"u is 3.0"),
        ({"u": torch.ones(B, H)}, ValueError, r"u is a \(2, 3\)"),
        ({"k": torch.ones(H + 1, 4)}, ValueError, r"k is a \(4, 4\)"),
        ({"k": torch.ones(H, 4).double()}, TypeError, "k is .*float64"),
        ({"block_mask": [True]}, TypeError, "block_mask is .*list"),
        ({"block_mask": torch.ones(4)}, TypeError, "block_mask is .*float32"),
        ({"block_mask": torch.tensor(True)}, ValueError, r"block_mask is a \(\) bool"),
        ({"block_mask": torch.ones(1, 1, 1, 1, 1, dtype=torch.bool)}, ValueError, r"block_mask is a \(1, 1, 1, 1, 1\)"),
        ({"block_mask": torch.ones(4, 0, dtype=torch.bool)}, ValueError, "at least one block along every axis"),
        ({"block_mask": torch.ones(4, dtype=torch.bool, device="meta")}, ValueError, "block_mask is on meta"),
        ({"backend": "torhc"}, ValueError, "did you mean 'torch'"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    call: dict[str, Any] = {"u": torch.ones(B, H, 8), "k": torch.ones(H, 4), "block_mask": some(4), **change}
    with pytest.raises(error, match=words):
        sparse_fft_conv(**call)


@pytest.mark.native
def test_many_sequences_of_few_filters_go_by_fft_conv() -> None:
    quarter = torch.arange(8) < 2
    chosen = {
        (batch, k.ndim): BACKENDS.choose("auto", torch.randn(batch, H, 40), k, quarter).name
        for batch, k in [(3, torch.randn(H, 9)), (4, torch.randn(H, 9)), (4, torch.randn(4, H, 9))]
    }
    assert chosen == {(3, 2): "torch", (4, 2): "fft_conv", (4, 3): "torch"}
