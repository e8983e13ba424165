"""The cases: their sizes by hand, which there are, what they solve, and the peers that they are set beside."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import re
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import longconv
from bench import peers
from bench.case import OURS, Work
from bench.cases import CASES, fft_conv, gpu, quick, scan, select, short_conv
from bench.measure import errors, least_bytes
from bench.run import make, run
from longconv.ops.sparse_fft_conv.blocks import next_smooth


def test_operations_by_hand() -> None:
    """Real FFTs of 16 numbers: 5/2 * 16 * 4 each; u, k and y of 3 rows of 2 channels, and products at 6 operations."""
    assert fft_conv.flops(3, 2, 8, backward=False) == (6 + 6 + 2) * 160 + 6 * 6 * 8
    assert fft_conv.flops(3, 2, 8, backward=True) == 2 * (6 + 6 + 2) * 160 + 3 * 6 * 6 * 8
    assert fft_conv.flops(3, 2, 8, backward=False, kind="circular") == (6 + 6 + 2) * 60 + 6 * 6 * 4
    assert short_conv.work(3, 2, 8, taps=4, backward=False) == Work(2.0 * 3 * 2 * 8 * 4, 6, 8)
    assert CASES["vandermonde/256x32x1024/forward"].make().work == Work(4.0 * 256 * 32 * 1024, 256, 1024)
    assert CASES["cauchy/256x32x256/both"].make().work == Work(38.0 * 256 * 32 * 256, 256, 256)
    assert CASES["transpose/8x256x256/float32/both"].make().work == Work(0.0, 8 * 256, 256)
    # Of each mode: A x, Re right x and left times it, Re C x; of a step B u too, and two steps are made.
    assert CASES["state_space_taps/64x32x1024/forward"].make().work == Work(
        (6 + 4 + 4 + 4) * 64.0 * 32 * 1024, 64, 1024
    )
    assert CASES["state_space_step/1x256x32/forward"].make().work == Work(2 * (6 + 4 + 4 + 4 + 4) * 256.0 * 32, 256, 2)
    assert scan.flops(2, 8, 3, torch.float32, backward=False) == 2 * 2 * 8 * 3
    assert scan.flops(2, 8, 3, torch.complex64, backward=True) == (8 + 8 + 6) * 2 * 8 * 3


def test_bytes_of_cases_by_hand() -> None:
    """In and out once; of a step what it reads and the output alone."""
    assert least_bytes(CASES["transpose/8x256x256/float32/forward"].make()) == 2 * 4 * 8 * 256 * 256
    assert least_bytes(CASES["linear_scan/8x256x256/float32/forward"].make()) == 3 * 4 * 8 * 256 * 256
    systems = 16 * 256 * 32 * 5
    assert least_bytes(CASES["state_space_step/1x256x32/forward"].make()) == systems + 8 * 256 * 32 + 2 * 4 * 256


def test_selection() -> None:
    assert len(select([])) == len(CASES)
    assert {case.name.split("/")[0] for case in select(["cauchy", "linear_scan"])} == {"cauchy", "linear_scan"}
    assert len(select(["fft_conv/8x256x1024/both", "fft_conv/8x256x1024/*"])) == 2
    with pytest.raises(ValueError, match="no case fits 'fft'"):
        select(["fft"])


def test_quick_is_one_case_of_every_kind() -> None:
    assert {case.name.split("/")[0] for case in quick()} == {name.split("/")[0] for name in CASES}
    assert len(quick()) < len(CASES) / 3


def test_next_smooth() -> None:
    assert [next_smooth(n) for n in (1, 7, 11, 121, 2 * 99991)] == [1, 8, 12, 125, 200000]


SMALLEST = [
    "fft_conv/2x1039x1009/both",
    "fft_conv_gated/8x256x1024/both",
    "fft_conv_two_sided/8x256x1024/forward",
    "fft_conv_circular/8x256x1024/both",
    "fft_conv_per_sample/8x256x4096/forward",
    "fft_conv_partial/8x256x4096/both",
    "fft_conv_channels_last/8x256x1024/both",
    "fft_conv_bfloat16/8x256x4096/both",
    "fft_conv_float16/8x256x4096/forward",
    "fft_conv_float64/8x256x4096/both",
    "fft_conv_short/8x256x1024/K16/both",
    "sparse_fft_conv/8x256x4096/monarch-1-4/both",
    "short_conv/8x256x4096/K3/both",
    "short_conv/8x256x4096/K4-bias-silu/both",
    "vandermonde/256x32x1024/both",
    "cauchy/256x32x1024/both",
    "dense_taps/64x32x1024/both",
    "vandermonde_log/256x32x256/both",
    "state_space_taps/64x32x1024/both",
    "state_space_step/1x256x32/both",
    "linear_scan/8x256x256/float32/both",
    "linear_scan/4x256x4096/float32-constant-last/forward",
    "transpose/8x4096x256/bfloat16/both",
    "butterfly_conv/8x256x1024/both",
    "butterfly_conv_trained/8x256x1024/both",
    "calls/fft_conv/plainx100",
    "calls/cauchy/recordingx100",
    "mixers/s4d/both",
    "mixers/s4/train",
    "mixers/conv_s5/both",
    "mixers/conv_s5/train",
    "mixers/conv_s5/prefill",
    "mixers/conv_s5/step",
    "models/hyena/convolutions",
    "mixers/hyena/prefill",
    "mixers/dss/step",
    "models/s4d/both",
    "loaders/pathfinder32/batch",
    "drawing/128x128/100",
    "scaling-L/2x64x256/both",
    "scaling-B/1x64x4096/both",
    "scaling-H/2x16x4096/both",
    "scaling-N/64x4x4096/both",
    "distributed/neighbours/P2/1x64x65536/K8192/forward",
]


def test_one_case_of_every_group_is_checked() -> None:
    assert {name.split("/")[0] for name in SMALLEST} == {
        n.split("/")[0] for n, case in CASES.items() if not case.device
    }


@pytest.mark.parametrize("kind", ["causal", "circular", "partial"])
def test_cases_of_a_gpu_solve_what_their_peers_solve(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, by its backends; FlashFFTConv is called as it is documented."""

    class Flash(torch.nn.Module):
        """Sizes of transforms, and gates after the filter."""

        def __init__(self, size: int, dtype: torch.dtype) -> None:
            super().__init__()
            self.size = size

        def cuda(self, device: Any = None) -> Flash:
            return self

        def forward(self, u: Tensor, k: Tensor, pregate: Tensor, postgate: Tensor) -> Tensor:
            assert u.dtype == torch.float16 and k.dtype == torch.float32
            y = torch.fft.irfft(
                torch.fft.rfft((u * pregate).float(), n=self.size) * torch.fft.rfft(k, n=self.size), n=self.size
            )
            return y[..., : u.shape[-1]].half() * postgate

    fake(monkeypatch, "flashfftconv", FlashFFTConv=Flash)
    it = gpu.problem(2, 32, 256, kind, True, backends=("cpu", "torch"))
    found, refused = errors(it)
    assert found.keys() == {OURS, "longconv torch", "torch rfft", "flashfftconv"} and not refused


def test_cases_of_a_gpu_are_left_out_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert not run(select(["fft_conv_gpu"]), seconds=0.0)
    assert "left out, they need --device cuda: 90 cases" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_cases_solve_what_their_peers_solve(name: str) -> None:
    it = CASES[name].make()
    sides = {name: solve for name, solve in it.sides.items() if name != "keops"}
    found, refused = errors(dataclasses.replace(it, inputs=it.sample or it.inputs, sides=sides, sample=()))
    assert found[OURS] < it.tolerance
    assert not refused


def test_every_operator_has_cases() -> None:
    groups = {name.split("/")[0] for name in CASES}
    assert set(longconv.ops.__all__) <= groups


def test_every_power_of_two_from_256_to_4m_has_cases() -> None:
    lengths = {int(name.split("/")[1].split("x")[-1]) for name in CASES if name.startswith("fft_conv/")}
    assert {1 << n for n in range(8, 23)} <= lengths


def test_every_mixer_is_trained_prompted_and_stepped() -> None:
    for name in (*longconv.list_mixers(), "multi_hyena"):
        assert all(f"mixers/{name}/{what}" in CASES for what in ("forward", "both", "train", "prefill", "step"))


WITHOUT_VIEWS = (
    r"(?!.*(partial|[-_]last))(fft_conv|short_conv|vandermonde|cauchy|dense_taps|state_space|linear_scan|scaling)"
)
"""The cases whose tensors a torch without CUDA lets stand for those of a GPU: made by factories alone."""


@pytest.mark.parametrize("name", [name for name in SMALLEST if re.match(WITHOUT_VIEWS, name)])
def test_cases_are_made_on_the_device(name: str) -> None:
    """Of tensors that stand for those of a GPU, and may not be mixed with the CPU's; torch says no more without one."""
    with FakeTensorMode(), torch.no_grad():
        it = make(CASES[name], torch.device("cuda"))
        inputs = it.sample or it.inputs
        assert {t.device.type for t in (*inputs, *it.inputs)} == {"cuda"}
        assert it.installed[OURS](*inputs).device.type == "cuda"


def fake(monkeypatch: pytest.MonkeyPatch, name: str, *, cpu: bool = True, **functions: Any) -> None:
    """A package that is importable while a test runs, and with ``cpu`` takes tensors of the CPU."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)
    if cpu:
        monkeypatch.setattr(peers, "needs_cuda", lambda tensor: False)


def test_cudnn_and_subquadratic_ops_are_called_as_they_are_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long filters: y[t] = sum_j x[t - j] weight[j]; short ones: the first weight meets the oldest sample."""
    assert peers.cudnn_fft_conv() is None and peers.cudnn_causal_conv1d() is None

    def long(x: Tensor, weight: Tensor) -> Tensor:
        assert x.dtype == weight.dtype
        return fft_conv.padded(x, weight)

    def short(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "identity") -> Tensor:
        y = short_conv.usual(x, weight) + (0 if bias is None else bias[:, None])
        return torch.nn.functional.silu(y) if activation == "silu" else y

    other = "subquadratic_ops_torch"
    for module in ("cudnn", "cudnn.ops", other, f"{other}.fft_causal_conv1d", f"{other}.causal_conv1d"):
        fake(monkeypatch, module, fft_causal_conv1d=long, causal_conv1d=short)
    shape = "short_conv/8x256x4096"
    for name in ("fft_conv/8x256x256/both", f"{shape}/K3/forward", f"{shape}/K4-bias-silu/both"):
        it = make(CASES[name], torch.device("cpu"))
        found, refused = errors(dataclasses.replace(it, inputs=it.sample, sample=()))
        assert "cudnn" in found and not refused
        assert ("subquadratic-ops" in found) == ("silu" not in name)


def test_mamba_scans_what_is_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its definition: h_t = exp(delta A) h_{t-1} + delta B u_t, y_t = C h_t."""
    assert peers.mamba_scan() is None

    def selective(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        h, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
        for t in range(u.shape[2]):
            step = delta[:, :, t, None]
            h = (step * A).exp() * h + step * B * u[:, :, t, None]
            outputs.append((h * C).sum(-1))
        return torch.stack(outputs, -1)

    fake(monkeypatch, "mamba_ssm")
    fake(monkeypatch, "mamba_ssm.ops.selective_scan_interface", selective_scan_fn=selective)
    it = scan.problem(2, 64, 3, torch.float32, False, True, dim=2)
    found, refused = errors(it)
    assert found["mamba-ssm"] < 1e-5 and not refused


def test_kernels_of_a_gpu_are_refused_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "cudnn", cpu=False)
    it = make(CASES["fft_conv/8x256x256/forward"], torch.device("cpu"))
    assert errors(it)[1] == {"cudnn": "NotImplementedError: it runs on CUDA alone"}


def test_jax_has_the_gradients_of_torch() -> None:
    pytest.importorskip("jax")
    for name, length in (("fft_conv", 100), ("scan", 32)):
        it = (fft_conv.problem(2, 3, length, True) if name == "fft_conv"
              else scan.problem(2, length, 3, torch.complex64, True, True))  # fmt: skip
        found, refused = errors(it)
        assert found["jax"] < 1e-6 and not refused
