"""Implicit filters against their definition, tap by tap, and against recorded ones."""

from __future__ import annotations

import inspect
import math
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

from longconv.filters import AdaptiveFilter, AdaptiveOptions, ImplicitFilter, ImplicitOptions
from tests import implicit
from tests.golden import Case, cases
from tests.tolerances import assert_close

REALS = (torch.float64, torch.float32)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"emb_dim": 7, "num_inner_mlps": 0, "w": 10.0},
    {"num_inner_mlps": 3, "shift": 0.25, "fast_decay_pct": 0.5, "slow_decay_pct": 2.0, "target": 1e-3},
    {"modulate": False, "normalized": True, "l_max": 1},
    {"normalized": True},
    {"normalized": True, "shift": 0.25},
]


def build(H: int = 6, *, dtype: torch.dtype = torch.float64, **options: Any) -> ImplicitFilter:
    torch.manual_seed(0)
    return ImplicitFilter(H, **{"width": 8, "l_max": 20, **options}).to(dtype)


def tap(taps: ImplicitFilter, n: int, options: dict[str, Any]) -> np.ndarray:
    """All features of tap n."""
    l_max, H = taps.l_max, taps.d_model
    J = (options.get("emb_dim", 3) - 1) // 2
    t = n / (l_max - 1) if l_max > 1 else float(n)
    f = [1e-4 + (J - 1 - 1e-4) * j / max(J - 1, 1) for j in range(J)]
    cosines = [math.cos(2 * math.pi * f_j * n / l_max) for f_j in f]
    sines = [-math.sin(2 * math.pi * f_j * n / l_max) for f_j in f]
    x = np.array([t, *cosines, *sines])
    freq = taps.freq.detach().numpy()
    for i in range(len(taps.layers)):
        weight, bias = (taps.get_parameter(f"layers.{i}.{kind}").detach().numpy() for kind in ("weight", "bias"))
        x = np.sin(freq * (weight @ x + bias))
    x = taps.output.weight.detach().numpy() @ x
    if options.get("modulate", True):
        ends = [options.get("slow_decay_pct", 1.5), options.get("fast_decay_pct", 0.3)]
        slow, fast = (-math.log(options.get("target", 0.01)) / end for end in ends)
        delta = slow + (fast - slow) * np.arange(H) / (H - 1)
        x = x * (np.exp(-t * delta) + options.get("shift", 0.0))
    return x / np.abs(x).sum() if options.get("normalized") else x


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("length", [1, 20, 50])
def test_definition(options: dict[str, Any], length: int) -> None:
    """Beyond l_max too."""
    taps = build(**options)
    want = np.stack([tap(taps, n, options) for n in range(length)], axis=1)
    assert_close(taps(length), torch.from_numpy(want))


def test_the_window_falls_to_its_target() -> None:
    """Of the first feature at slow_decay_pct, of the last at fast_decay_pct, in units of l_max."""
    taps = build(2, l_max=101, target=0.1, slow_decay_pct=1.2, fast_decay_pct=0.4)
    bare = build(2, l_max=101, modulate=False)
    window = taps(200) / bare(200)
    for reached in (window[0, 120], window[1, 40], taps.window(200)[0, 120]):
        assert_close(reached, torch.tensor(0.1, dtype=torch.float64))


def test_the_options_are_those_of_the_filter() -> None:
    for kind, options, own in (
        (ImplicitFilter, ImplicitOptions, {"d_model", "l_max"}),
        (AdaptiveFilter, AdaptiveOptions, {"d_model", "l_max", "causal"}),
    ):
        parameters = [name for name in inspect.signature(kind).parameters if name not in own]
        assert list(options.__annotations__) == parameters
        hints = get_type_hints(kind.__init__)
        assert get_type_hints(options) == {name: hints[name] for name in parameters}


def test_hooks_of_all_layers_are_run() -> None:
    taps = build()
    for layer in (*taps.layers, taps.output):
        before = taps(30)
        layer.register_forward_hook(lambda module, given, y: 2 * y)
        assert (taps(30) - before).norm() > 0.1 * before.norm()


def test_gradcheck() -> None:
    taps = build(2, width=3, normalized=True, shift=0.1)
    names, values = zip(*taps.named_parameters(), strict=True)
    assert torch.autograd.gradcheck(
        lambda *values: torch.func.functional_call(taps, dict(zip(names, values, strict=True)), 7), values
    )


def test_normalised_taps_far_behind_the_window() -> None:
    """Where the window of every feature has underflown, the slowest one's tap is left."""
    k = build(normalized=True, dtype=torch.float32)(20 * 1000)
    assert_close(k.abs().sum(0), torch.ones(20 * 1000))
    assert_close(k[0, -1].abs(), torch.tensor(1.0))


def test_normalised_zeros() -> None:
    """Of a network that starts at zero, every tap is: so are the normalised ones, and their gradients are finite."""
    taps = build(normalized=True)
    torch.nn.init.zeros_(taps.output.weight)
    k = taps(30)
    assert (k == 0).all()
    k.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in taps.parameters())


def test_dropout_drops_taps_in_training_alone() -> None:
    taps = build(filter_dropout=0.25)
    dropped, want = taps(1000), taps.eval()(1000)
    assert 0.2 < (dropped == 0).double().mean() < 0.3
    assert_close(dropped[dropped != 0], want[dropped != 0] / 0.75)
    assert_close(want, build()(1000))


def test_long_filters_keep_their_precision() -> None:
    """Of the phases of the last of a million taps, 24,000 in radians, float32 would leave two digits."""
    wide, narrow = (build(2, l_max=4096, emb_dim=33, modulate=False, dtype=dtype) for dtype in REALS)
    assert_close(narrow(2**20)[:, -100:], wide(2**20)[:, -100:], 1e-4)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"d_model": 0}, ValueError, "d_model is 0"),
        ({"emb_dim": 4}, ValueError, "emb_dim is 4, expected an odd number"),
        ({"emb_dim": 1}, ValueError, "emb_dim is 1, expected an integer >= 3"),
        ({"width": 0}, ValueError, "width is 0"),
        ({"num_inner_mlps": -1}, ValueError, "num_inner_mlps is -1"),
        ({"l_max": 0}, ValueError, "l_max is 0"),
        ({"w": math.inf}, ValueError, "w is inf"),
        ({"target": 0.0}, ValueError, "target is 0"),
        ({"target": 2.0}, ValueError, "target is 2"),
        ({"fast_decay_pct": 0.0}, ValueError, "fast_decay_pct is 0"),
        ({"slow_decay_pct": -1.0}, ValueError, "slow_decay_pct is -1"),
        ({"shift": math.nan}, ValueError, "shift is nan"),
        ({"modulate": 1}, TypeError, "modulate is 1"),
        ({"normalized": "yes"}, TypeError, "normalized is 'yes'"),
        ({"filter_dropout": 2.0}, ValueError, "filter_dropout is 2"),
        ({"filter_lr": -1.0}, ValueError, "filter_lr is -1"),
    ],
    ids=str,
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ImplicitFilter(**{"d_model": 4, **options})


def test_bad_length() -> None:
    with pytest.raises(ValueError, match="length is -1"):
        build()(-1)
    assert build()(0).shape == (6, 0)


# --- recorded filters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases("hyena_filter", "posemb"))
def test_recorded_features(name: str) -> None:
    case = Case("hyena_filter", name)
    taps = ImplicitFilter(4, case.meta["emb_dim"], l_max=case.meta["seq_len"])
    length = case.meta["seq_len"]
    assert_close(taps.features(length), case["z"][0].double(), 1e-5)
    assert_close(taps.times(length), case["t"][0, :, 0].double(), 1e-6)


@pytest.mark.parametrize("name", cases("hyena_filter", "modulation"))
def test_recorded_windows(name: str) -> None:
    case = Case("hyena_filter", name)
    options = {option: case.meta[option] for option in implicit.OPTIONS if option in case.meta}
    L = case.meta["L"]
    taps = ImplicitFilter(case.meta["d_model"], l_max=L, **options)
    if taps.modulate:
        decays = case["deltas"].flatten().double()
        assert_close(torch.tensor(taps.decay_range, dtype=torch.float64), decays[[0, -1]], 1e-6)
        assert_close(taps.window(L).mT, case["window"][0].double(), 1e-6)


@pytest.mark.parametrize("name", cases("hyena_filter", but=("posemb", "modulation")))
def test_recorded_filters(name: str) -> None:
    """With our features to the precision of the recorded ones, with those exactly; gradients too."""
    case = Case("hyena_filter", name)
    recorded = case.group("state_dict")
    taps = implicit.build(recorded, case.meta["seq_len"], case.meta)
    want, length = case["h"][0].mT, case.meta["L_query"]
    assert_close(taps(length)[:, : want.shape[1]], want, implicit.feature_error(taps, recorded))  # cut at seq_len
    z = implicit.use_recorded_features(taps, recorded)
    k = taps(length)
    assert_close(k, want)
    if "G" not in case:
        return
    (k * case["G"][0].mT).sum().backward()
    parameters = {theirs: taps.get_parameter(ours) for ours, theirs in implicit.names(taps).items()} | {"pos_emb.z": z}
    for key, expected in case.group("grad").items():
        grad = parameters[key].grad
        assert grad is not None
        assert_close(grad.reshape(expected.shape), expected, 1e-5 if expected.dtype == torch.float32 else 1e-12)
