"""The classifier of pairs: its formula, padding, refusals, training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.models import PairClassifier, pool
from tests.tolerances import assert_close

B, L = 3, 19
LENGTHS = torch.tensor([[L, 6], [1, 2], [7, L]])


def classifier(**options: Any) -> PairClassifier:
    torch.manual_seed(0)
    inputs = {} if "d_input" in options else {"n_tokens": 11}
    return PairClassifier(2, **{**inputs, "d_model": 8, "n_layers": 2, "mixer_options": {"d_state": 8}, **options})


def tokens() -> Tensor:
    return torch.randint(11, (B, 2, L), generator=torch.Generator().manual_seed(1))


def test_each_sequence_goes_through_the_one_trunk_alone() -> None:
    model, x = classifier(norm="layer").double().eval(), tokens()
    want = []
    for pair, lengths in zip(x, LENGTHS.tolist(), strict=True):
        a, c = (pool(model.trunk(one[None, :n]))[0] for one, n in zip(pair, lengths, strict=True))
        want.append(model.head(torch.cat([a, c, a - c, a * c])))
    assert_close(model(x, LENGTHS), torch.stack(want))


@pytest.mark.parametrize("continuous", [False, True])
def test_padding_changes_nothing(continuous: bool) -> None:
    model = classifier(d_input=3) if continuous else classifier()
    x = torch.randn(B, 2, L, 3) if continuous else tokens()
    padding = torch.arange(L) >= LENGTHS[..., None]
    padded = x.masked_fill(padding[..., None], torch.nan) if continuous else x.masked_fill(padding, 5)
    want = model(x, LENGTHS)
    assert want.isfinite().all() and want.shape == (B, 2)
    assert torch.equal(model(padded, LENGTHS), want)


def test_order_matters_and_training_learns_it() -> None:
    """Whether the first of two marked sequences is the one marked: neither half tells it alone."""
    model, x = classifier(norm="layer"), tokens()
    assert not torch.allclose(model(x), model(x.flip(1)))
    labels = torch.tensor([0, 1, 0])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(torch.cat([x, x.flip(1)])), torch.cat([labels, 1 - labels]))
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_refusals() -> None:
    model, x = classifier(), tokens()
    for bad, lengths, named in (
        (x[:, 0], None, r"x is .*\(B, 2, L\)"),
        (torch.cat([x, x], dim=1), None, r"x is \(3, 4, 19\), expected two sequences a sample"),
        (x, LENGTHS[:, 0], r"lengths is \(3,\), expected \(B, 2\) = \(3, 2\)"),
        (x, LENGTHS * 0, r"lengths\[0\] is 0, expected 1 <= length"),
        (x[..., :0], None, "empty sequence"),
    ):
        with pytest.raises(ValueError, match=named):
            model(bad, lengths)
    for options, named in (({"pooling": "men"}, "pooling is 'men'"), ({"d_input": 1, "n_tokens": 2}, "exactly one")):
        with pytest.raises(ValueError, match=named):
            classifier(**options)
    with pytest.raises(ValueError, match="n_classes is 0"):
        PairClassifier(0, n_tokens=2)
