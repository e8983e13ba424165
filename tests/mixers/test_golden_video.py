"""ConvS5 against the recorded outputs, states and gradients of the original code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.filters import ConvS5System
from longconv.mixers import ConvS5
from longconv.mixers.conv_s5 import conv_ssm
from tests.golden import Case, cases
from tests.tolerances import assert_close

FORWARD = 2e-6
"""The recorded numbers are float32, of a system in complex64."""
GRADIENT = 2e-5


def frames(recorded: Tensor) -> Tensor:
    """(T, B, H, W, U) -> (B, T, U, H, W)."""
    return recorded.permute(1, 0, 4, 2, 3)


def kernel(recorded: Tensor) -> Tensor:
    """(k, k, in, out) -> (out, in, k, k)."""
    return recorded.permute(3, 2, 0, 1)


def build(case: Case) -> ConvS5:
    meta = case.meta
    options: dict[str, Any] = {"groups": meta["num_groups"], "squeeze_excite": meta["squeeze_excite"]}
    output = {"diag_resnet": None}.get(meta["cfg"], meta["cfg"])
    activation = {"gelu": "gelu_tanh"}.get(meta["activation"], meta["activation"])
    P = case["params/Lambda_re"].shape[0]
    mixer = ConvS5(meta["U"], d_state=2 * P, output=output, activation=activation, **options)
    mixer.load_state_dict(parameters(case.group("params"), output, meta["U"]))
    return mixer


def parameters(recorded: dict[str, Tensor], output: str | None, U: int) -> dict[str, Tensor]:
    """Our parameters, or their gradients, from the recorded ones."""
    B = recorded["B"]
    k = round((B.shape[1] / U) ** 0.5)
    found = {
        "system.Lambda": torch.stack([recorded["Lambda_re"], recorded["Lambda_im"]], -1),
        "system.B": B.view(B.shape[0], U, k, k, 2),
        "system.C": recorded["C"].permute(3, 2, 0, 1, 4),
        "system.log_dt": recorded["log_step"][:, 0],
    }
    start = "C_D_conv."
    for index in range(2):
        conv, norm = f"{start}Conv_{index}.", f"{start}GroupNorm_{index}."
        if conv + "kernel" in recorded:
            ours = "output.D" if output == "standard" else f"output.branch.{3 * index + 2}"
            found |= {f"{ours}.weight": kernel(recorded[conv + "kernel"]), f"{ours}.bias": recorded[conv + "bias"]}
        if norm + "scale" in recorded:
            ours = "output.norm" if output == "standard" else f"output.branch.{3 * index}"
            found |= {f"{ours}.weight": recorded[norm + "scale"], f"{ours}.bias": recorded[norm + "bias"]}
    excite = "output.excite" if output == "standard" else "output.branch.6"
    dense = {
        "Dense_0": "output.gate.gate",
        "SEBlock_0.reduce": f"{excite}.reduce",
        "SEBlock_0.expand": f"{excite}.expand",
    }
    for theirs, ours in dense.items():
        if f"{start}{theirs}.kernel" in recorded:
            weight, bias = recorded[f"{start}{theirs}.kernel"].T, recorded[f"{start}{theirs}.bias"]
            found |= {f"{ours}.weight": weight, f"{ours}.bias": bias}
    if start + "norm.scale" in recorded:
        found |= {
            "output.norm.weight": recorded[start + "norm.scale"],
            "output.norm.bias": recorded[start + "norm.bias"],
        }
    return found


systems = pytest.mark.parametrize("name", cases("convs5", but=("init", "stack")))  # of single blocks


@systems
def test_conv_ssm(name: str) -> None:
    case = Case("convs5", name)
    B_bar, C = kernel(case["B_bar"]), kernel(case["C_tilde"])
    initial = case["x0"].permute(0, 3, 1, 2)
    y, final = conv_ssm(frames(case["u"]), case["A_bar"], B_bar, C, initial)
    assert_close(y, frames(case["y_ssm_only"]), FORWARD)
    assert_close(final, case["x_last"].permute(0, 3, 1, 2), FORWARD)
    mixer = build(case)
    for got, want in zip(mixer.system.discretised(), (case["A_bar"], B_bar, C), strict=True):
        assert_close(got, want.to(torch.complex128), FORWARD)


@systems
def test_block(name: str) -> None:
    """In one piece, in chunks and frame by frame; with the gradients where they are recorded."""
    case = Case("convs5", name)
    mixer, u = build(case), frames(case["u"]).requires_grad_()
    y = mixer(u)
    assert_close(y, frames(case["y_parallel"]), FORWARD)
    state, outputs = mixer.init_state(u.shape[0]), []
    for u_t in u.unbind(1):
        y_t, state = mixer.step(u_t, state)
        outputs.append(y_t)
    assert_close(torch.stack(outputs, 1), frames(case["y_single_step"]), FORWARD)
    assert_close(state.x, case["x_last"].permute(0, 3, 1, 2), FORWARD)
    if "G" in case:
        (y * frames(case["G"])).sum().backward()
        assert u.grad is not None
        assert_close(u.grad, frames(case["grad_u"]), GRADIENT)
        wanted = parameters(case.group("grad"), case.meta["cfg"], case.meta["U"])
        for key, parameter in mixer.named_parameters():
            assert parameter.grad is not None
            assert_close(parameter.grad, wanted[key], GRADIENT)


@pytest.mark.parametrize("name", cases("convs5", "init"))
def test_initial_modes(name: str) -> None:
    """Those of the recorded matrix with a negative imaginary part, each for itself and its conjugate."""
    recorded = Case("convs5", name)["Lambda"]
    want = recorded[recorded.imag < 0]
    got = torch.view_as_complex(ConvS5System(2, len(recorded)).Lambda.detach())
    assert_close(got[got.imag.argsort()], want[want.imag.argsort()], FORWARD)
