"""Linear maps to channels and back: against torch, and what their gradients hold in memory."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from longconv import create_mixer
from longconv.mixers.projection import from_channels, to_channels
from tests.tolerances import assert_close, relative_l2

MAPS = {
    "to": (to_channels, lambda x, w, b: F.linear(x, w, b).mT),
    "from": (from_channels, lambda x, w, b: F.linear(x.mT, w, b)),
}


class Watch(TorchDispatchMode):
    """What operations return: the numbers in the largest tensor, the memory still in use, and the most there was."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.most = 0
        self.memory: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self.largest = max(self.largest, storage.nbytes() // leaf.element_size())
                self.memory[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.most = max(self.most, self.kept(0))
        return result

    def kept(self, least: int) -> int:
        """The bytes of all memory in use in pieces of at least some."""
        return sum(size for reference, size in self.memory.values() if size >= least and not reference.expired())


def arguments(name: str, batch: int, length: int, inputs: int, outputs: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = (batch, length, inputs) if name == "to" else (batch, inputs, length)
    shapes: list[tuple[int, ...]] = [size, (outputs, inputs), (outputs,)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("sizes", [(3, 2, 8, 12), (3, 5, 8, 12), (1, 40, 8, 12)], ids=str)
def test_values_and_gradients(name: str, sizes: tuple[int, int, int, int]) -> None:
    ours, want = MAPS[name]
    given = arguments(name, *sizes)
    y, expected = ours(*given), want(*given)
    assert y.is_contiguous()
    assert_close(y, expected)
    weight = torch.randn_like(expected)
    for got, gradient in zip(
        torch.autograd.grad((y * weight).sum(), given),
        torch.autograd.grad((expected * weight).sum(), given),
        strict=True,
    ):
        assert_close(got, gradient)


@pytest.mark.parametrize("function", [to_channels, from_channels])
def test_short_sequences_have_no_weight_gradient_for_each_sample(function: Callable[..., Tensor]) -> None:
    name, batch, length, width = "to" if function is to_channels else "from", 16, 4, 32
    given = arguments(name, batch, length, width, width)
    with Watch() as watch:
        function(*given).square().sum().backward()
    assert watch.largest <= max(batch * length * width, width * width) < batch * width * width


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("sizes", [(0, 2, 8, 8), (0, 9, 8, 8), (2, 0, 8, 8)], ids=str)
def test_nothing_at_all(name: str, sizes: tuple[int, int, int, int]) -> None:
    ours, want = MAPS[name]
    given = arguments(name, *sizes)
    y = ours(*given)
    assert y.shape == want(*given).shape
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(y.sum(), given))


# --- short convolutions -----------------------------------------------------------------------------------------------

MIXERS: list[tuple[str, dict[str, Any]]] = [
    ("hyena", {}),
    ("hyena", {"order": 3, "bidirectional": True}),
    ("hyena", {"heads": 4, "outer_product": True}),
    ("orchid", {}),
    ("orchid", {"causal": False, "conditioning": "correlation"}),
    ("orchid", {"causal": False, "transform": "dct", "residual": False}),
]
every_mixer = pytest.mark.parametrize(("name", "options"), MIXERS, ids=str)
WAYS = ("whole", "parts", "autograd")
"""All channels at once, some at a time, and one operator after the other, which keep all that they are given."""


def choose(way: str, patch: pytest.MonkeyPatch) -> None:
    assert way != "parts" or torch.get_num_threads() == 1  # a part has some channels for each
    patch.setattr("longconv.mixers.gated.PART_NUMBERS", 0 if way == "parts" else 2**40)
    patch.setattr("longconv.mixers.gated._is_transformed", lambda: way == "autograd")


@pytest.mark.parametrize("length", [33, 4096])
@every_mixer
def test_projections_are_in_memory_once(
    name: str, options: dict[str, Any], length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients keep them before their short convolutions; behind them, some channels are there at a time."""
    mixer, u = create_mixer(name, 32, l_max=64, width=1, **options), torch.randn(8, length, 32)
    count, sequence = len(mixer.get_parameter("short_weight")) // 32, u.numel() * u.element_size()
    kept, most = {}, {}
    for way in WAYS:
        choose(way, monkeypatch)
        with Watch() as watch:
            y = mixer(u)
            if length > 33 and "heads" not in options:  # short cosine transforms and outer products are larger
                assert watch.largest < 3 * u.numel(), "all projections in one tensor"
            kept[way], forward = watch.kept(sequence), watch.most
            y.sum().backward()
        most[way] = forward, watch.most
    assert kept["whole"] == kept["parts"] == kept["autograd"] - count * sequence
    if name == "hyena" and "heads" not in options:
        assert kept["parts"] == (1 + count + (count - 2) + 1) * sequence, "u, p_i, the results of long convolutions, y"
        for parts, autograd in zip(most["parts"], most["autograd"], strict=True):
            assert parts <= autograd - 2 * sequence


@every_mixer
@pytest.mark.parametrize("way", WAYS[:2])
def test_gradients_and_their_gradients(
    name: str, options: dict[str, Any], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    mixer, u = create_mixer(name, 20, l_max=8, width=4, **options).double(), torch.randn(2, 9, 20).double()
    given, lengths = [u.requires_grad_(), *mixer.parameters()], torch.tensor([9, 5])
    found: list[list[Tensor]] = []
    for chosen in (way, "autograd"):
        choose(chosen, monkeypatch)
        plain = torch.autograd.grad(mixer(u, lengths).square().sum(), given)
        first = torch.autograd.grad(mixer(u, lengths).square().sum(), given, create_graph=True)
        second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), given)
        found.append([*plain, *first, *second])
    for got, want in zip(*found, strict=True):
        assert_close(got, want, 1e-11)


@every_mixer
def test_gradients_of_single_parameters(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mixer, u = create_mixer(name, 20, l_max=8, width=4, **options).double(), torch.randn(2, 9, 20).double()
    choose("autograd", monkeypatch)
    parameters = list(mixer.parameters())
    wanted = torch.autograd.grad(mixer(u).square().sum(), parameters)
    mixer.requires_grad_(False)
    choose("parts", monkeypatch)
    for parameter, want in zip(parameters, wanted, strict=True):
        parameter.requires_grad_()
        assert_close(torch.autograd.grad(mixer(u).square().sum(), parameter)[0], want)
        parameter.requires_grad_(False)


@every_mixer
def test_gradients_under_autocast(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mixer, u = create_mixer(name, 20, l_max=8, width=4, **options), torch.randn(2, 33, 20)
    found: list[list[Tensor]] = []
    for way in WAYS[1:]:
        choose(way, monkeypatch)
        with torch.autocast("cpu", torch.bfloat16):
            y = mixer(u)
        found.append(list(torch.autograd.grad(y.float().square().sum(), list(mixer.parameters()))))
    for got, want in zip(*found, strict=True):
        assert_close(got, want, 1e-6)


@every_mixer
def test_checkpoints_hooks_and_torch_func(name: str, options: dict[str, Any]) -> None:
    mixer, u = create_mixer(name, 4, l_max=8, width=4, **options).double(), torch.randn(2, 9, 4).double()
    parameters = dict(mixer.named_parameters())
    want = torch.autograd.grad(mixer(u).square().sum(), list(parameters.values()))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), lambda tensor: tensor):
        hooked = mixer(u)
    for y in (torch.utils.checkpoint.checkpoint(mixer, u, use_reentrant=False), hooked):
        for got, gradient in zip(torch.autograd.grad(y.square().sum(), list(parameters.values())), want, strict=True):
            assert_close(got, gradient)
    found = torch.func.grad(lambda given: torch.func.functional_call(mixer, given, u).square().sum())(parameters)
    for key, gradient in zip(parameters, want, strict=True):
        assert_close(found[key], gradient)


# --- linear maps that something was done to ---------------------------------------------------------------------------


class Adapted(nn.Module):
    """A linear map and a correction of low rank beside it, which also shows the weight of the map alone."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Linear(linear.in_features, 1, bias=False, dtype=linear.weight.dtype)
        self.up = nn.Linear(1, linear.out_features, bias=False, dtype=linear.weight.dtype)

    weight, bias = property(lambda self: self.linear.weight), property(lambda self: self.linear.bias)

    def forward(self, u: Tensor) -> Tensor:
        y: Tensor = self.linear(u) + self.up(self.down(u))
        return y


class Quantised(nn.Module):
    """Integers in place of weights, a scale for all of them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.bias, self.scale = linear.bias, weight.abs().amax() / 3
        self.integers = (weight / self.scale).round().to(torch.int8)

    def weight(self) -> Tensor:
        return self.integers * self.scale

    def forward(self, u: Tensor) -> Tensor:
        return F.linear(u, self.weight(), self.bias)


class Doubled(nn.Linear):
    def forward(self, u: Tensor) -> Tensor:
        return 2 * super().forward(u)


class DoubledWeight(Tensor):
    """A parameter of another kind, as quantised ones and those of a mesh of devices are."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            u, weight, bias = args
            return F.linear(u, 2 * weight.as_subclass(Tensor), bias)
        return super().__torch_function__(func, types, args, kwargs or {})


def doubled(linear: nn.Linear) -> nn.Linear:
    other = Doubled(linear.in_features, linear.out_features, dtype=linear.weight.dtype)
    other.load_state_dict(linear.state_dict())
    return other


def with_forward(linear: nn.Linear) -> nn.Linear:
    forward = linear.forward
    vars(linear)["forward"] = lambda u: 2 * forward(u)
    return linear


def with_weight(linear: nn.Linear) -> nn.Linear:
    linear.weight = nn.Parameter(linear.weight.detach().as_subclass(DoubledWeight))
    return linear


def without_bias(linear: nn.Linear) -> nn.Linear:
    linear.bias = None  # type: ignore[assignment]
    return linear


def with_hook(linear: nn.Linear) -> nn.Linear:
    linear.register_forward_hook(lambda module, given, y: 2 * y)
    return linear


def with_hook_before(linear: nn.Linear) -> nn.Linear:
    linear.register_forward_pre_hook(lambda module, given: (2 * given[0],))
    return linear


def with_norms(linear: nn.Linear) -> nn.Linear:
    nn.utils.parametrizations.weight_norm(linear)
    with torch.no_grad():
        linear.get_parameter("parametrizations.weight.original0").mul_(2)
    return linear


def with_norms_by_hook(linear: nn.Linear) -> nn.Linear:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(linear)
    with torch.no_grad():
        linear.get_parameter("weight_g").mul_(2)
    return linear


CHANGES: list[Callable[[nn.Linear], nn.Module]] = [
    Adapted,
    Quantised,
    doubled,
    with_forward,
    with_weight,
    without_bias,
    with_hook,
    with_hook_before,
    with_norms,
    with_norms_by_hook,
]


def plain(module: nn.Module, inputs: int) -> nn.Linear:
    """The same linear map as a module of torch's own."""
    with torch.no_grad():
        bias = module(torch.zeros(1, inputs, dtype=torch.float64))
        weight = (module(torch.eye(inputs, dtype=torch.float64)) - bias).mT
    linear = nn.Linear(inputs, len(weight), dtype=torch.float64)
    linear.load_state_dict({"weight": weight, "bias": bias[0]})
    return linear


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("place", ["input", "output"])
@every_mixer
def test_changed_linear_maps_are_called(
    name: str, options: dict[str, Any], place: str, change: Callable[[nn.Linear], nn.Module]
) -> None:
    """Forward, backward, in chunks and step by step: as a mixer whose linear map is what came out of the change."""
    torch.manual_seed(0)
    mixer, u = create_mixer(name, 8, l_max=8, width=4, **options).double(), torch.randn(2, 70, 8).double()
    before, changed = mixer(u), copy.deepcopy(mixer)
    setattr(changed, place, change(changed.get_submodule(place)))  # type: ignore[arg-type]
    setattr(mixer, place, plain(changed.get_submodule(place), 8))
    found: list[list[Tensor]] = []
    for module in (changed, mixer):
        leaf = u.clone().requires_grad_()
        y = module(leaf)
        module.zero_grad()
        y.square().sum().backward()
        gradients = [p.grad for key, p in module.named_parameters() if not key.startswith(place)]
        found.append([y, *(g for g in (leaf.grad, *gradients) if g is not None)])
    assert relative_l2(found[1][0], before) > 1e-3
    for got, want in zip(*found, strict=True):
        assert_close(got, want, 1e-11)
    if mixer.streaming_refusal() is None:
        with torch.no_grad():
            y0, state = changed.prefill(u[:, :40])
            y1, state = changed.step(u[:, 40], state)
            y2, _ = changed.prefill(u[:, 41:], state)
        assert_close(torch.cat([y0, y1[:, None], y2], 1), found[1][0], 1e-11)


@every_mixer
def test_hooks_are_run(name: str, options: dict[str, Any]) -> None:
    """Of every kind, on linear maps and dropout, and those of all modules."""
    mixer, u = create_mixer(name, 4, l_max=8, width=4, **options), torch.randn(2, 9, 4)
    seen: list[str] = []
    for place in ("input", "output", "dropout"):
        part = mixer.get_submodule(place)
        note = functools.partial(seen.append, place)
        for register in (part.register_forward_pre_hook, part.register_forward_hook):
            with register(lambda *_, note=note: note()):
                mixer(u)
            assert seen and set(seen) == {place}
            seen.clear()
        for hook in (part.register_full_backward_pre_hook, part.register_full_backward_hook):
            with hook(lambda *_, note=note: note()):
                mixer(u.requires_grad_()).sum().backward()
            assert seen and set(seen) == {place}
            seen.clear()
    places = {module: place for place, module in mixer.named_modules()}
    with nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(places[module])):
        mixer(u)
    assert {"input", "output", "dropout"} <= set(seen)
