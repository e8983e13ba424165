"""The conditioning networks of Orchid: recorded ones, shifts, causality, lengths, and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longconv.filters import AdaptiveFilter, ImplicitFilter
from longconv.filters.local import ACTIVATIONS, LocalConvolutions
from longconv.filters.transforms import TRANSFORMS
from longconv.ops import fft_conv
from tests.golden import group, groups, settings
from tests.tolerances import assert_close, relative_l2

D, LENGTH = 4, 37
CIRCULAR: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "second-layers": {"stages": "second", "layers": 2, "kernel_width": 5},
    "first": {"stages": "first", "norm": False, "bias": False, "padding": "circular"},
    "spectrum": {"conditioning": "spectrum", "layers": 2, "activation": "silu", "padding": "reflect"},
    "correlation": {"conditioning": "correlation", "padding": "circular"},
    "correlation-tanh": {"conditioning": "correlation", "query_activation": "tanh", "query_magnitude": True},
    "correlation-softmax": {"conditioning": "correlation", "query_activation": "softmax", "stages": "first"},
    "correlation-gelu": {"conditioning": "correlation", "query_activation": "gelu", "transform": "fft"},
    "cosine": {"transform": "dct"},
    "cosine-ortho": {"transform": "dct_ortho", "conditioning": "correlation", "query_activation": "sigmoid"},
    "cosine-1": {"transform": "dct1", "conditioning": "spectrum", "padding": "circular"},
}
CAUSAL: dict[str, dict[str, Any]] = {
    "magnitude": {},
    "first": {"stages": "first", "norm": False},
    "second-layers": {"stages": "second", "layers": 2, "kernel_width": 4},
    "spectrum": {"conditioning": "spectrum"},
    "correlation": {"conditioning": "correlation", "query_activation": "tanh"},
}
every_circular = pytest.mark.parametrize("options", CIRCULAR.values(), ids=CIRCULAR.keys())
every_causal = pytest.mark.parametrize("options", CAUSAL.values(), ids=CAUSAL.keys())


def build(options: Mapping[str, Any], dtype: torch.dtype = torch.float64, **more: Any) -> AdaptiveFilter:
    torch.manual_seed(0)
    network = AdaptiveFilter(D, **{**options, **more}).to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():  # so that the norms' are not ones and zeros
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def sequence(length: int = LENGTH, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, D, length, generator=generator, dtype=torch.float64).to(dtype)


# --- recorded networks and filters ------------------------------------------------------------------------------------

CONDITIONING = {"absfreq": "magnitude", "freq": "spectrum", "corrTime": "correlation"}
STAGES = {"convtf": "both", "convt": "first", "convf": "second"}
TRANSFORM = {"fft": "fft", "fft-o": "fft_ortho", "dct": "dct", "dctxd-o": "dct_ortho", "dct1": "dct1"}
PADDING = {"circular": "circular", "circ": "circular", "reflect": "reflect", "zeros": "zeros"}
"""Our padding by the recorded one."""
SEEN = re.compile("(?:L|n?layers?|n|k|kernel|width|filter)[-=]?[0-9]+|no(?:norm|bias|ln)|layernorm")
"""Words of a recorded name for what the recorded arrays show anyway."""


def circular_options(kind: str, nn: str, transform: str) -> dict[str, Any]:
    """Our options of a recorded network; the correlation has convolutions in time, whatever is asked for."""
    stages = STAGES[nn]
    if kind == "corrTime" and stages == "second":
        stages = "first"
    return {"conditioning": CONDITIONING[kind], "stages": stages, "transform": TRANSFORM[transform]}


def query_options(word: str) -> dict[str, Any] | None:
    """Our options of the recorded function of the queries, whose ending "_abs" stands for the magnitude; None: none."""
    magnitude = word.endswith("_abs")
    name = word.removesuffix("_abs")
    if name not in (*ACTIVATIONS, "softmax"):
        return {} if word == "id" else None
    return {"query_activation": name, "query_magnitude": magnitude}


def variant_options(words: str) -> dict[str, Any]:
    """Our options of what a recorded name ends with; skips the case, and says which word, where there is none."""
    options: dict[str, Any] = {}
    for word in filter(None, words.replace("_abs", "-abs").split("_")):
        query = query_options(word.removeprefix("actq-").replace("-abs", "_abs"))
        if word.removeprefix("pad-") in PADDING:
            options["padding"] = PADDING[word.removeprefix("pad-")]
        elif query is not None:
            options |= query
        elif not SEEN.fullmatch(word):
            pytest.skip(f"no option is known by the {word!r} of the recorded name")
    return options


def seen_options(recorded: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Our options that the recorded parameters show."""
    weights = [key for key in recorded if re.match(rf"{re.escape(prefix)}nn_model.*\.conv1d_ls\.\d+\.weight", key)]
    return {
        "kernel_width": recorded[weights[0]].shape[-1],
        "layers": 1 + max(int(key.split(".")[-2]) for key in weights),
        "bias": any(key.startswith(f"{prefix}nn_model") and ".conv1d_ls.0.bias" in key for key in recorded),
        "norm": any(key.startswith(f"{prefix}nn_model") and ".norm_ls." in key for key in recorded),
    }


def load_network(network: AdaptiveFilter, recorded: Mapping[str, Tensor], prefix: str) -> None:
    """Copy the recorded parameters of every stage, all of them."""
    names = {"first": "nn_model", "second": "nn_model2", "queries": "nn_model_q"}
    if network.conditioning == "correlation":
        names |= {"first": "nn_model_k", "second": "nn_model_frq"}
    elif network.first is None:
        names["second"] = "nn_model"
    state = {}
    for ours in (stage for stage in names if getattr(network, stage) is not None):
        for i in range(len(getattr(network, ours).weights)):
            convolution, norm = (f"{prefix}{names[ours]}.{part}.{i}" for part in ("conv1d_ls", "norm_ls"))
            for part, key in (
                ("weights", f"{convolution}.weight"),
                ("biases", f"{convolution}.bias"),
                ("scales", f"{norm}.norm_conv_kernel.weight"),
                ("shifts", f"{norm}.norm_conv_kernel.bias"),
            ):
                if getattr(getattr(network, ours), part) is not None:
                    state[f"{ours}.{part}.{i}"] = recorded[key]
    network.load_state_dict(state)
    assert len(state) == sum(name.startswith(f"{prefix}nn_model") for name in recorded)


def static_state(recorded: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The parameters of a recorded static filter by our names."""
    pattern = re.compile(rf"{re.escape(prefix)}implicit_filter\.(\d+)\.(weight|bias)")
    found = sorted((int(match[1]), match[2], key) for key in recorded if (match := pattern.fullmatch(key)))
    state = {f"layers.{i // 2}.{part}": recorded[key] for i, part, key in found}
    state["output.weight"] = state.pop(f"layers.{found[-1][0] // 2}.weight")
    return {**state, "freq": recorded[f"{prefix}implicit_filter.1.freq"][0]}


def static_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width, emb_dim = state["layers.0.weight"].shape
    return {"emb_dim": emb_dim, "width": width, "num_inner_mlps": len(state) // 2 - 2}


RECORDED = re.compile(
    f"(?P<kind>{'|'.join(CONDITIONING)})_(?P<nn>{'|'.join(STAGES)})_(?P<transform>{'|'.join(TRANSFORM)})"
    "_(?P<form>causal|noncausal)(?P<variant>(?:_.*)?)"
)


@pytest.mark.parametrize("name", groups("orchid_cond_kernels"))
def test_recorded_networks(name: str) -> None:
    """The circular form, in all variants of it that have an option here."""
    recorded = group("orchid_cond_kernels", name)
    match = RECORDED.fullmatch(name)
    if match is None:
        pytest.skip("not named by type, convolutions, transform and form: a transform or a type that is not here")
    if match["form"] == "causal":
        pytest.skip("the recorded flag causal pads the circle to twice its length, which ours has no use for")
    options = circular_options(match["kind"], match["nn"], match["transform"]) | seen_options(recorded, "param/")
    network = AdaptiveFilter(recorded["u"].shape[2], **options, **variant_options(match["variant"]))
    if "h64" in recorded:
        want, tolerance = recorded["h64"], 1e-6 if "dctxd" in name else 1e-11  # whose matrix is in single precision
    else:  # the two factors
        want, tolerance = recorded["h_k"].conj() * recorded["h_q"], 1e-5
    network = network.to(want.real.dtype)
    load_network(network, recorded, "param/")
    assert_close(network(recorded["u"].mT.to(want.real.dtype)), want.resolve_conj(), tolerance)


def test_variants_of_recorded_names() -> None:
    """Each word is an option, is seen in the arrays, or is named where the case is skipped."""
    assert variant_options("_circular_L63") == {"padding": "circular"}
    assert variant_options("_layers2_tanh_abs") == {"query_activation": "tanh", "query_magnitude": True}
    assert variant_options("_actq-softmax_id") == {"query_activation": "softmax", "query_magnitude": False}
    with pytest.raises(pytest.skip.Exception, match="no option is known by the 'batchnorm' of the recorded name"):
        variant_options("_circular_batchnorm")


@pytest.mark.parametrize("name", groups("orchid_static_filter"))
def test_recorded_static_filters(name: str) -> None:
    """The filter, and its circular convolution under the published scale 1/L."""
    recorded, given = group("orchid_static_filter", name), settings("orchid_static_filter", name)
    options = {key: given[key] for key in ("modulate", "normalized", "shift") if key in given}
    if others := set(given) - {"L", "seq_len", "order", "emb_dim", "num_inner_mlps", "w", *options}:
        pytest.skip(f"with settings that ours has no option for: {sorted(others)}")
    state = static_state(recorded, "param/")
    static = ImplicitFilter(recorded["x"].shape[1], **static_sizes(state), l_max=given["seq_len"], **options)
    static.double().load_state_dict(state)
    k = static(given["L"])
    assert_close(k, recorded["filter64"][0].mT, 1e-6)  # their features and window are in single precision
    y = fft_conv(recorded["x"].double(), k / given["L"], skip=recorded["param/bias"].double(), mode="circular")
    assert_close(y, recorded["y"].double(), 1e-6)


# --- shifts -----------------------------------------------------------------------------------------------------------

EXACT: dict[str, dict[str, Any]] = {
    "second": {"stages": "second"},
    "circular": {"padding": "circular"},
    "circular-first": {"padding": "circular", "stages": "first"},
    "circular-fft-layers": {"padding": "circular", "transform": "fft", "layers": 2},
    "correlation": {"padding": "circular", "conditioning": "correlation"},
    "correlation-first": {"padding": "circular", "conditioning": "correlation", "stages": "first"},
}


@pytest.mark.parametrize("options", EXACT.values(), ids=EXACT.keys())
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("length", [LENGTH, 64])
def test_shifts_leave_the_filter(options: dict[str, Any], dtype: torch.dtype, bound: float, length: int) -> None:
    network, u = build(options, dtype), sequence(length, dtype)
    assert relative_l2(network(u.roll(17, -1)), network(u)) <= bound


@pytest.mark.parametrize("options", [{}, {"padding": "reflect"}, {"conditioning": "correlation"}], ids=str)
def test_other_padding_breaks_equivariance_at_the_ends_alone(options: dict[str, Any]) -> None:
    """So that it matters the less, the longer the sequence is."""
    network = build(options)
    short, long = (relative_l2(network(u.roll(17, -1)), network(u)) for u in (sequence(64), sequence(4096)))
    assert 1e-4 < long < short / 3


# --- the causal form --------------------------------------------------------------------------------------------------


@every_causal
@pytest.mark.parametrize("length", [36, 37])
def test_taps_depend_on_the_past_alone(options: dict[str, Any], length: int) -> None:
    network, u = build(options, causal=True), sequence(length).requires_grad_()
    h = network(u)
    for j in (0, 1, 20):
        (gradient,) = torch.autograd.grad(h[..., j].square().sum(), u, retain_graph=True)
        size = gradient.abs().amax((0, 1))
        assert size[: j + 1].max() > 0
        assert size[j + 1 :].max() <= 1e-13 * size.max()  # the rounding of the FFT


@every_causal
def test_taps_of_a_prefix(options: dict[str, Any]) -> None:
    network, u = build(options, causal=True), sequence()
    for length in (1, 2, 20):
        assert_close(network(u[..., :length]), network(u)[..., :length], 1e-11)


def test_causal_taps_by_their_definition() -> None:
    """Of a network without norms: the sum of products lag by lag, between two convolutions."""
    network, u = build({"causal": True, "norm": False, "l_max": 16, "conditioning": "correlation"}), sequence()

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (2, 0))
        return torch.nn.functional.conv1d(padded, weight, bias, groups=D)

    stages = [network.first, network.queries, network.second]
    first, queries, second = ((s.weights[0], s.biases[0]) for s in stages if s is not None and s.biases is not None)
    k, q = convolve(u, *first), convolve(u, *queries)
    product = torch.stack([(q[..., : j + 1] * k[..., : j + 1].flip(-1)).sum(-1) for j in range(LENGTH)], -1)
    assert_close(network(u), convolve(product / 4, *second) / 4)


@pytest.mark.parametrize("conditioning", ["magnitude", "correlation", "spectrum"])
def test_the_causal_form_has_the_size_of_the_circular_one(conditioning: str) -> None:
    u = sequence(256)
    taps = build({"conditioning": conditioning}, causal=True, l_max=256)(u)
    spectrum = build({"conditioning": conditioning})(u)
    circular = TRANSFORMS["fft_ortho"]._replace(scaling="none").inverse(spectrum, 256)
    assert 1 / 3 < taps.norm() / circular.norm() < 3


# --- local convolutions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 4, LENGTH])
@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("reflect", "reflect"), ("circular", "wrap")])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 2), (2, 2)])
def test_local_convolutions(length: int, padding: str, mode: str, inputs: int, outputs: int) -> None:
    """Two layers by their definition, also on sequences shorter than the window."""
    torch.manual_seed(0)
    layers = LocalConvolutions(D, inputs, outputs, width=9, layers=2, padding=padding).double()
    x = want = torch.randn(3, inputs * D, length, dtype=torch.float64)
    for i in range(2):
        assert layers.biases is not None
        padded = torch.from_numpy(np.pad(want.detach().numpy(), ((0, 0), (0, 0), (4, 4)), mode=mode))  # type: ignore[call-overload]
        want = torch.nn.functional.conv1d(padded, layers.weights[i], layers.biases[i], groups=D)
        want = torch.nn.functional.gelu(want) if i == 0 else want
        want = torch.nn.functional.layer_norm(want.mT, (outputs * D,)).mT
    assert_close(layers(x), want)


# --- lengths, precision, gradients ------------------------------------------------------------------------------------


@every_circular
@pytest.mark.parametrize("padding", [None, "zeros", "reflect", "circular"])
def test_lengths(options: dict[str, Any], padding: str | None) -> None:
    """A padded sample has the spectrum of what is valid of it, whatever stands behind."""
    network = build(options if padding is None else {**options, "padding": padding})
    u, lengths = sequence(), torch.tensor([LENGTH, 8, 1])
    h = network(u, lengths)
    for i, n in enumerate(lengths.tolist()):
        want = network(u[i : i + 1, :, :n])
        assert_close(h[i : i + 1, :, : want.shape[-1]], want, 1e-11)


@every_circular
def test_single_precision(options: dict[str, Any]) -> None:
    """16-bit inputs are taken to single precision first; the parameters never leave it."""
    u = sequence(dtype=torch.bfloat16)
    network, single = build(options), build(options).float()
    want = network(u.double())
    for found in (single(u), single(u.float()), single.to(torch.bfloat16)(u)):
        assert found.real.dtype == torch.float32
        assert_close(found, want, 1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(single(u.float()), want, 1e-5)


@every_circular
@pytest.mark.parametrize("given", [None, [6, 3]])
def test_gradients(options: dict[str, Any], given: list[int] | None) -> None:
    network = build(options)
    lengths = None if given is None else torch.tensor(given)
    u = sequence(6)[:2].requires_grad_()

    def own_bins(u: Tensor) -> Tensor:
        h = network(u, lengths)
        return h if lengths is None else torch.cat([h[0].flatten(), h[1, :, :2].flatten()])

    assert torch.autograd.gradcheck(own_bins, u)
    own_bins(u).abs().square().sum().backward()
    softmax = options.get("query_activation") == "softmax"  # which takes off what all times have in common
    for name, parameter in network.named_parameters():
        if softmax and name.startswith("queries.shifts"):
            continue
        assert parameter.grad is not None and parameter.grad.norm() > 0, name


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditioning": "magnitud"}, "conditioning is 'magnitud'.*did you mean 'magnitude'"),
        ({"transform": "dst"}, "transform is 'dst'.*expected one of 'fft'"),
        ({"padding": "same"}, "padding is 'same'"),
        ({"stages": "third"}, "stages is 'third'"),
        ({"activation": "gel"}, "activation is 'gel'.*'gelu'"),
        ({"kernel_width": 4}, "kernel_width is 4, expected an odd number"),
        ({"layers": 0}, "layers is 0"),
        ({"query_activation": "tanh"}, "query_activation is 'tanh' with conditioning='magnitude'"),
        ({"query_magnitude": True}, "query_magnitude is True with query_activation=None, expected False"),
        (
            {"conditioning": "correlation", "query_activation": "softmax", "query_magnitude": True},
            "query_magnitude is True with query_activation='softmax'",
        ),
        ({"conditioning": "correlation", "stages": "second"}, "stages is 'second' with conditioning='correlation'"),
        ({"causal": True, "transform": "fft"}, "transform is 'fft' with causal=True.*circular"),
        ({"causal": True, "padding": "circular"}, "padding is 'circular' with causal=True"),
        (
            {"causal": True, "conditioning": "correlation", "query_activation": "softmax"},
            "query_activation is 'softmax' with causal=True",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        AdaptiveFilter(D, **options)


def test_bad_input() -> None:
    network = AdaptiveFilter(D)
    with pytest.raises(ValueError, match=r"u is a \(2, 5, 9\).*\(B, D, L\) = \(any, 4, any\)"):
        network(torch.zeros(2, 5, 9))
    with pytest.raises(TypeError, match="u is .*int64"):
        network(torch.zeros(2, D, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"u is a \(2, 4, 0\).*at least one sample"):
        network(torch.zeros(2, D, 0))
    u = torch.zeros(2, D, 9)
    for lengths, error in (([9, 1], TypeError), (torch.ones(2), TypeError), (torch.tensor([9, 10]), ValueError)):
        with pytest.raises(error, match="lengths"):
            network(u, lengths)
    with pytest.raises(ValueError, match=r"lengths is a \(3,\).*\(B,\) = \(2\)"):
        network(u, torch.ones(3, dtype=torch.int64))
    for option in ("causal", "norm", "bias", "query_magnitude"):
        with pytest.raises(TypeError, match=f"{option} is 1"):
            AdaptiveFilter(D, **{option: 1})  # type: ignore[arg-type]
