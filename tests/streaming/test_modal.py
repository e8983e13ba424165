"""Streams through few modes: a chunk of any length is so many steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longconv.streaming.modal import BLOCK, GROUP, DiagonalState, prefill, step
from tests.tolerances import assert_close

B, H, C, P = 2, 3, 2, 4


def system(dtype: torch.dtype) -> tuple[DiagonalState, Tensor]:
    """A stream under way, with the skip; the modes forget in 10 samples to a million, and one at once."""
    half_life, angle = 10.0 ** torch.linspace(1, 6, H * P, dtype=torch.float64), torch.randn(H, P, dtype=torch.float64)
    A_bar = torch.polar(torch.exp(-1 / half_life).view(H, P), 3 * angle)
    A_bar[0, 0] = 0
    B_bar, outputs = torch.randn(H, P, dtype=torch.complex128), torch.randn(C, H, P, dtype=torch.complex128)
    x = torch.randn(B, H, P, dtype=torch.complex128).to(dtype)
    return DiagonalState(x, A_bar, B_bar, outputs), torch.randn(C, H, dtype=x.real.dtype)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64])
@pytest.mark.parametrize("length", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 997, (GROUP + 1) * BLOCK + 5])
def test_a_chunk_is_so_many_steps(length: int, dtype: torch.dtype) -> None:
    state, skip = system(dtype)
    u = torch.randn(B, H, length, dtype=skip.dtype)
    y, after = prefill(u, state, skip)
    want, now = [], state._replace(x=state.x.to(torch.complex128))
    for u_t in u.double().unbind(2):
        y_t, now = step(u_t, now, skip.double())
        want.append(y_t)
    assert y.dtype == u.dtype and after.x.dtype == dtype
    assert_close(y, torch.stack(want, -1).flatten(1, 2))
    assert_close(after.x, now.x)


def test_a_long_chunk_holds_the_states_of_few_blocks() -> None:
    """With many modes the states of all blocks would be more than anything else."""
    modes, length = 1024, 8 * GROUP * BLOCK
    A_bar = torch.full((1, modes), 0.9, dtype=torch.complex128)
    state = DiagonalState(A_bar[None].to(torch.complex64), A_bar, A_bar, A_bar[None])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        prefill(torch.randn(1, 1, length), state, torch.zeros(1, 1))
    powers = BLOCK * modes * A_bar.itemsize  # of a block
    assert 0 < max(event.self_cpu_memory_usage for event in profile.events()) <= 2 * powers


def test_gradients_of_a_chunk() -> None:
    """Of the samples, the state and the system, over more than one block."""
    state, skip = system(torch.complex128)
    state.A_bar[0, 0] = 0.5  # at 0 a chunk has no gradient of it
    u = torch.randn(B, H, BLOCK + 6, dtype=torch.float64)
    parts = [part.clone().requires_grad_() for part in (u, *state)]
    weights = torch.randn(B, C * H, BLOCK + 6, dtype=torch.float64)

    def gradients(chunks: list[int]) -> tuple[Tensor, ...]:
        now, total = DiagonalState(*parts[1:]), torch.zeros((), dtype=torch.float64)
        for chunk, weight in zip(parts[0].split(chunks, 2), weights.split(chunks, 2), strict=True):
            y, now = prefill(chunk, now, skip)
            total = total + (y * weight).sum()
        return torch.autograd.grad(total + now.x.real.sum() + now.x.imag.sum(), parts)

    whole, cut = gradients([BLOCK + 6]), gradients([BLOCK // 2, BLOCK // 2 + 6])
    for got, want in zip(whole, cut, strict=True):
        assert_close(got, want, 1e-11)
