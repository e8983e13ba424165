"""Orchid: recorded operators, both forms by their definitions, shifts, and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longconv import create_mixer
from longconv.filters.transforms import TRANSFORMS
from longconv.mixers import Orchid
from longconv.ops import short_conv
from tests.filters.test_adaptive import (
    PADDING,
    circular_options,
    load_network,
    query_options,
    seen_options,
    static_sizes,
    static_state,
)
from tests.golden import files, whole
from tests.tolerances import assert_close, relative_l2

D, LENGTH = 4, 37


def build(dtype: torch.dtype = torch.float64, **options: Any) -> Orchid:
    torch.manual_seed(0)
    mixer = create_mixer("orchid", D, **{"l_max": 16, **options}).to(dtype)
    assert isinstance(mixer, Orchid)
    return mixer


def sequence(length: int = LENGTH, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, length, D, generator=generator, dtype=torch.float64).to(dtype)


# --- recorded operators -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", files("orchid_op"))
def test_recorded_operators(name: str) -> None:
    """Those without the published flag ``causal``, which pads the circle of the conditioning network alone."""
    recorded, given = whole(name)
    if given.get("causal", True):
        pytest.skip("the recorded flag causal pads the circle of the conditioning network alone")
    network = given["conv_kernel"]
    query = query_options(network["actq"])
    if query is None or network["norm"] not in ("layernorm", None) or network["padding_mode"] not in PADDING:
        pytest.skip(f"of a function, norm or padding that is not here: {network}")
    static = {"taps": static_state(recorded, "param/fixed_conv.")}
    if "param/fixed_conv_res.bias" in recorded:
        static["residual_taps"] = static_state(recorded, "param/fixed_conv_res.")
    mixer = Orchid(
        recorded["u"].shape[2],
        causal=False,
        l_max=given["l_max"],
        activation=network["activation"],
        padding=PADDING[network["padding_mode"]],
        **circular_options(network["type"], network["nn"], given["dxt"]),
        **seen_options(recorded, "param/conv_kernel_nn."),
        **query,
        short_filter=recorded["param/conv1d_short.weight"].shape[2],
        residual="residual_taps" in static,
        **static_sizes(static["taps"]),
    ).double()
    load_network(mixer.conditioning, recorded, "param/conv_kernel_nn.")
    state = mixer.state_dict()
    for ours, theirs in (("", "fixed_conv"), ("residual_", "fixed_conv_res"))[: len(static)]:
        state |= {f"{ours}taps.{name}": value for name, value in static[f"{ours}taps"].items()}
        state[f"{ours}skip"] = recorded[f"param/{theirs}.bias"]
    for ours, theirs in (("input", "in_linear"), ("output", "out_linear")):
        state |= {f"{ours}.{part}": recorded[f"param/{theirs}.{part}"] for part in ("weight", "bias")}
    state["short_weight"] = recorded["param/conv1d_short.weight"][:, 0]
    state["short_bias"] = recorded["param/conv1d_short.bias"]
    mixer.load_state_dict(state)
    assert_close(mixer(recorded["u"].double()), recorded["y64"], 1e-6)  # features and windows in single precision
    assert_close(mixer.float()(recorded["u"]), recorded["y64"], 3e-6)


# --- the definitions --------------------------------------------------------------------------------------------------


def parts(mixer: Orchid, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The three short convolutions, h, and the input in channels."""
    p = mixer.input(u).mT
    c = short_conv(p, mixer.short_weight, mixer.short_bias)
    return *c.chunk(3, 1), mixer.conditioning(p[:, 2 * D :]), u.mT


def finish(mixer: Orchid, y: Tensor, extra: Tensor) -> Tensor:
    return mixer.output((y + extra).mT)


@pytest.mark.parametrize(
    "options",
    [{}, {"conditioning": "correlation"}, {"conditioning": "spectrum", "residual": False}, {"stages": "second"}],
    ids=str,
)
def test_causal_form_by_its_definition(options: dict[str, Any]) -> None:
    mixer, u = build(**options), sequence()
    gate_out, gate_in, v, h, channels = parts(mixer, u)
    lag = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)

    def convolve(x: Tensor, k: Tensor, skip: Tensor) -> Tensor:
        matrix = torch.where(lag >= 0, k[..., lag.clamp(min=0)], 0)
        return (matrix @ x[..., None])[..., 0] + skip[:, None] * x

    y = gate_out * convolve(gate_in * v, mixer.taps(LENGTH) / 4 + h, mixer.skip)
    extra = torch.zeros_like(y)
    if mixer.residual_taps is not None and mixer.residual_skip is not None:
        extra = convolve(channels, mixer.residual_taps(LENGTH) / 4, mixer.residual_skip)
    assert_close(mixer(u), finish(mixer, y, extra), 1e-11)


@pytest.mark.parametrize("transform", list(TRANSFORMS))
@pytest.mark.parametrize("length", [1, 2, 36, LENGTH])
@pytest.mark.parametrize("conditioning", ["magnitude", "correlation"])
def test_circular_form_by_its_definition(transform: str, length: int, conditioning: str) -> None:
    """The product of spectra, in the published scale of each transform."""
    mixer, u = build(causal=False, transform=transform, conditioning=conditioning), sequence(length)
    gate_out, gate_in, v, h, channels = parts(mixer, u)
    T, static, residual = TRANSFORMS[transform], mixer.taps, mixer.residual_taps
    assert residual is not None and mixer.residual_skip is not None
    x = gate_in * v
    y = T.inverse(T.forward(x) * (T.forward(static(length)[None]) + h), length) + mixer.skip[:, None] * x
    extra = T.inverse(T.forward(channels) * T.forward(residual(length)[None]), length)
    want = finish(mixer, gate_out * y, extra + mixer.residual_skip[:, None] * channels)
    assert_close(mixer(u), want, 1e-11)


EXACT: list[dict[str, Any]] = [
    {"stages": "second"},
    {"padding": "circular"},
    {"padding": "circular", "conditioning": "correlation"},
    {"padding": "circular", "transform": "fft", "layers": 2},
]


@pytest.mark.parametrize("options", EXACT, ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("length", [LENGTH, 64])
def test_shift_equivariance(options: dict[str, Any], dtype: torch.dtype, bound: float, length: int) -> None:
    """The claim of the paper, which wants a DFT, no padding in time, and short convolutions of one tap."""
    mixer, u = build(dtype, causal=False, short_filter=1, **options), sequence(length, dtype)
    assert relative_l2(mixer(u.roll(17, 1)), mixer(u).roll(17, 1)) <= bound


@pytest.mark.parametrize("options", [{"short_filter": 3}, {"transform": "dct"}, {"padding": None}], ids=str)
def test_what_shift_equivariance_depends_on(options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"causal": False, "short_filter": 1, "padding": "circular", **options}
    mixer, u = build(torch.float64, **given), sequence(64)
    assert relative_l2(mixer(u.roll(17, 1)), mixer(u).roll(17, 1)) > 1e-4


def test_every_sample_has_its_own_filter() -> None:
    """A batch gives what its samples give one by one, in the shape of the input."""
    for mixer in (build(), build(causal=False)):
        u = sequence()
        assert_close(mixer(u), torch.cat([mixer(sample[None]) for sample in u]), 1e-12)


@pytest.mark.parametrize("conditioning", ["magnitude", "spectrum", "correlation"])
@pytest.mark.parametrize("length", [36, 37])
def test_future_inputs_have_no_gradient(length: int, conditioning: str) -> None:
    """At every time, of every output and input, at an even and at a prime length."""
    mixer = build(conditioning=conditioning)
    jacobian = torch.autograd.functional.jacobian(lambda u: mixer(u).sum((0, 2)), sequence(length)[:1])
    size = jacobian.abs().amax((1, 3))  # (outputs, inputs) in time
    assert size.triu(1).max() <= 1e-13 * size.max()
    assert (size.tril().amax(1) > 0).all()


# --- bad input --------------------------------------------------------------------------------------------------------


def test_contradictions_are_refused() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"transform": "dct"}, "transform is 'dct' with causal=True.*causal=False"),
        ({"padding": "circular"}, "padding is 'circular' with causal=True.*causal=False"),
        ({"short_filter": 0}, "short_filter is 0"),
        ({"l_max": 0}, "l_max is 0"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=f"^{message}"):
            build(**options)


def test_the_circular_form_cannot_stream() -> None:
    mixer = build(causal=False)
    with pytest.raises(NotImplementedError, match="^Orchid can't stream: its circular form joins the end"):
        mixer.prefill(sequence())


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("past", None, TypeError, r"^state\.past is None"),
        ("past", torch.zeros(3, 3 * D, 2, dtype=torch.int64), TypeError, r"^state\.past is .*int64"),
        ("past", torch.zeros(3, 3 * D, 5).double(), ValueError, r"^state\.past is .*expected"),
        ("local", None, TypeError, r"^state\.local is None"),
        ("local", (None,), TypeError, r"^state\.local is "),
        ("local", ((None,), (), (None,)), TypeError, r"^state\.local\[0\]\[0\] is None"),
        ("local", ((torch.zeros(2, D, 2),), (), (torch.zeros(3, D, 2),)), ValueError, r"^state\.local\[0\]\[0\] is"),
        ("adaptive", None, TypeError, r"^state\.adaptive is None"),
        ("static", (), ValueError, r"^state\.static is \(\)"),
        ("product", None, TypeError, r"^state\.product is None"),
    ],
)
def test_states_that_were_tampered_with_are_refused(
    field: str, value: Any, error: type[Exception], message: str
) -> None:
    mixer, u = build(), sequence()
    state = mixer.init_state(3)._replace(**{field: value})
    with pytest.raises(error, match=message):
        mixer.step(u[:, 0], state)
    with pytest.raises(error, match=message):
        mixer.prefill(u, state)


def test_states_of_other_mixers_are_refused() -> None:
    mixer, u = build(), sequence()
    for other in (
        {"kernel_width": 4},
        {"layers": 2},
        {"short_filter": 4},
        {"conditioning": "spectrum"},
        {"residual": False},
        {"stages": "first"},
        {"stages": "second"},
        {"conditioning": "correlation"},
        {"conditioning": "correlation", "stages": "first"},
    ):
        state = build(torch.float64, **other).init_state(3)
        with pytest.raises(ValueError, match="^state"):
            mixer.step(u[:, 0], state)
        with pytest.raises(ValueError, match="^state"):
            mixer.prefill(u, state)


@pytest.mark.parametrize("length", [36, LENGTH])
def test_chunks_and_steps_longer_than_a_block(length: int) -> None:
    """Over several of the blocks in which the online convolutions work, in one stream."""
    mixer, u = build(conditioning="correlation"), sequence(8 * length)
    y, state = mixer.prefill(u[:, : 5 * length])
    outputs = [y]
    for u_t in u[:, 5 * length : 7 * length].unbind(1):
        y_t, state = mixer.step(u_t, state)
        outputs.append(y_t[:, None])
    outputs.append(mixer.prefill(u[:, 7 * length :], state)[0])
    assert_close(torch.cat(outputs, 1), mixer(u), 1e-11)


def test_a_long_float32_stream() -> None:
    """The taps go through a product and a norm on their way; chunks, then steps, end at the float64 output."""
    mixer, u = build(torch.float32, l_max=1024), sequence(16384, torch.float32)
    with torch.no_grad():
        state, outputs = mixer.init_state(len(u)), []
        for chunk in u[:, :-200].split(5000, dim=1):
            y, state = mixer.prefill(chunk, state)
            outputs.append(y)
        for u_t in u[:, -200:].unbind(1):
            y_t, state = mixer.step(u_t, state)
            outputs.append(y_t[:, None])
        y, want = torch.cat(outputs, 1), build(torch.float64, l_max=1024)(u.double())
        assert_close(y, want, 1e-5)
        assert_close(y[:, -200:], want[:, -200:], 1e-5)
        assert_close(mixer(u), want, 1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_dropout(causal: bool) -> None:
    """Of the input of the long convolution: the mean over masks is the output without."""
    mixer, u = build(dropout=0.25, causal=causal), sequence(5)[:1]
    dropped = mixer(u.expand(4000, -1, -1))
    assert dropped.std(0).min() > 0
    assert_close(dropped.mean(0), mixer.eval()(u)[0], 0.05)
    assert_close(mixer(u), build(causal=causal)(u))


ZERO: list[dict[str, Any]] = [
    {},
    {"conditioning": "correlation", "query_activation": "sigmoid", "query_magnitude": True},
    {"causal": False},
    {"causal": False, "conditioning": "correlation", "query_activation": "tanh", "query_magnitude": True},
    {"causal": False, "transform": "dct", "norm": False, "bias": False},
    {"causal": False, "conditioning": "correlation", "query_activation": "softmax"},
]


@pytest.mark.parametrize("options", ZERO, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_zeros(options: dict[str, Any], dtype: torch.dtype) -> None:
    """A silent input, through a mixer all of whose parameters are zero too or through any: all gradients are finite."""
    for silent in (False, True):
        mixer, u = build(dtype, normalized=True, **options), sequence(dtype=dtype).mul(0).requires_grad_()
        if silent:
            for parameter in mixer.parameters():
                torch.nn.init.zeros_(parameter)
        y = mixer(u)
        y.square().sum().backward()
        gradients = [p.grad for p in (u, *mixer.parameters()) if p.grad is not None]
        assert y.isfinite().all() and len(gradients) > 5 and all(g.isfinite().all() for g in gradients)


def test_it_has_no_filter_of_its_own() -> None:
    with pytest.raises(NotImplementedError, match="Orchid has no filter of its own: its taps depend on the input"):
        build().filter(8)


def test_options_of_the_static_filters() -> None:
    changes = {"shift": 0.5, "modulate": False, "target": 0.5, "normalized": True, "w": 3.0, "filter_dropout": 0.9}
    for option, value in changes.items():
        assert relative_l2(build(torch.float64, **{option: value})(sequence()), build()(sequence())) > 1e-3
