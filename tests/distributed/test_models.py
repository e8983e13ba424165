"""Models on shards: the loss, the gradients and a step of the optimiser are those of one process."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from longconv.distributed import Ranks, average_gradients, sequence_parallel
from longconv.mixers import list_mixers
from longconv.models import Block, LanguageModel, PairClassifier, SequenceClassifier, VideoPredictor
from longconv.models.pooling import POOLINGS
from tests.cases import MIXERS
from tests.distributed.processes import Processes, check
from tests.tolerances import assert_close

STEP = 1e-8
"""Relative L2 error in float64 of what a step of the optimiser has changed."""

LENGTH, BATCH = 21, 4

Wrap = Callable[[nn.Module], nn.Module]


def classifier(**options: Any) -> nn.Module:
    layers: dict[str, Any] = {"mixer": ["s4d", "hyena"], "mixer_options": [{"d_state": 4}, {"l_max": 16, "width": 8}]}
    torch.manual_seed(0)
    return SequenceClassifier(3, d_input=2, **{"d_model": 6, "n_layers": 2, **layers, **options}).double()


def train(
    ranks: Ranks, model: nn.Module, batches: list[tuple[Tensor, Tensor, Tensor | None]], wrap: Wrap | None
) -> tuple[nn.Module, list[float]]:
    """Steps of a classifier with shards of sequences, or with whole ones where ``wrap`` is None; and the losses."""
    wrapped = model if wrap is None else wrap(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=0.01)
    losses = []
    for x, labels, lengths in batches:
        optimizer.zero_grad()
        if wrap is None:
            loss = F.cross_entropy(wrapped(x, lengths), labels)
            loss.backward()
        else:
            with sequence_parallel(ranks) as shard:
                loss = F.cross_entropy(wrapped(shard.cut(x), lengths), labels)
                loss.backward()
            if wrapped is model and not isinstance(next(model.parameters()), DTensor):
                average_gradients(model, ranks)
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def batches(lengths: Tensor | None = None, count: int = 2) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(BATCH, LENGTH, 2, generator=generator, dtype=torch.float64),
            torch.randint(3, (BATCH,), generator=generator),
            lengths,
        )
        for _ in range(count)
    ]


def numbers(model: nn.Module) -> Tensor:
    """All parameters and buffers, whole."""
    whole = [x.full_tensor() if isinstance(x, DTensor) else x for x in model.state_dict().values()]
    return torch.cat([x.detach().double().flatten() for x in whole if x.is_floating_point()])


def same_steps(ranks: Ranks, start: nn.Module, got: nn.Module, want: nn.Module) -> None:
    assert_close(numbers(got) - numbers(start), numbers(want) - numbers(start), STEP)


def trains(ranks: Ranks, options: dict[str, Any], lengths: Tensor | None) -> None:
    start = classifier(**options)
    data = batches(lengths)
    want, losses = train(ranks, copy.deepcopy(start), data, None)
    got, mine = train(ranks, copy.deepcopy(start), data, lambda model: model)
    assert mine == pytest.approx(losses, rel=1e-10)
    same_steps(ranks, start, got, want)
    want.eval(), got.eval()
    x, _, lengths = data[0]
    with torch.no_grad(), sequence_parallel(ranks) as shard:
        y = got(shard.cut(x), lengths)
    assert_close(y, want(x, lengths), STEP)


def all_poolings(ranks: Ranks) -> None:
    lengths = torch.tensor([LENGTH, 9, 1, 14])
    for i, pooling in enumerate((*POOLINGS, "mean")):
        norm, some = ("batch", "layer", "batch", "rms")[i % 4], lengths if i % 4 > 1 else None
        options = {"norm": norm, "prenorm": bool(i % 2), "feed_forward": "mlp" if i else None}
        try:
            trains(ranks, {"pooling": pooling, **options}, some)
        except Exception as error:
            raise AssertionError(f"{pooling}, {options}, {some}") from error


@pytest.mark.parametrize("size", [2, 3, 4])
def test_steps_of_a_classifier_are_those_of_one_process(processes: Processes, size: int) -> None:
    check(processes, size, all_poolings)


CUTS = ((21, 0, 0), (0, 5, 16), (9, 12, 0))
"""Shards that are uneven, and empty."""


def uneven(ranks: Ranks) -> None:
    lengths = torch.tensor([LENGTH, 9, 1, 14])
    x, labels, _ = batches(count=1)[0]
    for i, pooling in enumerate(POOLINGS):
        whole = classifier(
            pooling=pooling, norm="batch" if i % 2 else "layer", mixer="s5", mixer_options={"d_state": 4}
        )
        for some, sizes in zip((lengths, None, lengths), CUTS, strict=True):
            reference, sharded = copy.deepcopy(whole), copy.deepcopy(whole)
            want = F.cross_entropy(reference(x, some), labels)
            want.backward()
            with sequence_parallel(ranks, sizes=sizes) as shard:
                loss = F.cross_entropy(sharded(shard.cut(x), some), labels)
                loss.backward()
            average_gradients(sharded, ranks)
            assert_close(loss, want, 1e-12)
            assert_close(gradients(sharded), gradients(reference), 1e-9)
            assert_close(numbers(sharded), numbers(reference), 1e-12)


def gradients(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_shards_may_be_uneven_and_empty(processes: Processes) -> None:
    check(processes, 3, uneven)


def divided(ranks: Ranks, strategy: str, options: dict[str, Any]) -> None:
    """Two groups of two: each has half of the batch, and each of its two ranks half of the length."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "sequence"))
    start = classifier(norm="layer", **options)
    data = batches(torch.tensor([LENGTH, 9, 1, 14]))
    want, _ = train(ranks, copy.deepcopy(start), data, None)
    half = slice(2 * mesh["data"].get_local_rank(), 2 * mesh["data"].get_local_rank() + 2)
    dealt = [(x[half], labels[half], None if lengths is None else lengths[half]) for x, labels, lengths in data]

    def sharded(model: nn.Module) -> nn.Module:
        flat = init_device_mesh("cpu", (4,))
        for module in [*model.modules()]:
            if isinstance(module, Block):
                fully_shard(module, mesh=flat)
        fully_shard(model, mesh=flat)
        return model

    if strategy == "fsdp2":
        with pytest.raises(TypeError, match="FSDP2 has divided, whose gradients it averages by itself"):
            average_gradients(sharded(copy.deepcopy(start)))
    wrap: Wrap = DistributedDataParallel if strategy == "ddp" else sharded
    got, _ = train(Ranks(mesh["sequence"]), copy.deepcopy(start), dealt, wrap)
    same_steps(ranks, start, got, want)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_data_and_sequence_are_divided_together(processes: Processes, strategy: str) -> None:
    check(processes, 4, divided, strategy, {})


def every_mixer(ranks: Ranks, strategy: str) -> None:
    for name in list_mixers(video=False):
        try:
            divided(ranks, strategy, {"mixer": name, "mixer_options": MIXERS[name].options})
        except Exception as error:
            raise AssertionError(f"{name} by {strategy}") from error


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_steps_with_every_mixer_are_those_of_one_process(processes: Processes, strategy: str) -> None:
    check(processes, 4, every_mixer, strategy)


def predicts(ranks: Ranks) -> None:
    """Two steps of a model of video, a DDP replica a rank."""
    generator = torch.Generator().manual_seed(2)
    frames = torch.rand(2, 8, 1, 8, 8, generator=generator, dtype=torch.float64)
    given, wanted = frames[:, :-1], frames[:, 1:]
    torch.manual_seed(0)
    start = VideoPredictor(1, d_model=8, n_layers=2, mixer_options={"d_state": 8}, depths=(4,)).double()
    whole, sharded = copy.deepcopy(start), copy.deepcopy(start)
    wrapped = DistributedDataParallel(sharded, process_group=ranks.group)
    steps = [torch.optim.AdamW(model.parameters(), lr=0.01) for model in (whole, sharded)]
    for _ in range(2):
        want = (whole(given) - wanted).square().mean((2, 3, 4)).mean()
        want.backward()
        with sequence_parallel(ranks) as shard:
            each = (wrapped(shard.cut(given)) - shard.cut(wanted)).square().mean((2, 3, 4))
            loss = shard.mean(each)
            loss.backward()
        assert loss.item() == pytest.approx(want.item(), rel=1e-12)
        for step in steps:
            step.step()
            step.zero_grad()
    same_steps(ranks, start, sharded, whole)


@pytest.mark.parametrize("size", [2, 3])
def test_steps_of_a_model_of_video_are_those_of_one_process(processes: Processes, size: int) -> None:
    check(processes, size, predicts)


def at_other_rates(ranks: Ranks) -> None:
    """Of mixers with a step dt; the others refuse it on all ranks."""
    x, labels, _ = batches(count=1)[0]
    lengths = torch.tensor([LENGTH, 9, 1, 14])
    for name in list_mixers(video=False):
        model = classifier(mixer=name, mixer_options=MIXERS[name].options)
        sharded = copy.deepcopy(model)
        if name not in RATED:
            with sequence_parallel(ranks) as shard, pytest.raises(ValueError, match="rate is 0.5, expected 1"):
                sharded(shard.cut(x), lengths, rate=0.5)
            continue
        want = F.cross_entropy(model(x, lengths, rate=0.5), labels)
        assert (want - F.cross_entropy(model(x, lengths), labels)).abs() > 1e-6
        want.backward()
        with sequence_parallel(ranks) as shard:
            loss = F.cross_entropy(sharded(shard.cut(x), lengths, rate=0.5), labels)
            loss.backward()
        average_gradients(sharded, ranks)
        assert_close(loss, want, 1e-11)
        assert_close(gradients(sharded), gradients(model), 1e-9)


RATED = ("s4", "s4d", "lssl", "s5", "dss")


@pytest.mark.parametrize("size", [2, 3])
def test_other_sampling_rates_of_shared_sequences(processes: Processes, size: int) -> None:
    check(processes, size, at_other_rates)


def other_models(ranks: Ranks) -> None:
    """A label a position, and pairs."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"d_model": 6, "n_layers": 2, "mixer": "s5", "mixer_options": {"d_state": 8}}
    language = LanguageModel(7, **options).double()
    tokens = torch.randint(7, (3, LENGTH))
    labels = tokens.roll(-1, 1).masked_fill(torch.rand(3, LENGTH) < 0.5, -100)
    want = F.cross_entropy(language(tokens).flatten(0, 1), labels.flatten(), ignore_index=-100)
    want.backward()
    whole, sharded = language, copy.deepcopy(language)
    sharded.zero_grad()
    with sequence_parallel(ranks) as shard:
        part = shard.cut(labels).flatten()
        each = F.cross_entropy(sharded(shard.cut(tokens)).flatten(0, 1), part, ignore_index=-100, reduction="none")
        loss = shard.mean(each, part != -100)
        loss.backward()
    average_gradients(sharded, ranks)
    assert_close(loss, want, 1e-12)
    for one, other in zip(sharded.parameters(), whole.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert (one.grad - other.grad).norm() <= 1e-9 * other.grad.norm() + 1e-15
    with torch.no_grad(), sequence_parallel(ranks) as shard:
        _, state = sharded.prefill(shard.cut(tokens))
    with torch.no_grad():
        _, after = whole.prefill(tokens)
        assert_close(sharded.step(tokens[:, 0], state)[0], whole.step(tokens[:, 0], after)[0], 1e-11)

    pairs = PairClassifier(2, n_tokens=7, **options).double()
    both, lengths = torch.randint(7, (3, 2, LENGTH)), torch.tensor([[LENGTH, 3], [1, 8], [5, LENGTH]])
    with torch.no_grad(), sequence_parallel(ranks) as shard:
        got = pairs(shard.cut(both, 2), lengths)
    assert_close(got, pairs(both, lengths), 1e-11)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_other_models_act_on_shards(processes: Processes, size: int) -> None:
    check(processes, size, other_models)


def shared_masks(ranks: Ranks) -> None:
    """Masks that all positions of a sequence, or all ranks, share are the first rank's, whatever the others draw."""
    taps = {"mixer": "long_conv", "mixer_options": {"l_max": 16, "filter_dropout": 0.3, "threshold": 0.0}}
    model = classifier(tie_dropout=True, dropout=0.4, drop_path=0.5, **taps)
    torch.manual_seed(ranks.rank)
    x = torch.randn(BATCH, LENGTH, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), sequence_parallel(ranks) as shard:
        y = model(shard.cut(x))
    torch.manual_seed(0)
    with torch.no_grad():
        assert_close(y, model(x), 1e-11)


def test_masks_of_whole_sequences_are_those_of_the_first_rank(processes: Processes) -> None:
    check(processes, 2, shared_masks)
