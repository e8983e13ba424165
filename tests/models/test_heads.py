"""Classifier, regressor and language model: pooling, padding, training, compilation, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from longconv.models import LanguageModel, SequenceClassifier, SequenceRegressor, optimizer_groups, pool
from longconv.models.pooling import POOLINGS
from tests.tolerances import assert_close

B, L = 3, 19
SMALL: dict[str, Any] = {"d_model": 8, "n_layers": 2, "mixer_options": {"d_state": 8}}
LENGTHS = torch.tensor([L, 6, 1])


def classifier(**options: Any) -> SequenceClassifier:
    torch.manual_seed(0)
    inputs = {} if "n_tokens" in options else {"d_input": 2}
    return SequenceClassifier(5, **{**inputs, **SMALL, **options})


def language_model(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(11, **{**SMALL, **options})


def continuous() -> Tensor:
    return torch.randn(B, L, 2, generator=torch.Generator().manual_seed(1))


def tokens() -> Tensor:
    return torch.randint(11, (B, L), generator=torch.Generator().manual_seed(1))


POOLED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(0),
    "max": lambda x: x.max(0).values,
    "sum": lambda x: x.sum(0),
    "last": lambda x: x[-1],
    "first": lambda x: x[0],
}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_over_the_valid_positions(pooling: str) -> None:
    x = -1 - torch.rand(B, L, 4, dtype=torch.float64)  # negative, so that a padding of zeros would win the maximum
    x[torch.arange(L) >= LENGTHS[:, None]] = 0.0
    want = torch.stack([POOLED[pooling](x[sample, :length]) for sample, length in enumerate(LENGTHS.tolist())])
    assert_close(pool(x, pooling, LENGTHS), want)
    assert_close(pool(x[:, :1], pooling, None), x[:, 0])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_exported_for_every_length(pooling: str) -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return pool(x, pooling)

    program = torch.export.export(Pool(), (torch.randn(2, 5, 3),), dynamic_shapes=({1: Dim("L", min=2)},))
    x = torch.randn(2, 11, 3)
    assert_close(program.module()(x), pool(x, pooling))


def test_pooling_refuses_what_is_no_tensor() -> None:
    x = torch.zeros(2, 3, 4)
    for lengths, error in (([1, 2], TypeError), (torch.tensor([1]), ValueError), (torch.tensor([0, 4]), ValueError)):
        with pytest.raises(error, match="lengths"):
            pool(x, "mean", lengths)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x is .*expected shape \(B, L, D\)"):
        pool(x[0])


def test_mean_of_a_long_bfloat16_sequence_divides_by_the_exact_length() -> None:
    x = torch.ones(1, 1001, 1, dtype=torch.bfloat16)  # bfloat16 rounds 1001 to 1000
    assert pool(x, "mean", torch.tensor([1001])).item() == 1.0


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_of_continuous_inputs_changes_nothing(pooling: str) -> None:
    model, x = classifier(pooling=pooling), continuous()
    padded = x.masked_fill((torch.arange(L) >= LENGTHS[:, None])[..., None], torch.nan)
    want = model(x, LENGTHS)
    assert want.isfinite().all()
    assert torch.equal(model(padded, LENGTHS), want)
    for sample, length in enumerate(LENGTHS.tolist()):
        assert_close(model(x[sample : sample + 1, :length]), want[sample : sample + 1], 1e-5)


@pytest.mark.parametrize("build", [lambda: classifier(n_tokens=11), language_model], ids=["classifier", "lm"])
def test_padding_of_tokens_may_be_any_number(build: Callable[[], torch.nn.Module]) -> None:
    model, x = build(), tokens()
    padded = x.masked_fill(torch.arange(L) >= LENGTHS[:, None], -100)
    assert torch.equal(model(padded, LENGTHS), model(x, LENGTHS))


def test_language_model_is_zero_at_padding() -> None:
    y = language_model()(tokens(), LENGTHS)
    padding = torch.arange(L) >= LENGTHS[:, None]
    assert torch.equal(y[padding], torch.zeros_like(y[padding]))
    assert (y[~padding] != 0).all()


def test_language_model_streams_as_it_runs() -> None:
    model, x = language_model(feed_forward="glu").double().eval(), tokens()
    want = model(x)
    start, state = model.prefill(x[:, :7])
    rows = [start]
    for t in range(7, L):
        row, state = model.step(x[:, t], state)
        rows.append(row[:, None])
    assert_close(torch.cat(rows, dim=1), want, 1e-10)
    row, _ = model.step(x[:, 0], model.init_state(B, dtype=torch.float64))
    assert_close(row, want[:, 0], 1e-10)


def test_language_model_does_not_see_the_future() -> None:
    model, x = language_model(), tokens()
    changed = x.clone()
    changed[:, 12] = (changed[:, 12] + 1) % 11
    before, after = model(x), model(changed)
    assert_close(after[:, :12], before[:, :12], 1e-5)
    assert not torch.allclose(after[:, 12], before[:, 12])


def test_tied_embeddings_are_one_parameter() -> None:
    model = language_model(tie_embeddings=True)
    assert model.head.weight is model.trunk.embedding.map.weight
    model(tokens()).square().sum().backward()
    twin = copy.deepcopy(model)
    assert twin.head.weight is twin.trunk.embedding.map.weight


def test_nan_stays_in_its_sample() -> None:
    model, x = classifier(norm="batch").eval(), continuous()
    want = model(x)
    x[1, 3, 0] = torch.nan
    got = model(x)
    assert got[1].isnan().all()
    assert_close(got[[0, 2]], want[[0, 2]])


@pytest.mark.parametrize("norm", ["layer", "batch", "rms"])
def test_a_tiny_batch_is_learnt(norm: str) -> None:
    model, x = classifier(norm=norm), torch.randn(8, L, 2, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(8) % 5
    optimizer = torch.optim.AdamW(optimizer_groups(model, lr=0.01, weight_decay=0.01, filter_lr=0.001))
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.0
    assert losses[-1] < 0.1


def test_every_parameter_gets_a_gradient() -> None:
    for model, x in ((classifier(feed_forward="mlp"), continuous()), (language_model(prenorm=False), tokens())):
        model(x, LENGTHS).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), f"{name}: all zero"


def test_regressor_fits_the_mean_of_its_input() -> None:
    torch.manual_seed(0)
    model = SequenceRegressor(1, d_input=1, d_model=8, n_layers=1, mixer_options={"d_state": 8})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    offsets = torch.linspace(-1, 1, 16)[:, None]
    x = offsets[..., None] + 0.1 * torch.randn(16, L, 1)
    for _ in range(200):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), offsets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * offsets.var().item()


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        pytest.param({"norm": "layer"}, None, id="full"),
        pytest.param({"norm": "batch", "feed_forward": "glu", "pooling": "max"}, LENGTHS, id="padded"),
    ],
)
def test_compiles_to_one_graph(options: dict[str, Any], lengths: Tensor | None) -> None:
    eager, x = classifier(**options, n_layers=1), continuous()
    compiled = copy.deepcopy(eager)
    torch.compiler.reset()
    want = eager(x, lengths)
    got = torch.compile(compiled, fullgraph=True, backend="aot_eager")(x, lengths)
    assert_close(got, want, 1e-5)
    got.square().sum().backward()
    want.square().sum().backward()
    gradients = [parameter.grad for model in (compiled, eager) for parameter in model.parameters()]
    flat = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
    assert_close(flat[: flat.numel() // 2], flat[flat.numel() // 2 :], 1e-4)
    assert all(torch.allclose(a, b) for a, b in zip(compiled.buffers(), eager.buffers(), strict=True))


def test_random_parts_compile_to_one_graph() -> None:
    model = classifier(n_layers=1, dropout=0.1, tie_dropout=True, drop_path=0.1)
    torch.compiler.reset()
    y = torch.compile(model, fullgraph=True, backend="aot_eager")(continuous(), LENGTHS)
    assert y.isfinite().all()


@pytest.mark.slow
def test_compiles_with_the_default_backend() -> None:
    model, x = classifier(n_layers=1), continuous()
    torch.compiler.reset()
    y = torch.compile(model, fullgraph=True)(x, LENGTHS)
    assert_close(y, model(x, LENGTHS), 1e-5)
    y.square().sum().backward()


def test_autocast() -> None:
    model, x = classifier(norm="batch", feed_forward="glu"), continuous()
    want = model(x, LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(x, LENGTHS)
    assert got.dtype == torch.bfloat16
    assert_close(got, want, 0.1)
    got.float().sum().backward()


def test_state_dict_and_deepcopy() -> None:
    model, x = classifier(norm="batch").eval(), continuous()
    want = model(x)
    other = SequenceClassifier(5, d_input=2, norm="batch", **SMALL).eval()
    assert not torch.allclose(other(x), want)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), want)
    assert torch.equal(copy.deepcopy(model)(x), want)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "d_input is None and n_tokens is None, expected exactly one"),
        ({"d_input": 1, "n_tokens": 4}, ValueError, "d_input is 1 and n_tokens is 4, expected exactly one"),
        ({"d_input": 0}, ValueError, "d_input is 0"),
        ({"n_tokens": 2.5}, TypeError, "n_tokens is 2.5"),
        ({"n_classes": 0, "d_input": 1}, ValueError, "n_classes is 0"),
        ({"d_input": 1, "pooling": "avg"}, ValueError, "pooling is 'avg'.*expected one of 'mean'"),
        ({"d_input": 1, "droput": 0.1}, TypeError, "'droput'; did you mean 'dropout'"),
        ({"d_input": 1, "mixer": "s4e"}, ValueError, "s4d"),
    ],
)
def test_wrong_options(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SequenceClassifier(**{"n_classes": 3, **arguments})


@pytest.mark.parametrize(
    ("options", "x", "lengths", "error", "message"),
    [
        ({}, torch.zeros(2, 5), None, ValueError, r"x is a \(2, 5\) float32 tensor, expected shape \(B, L, d_input\)"),
        ({}, torch.zeros(2, 5, 3), None, ValueError, r"expected shape \(B, L, d_input\) = \(any, any, 2\)"),
        ({}, torch.zeros(2, 5, 2, dtype=torch.int64), None, TypeError, "expected dtype float64"),
        ({}, torch.zeros(2, 5, 2, dtype=torch.float64), None, TypeError, "x is .*float64, but the model is .*float32"),
        ({}, torch.zeros(2, 5, 2, device="meta"), None, ValueError, "x is on meta, but the model is on cpu"),
        ({}, torch.zeros(2, 0, 2), None, ValueError, "empty sequence"),
        ({}, torch.zeros(2, 5, 2), torch.tensor([0, 5]), ValueError, r"lengths\[0\] is 0, expected 1 <= length"),
        ({}, torch.zeros(2, 5, 2), torch.tensor([5, 6]), ValueError, r"lengths\[1\] is 6.*L = 5"),
        ({}, [[0.0]], None, TypeError, r"x is \[\[0.0\]\] \(list\)"),
        ({"n_tokens": 4}, torch.zeros(2, 5), None, TypeError, "expected dtype int64, int32"),
        ({"n_tokens": 4}, torch.zeros(2, 5, 1).long(), None, ValueError, r"expected shape \(B, L\) of tokens"),
        ({"n_tokens": 4}, torch.tensor([[0, 4]]), None, ValueError, "token 4, expected 0 <= token < n_tokens = 4"),
        ({"n_tokens": 4}, torch.tensor([[0, -1]]), None, ValueError, "token -1"),
    ],
)
def test_wrong_inputs(
    options: dict[str, Any], x: Tensor, lengths: Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        classifier(**options)(x, lengths)
