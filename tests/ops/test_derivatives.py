"""Derivatives of every op beyond the first, in reverse and forward mode, under torch.func and by autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacrev, jvp, vmap

from longconv.ops import cauchy, vandermonde, vandermonde_log
from tests.ops.test_integration import B, H, L, N, functions, nodes, points
from tests.tolerances import assert_close


def cubic_loss(name: str) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A sum of cubes as a function of real tensors, complex ones by their real and imaginary parts."""
    function, inputs = functions()[name]

    def loss(*tensors: Tensor) -> Tensor:
        given = [torch.view_as_complex(r) if t.is_complex() else r for r, t in zip(tensors, inputs, strict=True)]
        return function(*given).pow(3).sum()

    views = [torch.view_as_real(t.detach()) if t.is_complex() else t.detach() for t in inputs]
    return loss, [view.clone().requires_grad_() for view in views]


@pytest.mark.parametrize("name", functions())
def test_second_derivatives_under_transforms(name: str) -> None:
    """Of the gradient's square norm, and the Hessian, against those by autograd."""
    loss, inputs = cubic_loss(name)
    places = tuple(range(len(inputs)))
    detached = [t.detach() for t in inputs]

    def steepness(gradients: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([g.square().sum() for g in gradients]).sum()

    got = grad(lambda *ts: steepness(grad(loss, places)(*ts)), places)(*detached)
    first = torch.autograd.grad(loss(*inputs), inputs, create_graph=True)
    for ours, want in zip(got, torch.autograd.grad(steepness(first), inputs, retain_graph=True), strict=True):
        assert_close(ours, want)
    for place in places:
        got_hessian = jacrev(jacrev(loss, place), place)(*detached)
        rows = torch.stack(
            [torch.autograd.grad(g, inputs[place], retain_graph=True)[0] for g in first[place].flatten()]
        )
        assert_close(got_hessian.flatten(0, first[place].ndim - 1), rows)


@pytest.mark.parametrize("name", functions())
def test_gradient_of_a_mapped_function(name: str) -> None:
    """The gradient of vmap, all arguments mapped, against a loop."""
    loss, inputs = cubic_loss(name)
    stacks = [torch.stack([t.detach(), -0.5 * t.detach()]) for t in inputs]
    got = grad(lambda *ts: vmap(loss)(*ts).sum(), tuple(range(len(inputs))))(*stacks)
    for i in range(2):
        samples = [s[i].clone().requires_grad_() for s in stacks]
        for ours, want in zip(got, torch.autograd.grad(loss(*samples), samples), strict=True):
            assert_close(ours[i], want)


@pytest.mark.parametrize("name", functions())
def test_third_derivatives_numerically(name: str) -> None:
    """The second derivative of the gradient by finite differences."""
    loss, inputs = cubic_loss(name)

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(*tensors), tensors, create_graph=True)

    assert torch.autograd.gradgradcheck(gradients, inputs, fast_mode=True)


@pytest.mark.parametrize("name", functions())
def test_forward_mode(name: str) -> None:
    """Tangents of dual tensors against finite differences, those of torch.func.jvp, and the Hessian by both modes."""
    function, inputs = functions()[name]
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, check_backward_ad=False, fast_mode=True)
    primals, tangents = tuple(t.detach() for t in inputs), tuple(torch.randn_like(t) for t in inputs)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(p, t) for p, t in zip(primals, tangents, strict=True)]
        want = forward_ad.unpack_dual(function(*duals)).tangent
    assert want is not None
    assert_close(jvp(function, primals, tangents)[1], want)
    loss, real = cubic_loss(name)
    views = [t.detach() for t in real]
    assert_close(hessian(loss)(*views), jacrev(jacrev(loss))(*views))


@pytest.mark.parametrize("sizes", [(0, H, L, N), (B, 0, L, N), (B, H, 0, N), (B, H, L, 0)], ids=str)
def test_second_derivatives_of_empty_sums(sizes: tuple[int, int, int, int]) -> None:
    """Sums without sets, points or terms."""
    b, h, length, n = sizes
    v, x = nodes(b, h, n), nodes(h, n)
    z = points(length)
    for y, inputs in [
        (cauchy(v, z, x), (v, z, x)),
        (vandermonde(v, x, length), (v, x)),
        (vandermonde_log(v, x, length), (v, x)),
    ]:
        assert y.shape == (b, h, length) and y.count_nonzero() == 0
        first = torch.autograd.grad(y.abs().square().sum(), inputs, create_graph=True)
        loss = torch.stack([g.abs().square().sum() for g in first]).sum()
        for second, t in zip(torch.autograd.grad(loss, inputs), inputs, strict=True):
            assert second.shape == t.shape and second.count_nonzero() == 0
