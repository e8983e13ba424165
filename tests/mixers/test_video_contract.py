"""The contract of every video mixer (longconv.mixers.video.VideoMixer): each row of tests/cases.py goes through it."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from tests.cases import CHAIN, D_MODEL, FRAMES, SIZE, VideoCase, every_video_mixer, video
from tests.mixers.law import check_chunks, check_steps, step_through
from tests.tolerances import RELATIVE_L2, assert_close, relative_l2

# --- streaming --------------------------------------------------------------------------------------------------------


@every_video_mixer
@settings(max_examples=8, deadline=None, derandomize=True)
@given(sizes=st.lists(st.sampled_from([0, 1, 2, 7, 19]), min_size=1, max_size=5))
def test_prefill_in_any_chunks_is_forward(case: VideoCase, sizes: list[int]) -> None:
    mixer, u = case.build(), video(frames=sum(sizes))
    check_chunks(mixer, u, sizes, CHAIN)


@every_video_mixer
def test_looped_step_is_forward(case: VideoCase) -> None:
    check_steps(case.build(), video(), CHAIN)


@every_video_mixer
def test_float32_stream_does_not_drift(case: VideoCase) -> None:
    mixer, u = case.build(torch.float32), video(1, 300, dtype=torch.float32)
    with torch.no_grad():
        y, _ = step_through(mixer, u)
        want = case.build()(u.double())
        assert_close(y, want, 5e-6)
        assert_close(mixer(u), want, 5e-6)


@every_video_mixer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_state_in_double_precision_serves_lower_ones(case: VideoCase, dtype: torch.dtype) -> None:
    mixer, u = case.build(torch.float32).to(dtype), video(dtype=dtype)
    state = mixer.init_state(3, dtype=torch.float64)
    y0, state = mixer.prefill(u[:, :30], state)
    y1, state = mixer.step(u[:, 30], state)
    assert y0.dtype == y1.dtype == dtype
    leaves = [leaf for leaf in pytree.tree_leaves(state) if leaf.is_floating_point() or leaf.is_complex()]
    assert all(leaf.dtype in (torch.float64, torch.complex128) for leaf in leaves)
    assert_close(torch.cat([y0, y1[:, None]], 1), mixer(u[:, :31]), 4 * RELATIVE_L2[dtype])


@every_video_mixer
def test_streaming_changes_no_state_that_it_is_given(case: VideoCase) -> None:
    mixer, u = case.build(), video()
    _, state = mixer.prefill(u)
    before = copy.deepcopy(pytree.tree_map(torch.Tensor.detach, state))
    mixer.step(u[:, 0], state)
    mixer.prefill(u, state)
    for got, want in zip(pytree.tree_leaves(state), pytree.tree_leaves(before), strict=True):
        assert torch.equal(got, want)


@every_video_mixer
def test_gradients_through_chunks_and_steps_are_those_of_forward(case: VideoCase) -> None:
    mixer, weight = case.build(), torch.randn(video().shape, dtype=torch.float64)
    u = video().requires_grad_()
    head, state = mixer.prefill(u[:, :20])
    y_t, state = mixer.step(u[:, 20], state)
    tail, _ = mixer.prefill(u[:, 21:], state)
    outputs = torch.cat([head, y_t[:, None], tail], 1)
    got = torch.autograd.grad((outputs * weight).sum(), [u, *mixer.parameters()])
    want = torch.autograd.grad((mixer(u) * weight).sum(), [u, *mixer.parameters()])
    for one, other in zip(got, want, strict=True):
        assert_close(one, other, 1e-10)


@every_video_mixer
def test_bad_states_are_refused(case: VideoCase) -> None:
    mixer, u = case.build(), video(2)
    _, state = mixer.prefill(u)
    for other in (
        mixer.prefill(video(3))[1],
        mixer.prefill(video(2, size=(5, 3)))[1],
        case.build(d_model=D_MODEL + 1).prefill(video(2, d_model=D_MODEL + 1))[1],
    ):
        for call in (lambda other=other: mixer.step(u[:, 0], other), lambda other=other: mixer.prefill(u, other)):
            with pytest.raises(ValueError, match="^state"):
                call()
    low = pytree.tree_map(lambda leaf: leaf.to(torch.complex64 if leaf.is_complex() else torch.float32), state)
    for wrong in (low, tuple(state), 5, None):
        with pytest.raises(TypeError, match="^state"):
            mixer.step(u[:, 0], wrong)
    with pytest.raises(TypeError, match="dtype"):
        mixer.init_state(2, dtype=torch.int64)


# --- what an output depends on ----------------------------------------------------------------------------------------


@every_video_mixer
def test_an_output_depends_on_the_past_alone(case: VideoCase) -> None:
    """By gradient: on the frame itself, on those before it, on none after it."""
    mixer, u = case.build(), video(1).requires_grad_()
    y = mixer(u)
    for t in (1, 7, FRAMES - 2):
        (gradient,) = torch.autograd.grad(y[:, t].square().sum(), u, retain_graph=True)
        size = gradient.abs().amax((0, 2, 3, 4))
        assert size[t] > 0 and size[:t].max() > 1e-6 * size.max()
        assert (size[t + 1 :] == 0).all()


@every_video_mixer
@pytest.mark.parametrize("padding", [0.0, 1e6, float("nan")])
def test_lengths(case: VideoCase, padding: float) -> None:
    mixer, u, lengths = case.build(), video(4), torch.tensor([FRAMES, 8, 1, 0])
    valid = (torch.arange(FRAMES) < lengths[:, None])[..., None, None, None]
    u = torch.where(valid, u, padding).requires_grad_()
    y = mixer(u, lengths)
    assert (y.masked_select(~valid) == 0).all()
    for sample, length in enumerate(lengths.tolist()[:3]):
        assert_close(y[sample : sample + 1, :length], mixer(u[sample : sample + 1, :length]), CHAIN)
    gradients = torch.autograd.grad(y.square().sum(), [u, *mixer.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0].masked_select(~valid) == 0).all()


@every_video_mixer
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_frame_that_is_not_finite_stays_in_its_sample(case: VideoCase, value: float) -> None:
    mixer, u = case.build(), video()
    clean = mixer(u)
    u[1, 3] = value
    y = mixer(u)
    assert not y[1].isfinite().all()
    assert torch.equal(y[[0, 2]], clean[[0, 2]])


# --- a well-behaved module --------------------------------------------------------------------------------------------


@every_video_mixer
def test_every_parameter_gets_a_gradient(case: VideoCase) -> None:
    mixer = case.build()
    mixer(video()).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 0, name


@every_video_mixer
def test_state_dict_deepcopy_and_no_side_effects(case: VideoCase) -> None:
    mixer, other, u = case.build(), case.build(seed=1), video()
    before, expected = copy.deepcopy(mixer.state_dict()), mixer(u)
    assert not torch.equal(expected, other(u))
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(expected, other(u))
    twin = copy.deepcopy(mixer)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)
    assert not torch.equal(twin(u), expected)
    assert torch.equal(mixer(u), expected)
    assert all(torch.equal(value, before[name]) for name, value in mixer.state_dict().items())


@every_video_mixer
@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 1, D_MODEL), (2, 0, D_MODEL), (0, 9, D_MODEL)], ids=str)
def test_smallest_sizes(case: VideoCase, shape: tuple[int, int, int]) -> None:
    mixer = case.build(d_model=shape[2])
    u = video(*shape[:2], d_model=shape[2]).requires_grad_()
    y = mixer(u)
    assert y.shape == u.shape and y.isfinite().all()
    y.sum().backward()
    _, state = mixer.prefill(u)
    y_t, _ = mixer.step(torch.zeros(shape[0], shape[2], *SIZE, dtype=torch.float64), state)
    assert y_t.shape == (shape[0], shape[2], *SIZE)


# --- torch's own machinery --------------------------------------------------------------------------------------------


@every_video_mixer
def test_compile_takes_the_whole_graph(case: VideoCase) -> None:
    torch._dynamo.reset()
    frames = 20 if case.mixer == "conv_s5" else 5  # two chunks of a scan; recurrences are unrolled
    mixer, u, lengths = case.build(), video(frames=frames), torch.tensor([frames, 4, 1])
    y, expected = torch.compile(mixer, fullgraph=True, backend="aot_eager")(u, lengths), mixer(u, lengths)
    assert_close(y, expected, CHAIN)
    parameters = list(mixer.parameters())
    got = torch.autograd.grad(y.square().sum(), parameters)
    for gradient, want in zip(got, torch.autograd.grad(expected.square().sum(), parameters), strict=True):
        assert_close(gradient, want, 1e-10)


@every_video_mixer
def test_compile_of_streaming_takes_the_whole_graph(case: VideoCase) -> None:
    torch._dynamo.reset()
    mixer, u = case.build(), video(frames=9)
    step, prefill = (torch.compile(f, fullgraph=True, backend="aot_eager") for f in (mixer.step, mixer.prefill))
    with torch.no_grad():
        head, state = prefill(u[:, :-2], mixer.init_state(u.shape[0]))
        y, state = step(u[:, -2], state)
        last, _ = step(u[:, -1], state)
        assert_close(torch.cat([head, y[:, None], last[:, None]], 1), mixer(u), CHAIN)


@every_video_mixer
def test_vmap(case: VideoCase) -> None:
    mixer, u = case.build(), torch.stack([video(), -2 * video()])
    assert_close(torch.vmap(mixer)(u), torch.stack([mixer(part) for part in u]), CHAIN)


@every_video_mixer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(case: VideoCase, dtype: torch.dtype) -> None:
    """Of the module, with a system that stays in float32, and by autocast, in one piece and in steps."""
    u = video(frames=20, dtype=torch.float32)
    expected = case.build(torch.float32)(u)
    mixer, bound = case.build(dtype), 3e-2 if dtype == torch.bfloat16 else 4e-3
    y = mixer(u.to(dtype))
    assert y.dtype == dtype and relative_l2(y, expected) < bound
    with torch.no_grad():
        assert relative_l2(step_through(mixer, u.to(dtype))[0], expected) < bound
    with torch.autocast("cpu", dtype):
        assert relative_l2(case.build(torch.float32)(u), expected) < bound
        for own, given in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
            if list(case.build().parameters(recurse=True)) and case.options.get("output", "") is not None:
                with pytest.raises(TypeError, match=f"u is .*{str(given).split('.')[1]}.*mixer's parameters"):
                    case.build(own)(u.to(given))


@every_video_mixer
def test_meta_device(case: VideoCase) -> None:
    with torch.device("meta"):
        built = case.create(D_MODEL, **case.options)
    u = torch.empty(3, 9, D_MODEL, *SIZE, device="meta")
    for mixer in (built, case.build(torch.float32).to("meta")):
        y, state = mixer.prefill(u)
        y_t, _ = mixer.step(u[:, 0], state)
        assert mixer(u).shape == y.shape == u.shape and y_t.shape == u[:, 0].shape


# --- bad input --------------------------------------------------------------------------------------------------------


@every_video_mixer
def test_bad_input_is_refused(case: VideoCase) -> None:
    mixer = case.build(torch.float32)
    good = torch.zeros(2, 9, D_MODEL, *SIZE)
    for bad, message in [
        (torch.zeros(2, 9, D_MODEL), r"u is a \(2, 9, 5\).*mixes video: expected shape \(B, T, C, H, W\) with C = 5"),
        (torch.zeros(2, 9, *SIZE), r"u is a \(2, 9, 4, 3\).*expected shape \(B, T, C, H, W\)"),
        (good.movedim(2, -1), r"u is a \(2, 9, 4, 3, 5\).*move its last axis"),
        (good.movedim(2, 1), r"u is a \(2, 5, 9, 4, 3\).*transpose axes 1 and 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixer(bad)
        with pytest.raises(ValueError, match=message):
            mixer.prefill(bad)
    for wrong in (good.long(), good.tolist()):
        with pytest.raises(TypeError, match="u is"):
            mixer(wrong)
    for lengths, error in [
        (torch.tensor([9]), ValueError),
        (torch.tensor([9, 10]), ValueError),
        (torch.tensor([9, -1]), ValueError),
        (torch.tensor([9.0, 1.0]), TypeError),
    ]:
        with pytest.raises(error, match="lengths"):
            mixer(good, lengths)
    with pytest.raises(ValueError, match=r"u_t is a \(2, 1, 5, 4, 3\)"):
        mixer.step(good[:, :1], mixer.init_state(2))
    with pytest.raises(NotImplementedError, match="no filter"):
        mixer.filter(4)
