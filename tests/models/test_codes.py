"""Frames as codes, and prediction of codes: the tokenizer, teacher forcing, the loss, rollouts, bad input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.models import VIDEO_MIXERS, CodePredictor, FrameTokenizer, optimizer_groups
from tests.tolerances import assert_close

OPTIONS: dict[str, dict[str, Any]] = {
    "conv_s5": {"d_state": 8, "dt_min": 0.05},
    "conv_lstm": {},
    "frame_attention": {"heads": 2},
}


def tokenizer(**options: Any) -> FrameTokenizer:
    """One whose words are far enough from each other to be all used."""
    torch.manual_seed(0)
    made = FrameTokenizer(2, **{"n_codes": 7, "d_model": 5, "depths": (4,), **options}).double()
    torch.nn.init.normal_(made.quantizer.words, std=0.2)
    return made


def predictor(mixer: str = "conv_s5", **options: Any) -> CodePredictor:
    words = tokenizer()
    settings: dict[str, Any] = {"d_model": 8, "n_layers": 2, "mixer_options": OPTIONS[mixer]}
    return CodePredictor(words, mixer=mixer, **{**settings, **options}).double()


def video(batch: int = 2, frames: int = 6, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, frames, 2, size, size, generator=generator, dtype=torch.float64)


every_mixer = pytest.mark.parametrize("mixer", sorted(VIDEO_MIXERS))


# --- the tokenizer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"patch": 4, "depths": ()}], ids=str)
def test_codes_are_the_nearest_words_and_decode_to_frames(options: dict[str, Any]) -> None:
    made, x = tokenizer(**options), video()
    codes = made.encode(x)
    features = made.encoder(x.flatten(0, 1)).movedim(1, -1)
    want = (features[..., None, :] - made.quantizer.words).norm(dim=-1).argmin(-1).view(codes.shape)
    assert torch.equal(codes, want) and len(codes.unique()) > 2
    words = made.quantizer.words[codes].flatten(0, 1).movedim(-1, 1)
    assert_close(made.decode(codes), made.decoder(words).sigmoid().view(x.shape))
    assert torch.equal(made(x), made.decode(codes))
    assert torch.equal(made.encode(x[0]), codes[0]) and torch.equal(made.encode(x[:, :0]), codes[:, :0])


def test_a_tokenizer_is_trained_by_what_comes_back_and_by_the_distance_to_its_words() -> None:
    made, x = tokenizer(), video()
    features = made.encoder(x.flatten(0, 1)).movedim(1, -1)
    distance = (features - made.quantizer.words[made.encode(x).flatten(0, 1)]).square().mean()
    for kind, error in (("mse", (made(x) - x).square().mean()), ("l1", (made(x) - x).abs().mean())):
        assert made.loss(x, kind).item() == pytest.approx((error + 1.25 * distance).item(), rel=1e-5)
    made.loss(x).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in made.parameters())


# --- the predictor ----------------------------------------------------------------------------------------------------


@every_mixer
def test_steps_and_chunks_are_forward_on_frames_and_on_codes(mixer: str) -> None:
    model, x = predictor(mixer).eval(), video()
    codes = model.tokenizer.encode(x)
    want = model(codes)
    assert want.shape == (2, 6, 4, 4, 7) and torch.equal(model(x), want)
    for given in (x, codes):
        state, outputs = model.init_state(2), []
        for frame in given.unbind(1):
            y, state = model.step(frame, state)
            outputs.append(y)
        assert_close(torch.stack(outputs, 1), want, 1e-11)
        head, state = model.prefill(given[:, :4])
        tail, _ = model.prefill(given[:, 4:], state)
        assert_close(torch.cat([head, tail], 1), want, 1e-11)


def test_codes_are_the_same_under_autocast() -> None:
    model, frames = predictor("conv_s5").float().eval(), video().float()
    codes = model.tokenizer.encode(frames)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(frames), model(codes))


@every_mixer
def test_a_prediction_depends_on_the_past_alone(mixer: str) -> None:
    model, codes = predictor(mixer).eval(), predictor().tokenizer.encode(video())
    other = codes.clone()
    other[:, 3] = (other[:, 3] + 1) % 7
    changed = (model(codes) - model(other)).abs().amax((0, 2, 3, 4)) > 0
    assert changed.tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("smoothing", [0.0, 0.01, 0.3])
def test_the_loss_is_the_cross_entropy_of_the_next_codes(smoothing: float) -> None:
    model, x = predictor(), video()
    codes = model.tokenizer.encode(x)
    shares = (1 - smoothing) * torch.eye(7, dtype=torch.float64)[codes[:, 1:]] + smoothing / 7
    want = -(shares * model(codes[:, :-1]).log_softmax(-1)).sum(-1).mean()
    for given in (x, codes, codes.int()):
        assert_close(model.loss(given, smoothing=smoothing), want)
    if smoothing == 0.01:
        assert_close(model.loss(x), want)


def test_the_tokenizer_stays_as_it_is() -> None:
    """It gets no gradient and no step, and what it is a copy of can be trained on."""
    words, x = tokenizer(), video()
    model = CodePredictor(words, d_model=8, n_layers=1, mixer_options=OPTIONS["conv_s5"]).double()
    before = {name: value.clone() for name, value in model.tokenizer.state_dict().items()}
    optimizer = torch.optim.AdamW(optimizer_groups(model, lr=0.1, weight_decay=0.1), lr=0.1)
    model.loss(x.requires_grad_()).backward()
    optimizer.step()
    assert x.grad is None and all(parameter.grad is None for parameter in model.tokenizer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.tokenizer.state_dict().items())
    rest = [parameter for name, parameter in model.named_parameters() if not name.startswith("tokenizer.")]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in rest)
    assert all(parameter.requires_grad for parameter in words.parameters())


@every_mixer
@pytest.mark.parametrize("context", [1, 4])
def test_a_rollout_feeds_back_the_likeliest_codes(mixer: str, context: int) -> None:
    model, x = predictor(mixer).eval(), video()[:, :context]
    codes = model.tokenizer.encode(x)
    for _ in range(4):
        codes = torch.cat([codes, model(codes)[:, -1:].argmax(-1)], 1)
    for given in (x, codes[:, :context]):
        assert torch.equal(model.rollout_codes(given, 4, temperature=0.0), codes[:, context:])
    frames = model.rollout(x, 4, temperature=0.0)
    assert_close(frames, model.tokenizer.decode(codes[:, context:]))
    assert frames.shape == (2, 4, 2, 8, 8) and not frames.requires_grad
    assert model.rollout(x, 0).shape == (2, 0, 2, 8, 8)


def test_a_rollout_draws_codes_by_their_probabilities() -> None:
    """The first frame's shares over many draws, at two temperatures; the second follows from what was drawn."""
    model, x = predictor().eval(), video(1, 3)
    torch.nn.init.normal_(model.head[-1].weight, std=1.0)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    for temperature in (1.0, 0.5):
        many = model.rollout_codes(x.expand(1000, -1, -1, -1, -1), 1, temperature=temperature, generator=generator)
        shares = torch.nn.functional.one_hot(many[:, 0], 7).double().mean(0)
        want = (model(x)[0, -1] / temperature).softmax(-1)
        assert (shares - want).abs().max() < 0.06 and want.max() > 0.3
    cold = model.rollout_codes(x, 3, temperature=1e-9, generator=generator)
    assert torch.equal(cold, model.rollout_codes(x, 3, temperature=0.0))
    first, again = (model.rollout_codes(x, 3, generator=torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(first, again)


def test_it_learns() -> None:
    """A bar that moves a pixel a frame: tokenizer, then predictor, whose rollout is far better than the last frame."""
    bars = torch.zeros(4, 12, 1, 16, 16)
    for sample in range(4):
        for t in range(12):
            bars[sample, t, 0, :, (3 * sample + t) % 16] = 1.0
    torch.manual_seed(0)
    words = FrameTokenizer(1, n_codes=16, d_model=8, depths=(8,))
    optimizer = torch.optim.Adam(words.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        words.loss(bars, "bce").backward()
        optimizer.step()
    options = {"d_state": 16, "dt_min": 0.05, "dt_max": 0.5}
    model, codes = CodePredictor(words, d_model=16, n_layers=2, mixer_options=options), words.encode(bars)
    optimizer = torch.optim.Adam(optimizer_groups(model, lr=0.01), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(codes).backward()
        optimizer.step()
    error = (model.rollout(bars[:, :5], 7, temperature=0.0) - bars[:, 5:]).square().mean()
    copied = (bars[:, 4:5] - bars[:, 5:]).square().mean()
    assert error < 0.2 * copied


def test_saving_and_loading(tmp_path: Path) -> None:
    model, x = predictor(), video()
    model.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "tokenizer")
    again = CodePredictor.from_pretrained(tmp_path / "model")
    words = FrameTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert torch.equal(again(x), model(x)) and torch.equal(words(x), model.tokenizer(x))
    assert not any(parameter.requires_grad for parameter in again.tokenizer.parameters())


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_codes": 0}, ValueError, "n_codes is 0"),
        ({"depths": ()}, ValueError, "depths is empty"),
        ({"commitment": -1}, ValueError, "commitment is -1"),
        ({"mean": 1.0}, ValueError, "mean is 1"),
    ],
    ids=str,
)
def test_bad_options_of_the_tokenizer(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        FrameTokenizer(1, **{"n_codes": 4, "d_model": 4, "depths": (4,), **options})


def test_bad_options_of_the_predictor() -> None:
    with pytest.raises(TypeError, match="tokenizer is 7 .*, expected a FrameTokenizer"):
        CodePredictor(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mixer is 'conv_s4' \(str\), expected one of 'conv_s5'"):
        CodePredictor(tokenizer(), mixer="conv_s4")
    with pytest.raises(TypeError, match="no option 'd_stat'; did you mean 'd_state'"):
        CodePredictor(tokenizer(), mixer_options={"d_stat": 8})


def test_bad_input() -> None:
    model, x = predictor(), video()
    codes = model.tokenizer.encode(x)
    cases: list[tuple[Any, type[Exception], str]] = [
        (x[:, 0], ValueError, r"video is a \(2, 2, 8, 8\).*\(B, T, C, H, W\), or codes \(B, T, h, w\)"),
        (codes[:, 0], ValueError, r"video is a \(2, 4, 4\).*or codes \(B, T, h, w\)"),
        (x[..., :7], ValueError, "frames of 8 x 7, expected multiples of 2"),
        (x[:, :, :1], ValueError, r"frames is a \(2, 6, 1, 8, 8\)"),
        (codes + 1 - codes.min() + 6, ValueError, r"codes go from 7 to \d+, expected 0 <= codes < 7"),
        (codes - 7, ValueError, "codes go from -"),
        (codes.to(torch.uint8), TypeError, "expected dtype int64, int32"),
        (torch.full_like(x, torch.nan), ValueError, r"frames\[0, 0, 0, 0, 0\] is nan"),
        ("video", TypeError, "video is 'video'"),
    ]
    for bad, error, message in cases:
        for call in (model, model.prefill, model.loss):
            with pytest.raises(error, match=message):
                call(bad)
    with pytest.raises(ValueError, match=r"frame is a \(2, 6, 4, 4\).*\(B, C, H, W\), or codes \(B, h, w\)"):
        model.step(codes, model.init_state(2))
    with pytest.raises(ValueError, match="state is a tuple of 0, expected the 2 that"):
        model.step(codes[:, 0], ())
    with pytest.raises(ValueError, match="expected T >= 2"):
        model.loss(x[:, :1])
    with pytest.raises(ValueError, match="smoothing is 2"):
        model.loss(x, smoothing=2.0)
    with pytest.raises(ValueError, match="expected at least one frame"):
        model.rollout(x[:, :0], 3)
    with pytest.raises(ValueError, match="n_frames is -1"):
        model.rollout(x, -1)
    with pytest.raises(ValueError, match="temperature is -1"):
        model.rollout(x, 1, temperature=-1.0)
    with pytest.raises(NotImplementedError, match=r"dropout.*eval"):
        predictor(dropout=0.5).rollout(x, 3)
