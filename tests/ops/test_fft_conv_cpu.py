"""The backend ``cpu`` of ``fft_conv`` at every size and instruction set; the contract is in test_fft_conv."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv import _native
from longconv.ops import fft_conv
from longconv.ops.fft_conv import cpu
from longconv.ops.fft_conv.plain import Arguments
from tests.tolerances import assert_close

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available())),
]

ERROR = {torch.float32: 5e-7, torch.float64: 3e-15}
"""What a transform of this design is off by, relative L2; the promise to users is tests/tolerances.py."""


@pytest.fixture(params=["sums", "transforms"])
def way(request: pytest.FixtureRequest, isa: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of the backend whatever the number of taps; of the fixture ``isa``, for calls are bound to a way."""
    name: str = request.param
    monkeypatch.setattr(cpu, "_most_taps", lambda *_: 300 if name == "sums" else 0)
    return name


def run(call: dict[str, Tensor], dy: Tensor, **options: Any) -> list[Tensor]:
    """The output, and the gradient of every tensor."""
    leaves: dict[str, Any] = {name: t.detach().requires_grad_() for name, t in call.items()}
    y = fft_conv(**leaves, **options)
    return [y, *torch.autograd.grad(y, list(leaves.values()), dy)]


def against_double(call: dict[str, Tensor], **options: Any) -> None:
    """Everything against the torch backend in float64, which has the same rounded inputs."""
    dy = torch.randn_like(call["u"])
    got = run(call, dy, backend="cpu", **options)
    want = run({n: t.double() for n, t in call.items()}, dy.double(), backend="torch", **options)
    for name, a, b in zip(("y", *call), got, want, strict=True):
        taps = b.shape[-1] if name != "skip" else 1
        if name in ("skip", "k", "k_reverse") and taps < 16:
            # A few numbers, sums of so many terms: their error is that of the terms, however small they are, and
            # nothing evens out that of one or two.
            assert (a - b).norm() <= 2 * ERROR[a.dtype] * max((dy.numel() * taps) ** 0.5, b.norm())
        else:
            # Inputs are of unit scale: what cancels to less is as exact as its terms.
            assert (a - b).norm() <= ERROR[a.dtype] * max(b.norm(), b.numel() ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_size(isa: str, dtype: torch.dtype) -> None:
    """Lengths around every width, leaf and radix, primes and long ones."""
    around = [n + d for n in (4, 16, 64, 128, 192, 256, 320, 768, 1024, 1280, 4096) for d in (-1, 0, 1)]
    for length in (1, 2, 11, 97, *around, 2560, 3840, 4999, 6561, 15625, 16384, 32768, 65536, 69120):
        call = {"u": torch.randn(2, 2, length, dtype=dtype), "k": torch.randn(2, length, dtype=dtype) / length**0.5}
        against_double(call)
        if length < 5000:
            against_double(call, mode="circular")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_taps(isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of taps that registers treat in another way, with tiles that end anywhere and rows before them."""
    monkeypatch.setattr(cpu, "_most_taps", lambda *_: 500)
    for taps in (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64, 100, 128, 129, 200):
        for length in (1, 3, 16, 40, 256, 2048, 2049, 4100):
            call = {"u": torch.randn(2, 2, length, dtype=dtype), "k": torch.randn(2, taps, dtype=dtype) / taps**0.5}
            against_double(call)
            against_double(call, mode="circular", lengths=torch.tensor([length, length // 3]))
            against_double({**call, "k_reverse": torch.randn(2, 2, 37, dtype=dtype) / 6})


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_way_is_chosen_by_taps_length_and_direction(isa: str, dtype: torch.dtype, backward: bool) -> None:
    """Tables of the instruction set; both filters count, and taps beyond the length don't."""

    def is_direct(length: int, taps: int, reverse: int = 0) -> bool:
        k, k_reverse = torch.zeros(1, taps), torch.zeros(1, reverse) if reverse else None
        given = Arguments(k, k_reverse, None, None, None, None, "causal")
        return cpu._Problem((1, 1, length), dtype, given, backward=backward).tables is None

    for number, most in enumerate(cpu._MOST_TAPS[isa][dtype][backward]):
        first = cpu._LENGTHS[number - 1] if number else most + 1
        last = cpu._LENGTHS[number] - 1 if number < len(cpu._LENGTHS) else 10 * first
        for length in (first, last):
            assert is_direct(length, most) and is_direct(length, most - 3, 3)
            assert not is_direct(length, most + 1) and not is_direct(length, most - 3, 4)
    assert is_direct(3, 9999, 9999)


def test_each_direction_goes_its_own_way(isa: str) -> None:
    """Sums forward and transforms for the gradients, where the tables differ, belong together."""
    for dtype, (forward, backward) in cpu._MOST_TAPS[isa].items():
        for length, taps, others in zip((cpu._LENGTHS[0] - 1, *cpu._LENGTHS), forward, backward, strict=True):
            for count in {(taps + others) // 2, taps + others}:
                call = {"u": torch.randn(2, 2, length, dtype=dtype), "skip": torch.randn(2, dtype=dtype)}
                against_double({**call, "k": torch.randn(2, count, dtype=dtype) / count**0.5})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["causal", "circular"])
def test_sixteen_bits_are_the_rounded_float32(way: str, dtype: torch.dtype, mode: str) -> None:
    """Denormals, overflow, infinities and NaN included: at every scale the same numbers as torch's conversions give."""
    for length in (1, 5, 16, 100, 300, 1024):
        scales = 2.0 ** torch.arange(-26, 16)[:, None, None]
        shape = (scales.numel() + 2, 2, length)
        u, pre_gate, post_gate, dy = (torch.randn(shape) for _ in range(4))
        u[:-2], dy[:-2], u[-2], u[-1] = u[:-2] * scales, dy[:-2] * scales, torch.nan, torch.inf
        narrow = {"u": u, "pre_gate": pre_gate, "post_gate": post_gate}
        narrow = {name: t.to(dtype) for name, t in narrow.items()}
        filters = {"k": torch.randn(2, length) / length**0.5, "skip": torch.randn(2)}
        if mode == "causal":
            filters["k_reverse"] = torch.randn(shape[0], 2, length) / length**0.5
        if length % 4 == 0:
            filters = {name: t.to(dtype) for name, t in filters.items()}
        wide = {n: t.float() for n, t in {**narrow, **filters}.items()}
        got = run(narrow | filters, dy.to(dtype), mode=mode, backend="cpu")
        want = run(wide, dy.to(dtype).float(), mode=mode, backend="cpu")
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b.to(a.dtype), rtol=0, atol=0, equal_nan=True)


def test_filters_of_two_dtypes(way: str) -> None:
    """One in 16 bits and one in float32 beside a u of 16 bits."""
    u, k, k_reverse = torch.randn(2, 3, 400).bfloat16(), torch.randn(3, 90) / 9, torch.randn(3, 20).bfloat16() / 4
    want = fft_conv(u, k, k_reverse=k_reverse.float(), backend="cpu")
    assert torch.equal(fft_conv(u, k, k_reverse=k_reverse, backend="cpu"), want)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_calls(isa: str, data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    most = data.draw(st.sampled_from([0, 300]), label="few taps")
    monkeypatch.setattr(cpu, "_most_taps", lambda *_: most)
    batch, channels = data.draw(st.integers(1, 3), label="B"), data.draw(st.integers(1, 3), label="H")
    length = data.draw(st.integers(1, 5000), label="L")
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), label="dtype")
    mode = data.draw(st.sampled_from(["causal", "circular"]), label="mode")

    def taps(label: str) -> Tensor:
        count = data.draw(st.one_of(st.integers(1, 150), st.integers(1, 6000)), label=label)
        lead = (channels,) if data.draw(st.booleans(), label=f"{label}: shared") else (batch, channels)
        return torch.randn(*lead, count, dtype=dtype) / count**0.5

    shape = (batch, channels, length)
    call = {"u": torch.randn(shape, dtype=dtype), "k": taps("K")}
    if mode == "causal" and data.draw(st.booleans(), label="two-sided"):
        call["k_reverse"] = taps("K reverse")
    if data.draw(st.booleans(), label="skip"):
        call["skip"] = torch.randn(channels, dtype=dtype)
    for name in ("pre_gate", "post_gate"):
        if data.draw(st.booleans(), label=name):
            call[name] = torch.randn(shape, dtype=dtype)
    lengths = None
    if data.draw(st.booleans(), label="lengths"):
        lengths = torch.tensor([length, *(data.draw(st.integers(0, length)) for _ in range(batch - 1))])
    against_double(call, mode=mode, lengths=lengths)


@pytest.mark.parametrize("mode", ["causal", "circular"])
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("taps", [40, 3000])
def test_threads_change_nothing(mode: str, threads: int, taps: int) -> None:
    """Neither their number nor what each takes: with few filters samples of one, with many several at a time."""
    before = torch.get_num_threads()
    calls = [{"u": torch.randn(b, h, 3000), "k": torch.randn(h, taps)} for b, h in ((9, 1), (2, 9), (2, 80), (1, 1))]
    alone = [run(call, call["u"], mode=mode, backend="cpu") for call in calls]
    torch.set_num_threads(threads)
    try:
        together = [run(call, call["u"], mode=mode, backend="cpu") for call in calls]
    finally:
        torch.set_num_threads(before)
    for got, want in zip(together, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("length", [5, 300, 1024, 5000])
@pytest.mark.parametrize("taps", [20, 5000])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_stays_alone(length: int, taps: int, bad: float) -> None:
    u, k = torch.randn(3, 2, length), torch.randn(2, taps)
    clean = run({"u": u, "k": k}, u, backend="cpu")
    spoiled = u.clone()
    spoiled[1, 1, length // 2] = bad
    got = run({"u": spoiled, "k": k}, u, backend="cpu")
    others = torch.ones(3, 2, dtype=torch.bool)
    others[1, 1] = False
    assert torch.equal(got[0][others], clean[0][others])
    assert not got[0][1, 1].isfinite().all()
    assert torch.equal(got[1], clean[1]), "du doesn't depend on u"
    assert torch.equal(got[2][0], clean[2][0])
    assert not got[2][1].isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("length", [5, 40, 300, 2049])
def test_sums_keep_a_bad_number_to_the_taps_that_meet_it(
    isa: str, length: int, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And to the times that it reaches: those before the sequence and after it, or within a vector, are zeros."""
    monkeypatch.setattr(cpu, "_most_taps", lambda *_: 300)
    taps, reverse = min(length, 20), min(length - 1, 7)
    later, earlier, times = torch.arange(taps), torch.arange(1, reverse + 1), torch.arange(length)
    for place in {0, 3, length // 2, length - 1}:
        for spoiled in ("u", "dy"):
            u, dy = torch.randn(1, 1, length), torch.randn(1, 1, length)
            (u if spoiled == "u" else dy)[..., place] = bad
            y, _, dk, dk_reverse = run({"u": u, "k": torch.randn(1, taps), "k_reverse": torch.randn(1, reverse)}, dy)
            sign = 1 if spoiled == "u" else -1
            inside = [(t >= 0) & (t < length) for t in (place + sign * later, place - sign * earlier)]
            assert torch.equal(dk[0].isfinite(), ~inside[0])
            assert torch.equal(dk_reverse[0].isfinite(), ~inside[1])
            reached = (times >= place - reverse) & (times < place + taps) & (spoiled == "u")
            assert torch.equal(y[0, 0].isfinite(), ~reached)


def test_views_give_what_copies_give() -> None:
    """Rows at any stride, among them repeated ones and channels-last ones."""
    u = torch.randn(3, 1000, 4)
    k = torch.randn(2000, 4)
    for seen in (u.mT, u.mT[:, :, ::3], u.mT[:1].expand(3, -1, -1), u.mT.flip(-1)):
        dy = torch.randn(seen.shape)
        got = run({"u": seen, "k": k.mT[:, ::2], "pre_gate": seen}, dy.mT.contiguous().mT)
        want = run({"u": seen.contiguous(), "k": k.mT[:, ::2].contiguous(), "pre_gate": seen.contiguous()}, dy)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2])
def test_channels_last_in_groups(way: str, dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More channels than are put in order at a time, with filters a sample, gates and lengths; no copy of a whole."""
    monkeypatch.setattr(cpu, "_GROUP", 2**12)
    batch, length, channels = 3, 100, 77
    u, pre_gate, post_gate, dy = (torch.randn(batch, length, channels).to(dtype).mT for _ in range(4))
    lengths = torch.tensor([100, 0, 63])
    for rank in (2, 3):
        taps = {"k": torch.randn(batch, channels, 120)} if rank == 3 else {"k": torch.randn(channels, 40)}
        taps |= {"k_reverse": torch.randn(channels, 30), "skip": torch.randn(channels)}
        gates = {"pre_gate": pre_gate, "post_gate": post_gate}
        want = run({"u": u.contiguous(), **{n: g.contiguous() for n, g in gates.items()}} | taps, dy, lengths=lengths)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
                got = run({"u": u, **gates} | taps, dy, lengths=lengths)
        finally:
            torch.set_num_threads(before)
        assert all(a.is_contiguous() and torch.equal(a, b) for a, b in zip(got, want, strict=True))
        copies = [e.cpu_memory_usage for e in seen.events() if e.name in ("aten::contiguous", "aten::clone")]
        assert not any(copies)


def test_channels_last_is_never_copied_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the result no memory is taken but that of a cache line of channels a thread, where samples are many."""
    monkeypatch.setattr(cpu, "_GROUP", 2**12)
    monkeypatch.setattr(cpu, "_MOST", 2**14)
    u, k = torch.randn(3, 1000, 80).mT, torch.randn(80, 1000)
    fft_conv(u, k, backend="cpu")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        fft_conv(u, k, backend="cpu")
    *others, result = sorted(event.cpu_memory_usage for event in seen.events() if event.name == "aten::empty")
    assert result == u.nbytes
    assert 0 < others[-1] <= u.nbytes * 16 * torch.get_num_threads() // 80


def test_tables_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes are kept, and the plan that was just made whatever its size."""
    monkeypatch.setattr(cpu, "_plans", {})
    monkeypatch.setattr(cpu, "CACHE_BYTES", 60_000)
    for length in (256, 2048, 4096, 300, 2048, 100_000, 5):
        cpu._plan(length, False, torch.float32)
        kept = [tables.nbytes for tables in cpu._plans.values()]
        assert sum(kept) <= 60_000 or len(kept) == 1
        assert length in {key[0] for key in cpu._plans}
    assert cpu._plan(5, False, torch.float32) is cpu._plan(5, False, torch.float32)


def test_tables_live_as_long_as_what_is_bound_to_them(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small call keeps the addresses of its tables, which others may have driven out."""
    monkeypatch.setattr(cpu, "_plans", {})
    monkeypatch.setattr(cpu, "CACHE_BYTES", 1)
    u, k = torch.randn(1, 1, 1500), torch.randn(1, 1500)
    want = fft_conv(u, k)
    for length in (1501, 1700, 1900):
        fft_conv(torch.randn(1, 1, length), torch.randn(1, length))
    gc.collect()
    assert not any(key[0] == 1500 for key in cpu._plans)
    assert torch.equal(fft_conv(u.clone(), k.clone()), want)


def test_a_tensor_that_is_two_arguments(isa: str) -> None:
    """What is found out for a call holds for others of that layout, whose arguments are different tensors."""
    u, other, k = torch.randn(1, 2, 30), torch.randn(1, 2, 30), torch.randn(2, 30)
    fft_conv(u, k, pre_gate=u)
    want = fft_conv(u.double(), k.double(), pre_gate=other.double(), backend="torch")
    assert_close(fft_conv(u, k, pre_gate=other), want, ERROR[torch.float32])


def test_no_memory() -> None:
    """A request that no machine can meet is a MemoryError, and the next call works."""
    u = torch.zeros(1).expand(2**20, 2**20, 8)
    with pytest.raises(MemoryError, match="fft_conv: no memory"):
        fft_conv(u, torch.zeros(1).expand(2**20, 8), backend="cpu")
    assert_close(fft_conv(torch.ones(1, 1, 2), torch.ones(1, 2)), torch.tensor([[[1.0, 2.0]]]), 1e-6)


def test_lazily_negated_views() -> None:
    """The imaginary part of a lazy conjugate has its sign in a flag, not in memory."""
    u, k, skip = (torch.randn(shape, dtype=torch.complex64).conj().imag for shape in ((2, 3, 50), (3, 50), (3,)))
    assert u.is_neg() and k.is_neg() and skip.is_neg()
    want = fft_conv(u.resolve_neg(), k.resolve_neg(), skip=skip.resolve_neg())
    assert torch.equal(fft_conv(u, k, skip=skip), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_that_of_a_few_rows(dtype: torch.dtype) -> None:
    """Beside the results the call takes a few rows a thread, whatever the batch: the plan is there already."""
    u, k = torch.randn(8, 64, 1024).to(dtype), torch.randn(64, 1024)
    fft_conv(u, k, backend="cpu")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        fft_conv(u, k, backend="cpu")
    taken = sum(max(event.cpu_memory_usage, 0) for event in profile.events() if event.name == "aten::empty")
    assert 0 < taken <= u.nbytes + 12 * 4 * 1024 * torch.get_num_threads()


@pytest.mark.parametrize("mode", ["causal", "circular"])
def test_rows_past_the_caches(mode: str) -> None:
    """Long rows are written past them where they are aligned: the first is, the second isn't. Both end in a vector."""
    length = 2**20 + 3
    valid = length - 5
    u, pre_gate, post_gate, dy = (torch.randn(1, 2, length) for _ in range(4))
    call = {"u": u, "k": torch.randn(2, 3000) / 3000**0.5, "pre_gate": pre_gate, "post_gate": post_gate}
    wide = {name: t.double().requires_grad_() for name, t in call.items()}
    x = (wide["u"] * wide["pre_gate"])[..., :valid]
    z = torch.fft.irfft(torch.fft.rfft(x, n=2**21) * torch.fft.rfft(wide["k"], n=2**21))
    head, tail = z[..., :valid], z[..., valid : 2 * valid]
    y = (head + tail if mode == "circular" else head) * wide["post_gate"][..., :valid]
    y = torch.nn.functional.pad(y, (0, length - valid))
    want = [y, *torch.autograd.grad(y, list(wide.values()), dy.double())]
    options: dict[str, Any] = {"mode": mode, "lengths": torch.tensor([valid]), "backend": "cpu"}
    before = _native.chosen_isa(_native.cpu())
    assert before is not None
    try:
        for isa in [name for name, supported in _native.isas(_native.cpu()).items() if supported]:
            _native.select_isa(_native.cpu(), isa)
            assert_close(fft_conv(**call, **options), y)
    finally:
        _native.select_isa(_native.cpu(), before)
    for got, expected in zip(run(call, dy, **options), want, strict=True):
        assert_close(got, expected)


def test_dispatch_changes_the_plan() -> None:
    """A plan belongs to an instruction set: its tables are laid out by the width of the vectors."""
    u, k = torch.randn(1, 1, 777), torch.randn(1, 777)
    want = fft_conv(u.double(), k.double(), backend="torch")
    before = _native.chosen_isa(_native.cpu())
    assert before is not None
    try:
        for isa in [name for name, supported in _native.isas(_native.cpu()).items() if supported] * 2:
            _native.select_isa(_native.cpu(), isa)
            assert_close(fft_conv(u, k, backend="cpu"), want, ERROR[torch.float32])
    finally:
        _native.select_isa(_native.cpu(), before)
