"""Dropout tied over the sequence, drop path and its schedules."""

from __future__ import annotations

import math

import pytest
import torch

from longconv.models.drop import DropPath, TiedDropout, create_dropout, drop_path_rates


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    n, p = 4000, 0.3
    y = DropPath(p)(torch.ones(n, 5, 2))
    kept = y[:, 0, 0] != 0
    assert torch.equal(y, torch.where(kept[:, None, None], 1 / (1 - p), 0.0).expand_as(y))
    assert abs(kept.float().mean().item() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / n)


def test_drop_path_is_the_identity_in_evaluation() -> None:
    x = torch.randn(3, 5, 2)
    assert DropPath(0.9).eval()(x) is x


def test_drop_path_of_one_drops_all_without_nan() -> None:
    assert torch.equal(DropPath(1.0)(torch.ones(3, 5, 2)), torch.zeros(3, 5, 2))


def test_drop_path_rates() -> None:
    assert drop_path_rates(0.4, 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert drop_path_rates(0.4, 4, "constant") == [0.4] * 4
    assert drop_path_rates(0.4, 1) == [0.4]


def test_tied_dropout_shares_its_mask_over_the_sequence_alone() -> None:
    torch.manual_seed(0)
    n, p = 400, 0.25
    y = TiedDropout(p)(torch.ones(n, 6, 10))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert y.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    assert abs((y[:, 0] != 0).float().mean().item() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / (n * 10))
    assert not torch.equal(y[0], y[1])


def test_untied_dropout_varies_along_the_sequence() -> None:
    torch.manual_seed(0)
    y = create_dropout(0.5, tied=False)(torch.ones(2, 64, 3))
    assert not torch.equal(y, y[:, :1].expand_as(y))


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_probability_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match=r"expected a finite number in \[0, 1\]"):
        DropPath(p)
    with pytest.raises(ValueError, match="drop_path is"):
        drop_path_rates(p, 2)
    with pytest.raises(ValueError, match="dropout is"):
        create_dropout(p, tied=True)


def test_unknown_schedule() -> None:
    with pytest.raises(ValueError, match="drop_path_schedule is 'linaer'.*'linear'"):
        drop_path_rates(0.1, 2, "linaer")
