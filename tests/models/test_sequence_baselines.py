"""Mixers to compare with: their definitions, what they depend on, padding, and their place in a backbone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from longconv.mixers import Mixer
from longconv.models import GRU, SEQUENCE_BASELINES, Backbone, PlainConvolution, RotaryAttention
from tests.tolerances import assert_close

D, LENGTH = 8, 23
CASES: list[tuple[str, dict[str, Any]]] = [
    ("transformer", {"heads": 2}),
    ("gru", {}),
    ("cnn", {"kernel": 5, "dilation": 2}),
    ("transformer", {"heads": 2, "bidirectional": True}),
    ("gru", {"bidirectional": True}),
    ("cnn", {"kernel": 5, "bidirectional": True}),
]
every = pytest.mark.parametrize(("name", "options"), CASES)


def build(name: str, options: dict[str, Any]) -> Mixer:
    torch.manual_seed(0)
    kind: Any = SEQUENCE_BASELINES[name]
    mixer: Mixer = kind(D, **options)
    return mixer.double()


def sequence(batch: int = 3, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_attention_is_as_defined() -> None:
    """Turned queries and keys as complex numbers, softmax row by row."""
    for bidirectional in (False, True):
        mixer = build("transformer", {"heads": 2, "bidirectional": bidirectional, "base": 50.0})
        assert isinstance(mixer, RotaryAttention)
        u = sequence(1)[0]
        outputs = torch.zeros(LENGTH, D, dtype=torch.float64)
        q, k, v = (part.view(LENGTH, 2, 4) for part in mixer.project(u).split(D, -1))
        turns = torch.exp(1j * torch.arange(LENGTH)[:, None] * 50.0 ** (-torch.arange(2.0, dtype=torch.float64) / 2))
        for head in range(2):
            q_turned, k_turned = (turns * torch.complex(x[:, head, :2], x[:, head, 2:]) for x in (q, k))
            for t in range(LENGTH):
                seen = LENGTH if bidirectional else t + 1
                scores = (q_turned[t] * k_turned[:seen].conj()).real.sum(-1) / math.sqrt(4)
                outputs[t, 4 * head : 4 * head + 4] = scores.softmax(0) @ v[:seen, head]
        assert_close(mixer(u[None])[0], mixer.join(outputs), 1e-12)


def test_gru_and_convolution_are_as_defined() -> None:
    u = sequence()
    gru = build("gru", {"bidirectional": True})
    assert isinstance(gru, GRU)
    back = torch.cat([gru.backwards(u[:, t:].flip(1))[0][:, -1:] for t in range(LENGTH)], 1)
    assert_close(gru(u), gru.join(torch.cat([gru.forwards(u)[0], back], -1)), 1e-12)
    for options, lags in (
        ({"kernel": 3, "dilation": 2}, (4, 2, 0)),
        ({"kernel": 3, "bidirectional": True}, (1, 0, -1)),
    ):
        cnn = build("cnn", options)
        assert isinstance(cnn, PlainConvolution) and cnn.taps.bias is not None
        y = cnn.taps.bias.expand(3, LENGTH, D).clone()
        for tap, lag in enumerate(lags):
            for t in range(max(lag, 0), min(LENGTH, LENGTH + lag)):
                y[:, t] += u[:, t - lag] @ cnn.taps.weight[:, :, tap].T
        assert_close(cnn(u), torch.nn.functional.gelu(y), 1e-12)


@every
def test_dependence_in_time(name: str, options: dict[str, Any]) -> None:
    mixer, u, t = build(name, options), sequence().requires_grad_(), 12
    (gradient,) = torch.autograd.grad(mixer(u)[:, t].square().sum(), u)
    size = gradient.abs().amax((0, 2))
    assert size[t] > 0 and size[:t].max() > 0
    assert (size[t + 1 :].max() > 0) == options.get("bidirectional", False)


@every
@pytest.mark.parametrize("padding", [1e6, float("nan")])
def test_lengths(name: str, options: dict[str, Any], padding: float) -> None:
    mixer, lengths = build(name, options), torch.tensor([LENGTH, 9, 1, 0])
    valid = (torch.arange(LENGTH) < lengths[:, None])[..., None]
    u = torch.where(valid, sequence(4), padding).requires_grad_()
    y = mixer(u, lengths)
    assert (y.masked_select(~valid) == 0).all()
    for sample, length in enumerate(lengths.tolist()[:3]):
        assert_close(y[sample : sample + 1, :length], mixer(u[sample : sample + 1, :length]), 1e-12)
    gradients = torch.autograd.grad(y.square().sum(), [u, *mixer.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0].masked_select(~valid) == 0).all()


@every
def test_every_parameter_gets_a_gradient_and_nothing_is_empty(name: str, options: dict[str, Any]) -> None:
    mixer = build(name, options)
    mixer(sequence()).square().sum().backward()
    for parameter in mixer.parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 0
    for shape in ((0, 5, D), (2, 0, D)):
        assert mixer(torch.zeros(shape, dtype=torch.float64)).shape == shape


@every
def test_a_backbone_takes_them_by_name(name: str, options: dict[str, Any]) -> None:
    backbone = Backbone(D, 2, name, options, feed_forward="mlp")
    y = backbone(sequence().float(), torch.tensor([LENGTH, 4, 0]))
    assert y.shape == (3, LENGTH, D) and (y[1, 4:] == 0).all() and y[1, :4].norm() > 0
    assert "no online form" in str(backbone.eval().streaming_refusal())


def test_bad_options() -> None:
    with pytest.raises(TypeError, match=r"mixer 'transformer' has no option 'head'; did you mean 'heads'"):
        Backbone(D, 1, "transformer", {"head": 2})
    with pytest.raises(ValueError, match=r"mixer is 'transfomer'.*'s4d'.*'gru'.*did you mean 'transformer'"):
        Backbone(D, 1, "transfomer")
    with pytest.raises(ValueError, match="heads is 3, expected d_model / heads to be an even number"):
        RotaryAttention(D, heads=3)
    with pytest.raises(ValueError, match="kernel is 4, expected an odd number"):
        PlainConvolution(D, kernel=4, bidirectional=True)
    with pytest.raises(TypeError, match="bidirectional is 1"):
        GRU(D, bidirectional=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lengths go from 0 to 24"):
        GRU(D).double()(sequence(), torch.tensor([24, 0, 1]))
