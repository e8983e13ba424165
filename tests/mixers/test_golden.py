"""State spaces against layers recorded from the original authors' code: outputs, gradients, steps and states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longconv import create_mixer
from longconv.mixers import LSSL, S5
from longconv.mixers.base import FilterMixer
from longconv.mixers.s5 import ssm
from longconv.models import Block, Residual
from tests.golden import Case, cases, group, groups, settings
from tests.mixers.recorded import FORWARD, Names, check_layer, linear_weight, load, same
from tests.tolerances import assert_close

S4D_NAMES: Names = {
    "D": ("layer.D", same),
    "taps.log_dt": ("layer.kernel.inv_dt", lambda p: p[:, 0]),
    "taps.log_decay": ("layer.kernel.A_real", same),
    "taps.frequency": ("layer.kernel.A_imag", torch.neg),
    "taps.B": ("layer.kernel.B", lambda p: p[0]),
    "taps.C": ("layer.kernel.C", same),
    "output.0.weight": ("output_linear.0.weight", linear_weight),
    "output.0.bias": ("output_linear.0.bias", same),
}
MINIMAL_S4D_NAMES: Names = {
    "D": ("D", lambda p: p[None]),
    "taps.log_dt": ("kernel.log_dt", same),
    "taps.log_decay": ("kernel.log_A_real", same),
    "taps.frequency": ("kernel.A_imag", same),
    "taps.C": ("kernel.C", lambda p: p[None]),
    "output.0.weight": ("output_linear.0.weight", linear_weight),
    "output.0.bias": ("output_linear.0.bias", same),
}


@pytest.mark.parametrize("name", cases("s4d_layer", but="minimal"))
def test_s4d(name: str) -> None:
    case = Case("s4d_layer", name)
    recorded = case.group("state_dict")
    bidirectional = bool(case.meta.get("bidirectional"))
    mixer = create_mixer(
        "s4d",
        case.meta["d_model"],
        d_state=2 * recorded["layer.kernel.A_real"].shape[1],
        channels=recorded["layer.D"].shape[0],
        bidirectional=bidirectional,
        discretization=case.meta.get("disc", "zoh"),
    )
    dtype = case["u"].dtype
    load(mixer, S4D_NAMES, recorded, dtype)
    assert_close(mixer.filter(case["K"].shape[-1]), case["K"], FORWARD[dtype])
    u = check_layer(mixer, case, S4D_NAMES, transposed=True)
    if "y_step" in case:
        state = mixer.init_state(u.shape[0])
        outputs = []
        with torch.no_grad():
            for u_t in u.unbind(1):
                y_t, state = mixer.step(u_t, state)
                outputs.append(y_t)
        assert_close(torch.stack(outputs, 2), case["y_step"], FORWARD[dtype])
        assert_close(state.x, case["state_final"], FORWARD[dtype])


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("name", cases("s4d_kernels", but="opt_"))
def test_s4d_at_twice_the_step(name: str, discretization: str) -> None:
    """The recorded rate 2, of a mixer with the recorded system."""
    case = Case("s4d_kernels", name)
    C, H, P = case["C"].shape
    options = {"discretization": discretization, "channels": C, "output": "linear"}
    mixer = create_mixer("s4d", H, d_state=2 * P, **options).double()
    Lambda = case["Lambda"].to(torch.complex128).expand(H, P)
    recorded = {
        "taps.log_dt": case["dt"].double().log(),
        "taps.log_decay": torch.log(-Lambda.real),
        "taps.frequency": Lambda.imag,
        "taps.B": torch.view_as_real(case["B"].to(torch.complex128).expand(H, P).resolve_conj()),
        "taps.C": torch.view_as_real(case["C"].to(torch.complex128)),
    }
    assert isinstance(mixer, FilterMixer)
    mixer.load_state_dict(recorded, strict=False)
    assert_close(mixer.filter(64, rate=2.0), case[f"{discretization}_rate2/K_L64"], 1e-11)


@pytest.mark.parametrize("name", cases("s4d_layer", "minimal"))
def test_minimal_s4d(name: str) -> None:
    case = Case("s4d_layer", name)
    mixer = create_mixer("s4d", case.meta["d_model"], d_state=case.meta["d_state"])
    dtype = case["u"].dtype
    load(mixer, MINIMAL_S4D_NAMES, case.group("state_dict"), dtype)
    assert_close(mixer.filter(case["K"].shape[-1])[0], case["K"], FORWARD[dtype])
    check_layer(mixer, case, MINIMAL_S4D_NAMES, transposed=True)


@pytest.mark.parametrize("name", cases("s4d_kernels", but="opt_"))
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_s4d_state(name: str, discretization: str) -> None:
    """The state after a chunk, and what the state before it adds to the output, step by step and in one."""
    case = Case("s4d_kernels", name)
    C, H, P = case["C"].shape
    mixer = create_mixer(
        "s4d", H, d_state=2 * P, channels=C, discretization=discretization, activation=None, output=None
    ).double()
    recorded = {
        "layer.D": torch.zeros(C, H),
        "layer.kernel.inv_dt": case["dt"].log()[:, None],
        "layer.kernel.A_real": torch.log(-case["Lambda"].real.double()),
        "layer.kernel.A_imag": -case["Lambda"].imag.double(),
        "layer.kernel.B": torch.view_as_real(case["B"].to(torch.complex128))[None],
        "layer.kernel.C": torch.view_as_real(case["C"]),
    }
    load(mixer, S4D_NAMES, recorded, torch.float64)
    u = case["state_u"].mT
    start = mixer.init_state(u.shape[0])._replace(x=case["state_in"])
    with torch.no_grad():
        y, state = mixer.prefill(u, start)
        assert_close(y - mixer(u), case[f"{discretization}_state/K_state"][:, 0].mT, 1e-11)
        assert_close(state.x, case[f"{discretization}_state/next_state"], 1e-11)
        stepped = start
        for u_t in u.unbind(1):
            _, stepped = mixer.step(u_t, stepped)
        assert_close(stepped.x, case[f"{discretization}_state/next_state"], 1e-11)


@pytest.mark.parametrize("name", cases("lssl_layer"))
def test_lssl(name: str) -> None:
    case = Case("lssl_layer", name)
    recorded = case.group("state_dict")
    H, M, N = recorded["C"].shape
    mixer = LSSL(H, d_state=N, channels=M)
    weight = recorded["output_linear.weight"].unflatten(1, (H, M)).transpose(1, 2).flatten(1)  # (h m) -> (m h)
    state = {
        "D": recorded["D"].T,
        "taps.A": case["A"],
        "taps.B": case["B"],
        "taps.C": recorded["C"],
        "taps.log_dt": recorded["log_dt"],
        "output.weight": weight,
        "output.bias": recorded["output_linear.bias"],
    }
    mixer.load_state_dict(state)
    A_bar, B_bar, _ = mixer.taps.discretised()
    assert_close(A_bar, case["dA"].double(), FORWARD[torch.float32])
    assert_close(B_bar, case["dB"].double(), FORWARD[torch.float32])
    assert_close(mixer.filter(case.meta["L"]).transpose(0, 1), case["K"], FORWARD[torch.float32])
    u = case["u"]
    assert_close(mixer(u), case["y"], FORWARD[torch.float32])
    with torch.no_grad():
        start, rest = mixer.prefill(u[:, :40])
        assert_close(start, case["y"][:, :40], FORWARD[torch.float32])
        for t in range(40, case.meta["L"]):
            y_t, rest = mixer.step(u[:, t], rest)
            assert_close(y_t, case["y"][:, t], FORWARD[torch.float32])


@pytest.mark.parametrize("name", groups("dss", "layer"))
def test_dss(name: str) -> None:
    """The recorded layers are in float32, with cancellation in exp(z) - 1."""
    arrays, given = group("dss", name), settings("dss", name)
    parameter = {key.removeprefix("param/"): value for key, value in arrays.items() if key.startswith("param/")}
    C, H = parameter["D"].shape
    glu = parameter["output_linear.weight" if "output_linear.weight" in parameter else "output_linear.0.weight"]
    mixer = create_mixer(
        "dss",
        H,
        d_state=2 * parameter["kernel.W"].shape[2],
        channels=C,
        bidirectional=given.get("bidirectional", False),
        l_max=given["L"],
        output="glu" if glu.shape[0] == 2 * H else "linear",
    )
    state = {"D": parameter["D"], **{f"taps.{key}": parameter[f"kernel.{key}"] for key in ("Lambda", "W", "log_dt")}}
    for key, value in parameter.items():
        if key.startswith("output_linear"):
            weight = key.endswith("weight")
            state[key.replace("output_linear", "output")] = value.flatten(1) if weight else value.flatten()
    mixer.load_state_dict(state)
    assert_close(mixer.filter(given["L"]), arrays["K"], 1e-4)
    u = arrays["u"].mT
    assert_close(mixer(u), arrays["y"].mT, 1e-5)


S5_FLOAT32 = 2e-6
"""The recorded float32 powers carry the rounding of Lambda_bar."""


def s5_state(recorded: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Our parameters of the system from the recorded ones."""
    part = {key.removeprefix(prefix): value for key, value in recorded.items() if key.startswith(prefix)}
    C = part["C"] if "C" in part else torch.cat([part["C1"], part["C2"]], 1)
    state = {
        "D": part["D"][None],
        "taps.Lambda": torch.stack([part["Lambda_re"], part["Lambda_im"]], -1),
        "taps.B": part["B"],
        "taps.C": C,
    }
    return state | ({"taps.log_dt": part["log_step"][:, 0]} if "log_step" in part else {})


S5_FILES = ("s5_f64", "s5_f32")


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in S5_FILES for name in cases(file, but=("init", "layer"))]
)
def test_s5(file: str, name: str) -> None:
    """System, output, final state and gradients."""
    case = Case(file, name)
    meta, recorded = case.meta, case.group("params")
    bidirectional = meta.get("bidirectional", False)
    mixer = S5(
        meta["H"],
        d_state=meta["ssm_size"],
        blocks=meta["blocks"],
        discretization=meta.get("disc", "zoh"),
        conj_sym=meta["conj_factor"] == 2,
        bidirectional=bidirectional,
        clip=bool(meta.get("clip_eigs", "clip" in name)),
        activation=None,
        output=None,
    )
    u = case["x"].requires_grad_()
    mixer.to(u.dtype).load_state_dict(s5_state(recorded))
    Lambda_bar, B_bar, C = mixer.taps.discretised()
    exact = u.dtype == torch.float64
    for got, key in ((Lambda_bar, "Lambda_bar"), (B_bar, "B_bar"), (C, "C_tilde")):
        assert_close(got, case[key].to(torch.complex128), 1e-13 if exact else S5_FLOAT32)
    y, final = ssm(u, Lambda_bar, B_bar, C, mixer.D[0], None, mixer.taps.conj_sym, bidirectional)
    assert_close(y, case["y"], FORWARD[u.dtype] if exact else S5_FLOAT32)
    assert_close(final, case["state_last"], FORWARD[u.dtype] if exact else S5_FLOAT32)
    (mixer(u) * case["G"]).sum().backward()
    gradients = s5_state(case.group("grad")) | {"u": case["grad_x"]}
    gradients["taps.log_dt"] = case["grad/log_step"][:, 0]
    parameters = dict(mixer.named_parameters()) | {"u": u}
    assert set(gradients) == set(parameters)
    for key, want in gradients.items():
        grad = parameters[key].grad
        assert grad is not None
        assert_close(grad, want, 1e-11 if exact else 2e-5)


@pytest.mark.parametrize("name", cases("s5_f64", "layer"))
def test_s5_layer(name: str) -> None:
    """The whole residual layer, from the parts of longconv.models."""
    case = Case("s5_f64", name)
    meta, recorded = case.meta, case.group("params")
    activation = meta["activation"]
    output = {"full_glu": "glu", "gelu": None}.get(activation, activation)
    mixer = S5(meta["H"], d_state=meta["ssm_size"], blocks=meta["blocks"], output=output).double()
    state = s5_state(recorded, "seq.")
    if output == "glu":
        outs = [recorded["out1.kernel"].T, recorded["out2.kernel"].T]
        biases = [recorded["out1.bias"], recorded["out2.bias"]]
        state |= {"output.0.weight": torch.cat(outs), "output.0.bias": torch.cat(biases)}
    elif output is not None:
        state |= {"output.gate.weight": recorded["out2.kernel"].T, "output.gate.bias": recorded["out2.bias"]}
    mixer.load_state_dict(state)
    residual = Residual(
        meta["H"],
        norm="batch" if meta["batchnorm"] else "layer",
        prenorm=meta["prenorm"],
        dropout=0,
        tie_dropout=False,
        drop_path=0,
        norm_eps=None if meta["batchnorm"] else 1e-6,
    )
    assert isinstance(residual.norm, torch.nn.LayerNorm), "the recorded layers of this folder have LayerNorms"
    residual.norm.load_state_dict({"weight": recorded["norm.scale"], "bias": recorded["norm.bias"]})
    block = Block(mixer, residual).double().eval()
    assert_close(block(case["x"]), case["y"], 1e-7)  # the recorded dense layers have float32 parameters
