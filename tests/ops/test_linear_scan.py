"""``linear_scan``: the definition against scipy, the chunks against the definition, precision, memory and bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from torch import Tensor

from longconv import _native
from longconv.ops import linear_scan
from longconv.ops.linear_scan import cpu, torch_blocks
from longconv.ops.linear_scan.operator import BACKENDS
from tests.ops.native_calls import fast
from tests.tolerances import RELATIVE_L2, assert_close

FAST = fast(BACKENDS)
WIDE = (torch.float64, torch.complex128)


def coefficients(*shape: int, dtype: torch.dtype, least: float = 0.0) -> Tensor:
    """Numbers of absolute value ``least`` to 1, of any sign or phase."""
    size = least + (1 - least) * torch.rand(shape, dtype=torch.float64)
    if dtype.is_complex:
        return torch.polar(size, 7 * torch.rand(shape, dtype=torch.float64)).to(dtype)
    return (size * torch.randn(shape).sign()).to(dtype)


def by_steps(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """The recurrence in operations that autograd knows: the oracle of gradients."""
    shape = torch.broadcast_shapes(a.shape, b.shape)
    a, b = a.expand(shape).movedim(dim, 0), b.expand(shape).movedim(dim, 0)
    state = torch.zeros_like(a[0] * b[0]) if initial is None else initial
    states = []
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        state = a[t] * state + b[t]
        states.append(state)
    return torch.stack(states[::-1] if reverse else states).movedim(0, dim)


@pytest.mark.parametrize("reverse", [False, True])
def test_reference_is_a_recursive_filter(reverse: bool) -> None:
    b = torch.randn(50, dtype=torch.float64)
    want = torch.from_numpy(lfilter([1.0], [1.0, -0.8], b.flip(0).numpy() if reverse else b.numpy()))
    got = linear_scan(torch.tensor(0.8, dtype=torch.float64), b, dim=0, reverse=reverse, backend="reference")
    assert_close(got, want.flip(0) if reverse else want)


SHAPES = [  # a, b, initial, dim, with -1 in the place of L
    ((2, -1, 5), (2, -1, 5), (2, 5), 1),
    ((2, -1, 20), (2, -1, 20), None, 1),
    ((5,), (2, -1, 5), (5,), 1),
    ((2, 1, 5), (2, -1, 5), None, -2),
    ((3, 1, -1), (2, 3, 1, -1), (3, 1), 3),
    ((20,), (2, -1, 20), (2, 20), -2),
    ((-1, 3, 20), (-1, 1, 20), (3, 20), 0),
    ((2, -1, 1), (2, -1, 18), (1, 18), 1),
    ((), (-1,), (), 0),
    ((-1,), (-1,), None, 0),
    ((2, 3, -1), (2, 3, -1), (3,), -1),
]


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_states_and_gradients(backend: str, data: st.DataObject) -> None:
    """Against the recurrence under autograd: shapes, lengths around the chunks, real and complex, both directions."""
    a_dtype, b_dtype = data.draw(st.tuples(*[st.sampled_from(WIDE)] * 2), label="dtypes")
    shapes, reverse = data.draw(st.sampled_from(SHAPES), label="shapes"), data.draw(st.booleans(), label="reverse")
    length = data.draw(st.sampled_from([1, 2, 15, 16, 17, 63, 64, 65, 128, 131, 300]), label="L")
    a_shape, b_shape = (tuple(length if n == -1 else n for n in shape) for shape in shapes[:2])
    a, b = coefficients(*a_shape, dtype=a_dtype).requires_grad_(), torch.randn(b_shape, dtype=b_dtype).requires_grad_()
    initial = None if shapes[2] is None else torch.randn(shapes[2], dtype=b_dtype, requires_grad=True)
    h = linear_scan(a, b, initial, dim=shapes[3], reverse=reverse, backend=backend)
    want = by_steps(a, b, initial, shapes[3], reverse)
    assert h.dtype == want.dtype
    assert h.is_contiguous()
    assert_close(h, want)
    assert_close(linear_scan(a, b, initial, dim=shapes[3], reverse=reverse, backend="reference"), want)
    inputs = [t for t in (a, b, initial) if t is not None]
    g = torch.randn_like(want)
    grads = torch.autograd.grad(h, inputs, g)
    for got, expected in zip(grads, torch.autograd.grad(want, inputs, g, materialize_grads=True), strict=True):
        assert got.dtype == expected.dtype
        if expected.any():
            assert_close(got, expected)
        else:  # of a at L = 1 without an initial state
            assert torch.equal(got, expected)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.complex64, *WIDE], ids=str)
@pytest.mark.parametrize("timeless", [False, True])
def test_long_sequences_in_every_dtype(backend: str, dtype: torch.dtype, timeless: bool) -> None:
    """Memories of hundreds of steps, over several levels of chunks; against the definition on the same numbers."""
    length = 9000
    a = coefficients(1 if timeless else length, 24, dtype=dtype, least=0.99).requires_grad_()
    b, initial = torch.randn(length, 24, dtype=dtype).requires_grad_(), torch.randn(24, dtype=dtype).requires_grad_()
    wide = [t.detach().to(torch.promote_types(dtype, torch.float64)).requires_grad_() for t in (a, b, initial)]
    h = linear_scan(a, b, initial, dim=0, backend=backend)
    want = linear_scan(*wide, dim=0, backend="reference")
    assert h.dtype == dtype
    assert_close(h, want)
    g = torch.randn_like(b) / 256  # float16 ends at 65504
    grads = torch.autograd.grad(h, (a, b, initial), g), torch.autograd.grad(want, wide, g.to(want.dtype))
    for got, expected in zip(*grads, strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("backend", FAST)
def test_a_wandering_sum_stays_exact(backend: str) -> None:
    """a = 1 for 65536 steps in single precision, where steps alone would lose an order more."""
    b = torch.randn(65536, 3)
    want = b.double().cumsum(0)
    assert_close(linear_scan(torch.ones(()), b, dim=0, backend=backend), want, RELATIVE_L2[torch.float32] / 2)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_zeros_underflow_and_growth(backend: str, dtype: torch.dtype) -> None:
    """Coefficients of 0, products that underflow, and products that overflow against a state of 0."""
    a, b = coefficients(300, 4, dtype=dtype), torch.randn(300, 4, dtype=dtype)
    a[::7], a[:, 1], a[:, 2] = 0, 1e-30, 0
    assert_close(linear_scan(a, b, dim=0, backend=backend), by_steps(a, b, None, 0, False))
    assert torch.equal(linear_scan(torch.zeros(4), b, dim=0, backend=backend), b)
    a, b = torch.full((400, 1), 1e200, dtype=dtype), torch.zeros(400, 1, dtype=dtype)
    a[300:], b[301:] = 0.5, 1
    assert_close(linear_scan(a, b, dim=0, backend=backend), by_steps(a, b, None, 0, False))


@pytest.mark.parametrize("length", [1024, 9000])
@pytest.mark.parametrize("timeless", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, *WIDE], ids=str)
def test_products_that_overflow_beside_states_of_zero(
    dtype: torch.dtype, timeless: bool, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on devices where the products are not looked at; over two and three levels of chunks."""
    monkeypatch.setattr(torch_blocks, "_overflowed", lambda products: False)
    a = torch.full((1 if timeless else length, 30), 1e3, dtype=dtype)
    b = torch.zeros(length, 30, dtype=dtype)
    b[-5:] = torch.randn(5, 30, dtype=dtype)
    for flipped in (False, True):
        b = b.flip(0) if flipped else b
        h = linear_scan(a, b, dim=0, reverse=flipped, backend="torch")
        assert_close(h, linear_scan(a, b, dim=0, reverse=flipped, backend="reference"))


needs_library = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, *WIDE], ids=str)
def test_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    """Widths on both sides of vectors, rows and lanes; coefficients, inputs and initial states that repeat."""
    for shape in [(3, 5, width) for width in (1, 3, 7, 16, 33, 100, 2100)] + [(19, 40, 1), (9, 6, 5), (1, 300, 1)]:
        full, lanes = coefficients(*shape, dtype=dtype), torch.randn(shape[0], shape[2], dtype=dtype)
        for a in (full, full[:, :1], full[:1], full[:, :, :1], full[0, 0]):
            for b in (torch.randn(shape, dtype=dtype), torch.randn(shape[:2], dtype=dtype)[..., None].expand(shape)):
                for initial, reverse in [(None, False), (lanes, True), (lanes[:, :1], False), (lanes[0], True)]:
                    h = linear_scan(a, b, initial, reverse=reverse, backend="cpu")
                    assert_close(h, by_steps(a, b, initial, 1, reverse))


@needs_library
@pytest.mark.parametrize("threads", [2, 3])
def test_obeys_set_num_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        for shape in [(1, 4000, 70), (40, 900, 1), (5, 900, 20)]:
            a, b = coefficients(*shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
            assert_close(linear_scan(a, b, backend="cpu"), by_steps(a, b, None, 1, False))
    finally:
        torch.set_num_threads(1)


def test_an_older_library_is_a_reason() -> None:
    old = _native.Library("cpu", Path("old.so"), handle=object())  # type: ignore[arg-type]
    assert "old.so is older" in str(old.lacks("linear_scan"))
    assert _native.Library("cpu", reason="not built").lacks("linear_scan") == "not built"


def test_chunks_of_a_stream_are_one_scan() -> None:
    a, b = coefficients(2, 200, 6, dtype=torch.complex128), torch.randn(2, 200, 6, dtype=torch.complex128)
    whole, state, parts = linear_scan(a, b), None, []
    for start, stop in [(0, 1), (1, 70), (70, 200)]:
        parts.append(linear_scan(a[:, start:stop], b[:, start:stop], state))
        state = parts[-1][:, -1]
    assert_close(torch.cat(parts, 1), whole)


@pytest.mark.parametrize("dtype", WIDE, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_numerically(dtype: torch.dtype, reverse: bool) -> None:
    def scan(a: Tensor, b: Tensor, initial: Tensor) -> Tensor:
        return linear_scan(a, b, initial, reverse=reverse)

    for shape in [(2, 4, 2), (1, 2)]:
        inputs = [coefficients(*shape, dtype=dtype), torch.randn(2, 4, 2, dtype=dtype), torch.randn(2, 2, dtype=dtype)]
        inputs = [t.requires_grad_() for t in inputs]
        assert torch.autograd.gradcheck(scan, inputs)
        assert torch.autograd.gradgradcheck(scan, inputs)


def test_non_contiguous_input() -> None:
    a = coefficients(9, 2, 400, dtype=torch.float64).permute(1, 2, 0)[:, ::2]
    b = torch.randn(2, 9, 200, dtype=torch.complex128).transpose(1, 2).conj()
    assert_close(linear_scan(a, b), by_steps(a, b, None, 1, False))


@pytest.mark.parametrize("backend", FAST)
def test_nan_stays_in_its_sequence_and_after_its_time(backend: str) -> None:
    a, b = coefficients(3, 300, 5, dtype=torch.float32), torch.randn(3, 300, 5)
    clean = linear_scan(a, b, backend=backend)
    b[1, 200, 2] = torch.nan
    h = linear_scan(a, b, backend=backend)
    assert h[1, 200:, 2].isnan().all()
    h[1, 200:, 2] = clean[1, 200:, 2]
    assert torch.equal(h, clean)


MEMORY = """
import resource, torch
from longconv import _native
from longconv.ops import linear_scan
from longconv.ops.linear_scan import cpu
torch.set_num_threads(1)
a, b = torch.rand(1, 65536, 256, requires_grad=True), torch.randn(1, 65536, 256, requires_grad=True)
linear_scan(a[:, :512], b[:, :512]).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear_scan(a, b).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded() -> None:
    """Of the size of a few results (67 MB each), forward and backward; a tree that keeps its levels has 16 of them."""
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 8 * 67e3, f"{int(result.stdout) / 1e3:.0f} MB above the start"


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 5, 3), (2, 5, 0)])
def test_empty(shape: tuple[int, ...]) -> None:
    a, b = torch.ones(shape, requires_grad=True), torch.ones(shape, requires_grad=True)
    initial = torch.ones(shape[0], shape[2], requires_grad=True)
    h = linear_scan(a, b, initial)
    h.sum().backward()
    assert h.shape == shape
    assert all(t.grad is not None and t.grad.count_nonzero() == 0 for t in (a, b, initial))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"a": 0.5}, TypeError, "a is 0.5"),
        ({"b": torch.ones(2, 4, 3, dtype=torch.int64)}, TypeError, "b is .*int64"),
        ({"b": torch.tensor(1.0)}, ValueError, r"b is a \(\)"),
        ({"a": torch.ones(1, 2, 4, 3)}, ValueError, r"a is a \(1, 2, 4, 3\)"),
        ({"a": torch.ones(2, 3, 3)}, ValueError, r"a is a \(2, 3, 3\).*must broadcast"),
        ({"a": torch.ones(3, device="meta")}, ValueError, "a is on meta"),
        ({"initial": torch.ones(2, 4)}, ValueError, r"initial is a \(2, 4\).*\(2, 3\)"),
        ({"initial": torch.ones(2, 4, 3)}, ValueError, r"initial is a \(2, 4, 3\)"),
        ({"initial": torch.ones(2, 3, device="meta")}, ValueError, "initial is on meta"),
        ({"dim": 3}, ValueError, "dim is 3"),
        ({"dim": 1.0}, TypeError, "dim is 1.0"),
        ({"reverse": "no"}, TypeError, "reverse is 'no'.*True or False"),
        ({"backend": "tree"}, ValueError, "backend"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    call: dict[str, Any] = {"a": torch.ones(2, 4, 3), "b": torch.ones(2, 4, 3), **change}
    with pytest.raises(error, match=words):
        linear_scan(**call)
