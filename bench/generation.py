"""``python -m bench.generation``: time generated tokens.

Without ``--hyena``, a token of state space language models beside a Transformer with its cache.

All have 6 layers of width 256. The state space blocks have GLU outputs and no other feed-forward network; the
Transformer is the usual pre-norm one (4 heads, feed-forward of 4 times the width, torch's
``scaled_dot_product_attention`` over a key-value cache that is allocated once). The cache is filled up to the
position, the states are what ``prefill`` of a short prompt leaves: their cost doesn't depend on the position. Steps of
all sides are interleaved in one process on one thread, greedy token by token; times are medians.

With ``--hyena``, a whole greedy generation by a Hyena of 6 layers of width 256 in four ways: the model run again on all
tokens so far (timed at some positions, the rest in proportion), products with all past samples in caches allocated
once, ``OnlineConv``, and distilled filters. Each is checked against the model's logits for all of its tokens.

With ``--output`` the results are written as those of ``python -m bench run``, for ``table``, ``plot`` and ``compare``.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import longconv
from bench.case import OURS
from bench.machine import describe, restart_warm
from bench.measure import Timing, relative_error, summarize
from bench.report import Row, save
from longconv.mixers import Hyena
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


def state_space(mixer: str, batch_size: int) -> tuple[Next, float]:
    """A language model of the library after a short prompt, and the relative error of its first logits by a step."""
    model = LanguageModel(
        N_TOKENS, d_model=D_MODEL, n_layers=N_LAYERS, mixer=mixer, mixer_options={"d_state": 64}
    ).eval()
    prompt = torch.randint(N_TOKENS, (batch_size, 17))
    _, state = model.prefill(prompt[:, :-1])
    error = relative_error(model.step(prompt[:, -1], state)[0], model(prompt)[:, -1])

    def step(token: Tensor) -> Tensor:
        nonlocal state
        logits, state = model.step(token, state)
        return logits.argmax(-1)

    return step, error


def measure(sides: dict[str, Next], batch_size: int, steps: int) -> dict[str, Timing]:
    """Seconds a step of every side."""
    tokens = {name: torch.zeros(batch_size, dtype=torch.long) for name in sides}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(steps):
        for name, step in sides.items():
            start = time.perf_counter()
            tokens[name] = step(tokens[name])
            times[name].append(time.perf_counter() - start)
    return {name: summarize(values[steps // 4 :]) for name, values in times.items()}


def models(mixers: list[str], position: int, steps: int) -> list[Row]:
    """Print the table of the models, and return it: a row a batch size and mixer."""
    print(f"position {position}, ms a step of the batch")
    print(f"{'batch':>5} {'Transformer':>12}" + "".join(f"{mixer:>9} {'x':>6}" for mixer in mixers))
    rows = []
    for batch_size in BATCHES:
        sides = {"Transformer": transformer(batch_size, position, steps)}
        ours = {mixer: state_space(mixer, batch_size) for mixer in mixers}
        times = measure(sides | {mixer: step for mixer, (step, _) in ours.items()}, batch_size, steps)
        for mixer in mixers:
            both = {OURS: times[mixer], "Transformer": times["Transformer"]}
            name = f"generation/{mixer}/position{position}/B{batch_size}"
            rows.append(Row(name, 1, both, {OURS: ours[mixer][1]}, {}))
        ratios = [(row.times[OURS].median, row.speed_up() or 0.0) for row in rows[-len(mixers) :]]
        cells = "".join(f"{1e3 * seconds:9.2f} {ratio:6.1f}" for seconds, ratio in ratios)
        print(f"{batch_size:>5} {1e3 * times['Transformer'].median:12.2f}{cells}", flush=True)
    return rows


# --- ways to generate with Hyena --------------------------------------------------------------------------------------


class CachedHyena(nn.Module):
    """A Hyena mixer of order 2 whose long convolution is the product of all past samples with as many taps."""

    def __init__(self, mixer: Hyena, capacity: int) -> None:
        super().__init__()
        self.mixer, self.cache = mixer, torch.zeros(D_MODEL, capacity)
        self.taps = mixer.filter(capacity)[0].flip(1)
        self.window = torch.zeros(1, *mixer.short_weight.shape)

    def forward(self, u_t: Tensor, position: int) -> Tensor:
        """The input (1, D) at a position -> (1, D)."""
        mixer = self.mixer
        self.window = torch.cat([self.window[..., 1:], mixer.input(u_t)[..., None]], -1)
        x, gate, v = ((self.window * mixer.short_weight).sum(-1) + mixer.short_bias).chunk(3, 1)
        self.cache[:, position] = (gate * v)[0]
        past, taps = self.cache[:, : position + 1], self.taps[:, -position - 1 :]
        y = torch.linalg.vecdot(past, taps) + mixer.D[0] * past[:, -1]
        return mixer.output(x * y)


Logits = Callable[[Tensor, int], Tensor]
"""Tokens so far (1, t + 1), and t -> logits of the next one (1, V)."""


def again(model: LanguageModel, steps: int) -> Logits:
    """The model run again on all tokens so far."""
    return lambda tokens, position: model(tokens)[:, -1]


def cached(model: LanguageModel, steps: int) -> Logits:
    """Products with all past samples."""
    backbone = model.trunk.backbone
    mixers = [CachedHyena(block.mixer, steps) for block in backbone.blocks() if isinstance(block.mixer, Hyena)]

    def logits(tokens: Tensor, position: int) -> Tensor:
        x = model.trunk.embedding(tokens[:, -1:])[:, 0]
        for block, mixer in zip(backbone.blocks(), mixers, strict=True):
            x = block.mixer_residual.leave(x, mixer(block.mixer_residual.enter(x), position))
        return model.head(backbone.norm(x))

    return logits


def stepped(model: LanguageModel, steps: int) -> Logits:
    """Steps of the model."""
    state = model.init_state(1)

    def logits(tokens: Tensor, position: int) -> Tensor:
        nonlocal state
        y, state = model.step(tokens[:, -1], state)
        return y

    return logits


def distilled(model: LanguageModel, steps: int, order: int) -> LanguageModel:
    """The model with filters of few modes; prints how good they are."""
    model, start, errors = copy.deepcopy(model), time.perf_counter(), []
    for block in model.trunk.backbone.blocks():
        found = longconv.distill(block.mixer, order, length=steps, steps=0)
        block.mixer = found.mixer
        errors.append(found.error)
    print(f"distilled in {time.perf_counter() - start:.1f} s: filters' relative error {max(errors):.1e} at most")
    return model


def generation(logits: Logits, steps: int, wanted: set[int]) -> tuple[dict[int, float], Tensor, Tensor]:
    """Seconds of the wanted tokens by position, all tokens (1, steps) with 0 elsewhere, and the last logits."""
    tokens, times, y = torch.zeros(1, steps + 1, dtype=torch.long), {}, torch.zeros(1, N_TOKENS)
    for position in range(steps):
        if position in wanted:
            start = time.perf_counter()
            y = logits(tokens[:, : position + 1], position)
            tokens[:, position + 1] = y.argmax(-1)
            times[position] = time.perf_counter() - start
    return times, tokens[:, :-1], y


def hyena(steps: int, order: int, ways: list[str]) -> list[Row]:
    """Print the table of the ways to generate, and return it.

    Each of our ways has three rows beside the others: a whole generation, a token, and the slowest token.
    """
    model = LanguageModel(
        N_TOKENS, d_model=D_MODEL, n_layers=N_LAYERS, mixer="hyena", mixer_options={"l_max": steps}
    ).eval()
    print(f"Hyena, {steps} tokens, batch 1")
    print(f"{'way':>10} {'in all, s':>10} {'median, ms':>11} {'worst, ms':>10} {'error of the last logits':>25}")
    found: dict[str, dict[str, Timing]] = {"all": {}, "token": {}, "slowest": {}}
    errors = {}
    for way in ways:
        chosen = distilled(model, steps, order) if way == "distilled" else model
        make = {"again": again, "cached": cached}.get(way, stepped)
        wanted = set(range(0, steps, max(1, steps // 32))) | {steps - 1} if way == "again" else set(range(steps))
        times, tokens, y = generation(make(chosen, steps), steps, wanted)
        want = model(tokens)[:, -1]
        error = errors[way] = relative_error(y, want)
        if way != "distilled" and error > 1e-4:
            raise RuntimeError(f"{way}: the logits are wrong by {error:.1e}, no time is reported")
        at, seconds = torch.tensor(list(times)), torch.tensor(list(times.values()), dtype=torch.float64)
        total = torch.trapezoid(seconds, at).item()
        found["all"][way] = summarize([total, total])
        found["token"][way] = summarize(seconds.tolist())
        found["slowest"][way] = summarize([seconds[1:].max().item()] * 2)
        cells = f"{total:10.2f} {1e3 * seconds.median():11.3f} {1e3 * seconds[1:].max():10.2f} {error:25.1e}"
        print(f"{way:>10} {cells}", flush=True)
    return [_row(steps, way, what, times, errors) for way in OUR_WAYS if way in errors for what, times in found.items()]


def _row(steps: int, way: str, what: str, times: dict[str, Timing], errors: dict[str, float]) -> Row:
    """One of our ways beside those without the library's streams."""
    sides = {OURS: way, **{other: other for other in times if other not in OUR_WAYS}}
    name = f"generation/hyena/{steps}/{way}/{what}"
    return Row(name, 1, {s: times[w] for s, w in sides.items()}, {s: errors[w] for s, w in sides.items()}, {})


# --- the command ------------------------------------------------------------------------------------------------------

OUR_WAYS = ("online", "distilled")
WAYS = ("again", "cached", *OUR_WAYS)


@torch.inference_mode()
def main() -> None:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.generation", description="time a generated token")
    parser.add_argument("--mixers", nargs="+", default=["s4", "s4d"], choices=longconv.list_mixers(video=False))
    parser.add_argument("--position", type=int, default=4096, help="position of the generated tokens")
    parser.add_argument("--steps", type=int, default=40, help="steps of every side")
    parser.add_argument("--hyena", nargs="*", choices=WAYS, help="ways to generate with Hyena; all if none is named")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens that Hyena generates")
    parser.add_argument("--order", type=int, default=8, help="modes of a distilled filter, pairs counted twice")
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    restart_warm()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, cpu, 1 thread, float32")
    if arguments.hyena is not None:
        rows = hyena(arguments.tokens, arguments.order, arguments.hyena or list(WAYS))
    else:
        rows = models(arguments.mixers, arguments.position, arguments.steps)
    if arguments.output:
        save(arguments.output, describe(), rows)


if __name__ == "__main__":
    main()
