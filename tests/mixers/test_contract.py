"""The contract of every mixer (longconv.mixers.base.Mixer): each row of tests/cases.py goes through all of it."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from longconv import create_mixer, list_mixers
from longconv.mixers import ConvolutionMixer, FilterMixer, mixer_defaults
from tests.cases import (
    CHAIN,
    D_MODEL,
    L_MAX,
    LENGTH,
    MIXERS,
    VIDEO_MIXERS,
    Case,
    every_mixer,
    filter_mixers,
    invariant_mixers,
    other_mixers,
    sequence,
    streaming_mixers,
)
from tests.mixers.law import check_chunks, check_steps, step_through
from tests.tolerances import RELATIVE_L2, assert_close

# --- registration -----------------------------------------------------------------------------------------------------


def test_every_mixer_has_a_row() -> None:
    assert {*list_mixers()} <= {*MIXERS, *VIDEO_MIXERS}, "add a row to tests/cases.py for every registered mixer"
    assert {*MIXERS} == {*list_mixers(video=False)}


def test_unknown_mixer_and_option() -> None:
    with pytest.raises(ValueError, match=r"'s4dd'.*did you mean.*'s4d'"):
        create_mixer("s4dd", 4)
    with pytest.raises(TypeError, match=r"'d_stat'; did you mean 'd_state'"):
        create_mixer("s4d", 4, d_stat=8)


@pytest.mark.parametrize("name", list_mixers())
def test_every_mixer_refuses_unknown_options_and_sizes(name: str) -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        create_mixer(name, 4, no_such_option=1)
    with pytest.raises(ValueError, match="d_model is 0"):
        create_mixer(name, 0)
    with pytest.raises(TypeError, match=r"d_model is 4\.0"):
        create_mixer(name, 4.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list_mixers())
def test_options_of_a_wrong_kind_are_refused_by_name(name: str) -> None:
    defaults = mixer_defaults(name)
    switches = [option for option, default in defaults.items() if isinstance(default, bool)]
    assert {"bidirectional", "causal"} & set(switches) or name in VIDEO_MIXERS
    for switch in switches:
        for wrong in (2, 1, 0.5, "yes", None):
            with pytest.raises(TypeError, match=f"^{switch} is {wrong!r}.*expected True or False"):
                create_mixer(name, 4, **{switch: wrong})
    if "channels" in defaults:
        for bidirectional in (False, True):
            with pytest.raises(ValueError, match="^channels is -1, "):
                create_mixer(name, 4, channels=-1, bidirectional=bidirectional)


# --- streaming --------------------------------------------------------------------------------------------------------


@streaming_mixers
@settings(max_examples=12, deadline=None, derandomize=True)
@given(sizes=st.lists(st.sampled_from([0, 1, 2, 7, 19, 40]), min_size=1, max_size=6))
def test_prefill_in_any_chunks_is_forward(case: Case, sizes: list[int]) -> None:
    mixer, u = case.build(), sequence(length=sum(sizes))
    check_chunks(mixer, u, sizes, CHAIN)


@streaming_mixers
def test_looped_step_is_forward(case: Case) -> None:
    check_steps(case.build(), sequence(), CHAIN)


@streaming_mixers
def test_prefill_and_steps_alternate(case: Case) -> None:
    mixer, u = case.build(), sequence()
    y0, state = mixer.prefill(u[:, :11])
    y1, state = mixer.step(u[:, 11], state)
    y2, state = mixer.prefill(u[:, 12:13], state)
    y3, state = mixer.prefill(u[:, 13:], state)
    assert_close(torch.cat([y0, y1[:, None], y2, y3], 1), mixer(u), CHAIN)


@streaming_mixers
def test_float32_stream_does_not_drift(case: Case) -> None:
    mixer, u = case.build(torch.float32), sequence(1, 1000, dtype=torch.float32)
    with torch.no_grad():
        y, state = step_through(mixer, u)
        assert_close(y, case.build()(u.double()), 5e-6)
    precise = (torch.float32, torch.float64, torch.complex64, torch.complex128)
    assert all(leaf.dtype in precise for leaf in pytree.tree_leaves(state))


@streaming_mixers
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_state_in_double_precision_serves_lower_ones(case: Case, dtype: torch.dtype) -> None:
    """Step by step and in chunks short and long, which take different ways; the state stays in double precision."""
    mixer, u = case.build(torch.float32).to(dtype), sequence(dtype=dtype)
    state = mixer.init_state(3, dtype=torch.float64)
    y0, state = mixer.prefill(u[:, :36], state)
    y1, state = mixer.step(u[:, 36], state)
    assert y0.dtype == y1.dtype == dtype
    assert all(leaf.dtype in (torch.float64, torch.complex128) for leaf in pytree.tree_leaves(state))
    y2, _ = mixer.prefill(u[:, :3], mixer.init_state(3, dtype=torch.float64))
    want = mixer(u)
    low = 4 * RELATIVE_L2[dtype]  # the output layer in that precision, twice
    assert_close(torch.cat([y0, y1[:, None]], 1), want, low)
    assert_close(y2, want[:, :3], low)


@streaming_mixers
def test_streaming_changes_no_state_that_it_is_given(case: Case) -> None:
    mixer, u = case.build(), sequence()
    _, state = mixer.prefill(u)
    before = copy.deepcopy(pytree.tree_map(torch.Tensor.detach, state))
    mixer.step(u[:, 0], state)
    mixer.prefill(u, state)
    for got, want in zip(pytree.tree_leaves(state), pytree.tree_leaves(before), strict=True):
        assert torch.equal(got, want)


@streaming_mixers
def test_gradients_through_chunks_are_those_of_forward(case: Case) -> None:
    mixer, weight = case.build(), torch.randn(3, LENGTH, D_MODEL, dtype=torch.float64)
    gradients = []
    for chunks in ([LENGTH], [9, LENGTH - 9]):
        u = sequence().requires_grad_()
        state, outputs = mixer.init_state(3), []
        for chunk in u.split(chunks, dim=1):
            y, state = mixer.prefill(chunk, state)
            outputs.append(y)
        gradients.append(torch.autograd.grad((torch.cat(outputs, 1) * weight).sum(), [u, *mixer.parameters()]))
    u = sequence().requires_grad_()
    whole = torch.autograd.grad((mixer(u) * weight).sum(), [u, *mixer.parameters()])
    for one, two, want in zip(*gradients, whole, strict=True):
        assert_close(one, want, 1e-10)
        assert_close(two, want, 1e-10)


@streaming_mixers
def test_streaming_refuses_bad_input(case: Case) -> None:
    mixer = case.build()
    state = mixer.init_state(2)
    with pytest.raises(ValueError, match=r"u_t is a \(2, 1, 5\)"):
        mixer.step(torch.zeros(2, 1, D_MODEL, dtype=torch.float64), state)
    with pytest.raises(ValueError, match=r"u_t is a \(2, 4\)"):
        mixer.step(torch.zeros(2, 4, dtype=torch.float64), state)
    with pytest.raises(ValueError, match=r"^state\.\w+ is .*, a state of batch size 2.* makes one that fits"):
        mixer.step(torch.zeros(3, D_MODEL, dtype=torch.float64), state)
    with pytest.raises(ValueError, match=r"^state\.\w+ is .*, a state of batch size 2.* makes one that fits"):
        mixer.prefill(torch.zeros(1, 4, D_MODEL, dtype=torch.float64), state)
    with pytest.raises(TypeError, match="dtype"):
        mixer.init_state(2, dtype=torch.int64)
    low = pytree.tree_map(lambda leaf: leaf.to(torch.complex64 if leaf.is_complex() else torch.float32), state)
    for wrong, message in [
        (low, r"state\.\w+ is .*dtype=torch.float64"),
        (tuple(state), "state is .*init_state"),
        (5, "state is 5"),
    ]:
        with pytest.raises(TypeError, match=message):
            mixer.step(torch.zeros(2, D_MODEL, dtype=torch.float64), wrong)
        with pytest.raises(TypeError, match=message):
            mixer.prefill(torch.zeros(2, 4, D_MODEL, dtype=torch.float64), wrong)


@streaming_mixers
def test_the_state_of_another_mixer_is_refused(case: Case) -> None:
    """Of a mixer of other sizes, or whose system stayed on another device."""
    mixer, u = case.build(), sequence()
    options = mixer_defaults(case.mixer)
    for option, size in [pair for pair in (("d_state", 16), ("channels", 3)) if pair[0] in options]:
        more = {"output": "linear"} if option == "channels" else {}
        other = create_mixer(case.mixer, D_MODEL, **{**case.options, **more, option: size}).double().init_state(3)
        for call in (lambda other=other: mixer.step(u[:, 0], other), lambda other=other: mixer.prefill(u, other)):
            with pytest.raises(ValueError, match="^state"):
                call()
    with pytest.raises(TypeError, match="^state is None"):
        mixer.step(u[:, 0], None)
    state = mixer.init_state(3)
    system = next(name for name in ("C", "k", "past") if hasattr(state, name))
    moved = state._replace(**{system: pytree.tree_map(lambda leaf: leaf.to("meta"), getattr(state, system))})
    with pytest.raises(ValueError, match=rf"^state\.{system} is on meta, but \w+( \w+)? is on cpu"):
        mixer.step(u[:, 0], moved)


@other_mixers
def test_streaming_is_refused_with_the_reason(case: Case) -> None:
    mixer, u = case.build(), sequence()
    reason = mixer.streaming_refusal()
    assert reason is not None and "still to come" in reason
    for call in (lambda: mixer.init_state(3), lambda: mixer.prefill(u), lambda: mixer.step(u[:, 0], None)):
        with pytest.raises(NotImplementedError, match=f"{type(mixer).__name__} can't stream: {re.escape(reason)}"):
            call()


# --- what an output depends on ----------------------------------------------------------------------------------------


@every_mixer
@pytest.mark.parametrize("length", [L_MAX, L_MAX - 1, 37])
def test_dependence_in_time(case: Case, length: int) -> None:
    """By gradient: a causal output depends on no later input, a bidirectional one on both sides."""
    mixer, u = case.build(), sequence(1, length).requires_grad_()
    y = mixer(u)
    for t in (1, 7, length // 2 + 1, length - 2):
        (gradient,) = torch.autograd.grad(y[:, t].square().sum(), u, retain_graph=True)
        size = gradient.abs().amax((0, 2))
        assert size[t] > 0 and size[:t].max() > 1e-6 * size.max()
        if case.bidirectional or case.learned:
            assert size[t + 1 :].max() > 1e-6 * size.max()
        else:
            assert size[t + 1 :].max() <= 1e-13 * size.max()  # what is left is the rounding of the FFT


@every_mixer
@pytest.mark.parametrize("padding", [0.0, 1e6, float("nan")])
def test_lengths(case: Case, padding: float) -> None:
    mixer, u, lengths = case.build(), sequence(4), torch.tensor([LENGTH, 8, 1, 0])
    valid = (torch.arange(LENGTH) < lengths[:, None])[..., None]
    u = torch.where(valid, u, padding).requires_grad_()
    y = mixer(u, lengths)
    assert (y.masked_select(~valid) == 0).all()
    for sample, length in enumerate(lengths.tolist()[:3]):
        assert_close(y[sample : sample + 1, :length], mixer(u[sample : sample + 1, :length]), CHAIN)
    gradients = torch.autograd.grad(y.square().sum(), [u, *mixer.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0].masked_select(~valid) == 0).all()


@every_mixer
def test_nan_stays_in_its_sample(case: Case) -> None:
    mixer, u = case.build(), sequence()
    clean = mixer(u)
    u[1, 3] = torch.nan
    y = mixer(u)
    assert y[1].isnan().any()
    assert torch.equal(y[[0, 2]], clean[[0, 2]])


@streaming_mixers
def test_nan_in_a_stream_stays_in_its_sample_and_comes_no_earlier(case: Case) -> None:
    mixer, u = case.build(), sequence(length=12)
    outputs = []
    for value in (0.0, torch.nan):
        u[1, 5] = value
        y, state = mixer.prefill(u[:, :3])
        parts = [y]
        for u_t in u[:, 3:9].unbind(1):
            y_t, state = mixer.step(u_t, state)
            parts.append(y_t[:, None])
        outputs.append(torch.cat([*parts, mixer.prefill(u[:, 9:], state)[0]], 1))
    clean, y = outputs
    assert y[1, 5].isnan().any()
    assert torch.equal(y[[0, 2]], clean[[0, 2]]) and torch.equal(y[1, :5], clean[1, :5])


# --- the filter -------------------------------------------------------------------------------------------------------


@invariant_mixers
def test_filter_of_fewer_taps_is_a_prefix(case: Case) -> None:
    mixer = case.build()
    long = mixer.filter(LENGTH)
    for length in (1, 7, L_MAX, L_MAX + 1):
        assert_close(mixer.filter(length), long[..., :length], CHAIN)
    assert mixer.filter(0).shape == (*long.shape[:2], 0)


@filter_mixers
def test_forward_is_the_convolution_with_the_filter(case: Case) -> None:
    """The definition, lag by lag, with the mixer's own output layer behind it."""
    if case.learned:
        pytest.skip("a trained transform is no convolution; where it starts, it is (test_butterfly.py)")
    mixer, u = case.build(), sequence()
    assert isinstance(mixer, FilterMixer)
    k = mixer.filter(LENGTH)
    lag = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    forward, reverse = k.chunk(2) if case.bidirectional else (k, None)
    matrix = torch.where(lag >= 0, forward[..., lag.clamp(min=0)], 0)
    if reverse is not None:
        matrix = matrix + torch.where(lag < 0, reverse[..., (-lag - 1).clamp(min=0)], 0)
    summed = "btch" if isinstance(mixer, ConvolutionMixer) else "btc"  # where features share a state, over them too
    y = torch.einsum(f"chts,bsh->{summed}", matrix, u).flatten(2) + (mixer.D * u[:, :, None]).flatten(2)
    assert_close(mixer(u), mixer.output(mixer.norm(mixer.activation(y))), CHAIN)


# --- a well-behaved module --------------------------------------------------------------------------------------------


@every_mixer
def test_every_parameter_gets_a_gradient(case: Case) -> None:
    mixer = case.build()
    mixer(sequence()).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 0, name


@every_mixer
def test_state_dict_round_trip(case: Case) -> None:
    mixer, other, u = case.build(), case.build(seed=1), sequence()
    assert not torch.equal(mixer(u), other(u))
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(mixer(u), other(u))


@every_mixer
def test_forward_changes_nothing(case: Case) -> None:
    mixer, u = case.build(), sequence()
    before, u_before = copy.deepcopy(mixer.state_dict()), u.clone()
    first = mixer(u)
    assert torch.equal(first, mixer(u))
    assert torch.equal(u, u_before)
    assert all(torch.equal(value, before[name]) for name, value in mixer.state_dict().items())


@every_mixer
def test_deepcopy_is_equal_and_apart(case: Case) -> None:
    mixer, u = case.build(), sequence()
    expected = mixer(u)
    twin = copy.deepcopy(mixer)
    assert torch.equal(twin(u), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(mixer(u), expected)


@every_mixer
@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 1, D_MODEL), (2, 0, D_MODEL), (0, 9, D_MODEL)], ids=str)
def test_smallest_sizes(case: Case, shape: tuple[int, int, int]) -> None:
    mixer = case.build(d_model=shape[2])
    u = sequence(*shape[:2], d_model=shape[2]).requires_grad_()
    y = mixer(u)
    assert y.shape == u.shape and y.isfinite().all()
    y.sum().backward()


# --- bad input --------------------------------------------------------------------------------------------------------


@every_mixer
def test_bad_input_is_refused(case: Case) -> None:
    mixer = case.build(torch.float32)
    good = torch.zeros(2, 9, D_MODEL)
    for bad, message in [
        (torch.zeros(2, D_MODEL), r"u is a \(2, 5\) float32 tensor, expected shape \(B, L, D\) with D = 5"),
        (torch.zeros(2, 3, D_MODEL, 8, 8), r"u is a \(2, 3, 5, 8, 8\).*expected shape \(B, L, D\)"),
        (torch.zeros(2, D_MODEL, 9), r"u is a \(2, 5, 9\).*transpose"),
        (torch.zeros(2, 9, D_MODEL + 1), r"u is a \(2, 9, 6\).*\(any, any, 5\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixer(bad)
    for wrong in (good.long(), good.double(), good.tolist()):
        with pytest.raises(TypeError, match="u is"):
            mixer(wrong)
    for lengths, error in [
        (torch.tensor([9]), ValueError),
        (torch.tensor([9, 10]), ValueError),
        (torch.tensor([9, -1]), ValueError),
        (torch.tensor([9.0, 1.0]), TypeError),
        ([9, 1], TypeError),
    ]:
        with pytest.raises(error, match="lengths"):
            mixer(good, lengths)


@invariant_mixers
def test_bad_lengths_of_a_filter_are_refused(case: Case) -> None:
    mixer = case.build(torch.float32)
    with pytest.raises(ValueError, match="length is -1"):
        mixer.filter(-1)
    with pytest.raises(TypeError, match=r"length is 3\.5"):
        mixer.filter(3.5)  # type: ignore[arg-type]
