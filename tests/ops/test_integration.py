"""Every op under torch's own machinery: opcheck, compile, export, autocast, vmap and torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim
from torch.func import grad, jacrev, vmap

from longconv.ops import (
    butterfly_conv,
    cauchy,
    dense_taps,
    fft_conv,
    linear_scan,
    short_conv,
    sparse_fft_conv,
    state_space_step,
    state_space_taps,
    transpose,
    vandermonde,
    vandermonde_log,
)
from tests.tolerances import assert_close, relative_l2

B, H, L, K, N = 2, 3, 12, 9, 4
BLOCKS = torch.tensor([[True, False, True], [False, False, False]])


def real(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def nodes(*shape: int) -> Tensor:
    return torch.complex(-torch.rand(shape, dtype=torch.float64), real(*shape).detach()).requires_grad_()


def points(length: int) -> Tensor:
    """Points to the right of the nodes."""
    return torch.complex(torch.ones(length), torch.randn(length)).to(torch.complex128).requires_grad_()


def dplr() -> list[Tensor]:
    """A, B, C, left and right of a state space of rank 2."""
    return [(0.5 * nodes(H, N).detach()).requires_grad_(), nodes(H, N), nodes(2, H, N), nodes(2, H, N), nodes(2, H, N)]


def dense() -> list[Tensor]:
    """A, B and C of a dense state space with 2 outputs."""
    return [(0.3 * real(H, N, N).detach()).requires_grad_(), real(H, N), real(H, 2, N)]


def butterfly() -> list[Tensor]:
    """Two samples, filters, and the matrices of 3 x 2 stages."""
    shapes = 2 * ((3, 3, 2), (3, 2, 2), (2, 2, 2))
    return [real(B, 6, H), real(6, H), *(real(*shape) for shape in shapes)]


def operator_calls() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    ops, lengths = torch.ops.longconv, torch.tensor([L, 7])
    full = (real(H, K), real(H, 5), real(H), real(B, H, L), real(B, H, L), lengths)
    bare = (real(B, H, K), None, None, None, None, None)
    v, log_x = nodes(2, H, N), nodes(H, N)
    return {
        "butterfly_conv": (ops.butterfly_conv, (*butterfly(), True, "auto")),
        "butterfly_conv_backward": (
            ops.butterfly_conv_backward,
            (real(B, 6, H), *butterfly(), False, [True, False, *[True] * 6], "auto"),
        ),
        "dense_taps": (ops.dense_taps, (*dense(), L, "auto")),
        "dense_taps_backward": (ops.dense_taps_backward, (real(H, 2, L), *dense(), "auto")),
        "fft_conv-full": (ops.fft_conv, (real(B, H, L), *full, "causal", "auto")),
        "fft_conv-bare": (ops.fft_conv, (real(B, H, L), *bare, "circular", "auto")),
        "fft_conv_backward-full": (
            ops.fft_conv_backward,
            (real(B, H, L), real(B, H, L), *full, "causal", [True] * 6, "auto"),
        ),
        "fft_conv_backward-part": (
            ops.fft_conv_backward,
            (real(B, H, L), None, *bare, "causal", [True, *[False] * 5], "auto"),
        ),
        "cauchy": (ops.cauchy, (v, points(L), log_x, "auto")),
        "cauchy-real": (ops.cauchy, (real(2, H, N), real(L), real(H, N), "auto")),
        "cauchy_backward": (
            ops.cauchy_backward,
            (v.new_ones(2, H, L), v, points(L), log_x, [True, False, True], "auto"),
        ),
        "linear_scan": (ops.linear_scan, (v, log_x[None], nodes(2, 1, N), -2, False, "auto")),
        "linear_scan-real": (ops.linear_scan, (real(1, H), real(L, H), None, -2, True, "auto")),
        "short_conv": (ops.short_conv, (real(B, H, L), real(H, 3), real(H), real(B, H, 2), "gelu", "auto")),
        "short_conv-bare": (ops.short_conv, (real(B, H, L), real(H, 3), None, None, "none", "auto")),
        "sparse_fft_conv": (ops.sparse_fft_conv, (real(B, H, L), real(H, K), BLOCKS, "auto")),
        "sparse_fft_conv_backward": (
            ops.sparse_fft_conv_backward,
            (real(B, H, L), real(B, H, L), real(B, H, K), BLOCKS, [True, True], "auto"),
        ),
        "sparse_fft_conv_backward-part": (
            ops.sparse_fft_conv_backward,
            (real(B, H, L), None, real(H, K), BLOCKS, [True, False], "auto"),
        ),
        "state_space_taps": (ops.state_space_taps, (*dplr(), L, "auto")),
        "state_space_taps_backward": (ops.state_space_taps_backward, (real(2, H, L), *dplr(), "auto")),
        "vandermonde": (ops.vandermonde, (v, log_x, L, False, "auto")),
        "vandermonde-real": (ops.vandermonde, (real(H, N), real(2, H, N), L, False, "auto")),
        "vandermonde_backward": (ops.vandermonde_backward, (real(2, H, L), v, log_x, True, "auto")),
        "vandermonde_log-complex": (ops.vandermonde_log, (v, log_x, L, False, "auto")),
        "vandermonde_log-real-part": (ops.vandermonde_log, (v, log_x, L, True, "auto")),
        "vandermonde_log_backward": (ops.vandermonde_log_backward, (real(2, H, L), v, log_x, True, "auto")),
    }


@pytest.mark.parametrize("name", operator_calls())
def test_opcheck(name: str) -> None:
    operator, arguments = operator_calls()[name]
    torch.library.opcheck(operator.default, arguments)


def as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def functions() -> dict[str, tuple[Callable[..., Tensor], list[Tensor]]]:
    """A differentiable function an op, of tensors alone."""
    lengths = torch.tensor([L, 7])

    def convolve(u: Tensor, k: Tensor, r: Tensor, skip: Tensor, pre: Tensor, post: Tensor) -> Tensor:
        return fft_conv(u, k, k_reverse=r, skip=skip, pre_gate=pre, post_gate=post, lengths=lengths)

    def step(*given: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in map(as_real, state_space_step(*given))])

    return {
        "butterfly_conv": (lambda *given: butterfly_conv(*given, tail=True), butterfly()),
        "fft_conv": (convolve, [real(B, H, L), real(H, K), real(H, 5), real(H), real(B, H, L), real(B, H, L)]),
        "cauchy": (lambda v, z, w: cauchy(v, z, w).real, [nodes(2, H, N), points(L), nodes(H, N)]),
        "dense_taps": (lambda a, b, c: dense_taps(a, b, c, L), dense()),
        "linear_scan": (lambda a, b, h: linear_scan(a, b, h).real, [nodes(H), nodes(B, L, H), nodes(B, H)]),
        "linear_scan-reverse": (
            lambda a, b: linear_scan(a, b, dim=-1, reverse=True),
            [real(B, 1, L), real(B, H, L)],
        ),
        "short_conv": (
            lambda u, w, bias, initial: short_conv(u, w, bias, activation="silu", initial=initial),
            [real(B, H, L), real(H, 3), real(H), real(B, H, 2)],
        ),
        "sparse_fft_conv": (lambda u, k: sparse_fft_conv(u, k, BLOCKS), [real(B, H, L), real(H, K)]),
        "state_space_step": (step, [nodes(B, H, N), real(B, H), *dplr()]),
        "state_space_taps": (lambda a, b, c, left, right: state_space_taps(a, b, c, left, right, L), dplr()),
        "transpose": (transpose, [real(B, H, L)]),
        "vandermonde": (lambda v, x: vandermonde(v, x, L).real, [nodes(2, H, N), nodes(H, N)]),
        "vandermonde_log": (lambda v, x: vandermonde_log(v, x, L, real=True), [nodes(2, H, N), nodes(H, N)]),
    }


@pytest.mark.parametrize("name", functions())
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile_fullgraph(name: str, compiler: str) -> None:
    function, inputs = functions()[name]
    compiled = torch.compile(function, fullgraph=True, backend=compiler)
    y, want = compiled(*inputs), function(*inputs)
    assert_close(y, want)
    dy = torch.randn_like(want)
    for got, expected in zip(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(want, inputs, dy), strict=True):
        assert_close(got, expected)


def dplr_of(k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A state space with 4 modes from the first 8 numbers of k (H, L)."""
    A = torch.complex(torch.tanh(k[:, :4]), torch.tanh(k[:, 4:8])) / 2
    return A, A, A[None], A[None] / 2, A[None] / 2


LENGTHS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cauchy": lambda u, k: cauchy(k[:, :4], 3 + u[0, 0].square(), -k[:, 4:8].square()),
    "dense_taps": lambda u, k: dense_taps(k[:, None, :4] * k[:, :4, None] / 9, k[:, :4], k[:, None, 4:8], u.shape[-1]),
    "fft_conv": fft_conv,
    "linear_scan": lambda u, k: linear_scan(torch.tanh(k), u, u[..., 0], dim=-1),
    "short_conv": lambda u, k: short_conv(u, k[:, :4], k[:, 0], activation="gelu", initial=u[..., :3]),
    "sparse_fft_conv": lambda u, k: sparse_fft_conv(u, k, BLOCKS),
    "state_space_taps": lambda u, k: state_space_taps(*dplr_of(k), length=u.shape[-1]),
    "vandermonde": lambda u, k: vandermonde(k[:, :4], torch.tanh(k[:, 4:8]), u.shape[-1]),
    "vandermonde_log": lambda u, k: vandermonde_log(k[:, :4], -k[:, 4:8].square(), u.shape[-1]),
}
"""Calls that depend on the length of u (B, H, L) and k (H, L)."""


@pytest.mark.parametrize("name", LENGTHS)
def test_compile_keeps_one_graph_over_lengths(name: str) -> None:
    graphs = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(LENGTHS[name], fullgraph=True, backend=graphs, dynamic=True)
    for length in (9, 31, 64):
        u, k = real(B, H, length), real(H, length)
        y, want = compiled(u, k), LENGTHS[name](u, k)
        assert_close(y, want)
        g = torch.randn_like(want)
        pairs = [torch.autograd.grad(t, (u, k), g, materialize_grads=True) for t in (y, want)]
        for got, expected in zip(*pairs, strict=True):
            assert torch.equal(got, expected) if not expected.any() else relative_l2(got, expected) < 1e-12
    assert graphs.frame_count == 1


@pytest.mark.parametrize("name", functions())
def test_vmap_over_each_argument(name: str) -> None:
    function, inputs = functions()[name]
    for place, tensor in enumerate(inputs):
        stack = torch.stack([tensor.detach() * scale for scale in (1.0, -0.5, 0.25)])
        rest = [t.detach() for t in inputs]

        def one(t: Tensor, place: int = place, rest: list[Tensor] = rest) -> Tensor:
            return function(*rest[:place], t, *rest[place + 1 :])

        assert_close(vmap(one)(stack), torch.stack([one(t) for t in stack]))
        assert_close(vmap(one, in_dims=1)(stack.movedim(0, 1)), torch.stack([one(t) for t in stack]))


@pytest.mark.parametrize("name", functions())
def test_vmap_over_no_samples(name: str) -> None:
    function, inputs = functions()[name]
    first, *rest = (t.detach() for t in inputs)
    none = first.new_zeros(0, *first.shape)
    assert vmap(lambda t: function(t, *rest))(none).shape == (0, *function(*inputs).shape)
    assert vmap(grad(lambda t: function(t, *rest).sum()))(none).shape == none.shape


def test_vmap_over_no_lengths() -> None:
    u, k, none = torch.randn(B, H, L), torch.randn(H, K), torch.zeros(0, B, dtype=torch.int64)
    assert vmap(lambda n: fft_conv(u, k, lengths=n))(none).shape == (0, B, H, L)


def test_vmap_over_masks() -> None:
    u, k, masks = torch.randn(3, B, H, L), torch.randn(H, K), torch.rand(3, 4) < 0.5
    masks[:, 0] = True
    got = vmap(lambda u, mask: sparse_fft_conv(u, k, mask))(u, masks)
    assert_close(got, torch.stack([sparse_fft_conv(a, k, mask) for a, mask in zip(u, masks, strict=True)]))
    assert vmap(lambda mask: sparse_fft_conv(u[0], k, mask))(masks[:0]).shape == (0, B, H, L)


def test_vmap_over_lengths() -> None:
    u, k, lengths = torch.randn(3, B, H, L), torch.randn(H, K), torch.tensor([[12, 5], [3, 0], [7, 8]])
    got = vmap(lambda u, n: fft_conv(u, k, lengths=n))(u, lengths)
    assert_close(got, torch.stack([fft_conv(a, k, lengths=n) for a, n in zip(u, lengths, strict=True)]))


@pytest.mark.parametrize("name", functions())
def test_per_sample_gradients(name: str) -> None:
    """vmap of grad, and a Jacobian, against a loop over autograd."""
    function, inputs = functions()[name]
    first, rest = inputs[0].detach(), [t.detach() for t in inputs[1:]]
    stack = torch.stack([first, 2 * first])

    def loss(t: Tensor) -> Tensor:
        return function(t, *rest).square().sum()

    got = vmap(grad(loss))(stack)
    want = torch.stack(
        [torch.autograd.grad(loss(leaf), leaf)[0] for leaf in (t.clone().requires_grad_() for t in stack)]
    )
    assert_close(got, want)


def test_jacobian() -> None:
    """The map is linear in u, so its Jacobian times u is its value."""
    function, inputs = functions()["fft_conv"]
    u, *rest = (t.detach() for t in inputs)
    jacobian = jacrev(lambda t: function(t, *rest))(u)
    assert_close(torch.einsum("...bhl,bhl->...", jacobian, u), function(u, *rest))


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.randn(H, K))

    def forward(self, u: Tensor) -> Tensor:
        return fft_conv(u, self.k)


def test_export_with_dynamic_shapes() -> None:
    layer = Layer()
    program = torch.export.export(
        layer, (torch.randn(B, H, L),), dynamic_shapes={"u": {0: Dim("b"), 2: Dim("l", min=2)}}
    )
    assert any("longconv.fft_conv" in str(node.target) for node in program.graph.nodes)
    u = torch.randn(5, H, 33)
    assert_close(program.module()(u), layer(u))


def test_autocast_follows_the_input() -> None:
    """The input's dtype rules: filters stay wide, and gates of another width follow."""
    u, k, gate = torch.randn(B, H, L), torch.randn(H, K), torch.randn(B, H, L)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = fft_conv(u.bfloat16(), k, pre_gate=gate, skip=torch.ones(H))
        assert fft_conv(u, k, post_gate=gate.bfloat16()).dtype == torch.float32
        taps = torch.ones(H, K)
        for wide in (u, u.double()):
            got = fft_conv(wide, taps.bfloat16(), k_reverse=taps.bfloat16(), skip=taps[:, 0].bfloat16())
            want = fft_conv(wide, taps.to(wide), k_reverse=taps.to(wide), skip=taps[:, 0].to(wide))
            assert torch.equal(got, want)
    assert y.dtype == torch.bfloat16
    with pytest.raises(TypeError, match="k is .*bfloat16"):
        fft_conv(u, k.bfloat16())
    with pytest.raises(TypeError, match="pre_gate"):
        fft_conv(u.bfloat16(), k, pre_gate=gate)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_autocast_leaves_the_arithmetic_alone(backend: str) -> None:
    """Matrix products inside a kernel stay in the op's precision, forward and backward."""
    v, log_x = nodes(2, H, N).detach().requires_grad_(), nodes(H, N).detach()
    u, k = real(B, H, L, dtype=torch.float32), real(H, K, dtype=torch.float32)

    def values() -> list[Tensor]:
        powers, y = vandermonde_log(v, log_x, L, real=True, backend=backend), fft_conv(u, k, backend=backend)
        return [powers, y, *torch.autograd.grad(powers.sum() + y.sum(), (v, u, k))]

    want = values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = values()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("name", functions())
def test_autocast_changes_nothing(name: str) -> None:
    function, inputs = functions()[name]
    want = function(*inputs)
    grads = torch.autograd.grad(want.square().sum(), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = function(*inputs)
        assert torch.equal(got, want)
        again = torch.autograd.grad(got.square().sum(), inputs)
    assert all(torch.equal(a, b) for a, b in zip(again, grads, strict=True))


@pytest.mark.parametrize("name", functions())
def test_export(name: str) -> None:
    function, inputs = functions()[name]

    class Function(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return function(*tensors)

    program = torch.export.export(Function(), tuple(t.detach() for t in inputs))
    assert any("longconv." in str(node.target) for node in program.graph.nodes)
    assert_close(program.module()(*inputs), function(*inputs))


@pytest.mark.gpu
@pytest.mark.parametrize("name", functions())
def test_on_the_gpu_as_on_the_cpu(name: str) -> None:
    function, inputs = functions()[name]
    assert_close(function(*(t.cuda() for t in inputs)).cpu(), function(*inputs))
