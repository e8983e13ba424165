"""Generation by prefill and step: exactness of greedy decoding, sampling rules, end tokens, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.models import LanguageModel, generate

V = 7


class Fixed:
    """A model that answers the same logits for ever."""

    def __init__(self, probabilities: list[float]) -> None:
        self.logits = torch.tensor(probabilities).log()

    def prefill(self, x: Tensor) -> tuple[Tensor, None]:
        return self.logits.expand(*x.shape, -1), None

    def step(self, x_t: Tensor, state: None) -> tuple[Tensor, None]:
        return self.logits.expand(len(x_t), -1), state


class Counter:
    """A model whose next token is the current one plus one, up to the last."""

    steps = 0

    def prefill(self, x: Tensor) -> tuple[Tensor, None]:
        return 50.0 * torch.nn.functional.one_hot((x + 1).clamp(max=V - 1), V).float(), None

    def step(self, x_t: Tensor, state: None) -> tuple[Tensor, None]:
        self.steps += 1
        return self.prefill(x_t)[0], state


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(V, d_model=8, n_layers=2, mixer_options={"d_state": 8}, feed_forward="glu").double().eval()


@pytest.fixture
def prompt() -> Tensor:
    return torch.tensor([[1, 2, 3, 4], [6, 0, 0, 5]])


def frequencies(n: int = 20000, **options: Any) -> Tensor:
    model = Fixed([0.5, 0.3, 0.15, 0.05])
    generator = torch.Generator().manual_seed(0)
    drawn = generate(model, torch.zeros(n, 1, dtype=torch.int64), 1, generator=generator, **options)[:, 1]
    return drawn.bincount(minlength=4) / n


def test_greedy_generation_is_forward_run_again_at_every_step(model: LanguageModel, prompt: Tensor) -> None:
    want = prompt
    for _ in range(25):
        want = torch.cat([want, model(want)[:, -1:].argmax(dim=-1)], dim=1)
    got = generate(model, prompt, 25, temperature=0.0)
    assert torch.equal(got, want)
    assert len(got[:, 4:].unique()) > 1


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 2}, [0.625, 0.375, 0.0, 0.0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.9}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0.0]),
        ({"top_p": 0.01}, [1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 3, "top_p": 0.6}, [0.625, 0.375, 0.0, 0.0]),
        ({"temperature": 0.5}, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
    ],
)
def test_distribution(options: dict[str, Any], want: list[float]) -> None:
    """Frequencies within four standard deviations (at most 0.5 / sqrt n) of the probabilities; zeros exactly."""
    got, expected = frequencies(**options), torch.tensor(want)
    assert ((got - expected).abs() < 4 * 0.5 / 20000**0.5).all()
    assert torch.equal(got == 0, expected == 0)


def test_generator_decides(model: LanguageModel, prompt: Tensor) -> None:
    first, again, other = (
        generate(model, prompt, 20, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first[:, :4], prompt)


def test_end_token_is_repeated_and_stops_early() -> None:
    model = Counter()
    got = generate(model, torch.tensor([[2], [4]]), 50, temperature=0.0, eos_token=6)
    assert got.tolist() == [[2, 3, 4, 5, 6], [4, 5, 6, 6, 6]]
    assert model.steps == 3


def test_no_steps_returns_the_prompt_and_no_gradient(model: LanguageModel, prompt: Tensor) -> None:
    assert torch.equal(generate(model, prompt, 0), prompt)
    assert generate(model, prompt.int(), 2).dtype == torch.int32


@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 5e-324])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_very_low_temperature_takes_the_likeliest(temperature: float, dtype: torch.dtype) -> None:
    model = Fixed([0.3, 0.5, 0.15, 0.05])
    model.logits = model.logits.to(dtype)
    for options in ({}, {"top_k": 3}, {"top_p": 0.9}):
        got = generate(model, torch.zeros(5, 1, dtype=torch.int64), 3, temperature=temperature, **options)
        assert (got[:, 1:] == 1).all()


def test_low_precision_logits_are_drawn_from_in_single_precision() -> None:
    """The last of 512 equally likely tokens starts at 511/512 < top_p, which bfloat16 rounds to 1."""
    model = Fixed([1.0] * 512)
    model.logits = model.logits.bfloat16()
    generator = torch.Generator().manual_seed(0)
    drawn = generate(model, torch.zeros(10000, 1, dtype=torch.int64), 1, top_p=0.999, generator=generator)[:, 1]
    assert len(drawn.unique()) == 512


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eos_token": V}, ValueError, "eos_token is 7, expected a token below the vocabulary's size 7"),
        ({"eos_token": -1}, ValueError, "eos_token is -1"),
        ({"eos_token": 1.0}, TypeError, "eos_token is 1.0"),
        ({"prompt": torch.zeros(2, 0, dtype=torch.int64)}, ValueError, "at least one token"),
        ({"prompt": torch.zeros(2, dtype=torch.int64)}, ValueError, r"expected shape \(B, L0\)"),
        ({"prompt": torch.zeros(2, 3)}, TypeError, "prompt is .*float32"),
        ({"prompt": torch.tensor([[V]])}, ValueError, "token 7, expected 0 <= token < n_tokens = 7"),
        ({"n_steps": -1}, ValueError, "n_steps is -1"),
        ({"temperature": -0.5}, ValueError, "temperature is -0.5"),
        ({"top_k": 0}, ValueError, "top_k is 0"),
        ({"top_p": 0.0}, ValueError, "top_p is 0"),
        ({"top_p": 1.5}, ValueError, "top_p is 1.5"),
    ],
)
def test_wrong_arguments(
    model: LanguageModel, prompt: Tensor, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        generate(**{"model": model, "prompt": prompt, "n_steps": 3, **arguments})


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"mixer_options": {"bidirectional": True}}, "bidirectional"), ({"norm": "batch"}, "BatchNorm in training mode")],
)
def test_models_that_cannot_stream(prompt: Tensor, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotImplementedError, match=reason):
        generate(LanguageModel(V, d_model=8, n_layers=1, **options), prompt, 3)
