"""Mixers on shards of sequences are those on whole ones: outputs, gradients and states."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import longconv
from longconv import ops
from longconv.distributed import Ranks, average_gradients, sequence_parallel
from longconv.mixers import create_mixer, list_mixers
from longconv.models import (
    BASELINES,
    SEQUENCE_BASELINES,
    CodePredictor,
    FrameTokenizer,
    LanguageModel,
    VideoPredictor,
    generate,
)
from longconv.models.norms import create_norm
from longconv.streaming import ModalConv, OnlineConv
from tests.cases import CHAIN, LENGTH, MIXER_CASES, VIDEO_CASES, Case, sequence, video
from tests.distributed.processes import Processes, check
from tests.distributed.sharded import compare, cut

SIZES = {2: (20, 17), 3: (18, 0, 19), 4: (3, 11, 9, 14)}
"""Of as many positions as tests.cases has."""

GRADIENTS = 1e-9
"""Relative L2 error in float64 of gradients of whole mixers, computed two ways."""

VARIANTS = {2: None, 3: ("default", "bidirectional", "correlation", "circular-dct"), 4: ("default",)}
"""Those that are tried with so many ranks; None: all."""


def mine(whole: Tensor, ranks: Ranks) -> Tensor:
    return cut(whole, SIZES[ranks.size], ranks.rank, 1)


def agrees(got: Tensor, want: Tensor, whole: Tensor, tolerance: float) -> None:
    """Relative to the norm of the whole, as a shard may be empty."""
    assert got.shape == want.shape and got.dtype == want.dtype
    error = ((got - want).norm() / whole.norm()).item()
    assert error <= tolerance, f"relative L2 error {error:.3g}"


def same_gradients(sharded: nn.Module, whole: nn.Module, ranks: Ranks) -> None:
    """Of all parameters, once the ranks' are averaged."""
    pairs = list(zip(sharded.named_parameters(), whole.parameters(), strict=True))
    average_gradients(sharded, ranks)
    largest = max(float(other.grad.norm()) for _, other in pairs if other.grad is not None)
    assert largest > 0
    for (name, one), other in pairs:
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None and other.grad is not None:
            error = (one.grad - other.grad).norm() / max(float(other.grad.norm()), 1e-6 * largest)
            assert error <= GRADIENTS, f"{name}: {error:.3g}"


def loss_of(y: Tensor, target: Tensor) -> Tensor:
    return (y * target).sum() + y.square().sum()


def mixes(ranks: Ranks, case: Any, x: Tensor, lengths: Tensor | None, known: bool) -> None:
    """Forward and backward: the sum of the ranks' losses is the loss, so that the mean of gradients takes P of it."""
    whole = case.build()
    sharded = copy.deepcopy(whole)
    part, x = mine(x, ranks).requires_grad_(), x.clone().requires_grad_()
    target = torch.randn(x.shape, dtype=x.dtype)
    want = whole(x, lengths)
    loss_of(want, target).backward()
    with sequence_parallel(ranks, sizes=SIZES[ranks.size] if known else None):
        y = sharded(part, lengths)
        (ranks.size * loss_of(y, mine(target, ranks))).backward()
    agrees(y, mine(want, ranks), want, CHAIN)
    assert part.grad is not None and x.grad is not None
    agrees(part.grad / ranks.size, mine(x.grad, ranks), x.grad, GRADIENTS)
    alone = [
        name for name, p in whole.named_parameters() if (p.grad is None) != (sharded.get_parameter(name).grad is None)
    ]
    same_gradients(sharded, whole, ranks)
    assert not alone, f"{alone} have gradients on some ranks alone, and DDP would wait for those of the others"


def every_case(ranks: Ranks) -> None:
    variants = VARIANTS[ranks.size]
    cases: list[Any] = [*MIXER_CASES, *(case for case in VIDEO_CASES if case.mixer == "conv_s5")]
    for i, case in enumerate(cases):
        if variants is not None and case.variant not in variants:
            continue
        x = video(2) if case in VIDEO_CASES else sequence(3)
        lengths = torch.tensor([LENGTH, 21, 0][: len(x)]) if i % 2 else None
        try:
            mixes(ranks, case, x, lengths, known=i % 3 == 0)
        except Exception as error:
            raise AssertionError(f"{case} on {ranks.size} ranks") from error


@pytest.mark.parametrize("size", SIZES)
def test_mixers_on_shards_are_those_on_the_whole(processes: Processes, size: int) -> None:
    check(processes, size, every_case)


def test_every_mixer_is_among_them() -> None:
    cases: list[Any] = [*MIXER_CASES, *VIDEO_CASES]
    defaults = {case.mixer for case in cases if case.variant == "default"}
    assert defaults >= set(list_mixers()) == {case.mixer for case in MIXER_CASES} | {"conv_s5"}


WINDOWS: dict[str, dict[str, Any]] = {
    **{
        f"{padding}, wider than shards": {"padding": padding, "kernel_width": 9, "layers": 2, "transform": transform}
        for padding, transform in (("zeros", "dct"), ("reflect", "fft"), ("circular", "dct_ortho"))
    },
    "wider than a sample": {"padding": "reflect", "kernel_width": 2 * LENGTH + 3, "conditioning": "spectrum"},
    "of one tap": {"padding": "circular", "kernel_width": 1, "stages": "first", "transform": "dct1"},
    "over all of time": {"conditioning": "correlation", "query_activation": "softmax", "stages": "first"},
}
"""Options of Orchid's circular form."""


def every_window(ranks: Ranks) -> None:
    for i, (name, more) in enumerate(WINDOWS.items()):
        case = Case("orchid", name, {"l_max": 16, "width": 8, "causal": False, **more}, False)
        for lengths in (None, torch.tensor([LENGTH, 21, 0])):
            try:
                mixes(ranks, case, sequence(3), lengths, known=i % 2 == 0)
            except Exception as error:
                raise AssertionError(f"{case} on {ranks.size} ranks, lengths {lengths}") from error


@pytest.mark.parametrize("size", [3, 4])
def test_windows_of_local_convolutions_reach_over_shards(processes: Processes, size: int) -> None:
    check(processes, size, every_window)


class Narrow(NamedTuple):
    """A case with fewer channels than there are ranks."""

    case: Case

    def build(self) -> nn.Module:
        return self.case.build(d_model=2)


def narrow(ranks: Ranks) -> None:
    """What goes by channels leaves ranks without any."""
    cases = [case for case in MIXER_CASES if case.mixer == "orchid" or case.learned]
    for i, case in enumerate(cases):
        lengths = torch.tensor([LENGTH, 21, 0]) if i % 2 else None
        try:
            mixes(ranks, Narrow(case), sequence(3, d_model=2), lengths, known=i % 3 == 0)
        except Exception as error:
            raise AssertionError(f"{case} with 2 channels on {ranks.size} ranks") from error


@pytest.mark.parametrize("size", [3, 4])
def test_there_may_be_more_ranks_than_channels(processes: Processes, size: int) -> None:
    check(processes, size, narrow)


class Distilled(NamedTuple):
    """A mixer whose filters are those of small systems."""

    mixer: str

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        taps: nn.Module = longconv.distill(create_mixer(self.mixer, 5, l_max=LENGTH).double(), 2, steps=0).mixer
        return taps


def distilled(ranks: Ranks) -> None:
    for mixer in ("hyena", "sgconv"):
        mixes(ranks, Distilled(mixer), sequence(3), torch.tensor([LENGTH, 21, 0]), known=False)


def test_distilled_mixers_act_on_shards(processes: Processes) -> None:
    check(processes, 3, distilled)


class Largest(TorchDispatchMode):
    """The most numbers in a tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for made in pytree.tree_leaves(result):
            if isinstance(made, Tensor) and (made.is_floating_point() or made.is_complex()):
                self.numbers = max(self.numbers, made.numel())
        return result


def in_parts(ranks: Ranks) -> None:
    """No tensor of a rank is as large as the sequence, or as the filters that depend on it, forward and backward."""
    batch, length, channels = 2, 480, 4
    x = torch.randn(batch, length, channels)
    others = "order-4-gelu", "outer-product"  # a head's outer products are a sequence for every pair of its features
    for case in (case for case in MIXER_CASES if case.mixer in ("orchid", "hyena") and case.variant not in others):
        mixer = case.build(torch.float32, d_model=channels)
        for lengths in (None, torch.tensor([length, 100])):
            with sequence_parallel(ranks) as shard, Largest() as largest:
                mixer(shard.cut(x), lengths).square().sum().backward()
            # transforms of a rank's own channels are of complex numbers and may be padded to twice the length
            limit = x.numel() if case.options.get("causal", True) else 1.1 * x.numel()
            assert largest.numbers < limit, f"{case}, lengths {lengths}: {largest.numbers} numbers"


def test_no_rank_holds_a_sequence_or_a_filter_of_its_own_making(processes: Processes) -> None:
    check(processes, 4, in_parts)


def differentiates_later(ranks: Ranks) -> None:
    """Within the context, what has run before it belongs to each rank alone."""
    for case in (case for case in MIXER_CASES if case.mixer in ("orchid", "hyena")):
        mixer, x = case.build(torch.float32, d_model=4), torch.randn(2, 12, 4)
        parameters = [p for p in mixer.parameters() if p.requires_grad]
        want = torch.autograd.grad(mixer(x).square().sum(), parameters, allow_unused=True)
        loss = mixer(x).square().sum()
        with sequence_parallel(ranks):
            got = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(got, want, strict=True)), case


def test_gradients_of_what_ran_before(processes: Processes) -> None:
    check(processes, 2, differentiates_later)


def has_no_number(ranks: Ranks) -> None:
    """One position, so that all ranks but one have no taps."""
    for name, parameter in (("hyena", "taps.output.weight"), ("orchid", "conditioning.first.weights.0")):
        mixer = create_mixer(name, 4)
        with torch.no_grad():
            dict(mixer.named_parameters())[parameter].view(-1)[0] = torch.nan
        with sequence_parallel(ranks) as shard, pytest.raises(ValueError, match="is nan"):
            mixer(shard.cut(torch.randn(2, 1, 4)))


def test_a_parameter_that_is_no_number_is_an_error_on_all_ranks(processes: Processes) -> None:
    check(processes, 3, has_no_number)


# --- prefill ----------------------------------------------------------------------------------------------------------


def prefills(ranks: Ranks, case: Any, x: Tensor, begun: bool) -> None:
    """From the start or from the state of an earlier chunk; the state after all of it is the same everywhere."""
    whole = case.build()
    sharded = copy.deepcopy(whole)
    states = [None if not begun else mixer.prefill(x[:, :3])[1] for mixer in (whole, sharded)]
    part, x = mine(x, ranks).requires_grad_(), x.clone().requires_grad_()
    target = torch.randn(x.shape, dtype=x.dtype)
    want, after = whole.prefill(x, states[0])
    goal = torch.randn(after.x.shape, dtype=after.x.real.dtype)
    (loss_of(want, target) + (after.x.real * goal).sum()).backward()
    with sequence_parallel(ranks):
        y, state = sharded.prefill(part, states[1])
        (ranks.size * loss_of(y, mine(target, ranks)) + (state.x.real * goal).sum()).backward()
    agrees(y, mine(want, ranks), want, CHAIN)
    agrees(state.x, after.x, after.x, CHAIN)
    assert part.grad is not None and x.grad is not None
    agrees(part.grad / ranks.size, mine(x.grad, ranks), x.grad, GRADIENTS)
    same_gradients(sharded, whole, ranks)
    y_t, _ = sharded.step(x[:, 0].detach(), state)
    want_t, _ = whole.step(x[:, 0].detach(), after)
    agrees(y_t, want_t, want_t, CHAIN)


PREFILLED = ("s4-default", "s4-untied-rank-3", "s4d-inv-dss-2", "dss-default", "lssl-trained-backward", "s5-all-modes")


class Prefilled(nn.Module):
    """A mixer's prefill as what a wrapper calls."""

    def __init__(self, mixer: Any) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, u: Tensor) -> Tensor:
        y: Tensor = self.mixer.prefill(u)[0]
        return y


def prefills_in_ddp(ranks: Ranks) -> None:
    """A rank without samples has gradients of all parameters too, for which those of the others wait."""
    for case in [case for case in MIXER_CASES if str(case) in PREFILLED] + [VIDEO_CASES[0]]:
        x = video(2) if case in VIDEO_CASES else sequence(2)
        target, whole = torch.randn(x.shape, dtype=x.dtype), Prefilled(case.build())
        loss_of(whole(x), target).backward()
        for p in whole.parameters():
            p.requires_grad_(p.grad is not None)  # DDP refuses a parameter that no rank needs
        sharded = DistributedDataParallel(copy.deepcopy(whole), process_group=ranks.group)
        for _ in range(2):
            sharded.zero_grad()
            with sequence_parallel(ranks):
                (ranks.size * loss_of(sharded(mine(x, ranks)), mine(target, ranks))).backward()
        for (name, one), other in zip(sharded.module.named_parameters(), whole.parameters(), strict=True):
            if other.grad is not None:
                assert one.grad is not None, f"{case}: {name}"
                assert (one.grad - other.grad).norm() <= GRADIENTS * max(float(other.grad.norm()), 1e-6), name


def test_prefill_in_ddp_has_all_gradients_on_empty_shards(processes: Processes) -> None:
    check(processes, 3, prefills_in_ddp)


def every_prefill(ranks: Ranks) -> None:
    cases = [case for case in MIXER_CASES if str(case) in PREFILLED]
    assert len(cases) == len(PREFILLED)
    for i, case in enumerate([*cases, VIDEO_CASES[0]]):
        x = video(2) if case in VIDEO_CASES else sequence(2)
        try:
            prefills(ranks, case, x, begun=i % 2 == 0)
        except Exception as error:
            raise AssertionError(f"{case} on {ranks.size} ranks") from error


@pytest.mark.parametrize("size", SIZES)
def test_states_go_from_shard_to_shard(processes: Processes, size: int) -> None:
    check(processes, size, every_prefill)


# --- operators, and what is refused -----------------------------------------------------------------------------------


def operators(ranks: Ranks) -> None:
    """The public ones, within the context, are those of the whole."""
    sizes = SIZES[ranks.size]
    u, k = {"u": torch.randn(2, 3, LENGTH)}, torch.randn(3, LENGTH)
    mask = torch.tensor([True, False, True])
    scan = {"b": torch.randn(2, 3, LENGTH), "a": torch.rand(2, 3, LENGTH)}
    with sequence_parallel(ranks) as shard:
        compare(ranks, longconv.fft_conv, _plainly(longconv.fft_conv), sizes, u, {"k": k, "skip": torch.randn(3)})
        compare(ranks, ops.short_conv, _plainly(ops.short_conv), sizes, u, {"w": torch.randn(3, 4)})
        last = {"dim": -1, "reverse": True}
        compare(ranks, _with(ops.linear_scan, **last), _plainly(ops.linear_scan, **last), sizes, scan, {})
        masked = {"block_mask": mask}
        compare(
            ranks, _with(ops.sparse_fft_conv, **masked), _plainly(ops.sparse_fft_conv, **masked), sizes, u, {"k": k}
        )
        few, masked = {"u": torch.randn(2, 2, LENGTH)}, {"block_mask": mask}  # fewer channels than ranks
        compare(
            ranks,
            _with(ops.sparse_fft_conv, **masked),
            _plainly(ops.sparse_fft_conv, **masked),
            sizes,
            few,
            {"k": torch.randn(2, LENGTH)},
        )
        numbers, counted = torch.randn(2, LENGTH), torch.rand(2, LENGTH) < 0.5
        mean = shard.mean(mine(numbers, ranks), mine(counted, ranks))
    assert torch.allclose(mean, numbers[counted].mean())


def _with(function: Any, **options: Any) -> Any:
    return lambda **tensors: function(**tensors, **options)


def _plainly(function: Any, **options: Any) -> Any:
    """The reference, in a context of whole sequences."""

    def run(**tensors: Any) -> Tensor:
        with longconv._sequence.using(None):
            return function(**tensors, **options, backend="reference")

    return run


@pytest.mark.parametrize("size", SIZES)
def test_operators_act_on_the_whole(processes: Processes, size: int) -> None:
    check(processes, size, operators)


def refusals(ranks: Ranks) -> None:
    x = torch.randn(2, 4, 8)
    stepped, hyena = create_mixer("s4d", 8), create_mixer("hyena", 8)
    state = stepped.init_state(2)
    with sequence_parallel(ranks):
        for name, kind in {**SEQUENCE_BASELINES, **BASELINES}.items():
            u = x if name in SEQUENCE_BASELINES else x[..., None, None].expand(-1, -1, -1, 4, 4)
            with pytest.raises(NotImplementedError, match=f"{kind.__name__} can't mix a sequence whose shards"):
                kind(8)(u)
        with pytest.raises(NotImplementedError, match=r"Hyena can't prefill .* forward acts on shards"):
            hyena.prefill(x)
        with pytest.raises(NotImplementedError, match="a step is one sample.*leave longconv.distributed"):
            stepped.step(x[:, 0], state)
        for refuse in one_by_one(x):
            with pytest.raises(NotImplementedError, match="leave longconv.distributed"):
                refuse()
        norm = nn.SyncBatchNorm.convert_sync_batchnorm(create_norm("batch", 8))
        with pytest.raises(NotImplementedError, match="SyncBatchNorm can't act on shards"):
            norm(x)
        assert torch.equal(torch.compile(stepped, backend=_never)(x), stepped(x))
    with sequence_parallel(ranks, sizes=(5, 5)), pytest.raises(ValueError, match="4 positions on rank .*, expected 5"):
        stepped(x)
    with pytest.raises(ValueError, match=r"sizes is \(1, 2, 3\), expected one number for each of 2 ranks"):
        sequence_parallel(ranks, sizes=(1, 2, 3)).__enter__()
    stepped.step(x[:, 0], state)


def _never(*args: Any) -> Any:
    raise AssertionError("nothing is compiled within the context")


def one_by_one(x: Tensor) -> list[Callable[[], Any]]:
    """What takes or makes samples one after the other, or compares each with the next."""
    small: dict[str, Any] = {"d_model": 8, "n_layers": 1, "mixer_options": {"d_state": 8}}
    online, distilled = (
        OnlineConv(torch.randn(4, 5)),
        ModalConv(lambda: (torch.ones(4, 1, dtype=torch.complex128),) * 4),
    )
    words = FrameTokenizer(1, n_codes=16, d_model=8, depths=(8,))
    frames, language, codes = torch.rand(2, 4, 1, 16, 16), LanguageModel(7, **small), CodePredictor(words, **small)
    video = VideoPredictor(1, **small)
    eye = torch.eye(4)
    return [
        lambda: online.prefill(x),
        lambda: online.step(x[..., 0], online.init_state(2)),
        lambda: distilled.prefill(x),
        lambda: distilled.step(x[..., 0], distilled.init_state(2)),
        lambda: generate(language, torch.ones(2, 3, dtype=torch.int64), 2),
        lambda: words.loss(frames),
        lambda: codes.loss(frames),
        lambda: codes.rollout(frames, 1),
        lambda: video.loss(frames),
        lambda: video.rollout(frames, 1),
        lambda: ops.butterfly_conv(eye[None], eye, *6 * [torch.ones(2, 2, 2)]),
    ]


def mistakes(ranks: Ranks) -> None:
    """Of ranks that don't fit together, and of contexts that overlap: errors everywhere, and the group goes on."""
    differ = "has to be the same on all ranks, but it is .*on rank 0, .*on rank 1"
    with pytest.raises(ValueError, match=f"sequence_parallel: sizes {differ}"):
        sequence_parallel(ranks, sizes=(4 + ranks.rank, 4 - ranks.rank)).__enter__()
    with sequence_parallel(ranks) as shard:
        x = torch.ones(2 + ranks.rank)
        for exchange in (shard.add, shard.greatest, shard.first):
            with pytest.raises(ValueError, match="x is expected to be the same on all ranks"):
                exchange(x)
        with pytest.raises(ValueError, match="sum over the sequence: x has a gradient on some ranks alone"):
            shard.add(torch.ones(2, requires_grad=ranks.rank == 0))
        assert shard.add(torch.ones(1)) == ranks.size
    with pytest.raises(ValueError, match="average_gradients: numbers has to be the same on all ranks"):
        average_gradients(nn.Linear(1 + ranks.rank, 1), ranks)
    first, second = sequence_parallel(ranks), sequence_parallel(ranks)
    first.__enter__(), second.__enter__()
    for context in (first, second):
        with pytest.raises(RuntimeError, match="leave the one that was entered last first"):
            context.__exit__(None, None, None)
    assert longconv._sequence.shard() is None


def test_mistakes_are_errors_on_all_ranks(processes: Processes) -> None:
    check(processes, 2, mistakes)


def averages(ranks: Ranks) -> None:
    """Parameters that some ranks use, and those that none uses, which an optimiser is to leave alone."""
    everywhere, here, nowhere = module = nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
    x = torch.full((1, 1), 1.0 + ranks.rank)
    (everywhere(x) + (here(x) if ranks.rank else 0)).sum().backward()
    average_gradients(module, ranks)
    assert everywhere.weight.grad == 1.5 and here.weight.grad == 1.0 and here.bias.grad == 0.5
    assert nowhere.weight.grad is None and nowhere.bias.grad is None
    average_gradients(nn.ReLU(), ranks)


def test_averages_of_gradients(processes: Processes) -> None:
    check(processes, 2, averages)


def test_what_has_no_form_for_shards_says_so(processes: Processes) -> None:
    check(processes, 2, refusals)
