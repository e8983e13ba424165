"""State dicts of the original S4 and S4D layers: outputs, gradients and steps of the recorded layers, and errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from longconv.filters import dplr_filter
from longconv.mixers import S4, S4D, load_s4
from longconv.mixers.base import Mixer
from longconv.mixers.convert import convert_s4
from tests.golden import Case, cases
from tests.tolerances import assert_close

FORWARD = {torch.float64: 1e-12, torch.float32: 1e-5}
"""The recorded float32 layers carry the reference's own float32 error."""
GRADIENT = {torch.float64: 1e-10, torch.float32: 3e-4}


def state_dicts(case: Case) -> list[dict[str, Tensor]]:
    """Of an S4 layer those before and after the first forward pass, which changes the meaning of C."""
    before = case.group("state_dict_before")
    return [before, before | case.group("state_dict_after")] if before else [case.group("state_dict")]


def original(case: Case, state_dict: dict[str, Tensor]) -> S4 | S4D:
    activation = case.meta.get("activation", "gelu")
    transform = "softplus" if "softplus" in case.name else "exp"
    return load_s4(state_dict, activation=activation, dt_transform=transform)


def through(mixer: Mixer, u: Tensor) -> tuple[Tensor, Tensor]:
    """(B, L, D) step by step -> (B, L, D) and the modes at the end."""
    state, outputs = mixer.init_state(u.shape[0]), []
    with torch.no_grad():
        for u_t in u.unbind(1):
            y_t, state = mixer.step(u_t, state)
            outputs.append(y_t)
    return torch.stack(outputs, 1), state.x


@pytest.mark.parametrize(("file", "name"), [(f, name) for f in ("s4_layer", "s4d_layer") for name in cases(f)])
def test_recorded_layers(file: str, name: str) -> None:
    case = Case(file, name)

    def layout(recorded: Tensor) -> Tensor:
        return recorded if case.meta.get("transposed") is False else recorded.mT

    bound, u = FORWARD[case["u"].dtype], layout(case["u"])
    for state_dict in state_dicts(case):
        mixer = original(case, state_dict)
        taps = case["K"]
        k = mixer.filter(taps.shape[-1])
        assert_close(k.reshape(taps.shape), taps, bound)
        if "lmax64" not in name:  # those record a filter that ends at 64 taps
            assert_close(mixer(u), layout(case["y"]), bound)
        if "y_step" in case:
            y, x = through(mixer, u)
            assert_close(y, case["y_step"].mT, bound)
            assert_close(x, case["state_final"][..., : x.shape[-1]], bound)


@pytest.mark.parametrize("name", cases("s4_layer"))
def test_recorded_gradients(name: str) -> None:
    """With respect to the original's parameters, C after the first forward pass being its truncated one."""
    case = Case("s4_layer", name)
    recorded = case.group("grad")
    if not recorded:
        pytest.skip("the case has no gradients")
    _, state_dict = state_dicts(case)
    mixer = original(case, state_dict)
    leaves = {key: state_dict[key].clone().requires_grad_() for key in recorded}
    u = case["u"].mT.clone().requires_grad_()
    y = functional_call(mixer, convert_s4(state_dict | leaves), (u,))
    y.backward(case["grad_y"].mT)
    assert u.grad is not None
    assert_close(u.grad, case["grad_u"].mT, GRADIENT[u.dtype])
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        assert_close(leaf.grad, recorded[key], GRADIENT[u.dtype])


@pytest.mark.parametrize("name", cases("s4_kernels", "kernel_grad"))
def test_recorded_filter_gradients(name: str) -> None:
    case = Case("s4_kernels", name)
    recorded, state_dict = case.group("grad"), case.group("state_dict")
    leaves = {key: state_dict[key].clone().requires_grad_() for key in recorded}
    H = case["K"].shape[1]
    parameters = convert_s4(state_dict | leaves | {"D": torch.zeros(1, H)})
    taps = S4(H, d_state=case.meta["N"], rank=case.meta["rank"]).taps.double()
    own = {key.removeprefix("taps."): t for key, t in parameters.items() if key.startswith("taps.")}
    k = functional_call(taps, own, (case.meta["L"],))
    assert_close(k, case["K"])
    (k * case["G"]).sum().backward()
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        assert_close(leaf.grad, recorded[key], 1e-10)


@pytest.mark.parametrize("name", [name for name in cases("s4_kernels") if "_N" in name])
def test_recorded_kernels_state_dicts(name: str) -> None:
    """The state dict gives the recorded Lambda, B, C, P and dt; systems shared by features are repeated."""
    case = Case("s4_kernels", name)
    C, H, P = case["C"].shape
    parameters = convert_s4(case.group("state_dict") | {"D": torch.zeros(C, H)})
    mixer = S4(H, d_state=2 * P, rank=max(2, case["P"].shape[0]), channels=C).double()
    own = {key.removeprefix("taps."): t for key, t in parameters.items() if key.startswith("taps.")}
    want = dplr_filter(case["Lambda"], case["P"], case["B"], case["C"], case["dt"], 64)
    assert_close(functional_call(mixer.taps, own, (64,)), want, 1e-11)


@pytest.mark.parametrize("length", [1, 17, 64])
@pytest.mark.parametrize(("bidirectional", "channels"), [(False, 1), (True, 2)])
def test_both_meanings_of_c(length: int, bidirectional: bool, channels: int) -> None:
    """C (I - A_bar^L) with l_kernel = L, made here by a dense power, and C with l_kernel = 0 give one mixer."""
    mixer = S4(3, d_state=8, channels=channels, bidirectional=bidirectional, rank=2).double()
    theirs = as_original(mixer)
    same = load_s4(theirs)
    u = torch.randn(2, 40, 3, dtype=torch.float64)
    assert_close(same(u), mixer(u))
    Lambda, P, B, C, dt = (part.detach() for part in mixer.taps.continuous())
    Lambda, P, B, C = (torch.cat([part, part.conj()], -1) for part in (Lambda, P, B, C))
    A = dt[:, None, None] * (torch.diag_embed(Lambda) - torch.einsum("rhn,rhm->hnm", P, P.conj()))
    identity = torch.eye(8, dtype=A.dtype)
    power = torch.linalg.matrix_power(torch.linalg.solve(identity - A / 2, identity + A / 2), length)
    truncated = C - torch.einsum("chn,hnm->chm", C, power)
    theirs["layer.kernel.C"] = torch.view_as_real(truncated[..., :4].contiguous())
    theirs["layer.kernel.l_kernel"] = torch.tensor(length)
    assert_close(load_s4(theirs)(u), mixer(u), 1e-9)


def as_original(mixer: Mixer) -> dict[str, Tensor]:
    """The state dict of one of our mixers under the original's names."""
    ours = mixer.state_dict()
    return {
        "layer.D": ours["D"],
        "layer.kernel.inv_dt": ours["taps.log_dt"][:, None],
        "layer.kernel.A_real": ours["taps.log_decay"],
        "layer.kernel.A_imag": -ours["taps.frequency"],
        "layer.kernel.P": ours["taps.P"],
        "layer.kernel.B": ours["taps.B"][None],
        "layer.kernel.C": ours["taps.C"],
        "layer.kernel.l_kernel": torch.tensor(0),
        "output_linear.0.weight": ours["output.0.weight"][..., None],
        "output_linear.0.bias": ours["output.0.bias"],
    }


def test_shared_systems_and_options() -> None:
    """Feature h has the shared system h mod T; softplus transforms; a prefix; a linear output layer."""
    theirs = as_original(S4(4, d_state=8, rank=2).double())
    for name, dim in (("A_real", 0), ("A_imag", 0), ("P", 1), ("B", 1)):
        theirs[f"layer.kernel.{name}"] = theirs[f"layer.kernel.{name}"].narrow(dim, 0, 2)
    mixer = load_s4({f"model.{name}": t for name, t in theirs.items()} | {"other": torch.zeros(1)}, prefix="model.")
    assert isinstance(mixer, S4)
    for part in (mixer.taps.log_decay, mixer.taps.frequency, mixer.taps.B, mixer.taps.P[1]):
        assert torch.equal(part[0], part[2]) and torch.equal(part[1], part[3])
    assert torch.equal(mixer.taps.P[:, 1], theirs["layer.kernel.P"][:, 1])
    soft = load_s4(theirs, dt_transform="softplus", real_transform="softplus")
    assert isinstance(soft, S4)
    Lambda, _, _, _, dt = soft.taps.continuous()
    assert_close(dt, torch.nn.functional.softplus(theirs["layer.kernel.inv_dt"][:, 0]))
    assert_close(Lambda.real[:2], -torch.nn.functional.softplus(theirs["layer.kernel.A_real"]))
    theirs["output_linear.0.weight"] = torch.randn(4, 4, 1)
    theirs["output_linear.0.bias"] = torch.randn(4)
    linear = load_s4(theirs).output
    assert isinstance(linear, torch.nn.Linear)
    assert torch.equal(linear.weight, theirs["output_linear.0.weight"][..., 0].double())


def test_bad_state_dicts() -> None:
    theirs = as_original(S4(4, d_state=8))
    with pytest.raises(ValueError, match=r"lacks \['C'\], and has unknown \['layer.kernel.K'\]"):
        load_s4({("layer.kernel.K" if key.endswith(".C") else key): t for key, t in theirs.items()})
    with pytest.raises(ValueError, match="discretization is 'zoh'"):
        load_s4(theirs, discretization="zoh")
    with pytest.raises(ValueError, match=r"dt_transform is 'softpls'.*did you mean 'softplus'"):
        load_s4(theirs, dt_transform="softpls")


def as_diagonal_block(mixer: Mixer) -> dict[str, Tensor]:
    """The state dict of one of our S4D under the names of the original block."""
    names = {"D": "layer.D", "taps.B": "layer.kernel.B", "taps.C": "layer.kernel.C"}
    theirs = {names[name]: t for name, t in mixer.state_dict().items() if name in names}
    theirs["layer.kernel.B"] = theirs["layer.kernel.B"][None]
    taps = mixer.get_submodule("taps")
    theirs["layer.kernel.inv_dt"] = taps.get_parameter("log_dt").detach()[:, None]
    theirs["layer.kernel.A_real"] = taps.get_parameter("log_decay").detach()
    theirs["layer.kernel.A_imag"] = -taps.get_parameter("frequency").detach()
    return theirs


def test_a_block_without_b_is_not_the_minimal_layer() -> None:
    """What it is, its names say: kernel.log_dt is the minimal one's; a block, diagonal or not, needs its B."""
    mixer = S4D(4, d_state=8, activation=None, output=None)
    with torch.no_grad():
        mixer.taps.get_parameter("B").copy_(torch.randn(4, 4, 2))
    theirs, u = as_diagonal_block(mixer), torch.randn(1, 20, 4)
    assert_close(load_s4(theirs, activation=None)(u), mixer(u))
    for without in (theirs, as_original(S4(4, d_state=8))):
        with pytest.raises(ValueError, match=r"lacks \['B'\], and has unknown \[\]"):
            load_s4({name: t for name, t in without.items() if not name.endswith(".B")})
    minimal = {
        "D": theirs["layer.D"][0],
        "kernel.log_dt": theirs["layer.kernel.inv_dt"][:, 0],
        "kernel.log_A_real": theirs["layer.kernel.A_real"],
        "kernel.A_imag": -theirs["layer.kernel.A_imag"],
        "kernel.C": theirs["layer.kernel.C"][0],
    }
    with torch.no_grad():
        mixer.taps.get_parameter("B").copy_(torch.tensor([1.0, 0.0]))
    assert_close(load_s4(minimal, activation=None)(u), mixer(u))
    with pytest.raises(ValueError, match=r"unknown \['layer.kernel.B'\]"):
        load_s4(minimal | {"layer.kernel.B": theirs["layer.kernel.B"]})


NAN = torch.full((4, 4), torch.nan)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("output_linear.0.bias", None, ValueError, r"lacks \['bias'\]"),
        ("output_linear.0.weight", None, ValueError, r"lacks \['weight'\]"),
        ("output_linear.0.weight", torch.zeros(12, 4, 1), ValueError, r"output_linear.0.weight is a \(12, 4\)"),
        ("output_linear.0.bias", torch.zeros(4), ValueError, r"output_linear.0.bias is a \(4,\).*\(8\)"),
        ("layer.kernel.A_real", NAN, ValueError, r"layer.kernel.A_real\[0, 0\] is nan"),
        ("layer.kernel.A_real", torch.zeros(3, 4), ValueError, "layer.kernel.A_real has 3 systems.*H = 4"),
        ("layer.kernel.A_imag", torch.zeros(4, 5), ValueError, r"layer.kernel.A_imag is a \(4, 5\)"),
        ("layer.kernel.inv_dt", torch.zeros(5, 1), ValueError, r"layer.kernel.inv_dt is a \(5, 1\)"),
        ("layer.kernel.inv_dt", torch.zeros(4, 3), ValueError, r"layer.kernel.inv_dt is a \(4, 3\).*\(4, 4\)"),
        ("layer.kernel.P", torch.zeros(1, 2, 4, 2), ValueError, r"layer.kernel.P is a \(1, 2, 4, 2\)"),
        ("layer.kernel.B", torch.zeros(4, 4, 2), ValueError, r"layer.kernel.B is a \(4, 4, 2\)"),
        ("layer.kernel.C", torch.zeros(1, 4, 4) + 0j, TypeError, r"layer.kernel.C is a \(1, 4, 4\) complex64"),
        ("layer.kernel.C", torch.zeros(3, 4, 4, 2), ValueError, r"layer.kernel.C is a \(3, 4, 4, 2\)"),
        ("layer.kernel.l_kernel", torch.tensor(-1), ValueError, "layer.kernel.l_kernel is -1"),
        ("layer.kernel.l_kernel", torch.tensor(1.5), TypeError, "layer.kernel.l_kernel is .*float32"),
        ("layer.D", [1.0, 2.0], TypeError, r"layer.D is \[1.0, 2.0\] \(list\)"),
    ],
    ids=str,
)
def test_bad_entries_are_named(name: str, value: Tensor | None, error: type[Exception], message: str) -> None:
    theirs: dict[str, Tensor] = {**as_original(S4(4, d_state=8)), name: value}  # type: ignore[dict-item]
    with pytest.raises(error, match=message):
        load_s4({key: t for key, t in theirs.items() if t is not None})
