"""Every exchange on the backends of torch.distributed, in a program of one rank, as NCCL wants a GPU for each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, torch
import torch.distributed as dist
import longconv
from longconv import distributed
from longconv.distributed import average_gradients, sequence_parallel
from tests.tolerances import SHARDED_RELATIVE_L2, assert_close

backend, device = sys.argv[1], torch.device(sys.argv[3], 0 if sys.argv[3] == "cuda" else None)
dist.init_process_group(backend, store=dist.FileStore(sys.argv[2], 1), rank=0, world_size=1)
u, k = torch.randn(2, 3, 50, device=device, requires_grad=True), torch.randn(3, 20, device=device)
lengths, tolerance = torch.tensor([50, 7], device=device), SHARDED_RELATIVE_L2[torch.float32]
want = longconv.fft_conv(u, k, lengths=lengths, backend="reference")
(du,) = torch.autograd.grad(want.square().sum(), u)
for method in ("channels", "neighbours", "four_step"):
    for filters in ("whole", "sharded"):
        y = distributed.fft_conv(u, k, lengths=lengths, filters=filters, method=method)
        assert_close(y, want, tolerance)
        assert_close(torch.autograd.grad(y.square().sum(), u)[0], du, tolerance)
scan = torch.randn(2, 50, 3, device=device, dtype=torch.complex64), torch.tensor(0.5, device=device)
assert_close(distributed.linear_scan(*scan[::-1]), longconv.ops.linear_scan(*scan[::-1]), tolerance)
assert_close(distributed.short_conv(u, k[:, :4]), longconv.ops.short_conv(u, k[:, :4]), tolerance)
for name, options in (("orchid", {"causal": False}), ("s5", {"d_state": 8}), ("hyena", {})):
    torch.manual_seed(0)
    mixer = longconv.create_mixer(name, 4, **options).to(device)
    x = torch.randn(2, 30, 4, device=device)
    want = mixer(x)
    with sequence_parallel():
        y = mixer(x)
        y.square().sum().backward()
    assert_close(y, want, 1e-5)
    average_gradients(mixer)
try:
    distributed.fft_conv(u, k[:2])
except ValueError as error:
    print(error)
dist.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("backend", "device"),
    [
        ("gloo", "cpu"),
        ("cpu:gloo,cuda:gloo", "cpu"),
        pytest.param("nccl", "cuda", marks=pytest.mark.gpu),
        pytest.param("cpu:gloo,cuda:nccl", "cuda", marks=pytest.mark.gpu),
    ],
)
def test_it_serves(backend: str, device: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, backend, str(tmp_path / "store"), device]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("k is a (2, 20) float32 tensor, expected shape (H, K) = (3, any)")
