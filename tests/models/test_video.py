"""Video prediction: teacher forcing, rollouts, quantised latents, bad input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.models import VIDEO_MIXERS, VectorQuantizer, VideoPredictor, optimizer_groups
from tests.tolerances import assert_close

OPTIONS: dict[str, dict[str, Any]] = {
    "conv_s5": {"d_state": 8, "dt_min": 0.05},
    "conv_lstm": {},
    "frame_attention": {"heads": 2},
}


def predictor(mixer: str = "conv_s5", **options: Any) -> VideoPredictor:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"d_model": 8, "n_layers": 2, "mixer_options": OPTIONS[mixer], "depths": (4, 8)}
    return VideoPredictor(2, mixer=mixer, **{**settings, **options}).double()


def video(batch: int = 2, frames: int = 9, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, frames, 2, size, size, generator=generator, dtype=torch.float64)


every_mixer = pytest.mark.parametrize("mixer", sorted(VIDEO_MIXERS))


def test_every_video_mixer_is_tested() -> None:
    assert set(OPTIONS) == set(VIDEO_MIXERS)


@every_mixer
@pytest.mark.parametrize(
    "options",
    [{}, {"prenorm": True, "norm": "rms"}, {"codebook": 5}, {"patch": 4, "depths": ()}, {"patch": 2, "depths": (6,)}],
    ids=str,
)
def test_steps_and_chunks_are_forward(mixer: str, options: dict[str, Any]) -> None:
    model, x = predictor(mixer, **options).eval(), video()
    want = model(x)
    assert want.shape == x.shape and want.min() > 0 and want.max() < 1
    state, outputs = model.init_state(2), []
    for frame in x.unbind(1):
        y, state = model.step(frame, state)
        outputs.append(y)
    assert_close(torch.stack(outputs, 1), want, 1e-11)
    head, state = model.prefill(x[:, :4])
    tail, _ = model.prefill(x[:, 4:], state)
    assert_close(torch.cat([head, tail], 1), want, 1e-11)


@every_mixer
@pytest.mark.parametrize("context", [1, 5])
def test_a_rollout_is_the_model_fed_with_its_own_predictions(mixer: str, context: int) -> None:
    model, x = predictor(mixer).eval(), video()[:, :context]
    frames = x
    for _ in range(4):
        frames = torch.cat([frames, model(frames)[:, -1:]], 1)
    assert_close(model.rollout(x, 4), frames[:, context:], 1e-11)
    assert model.rollout(x, 0).shape == (2, 0, 2, 16, 16)


@every_mixer
def test_no_frames_and_a_single_one(mixer: str) -> None:
    model, x = predictor(mixer).eval(), video()
    want = model(x[:, :2])
    none, state = model.prefill(x[:, :0])
    assert none.shape == model(x[:, :0]).shape == (2, 0, 2, 16, 16)
    first, state = model.step(x[:, 0], state)
    none, state = model.prefill(x[:, :0], state)
    second, _ = model.prefill(x[:, 1:2], state)
    assert none.shape == (2, 0, 2, 16, 16)
    assert_close(first, model(x[:, :1])[:, 0], 1e-11)
    assert_close(torch.stack([first, second[:, 0]], 1), want, 1e-11)


def test_layers_norm_with_the_published_epsilon() -> None:
    norms = [
        module
        for module in VideoPredictor(1, d_model=8, n_layers=2).layers.modules()
        if isinstance(module, torch.nn.LayerNorm)
    ]
    assert len(norms) == 2 and {norm.eps for norm in norms} == {1e-6}


def test_a_prediction_depends_on_the_past_alone() -> None:
    model, x = predictor().eval(), video(1).requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, 4].sum(), x)
    size = gradient.abs().amax((0, 2, 3, 4))
    assert (size[:5] > 0).all() and (size[5:] == 0).all()


@pytest.mark.parametrize("patch", [2, 8])
def test_a_patch_is_read_and_written_at_its_place(patch: int) -> None:
    """With convolutions that hand on what they get, the decoder undoes the encoder."""
    model, x = predictor(patch=patch, depths=(), d_model=2 * patch**2, mixer_options={"d_state": 4}), video()[0]
    for conv in (model.encoder[1], model.decoder[0]):
        assert isinstance(conv, torch.nn.Conv2d) and conv.bias is not None
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    latent = model.encoder(x)
    assert latent.shape == (9, 2 * patch**2, 16 // patch, 16 // patch)
    assert torch.equal(model.decoder(latent), x)
    assert model.decoder(model.encoder(x[:0])).shape == (0, 2, 16, 16)


def test_predictions_start_from_the_mean_of_the_data() -> None:
    """The mean over random models of the logits of their predictions."""
    torch.manual_seed(0)
    models = [VideoPredictor(1, d_model=8, n_layers=1, mixer_options={"d_state": 8}, mean=0.05) for _ in range(8)]
    logits = torch.stack([model.logits(torch.rand(1, 3, 1, 16, 16)) for model in models])
    assert logits.mean().item() == pytest.approx(-2.944, abs=0.3)


def test_losses_compare_predictions_with_the_next_frames() -> None:
    model, x = predictor(), video()
    got, want = model(x[:, :-1]), x[:, 1:]
    losses = {
        "mse": (got - want).square().mean(),
        "l1": (got - want).abs().mean(),
        "bce": F.binary_cross_entropy(got, want),
    }
    losses["mse_l1"] = (losses["mse"] + losses["l1"]) / 2
    for kind, value in losses.items():
        assert model.loss(x, kind).item() == pytest.approx(value.item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"kind is 'ms'.*did you mean 'mse'"):
        model.loss(x, "ms")
    for frames in (0, 1):
        with pytest.raises(ValueError, match=rf"frames has shape \(2, {frames}, .*expected T >= 2"):
            model.loss(x[:, :frames])


@every_mixer
@pytest.mark.parametrize("options", [{}, {"codebook": 5}, {"patch": 4, "depths": (), "prenorm": True}], ids=str)
def test_the_loss_of_a_rollout_and_its_gradient_are_those_of_a_loop(mixer: str, options: dict[str, Any]) -> None:
    """The loop runs the whole model anew for every frame, with all predictions so far in the graph."""
    model, x = predictor(mixer, **options), video(2, 7)
    shown = x[:, :3]
    while shown.shape[1] < 7:
        shown = torch.cat([shown, model(shown)[:, -1:]], 1)
    want = F.binary_cross_entropy(model(x[:, :3]), x[:, 1:4]) * 3 / 6
    want = want + F.binary_cross_entropy(shown[:, 4:], x[:, 4:]) * 3 / 6
    if model.quantizer is not None:
        want = want + model.quantizer(model.encoder(shown[:, :-1].flatten(0, 1)).movedim(1, -1)).loss
    got = model.loss(x, "bce", context=3)
    assert got.item() == pytest.approx(want.item(), rel=1e-6)
    parameters = [*model.parameters()]
    for one, other in zip(torch.autograd.grad(got, parameters), torch.autograd.grad(want, parameters), strict=True):
        assert_close(one, other, 1e-5)


@every_mixer
def test_a_rollout_trains_from_any_number_of_given_frames(mixer: str) -> None:
    model, x = predictor(mixer), video(2, 6)
    assert model.loss(x, context=5).item() == model.loss(x).item()
    for context in (1, 4):
        rolled = model.rollout(x[:, :context], 6 - context)
        given = model(x[:, :context])[:, :-1]
        expected = (torch.cat([given, rolled], 1) - x[:, 1:]).square().mean()
        assert model.loss(x, context=context).item() == pytest.approx(expected.item(), rel=1e-6)
    for context, message in ((0, "context is 0"), (6, "context is 6, expected less than the 6 frames")):
        with pytest.raises(ValueError, match=message):
            model.loss(x, context=context)


def test_what_a_rollout_keeps_for_the_gradient_grows_with_its_frames_alone() -> None:
    model = predictor()

    def kept(frames: int) -> int:
        sizes: dict[int, int] = {}

        def note(saved: Tensor) -> Tensor:
            sizes[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
            loss = model.loss(video(1, frames), context=2)
        assert loss.requires_grad
        return sum(sizes.values())

    eight, sixteen, thirty_two = (kept(frames) for frames in (8, 16, 32))
    assert thirty_two - sixteen == pytest.approx(2 * (sixteen - eight), rel=0.02)


def test_a_rollout_trains_with_dropout() -> None:
    model, x = predictor(dropout=0.5), video()
    torch.manual_seed(0)
    first = model.loss(x, context=3)
    first.backward()
    assert first.item() != model.loss(x, context=3).item()
    assert model.eval().loss(x, context=3).item() == model.loss(x, context=3).item()


@pytest.mark.parametrize(("codebook", "share"), [(None, 0.2), (16, 0.7)])
def test_it_learns(codebook: int | None, share: float) -> None:
    """A bar that moves a pixel a frame: a small model predicts it far better than the last frame does."""
    bars = torch.zeros(4, 12, 1, 16, 16)
    for sample in range(4):
        for t in range(12):
            bars[sample, t, 0, :, (3 * sample + t) % 16] = 1.0
    torch.manual_seed(0)
    options = {"d_state": 16, "dt_min": 0.05, "dt_max": 0.5}
    model = VideoPredictor(1, d_model=16, n_layers=2, mixer_options=options, depths=(16,), codebook=codebook)
    optimizer = torch.optim.Adam(optimizer_groups(model, lr=0.01), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(bars, "bce").backward()
        optimizer.step()
    error = (model(bars)[:, 3:-1] - bars[:, 4:]).square().mean()
    copied = (bars[:, 3:-1] - bars[:, 4:]).square().mean()
    assert error < share * copied


def test_system_parameters_have_a_rate_of_their_own_and_no_decay() -> None:
    model = VideoPredictor(1, d_model=8, n_layers=1, mixer_options={"d_state": 8, "filter_lr": 1e-4})
    plain, system = optimizer_groups(model, lr=0.01, weight_decay=0.1)
    assert (system["lr"], system["weight_decay"]) == (1e-4, 0.0)
    assert {id(p) for p in system["params"]} == {id(p) for name, p in model.named_parameters() if ".system." in name}
    assert len(plain["params"]) + len(system["params"]) == len(list(model.parameters()))


def test_saving_and_loading(tmp_path: Path) -> None:
    model = predictor(codebook=7).float()
    model.save_pretrained(tmp_path)
    again, x = VideoPredictor.from_pretrained(tmp_path), video().float()
    assert torch.equal(again(x), model(x))


# --- quantiser --------------------------------------------------------------------------------------------------------


def test_words_are_the_nearest_ones() -> None:
    torch.manual_seed(0)
    quantizer, x = VectorQuantizer(11, 3).double(), torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    features, codes, loss = quantizer(x)
    distances = (x[..., None, :] - quantizer.words).square().sum(-1)
    assert torch.equal(codes, distances.argmin(-1))
    assert_close(features, quantizer.words[codes])
    nearest = distances.amin(-1).mean() / 3
    assert loss.item() == pytest.approx(1.25 * nearest.item())
    weight = torch.randn_like(features)
    (straight,) = torch.autograd.grad((features * weight).sum(), x, retain_graph=True)
    assert torch.equal(straight, weight)
    (drawn,) = torch.autograd.grad(loss, quantizer.words)
    assert (drawn.norm(dim=-1) > 0).tolist() == [bool((codes == word).any()) for word in range(11)]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mixer": "conv_s4"}, ValueError, "mixer is 'conv_s4' (str), expected one of 'conv_s5'"),
        ({"mixer_options": {"d_stat": 8}}, TypeError, "mixer 'conv_s5' has no option 'd_stat'; did you mean 'd_state'"),
        ({"mixer": "conv_lstm", "mixer_options": {"kernel": 4}}, ValueError, "kernel is 4, expected an odd number"),
        ({"mixer": "frame_attention", "mixer_options": {"heads": 3}}, ValueError, "heads is 3, expected a divisor of"),
        ({"depths": ()}, ValueError, "depths is empty"),
        ({"depths": (4, 0)}, ValueError, "depths is 0"),
        ({"patch": 0}, ValueError, "patch is 0"),
        ({"patch": 2.0}, TypeError, "patch is 2.0"),
        ({"norm": "batch"}, ValueError, "norm is 'batch'"),
        ({"n_layers": 0}, ValueError, "n_layers is 0"),
        ({"codebook": 0}, ValueError, "n_codes is 0"),
        ({"prenorm": 1}, TypeError, "prenorm is 1"),
        ({"dropout": 2.0}, ValueError, "dropout is 2"),
        ({"mean": 0.0}, ValueError, "mean is 0"),
        ({"mean": 1.0}, ValueError, "mean is 1"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        VideoPredictor(1, **{"d_model": 8, "n_layers": 1, **options})


def test_bad_frames() -> None:
    model, x = predictor(), video()
    for bad, message in [
        (x[:, :, :1], r"frames is a \(2, 9, 1, 16, 16\)"),
        (x[:, 0], r"frames is a \(2, 2, 16, 16\)"),
        (x[..., :14, :], "frames of 14 x 16, expected multiples of 4"),
        (x[..., :8, :], r"a kernel larger than the frames of u, a \(2, [89], 8, 2, 4\)"),
    ]:
        for call in (model, model.prefill, model.loss):
            with pytest.raises(ValueError, match=message):
                call(bad)
    with pytest.raises(ValueError, match=r"frames of 16 x 16, expected multiples of 24 \(patch 2\^len"):
        predictor(patch=3, depths=(4, 4, 8))(x)
    with pytest.raises(ValueError, match="expected at least one frame"):
        model.rollout(x[:, :0], 3)
    with pytest.raises(ValueError, match="n_frames is -1"):
        model.rollout(x, -1)
    with pytest.raises(TypeError, match="frames is"):
        model((255 * x).to(torch.uint8))
    with pytest.raises(ValueError, match=r"state\.x"):
        model.step(x[:, 0], model.prefill(video(3))[1])


def test_frames_that_are_not_finite_are_not_trained_on() -> None:
    model, x = predictor(), video()
    for bad in (torch.nan, torch.inf):
        x[1, 8, 0, 3, 5] = bad
        with pytest.raises(ValueError, match=rf"frames\[1, 8, 0, 3, 5\] is {bad}, expected finite values"):
            model.loss(x)


def test_states_of_another_kind_or_number_are_refused() -> None:
    model, x = predictor(), video()
    _, state = model.prefill(x)
    for call, given in ((model.step, x[:, 0]), (model.prefill, x)):
        for wrong in ((), state[:1], (*state, state[0])):
            with pytest.raises(ValueError, match=rf"state is a tuple of {len(wrong)}, expected the 2 that"):
                call(given, wrong)
        others: list[Any] = [[*state], state[0].x, 0]
        for other in others:
            with pytest.raises(TypeError, match="state is .*, expected the tuple that init_state returns"):
                call(given, other)
    with pytest.raises(TypeError, match=r"state is None \(NoneType\), expected the tuple"):
        model.step(x[:, 0], None)  # type: ignore[arg-type]


def test_dropout_in_training_does_not_stream() -> None:
    model, x = predictor(dropout=0.5), video()
    with pytest.raises(NotImplementedError, match="dropout.*eval"):
        model.rollout(x, 3)
    assert model.eval().rollout(x, 3).shape == (2, 3, 2, 16, 16)
