"""``fft_conv`` against vectors recorded from the reference functions of the original authors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from longconv.ops import fft_conv
from tests import golden
from tests.tolerances import assert_close

FILES = [f"fftconv_L{n}" for n in (1, 2, 7, 256, 1000, 4096)]


@pytest.mark.parametrize(("file", "name"), [(f, name) for f in FILES for name in golden.cases(f, but="skip")])
def test_convolution(file: str, name: str) -> None:
    """Against the direct float64 sum in float64 and float32, gradients included, and the float32 reference."""
    case, mode = golden.Case(file, name), "circular" if name.startswith("circular") else "causal"
    for dtype in (torch.float64, torch.float32):
        names = {"u": "u", "k": "k", "pregate": "pre_gate", "postgate": "post_gate"}
        call = {ours: case[theirs].to(dtype).requires_grad_() for theirs, ours in names.items() if theirs in case}
        y = fft_conv(call["u"], call["k"], pre_gate=call.get("pre_gate"), post_gate=call.get("post_gate"), mode=mode)
        assert_close(y, case["y_f64"])
        assert_close(y, case["y_ref_f32"], 2e-6)
        grads = torch.autograd.grad(y, list(call.values()), case["dy"].to(dtype))
        for theirs, grad in zip([n for n in names if n in case], grads, strict=True):
            assert_close(grad, case[f"d{theirs}_f64"])
    for dtype, key in ((torch.float16, "y_fp16_input_as_f32"), (torch.bfloat16, "y_bf16_input_as_f32")):
        if key in case:
            assert_close(fft_conv(case["u"].to(dtype), case["k"].to(dtype), mode=mode), case[key])


@pytest.mark.parametrize(("file", "name"), [(f, name) for f in FILES for name in golden.cases(f, "skip")])
def test_skip_and_reverse(file: str, name: str) -> None:
    """The reference counts lag zero in both filters; ours counts it in k."""
    case = golden.Case(file, name)
    call = {n: case[n].double().requires_grad_() for n in ("u", "k", "D", "k_rev") if n in case}
    k, k_reverse = call["k"], call.get("k_rev")
    if k_reverse is not None:
        k = k + F.pad(k_reverse[:, :1], (0, k.shape[-1] - 1))
        k_reverse = k_reverse[:, 1:]
    y = fft_conv(call["u"], k, k_reverse=k_reverse, skip=call["D"])
    y = F.gelu(y) if "gelu" in name else y
    assert_close(y, case["y"])
    for key, grad in zip(call, torch.autograd.grad(y, list(call.values()), case["dy"].double()), strict=True):
        assert_close(grad, case[f"d{key}"])
