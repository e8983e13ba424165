"""The backbone's laws: streaming, padding, isolation of samples, and its refusals."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longconv.models import Backbone
from longconv.models.drop import DropPath, TiedDropout
from tests.tolerances import assert_close

D, L = 6, 23
NORMS = ["layer", "batch", "rms"]
SHAPES = [
    pytest.param({"prenorm": True}, id="prenorm"),
    pytest.param({"prenorm": False}, id="postnorm"),
    pytest.param({"prenorm": True, "feed_forward": "glu"}, id="prenorm-glu"),
    pytest.param({"prenorm": False, "feed_forward": "mlp", "expansion": 1.5}, id="postnorm-mlp"),
]
DEPTH_TOLERANCE = 1e-10
"""Several layers in float64, each with a recurrence of L steps against an FFT."""


def build(**options: Any) -> Backbone:
    torch.manual_seed(0)
    backbone = Backbone(D, 2, "s4d", {"d_state": 8}, **options).double()
    for module in backbone.modules():  # statistics and gains other than their start, so that they matter
        if isinstance(module, (nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if isinstance(module, (nn.BatchNorm1d, nn.LayerNorm)):
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, nn.BatchNorm1d):
            statistics = module.state_dict()
            nn.init.uniform_(statistics["running_mean"], -0.5, 0.5)
            nn.init.uniform_(statistics["running_var"], 0.5, 1.5)
    return backbone


def inputs(batch: int = 3) -> Tensor:
    return torch.randn(batch, L, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_streaming_law(norm: str, shape: dict[str, Any]) -> None:
    backbone, x = build(norm=norm, **shape).eval(), inputs()
    want = backbone(x)
    state = backbone.init_state(3, dtype=torch.float64)
    steps = []
    for t in range(L):
        y, state = backbone.step(x[:, t], state)
        steps.append(y)
    assert_close(torch.stack(steps, dim=1), want, DEPTH_TOLERANCE)
    for sizes in ([L], [1, 9, 13], [20, 3]):
        carried, chunks = None, []
        for chunk in x.split(sizes, dim=1):
            y, carried = backbone.prefill(chunk, carried)
            chunks.append(y)
        assert_close(torch.cat(chunks, dim=1), want, DEPTH_TOLERANCE)


def test_step_goes_on_after_prefill_and_leaves_the_state_alone() -> None:
    backbone, x = build().eval(), inputs()
    _, state = backbone.prefill(x[:, :-1])
    leaves = torch.utils._pytree.tree_leaves
    kept = [leaf.clone() for leaf in leaves(state)]
    once, _ = backbone.step(x[:, -1], state)
    twice, _ = backbone.step(x[:, -1], state)
    assert torch.equal(once, twice)
    assert all(torch.equal(a, b) for a, b in zip(leaves(state), kept, strict=True))
    assert_close(once, backbone(x)[:, -1], DEPTH_TOLERANCE)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_padding_changes_nothing(norm: str, shape: dict[str, Any], training: bool) -> None:
    lengths = torch.tensor([L, 9, 1])
    valid = torch.arange(L) < lengths[:, None]
    x = inputs()
    results = []
    for filling in (0.0, 1e6, torch.nan):
        backbone = build(norm=norm, **shape).train(training)
        padded = torch.where(valid[..., None], x, filling).requires_grad_()
        y = backbone(padded, lengths)
        assert torch.equal(y[~valid], torch.zeros_like(y[~valid]))
        y.square().sum().backward()
        gradients = [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None]
        results.append([y, padded.grad, *gradients, *backbone.buffers()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert results[0][0][valid].isfinite().all()
    assert torch.equal(results[0][1][~valid], torch.zeros_like(results[0][1][~valid]))


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_padded_sample_is_the_short_sample(norm: str) -> None:
    backbone, x = build(norm=norm, feed_forward="glu"), inputs()
    padded = backbone(x, torch.tensor([L, 9, 1]))
    for sample, length in enumerate((L, 9, 1)):
        alone = backbone(x[sample : sample + 1, :length])
        assert_close(padded[sample : sample + 1, :length], alone, DEPTH_TOLERANCE)


def test_batch_norm_over_padding_is_batch_norm_over_what_is_valid() -> None:
    """Samples of equal length padded to L train exactly as the unpadded batch does."""
    short, padded, x = build(norm="batch"), build(norm="batch"), inputs()
    want = short(x[:, :9])
    got = padded(x, torch.tensor([9, 9, 9]))[:, :9]
    assert_close(got, want, DEPTH_TOLERANCE)
    for ours, theirs in zip(padded.buffers(), short.buffers(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_nan_stays_in_its_sample(norm: str) -> None:
    backbone, x = build(norm=norm).eval(), inputs()
    want = backbone(x)
    spoilt = x.clone()
    spoilt[1, 4, 2] = torch.nan
    got = backbone(spoilt)
    assert got[1].isnan().any()
    assert_close(got[[0, 2]], want[[0, 2]])


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_layers_follow_the_formulas(norm: str, prenorm: bool) -> None:
    """Pre-norm: x <- x + f(norm(x)), and one more norm at the end; post-norm: x <- norm(x + f(x))."""
    backbone, x = build(norm=norm, norm_eps=1e-2, prenorm=prenorm, feed_forward="glu").eval(), inputs()
    want = x
    for block in backbone.blocks():
        for residual, f in (
            (block.mixer_residual, block.mixer),
            (block.feed_forward_residual, block.feed_forward),
        ):
            assert residual is not None
            assert f is not None
            assert getattr(residual.norm, "norm", residual.norm).eps == 1e-2
            want = want + f(residual.norm(want)) if prenorm else residual.norm(want + f(want))
    assert_close(backbone(x), backbone.norm(want) if prenorm else want)


def test_layers_have_their_own_parameters_and_options() -> None:
    backbone = Backbone(D, 2, ["s4d", "s4d"], [{"d_state": 4}, {"d_state": 16}])
    first, second = (sum(p.numel() for p in block.mixer.parameters()) for block in backbone.blocks())
    assert second > first
    ids = [id(parameter) for parameter in backbone.parameters()]
    assert len(ids) == len(set(ids))


def test_drops_are_placed_on_every_branch() -> None:
    backbone = Backbone(D, 4, dropout=0.2, tie_dropout=True, drop_path=0.4, feed_forward="mlp")
    paths = [module.p for module in backbone.modules() if isinstance(module, DropPath)]
    assert paths == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4])
    assert sum(isinstance(module, TiedDropout) for module in backbone.modules()) == 8


def test_full_drop_path_leaves_the_residual_stream_alone() -> None:
    backbone = build(drop_path=1.0, drop_path_schedule="constant", feed_forward="glu")
    x = inputs()
    assert_close(backbone(x), backbone.norm(x))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"norm": "batch"}, "BatchNorm in training mode"),
        ({"dropout": 0.1}, "dropout in training mode"),
        ({"drop_path": 0.1}, "dropout in training mode"),
    ],
)
def test_training_mode_refuses_to_stream(options: dict[str, Any], reason: str) -> None:
    backbone, x = build(**options).train(), inputs()
    state = copy.deepcopy(backbone).eval().init_state(3, dtype=torch.float64)
    for call in (lambda: backbone.init_state(3), lambda: backbone.step(x[:, 0], state), lambda: backbone.prefill(x)):
        with pytest.raises(NotImplementedError, match=f"{reason}.*eval"):
            call()
    assert backbone.eval().streaming_refusal() is None


def test_bidirectional_mixer_refuses_to_stream() -> None:
    backbone = Backbone(D, 1, mixer_options={"bidirectional": True}).eval()
    assert backbone.streaming_refusal()
    with pytest.raises(NotImplementedError, match="bidirectional"):
        backbone.prefill(torch.zeros(1, 2, D))


def test_states_of_another_kind_or_number_are_refused() -> None:
    backbone = Backbone(4, 2, mixer_options={"d_state": 4})
    wrongs: list[Any] = [(), backbone.init_state(1)[:1], [], 0]
    for wrong in wrongs:
        error = ValueError if isinstance(wrong, tuple) else TypeError
        for call, x in ((backbone.step, torch.zeros(1, 4)), (backbone.prefill, torch.zeros(1, 3, 4))):
            with pytest.raises(error, match=r"state is .*, expected .* init_state returns"):
                call(x, wrong)


def test_state_dict_and_deepcopy() -> None:
    backbone, x = build(norm="batch", feed_forward="glu").eval(), inputs()
    want = backbone(x)
    other = build(norm="batch", feed_forward="glu").eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    assert not torch.allclose(other(x), want)
    other.load_state_dict(backbone.state_dict())
    assert torch.equal(other(x), want)
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        next(backbone.parameters()).add_(1.0)
    assert torch.equal(twin(x), want)


def test_forward_changes_no_parameter() -> None:
    backbone = build()
    before = copy.deepcopy(list(backbone.parameters()))
    backbone(inputs())
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))


def test_empty_batch() -> None:
    assert build()(inputs(0)).shape == (0, L, D)


@pytest.mark.parametrize(
    ("x", "lengths", "error", "message"),
    [
        (torch.zeros(2, L), None, ValueError, r"x is a \(2, 23\) float32 tensor, expected shape \(B, L, D\)"),
        (torch.zeros(2, L, D + 1), None, ValueError, r"expected shape \(B, L, D\) = \(any, any, 6\)"),
        (torch.zeros(2, L, D, dtype=torch.long), None, TypeError, "x is .* expected dtype float64"),
        (torch.zeros(2, L, D), torch.tensor([1]), ValueError, r"lengths is .*expected shape \(B,\) = \(2\)"),
        (torch.zeros(2, L, D), torch.tensor([1.0, 2.0]), TypeError, "lengths is .*expected dtype int64"),
        (torch.zeros(2, L, D), torch.tensor([1, L + 1]), ValueError, r"lengths\[1\] is 24, expected 0 <= length"),
        (torch.zeros(2, L, D), torch.tensor([-1, 3]), ValueError, r"lengths\[0\] is -1"),
    ],
)
def test_wrong_inputs(x: Tensor, lengths: Tensor | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Backbone(D, 1)(x, lengths)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_layers": 0}, ValueError, "n_layers is 0"),
        ({"d_model": -1}, ValueError, "d_model is -1"),
        ({"norm": "lyer"}, ValueError, "did you mean 'layer'"),
        ({"dropout": 1.5}, ValueError, "dropout is 1.5"),
        ({"prenorm": "no"}, TypeError, "prenorm is 'no'.*True or False"),
        ({"tie_dropout": 1}, TypeError, "tie_dropout is 1"),
        ({"feed_forward": "gl"}, ValueError, "feed_forward is 'gl'.*'glu'"),
        ({"feed_forward": "glu", "expansion": 0.0}, ValueError, "expansion is 0"),
        ({"norm_eps": 0.0}, ValueError, "norm_eps is 0"),
        ({"mixer": ["s4d"]}, ValueError, "mixer has 1 entries, expected one for each of 2 layers"),
        ({"mixer_options": [{}, {}, {}]}, ValueError, "mixer_options has 3 entries"),
        ({"mixer_options": 3}, TypeError, "mixer_options is 3"),
        ({"mixer": "s4dd"}, ValueError, "s4d"),
        ({"mixer_options": {"d_stat": 4}}, TypeError, "d_state"),
    ],
)
def test_wrong_options(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Backbone(**{"d_model": D, "n_layers": 2, **arguments})
