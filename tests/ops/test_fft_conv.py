"""``fft_conv``: every backend against the definition, and the definition against independent sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode

from longconv.ops import fft_conv
from longconv.ops.fft_conv import torch_fft
from longconv.ops.fft_conv.operator import BACKENDS
from longconv.ops.fft_conv.plain import Filter
from longconv.ops.fft_conv.reference import MatrixConvolution
from tests.ops.native_calls import fast
from tests.tolerances import RELATIVE_L2, assert_close

B, H = 2, 3
FAST = fast(BACKENDS)


def make(
    length: int,
    taps: int,
    *,
    rank: int = 2,
    reverse: int = 0,
    reverse_rank: int = 2,
    gates: bool = False,
    skip: bool = False,
) -> dict[str, Tensor]:
    """Random float64 arguments of unit scale; the output is of about unit scale too."""
    filters = {2: (H,), 3: (B, H)}
    call = {"u": torch.randn(B, H, length), "k": torch.randn(*filters[rank], taps) / taps**0.5}
    if reverse:
        call["k_reverse"] = torch.randn(*filters[reverse_rank], reverse) / reverse**0.5
    if skip:
        call["skip"] = torch.randn(H)
    if gates:
        call["pre_gate"], call["post_gate"] = torch.randn(B, H, length), torch.randn(B, H, length)
    return {name: tensor.double() for name, tensor in call.items()}


def run(call: dict[str, Tensor], dy: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The output and the gradient of <y, dy> to every tensor."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in call.items()}
    y = _apply(leaves, options)
    return y, dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), dy.to(y.dtype)), strict=True))


def second_derivatives(call: dict[str, Tensor], dy: Tensor, **options: Any) -> tuple[Tensor, ...]:
    """The gradient of the square norm of the gradient to all inputs and dy."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in call.items()}
    everything, dy = list(leaves.values()), dy.detach().requires_grad_()
    first = torch.autograd.grad(_apply(leaves, options), everything, dy, create_graph=True)
    return torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), [*everything, dy])


def _apply(call: dict[str, Tensor], options: dict[str, Any]) -> Tensor:
    arguments: dict[str, Any] = {**call, **options}
    return fft_conv(**arguments)


def loop(call: dict[str, Tensor], mode: str, lengths: list[int]) -> np.ndarray:
    """The equations of the docstring, sample by sample, as plain loops."""
    arrays = {name: tensor.numpy() for name, tensor in call.items()}
    u, k, reverse = arrays["u"], arrays["k"], arrays.get("k_reverse")
    y = np.zeros_like(u)
    for b, length in enumerate(lengths):
        for h in range(H):
            tap, back = (
                (k[h] if k.ndim == 2 else k[b, h]),
                None if reverse is None else (reverse[h] if reverse.ndim == 2 else reverse[b, h]),
            )
            x = u[b, h] * (arrays["pre_gate"][b, h] if "pre_gate" in arrays else 1)
            for t in range(length):
                total = x[t] * (arrays["skip"][h] if "skip" in arrays else 0)
                for s in range(length):
                    lag = (t - s) % length if mode == "circular" else t - s
                    if 0 <= lag < len(tap):
                        total += tap[lag] * x[s]
                    elif lag < 0 and back is not None and -lag - 1 < len(back):
                        total += back[-lag - 1] * x[s]
                y[b, h, t] = total * (arrays["post_gate"][b, h, t] if "post_gate" in arrays else 1)
    return y


@pytest.mark.parametrize("mode", ["causal", "circular"])
@pytest.mark.parametrize("lengths", [None, [7, 4], [0, 7]])
@pytest.mark.parametrize(("taps", "rank"), [(1, 2), (3, 3), (7, 2), (11, 3)])
def test_reference_is_the_equation(mode: str, lengths: list[int] | None, taps: int, rank: int) -> None:
    call = make(7, taps, rank=rank, reverse=0 if mode == "circular" else 4, gates=True, skip=True)
    limits = None if lengths is None else torch.tensor(lengths)
    y = _apply(call, {"mode": mode, "lengths": limits, "backend": "reference"})
    assert_close(y, torch.from_numpy(loop(call, mode, lengths or [7] * B)))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("taps", [1, 50, 100])
def test_agrees_with_scipy(backend: str, taps: int) -> None:
    call = make(100, taps)
    want = scipy.signal.fftconvolve(call["u"], call["k"][None].expand(B, -1, -1), axes=-1)[..., :100]
    assert_close(fft_conv(call["u"], call["k"], backend=backend), torch.from_numpy(want))


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_agrees_with_reference(backend: str, data: st.DataObject) -> None:
    """Output and all gradients in float64, over shapes, modes, ranks, gates and lengths."""
    length = data.draw(st.integers(1, 150), label="L")
    mode = data.draw(st.sampled_from(["causal", "circular"]), label="mode")
    call = make(
        length,
        data.draw(st.integers(1, 200), label="K"),
        rank=data.draw(st.sampled_from([2, 3]), label="rank"),
        reverse=data.draw(st.integers(0, 200), label="K reverse") if mode == "causal" else 0,
        reverse_rank=data.draw(st.sampled_from([2, 3]), label="rank reverse"),
        gates=data.draw(st.booleans(), label="gates"),
        skip=data.draw(st.booleans(), label="skip"),
    )
    lengths = torch.tensor([length, data.draw(st.integers(0, length))]) if data.draw(st.booleans()) else None
    dy = torch.randn(B, H, length, dtype=torch.float64)
    y, grads = run(call, dy, mode=mode, lengths=lengths, backend=backend)
    want, want_grads = run(call, dy, mode=mode, lengths=lengths, backend="reference")
    assert_close(y, want)
    for name in call:
        if want_grads[name].count_nonzero() or grads[name].count_nonzero():
            assert_close(grads[name], want_grads[name])


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("length", [1, 2, 64, 997, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["causal", "circular"])
@pytest.mark.parametrize("padded", [False, True])
def test_precision(backend: str, length: int, dtype: torch.dtype, mode: str, padded: bool) -> None:
    """The rounded inputs in float64 are the truth; filters stay float32 under 16 bits."""
    wide = make(length, length, reverse=max(length - 1, 1) if mode == "causal" else 0, gates=True, skip=True)
    options = {"mode": mode, "lengths": torch.tensor([length, (length + 1) // 2]) if padded else None}
    narrow = {
        n: t.to(torch.float32 if n in ("k", "k_reverse", "skip") and dtype != torch.float32 else dtype)
        for n, t in wide.items()
    }
    dy = torch.randn(B, H, length).to(dtype).double()
    y, grads = run(narrow, dy, backend=backend, **options)
    want, want_grads = run({n: t.double() for n, t in narrow.items()}, dy, backend="reference", **options)
    assert y.dtype == dtype
    assert_close(y, want)
    for name, grad in grads.items():
        assert grad.dtype == narrow[name].dtype
        if want_grads[name].count_nonzero():
            assert_close(grad, want_grads[name], RELATIVE_L2[dtype])


@pytest.mark.parametrize("length", [1, 2, 3, 64, 97])
@pytest.mark.parametrize("reverse", [False, True])
def test_both_rings(length: int, reverse: bool) -> None:
    """The ring is a matter of speed: each gives the convolution, one- and two-sided, and its gradients."""
    x, g = torch.randn(2, B, H, length, dtype=torch.float64)
    k, k_reverse = torch.randn(H, length, dtype=torch.float64), torch.randn(H, max(length - 1, 1), dtype=torch.float64)
    taps = Filter(k, k_reverse if reverse and length > 1 else None, length, "causal", None)
    want = MatrixConvolution(taps)
    for ring in (torch_fft.Padded(2 * length), torch_fft.Twisted(length), torch_fft.Twisted(length + 5)):
        got = torch_fft.SpectralConvolution(taps, ring)
        assert_close(got.apply(x), want.apply(x))
        wanted = (True, True, taps.k_reverse is not None)
        for a, b in zip(got.gradients(x, g, wanted), want.gradients(x, g, wanted), strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert_close(a, b)


def test_twisted_ring_has_the_tail_in_its_imaginary_part() -> None:
    """Product modulo X^L - i: the real part is y[0..L-1], the imaginary part is y[L..2L-1]."""
    u, k = torch.randn(64).double(), torch.randn(64).double()
    ring = torch_fft.Twisted(64)
    z = torch.fft.ifft(ring.transform(u) * ring.transform(k)) / torch_fft.twist(64, u)
    full = torch.from_numpy(np.convolve(u, k))
    assert_close(z.real, full[:64])
    assert_close(z.imag[:63], full[64:])


def test_twists_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_fft, "_twists", {})
    monkeypatch.setattr(torch_fft, "CACHE_BYTES", 1000)
    x = torch.zeros(1)
    with FakeTensorMode() as mode:
        assert isinstance(torch_fft.twist(8, mode.from_tensor(x)), FakeTensor)
    assert not torch_fft._twists, "what a fake tensor got is of no use to a real one"
    w = torch_fft.twist(8, x)
    assert torch_fft.twist(8, x) is w
    torch_fft.twist(100, x)
    assert torch_fft.twist(8, x) is w
    torch_fft.twist(50, x)
    assert [key[0] for key in torch_fft._twists] == [8, 50], "the one that was not used for longest made room"


def test_choice_of_ring() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert isinstance(torch_fft.choose_ring(1000, 999, cpu), torch_fft.Padded)
    assert isinstance(torch_fft.choose_ring(1000, 999, gpu), torch_fft.Twisted)
    assert torch_fft.choose_ring(1000, 3, gpu) == torch_fft.Padded(1008), "a short filter needs little padding"
    taps = Filter(torch.randn(H, 10), torch.randn(H, 50), 1000, "causal", None)
    assert torch_fft.SpectralConvolution(taps).ring == torch_fft.Padded(1050)


@pytest.mark.parametrize("backend", ["auto", "reference", *FAST])
@pytest.mark.parametrize("ranks", [(2, 3), (3, 2)], ids=str)
def test_filters_of_different_ranks(backend: str, ranks: tuple[int, int]) -> None:
    """One of the filters shared by all samples, the other one a sample: as if the shared one were repeated."""
    call = make(9, 9, rank=ranks[0], reverse=4, reverse_rank=ranks[1])
    repeated = {n: t.expand(B, *t.shape) if t.ndim == 2 else t for n, t in call.items()}
    dy = torch.randn(B, H, 9, dtype=torch.float64)
    y, grads = run(call, dy, backend=backend)
    want, want_grads = run(repeated, dy, backend=backend)
    assert_close(y, want)
    for name, grad in grads.items():
        assert_close(grad, want_grads[name] if call[name].ndim == 3 else want_grads[name].sum(0))


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("mode", ["causal", "circular"])
def test_lengths_out_of_range_count_as_the_nearest(backend: str, mode: str) -> None:
    """Where reading them would stall the device; the backends that a GPU has, past the check, on the CPU."""
    call, dy = make(8, 8), torch.randn(B, H, 8, dtype=torch.float64)
    chosen = next(b for b in BACKENDS.backends if b.name == backend)
    forward, backward = chosen.forward, chosen.backward
    assert backward is not None

    def values(lengths: list[int]) -> list[Tensor]:
        rest = (call["k"], None, None, None, None, torch.tensor(lengths), mode)
        return [forward(call["u"], *rest), *backward(dy, call["u"], *rest, [True, True, *[False] * 4])]

    for got, want in zip(values([20, -3]), values([8, 0]), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("mode", ["causal", "circular"])
def test_gradients_numerically(mode: str) -> None:
    """First and second derivatives of every argument against finite differences."""
    call = make(6, 5, reverse=0 if mode == "circular" else 4, gates=True, skip=True)
    names, tensors = list(call), [t.requires_grad_() for t in call.values()]

    def apply(*tensors: Tensor) -> Tensor:
        return _apply(dict(zip(names, tensors, strict=True)), {"mode": mode, "lengths": torch.tensor([6, 4])})

    assert torch.autograd.gradcheck(apply, tensors)
    assert torch.autograd.gradgradcheck(apply, tensors)


def test_causality_by_gradient() -> None:
    u, k = torch.randn(1, 1, 50, dtype=torch.float64, requires_grad=True), torch.randn(1, 50, dtype=torch.float64)
    grads = torch.stack([torch.autograd.grad(fft_conv(u, k)[0, 0, t], u)[0][0, 0] for t in range(50)])
    assert grads.triu(1).abs().max() < 1e-14
    assert grads.tril().count_nonzero() == 50 * 51 // 2


def test_circular_is_shift_equivariant() -> None:
    u, k = torch.randn(B, H, 45).double(), torch.randn(H, 45).double()
    assert_close(fft_conv(u.roll(7, -1), k, mode="circular"), fft_conv(u, k, mode="circular").roll(7, -1))


def test_lengths_equal_separate_calls_and_ignore_padding() -> None:
    """NaN in the padding of any input changes nothing, gradients included, and outputs there are zero."""
    for mode in ("causal", "circular"):
        call = make(20, 20, reverse=0 if mode == "circular" else 9, gates=True, skip=True)
        lengths, dy = torch.tensor([20, 13]), torch.randn(B, H, 20, dtype=torch.float64)
        spoiled = {n: t.clone() for n, t in call.items()}
        for name in ("u", "pre_gate", "post_gate"):
            spoiled[name][1, :, 13:] = torch.nan
        y, grads = run(call, dy, lengths=lengths, mode=mode)
        y_spoiled, grads_spoiled = run(spoiled, dy, lengths=lengths, mode=mode)
        assert torch.equal(y, y_spoiled)
        assert y[1, :, 13:].count_nonzero() == 0
        for name in call:
            assert torch.equal(grads[name], grads_spoiled[name]), name
        dy_spoiled = dy.masked_fill(y_spoiled == 0, torch.nan)
        second, second_spoiled = (
            second_derivatives(c, d, lengths=lengths, mode=mode) for c, d in ((call, dy), (spoiled, dy_spoiled))
        )
        for got, expected in zip(second_spoiled, second, strict=True):
            assert torch.equal(got, expected)
        alone = {n: t[1:, :, :13] if n in ("u", "pre_gate", "post_gate") else t for n, t in call.items()}
        assert_close(y[1:, :, :13], _apply(alone, {"mode": mode}))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_sample_stays_alone(bad: float) -> None:
    call = make(30, 30)
    clean = _apply(call, {})
    call["u"][1, 1, 4] = bad
    y = _apply(call, {})
    assert torch.equal(y[0], clean[0])
    assert torch.equal(y[1, 0], clean[1, 0])
    assert not y[1, 1].isfinite().all()


@pytest.mark.parametrize("shape", [(0, H, 8), (B, H, 0), (B, 0, 8)])
def test_empty(shape: tuple[int, int, int]) -> None:
    u, k = torch.randn(shape, requires_grad=True), torch.randn(shape[1], 4, requires_grad=True)
    y = fft_conv(u, k, skip=torch.randn(shape[1]))
    y.sum().backward()
    assert y.shape == shape
    assert u.grad is not None and u.grad.shape == shape
    assert k.grad is not None and k.grad.count_nonzero() == 0
    assert torch.autograd.gradgradcheck(lambda u, k: fft_conv(u, k), (u.double(), k.double()))
    first = torch.autograd.grad(fft_conv(u, k).sum(), (u, k), torch.ones(()), create_graph=True)
    second = torch.autograd.grad(first[0].sum() + first[1].square().sum(), (u, k), allow_unused=True)
    assert all(t is None or t.count_nonzero() == 0 for t in second)


def test_strided_inputs() -> None:
    """A (B, L, H) sequence transposed, and sliced tensors, give what copies give; the output is contiguous."""
    u, k = torch.randn(B, 40, H).double().mT, torch.randn(H, 80).double()[:, ::2]
    y = fft_conv(u, k, lengths=torch.tensor([40, 11]))
    assert y.is_contiguous()
    assert torch.equal(y, fft_conv(u.contiguous(), k.contiguous(), lengths=torch.tensor([40, 11])))


def saved_by(call: dict[str, Tensor], frozen: set[str]) -> set[str]:
    """The names of the arguments that the graph keeps; a kept tensor that is no argument is 'computed'."""
    leaves = {n: t.detach().requires_grad_(n not in frozen) for n, t in call.items()}
    names = {t.data_ptr(): n for n, t in leaves.items()}
    kept: set[str] = set()

    def pack(tensor: Tensor) -> Tensor:
        kept.add(names.get(tensor.data_ptr(), "computed"))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _apply(leaves, {})
    return kept


def test_autograd_keeps_inputs_alone() -> None:
    call = make(16, 16, gates=True, skip=True)
    assert saved_by(call, set()) == set(call)
    plain = make(16, 16)
    assert saved_by(plain, set()) == {"u", "k"}
    assert saved_by(plain, {"k"}) == {"k"}, "a frozen filter needs no input for the input's gradient"
    assert saved_by(plain, {"u", "k"}) == set()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"u": torch.randn(3, 8)}, ValueError, r"u is a \(3, 8\).*\(B, H, L\)"),
        ({"u": torch.ones(B, H, 8, dtype=torch.int64)}, TypeError, "int64.*expected dtype"),
        ({"u": [1.0]}, TypeError, "u is .*list"),
        ({"k": torch.randn(H + 1, 8)}, ValueError, r"k is a \(4, 8\).*\(H, K\) = \(3, any\)"),
        ({"k": torch.randn(B + 1, H, 8)}, ValueError, r"\(B, H, K\) = \(2, 3, any\)"),
        ({"k": torch.randn(H, 0)}, ValueError, "at least one tap"),
        ({"k": torch.randn(H, 8).double()}, TypeError, "k is .*float64.*expected dtype float32"),
        ({"k": torch.randn(H, 8, device="meta")}, ValueError, "k is on meta, but u is on cpu"),
        ({"k_reverse": torch.randn(H)}, ValueError, "k_reverse"),
        ({"k_reverse": torch.randn(H, 3), "mode": "circular"}, ValueError, "k_reverse.*circular"),
        ({"skip": torch.randn(H + 1)}, ValueError, "skip"),
        ({"pre_gate": torch.randn(B, H, 9)}, ValueError, r"pre_gate is a \(2, 3, 9\).*\(2, 3, 8\)"),
        ({"post_gate": torch.randn(B, H)}, ValueError, "post_gate"),
        ({"post_gate": torch.randn(B, H, 8).double()}, TypeError, "post_gate"),
        ({"mode": "circle"}, ValueError, "mode is 'circle'.*did you mean 'circular'"),
        ({"backend": "torhc"}, ValueError, "backend.*did you mean 'torch'"),
        ({"lengths": torch.tensor([9, 1])}, ValueError, "lengths go from 1 to 9.*L = 8"),
        ({"lengths": torch.tensor([-1, 1])}, ValueError, "lengths go from -1"),
        ({"lengths": torch.tensor([1])}, ValueError, "lengths"),
        ({"lengths": torch.tensor([1, 8], device="meta")}, ValueError, "lengths is on meta, but u is on cpu"),
        ({"lengths": torch.tensor([1.0, 2.0])}, TypeError, "lengths"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    call: dict[str, Any] = {"u": torch.randn(B, H, 8), "k": torch.randn(H, 8), **change}
    with pytest.raises(error, match=words):
        fft_conv(**call)
