"""A mistake of one rank is an error on all of them, and what says which ranks there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh

from longconv import distributed
from longconv.distributed import Call, Machine, Ranks, cost
from tests.distributed.processes import Processes, check


def convolve(ranks: Ranks, wrong: bool, **more: Any) -> Any:
    return distributed.fft_conv(torch.randn(2, 3 + wrong, 5), torch.randn(3 + wrong, 4), group=ranks, **more)


def wrong_channels(ranks: Ranks) -> None:
    convolve(ranks, ranks.rank == 1)


def wrong_dtype(ranks: Ranks) -> None:
    dtype = torch.float64 if ranks.rank == 1 else torch.float32
    distributed.fft_conv(torch.randn(2, 3, 5, dtype=dtype), torch.randn(3, 4, dtype=dtype), group=ranks)


def wrong_taps(ranks: Ranks) -> None:
    """Of filters that are cut the lengths may differ, and nothing else."""
    k = torch.randn(3 + (ranks.rank == 2), ranks.rank)
    distributed.fft_conv(torch.randn(2, 3 + (ranks.rank == 2), 5), k, filters="sharded", group=ranks)


def no_taps(ranks: Ranks) -> None:
    distributed.fft_conv(torch.randn(2, 3, 5), torch.randn(3, 0), filters="sharded", group=ranks)


def wrong_filters(ranks: Ranks) -> None:
    convolve(ranks, False, filters="sharded" if ranks.rank else "whole")


def wrong_rank(ranks: Ranks) -> None:
    u = torch.randn(2, 3) if ranks.rank == 1 else torch.randn(2, 3, 5)
    distributed.fft_conv(u, torch.randn(3, 4), group=ranks)


def wrong_option(ranks: Ranks) -> None:
    convolve(ranks, False, mode="circular" if ranks.rank else "causal")


def wrong_lengths(ranks: Ranks) -> None:
    convolve(ranks, False, lengths=torch.tensor([3, 3 + ranks.rank]))


def wrong_skip(ranks: Ranks) -> None:
    convolve(ranks, False, skip=torch.randn(3) if ranks.rank else None)


def wrong_gradient(ranks: Ranks) -> None:
    u = torch.randn(2, 3, 5, requires_grad=ranks.rank == 0)
    distributed.fft_conv(u, torch.randn(3, 4), group=ranks)


def wrong_call(ranks: Ranks) -> None:
    if ranks.rank == 0:
        convolve(ranks, False)
    else:
        distributed.linear_scan(torch.tensor(0.5), torch.ones(3), dim=0, group=ranks)


def wrong_short_taps(ranks: Ranks) -> None:
    distributed.short_conv(torch.randn(2, 3, 5), torch.randn(3, 4 + (ranks.rank == 2)), group=ranks)


def wrong_activation(ranks: Ranks) -> None:
    activation = "silu" if ranks.rank else None
    distributed.short_conv(torch.randn(2, 3, 5), torch.randn(3, 4), activation=activation, group=ranks)


def wrong_bias(ranks: Ranks) -> None:
    distributed.short_conv(torch.randn(2, 3, 5), torch.randn(3, 4), torch.randn(3 + (ranks.rank == 1)), group=ranks)


def wrong_states(ranks: Ranks) -> None:
    distributed.linear_scan(torch.rand(3 + ranks.rank), torch.randn(2, 5, 3 + ranks.rank), group=ranks)


def wrong_direction(ranks: Ranks) -> None:
    distributed.linear_scan(torch.rand(3), torch.randn(2, 5, 3), reverse=ranks.rank == 1, group=ranks)


def wrong_initial(ranks: Ranks) -> None:
    initial = torch.randn(2, 3) if ranks.rank == 1 else None
    distributed.linear_scan(torch.rand(3), torch.randn(2, 5, 3), initial, group=ranks)


def wrong_backend(ranks: Ranks) -> None:
    convolve(ranks, False, backend="torch" if ranks.rank else "reference")


def wrong_method(ranks: Ranks) -> None:
    u, k = torch.randn(2, 3, 5), torch.randn(3, 40)
    distributed.fft_conv(u, k, group=ranks, method="neighbours")


MISTAKES: dict[Callable[[Ranks], None], tuple[str, str]] = {
    wrong_channels: ("ValueError", "a (2, 3, 5) float32 tensor on rank 0, a (2, 4, 5) float32 tensor on rank 1"),
    wrong_dtype: ("ValueError", "a (2, 3, 5) float32 tensor on rank 0, a (2, 3, 5) float64 tensor on rank 1"),
    wrong_taps: (
        "ValueError",
        "u is expected to be shards, alike but for their lengths, but it is a (2, 3, 5) float32",
    ),
    no_taps: ("ValueError", "k is shards without a tap on any rank, expected at least one tap, K >= 1"),
    wrong_filters: ("ValueError", "filters has to be the same on all ranks, but it is whole on rank 0, sharded on"),
    wrong_rank: ("ValueError", "u is a (2, 3) float32 tensor, expected shape (B, H, L)"),
    wrong_option: (
        "ValueError",
        "mode has to be the same on all ranks, but it is causal on rank 0, circular on",
    ),
    wrong_short_taps: ("ValueError", "w is expected to be the same on all ranks, but it is a (3, 4) float32 tensor on"),
    wrong_activation: ("ValueError", "activation has to be the same on all ranks, but it is None on rank 0, silu on"),
    wrong_bias: ("ValueError", "bias is a (4,) float32 tensor, expected shape (H,) = (3)"),
    wrong_states: (
        "ValueError",
        "b is expected to be shards, alike but for their lengths, but it is a (2, 5, 3) float",
    ),
    wrong_direction: ("ValueError", "reverse has to be the same on all ranks, but it is False on rank 0, True on"),
    wrong_initial: ("ValueError", "initial is given on some ranks alone, but it is None on rank 0, a (2, 3) float32"),
    wrong_backend: ("ValueError", "backend has to be the same on all ranks, but it is reference on rank 0, torch on"),
    wrong_lengths: ("ValueError", "lengths has to be the same on all ranks, but it is [3, 3] on rank 0, [3, 4] on"),
    wrong_skip: ("ValueError", "skip is given on some ranks alone, but it is None on rank 0, a (3,) float32 tensor on"),
    wrong_gradient: ("ValueError", "u has a gradient on some ranks alone, but it is True on rank 0, False on rank 1"),
    wrong_call: ("ValueError", "at different calls, but it is fft_conv on rank 0, linear_scan on rank 1"),
    wrong_method: ("ValueError", "method is 'neighbours', but it can't serve this call: the filter reaches 14"),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda case: case.__name__)
def test_all_ranks_raise_and_say_who_has_what(processes: Processes, mistake: Callable[[Ranks], None]) -> None:
    kind, message = MISTAKES[mistake]
    results = processes.run(3, mistake)
    assert len(results) == 3
    for result in results:
        assert result and f"{kind}: " in result and message in result, result


def of_two_groups(ranks: Ranks) -> None:
    """Two sequences, each on two of four ranks: two data-parallel halves."""
    mesh = DeviceMesh("cpu", torch.arange(4).view(2, 2), mesh_dim_names=("data", "sequence"))
    sequence, half, one = mesh["sequence"], ranks.rank // 2, torch.ones(1, 1, 1)
    for group in (sequence, sequence.get_group(), Ranks(sequence)):
        y = distributed.fft_conv(one + half, torch.ones(1, 9), group=group)
        assert torch.allclose(y, (one + half) * (ranks.rank % 2 + 1))
        h = distributed.linear_scan(torch.tensor(2.0), one + half, group=group)
        assert torch.allclose(h, (one + half) * (1 + 2 * (ranks.rank % 2)))
        z = distributed.short_conv(one + half, torch.ones(1, 2), group=group)
        assert torch.allclose(z, y)


def test_a_dimension_of_a_mesh_serves_as_a_group(processes: Processes) -> None:
    check(processes, 4, of_two_groups)


def by_own_figures(ranks: Ranks) -> None:
    """The way is taken that the machine of one's own does best."""
    u, k = torch.ones(1, 2, 8), torch.ones(2, 3)
    for machine, bytes_sent in ((Machine(0.0, 1.0, 1e30, 1e30), 2 * 2 * 4), (Machine(0.0, 1e30, 1.0, 1.0), 8 * 2 * 4)):
        mine = Ranks(ranks.group, machine=machine)
        distributed.fft_conv(u, k, group=mine)
        assert mine.sent == 4096 + (bytes_sent if ranks.rank == 0 or bytes_sent > 16 else 0)


def test_the_figures_of_a_machine_choose_the_way(processes: Processes) -> None:
    check(processes, 2, by_own_figures)


def of_samples(ranks: Ranks) -> None:
    """Cut filters that every sample has for itself are so many times as much to send."""
    batch, channels, size = 3, 4, 6
    u, k = torch.ones(batch, channels, size), torch.ones(batch, channels, size)
    for method in ("channels", "four_step"):
        mine = Ranks(ranks.group)
        distributed.fft_conv(u, k, filters="sharded", method=method, group=mine)
        call = Call(batch, channels, (size,) * ranks.size, size * ranks.size, 0, False, 4, sharded=True, samples=True)
        assert mine.sent == 4096 * (ranks.size - 1) + cost(method, call).sent


def test_the_cost_model_counts_filters_of_samples(processes: Processes) -> None:
    check(processes, 2, of_samples)
    with pytest.raises(ValueError, match="method is 'ring' .str., expected one of"):
        cost("ring", Call(1, 1, (1,), 1, 0, False, 4))


def everything_goes_on(ranks: Ranks) -> None:
    mesh = DeviceMesh("cpu", list(range(ranks.size)))
    y = distributed.fft_conv(torch.ones(1, 1, 1), torch.ones(1, 9), group=mesh)
    assert torch.allclose(y, torch.tensor(ranks.rank + 1.0))


def test_a_mesh_serves_as_a_group_and_mistakes_leave_it_usable(processes: Processes) -> None:
    check(processes, 4, wrong_group)
    check(processes, 4, everything_goes_on)


def wrong_group(ranks: Ranks) -> None:
    u, k = torch.ones(1, 1, 1), torch.ones(1, 1)
    mesh = DeviceMesh("cpu", torch.arange(4).view(2, 2), mesh_dim_names=("data", "sequence"))
    with pytest.raises(ValueError, match=r"DeviceMesh of 2 dimensions .*mesh\['sequence'\]"):
        distributed.fft_conv(u, k, group=mesh)
    with pytest.raises(TypeError, match="group is 'all'"):
        distributed.fft_conv(u, k, group="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout is 0"):
        Ranks(timeout=0)
    with pytest.raises(TypeError, match="machine is 'fast'"):
        Ranks(machine="fast")  # type: ignore[arg-type]


def test_without_a_process_group_there_is_a_word_on_how_to_make_one() -> None:
    with pytest.raises(RuntimeError, match="torchrun"):
        distributed.fft_conv(torch.ones(1, 1, 1), torch.ones(1, 1))
