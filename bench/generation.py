"""``python -m bench.generation``: time a token of state space language models beside a Transformer with its cache.

All have 6 layers of width 256. The state space blocks have GLU outputs and no other feed-forward network; the
Transformer is the usual pre-norm one (4 heads, feed-forward of 4 times the width, torch's
``scaled_dot_product_attention`` over a key-value cache that is allocated once). The cache is filled up to the
position, the states are what ``prefill`` of a short prompt leaves: their cost doesn't depend on the position. Steps of
all sides are interleaved in one process on one thread, greedy token by token; times are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import longconv
from longconv.models import LanguageModel

N_TOKENS, D_MODEL, N_LAYERS, N_HEADS = 256, 256, 6, 4
BATCHES = (1, 8, 32, 64)
Next = Callable[[Tensor], Tensor]
"""Tokens (B,) -> the next ones (B,)."""


class CachedAttention(nn.Module):
    """Causal attention of one new position at a time to a preallocated cache of all before it."""

    def __init__(self, batch_size: int, capacity: int) -> None:
        super().__init__()
        self.project = nn.Linear(D_MODEL, 3 * D_MODEL)
        self.output = nn.Linear(D_MODEL, D_MODEL)
        self.cache = torch.randn(2, batch_size, N_HEADS, capacity, D_MODEL // N_HEADS)

    def forward(self, x: Tensor, position: int) -> Tensor:
        """The input (B, D) at a position -> (B, D); its key and value go into the cache."""
        query, key, value = self.project(x).unflatten(-1, (3, N_HEADS, -1)).unbind(1)
        self.cache[0, :, :, position], self.cache[1, :, :, position] = key, value
        keys, values = self.cache[:, :, :, : position + 1]
        y = scaled_dot_product_attention(query[:, :, None], keys, values)
        return self.output(y.flatten(1))


class Transformer(nn.Module):
    """A pre-norm Transformer that generates from a cache already filled up to a position."""

    def __init__(self, batch_size: int, capacity: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(N_TOKENS, D_MODEL), nn.Linear(D_MODEL, N_TOKENS)
        self.attention = nn.ModuleList(CachedAttention(batch_size, capacity) for _ in range(N_LAYERS))
        self.feed_forward = nn.ModuleList(
            nn.Sequential(nn.Linear(D_MODEL, 4 * D_MODEL), nn.GELU(), nn.Linear(4 * D_MODEL, D_MODEL))
            for _ in range(N_LAYERS)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(D_MODEL) for _ in range(2 * N_LAYERS + 1))

    def forward(self, token: Tensor, position: int) -> Tensor:
        """Tokens (B,) at a position -> logits (B, V)."""
        x = self.embedding(token)
        for layer in range(N_LAYERS):
            x = x + self.attention[layer](self.norms[2 * layer](x), position)
            x = x + self.feed_forward[layer](self.norms[2 * layer + 1](x))
        return self.head(self.norms[-1](x))


def transformer(batch_size: int, position: int, steps: int) -> Next:
    """A Transformer that stands at ``position`` and can take ``steps`` steps."""
    model = Transformer(batch_size, position + steps).eval()
    positions = iter(range(position, position + steps))
    return lambda token: model(token, next(positions)).argmax(-1)


def state_space(mixer: str, batch_size: int) -> Next:
    """A language model of the library after a short prompt."""
    model = LanguageModel(
        N_TOKENS, d_model=D_MODEL, n_layers=N_LAYERS, mixer=mixer, mixer_options={"d_state": 64}
    ).eval()
    _, state = model.prefill(torch.randint(N_TOKENS, (batch_size, 16)))

    def step(token: Tensor) -> Tensor:
        nonlocal state
        logits, state = model.step(token, state)
        return logits.argmax(-1)

    return step


def measure(sides: dict[str, Next], batch_size: int, steps: int) -> dict[str, float]:
    """Median seconds a step of every side."""
    tokens = {name: torch.zeros(batch_size, dtype=torch.long) for name in sides}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(steps):
        for name, step in sides.items():
            start = time.perf_counter()
            tokens[name] = step(tokens[name])
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[steps // 4 :]) for name, values in times.items()}


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.generation", description="time a generated token")
    parser.add_argument("--mixers", nargs="+", default=["s4", "s4d"], choices=longconv.list_mixers())
    parser.add_argument("--position", type=int, default=4096, help="position of the generated tokens")
    parser.add_argument("--steps", type=int, default=40, help="steps of every side")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, cpu, 1 thread, float32, position {arguments.position}, ms a step of the batch")
    print(f"{'batch':>5} {'Transformer':>12}" + "".join(f"{mixer:>9} {'x':>6}" for mixer in arguments.mixers))
    for batch_size in BATCHES:
        sides = {"Transformer": transformer(batch_size, arguments.position, arguments.steps)}
        sides |= {mixer: state_space(mixer, batch_size) for mixer in arguments.mixers}
        t = measure(sides, batch_size, arguments.steps)
        cells = "".join(f"{1e3 * t[m]:9.2f} {t['Transformer'] / t[m]:6.1f}" for m in arguments.mixers)
        print(f"{batch_size:>5} {1e3 * t['Transformer']:12.2f}{cells}", flush=True)


if __name__ == "__main__":
    main()
