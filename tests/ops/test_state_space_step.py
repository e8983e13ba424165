"""``state_space_step``: every backend and instruction set against the sums of its definition, written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import state_space_step
from longconv.ops.state_space_step.operator import BACKENDS, call
from tests.tolerances import assert_close

HERE = [name for name, reason in BACKENDS.status().items() if reason is None]
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def arguments(
    batch: int = 2,
    features: int = 3,
    modes: int = 5,
    channels: int = 2,
    rank: int = 2,
    dtype: torch.dtype = torch.complex128,
) -> list[Any]:
    """x, u, A, B, C, left, right of unit scale."""
    system = [torch.randn(rows, features, modes, dtype=torch.complex128) for rows in (1, 1, channels, rank, rank)]
    return [
        torch.randn(batch, features, modes, dtype=dtype),
        torch.randn(batch, features, dtype=REAL[dtype]),
        system[0][0],
        system[1][0],
        system[2],
        *(system[3:] if rank else (None, None)),
    ]


def defined(x: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, *low_rank: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sums, feature by feature, with dense matrices of real and imaginary parts."""
    left, right = low_rank
    after = torch.empty(x.shape, dtype=torch.complex128)
    for b, h in torch.cartesian_prod(torch.arange(x.shape[0]), torch.arange(x.shape[1])).tolist():
        after[b, h] = A[h] * x[b, h] + B[h] * u[b, h]
        if left is not None and right is not None:
            for gain, row in zip(left[:, h], right[:, h], strict=True):
                after[b, h] += gain * (row.real * x[b, h].real - row.imag * x[b, h].imag).sum()
    y = torch.stack([(c.real * after.real - c.imag * after.imag).sum(-1) for c in C], 1)
    return after, y


def check(backend: str, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    batch, features, modes, channels, rank = sizes
    given = arguments(batch, features, modes, channels, rank, dtype)
    for got, want in zip(state_space_step(*given, backend=backend), defined(*given), strict=True):
        assert got.dtype in (dtype, REAL[dtype])
        assert_close(got, want)


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    for modes in (1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32, 33, 100):
        for channels, rank in ((1, 0), (1, 1), (3, 2)):
            check("cpu", (3, 6, modes, channels, rank), dtype)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 9)] * 2, st.integers(1, 40), st.integers(1, 3), st.integers(0, 4)),
    dtype=st.sampled_from(list(REAL)),
    backend=st.sampled_from(HERE),
)
def test_shapes(sizes: tuple[int, ...], dtype: torch.dtype, backend: str) -> None:
    check(backend, sizes, dtype)


@pytest.mark.parametrize("backend", HERE)
def test_empty(backend: str) -> None:
    for sizes in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        given = arguments(*sizes)
        after, y = state_space_step(*given, backend=backend)
        assert after.shape == sizes
        assert torch.equal(y, torch.zeros(sizes[0], 2, sizes[1], dtype=torch.float64))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads(threads: int) -> None:
    """Enough features for several tasks, and the state that was given stays as it was."""
    torch.set_num_threads(threads)
    try:
        given = arguments(16, 700, 32, 1, 1, dtype=torch.complex64)
        before = given[0].clone()
        for got, want in zip(state_space_step(*given), state_space_step(*given, backend="torch"), strict=True):
            assert_close(got, want)
        assert torch.equal(given[0], before)
    finally:
        torch.set_num_threads(1)


def test_strides_and_lazy_conjugates() -> None:
    given = arguments()
    given[0], given[4] = given[0].mT.contiguous().mT, given[4].conj()
    given[2] = given[2][:1].expand(3, -1)
    for got, want in zip(state_space_step(*given), defined(*given), strict=True):
        assert_close(got, want)


def test_nan_stays_in_its_sample_and_feature() -> None:
    given = arguments()
    given[1][0, 1] = torch.nan
    after, y = state_space_step(*given)
    assert after[0, 1].isnan().all()
    assert y[0, :, 1].isnan().all()
    assert after.isnan().sum() == after.shape[-1]
    assert y.isnan().sum() == y.shape[1]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_gradients_of_lazily_conjugated_tensors(rank: int, dtype: torch.dtype) -> None:
    given = [t if t is None else t.requires_grad_() for t in arguments(rank=rank, dtype=dtype)]
    leaves = [t for t in given if t is not None]
    for place, leaf in enumerate(given):
        if leaf is None or not leaf.is_complex():
            continue
        grads = []
        for conjugated in (leaf.conj(), leaf.conj_physical()):
            changed = [*given[:place], conjugated, *given[place + 1 :]]
            after, y = state_space_step(*changed)
            grads.append(torch.autograd.grad(after.abs().square().sum() + y.square().sum(), leaves))
        for got, want in zip(*grads, strict=True):
            assert_close(got, want)


def test_gradients() -> None:
    given = [t.requires_grad_() for t in arguments(2, 2, 2, 1, 1)]
    torch.autograd.gradcheck(state_space_step, given)
    torch.autograd.gradgradcheck(state_space_step, given)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("rank", [0, 2])
def test_opcheck(backend: str, rank: int) -> None:
    given = [t if t is None else t.requires_grad_() for t in arguments(rank=rank)]
    torch.library.opcheck(torch.ops.longconv.state_space_step.default, (*given, backend))


def test_compile_and_vmap() -> None:
    given = arguments()
    compiled = torch.compile(state_space_step, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*given), state_space_step(*given), strict=True):
        assert_close(got, want)
    x, u = torch.randn(4, 2, 3, 5, dtype=torch.complex128), torch.randn(4, 3, dtype=torch.float64)
    mapped = torch.func.vmap(lambda x, u: state_space_step(x, u.expand(2, 3), *given[2:]))(x, u)
    for i in range(4):
        for got, want in zip(mapped, state_space_step(x[i], u[i].expand(2, 3), *given[2:]), strict=True):
            assert_close(got[i], want)


@pytest.mark.parametrize("mapped", [(0,), (1,), (0, 1), (2,), (0, 4), (5, 6), range(7)], ids=str)
@pytest.mark.parametrize("rank", [0, 2])
def test_vmap_is_one_call(mapped: Sequence[int], rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples, systems or parts of them are mapped, along any axis."""
    if rank == 0 and mapped == (5, 6):
        pytest.skip("there is no left and right to map")
    given, calls, find = arguments(rank=rank), [], call.ways.find
    many = [arguments(rank=rank) for _ in range(3)]
    stacked = [
        torch.stack([a[i] for a in many], -1) if i in mapped and g is not None else g for i, g in enumerate(given)
    ]
    dims = tuple(-1 if i in mapped and g is not None else None for i, g in enumerate(given))

    def spy(*args: Any) -> Any:
        calls.append(args)
        return find(*args)

    monkeypatch.setattr(call.ways, "find", spy)
    after, y = torch.func.vmap(state_space_step, dims)(*stacked)
    assert len(calls) == 1
    for i, one in enumerate(many):
        wants = defined(*(one[j] if j in mapped else g for j, g in enumerate(given)))
        for got, want in zip((after[i], y[i]), wants, strict=True):
            assert_close(got, want)


@pytest.mark.parametrize("place", [1, 3])
def test_vmap_over_no_samples(place: int) -> None:
    """Nor over no systems."""
    given: list[Any] = arguments()
    want = state_space_step(*given)
    given[place] = given[place].new_zeros(0, *given[place].shape)
    got = torch.func.vmap(state_space_step, tuple(0 if i == place else None for i in range(7)))(*given)
    assert [t.shape for t in got] == [(0, *t.shape) for t in want]


@pytest.mark.parametrize(
    ("index", "value", "error", "named"),
    [
        (0, torch.randn(2, 3, 5), TypeError, "x is"),
        (1, torch.randn(2, 3), TypeError, "u is"),
        (1, torch.randn(2, 4, dtype=torch.float64), ValueError, "u is"),
        (2, torch.randn(3, 4, dtype=torch.complex128), ValueError, "A is"),
        (3, torch.randn(3, 5, dtype=torch.complex64), TypeError, "B is"),
        (4, torch.randn(3, 5, dtype=torch.complex128), ValueError, "C is"),
        (5, None, ValueError, "left and right"),
        (6, torch.randn(1, 3, 5, dtype=torch.complex128), ValueError, "right is"),
        (6, torch.randn(2, 3, 5, dtype=torch.complex128, device="meta"), ValueError, "right is on meta"),
    ],
)
def test_bad_arguments(index: int, value: Tensor | None, error: type[Exception], named: str) -> None:
    given = arguments()
    given[index] = value
    with pytest.raises(error, match=named):
        state_space_step(*given)


def test_bad_backends() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        state_space_step(*arguments(), backend="gpu")
    with pytest.raises(ValueError, match="rank is 17"):
        state_space_step(*arguments(rank=17), backend="cpu")
    given = arguments(rank=17)  # the native backend does not take it, "auto" does
    for got, want in zip(state_space_step(*given), defined(*given), strict=True):
        assert_close(got, want)
