"""Mixers whose filter is sampled from a system in continuous time: sampling rates, and steps that are none."""

from __future__ import annotations

import math

import pytest
import torch

from longconv import create_mixer
from longconv.mixers import ConvolutionMixer, FilterMixer
from tests.cases import CHAIN, LENGTH, MIXER_CASES, Case, sequence
from tests.tolerances import assert_close, relative_l2

SAMPLED = [case for case in MIXER_CASES if case.mixer in ("s4", "s4d", "lssl", "s5", "dss")]


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_rate_is_a_longer_step(case: Case) -> None:
    """forward, filter, prefill and step at rate 3 are those of a mixer whose every dt is 3 times as long."""
    mixer, other, u = case.build(), case.build(), sequence()
    assert isinstance(mixer, FilterMixer) and isinstance(other, FilterMixer)
    with torch.no_grad():
        log_dt = other.taps.get_buffer("log_dt") if "log_dt" in dict(other.taps.named_buffers()) else None
        (other.taps.get_parameter("log_dt") if log_dt is None else log_dt).add_(math.log(3.0))
    want, lengths = other(u), torch.tensor([LENGTH, 8, 1])
    assert relative_l2(mixer(u), want) > 1e-3
    assert_close(mixer(u, rate=3.0), want, CHAIN)
    assert_close(mixer(u, lengths, rate=3), other(u, lengths), CHAIN)
    assert_close(mixer.filter(LENGTH, rate=3.0), other.filter(LENGTH), CHAIN)
    for rate in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match=f"rate is {rate:g}"):
            mixer.filter(5, rate=rate)
    if case.streams:
        with torch.no_grad():
            head, state = mixer.prefill(u[:, :9], mixer.init_state(3, rate=3.0))
            tail = []
            for u_t in u[:, 9:].unbind(1):
                y_t, state = mixer.step(u_t, state)
                tail.append(y_t)
        assert_close(torch.cat([head, torch.stack(tail, 1)], 1), want, CHAIN)


@pytest.mark.parametrize("name", ["sgconv", "long_conv"])
def test_free_taps_refuse_a_rate(name: str) -> None:
    mixer = create_mixer(name, 4)
    assert isinstance(mixer, ConvolutionMixer)
    assert torch.equal(mixer.filter(5, rate=1.0), mixer.filter(5))
    for call in (lambda: mixer.filter(5, rate=2.0), lambda: mixer(torch.zeros(1, 5, 4), rate=2.0)):
        with pytest.raises(ValueError, match=f"rate is 2, expected 1: the taps of {type(mixer).__name__} are free"):
            call()


@pytest.mark.parametrize("case", SAMPLED, ids=str)
@pytest.mark.parametrize(
    ("value", "named"), [(800.0, r"dt\[.*\] is inf"), (-800.0, r"dt\[.*\] is 0"), (math.nan, "log_dt")]
)
def test_steps_that_are_none_are_named(case: Case, value: float, named: str) -> None:
    """Not the Lambda or the B_bar that they spoil."""
    mixer = case.build()
    log_dt = next(t for name, t in mixer.state_dict().items() if name == "taps.log_dt")
    log_dt.flatten()[-1:] = value
    calls = [lambda: mixer(sequence()), lambda: mixer.filter(9)]
    for call in [*calls, lambda: mixer.init_state(1)] if case.streams else calls:
        with pytest.raises(ValueError, match=f"^{named}"):
            call()
