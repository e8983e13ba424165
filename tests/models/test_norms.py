"""Norms against their formulas, and BatchNorm's statistics over valid positions alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from longconv.models.norms import NORMS, BatchNorm, create_norm
from longconv.models.padding import valid_positions
from tests.tolerances import assert_close


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 7, 4, generator=generator, dtype=torch.float64) * 2 + 1


def test_layer_norm_standardises_each_position(x: Tensor) -> None:
    y = create_norm("layer", 4).double()(x)
    centred = x - x.mean(-1, keepdim=True)
    assert_close(y, centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt())


def test_rms_norm_divides_by_the_root_mean_square(x: Tensor) -> None:
    assert_close(create_norm("rms", 4).double()(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())


def test_batch_norm_standardises_each_feature(x: Tensor) -> None:
    y = create_norm("batch", 4).double()(x)
    centred = x - x.mean((0, 1))
    assert_close(y, centred / (centred.square().mean((0, 1)) + 1e-5).sqrt())


@pytest.mark.parametrize("name", NORMS)
def test_eps_is_added_to_the_variance(name: str) -> None:
    x = torch.tensor([[[1.0, -1.0]], [[-1.0, 1.0]]], dtype=torch.float64)  # of variance 1 in every direction
    assert_close(create_norm(name, 2, 3.0).double()(x), x / 2)


def test_masked_batch_norm_is_batch_norm_of_the_valid_positions(x: Tensor) -> None:
    valid = valid_positions(torch.tensor([7, 2, 4]), 7)
    masked, plain = BatchNorm(4).double(), nn.BatchNorm1d(4).double()
    for norm in (masked.norm, plain):
        nn.init.constant_(norm.weight, 1.5)
        nn.init.constant_(norm.bias, 0.25)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.linspace(-1, 2, 13 * 4, dtype=torch.float64).reshape(13, 4)
    for _ in range(2):
        got = masked(ours, valid)[valid[..., 0]]
        want = plain(theirs[valid[..., 0]])
        assert_close(got, want)
    (got * weights).sum().backward()
    (want * weights).sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert_close(ours.grad, theirs.grad)
    for name in ("weight", "bias"):
        assert_close(getattr(masked.norm, name).grad, getattr(plain, name).grad)
    for name in ("running_mean", "running_var"):
        assert_close(getattr(masked.norm, name), getattr(plain, name))
    assert masked.norm.num_batches_tracked == plain.num_batches_tracked == 2


@pytest.mark.parametrize("lengths", [[0, 0, 0], [0, 1, 0]])
def test_fewer_than_two_valid_positions_leave_the_statistics_alone(x: Tensor, lengths: list[int]) -> None:
    norm = BatchNorm(4).double()
    norm(x)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    valid = valid_positions(torch.tensor(lengths), 7)
    y = norm(x, valid)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert y.isfinite().all() and torch.equal(y[valid[..., 0]], norm.norm.bias.expand(sum(lengths), 4))
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(x[:1, :1])


def test_a_lone_nan_leaves_the_statistics_alone(x: Tensor) -> None:
    norm = BatchNorm(4).double()
    norm(torch.full_like(x, torch.nan), valid_positions(torch.tensor([0, 1, 0]), 7))
    assert torch.equal(norm.norm.state_dict()["running_mean"], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(norm.norm.state_dict()["running_var"], torch.ones(4, dtype=torch.float64))


def test_without_momentum_the_statistics_are_means_over_batches(x: Tensor) -> None:
    """A batch of padding alone is none."""
    masked, plain = BatchNorm(4).double(), nn.BatchNorm1d(4, momentum=None).double()
    masked.norm.momentum = None
    for lengths in ([7, 2, 4], [0, 0, 0], [1, 1, 7], [7, 7, 7]):
        valid = valid_positions(torch.tensor(lengths), 7)
        masked(x := x.exp().sin(), valid)
        if sum(lengths):
            plain(x[valid[..., 0]])
    for name in ("running_mean", "running_var"):
        assert_close(getattr(masked.norm, name), getattr(plain, name))
    assert masked.norm.num_batches_tracked == plain.num_batches_tracked == 3


def test_half_precision_counts_more_positions_than_it_has_numbers() -> None:
    x = torch.randn(1, 70_000, 2)
    valid = torch.ones(1, 70_000, 1, dtype=torch.bool)
    half, single = BatchNorm(2).half(), BatchNorm(2)
    y, want = half(x.half(), valid), single(x.half().float(), valid)
    assert y.dtype == torch.float16 and torch.equal(y, want.half())
    assert torch.equal(half.norm.state_dict()["running_var"], single.norm.state_dict()["running_var"].half())


def test_masked_batch_norm_in_evaluation_uses_the_running_statistics(x: Tensor) -> None:
    norm = BatchNorm(4).double().eval()
    valid = valid_positions(torch.tensor([7, 2, 4]), 7)
    assert_close(norm(x, valid), x / (1 + 1e-5) ** 0.5)
    assert torch.equal(norm.norm.state_dict()["running_mean"], torch.zeros(4, dtype=torch.float64))


def test_unmasked_and_all_valid_agree(x: Tensor) -> None:
    norm = BatchNorm(4).double()
    assert_close(norm(x, torch.ones(3, 7, 1, dtype=torch.bool)), norm(x))


def test_converted_batch_norm_refuses_padding(x: Tensor) -> None:
    norm = nn.SyncBatchNorm.convert_sync_batchnorm(BatchNorm(4).double())
    with pytest.raises(NotImplementedError, match="SyncBatchNorm.*norm='layer'"):
        norm(x, torch.ones(3, 7, 1, dtype=torch.bool))


def test_unknown_norm_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="norm is 'layers'.*did you mean 'layer'"):
        create_norm("layers", 4)


@pytest.mark.parametrize("shape", [(0, 7), (3, 0), (1, 1)])
@pytest.mark.parametrize("kept", [True, False])
def test_nothing_to_normalise_has_gradients_of_zero(shape: tuple[int, int], kept: bool) -> None:
    norm = BatchNorm(4).double()
    x = torch.randn(*shape, 4, dtype=torch.float64, requires_grad=True)
    y = norm(x, torch.full((*shape, 1), kept))
    y.square().sum().backward()
    assert y.shape == x.shape and torch.equal(y, torch.zeros_like(y))
    assert x.grad is not None and torch.equal(x.grad, torch.zeros_like(x))
    assert norm.norm.weight.grad is not None and not norm.norm.weight.grad.any()


def test_gradients_of_valid_positions_have_gradients(x: Tensor) -> None:
    norm, valid = BatchNorm(4).double(), valid_positions(torch.tensor([7, 2, 4]), 7)
    x = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norm(x, valid), (x,))
    assert torch.autograd.gradgradcheck(lambda x: norm(x, valid), (x,))
