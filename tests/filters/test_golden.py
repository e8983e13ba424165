"""The filters against numbers recorded from the original authors' code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longconv.filters import (
    dense,
    dense_filter,
    diagonal_filter,
    diagonal_init,
    dplr_filter,
    dss_filter,
    hippo,
    multiscale_filter,
    smooth,
    smooth_frequency,
    squash,
)
from longconv.filters.diagonal import discretise
from longconv.filters.dplr import discretise as dplr_discretise
from longconv.filters.free import INITS
from tests.golden import Case, cases, group, groups, skip_leaks
from tests.tolerances import assert_close

FLOAT32_PI = 2e-7
"""The recorded inits use pi in float32."""
FOURIER = 1e-7
"""The recorded P of the Fourier measure is float32."""
DSS_CANCELLATION = 1e-4
"""The recorded filters of DSS were computed in float32: a factor exp(z) - 1 with |z| down to 1e-3."""
DSS_FLOAT32 = 1e-5
"""The recorded dss filters were computed in float32, with cancellation in exp(z) - 1."""


@pytest.mark.parametrize("name", cases("s4_hippo_nplr"))
def test_nplr(name: str) -> None:
    case = Case("s4_hippo_nplr", name)
    measure, N, rank = case.meta["measure"], case.meta["N"], case.meta["rank"]
    A, B = hippo.transition(measure, N)
    assert_close(A, case["A"])
    assert_close(B, case["B"])
    Lambda, P, B, _ = hippo.nplr(measure, N, rank)
    want_P, want_B = case["noclip/P"], case["noclip/B"]
    tolerance = FOURIER if measure == "fourier" else 1e-12
    assert_close(Lambda, case["noclip/Lambda"], tolerance)
    assert_close(P.abs(), want_P.abs(), tolerance)
    assert_close(B.abs(), want_B.abs(), tolerance)
    assert_close(P.conj() * B, want_P.conj() * want_B, tolerance)


@pytest.mark.parametrize("name", cases("lssl_hippo", but="class_"))
def test_transition(name: str) -> None:
    case = Case("lssl_hippo", name)
    measure, N = case.meta["measure"], case.meta["N"]
    parameters = {key: case.meta[key] for key in ("alpha", "beta") if key in case.meta}
    A, B = hippo.transition(measure, N, **parameters)
    assert_close(A, case["A"])
    assert_close(B, case["B"])
    for rank in (1, 2):
        if f"rank_correction_r{rank}" in case:
            recorded = case[f"rank_correction_r{rank}"]
            _, P, _, V = hippo.nplr(measure, N, rank)
            P0 = 2 * (P @ V.mT).real
            assert_equal_rank_term(P0.T @ P0, recorded.double().T @ recorded.double())


def assert_equal_rank_term(got: Tensor, want: Tensor) -> None:
    """Both may be zero; the recorded P of the Fourier measures is float32."""
    assert (got - want).norm() <= 2 * FOURIER * want.norm()


@pytest.mark.parametrize("name", cases("lssl_hippo", "class_"))
def test_transition_of_the_recorded_classes(name: str) -> None:
    """The recorded Toeplitz classes hold -A^T; all are float32."""
    case = Case("lssl_hippo", name)
    measure = next(known for known in ("tlagt", "glagt", "lagt") if f"class_{known}" in name.lower())
    A, B = hippo.transition(measure, case.meta["N"], **({"beta": 0.5} if "beta05" in name else {}))
    assert_close(-A.T if "Toeplitz" in name else A, case["A"].double(), 1e-7)
    assert_close(B, case["B"].double(), 1e-7)


@pytest.mark.parametrize("init", ["legs", "lin", "inv", "inv2", "quad", "real"])
@pytest.mark.parametrize("N", [4, 16])
def test_diagonal_init(init: str, N: int) -> None:
    case = Case("s4d_init", f"{init}_N{N}")
    Lambda, B = (part[0] for part in diagonal_init(init, 1, N))
    assert_close(Lambda, case["Lambda"], FLOAT32_PI)
    assert_close(torch.where(B.real * case["B"].real < 0, -B, B), case["B"], FLOAT32_PI)  # the sign is free


DIAGONAL = cases("s4d_kernels", but="opt_")


def complex_arguments(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    Lambda, B = case["Lambda"].to(torch.complex128), case["B"].to(torch.complex128)
    return Lambda, B, case["C"], case["dt"]


@pytest.mark.parametrize("discretization", ["zoh", "bilinear", "dss"])
@pytest.mark.parametrize("name", DIAGONAL)
def test_diagonal_filter(name: str, discretization: str) -> None:
    case = Case("s4d_kernels", name)
    arguments = complex_arguments(case)
    tolerance = DSS_FLOAT32 if discretization == "dss" else 1e-11
    for length, stride in ((64, 1), (1000, 1), (16384, 16)):
        key = f"{discretization}_L{length}{'' if stride == 1 else f'_every{stride}'}/K"
        k = diagonal_filter(*arguments, length, discretization)[..., ::stride]
        assert_close(k, case[key].double(), tolerance)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("name", DIAGONAL)
def test_discretisation(name: str, discretization: str) -> None:
    case = Case("s4d_kernels", name)
    Lambda, B, _, dt = complex_arguments(case)
    log_A_bar, B_bar = discretise(Lambda, B, dt, discretization, 64)
    assert_close(log_A_bar.exp(), case[f"{discretization}/dA"])
    assert_close(B_bar, case[f"{discretization}/dB"])


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("name", DIAGONAL)
def test_diagonal_filter_twice_the_step(name: str, discretization: str) -> None:
    case = Case("s4d_kernels", name)
    Lambda, B, C, dt = complex_arguments(case)
    k = diagonal_filter(Lambda, B, C, 2 * dt, 64, discretization)
    assert_close(k, case[f"{discretization}_rate2/K_L64"], 1e-11)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
@pytest.mark.parametrize("name", DIAGONAL)
def test_diagonal_filter_gradient(name: str, discretization: str) -> None:
    """With respect to log dt, the real views of B and C, log(-Re Lambda) and -Im Lambda."""
    case = Case("s4d_kernels", name)
    Lambda, B, C, dt = complex_arguments(case)
    recorded = case.group(f"{discretization}_grad")
    leaves = {
        "inv_dt": dt.log()[:, None],
        "A_real": torch.log(-Lambda.real),
        "A_imag": -Lambda.imag,
        "B": torch.view_as_real(B)[None],
        "C": torch.view_as_real(C),
    }
    leaves = {key: leaf.clone().requires_grad_() for key, leaf in leaves.items()}
    k = diagonal_filter(
        torch.complex(-leaves["A_real"].exp(), -leaves["A_imag"]),
        torch.view_as_complex(leaves["B"])[0],
        torch.view_as_complex(leaves["C"]),
        leaves["inv_dt"].exp(),
        64,
        discretization,
    )
    (k * recorded["G"]).sum().backward()
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        tolerance = 1e-10 if recorded[key].dtype == torch.float64 else 1e-6
        assert_close(leaf.grad.reshape(recorded[key].shape), recorded[key].double(), tolerance)


@pytest.mark.parametrize("name", cases("s4d_kernels", "opt_"))
def test_diagonal_filter_options(name: str) -> None:
    case = Case("s4d_kernels", name)
    k = diagonal_filter(case["eff_Lambda"], case["eff_B"][0], case["eff_C"], case["eff_dt"], case.meta["L"])
    assert_close(k, case["K"], 1e-11)


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file in ("s5_f64", "s5_f32") for name in cases(file) if "init" in str(name)]
)
def test_s5_init(file: str, name: str) -> None:
    """The whole recorded spectrum: our half and its conjugates."""
    case = Case(file, name)
    Lambda, P, B, V = hippo.nplr("legs", case.meta["N"])
    half = case["Lambda"].imag < 0
    want = case["Lambda"][half]
    tolerance = 1e-12 if file == "s5_f64" else 1e-4  # eigenvectors found in float32
    order, ours = want.imag.argsort(), Lambda.imag.argsort()
    assert_close(Lambda[ours], want[order], tolerance)
    assert_close(B[ours].abs(), case["B"][half][order].abs(), tolerance)
    assert_close(P[0, ours].abs(), case["P"][half][order].abs(), tolerance)
    assert_close((V.mH @ case["V"].to(V.dtype)[:, half])[ours][:, order].abs(), torch.eye(len(want)), tolerance)


DENSE = {"bilinear": 0.5, "forward_euler": 0.0, "backward_euler": 1.0}


@pytest.mark.parametrize("rule", DENSE)
@pytest.mark.parametrize("name", cases("lssl_kernel", but="s4_vs"))
def test_dense_filter(name: str, rule: str) -> None:
    case, alpha = Case("lssl_kernel", name), DENSE[rule]
    A_bar, B_bar = dense.discretise(case["A"], case["B"], case["dt"], alpha)
    assert_close(A_bar, case[f"{rule}/dA"])
    assert_close(B_bar, case[f"{rule}/dB"])
    if f"{rule}/K" in case:  # not recorded where it diverges
        k = dense_filter(case["A"], case["B"], case["C"], case["dt"], case.meta["L"], alpha)
        assert_close(k, case[f"{rule}/K"], 1e-11)


@pytest.mark.parametrize("name", cases("lssl_kernel", "s4_vs"))
def test_dense_filter_is_the_recorded_s4_filter(name: str) -> None:
    """With the same real system; the recorded fout filters moved its zero eigenvalue to 1e-4."""
    case = Case("lssl_kernel", name)
    for length in (64, 1024):
        k = dense_filter(case["A"], case["B"], case["C_real"].transpose(0, 1), case["dt"], length)
        assert_close(k.transpose(0, 1), case[f"L{length}/K_dense"], 1e-11)
        assert_close(k.transpose(0, 1), case[f"L{length}/K_s4"], 1e-4 if "fout" in name else 1e-9)


@pytest.mark.parametrize("name", groups("dss", "kernel"))
def test_dss_filter(name: str) -> None:
    arrays = group("dss", name)
    variant = name.split("_")[1]
    W, log_dt = torch.view_as_complex(arrays["param/W"]), arrays["param/log_dt"]
    for length, key in ((32, "K"), (65, "K_L65")):
        k = dss_filter(arrays["Lambda"], W, log_dt, length, variant)
        assert_close(k, arrays[key], DSS_CANCELLATION)
    double = dss_filter(arrays["Lambda"].to(torch.complex128), W.to(torch.complex128), log_dt.double(), 32, variant)
    assert_close(double, arrays["K64"].double(), 2e-7)


@pytest.mark.parametrize("name", groups("dss", "hippo"))
def test_dss_init(name: str) -> None:
    """The recorded eigenvalues lack the -1/2 of a mode's decay."""
    for modes, eigenvalues in group("dss", name).items():
        Lambda, _ = diagonal_init("legs", 1, 2 * int(modes))
        want = eigenvalues[eigenvalues.imag > 0] - 0.5
        assert_close(Lambda[0].conj()[Lambda[0].imag.argsort()], want[want.imag.argsort(descending=True)], 1e-6)


DPLR = [name for name in cases("s4_kernels") if "_N" in name]


System = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def dplr_arguments(case: Case) -> System:
    return case["Lambda"], case["P"], case["B"], case["C"], case["dt"]


def in_float32(system: System) -> System:
    Lambda, P, B, C, dt = system
    Lambda, P, B, C = (part.to(torch.complex64) for part in (Lambda, P, B, C))
    return Lambda, P, B, C, dt.float()


def in_float64(system: System) -> System:
    Lambda, P, B, C, dt = system
    Lambda, P, B, C = (part.to(torch.complex128) for part in (Lambda, P, B, C))
    return Lambda, P, B, C, dt.double()


@pytest.mark.parametrize("name", DPLR)
def test_dplr_filter(name: str) -> None:
    """In float64 to the recorded powers of the dense matrix; in float32 to its own float64."""
    case = Case("s4_kernels", name)
    narrow = in_float32(dplr_arguments(case))
    wide = in_float64(narrow)
    for length in case.meta["L"]:
        k = dplr_filter(*dplr_arguments(case), length)
        if f"L{length}/K_dense_f64" in case:
            assert_close(k, case[f"L{length}/K_dense_f64"])
            assert_close(k, case[f"L{length}/K_f64"], 1e-10)
        else:
            assert_close(k[..., ::16], case[f"L{length}/K_dense_f64_every16"])
            ends = [case[f"L{length}/K_f64_{end}"] for end in ("first1024", "last1024")]
            assert_close(torch.cat([k[..., :1024], k[..., -1024:]], -1), torch.cat(ends, -1), 1e-10)
        assert_close(dplr_filter(*narrow, length), dplr_filter(*wide, length), 1e-6)


@pytest.mark.parametrize("name", DPLR)
def test_dplr_discretisation(name: str) -> None:
    """The recorded matrix acts on the modes and their conjugates: its upper half is ours."""
    case = Case("s4_kernels", name)
    Lambda, P, B, _, dt = dplr_arguments(case)
    system = dplr_discretise(Lambda, P, B, dt)
    half = torch.diag_embed(system.A) + torch.einsum("rhn,rhm->hnm", system.left, system.right) / 2
    other = torch.einsum("rhn,rhm->hnm", system.left, system.right.conj()) / 2
    assert_close(torch.cat([half, other], -1), case["dA_dense"][:, : half.shape[1]])
    assert_close(system.B, case["dB_dense"][:, : half.shape[1]])


@pytest.mark.parametrize("name", cases("lssl_kernel", "s4_vs_dense"))
def test_dplr_filter_is_the_dense_filter(name: str) -> None:
    """With the recorded normal plus low rank form, and with ours; the recorded Fourier form is float32."""
    case = Case("lssl_kernel", name)
    N, dt, real = case.meta["N"], case["dt"], case["C_real"]
    H, tolerance = dt.shape[0], 1e-5 if "fout" in name else 1e-10
    recorded = [case[key] for key in ("Lambda", "P", "B_nplr", "C_complex")]
    *ours, V = hippo.nplr(case.meta["measure"], N, recorded[1].shape[0])
    for (Lambda, P, B, C), bound in ((recorded, tolerance), ([*ours, real.to(V.dtype) @ V], 1e-10)):
        for length in (64, 1024):
            k = dplr_filter(Lambda.expand(H, -1), P[:, None].expand(-1, H, -1), B.expand(H, -1), C, dt, length)
            assert_close(k, case[f"L{length}/K_dense"], bound)


def multiscale_mode(recorded: str) -> str:
    found = [mode for mode in ("nearest", "sum", "cos", "learnable") if mode in recorded]
    return found[0] if found else "linear"


@pytest.mark.parametrize("name", cases("sgconv"))
def test_multiscale_filter(name: str) -> None:
    case = Case("sgconv", name)
    before, after = case.group("state_dict_before"), case.group("state_dict_after")
    weights = [before[f"kernel_list.{i}"] for i in range(case.meta["num_scales"])]
    decay = before.get("decay", before["multiplier"].flatten())
    mode = multiscale_mode(case.meta.get("mode", "linear"))
    tolerance = 1e-6 if weights[0].dtype == torch.float32 else 1e-12
    for norm in (None, after["kernel_norm"]):
        init_scale = case.meta.get("init_scale", 0)
        k = multiscale_filter(weights, case.meta["L_input"], decay, mode, norm, init_scale=init_scale)
        if len(k) > len(before["D"]):  # both directions in one, as their FFT takes it
            forward, backward = k.chunk(2)
            k = torch.cat([forward, backward.flip(-1)], -1)
        assert_close(k, case["k"], tolerance)


@pytest.mark.parametrize("name", cases("longconv_kernel", but="init"))
def test_free_filter(name: str) -> None:
    case = Case("longconv_kernel", name)
    skip_leaks(case)
    kernel = case["kernel"].requires_grad_()
    k: Tensor = kernel
    if case.meta.get("use_ma_smoothing"):
        smoothing = smooth_frequency if case.meta.get("smooth_freq") else smooth
        k = smoothing(kernel, case.meta.get("ma_window_len", 7))
    k = squash(k, case.meta["lam"])
    (k * case["G"]).sum().backward()
    assert kernel.grad is not None
    window_in_float32 = 1e-6 if case.meta.get("smooth_freq") else None
    assert_close(k, case["K"], window_in_float32)
    assert_close(kernel.grad, case["grad_kernel"], window_in_float32)


@pytest.mark.parametrize("name", cases("longconv_kernel", "init_"))
def test_free_filter_init(name: str) -> None:
    """0.002 draws, or 0.02 draws times the recorded envelope: the recorded numbers, and ours."""
    case = Case("longconv_kernel", name)
    init = case.meta["weight_init"]
    sizes = case["kernel"].shape
    torch.manual_seed(0)
    ours = INITS[init](*sizes)
    torch.manual_seed(0)
    draws = torch.randn(sizes)
    if init == "double_exp":
        assert_close(case["randn_times_0p02"] * case["envelope"], case["kernel"], 1e-6)
        assert_close(ours, 0.02 * draws * case["envelope"], 1e-6)
    else:
        assert_close(ours, 0.002 * draws, 1e-6)
        assert_close(case["kernel"].std(), torch.tensor(0.002), 0.1)
