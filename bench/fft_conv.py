"""``python -m bench.fft_conv``: ``longconv.fft_conv`` beside the FFT convolution that users write in torch.

Both run interleaved in one process on the same data, the filter's spectrum included, forward and forward + backward;
times are medians. A result that is off is refused instead of timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import longconv

SHAPES = [
    (32, 64, 256),
    (50, 64, 784),
    (1, 768, 1024),
    (8, 256, 1024),
    (8, 256, 4096),
    (4, 256, 16384),
    (1, 256, 65536),
]
REPEATS = 9
TOLERANCE = 1e-5
Convolve = Callable[[Tensor, Tensor], Tensor]


def rfft(u: Tensor, k: Tensor) -> Tensor:
    """The usual way: real FFTs of twice the length."""
    n = 2 * u.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u, n=n) * torch.fft.rfft(k, n=n), n=n)[..., : u.shape[-1]]


SIDES: dict[str, Convolve] = {"torch": rfft, "longconv": longconv.fft_conv}


def seconds(convolve: Convolve, u: Tensor, k: Tensor, dy: Tensor | None) -> float:
    """Wall time of one call, with its gradients where ``dy`` is given, the device idle before and after."""
    synchronize = torch.cuda.synchronize if u.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    with torch.set_grad_enabled(dy is not None):
        y = convolve(u, k)
        if dy is not None:
            torch.autograd.grad(y, (u, k), dy)
    synchronize()
    return time.perf_counter() - start


def measure(batch: int, channels: int, length: int, device: torch.device, backward: bool) -> dict[str, float]:
    """Median seconds of every side; a RuntimeError for one whose result is off."""
    u = torch.randn(batch, channels, length, device=device, requires_grad=True)
    k = torch.randn(channels, length, device=device, requires_grad=True)
    dy = torch.randn_like(u) if backward else None
    with torch.no_grad():
        want = rfft(u.double(), k.double())
        for name, convolve in SIDES.items():
            error = ((convolve(u, k) - want).norm() / want.norm()).item()
            if not error <= TOLERANCE:
                raise RuntimeError(f"{name} at {(batch, channels, length)}: relative error {error:.2g} > {TOLERANCE:g}")
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(REPEATS + 1):
        for name, convolve in SIDES.items():
            times[name].append(seconds(convolve, u, k, dy))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    """Print the table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads, float32, causal, K = L")
    print(f"{'B, H, L':>18} {'pass':>8} {'torch ms':>10} {'longconv ms':>12} {'speed-up':>9}")
    for shape in SHAPES:
        for backward in (False, True):
            t = measure(*shape, device, backward)
            name = "both" if backward else "forward"
            cells = f"{1e3 * t['torch']:10.2f} {1e3 * t['longconv']:12.2f} {t['torch'] / t['longconv']:9.2f}"
            print(f"{', '.join(map(str, shape)):>18} {name:>8} {cells}", flush=True)


if __name__ == "__main__":
    main()
