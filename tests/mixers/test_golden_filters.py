"""SGConv and LongConv against layers recorded from the original authors' code: outputs and gradients."""

from __future__ import annotations

import pytest
import torch

from longconv import create_mixer
from tests.golden import Case, cases, skip_leaks
from tests.mixers.recorded import FORWARD, Names, check_layer, linear_weight, load, same
from tests.tolerances import assert_close

SGCONV_NAMES: Names = {
    "D": ("D", same),
    "taps.norm": ("kernel_norm", same),
    "taps.decay": ("decay", torch.flatten),
    **{f"norm.{part}": (f"norm.norm.{part}", same) for part in ("weight", "bias", "s", "m")},
    "output.weight": ("output_linear.weight", linear_weight),
    "output.bias": ("output_linear.bias", same),
    "output.0.weight": ("output_linear.0.weight", linear_weight),
    "output.0.bias": ("output_linear.0.bias", same),
    **{f"taps.weights.{i}": (f"kernel_list.{i}", same) for i in range(12)},
}
SGCONV_NORMS = {frozenset(): None, frozenset({"weight", "bias"}): "layer", frozenset({"s", "m"}): "scalar_layer"}
"""Our norm by the parameters of the recorded one, which are below norm.norm."""
LONG_CONV_NAMES: Names = {
    "D": ("D", same),
    "taps.weight": ("kernel.kernel", same),
    "output.0.weight": ("output_linear.0.weight", linear_weight),
    "output.0.bias": ("output_linear.0.bias", same),
}


@pytest.mark.parametrize("name", cases("sgconv"))
def test_sgconv(name: str) -> None:
    case = Case("sgconv", name)
    before, after = case.group("state_dict_before"), case.group("state_dict_after")
    multiplier = before["multiplier"].flatten()
    recorded = {"decay": before["multiplier"], **before, **after}
    scales, init_scale, d = case.meta["num_scales"], case.meta.get("init_scale", 0), case.meta["kernel_dim"]
    mode = next((m for m in ("nearest", "sum", "cos", "learnable") if m in case.meta.get("mode", "linear")), "linear")
    bidirectional = before["kernel_list.0"].shape[0] > before["D"].shape[0]
    mixer = create_mixer(
        "sgconv",
        case.meta["d_model"],
        channels=before["D"].shape[0],
        bidirectional=bidirectional,
        scales=scales,
        init_scale=init_scale,
        norm=SGCONV_NORMS[frozenset(key.split(".")[-1] for key in before if key.startswith("norm."))],
        l_max=d << (scales - 1 + init_scale),  # the recorded filter goes on to its end, beyond its l_max too
        kernel_dim=d,
        decay_min=float(multiplier[0]),
        decay_max=float(multiplier[-1]),
        mode=mode,
        activation=None if case.meta.get("linear") else "gelu",
        output=None if case.meta.get("linear") else "glu" if "output_linear.0.weight" in before else "linear",
    )
    dtype = case["u"].dtype
    load(mixer, SGCONV_NAMES, recorded, dtype)
    if not bidirectional:  # the recorded filter of these is the one of 2L taps that their FFT takes
        assert_close(mixer.filter(case["k"].shape[-1]), case["k"], FORWARD[dtype])
    check_layer(mixer, case, SGCONV_NAMES, transposed=case.meta.get("transposed", True))


@pytest.mark.parametrize("name", cases("longconv_layer"))
def test_long_conv(name: str) -> None:
    case = Case("longconv_layer", name)
    skip_leaks(case)
    plain = "activation" in case.meta
    mixer = create_mixer(
        "long_conv",
        case.meta["d_model"],
        channels=case.meta["channels"],
        l_max=case.meta["l_max"],
        threshold=case.meta["lam"],
        smoothing="time" if case.meta.get("use_ma_smoothing") else None,
        smooth_window=case.meta.get("ma_window_len", 7),
        activation=None if plain else "gelu",
        output=None if plain else "glu",
    )
    dtype = case["u"].dtype
    load(mixer, LONG_CONV_NAMES, case.group("state_dict"), dtype)
    assert_close(mixer.filter(case["K"].shape[-1]), case["K"], FORWARD[dtype])
    check_layer(mixer, case, LONG_CONV_NAMES, transposed=case.meta.get("transposed", True))
