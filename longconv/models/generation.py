"""Sampling from a language model by ``prefill`` and ``step``.

Symbols: B batch, L0 the prompt's length, V vocabulary size.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import check_int, check_real, check_tensor
from longconv.models.padding import INTEGERS


class StreamingModel(Protocol):
    """What :func:`generate` needs of a model; :class:`~longconv.models.LanguageModel` has it."""

    def prefill(self, x: Tensor, /) -> tuple[Tensor, Any]:
        """Tokens (B, L) -> logits (B, L, V) and the state."""

    def step(self, x_t: Tensor, state: Any, /) -> tuple[Tensor, Any]:
        """Tokens (B,) -> logits (B, V) and the state."""


@torch.no_grad()
def generate(
    model: StreamingModel,
    prompt: Tensor,
    n_steps: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_token: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Continue prompts token by token, at the cost of one ``step`` a token.

    .. math:: x_{t+1} \sim \mathrm{softmax}(\mathrm{logits}_t / \mathrm{temperature})

    restricted to the ``top_k`` likeliest tokens, then to the fewest likeliest tokens whose probability reaches
    ``top_p``.

    Args:
        model: a language model whose mixer can stream, in evaluation mode where it has dropout or BatchNorm.
        prompt: (B, L0) integer tokens, L0 >= 1.
        n_steps: how many tokens to add at most.
        temperature: 0 takes the likeliest token (greedy); above 1 flattens the distribution.
        top_k: how many tokens may be drawn; None: all.
        top_p: the probability in (0, 1] that the drawable tokens must reach; None: all tokens are drawable.
        eos_token: after it a sample repeats it, and generation stops early once every sample has drawn it.
        generator: the source of randomness, on the model's device; None: torch's global one.

    Returns:
        (B, L0 + n) tokens with n <= n_steps, the prompt first.

    Raises:
        NotImplementedError: the model can't stream (says why).
        ValueError: an argument out of range, or an empty prompt.
        TypeError: a prompt that isn't an integer tensor.

    References:
        The Curious Case of Neural Text Degeneration, A. Holtzman, J. Buys, L. Du, M. Forbes and Y. Choi,
        arXiv:1904.09751 (top-p).

    >>> from longconv.models import LanguageModel
    >>> generate(LanguageModel(11, d_model=8, n_layers=1), torch.tensor([[1, 2]]), 5, temperature=0.0).shape
    torch.Size([1, 7])
    """
    _sequence.require_whole("tokens are drawn one by one")
    _check(prompt, n_steps, temperature, top_k, top_p, eos_token)
    logits, state = model.prefill(prompt)
    logits = logits[:, -1]
    if eos_token is not None and eos_token >= logits.shape[-1]:
        raise ValueError(f"eos_token is {eos_token}, expected a token below the vocabulary's size {logits.shape[-1]}")
    tokens = [prompt]
    done = torch.zeros(prompt.shape[0], dtype=torch.bool, device=prompt.device)
    for index in range(n_steps):
        token = draw(logits, temperature, top_k, top_p, generator).to(prompt.dtype)
        if eos_token is not None:
            token = token.masked_fill(done, eos_token)
            done = done | (token == eos_token)
        tokens.append(token[:, None])
        if index + 1 == n_steps or (eos_token is not None and bool(done.all())):
            break
        logits, state = model.step(token, state)
    return torch.cat(tokens, dim=1)


def _check(
    prompt: Tensor, n_steps: int, temperature: float, top_k: int | None, top_p: float | None, eos_token: int | None
) -> None:
    check_tensor("prompt", prompt, "(B, L0)", ndim=2, dtypes=INTEGERS)
    if prompt.shape[1] == 0:
        raise ValueError(f"prompt has shape {tuple(prompt.shape)}, expected at least one token")
    check_int("n_steps", n_steps, least=0)
    check_real("temperature", temperature, least=0.0)
    if top_k is not None:
        check_int("top_k", top_k)
    if top_p is not None:
        check_real("top_p", top_p, least=0.0, most=1.0, open_least=True)
    if eos_token is not None:
        check_int("eos_token", eos_token, least=0)


def draw(
    logits: Tensor,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token a sample (B,) from logits (B, V), drawn in single precision at least."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Less their maximum the logits stay free of infinity however cold it is; a divisor too small to invert is raised.
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / max(temperature, torch.finfo(torch.float32).tiny)
    if top_k is None and top_p is None:
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]
    logits, order = logits.sort(dim=-1, descending=True)
    if top_k is not None:
        logits[:, top_k:] = -torch.inf
    if top_p is not None:
        probability = logits.softmax(dim=-1)
        likelier = probability.cumsum(dim=-1) - probability
        logits = logits.masked_fill(likelier >= top_p, -torch.inf)
    drawn = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
    return order.gather(-1, drawn)[:, 0]
