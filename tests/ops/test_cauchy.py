"""``cauchy``: the definition against a loop, the blocks against the definition, precision, memory and bad input."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import cauchy
from longconv.ops.cauchy import cpu
from longconv.ops.cauchy.operator import BACKENDS, OPERATOR
from tests.ops.native_calls import fast
from tests.tolerances import RELATIVE_L2, assert_close

FAST = [pytest.param(name, marks=[pytest.mark.slow] if name == "keops" else []) for name in fast(BACKENDS)]
WIDE = (torch.float64, torch.complex128)
SHAPES = [
    ((3, 5), (3, 5)),
    ((2, 3, 5), (3, 5)),
    ((5,), (4, 5)),
    ((2, 1, 3, 5), (4, 1, 5)),
    ((2, 4, 3, 5), (2, 1, 3, 5)),
    ((2, 4, 3, 1), (4, 1, 1)),
    ((5,), (5,)),
]


def points(length: int, dtype: torch.dtype) -> Tensor:
    """Points at a distance of at least 1 from the poles of :func:`poles`, on an arc or a line."""
    if dtype.is_complex:
        return (2 + torch.polar(torch.ones(length, dtype=torch.float64), torch.linspace(0, 3, length).double())).to(
            dtype
        )
    return (1.0 + torch.rand(length, dtype=torch.float64)).to(dtype)


def poles(*shape: int, dtype: torch.dtype) -> Tensor:
    real = -torch.rand(shape, dtype=torch.float64)
    return (torch.complex(real, torch.randn_like(real)) if dtype.is_complex else real).to(dtype)


def compare(inputs: tuple[Tensor, ...], backend: str, tolerance: float | None = None) -> None:
    """Value and all gradients of a backend against the definition."""
    inputs = tuple(t.requires_grad_() for t in inputs)
    y, want = cauchy(*inputs, backend=backend), cauchy(*inputs, backend="reference")
    assert y.dtype == want.dtype
    assert y.is_contiguous()
    assert_close(y, want, tolerance)
    g = torch.randn_like(want)
    for got, expected in zip(torch.autograd.grad(y, inputs, g), torch.autograd.grad(want, inputs, g), strict=True):
        assert got.dtype == expected.dtype
        assert_close(got, expected, tolerance)


@pytest.mark.parametrize("dtype", WIDE)
def test_reference_is_the_equation(dtype: torch.dtype) -> None:
    v, z, w = torch.randn(2, 4, dtype=dtype), points(7, dtype), poles(2, 4, dtype=dtype)
    want = torch.stack([torch.stack([(v[h] / (z[l] - w[h])).sum() for l in range(7)]) for h in range(2)])
    assert_close(cauchy(v, z, w, backend="reference"), want)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_agrees_with_reference(backend: str, data: st.DataObject) -> None:
    """Output and gradients over real and complex inputs, broadcast shapes, any number of points."""
    v_dtype, z_dtype, w_dtype = data.draw(st.tuples(*[st.sampled_from(WIDE)] * 3), label="dtypes")
    v_shape, w_shape = data.draw(st.sampled_from(SHAPES), label="shapes")
    length = data.draw(st.integers(1, 60), label="L")
    compare((torch.randn(v_shape, dtype=v_dtype), points(length, z_dtype), poles(*w_shape, dtype=w_dtype)), backend)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, *WIDE])
def test_many_blocks_in_every_dtype(backend: str, dtype: torch.dtype) -> None:
    """Sizes beyond one block of poles and one of points; single precision against the definition in double."""
    v, z, w = torch.randn(2, 7, 70, dtype=dtype), points(2500, dtype), poles(7, 70, dtype=dtype)
    compare((v, z, w), backend)


@pytest.mark.parametrize("backend", FAST)
def test_mixed_precision_forms_the_difference_in_the_wider_one(backend: str) -> None:
    """Points at 1e-6 of the poles' imaginary axis: rounding z and w to single precision would lose every digit."""
    angle = torch.linspace(1.0, 1.001, 64, dtype=torch.float64)
    w = torch.complex(torch.full_like(angle, -1e-6), angle + 3e-7)
    z, v = torch.complex(torch.zeros_like(angle), angle), torch.randn(64, dtype=torch.complex64)
    y = cauchy(v, z, w, backend=backend)
    assert y.dtype == torch.complex64
    assert_close(y, cauchy(v.to(torch.complex128), z, w, backend="reference"))
    assert cauchy(v.to(torch.complex128), z.to(torch.complex64), w, backend=backend).dtype == torch.complex128


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_numerically(shared: bool) -> None:
    v = torch.randn(2, 3, dtype=torch.complex128)
    inputs = [t.requires_grad_() for t in (v, points(4, v.dtype), poles(*(() if shared else (2,)), 3, dtype=v.dtype))]
    assert torch.autograd.gradcheck(cauchy, inputs)
    assert torch.autograd.gradgradcheck(cauchy, inputs)


def test_only_the_wanted_gradients() -> None:
    every = [
        torch.randn(2, 3, dtype=torch.complex128),
        points(4, torch.complex128),
        poles(2, 3, dtype=torch.complex128),
    ]
    want = torch.autograd.grad(cauchy(*(t.requires_grad_() for t in every)).real.sum(), every)
    for place in range(3):
        inputs = [t.detach().requires_grad_(i == place) for i, t in enumerate(every)]
        (got,) = torch.autograd.grad(cauchy(*inputs).real.sum(), [inputs[place]], create_graph=True)
        assert_close(got, want[place])
        assert torch.autograd.grad(got.real.square().sum(), inputs[place])[0].isfinite().all()


def test_non_contiguous_input() -> None:
    v = torch.randn(5, 3, 8, dtype=torch.complex128)[:, :, ::2].transpose(0, 1)
    w = poles(4, 5, dtype=torch.complex128).T
    z = points(18, torch.complex128)[::3]
    assert_close(cauchy(v, z, w), cauchy(v.contiguous(), z.contiguous(), w.contiguous(), backend="reference"))
    assert_close(cauchy(v.conj(), z, w.conj()), cauchy(v.conj(), z, w.conj(), backend="reference"))


@pytest.mark.parametrize("backend", FAST)
def test_nan_stays_in_its_sample(backend: str) -> None:
    v, z, w = (
        torch.randn(3, 2, 4, dtype=torch.complex64),
        points(6, torch.complex64),
        poles(2, 4, dtype=torch.complex64),
    )
    clean = cauchy(v, z, w, backend=backend)
    v[1, 0, 2] = torch.nan
    y = cauchy(v, z, w, backend=backend)
    assert y[1, 0].isnan().all()
    y[1, 0] = clean[1, 0]
    assert torch.equal(y, clean)


needs_library = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))


def shapes_of_points(length: int) -> dict[str, Tensor]:
    """A line past the poles of :func:`spread`, images of roots of unity, a cloud among the poles, one point."""
    roots = torch.polar(torch.ones(length), torch.linspace(0, 3.1, length)).to(torch.complex128)
    return {
        "line": torch.complex(torch.zeros(length), torch.linspace(-30, 30, length)).to(torch.complex128),
        "roots": 200 * (1 - roots) / (1 + roots),
        "cloud": 3 * torch.randn(length, dtype=torch.complex128) + 1,
        "point": torch.full((length,), 2 + 1j, dtype=torch.complex128),
    }


def spread(*shape: int) -> Tensor:
    """Poles beside the imaginary axis."""
    real = -0.1 - torch.rand(shape, dtype=torch.float64)
    return torch.complex(real, 10 * torch.randn_like(real))


@needs_library
@pytest.mark.parametrize("precision", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("points_precision", [torch.complex64, torch.complex128], ids=str)
def test_every_instruction_set(isa: str, precision: torch.dtype, points_precision: torch.dtype) -> None:
    """Near poles and far ones, on both sides of vectors and tiles; points in the sum's precision and beyond."""
    for count, length in [(1, 1), (7, 255), (40, 257), (70, 1030)]:
        for z in shapes_of_points(length).values():
            v, w = torch.randn(2, 2, count, dtype=precision), spread(2, count)
            compare((v, z.to(points_precision), w.to(points_precision)), "cpu", RELATIVE_L2[precision])


@needs_library
@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e30])
def test_sizes_that_leave_the_range_when_squared(scale: float) -> None:
    """Far poles and near ones, values and gradients, in single precision."""
    z, w = (scale * shapes_of_points(600)["line"]).to(torch.complex64), (scale * spread(2, 40)).to(torch.complex64)
    v, g = torch.randn(2, 40, dtype=torch.complex64) * scale, torch.randn(2, 600, dtype=torch.complex64) * scale
    inputs = [t.requires_grad_() for t in (v, w)]
    wide = [t.detach().to(torch.complex128).requires_grad_() for t in inputs]
    y, want = cauchy(v, z, w, backend="cpu"), cauchy(wide[0], z.to(torch.complex128), wide[1], backend="reference")
    assert_close(y, want)
    grads = torch.autograd.grad(y, inputs, g), torch.autograd.grad(want, wide, g.to(want.dtype))
    for got, expected in zip(*grads, strict=True):
        assert_close(got, expected)


@needs_library
def test_points_with_sets_of_their_own() -> None:
    """As ``vmap`` gives them, expanded ones too."""
    lines = torch.stack([shapes_of_points(300)[name] for name in ("line", "cloud")])[:, None]
    for z in (lines, lines[:1].expand(2, 1, 300)):
        inputs = [torch.randn(2, 3, 9, dtype=torch.complex128), z, spread(3, 9)]
        g, grads = torch.randn(2, 3, 300, dtype=torch.complex128), []
        for backend in ("cpu", "reference"):
            grads.append([OPERATOR.call(*inputs, backend), *OPERATOR.call_backward(g, *inputs, [True] * 3, backend)])
        for got, expected in zip(*grads, strict=True):
            assert_close(got, expected)


@needs_library
def test_results_do_not_depend_on_threads() -> None:
    results = []
    inputs = [torch.randn(5, 40, dtype=torch.complex64), shapes_of_points(5000)["line"], spread(5, 40)]
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            v, z, w = (t.to(torch.complex64).requires_grad_() for t in inputs)
            y = cauchy(v, z, w, backend="cpu")
            results.append((y, *torch.autograd.grad(y.real.sum(), (v, z, w))))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_library
def test_nan_among_the_points_stays_there() -> None:
    z, w = shapes_of_points(700)["line"].to(torch.complex64), spread(2, 40).to(torch.complex64)
    v = torch.randn(2, 40, dtype=torch.complex64)
    clean = cauchy(v, z, w, backend="cpu")
    z[5] = torch.nan
    y = cauchy(v, z, w, backend="cpu")
    assert y[:, 5].isnan().all()
    y[:, 5] = clean[:, 5]
    assert_close(y, clean, 1e-6)


MEMORY = """
import resource, torch
from longconv.ops import cauchy
torch.set_num_threads(1)
v = torch.randn(256, 64, dtype=torch.complex64, requires_grad=True)
w = torch.complex(-torch.rand(256, 64), torch.randn(256, 64)).requires_grad_()
z = torch.complex(torch.ones(65536), torch.linspace(-3, 3, 65536))
cauchy(v, z[:64], w).real.sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
cauchy(v, z, w).real.sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_is_bounded() -> None:
    """H = 256, N = 64, L = 65536, complex: the whole tensor would be 8.6 GB; forward and backward stay below 1 GB."""
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1e6, f"{int(result.stdout) / 1e3:.0f} MB above the start"


@pytest.mark.parametrize(("v", "z", "w"), [((2, 3), 0, (2, 3)), ((0, 3), 5, (3,)), ((2, 0), 5, (2, 0))])
def test_empty(v: tuple[int, ...], z: int, w: tuple[int, ...]) -> None:
    inputs = [torch.ones(shape, dtype=torch.complex64, requires_grad=True) for shape in (v, (z,), w)]
    y = cauchy(*inputs)
    y.real.sum().backward()
    assert y.shape == (v[0], z)
    assert y.count_nonzero() == 0
    assert all(t.grad is not None and t.grad.count_nonzero() == 0 for t in inputs)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"v": 3.0}, TypeError, "v is 3.0"),
        ({"v": torch.tensor(1.0)}, ValueError, r"v is a \(\).*\(..., N\)"),
        ({"v": torch.ones(3, dtype=torch.int64)}, TypeError, "v is .*int64"),
        ({"z": torch.ones(2, 4)}, ValueError, r"z is a \(2, 4\).*\(L,\)"),
        ({"z": torch.ones(4, dtype=torch.bfloat16)}, TypeError, "z is .*bfloat16"),
        ({"w": torch.ones(4)}, ValueError, r"w is a \(4,\).*N = 3"),
        ({"w": torch.ones(5, 3), "v": torch.ones(2, 3)}, ValueError, "broadcast"),
        ({"w": torch.ones(3, device="meta")}, ValueError, "w is on meta"),
        ({"backend": "keop"}, ValueError, "backend"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    call: dict[str, Any] = {"v": torch.ones(3), "z": torch.ones(4), "w": torch.zeros(3), **change}
    with pytest.raises(error, match=words):
        cauchy(**call)
